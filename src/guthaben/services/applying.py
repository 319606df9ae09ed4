"""Applying what webhooks tell: inside one transaction, asking nobody.

Law: what is credited comes from our own record, or from metadata that the payment itself bears out;
what is left of a payment follows one equation; what contradicts our record is quarantined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guthaben.domain.commands import NetPayment
from guthaben.domain.money import NANO_PER_USD, RAPPEN_PER_CHF, parse_chf, parse_usd
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    CANCELED,
    DISPUTE,
    FAILED,
    QUARANTINED,
    REFUND,
    TOPUP_PURCHASE,
)
from guthaben.errors import InvalidInput
from guthaben.payments.facts import (
    CheckoutFacts,
    DisputeFacts,
    PaymentFacts,
    checkout_facts,
    refund_facts,
)
from guthaben.payments.gateway import METADATA_TOPUP_ID
from guthaben.services import telling
from guthaben.services.auto_topup import PURPOSE as PURPOSE_AUTO
from guthaben.services.checkouts import PURPOSE_TOPUP
from guthaben.services.purchases import (
    PaymentNotice,
    PurchaseResult,
    credit_payment,
    fail_purchase,
    own_record,
    quarantine,
    registered,
)
from guthaben.store import checkouts, settings, topups
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace

Verdict = tuple[str, str]
"""The inbox status an event ends with, and why."""

DONE: Verdict = ("done", "")
_OURS = {PURPOSE_TOPUP: TOPUP_PURCHASE, PURPOSE_AUTO: AUTO_TOPUP_PURCHASE}


def apply_told(space: Workspace, event_type: str, source: Mapping[str, Any]) -> Verdict:
    """Apply what an event itself tells of a refund or of a page that was not paid.

    For a host that applies webhooks inside its own transaction, where nobody can be asked. The
    object is the event's `data.object` as plain values. Other kinds are ignored.
    """
    if event_type == "charge.refunded":
        told = refund_facts(source)
        if told.payment_id is None or None in (told.captured_rappen, told.refunded_rappen):
            return "ignored", "no_payment"
        return _net(
            space, told.payment_id, (told.captured_rappen or 0), (told.refunded_rappen or 0),
            ours=told.metadata.get("aza_purpose", "") in _OURS, only_down=True,
        )  # fmt: skip
    if event_type in {"checkout.session.expired", "checkout.session.async_payment_failed"}:
        expired = event_type.endswith("expired")
        return not_paid(space, checkout_facts(source), CANCELED if expired else FAILED)
    return "ignored", "type"


def not_paid(space: Workspace, page: CheckoutFacts, status: str) -> Verdict:
    """Close the purchase of a page that was not paid."""
    notice = _notice(page.metadata, livemode=page.livemode, session_id=page.session_id)
    if notice is None:
        return "ignored", "not_ours"
    return "done", fail_purchase(space, notice, status=status).reason


def _notice(
    metadata: Mapping[str, str],
    *,
    livemode: bool | None,
    session_id: str = "",
    payment_id: str = "",
    currency: str = "chf",
    received_rappen: int | None = None,
) -> PaymentNotice | None:
    """Read what our own metadata says; None where the payment is nobody's of ours."""
    event_type = _OURS.get(metadata.get("aza_purpose", ""))
    if event_type is None or not metadata.get("practice_id"):
        return None
    return PaymentNotice(
        practice_id=metadata["practice_id"],
        event_type=event_type,
        credit_nano_usd=_amount(parse_usd, metadata.get("internal_credit_usd", "")),
        price_rappen=received_rappen,
        license=metadata.get("subscription_id", ""),
        currency=currency,
        payment_id=payment_id,
        session_id=session_id,
        topup_id=metadata.get(METADATA_TOPUP_ID, ""),
        livemode=livemode,
    )


