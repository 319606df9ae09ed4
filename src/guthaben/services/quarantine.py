"""Cases: payments that are held back, and what a person decides about them.

Law: a case is resolved once, and the same decision again changes nothing. Credit is given for what
the payment itself says was paid, through the same once-only function as every purchase. Who decided
and why is written beside it, where it can be erased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from guthaben.domain.commands import CloseEvent, Fulfil
from guthaben.domain.money import is_amount, nano_usd_for_rappen
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, CANCELED, TOPUP_PURCHASE, CreditEvent
from guthaben.errors import InvalidAmount, Refused
from guthaben.payments.facts import PaymentFacts
from guthaben.payments.gateway import PaymentGateway
from guthaben.services.charging import PURPOSE as PURPOSE_AUTO
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of, reason_of
from guthaben.services.purchases import AUTOMATIC, PaymentNotice, open_purchase
from guthaben.services.refunds import Refund, Refunds, Wish
from guthaben.services.settling import Settler
from guthaben.store import cases, practices, refunds, topups
from guthaben.store.cases import Case, OperatorNote
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Resolved:
    """How a case stands after a decision; `changed` is false where it was decided before."""

    case: Case
    changed: bool


class Decision(NamedTuple):
    """Who decides, and why."""

    reason: str
    author: str = ""


class Quarantine:
    """The cases of one store."""

    def __init__(
        self, store: Store, gateway: PaymentGateway, settler: Settler, refunds: Refunds
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._settler = settler
        self._refunds = refunds

    def page(
        self,
        *,
        only_open: bool = True,
        practice_id: str | None = None,
        after_case_no: int = 0,
        limit: int = 50,
    ) -> list[Case]:
        """Read cases in the order of their numbers."""
        return self._store.read(
            lambda cur: cases.page(
                cur, only_open=only_open, practice_id=practice_id, after_case_no=after_case_no,
                limit=limit,
            )
        )  # fmt: skip

    def show(self, case_no: int) -> tuple[Case, list[OperatorNote]]:
        """Read one case and what was done about it; raises `Refused` (`case_not_found`)."""
        return self._store.read(
            lambda cur: (_case(cur, case_no), cases.notes(cur, f"case:{case_no}"))
        )

    def credit(
        self,
        case_no: int,
        practice_id: str,
        decision: Decision,
        *,
        amount_nano_usd: int | None = None,
    ) -> Resolved:
        """Give the payment's credit to a practice, once for ever.

        The amount is the purchase's own where its price was paid, else what the price buys today;
        a payment in another currency needs one. Raises `Refused`, `PaymentError`.
        """
        practice_id_of(practice_id)
        _check(decision)
        if amount_nano_usd is not None and not is_amount(amount_nano_usd, 1):
            raise InvalidAmount("credit is more than nothing, and no more than the limit")
        case = self._store.read(lambda cur: _case(cur, case_no))
        facts = self._paid(case)
        resolved = self._store.run(
            lambda space: _credit(space, case_no, practice_id, facts, decision, amount_nano_usd)
        )
        if resolved.changed:
            self._settler.settle(facts.payment_id)  # what went back of it meanwhile
        return resolved

    def refund(self, case_no: int, decision: Decision) -> Refund:
        """Give the payment back whole; the case closes when the provider has taken the refund."""
        _check(decision)
        case = self._store.read(lambda cur: _case(cur, case_no))
        named = case if case.payment_id else self._named(case)
        if named is not case:
            raise Refused("Its payment is known only now: try again.", reason="payment_unknown")
        wish = Wish(None, f"case-{case_no}-{self._tries(case)}", decision.reason, decision.author)
        return self._refunds.refund_case(case_no, wish)

    def dismiss(self, case_no: int, decision: Decision) -> Resolved:
        """Close a case without credit and without a refund: somebody saw to it elsewhere."""
        _check(decision)
        return self._store.run(lambda space: _dismiss(space, case_no, decision))

    # ---- the provider

    def _paid(self, case: Case) -> PaymentFacts:
        named = case if case.payment_id else self._named(case)
        facts = self._gateway.retrieve_payment(named.payment_id)
        if facts.status != "succeeded" or not facts.amount_received_rappen:
            raise Refused("The payment did not succeed.", reason="payment_not_succeeded")
        if case.livemode is not None and facts.livemode not in (None, case.livemode):
            raise Refused("The payment is of the other mode.", reason="livemode_mismatch")
        return facts

    def _named(self, case: Case) -> Case:
        page = self._gateway.retrieve_checkout(case.session_id) if case.session_id else None
        if page is None or page.payment_id is None:
            raise Refused("The case names no payment.", reason="payment_unknown")
        return case._replace(payment_id=page.payment_id)

    def _tries(self, case: Case) -> int:
        """Count refunds of the case that came to nothing: each new one is a request of its own."""
        rows = self._store.read(lambda cur: refunds.of_payment(cur, case.payment_id))
        over = (refunds.FAILED, refunds.CANCELED)
        return sum(row.case_no == case.case_no and row.status in over for row in rows)


# ---------------------------------------------------------------- inside a transaction


def _case(cursor: Cursor, case_no: int) -> Case:
    found = cases.load(cursor, case_no) if type(case_no) is int else None
    if found is None:
        raise Refused("There is no such case.", reason="case_not_found")
    return found


def _held_still(space: Workspace, case_no: int, *practice_ids: str) -> Case:
    """Let nobody else decide about a case; its practice first, as who books its payment does."""
    space.flush()
    whose = {_case(space.cursor, case_no).practice_id, *practice_ids} - {""}
    for practice_id in practices.in_order(space.cursor, whose):
        space.practice(practice_id)
    cases.hold_still(space.cursor, case_no)
    return _case(space.cursor, case_no)


def _credit(
    space: Workspace,
    case_no: int,
    practice_id: str,
    facts: PaymentFacts,
    decision: Decision,
    amount_nano_usd: int | None,
) -> Resolved:
    case = _held_still(space, case_no, practice_id)
    practice_no = space.practice_no(practice_id)
    if case.status == cases.CREDITED and case.to_practice_no == practice_no:
        return Resolved(case, False)
    _still_open(space, case)
    event_no = _fulfilled(space, case, practice_id, facts, amount_nano_usd)
    return _resolved(space, case, cases.CREDITED, decision, practice_no, event_no)


def _fulfilled(
    space: Workspace,
    case: Case,
    practice_id: str,
    facts: PaymentFacts,
    amount_nano_usd: int | None,
) -> int:
    """Give the credit: to the purchase itself where it is as it should be, else to a new one."""
    own = topups.load_event(space.cursor, case.practice_no, case.event_no)
    captured = facts.amount_received_rappen or 0
    fits = (
        own is not None
        and case.practice_id == practice_id
        and amount_nano_usd is None
        and own.amount_nano_usd > 0
        and (own.price_minor, own.currency) == (captured, facts.currency)
        and not _page_taken(space, own.session_id)
    )
    if own is not None and fits:
        event_no = own.event_no
    else:
        amount = _worth(own, facts) if amount_nano_usd is None else amount_nano_usd
        event_no = _new_purchase(space, case, own, practice_id, facts, amount)
        if own is not None:
            close = CloseEvent(own.event_no, CANCELED, reason="credited_elsewhere")
            space.apply(case.practice_id, close)
    fulfil = Fulfil(event_no, facts.payment_id, "", captured, facts.livemode)
    outcome = space.apply(practice_id, fulfil)
    if not outcome.ok or not outcome.applied:
        raise Refused("The payment can't be credited.", reason=outcome.reason or "already_credited")
    return event_no


def _worth(own: CreditEvent | None, facts: PaymentFacts) -> int:
    """Say what credit the money buys: the frozen price where that was paid, else today's."""
    captured = facts.amount_received_rappen or 0
    if own is not None and own.amount_nano_usd > 0:
        if (own.price_minor, own.currency) == (captured, facts.currency):
            return own.amount_nano_usd
    if facts.currency != "chf":
        raise Refused(
            "The payment is not in CHF: say how much credit it buys.", reason="amount_needed"
        )
    return nano_usd_for_rappen(captured)


