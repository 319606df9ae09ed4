"""What is left of a payment: refunds, disputes, warnings of fraud. Inside one transaction.

Law: one equation per payment, whatever is told in whatever order: the credit that may stay is
floor(granted x what is left of the money / what was captured). What an open or a lost dispute
withholds is not left. Nobody is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guthaben.domain.commands import NetPayment
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    DISPUTE_CLOSED,
    QUARANTINED,
    REFUND,
    TOPUP_PURCHASE,
    withheld_minor,
)
from guthaben.errors import InvalidInput
from guthaben.payments.facts import DisputeFacts, PaymentFacts, WarningFacts
from guthaben.services import telling
from guthaben.services.charging import PURPOSE as PURPOSE_AUTO
from guthaben.services.checkouts import PURPOSE_TOPUP
from guthaben.store import disputes, payment_states, settings, topups
from guthaben.store.disputes import DisputeRow
from guthaben.store.workspace import Workspace

Verdict = tuple[str, str]
"""The inbox status an event ends with, and why."""


OURS = {PURPOSE_TOPUP: TOPUP_PURCHASE, PURPOSE_AUTO: AUTO_TOPUP_PURCHASE}
"""What the purpose in a payment's metadata says it is."""


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Tell whether metadata says that a payment is for credit of ours."""
    return metadata.get("aza_purpose", "") in OURS


def book_disputes(
    space: Workspace, facts: PaymentFacts, found: Sequence[DisputeFacts]
) -> tuple[bool, bool]:
    """Keep a payment's disputes as they are now; tell whether there are any, and any news.

    A new one raises an alarm and pauses the automatic top-up: whoever disputes a charge must not
    be charged again by itself.
    """
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, facts.payment_id)
    if owner is None or not found:
        return False, False
    known = disputes.known(space.cursor, owner)
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    moved = news = False
    for told in found:
        row = dispute_row(facts, told)
        before = known.get(row.dispute_id)
        news |= before != row
        moved |= (before.withdrawn_minor if before else 0) != row.withdrawn_minor
        disputes.note(
            space.cursor, owner, row, is_closed=row.status in DISPUTE_CLOSED, now_s=space.now_s
        )
        _dispute_news(space, practice_id, owner, before, row)
    if news:  # an older reading of one that withholds as much must not replace this one
        payment_states.note_look(space.cursor, facts.payment_id)
    return True, moved


def dispute_row(facts: PaymentFacts, told: DisputeFacts) -> DisputeRow:
    """Say what a dispute is and withholds; raises `InvalidInput` where it does not tell enough."""
    if told.amount_rappen is None or told.status is None:
        raise InvalidInput("the dispute does not tell its amount or its status yet")
    captured = facts.amount_received_rappen or 0
    # In another currency its amount says nothing about our Rappen: then it is about all of it.
    same = told.currency == facts.currency
    amount = min(told.amount_rappen, captured) if same else captured
    return DisputeRow(
        told.dispute_id, told.status, (told.reason or "")[:100], amount,
        withheld_minor(told.status, amount), told.created_at_s or 0,
    )  # fmt: skip


def _dispute_news(
    space: Workspace,
    practice_id: str,
    owner: topups.Registered,
    before: DisputeRow | None,
    row: DisputeRow,
) -> None:
    subject = f"payment_disputed:{owner.event_no}"
    if before is None and row.status not in {"won", "prevented", "warning_closed"}:
        settings.raise_alarm(
            space.cursor, "payment_disputed", subject, space.now_s, owner.practice_no
        )
        settings.pause_auto_topup(space.cursor, owner.practice_no, "payment_disputed", space.now_s)
        telling.disputed(space, practice_id, row.dispute_id, "opened", row.amount_minor)
    if row.status in ("won", "lost") and (before is None or before.status != row.status):
        telling.disputed(space, practice_id, row.dispute_id, row.status, row.amount_minor)


def warned(space: Workspace, facts: PaymentFacts, told: WarningFacts) -> Verdict:
    """Keep a card issuer's warning of fraud, raise the alarm, pause the automatic top-up."""
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, facts.payment_id)
    if owner is None:  # it was read and settled just now: held back and given back, by a person
        return "done", "not_credited"
    disputes.note_warning(
        space.cursor, told.warning_id, facts.payment_id, owner,
        fraud_type=(told.fraud_type or "")[:100], actionable=told.actionable is not False,
        now_s=space.now_s,
    )  # fmt: skip
    number, subject = owner.practice_no, f"fraud_warning:{owner.event_no}"
    settings.raise_alarm(space.cursor, "fraud_warning", subject, space.now_s, number)
    settings.pause_auto_topup(space.cursor, number, "fraud_warning", space.now_s)
    practice_id = topups.practice_id_of(space.cursor, number)
    rappen = facts.amount_received_rappen or 0
    telling.fraud_warning(space, practice_id, told.warning_id, rappen)
    return "done", "warned"


def settle_net(space: Workspace, facts: PaymentFacts, kind: str = REFUND) -> Verdict:
    """Book what refunds and disputes have left of a payment, as the payment itself tells."""
    if facts.refunded_rappen is None or facts.amount_received_rappen is None:
        raise InvalidInput("the payment does not tell its refunds yet")
    return net(
        space, facts.payment_id, facts.amount_received_rappen, facts.refunded_rappen, kind=kind
    )


def net(
    space: Workspace,
    payment_id: str,
    received_rappen: int,
    refunded_rappen: int,
    *,
    ours: bool = True,
    only_down: bool = False,
    kind: str = REFUND,
) -> Verdict:
    """Bring the credit of a payment in line with the money that refunds and disputes have left.

    `only_down`: the telling may be an old one, so that it never gives credit back.
    """
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, payment_id)
    if owner is None:
        return _net_later(space, payment_id, ours=ours)
    net = received_rappen - refunded_rappen - disputes.withdrawn_minor(space.cursor, owner)
    event = topups.load_event(space.cursor, owner.practice_no, owner.event_no)
    if only_down and event is not None:
        net = min(net, event.net_minor)
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    outcome = space.apply(practice_id, NetPayment(owner.event_no, net, kind))
    if outcome.applied:
        payment_states.note_look(space.cursor, payment_id)
        if kind == REFUND and event is not None and outcome.event is not None:
            telling.refunded(space, practice_id, event, outcome.event)
    return "done", "netted" if outcome.applied else (outcome.reason or "nothing_to_net")


def _net_later(space: Workspace, payment_id: str, *, ours: bool) -> Verdict:
    """Judge a refund of a payment that was never credited."""
    known = topups.locate_event(space.cursor, "payment_id", payment_id)
    if known is not None and known.event.status == QUARANTINED:
        return "done", "refund_of_quarantined"
    if known is None and not ours:
        return "ignored", "not_ours"
    raise InvalidInput("the payment's own success has not been applied yet")
