"""What webhooks tell the old modules of payments: credited once, failed, or held back.

Law: the payment is the identity, under its PaymentIntent or its session. Where our own record
exists it says amount and credit; without one our own metadata does, borne out by the payment's
amount, currency and mode where it tells them. What contradicts is quarantined. Calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, Protocol

from guthaben.domain.money import (
    MAX_COMMAND_NANO_USD,
    nano_usd_from_float,
    rappen_from_float,
)
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, TOPUP_PURCHASE
from guthaben.errors import InvalidInput
from guthaben.payments.facts import checkout_facts, payment_facts
from guthaben.payments.gateway import METADATA_TOPUP_ID
from guthaben.services.auto_topup import PURPOSE as PURPOSE_AUTO
from guthaben.services.checkouts import PURPOSE_TOPUP
from guthaben.services.installation import made_elsewhere
from guthaben.services.purchases import (
    PaymentNotice,
    PurchaseResult,
    credit_payment,
    fail_purchase,
    own_record,
    quarantine,
    registered,
)
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.meta import clean_meta
from guthaben.store.workspace import Workspace

_PAID_CHF = "paid_chf"
_CREDIT_USD = "internal_credit_usd"


class Told(NamedTuple):
    """What became of an event, for the old modules' answer."""

    handled: bool
    credited: bool = False
    duplicate: bool = False
    quarantined: bool = False
    reason: str = ""
    practice_id: str = ""
    row_id: int = 0

    def answer(self) -> dict[str, Any]:
        """Say it in the old modules' words."""
        return {
            "ok": True,
            "handled": self.handled,
            "credited": self.credited,
            "duplicate": self.duplicate,
            "quarantined": self.quarantined,
            "reason": self.reason or None,
            "practice_id": self.practice_id or None,
            "ledger_id": self.row_id or None,
        }


class Answer(Protocol):
    """What can be said in the old modules' words."""

    def answer(self) -> dict[str, Any]:
        """Say it."""
        ...


Mode = Callable[[], bool | None]
"""Tells the mode our key has, None without a key; asked only of objects that tell theirs."""

Processor = Callable[[Workspace, object, Mode], Answer]
"""Applies one of Stripe's objects."""


class _Payment(NamedTuple):
    """What an event says of one payment; `received_rappen` None where it does not say."""

    metadata: Mapping[str, str]
    payment_id: str
    session_id: str
    received_rappen: int | None
    currency: str | None
    livemode: bool | None


def checkout_completed(space: Workspace, session: object, expected: Mode) -> Told:
    """Credit a paid checkout of credit once; note an unpaid one, which may be paid later."""
    try:
        facts = checkout_facts(session)
    except InvalidInput:
        return Told(False, reason="no_session_id")
    payment = _Payment(
        facts.metadata, facts.payment_id or "", facts.session_id, facts.amount_total_rappen,
        facts.currency, facts.livemode,
    )  # fmt: skip
    notice = _notice(space, payment, PURPOSE_TOPUP, TOPUP_PURCHASE)
    if notice is None:
        return Told(False, reason="not_ours")
    if facts.payment_status != "paid":
        return _told(space, fail_purchase(space, notice, reason="not_paid"))
    return _credit(space, payment, notice, expected)


def payment_succeeded(space: Workspace, payment_intent: object, expected: Mode) -> Told:
    """Credit a payment made by hand once, whichever of its events came first."""
    return _succeeded(space, payment_intent, expected, PURPOSE_TOPUP, TOPUP_PURCHASE)


def automatic_payment_succeeded(space: Workspace, payment_intent: object, expected: Mode) -> Told:
    """Credit an automatic charge once, also one that failed before."""
    return _succeeded(space, payment_intent, expected, PURPOSE_AUTO, AUTO_TOPUP_PURCHASE)


