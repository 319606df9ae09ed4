"""Applying what webhooks tell: inside one transaction, asking nobody.

Law: what is credited comes from our own record, or from metadata that the payment itself bears out;
what is left of a payment follows one equation; what contradicts our record is quarantined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guthaben.domain.money import NANO_PER_USD, RAPPEN_PER_CHF, parse_chf, parse_usd
from guthaben.domain.topup import (
    CANCELED,
    FAILED,
    IN_FLIGHT,
    TOPUP_PURCHASE,
)
from guthaben.errors import Refused
from guthaben.payments.facts import (
    CheckoutFacts,
    PaymentFacts,
    checkout_facts,
    refund_facts,
)
from guthaben.payments.gateway import METADATA_TOPUP_ID
from guthaben.services import telling
from guthaben.services.cards import Card, save_card
from guthaben.services.checks import practice_id_of
from guthaben.services.installation import made_elsewhere
from guthaben.services.netting import OURS, Verdict, is_ours, net
from guthaben.services.purchases import (
    PaymentNotice,
    PurchaseResult,
    credit_payment,
    fail_purchase,
    own_record,
    quarantine,
    registered,
    topup_taken,
)
from guthaben.store import cases, checkouts, settings, topups
from guthaben.store.workspace import Workspace

DONE: Verdict = ("done", "")


def apply_told(space: Workspace, event_type: str, source: Mapping[str, Any]) -> Verdict:
    """Apply what an event itself tells of a refund or of a page that was not paid.

    For a host that applies webhooks inside its own transaction, where nobody can be asked. The
    object is the event's `data.object` as plain values. Other kinds are ignored.
    """
    if event_type == "charge.refunded":
        told = refund_facts(source)
        if told.payment_id is None or None in (told.captured_rappen, told.refunded_rappen):
            return "ignored", "no_payment"
        return net(
            space, told.payment_id, (told.captured_rappen or 0), (told.refunded_rappen or 0),
            ours=is_ours(told.metadata), only_down=True,
        )  # fmt: skip
    if event_type in {"checkout.session.expired", "checkout.session.async_payment_failed"}:
        expired = event_type.endswith("expired")
        return not_paid(space, checkout_facts(source), CANCELED if expired else FAILED)
    return "ignored", "type"


def not_paid(space: Workspace, page: CheckoutFacts, status: str) -> Verdict:
    """Close the purchase of a page that was not paid."""
    named = page.metadata.get(METADATA_TOPUP_ID) or page.client_reference_id or ""
    bare = PaymentNotice(
        "", TOPUP_PURCHASE, 0, None, session_id=page.session_id, topup_id=named,
        livemode=page.livemode,
    )  # fmt: skip
    notice = _notice(
        page.metadata, livemode=page.livemode, session_id=page.session_id
    ) or _recorded(space, bare)
    if notice is None or _elsewhere(space, notice, page.metadata):
        return "ignored", "not_ours"
    return "done", fail_purchase(space, notice, status=status).reason


def canceled(space: Workspace, facts: PaymentFacts) -> Verdict:
    """Close the purchase or attempt of a payment that was canceled at the provider."""
    notice = _payment_notice(space, facts, "")
    record = None if notice is None else own_record(space, notice)
    if notice is None or record is None or record.event.status not in IN_FLIGHT:
        return "done", "payment_canceled"
    fail_purchase(space, notice, status=CANCELED, reason="payment_canceled")
    return "done", "payment_canceled"


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
    event_type = OURS.get(metadata.get("aza_purpose", ""))
    if event_type is None or not _is_name(metadata.get("practice_id", "")):
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


def _is_name(practice_id: str) -> bool:
    """Tell whether metadata, which anybody with access to the dashboard edits, names a practice."""
    try:
        practice_id_of(practice_id)
    except Refused:
        return False
    return True


def _elsewhere(space: Workspace, notice: PaymentNotice, metadata: Mapping[str, str]) -> bool:
    """Tell whether another installation, which shares our account, made this; it will see to it."""
    return made_elsewhere(metadata) and own_record(space, notice) is None


def _amount(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError:
        return 0


def credit(
    space: Workspace, facts: PaymentFacts, session_id: str, livemode_expected: bool | None = None
) -> Verdict:
    """Credit a payment that succeeded, or hold it back; what of it went back is booked apart."""
    notice = _payment_notice(space, facts, session_id)
    if notice is None:
        return _without_practice(space, facts, session_id)
    if _elsewhere(space, notice, facts.metadata) and registered(space, notice) is None:
        return "ignored", "other_installation"
    if livemode_expected is not None and facts.livemode not in (None, livemode_expected):
        return "quarantined", quarantine(space, notice, "livemode_mismatch").reason
    result = _credit_or_quarantine(space, notice, facts)
    if result.quarantined:
        return "quarantined", result.reason
    if result.credited and _card_may_be_kept(space, result, facts):
        card = Card(facts.customer_id, facts.payment_method_id, facts.charged_at_s)
        save_card(space, result.practice_id, card)
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
    return told or _recorded(
        space,
        PaymentNotice(
            "", TOPUP_PURCHASE, 0, facts.amount_received_rappen, currency=facts.currency or "",
            payment_id=facts.payment_id, session_id=session_id,
            topup_id=facts.metadata.get(METADATA_TOPUP_ID, ""), livemode=facts.livemode,
        ),
    )  # fmt: skip


def _recorded(space: Workspace, bare: PaymentNotice) -> PaymentNotice | None:
    """Complete what was told without metadata of ours by our own record."""
    owner = registered(space, bare)
    if owner is not None:
        return bare._replace(practice_id=topups.practice_id_of(space.cursor, owner.practice_no))
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


def _without_practice(space: Workspace, facts: PaymentFacts, session_id: str) -> Verdict:
    """Judge a payment that leads to no practice of ours."""
    ours = is_ours(facts.metadata)
    if not ours or made_elsewhere(facts.metadata):
        return "ignored", "not_ours"
    return _nobodys(space, facts, session_id)


def _nobodys(space: Workspace, facts: PaymentFacts, session_id: str) -> Verdict:
    """Keep a payment for credit that names no practice: a case for a person, never forgotten."""
    new = cases.open_case(
        space.cursor, practice_no=0, event_no=0, payment_id=facts.payment_id,
        session_id=session_id, livemode=facts.livemode, amount_minor=facts.amount_received_rappen,
        currency=facts.currency or "", reason="practice_unknown", now_s=space.now_s,
    )  # fmt: skip
    if new:
        case = cases.of_payment(space.cursor, facts.payment_id)
        subject = f"practice_unknown:{case.case_no if case else 0}"
        settings.raise_alarm(space.cursor, "payment_quarantined", subject, space.now_s)
        telling.nobodys(space, facts.payment_id, "practice_unknown")
    return "quarantined", "practice_unknown"


def _credit_or_quarantine(
    space: Workspace, notice: PaymentNotice, facts: PaymentFacts
) -> PurchaseResult:
    """Credit a payment; one without a record of ours must bear out its own metadata."""
    if registered(space, notice) is None and own_record(space, notice) is None:
        if notice.topup_id and not topup_taken(space, notice):
            # Our own id without our own record: another installation's, or our book is a restored
            # one. What metadata says of its amount is not enough then.
            return quarantine(space, notice, "topup_unknown")
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
