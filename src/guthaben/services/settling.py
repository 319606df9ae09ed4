"""Bringing one payment up to date: read it at the provider, then book all that follows from it.

Law: whoever heard of a payment, by whatever event or list, does this one thing. So the order,
repetition and loss of what is told decide nothing. What was read while somebody else booked is
thrown away and read again; nothing is asked inside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from guthaben.domain.commands import CloseEvent
from guthaben.domain.topup import CANCELED, DISPUTE, QUARANTINED, REFUND, TOPUP_PURCHASE
from guthaben.errors import InvalidInput
from guthaben.payments.facts import DisputeFacts, PaymentFacts
from guthaben.payments.gateway import METADATA_TOPUP_ID, PaymentGateway
from guthaben.services.applying import canceled, credit
from guthaben.services.checks import is_practice_id
from guthaben.services.netting import Verdict, book_disputes, settle_net
from guthaben.services.purchases import PaymentNotice, hold_still
from guthaben.store import cases, disputes, payment_states, settings, topups
from guthaben.store.payment_states import Money
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

_MOST_READS: Final = 5

After = Callable[[Workspace, PaymentFacts], Verdict]
"""What else is booked of a payment, in the same transaction."""


class _Known(NamedTuple):
    looks: int
    has_disputes: bool


class Settler:
    """Brings payments up to date, for one store and one provider."""

    def __init__(
        self, store: Store, gateway: PaymentGateway, *, livemode_expected: bool | None = None
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._livemode_expected = livemode_expected

    def settle(
        self,
        payment_id: str,
        session_id: str = "",
        *,
        ask_disputes: bool = False,
        after: After | None = None,
    ) -> Verdict:
        """Read the payment, its refunds and disputes, and book what is not booked yet.

        Raises `PaymentError`, and `InvalidInput` while the provider does not tell enough.
        """
        for _ in range(_MOST_READS):
            known = self._store.read(lambda cur: _known(cur, payment_id))
            facts = self._gateway.retrieve_payment(payment_id)
            asks = ask_disputes or known.has_disputes or facts.disputed is True
            found = self._gateway.payment_disputes(payment_id) if asks else []
            verdict = self._book(facts, found, known.looks, session_id, after)
            if verdict is not None:
                return verdict
        raise InvalidInput("the payment changed each time it was read")

    def _book(
        self,
        facts: PaymentFacts,
        found: list[DisputeFacts],
        looks: int,
        session_id: str,
        after: After | None,
    ) -> Verdict | None:
        def work(space: Workspace) -> Verdict | None:
            space.flush()
            hold_still(space, _names_of(facts, session_id))
            if payment_states.looks(space.cursor, facts.payment_id) != looks:
                return None
            verdict = _applied(space, facts, found, session_id, self._livemode_expected)
            if after is not None and verdict[0] == "done":
                space.flush()
                return after(space, facts)
            return verdict

        return self._store.run(work)


def _known(cursor: Cursor, payment_id: str) -> _Known:
    owner = topups.find_payment(cursor, "stripe", topups.PAYMENT, payment_id)
    has_disputes = owner is not None and bool(disputes.known(cursor, owner))
    return _Known(payment_states.looks(cursor, payment_id), has_disputes)


def _names_of(facts: PaymentFacts, session_id: str) -> PaymentNotice:
    """Give what leads to a payment's practice; what its metadata claim is judged later."""
    practice_id = facts.metadata.get("practice_id", "")
    return PaymentNotice(
        practice_id if is_practice_id(practice_id) else "", TOPUP_PURCHASE, 0, None,
        payment_id=facts.payment_id, session_id=session_id,
        topup_id=facts.metadata.get(METADATA_TOPUP_ID, ""),
    )  # fmt: skip


def _applied(
    space: Workspace,
    facts: PaymentFacts,
    found: list[DisputeFacts],
    session_id: str,
    livemode_expected: bool | None,
) -> Verdict:
    if facts.status == "canceled":
        return canceled(space, facts)
    if facts.status != "succeeded":
        return "done", f"payment_{facts.status}"
    if facts.amount_received_rappen is None or facts.currency is None:
        raise InvalidInput("the payment does not tell its amount yet")
    credited = credit(space, facts, session_id, livemode_expected)
    gone = (facts.refunded_rappen or 0) >= max(facts.amount_received_rappen, 1)
    if credited[0] == "quarantined" and gone:
        return _gone_back(space, facts)
    if credited == ("done", "case_refunded") and not gone:
        return _came_again(space, facts)
    if credited[0] != "done":
        return credited
    space.flush()
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, facts.payment_id)
    if owner is None:
        return credited
    if facts.balance is not None:
        line = facts.balance
        money = Money(line.amount_minor, line.fee_minor, line.net_minor, line.currency)
        payment_states.note_money(space.cursor, facts.payment_id, facts.charge_id or "", money)
    any_disputes, moved = book_disputes(space, facts, found)
    if facts.refunded_rappen is None and (credited[1] == "credited" and not any_disputes):
        return credited  # what went back of it is told by its own events, and asked for then
    netted = settle_net(space, facts, DISPUTE if moved else REFUND)
    if credited[1] == "credited":
        return credited
    return netted if netted[1] == "netted" else ("done", _nothing_new(credited, any_disputes))


def _nothing_new(credited: Verdict, any_disputes: bool) -> str:
    return "dispute_known" if any_disputes else credited[1] or "nothing_new"


def _gone_back(space: Workspace, facts: PaymentFacts) -> Verdict:
    """Close the case of a payment that was held back and has gone back whole."""
    case = cases.of_payment(space.cursor, facts.payment_id)
    if case is not None and cases.resolve(space.cursor, case.case_no, cases.REFUNDED, space.now_s):
        payment_states.note_look(space.cursor, facts.payment_id)
        cases.write_note(
            space.cursor, f"case:{case.case_no}", "refunded_at_provider", author="", reason="",
            now_s=space.now_s,
        )  # fmt: skip
        if case.event_no:
            close = CloseEvent(case.event_no, CANCELED, reason="refunded")
            space.apply(case.practice_id, close)
    return "done", "refund_of_quarantined"


def _came_again(space: Workspace, facts: PaymentFacts) -> Verdict:
    """Open a case again whose refund failed: the money is here and belongs to somebody."""
    case = cases.of_payment(space.cursor, facts.payment_id)
    if case is None:
        return "done", "case_refunded"
    cases.reopen(space.cursor, case.case_no)
    payment_states.note_look(space.cursor, facts.payment_id)
    if case.event_no:
        space.apply(case.practice_id, CloseEvent(case.event_no, QUARANTINED, reason=case.reason))
    subject = f"refund_failed:{case.event_no}"
    settings.raise_alarm(
        space.cursor, "payment_quarantined", subject, space.now_s, case.practice_no
    )
    return "quarantined", "refund_failed"