def _succeeded(
    space: Workspace, payment_intent: object, expected: Mode, purpose: str, kind: str
) -> Told:
    try:
        facts = payment_facts(payment_intent)
    except InvalidInput:
        return Told(False, reason="no_payment_id")
    received = facts.amount_received_rappen
    payment = _Payment(
        facts.metadata, facts.payment_id, "", facts.amount_rappen if received is None else received,
        facts.currency, facts.livemode,
    )  # fmt: skip
    notice = _notice(space, payment, purpose, kind)
    if notice is None:
        return Told(False, reason="not_ours")
    if facts.status not in (None, "succeeded"):
        return Told(True, reason=f"payment_{facts.status}", practice_id=notice.practice_id)
    return _credit(space, payment, notice, expected)


def _notice(
    space: Workspace, payment: _Payment, purpose: str, event_type: str
) -> PaymentNotice | None:
    """Read our own metadata; None where the payment is none of ours."""
    metadata = payment.metadata
    practice_id = metadata.get("practice_id", "")
    if metadata.get("aza_purpose") != purpose or not 1 <= len(practice_id) <= 200:
        return None
    notice = PaymentNotice(
        practice_id,
        event_type,
        _amount(nano_usd_from_float, metadata.get(_CREDIT_USD, "")) or 0,
        payment.received_rappen,
        license=metadata.get("subscription_id", ""),
        currency=payment.currency or "chf",
        payment_id=payment.payment_id,
        session_id=payment.session_id,
        topup_id=metadata.get(METADATA_TOPUP_ID, ""),
        livemode=payment.livemode,
        meta_json=clean_meta(metadata),
    )
    space.flush()
    known = registered(space, notice) or own_record(space, notice)
    # Another installation on the same account sees to its own, or both would credit it.
    return None if made_elsewhere(metadata) and known is None else notice


def _amount(convert: Callable[[Any], int], text: str) -> int | None:
    """Read a decimal of our own metadata, exactly; None where there is none to read."""
    try:
        amount = convert(Decimal(text)) if len(text) <= 40 else None
    except (InvalidOperation, ValueError):
        return None
    return amount if amount is not None and 0 < amount <= MAX_COMMAND_NANO_USD else None


def _credit(space: Workspace, payment: _Payment, notice: PaymentNotice, expected: Mode) -> Told:
    space.flush()
    if registered(space, notice) is None:
        why = _contradiction(space, payment, notice, expected)
        if why:
            return _told(space, quarantine(space, notice, why))
        notice = _priced(space, payment, notice)
    return _told(space, credit_payment(space, notice))


def _contradiction(
    space: Workspace, payment: _Payment, notice: PaymentNotice, expected: Mode
) -> str:
    """Tell why a payment may not be credited as it is told; our own record is compared later."""
    if payment.livemode is not None and expected() not in (None, payment.livemode):
        return "livemode_mismatch"
    if own_record(space, notice) is not None:
        return ""
    if payment.currency not in (None, "chf"):
        return "currency_mismatch"
    stated = _amount(rappen_from_float, payment.metadata.get(_PAID_CHF, ""))
    if None not in (payment.received_rappen, stated) and payment.received_rappen != stated:
        return "amount_mismatch"
    return "" if notice.credit_nano_usd > 0 else "credit_not_stated"


def _priced(space: Workspace, payment: _Payment, notice: PaymentNotice) -> PaymentNotice:
    """Without a record of ours and without the payment's own word, the metadata says the price."""
    if payment.received_rappen is not None or own_record(space, notice) is not None:
        return notice
    stated = _amount(rappen_from_float, payment.metadata.get(_PAID_CHF, ""))
    return notice._replace(price_rappen=stated)


def _told(space: Workspace, result: PurchaseResult) -> Told:
    space.flush()
    event = result.event
    row_id = 0
    if event is not None and not result.duplicate:
        number = space.practice_no(result.practice_id)
        row_id = legacy_rows.row_id_of(space.cursor, number, event.event_no)
    return Told(
        True, result.credited, result.duplicate, result.quarantined, result.reason,
        result.practice_id, row_id,
    )  # fmt: skip
