"""What our books say of a payment, what the provider says, and how the two may differ.

Law: comparing decides nothing and changes nothing. A payment of somebody else's in the same account
is no difference, and what waits for a person is one until the person has decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from guthaben.domain.topup import IN_FLIGHT, SUCCEEDED, CreditEvent
from guthaben.payments.facts import DisputeFacts, PaymentFacts
from guthaben.services.installation import made_elsewhere
from guthaben.services.netting import dispute_row, is_ours
from guthaben.store import cases, disputes, payment_states, topups
from guthaben.store.cases import Case
from guthaben.store.payment_states import Money
from guthaben.store.session import Cursor


class Cause(Enum):
    """Why our books and the provider differ; stable names, kept for programs."""

    PAID_NOT_CREDITED = "paid_not_credited"
    """The payment succeeded and no credit was given: its events were lost."""
    HELD_BACK = "held_back"
    """The payment is quarantined: a person has to decide."""
    CREDITED_NOT_PAID = "credited_not_paid"
    """Credit was given and the provider has no succeeded payment for it."""
    AMOUNT_DIFFERS = "amount_differs"
    """Credited for another amount or currency than was captured."""
    REFUND_NOT_BOOKED = "refund_not_booked"
    """More money went back than credit was taken for."""
    TOO_MUCH_TAKEN = "too_much_taken"
    """Credit was taken for money that is here, such as a refund that failed."""
    DISPUTE_NOT_BOOKED = "dispute_not_booked"
    """A dispute was opened, or moved on, and our books do not know."""
    FEE_DIFFERS = "fee_differs"
    """The provider's balance shows another amount or fee than was kept."""
    EVENT_MISSED = "event_missed"
    """The provider has an event about us that never came."""
    PURCHASE_STUCK = "purchase_stuck"
    """A purchase is pending here and decided at the provider."""
    REFUND_UNRESOLVED = "refund_unresolved"
    """A refund that was asked for has had no answer for a day."""


class Action(Enum):
    """What was done about a difference."""

    NONE = "none"
    """Nothing: it was a dry run."""
    MENDED = "mended"
    """Booked through the same functions as ever; the two sides agree now."""
    QUARANTINED = "quarantined"
    """Held back: it contradicts our record. A person has to decide."""
    STORED = "stored"
    """The missed event is in the inbox and was applied."""
    ALARMED = "alarmed"
    """It can't be mended by a program; the operator was alarmed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; amounts in Rappen where both sides know one."""

    cause: Cause
    action: Action
    practice_id: str
    event_no: int
    payment_id: str
    ours_rappen: int | None
    theirs_rappen: int | None
    detail: str

    @property
    def remains(self) -> bool:
        """Tell whether somebody still has to do something."""
        return self.action not in (Action.MENDED, Action.STORED)


class OurSide(NamedTuple):
    """What our books say of one payment."""

    practice_id: str
    event: CreditEvent | None
    record: CreditEvent | None
    case: Case | None
    withheld_rappen: int
    knows_disputes: bool
    money: Money | None


class Found(NamedTuple):
    """A difference before anything was done."""

    cause: Cause
    ours_rappen: int | None = None
    theirs_rappen: int | None = None
    detail: str = ""
    mendable: bool = True


def our_side(cursor: Cursor, payment_id: str, facts: PaymentFacts | None = None) -> OurSide:
    """Read what our books say of a payment."""
    case = cases.of_payment(cursor, payment_id)
    owner = topups.find_payment(cursor, "stripe", topups.PAYMENT, payment_id)
    if owner is None:
        record = _record(cursor, payment_id, facts)
        practice_id = record.practice_id if record else (case.practice_id if case else "")
        event = record.event if record else None
        return OurSide(practice_id, None, event, case, 0, False, None)
    return OurSide(
        topups.practice_id_of(cursor, owner.practice_no),
        topups.load_event(cursor, owner.practice_no, owner.event_no),
        None,
        case,
        disputes.withdrawn_minor(cursor, owner),
        bool(disputes.known(cursor, owner)),
        payment_states.money_of(cursor, payment_id),
    )


