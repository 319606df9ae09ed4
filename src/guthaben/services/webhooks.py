"""Webhooks: verify, store, answer; then apply, as often as it takes.

Law: an event is a hint. What is credited comes from our own record and from the payment as the
provider tells it now; an event that nobody of ours caused is ignored, one that contradicts our
record is quarantined. `receive` calls nobody; `work_once` calls the provider outside transactions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from guthaben.domain.commands import NetPayment
from guthaben.domain.money import parse_chf, parse_usd
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, CANCELED, FAILED, TOPUP_PURCHASE
from guthaben.errors import InvalidInput, PaymentError
from guthaben.payments.facts import (
    CheckoutFacts,
    PaymentFacts,
    SetupFacts,
    checkout_facts,
    payment_facts,
    refund_facts,
    refund_receipt,
    setup_facts,
)
from guthaben.payments.gateway import METADATA_TOPUP_ID, PaymentGateway
from guthaben.payments.webhook import verify
from guthaben.services.auto_topup import PURPOSE as PURPOSE_AUTO
from guthaben.services.guthaben import Guthaben
from guthaben.services.purchases import (
    PaymentNotice,
    PurchaseResult,
    credit_payment,
    fail_purchase,
    own_record,
    quarantine,
    registered,
)
from guthaben.services.topups import PURPOSE_SETUP, PURPOSE_TOPUP
from guthaben.store import inbox, settings, topups
from guthaben.store.inbox import Letter
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.webhooks")

MOST_ATTEMPTS = 12
_FIRST_RETRY_S = 5
_LONGEST_RETRY_S = 6 * 3600

Verdict = tuple[str, str]
"""The inbox status an event ends with, and why."""

DONE: Verdict = ("done", "")
_OURS = {PURPOSE_TOPUP: TOPUP_PURCHASE, PURPOSE_AUTO: AUTO_TOPUP_PURCHASE}


class Inbox:
    """Receives events and applies them to the credit of their practices."""

    def __init__(
        self,
        guthaben: Guthaben,
        gateway: PaymentGateway,
        *,
        secrets: Callable[[], tuple[str, ...]],
        livemode_expected: bool | None,
    ) -> None:
        self._store = guthaben.core.store
        self._gateway = gateway
        self._secrets = secrets
        self._livemode_expected = livemode_expected

    def receive(self, body: bytes, signature_header: str | None) -> bool:
        """Verify an event over its raw bytes and store it durably; tell whether it is new.

        Answer 200 only after this returns. Raises `WebhookRejected`, `StoreUnavailable`.
        """
        now_s = self._store.clock_ms() // 1000
        event = verify(
            body,
            signature_header,
            self._secrets(),
            now_s,
            livemode_expected=self._livemode_expected,
        )
        return self._store.run(
            lambda space: inbox.store(
                space.cursor,
                livemode=event.livemode,
                event_id=event.event_id,
                event_type=event.type,
                payload=body,
                now_s=now_s,
            )
        )

    def work_once(self, limit: int = 50) -> int:
        """Apply what is due, in the order of arrival; tell how many events were closed."""
        now_s = self._store.clock_ms() // 1000
        letters = self._store.read(lambda cur: inbox.waiting(cur, now_s, limit))
        return sum(self._apply(letter, now_s) for letter in letters)

    def _apply(self, letter: Letter, now_s: int) -> bool:
        try:
            verdict = self._decide(letter)
        except (PaymentError, InvalidInput) as error:
            return self._put_off(letter, now_s, error.code)
        except Exception:
            log.exception("an event could not be applied: %s", letter.event_type)
            return self._put_off(letter, now_s, "internal")
        self._store.run(lambda space: inbox.finish(space.cursor, letter, *verdict, space.now_s))
        return True

    def _put_off(self, letter: Letter, now_s: int, why: str) -> bool:
        """Try again with growing pauses; at the end keep it, dead and alarmed."""
        if letter.attempts + 1 >= MOST_ATTEMPTS:
            self._store.run(lambda space: _bury(space, letter, why))
            return True
        pause_s = min(_FIRST_RETRY_S * 2**letter.attempts, _LONGEST_RETRY_S)
        self._store.run(lambda space: inbox.try_again(space.cursor, letter, now_s + pause_s, why))
        return False

    # ---- by kind of event

    def _decide(self, letter: Letter) -> Verdict:
        source: Mapping[str, Any] = json.loads(letter.payload)["data"]["object"]
        match letter.event_type:
            case (
                "checkout.session.completed"
                | "checkout.session.async_payment_succeeded"
                | "checkout.session.async_payment_failed"
                | "checkout.session.expired"
            ):
                return self._checkout(letter.event_type, checkout_facts(source))
            case "payment_intent.succeeded":
                return self._payment(payment_facts(source).payment_id, "")
            case "setup_intent.succeeded":
                return self._setup(setup_facts(source))
            case "charge.refunded" | "charge.refund.updated" | "refund.failed" | "refund.updated":
                return self._refund(letter.event_type, source)
            case _:
                return "ignored", "type"

    def _checkout(self, kind: str, told: CheckoutFacts) -> Verdict:
        if told.mode == "setup":
            if told.setup_id is None:
                return "ignored", "no_setup"
            return self._setup(self._gateway.retrieve_setup(told.setup_id))
        if kind.endswith((".expired", "_failed")):
            return self._not_paid(told, CANCELED if kind.endswith("expired") else FAILED)
        if told.payment_status != "paid" or told.payment_id is None:
            return "done", "not_paid_yet"
        return self._payment(told.payment_id, told.session_id)

    def _not_paid(self, told: CheckoutFacts, status: str) -> Verdict:
        notice = _notice(told.metadata, livemode=told.livemode, session_id=told.session_id)
        if notice is None:
            return "ignored", "not_ours"
        result = self._store.run(lambda space: fail_purchase(space, notice, status=status))
        return "done", result.reason

    def _payment(self, payment_id: str, session_id: str) -> Verdict:
        facts = self._gateway.retrieve_payment(payment_id)
        if facts.status != "succeeded":
            return "done", f"payment_{facts.status}"
        notice = _notice(
            facts.metadata,
            livemode=facts.livemode,
            session_id=session_id,
            payment_id=payment_id,
            currency=facts.currency or "",
            received_rappen=facts.amount_received_rappen,
        )
        if notice is None:
            return "ignored", "not_ours"
        return _verdict(self._store.run(lambda space: _credit(space, notice, facts)))

    def _setup(self, facts: SetupFacts) -> Verdict:
        practice_id = facts.metadata.get("practice_id", "")
        if facts.metadata.get("aza_purpose") != PURPOSE_SETUP or not practice_id:
            return "ignored", "not_ours"
        if facts.status not in {None, "succeeded"}:
            return "done", f"setup_{facts.status}"
        if not (facts.customer_id and facts.payment_method_id):
            return "quarantined", "setup_incomplete"
        self._store.run(lambda space: _save_card(space, practice_id, facts))
        return DONE

    def _refund(self, kind: str, source: Mapping[str, Any]) -> Verdict:
        payment_id = (
            refund_facts(source).payment_id
            if kind == "charge.refunded"
            else refund_receipt(source).payment_id
        )
        if payment_id is None:
            return "ignored", "no_payment"
        facts = self._gateway.retrieve_payment(payment_id)
        if facts.refunded_rappen is None or facts.amount_received_rappen is None:
            raise InvalidInput("the payment does not tell its refunds yet")
        net = facts.amount_received_rappen - facts.refunded_rappen
        return self._store.run(lambda space: _net(space, payment_id, net))


def apply_told(space: Workspace, event_type: str, source: Mapping[str, Any]) -> Verdict:
    """Apply what an event itself tells of a refund or of a page that was not paid.

    For a host that applies webhooks inside its own transaction, where nobody can be asked. The
    object is the event's `data.object` as plain values. Other kinds are ignored.
    """
    if event_type == "charge.refunded":
        told = refund_facts(source)
        if told.payment_id is None or None in (told.captured_rappen, told.refunded_rappen):
            return "ignored", "no_payment"
        net = (told.captured_rappen or 0) - (told.refunded_rappen or 0)
        return _net(space, told.payment_id, net)
    if event_type in {"checkout.session.expired", "checkout.session.async_payment_failed"}:
        page = checkout_facts(source)
        notice = _notice(page.metadata, livemode=page.livemode, session_id=page.session_id)
        if notice is None:
            return "ignored", "not_ours"
        expired = event_type.endswith("expired")
        fail_purchase(space, notice, status=CANCELED if expired else FAILED)
        return DONE
    return "ignored", "type"


def _bury(space: Workspace, letter: Letter, why: str) -> None:
    inbox.finish(space.cursor, letter, "dead", why, space.now_s)
    settings.raise_alarm(space.cursor, "webhook_dead", letter.event_id, space.now_s)


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


def _credit(space: Workspace, notice: PaymentNotice, facts: PaymentFacts) -> PurchaseResult:
    """Credit a payment; one without a record of ours must bear out its own metadata."""
    if registered(space, notice) is None and own_record(space, notice) is None:
        stated = _amount(parse_chf, facts.metadata.get("paid_chf", ""))
        if stated != notice.price_rappen or notice.currency != "chf":
            return quarantine(space, notice, "amount_mismatch")
        if notice.credit_nano_usd <= 0:
            return quarantine(space, notice, "credit_not_stated")
    return credit_payment(space, notice)


def _verdict(result: PurchaseResult) -> Verdict:
    if result.quarantined:
        return "quarantined", result.reason
    return "done", "credited" if result.credited else result.reason


def _save_card(space: Workspace, practice_id: str, facts: SetupFacts) -> None:
    """Keep the saved card; whether it may be charged is the customer's consent to say."""
    practice_no = space.practice_no(practice_id)
    mode = space.practice(practice_id).mode
    row = settings.load_settings(space.cursor, practice_no, mode) or TopupSettingsRow()
    row = row._replace(customer_id=facts.customer_id, payment_method_id=facts.payment_method_id)
    settings.save_settings(space.cursor, practice_no, mode, row, space.now_s)
    settings.audit(space.cursor, practice_no, "card_saved", "checkout", "", space.now_s)


def _net(space: Workspace, payment_id: str, net_rappen: int) -> Verdict:
    """Bring the credit of a payment in line with the money that is left."""
    owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, payment_id)
    if owner is None:
        if topups.locate_event(space.cursor, "payment_id", payment_id) is None:
            return "ignored", "not_ours"
        raise InvalidInput("the payment's own success has not been applied yet")
    practice_id = topups.practice_id_of(space.cursor, owner.practice_no)
    outcome = space.apply(practice_id, NetPayment(owner.event_no, net_rappen))
    return "done", "netted" if outcome.applied else (outcome.reason or "nothing_to_net")