def _new_purchase(
    space: Workspace,
    case: Case,
    own: CreditEvent | None,
    practice_id: str,
    facts: PaymentFacts,
    amount_nano_usd: int,
) -> int:
    same = own is not None and case.practice_id == practice_id
    # An automatic purchase keeps its kind, so that the month's cap goes on counting it.
    # One that is known from its metadata alone (our record was lost with a database) counts too.
    automatic = own is not None and same and own.event_type in AUTOMATIC
    told = (facts.metadata or {}) if own is None else {}
    lost = told.get("aza_purpose") == PURPOSE_AUTO and told.get("practice_id") == practice_id
    notice = PaymentNotice(
        practice_id, TOPUP_PURCHASE, amount_nano_usd, facts.amount_received_rappen,
        own.license if own is not None and same else "", facts.currency or "", facts.payment_id,
        livemode=facts.livemode,
    )  # fmt: skip
    if automatic and own is not None:
        notice = notice._replace(event_type=own.event_type)
    elif lost:
        notice = notice._replace(event_type=AUTO_TOPUP_PURCHASE)
    return open_purchase(space, notice).event_no


def _dismiss(space: Workspace, case_no: int, decision: Decision) -> Resolved:
    case = _held_still(space, case_no)
    if case.status == cases.DISMISSED:
        return Resolved(case, False)
    _still_open(space, case)
    if case.event_no:
        space.apply(case.practice_id, CloseEvent(case.event_no, CANCELED, reason="dismissed"))
    return _resolved(space, case, cases.DISMISSED, decision, 0, 0)


def _still_open(space: Workspace, case: Case) -> None:
    if case.status != cases.OPEN:
        raise Refused(f"The case is {case.status} already.", reason="case_resolved")
    under_way = (*refunds.WAITING, refunds.SENT, refunds.SUCCEEDED)
    rows = refunds.of_payment(space.cursor, case.payment_id) if case.payment_id else []
    if any(row.case_no == case.case_no and row.status in under_way for row in rows):
        raise Refused("Its refund is under way.", reason="refund_in_flight")


def _page_taken(space: Workspace, session_id: str) -> bool:
    if not session_id:
        return False
    return topups.find_payment(space.cursor, "stripe", topups.SESSION, session_id) is not None


def _resolved(
    space: Workspace,
    case: Case,
    status: str,
    decision: Decision,
    to_practice_no: int,
    to_event_no: int,
) -> Resolved:
    space.flush()
    now_s = space.now_s
    cases.resolve(
        space.cursor, case.case_no, status, now_s, to_practice_no=to_practice_no,
        to_event_no=to_event_no,
    )  # fmt: skip
    cases.write_note(
        space.cursor, f"case:{case.case_no}", status, author=decision.author,
        reason=decision.reason, now_s=now_s,
    )  # fmt: skip
    number = case.event_no or case.case_no
    cases.clear_alarm(space.cursor, "payment_quarantined", f"{case.reason}:{number}", now_s)
    return Resolved(_case(space.cursor, case.case_no), True)


def _check(decision: Decision) -> None:
    reason_of(decision.reason)
    checked_text("author", decision.author, MAX_TEXT)


__all__ = ["Decision", "Quarantine", "Resolved"]