def _amount(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError:
        return 0


def credit(space: Workspace, facts: PaymentFacts, session_id: str) -> Verdict:
    """Credit a payment, then book what of it has gone back already."""
    notice = _payment_notice(space, facts, session_id)
    if notice is None:
        return "ignored", "not_ours"
    result = _credit_or_quarantine(space, notice, facts)
    if result.quarantined:
        return "quarantined", result.reason
    if result.credited and _card_may_be_kept(space, result, facts):
        save_card(space, result.practice_id, facts.customer_id, facts.payment_method_id)
    if facts.refunded_rappen:
        space.flush()
        settle_net(space, facts)
    return "done", "credited" if result.credited else result.reason


def _payment_notice(space: Workspace, facts: PaymentFacts, session_id: str) -> PaymentNotice | None:
    """Say what the payment is: by its metadata, or by our own record where they are gone."""
    told = _notice(
        facts.metadata,
        livemode=facts.livemode,
        session_id=session_id,
        payment_id=facts.payment_id,
        currency=facts.currency or "",
        received_rappen=facts.amount_received_rappen,
    )
    if told is not None:
        return told
    bare = PaymentNotice(
        "", TOPUP_PURCHASE, 0, facts.amount_received_rappen, currency=facts.currency or "",
        payment_id=facts.payment_id, session_id=session_id,
        topup_id=facts.metadata.get(METADATA_TOPUP_ID, ""), livemode=facts.livemode,
    )  # fmt: skip
    record = own_record(space, bare)
    if record is None:
        return None
    event = record.event
    return bare._replace(
        practice_id=record.practice_id,
        event_type=event.event_type,
        credit_nano_usd=event.amount_nano_usd,
        license=event.license,
    )


def _credit_or_quarantine(
    space: Workspace, notice: PaymentNotice, facts: PaymentFacts
) -> PurchaseResult:
    """Credit a payment; one without a record of ours must bear out its own metadata."""
    if registered(space, notice) is None and own_record(space, notice) is None:
        stated = _amount(parse_chf, facts.metadata.get("paid_chf", ""))
        if stated != notice.price_rappen or notice.currency != "chf":
            return quarantine(space, notice, "amount_mismatch")
        # Old rates gave up to 2 USD for 3 CHF; metadata alone may not say more than 1 for 1.
        if notice.credit_nano_usd > stated * (NANO_PER_USD // RAPPEN_PER_CHF):
            return quarantine(space, notice, "credit_not_credible")
    return credit_payment(space, notice)


def _card_may_be_kept(space: Workspace, result: PurchaseResult, facts: PaymentFacts) -> bool:
    """Tell whether the customer agreed, by our own record, and what paid is a card."""
    if result.event is None or facts.method_type not in {None, "card"}:
        return False
    practice_no = space.practice_no(result.practice_id)
    return checkouts.card_consent(space.cursor, practice_no, result.event.event_no) is not None


def save_card(
    space: Workspace, practice_id: str, customer_id: str | None, method_id: str | None
) -> None:
    """Keep the saved card; whether it may be charged is the customer's consent to say."""
    if not (customer_id and method_id):
        return
    practice_no = space.practice_no(practice_id)
    space.flush()
    mode = space.practice(practice_id).mode
    row = settings.load_settings(space.cursor, practice_no, mode) or TopupSettingsRow()
    row = row._replace(customer_id=customer_id, payment_method_id=method_id)
    settings.save_settings(space.cursor, practice_no, mode, row, space.now_s)
    settings.audit(space.cursor, practice_no, "card_saved", "checkout", "", space.now_s)


def settle_net(space: Workspace, facts: PaymentFacts) -> Verdict:
    """Book the refunds that the payment itself tells."""
    return _net(
        space, facts.payment_id, facts.amount_received_rappen or 0, facts.refunded_rappen or 0,
        ours=_payment_notice(space, facts, "") is not None,
    )  # fmt: skip


def disputed(space: Workspace, facts: PaymentFacts, told: DisputeFacts, kind: str) -> Verdict:
    """Raise the alarm, and book the money that disputes have taken or given back."""
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, facts.payment_id)
    if owner is None:
        return _net_later(space, facts.payment_id, _payment_notice(space, facts, "") is not None)
    subject = f"payment_disputed:{owner.event_no}"
    settings.raise_alarm(space.cursor, "payment_disputed", subject, space.now_s, owner.practice_no)
    # Whoever disputes a charge must not be charged again by itself.
    settings.pause_auto_topup(space.cursor, owner.practice_no, "payment_disputed", space.now_s)
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    telling.disputed(
        space, practice_id, told.dispute_id, told.status or "", told.amount_rappen or 0
    )
    if kind.endswith(".created"):
        return "done", "alarmed"  # opened: nothing is taken yet
    taken = kind.endswith(".funds_withdrawn") or told.status == "lost"
    topups.note_dispute(
        space.cursor,
        owner,
        told.dispute_id,
        withdrawn_minor=(told.amount_rappen or 0) if taken else 0,
        is_closed=not kind.endswith(".funds_withdrawn"),
        now_s=space.now_s,
    )
    return _net(
        space, facts.payment_id, facts.amount_received_rappen or 0, facts.refunded_rappen or 0,
        kind=DISPUTE,
    )  # fmt: skip


def _net(
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
        return _net_later(space, payment_id, ours)
    net = received_rappen - refunded_rappen - topups.withdrawn_minor(space.cursor, owner)
    event = topups.load_event(space.cursor, owner.practice_no, owner.event_no)
    if only_down and event is not None:
        net = min(net, event.net_minor)
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    outcome = space.apply(practice_id, NetPayment(owner.event_no, net, kind))
    if outcome.applied and kind == REFUND and event is not None and outcome.event is not None:
        telling.refunded(space, practice_id, event, outcome.event)
    return "done", "netted" if outcome.applied else (outcome.reason or "nothing_to_net")


def _net_later(space: Workspace, payment_id: str, ours: bool) -> Verdict:
    """Judge a refund of a payment that was never credited."""
    known = topups.locate_event(space.cursor, "payment_id", payment_id)
    if known is not None and known.event.status == QUARANTINED:
        return "done", "refund_of_quarantined"
    if known is None and not ours:
        return "ignored", "not_ours"
    raise InvalidInput("the payment's own success has not been applied yet")