def _record(cursor: Cursor, payment_id: str, facts: PaymentFacts | None) -> topups.Located | None:
    named = topups.locate_event(cursor, "payment_id", payment_id)
    topup_id = facts.metadata.get("topup_id", "") if facts is not None else ""
    return named or (topups.locate_event(cursor, "topup_id", topup_id) if topup_id else None)


def is_foreign(facts: PaymentFacts, ours: OurSide) -> bool:
    """Tell whether a payment is nobody's of ours."""
    if ours.event is not None or ours.record is not None or ours.case is not None:
        return False
    return not is_ours(facts.metadata) or made_elsewhere(facts.metadata)


def compare(
    facts: PaymentFacts, ours: OurSide, disputes_now: Sequence[DisputeFacts] = ()
) -> list[Found]:
    """Tell how the provider's side of a payment differs from ours; disputes as they are now."""
    if facts.status != "succeeded":
        return _not_paid(facts, ours)
    if ours.event is None or ours.event.status != SUCCEEDED:
        return _not_credited(facts, ours)
    event, received = ours.event, facts.amount_received_rappen
    if event.captured_minor <= 0 or received is None:
        return []  # taken over from an older book that did not say
    if (event.captured_minor, event.currency) != (received, facts.currency):
        return [
            Found(Cause.AMOUNT_DIFFERS, event.captured_minor, received, facts.currency or "", False)
        ]
    withheld = sum(dispute_row(facts, one).withdrawn_minor for one in disputes_now)
    return [*_net(facts, ours, event, withheld), *_fee(facts, ours)]


def _not_paid(facts: PaymentFacts, ours: OurSide) -> list[Found]:
    if ours.event is not None:
        detail = f"payment_{facts.status}"
        return [Found(Cause.CREDITED_NOT_PAID, ours.event.captured_minor, 0, detail, False)]
    pending = ours.record is not None and ours.record.status in IN_FLIGHT
    if pending and facts.status == "canceled":
        return [Found(Cause.PURCHASE_STUCK, detail="payment_canceled")]
    return []


def _not_credited(facts: PaymentFacts, ours: OurSide) -> list[Found]:
    if is_foreign(facts, ours):
        return []
    received = facts.amount_received_rappen
    if ours.case is None:
        return [Found(Cause.PAID_NOT_CREDITED, 0, received)]
    if ours.case.status != cases.OPEN:
        return []  # a person decided
    return [Found(Cause.HELD_BACK, 0, received, f"case {ours.case.case_no}: {ours.case.reason}",
                  (facts.refunded_rappen or 0) >= max(received or 0, 1))]  # fmt: skip


def _net(
    facts: PaymentFacts, ours: OurSide, event: CreditEvent, withheld_rappen: int
) -> list[Found]:
    moved = facts.disputed is True and withheld_rappen != ours.withheld_rappen
    if moved or (facts.disputed and not ours.knows_disputes):
        return [Found(Cause.DISPUTE_NOT_BOOKED, ours.withheld_rappen, withheld_rappen)]
    if facts.refunded_rappen is None:
        return []
    net = max(event.captured_minor - facts.refunded_rappen - ours.withheld_rappen, 0)
    if net == event.net_minor:
        return []
    cause = Cause.REFUND_NOT_BOOKED if net < event.net_minor else Cause.TOO_MUCH_TAKEN
    return [Found(cause, event.net_minor, net)]


def _fee(facts: PaymentFacts, ours: OurSide) -> list[Found]:
    line, kept = facts.balance, ours.money
    if line is None or kept is None:
        return []
    if Money(line.amount_minor, line.fee_minor, line.net_minor, line.currency) == kept:
        return []
    return [Found(Cause.FEE_DIFFERS, kept.fee_minor, line.fee_minor, line.currency)]
