"""The claim of a refund: how much may go back, and the request, committed before it is sent.

Law: inside one transaction, after the payment was read anew. More than is left of the money is
never asked for, and more than unspent credit covers only where the operator allows debt.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from guthaben.domain.money import format_chf
from guthaben.domain.refunding import most_without_debt
from guthaben.domain.topup import CreditEvent
from guthaben.errors import IdempotencyConflict, InvalidAmount, Refused
from guthaben.services.checks import MAX_TEXT, checked_text, key_of, reason_of
from guthaben.store import cases, refunds, topups
from guthaben.store.refunds import RefundRow
from guthaben.store.workspace import Workspace

RETRY_S: Final = 60


@dataclass(frozen=True, slots=True)
class Quote:
    """What of a payment may go back, in Rappen.

    `refundable_rappen` is what is left of the money; `unspent_rappen` the part of it whose credit
    nobody has used, so that no debt arises.
    """

    practice_id: str
    event_no: int
    payment_id: str
    captured_rappen: int
    left_rappen: int
    waiting_rappen: int
    refundable_rappen: int
    unspent_rappen: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for; `amount_rappen` None means all that is left."""

    amount_rappen: int | None
    key: str
    reason: str
    author: str = ""
    allow_debt: bool = False


def quote(space: Workspace, payment_id: str) -> Quote:
    """Tell how much of a credited payment can go back; raises `Refused` (`payment_not_found`)."""
    space.flush()
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, payment_id)
    if owner is None:
        raise Refused("There is no such credited payment.", reason="payment_not_found")
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    practice = space.practice(practice_id)  # first, so that no other server books meanwhile
    event = topups.load_event(space.cursor, owner.practice_no, owner.event_no)
    assert event is not None
    waiting = refunds.in_flight(space.cursor, payment_id)
    waits = waiting.amount_minor if waiting else 0
    most = max(event.net_minor - waits, 0)
    unspent = most_without_debt(practice, event, most, space.now_s)
    return Quote(
        practice_id, event.event_no, payment_id, event.captured_minor, event.net_minor, waits,
        most, unspent,
    )  # fmt: skip


def claim(space: Workspace, payment_id: str, wish: Wish) -> tuple[RefundRow, bool]:
    """Commit the request, or find the one that the key belongs to; tell whether it is new."""
    offer = quote(space, payment_id)
    practice_no = space.practice_no(offer.practice_id)
    known = refunds.by_key(space.cursor, practice_no, wish.key)
    if known is not None:
        return _same(known, payment_id, wish), False
    _one_at_a_time(space, payment_id)
    amount = offer.refundable_rappen if wish.amount_rappen is None else wish.amount_rappen
    most = f"{format_chf(offer.refundable_rappen)} CHF are left of the payment"
    unspent = f"{format_chf(offer.unspent_rappen)} CHF of it are unspent"
    if not 0 < amount <= offer.refundable_rappen:
        raise Refused(f"{most}, {unspent}: ask for no more.", reason="more_than_left")
    if amount > offer.unspent_rappen and not wish.allow_debt:
        raise Refused(
            f"{most}, {unspent}: more would become debt of the practice. Ask for less, or allow"
            " debt.",
            reason="more_than_unspent",
        )
    event = topups.load_event(space.cursor, practice_no, offer.event_no)
    assert event is not None
    return _insert(space, practice_no, event.event_no, 0, event, payment_id, amount, wish), True


def claim_case(
    space: Workspace, case_no: int, left_rappen: int, wish: Wish
) -> tuple[RefundRow, bool]:
    """Commit the request to give a held-back payment back whole; tell whether it is new."""
    space.flush()
    cases.hold_still(space.cursor, case_no)
    case = cases.load(space.cursor, case_no)
    assert case is not None
    known = refunds.by_key(space.cursor, case.practice_no, wish.key)
    if known is not None:
        return _same(known, case.payment_id, wish), False
    if case.status != cases.OPEN:
        raise Refused(f"The case is {case.status} already.", reason="case_resolved")
    if topups.find_payment(space.cursor, "stripe", topups.PAYMENT, case.payment_id) is not None:
        raise Refused("The payment is credited: refund the top-up.", reason="already_credited")
    _one_at_a_time(space, case.payment_id)
    if left_rappen <= 0:
        raise Refused("Nothing of the payment is left.", reason="more_than_left")
    bare = CreditEvent(case.event_no, "", "", 0, currency=case.currency)
    row = _insert(
        space, case.practice_no, case.event_no, case_no, bare, case.payment_id, left_rappen, wish
    )
    return row, True


def _insert(
    space: Workspace,
    practice_no: int,
    event_no: int,
    case_no: int,
    event: CreditEvent,
    payment_id: str,
    amount_rappen: int,
    wish: Wish,
) -> RefundRow:
    refund_id = "rf_" + secrets.token_hex(12)
    row = RefundRow(
        refund_id, practice_no, event_no, case_no, wish.key, payment_id, amount_rappen,
        event.currency, wish.allow_debt, f"guthaben-{refund_id}", refunds.PENDING,
        next_try_at_s=space.now_s + RETRY_S, asked_at_s=space.now_s,
    )  # fmt: skip
    refunds.insert(space.cursor, row)
    cases.write_note(
        space.cursor, f"refund:{refund_id}", "refund", author=wish.author, reason=wish.reason,
        now_s=space.now_s,
    )  # fmt: skip
    return row


def _same(known: RefundRow, payment_id: str, wish: Wish) -> RefundRow:
    amounts = (None, known.amount_minor)
    if known.payment_id != payment_id or wish.amount_rappen not in amounts:
        raise IdempotencyConflict(wish.key, operation="refund")
    return known


def _one_at_a_time(space: Workspace, payment_id: str) -> None:
    if refunds.in_flight(space.cursor, payment_id) is not None:
        raise Refused(
            "Another refund of this payment has no answer yet; wait for it.",
            reason="refund_in_flight",
        )


def check(wish: Wish) -> None:
    """Raise for a wish that makes no sense."""
    amount = wish.amount_rappen
    if amount is not None and (type(amount) is not int or amount < 1):
        raise InvalidAmount("a refund is at least 0.01 CHF, in whole Rappen")
    key_of(wish.key)
    checked_text("author", wish.author, MAX_TEXT)
    reason_of(wish.reason)
