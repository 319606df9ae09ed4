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

from guthaben.domain.topup import CANCELED, FAILED
from guthaben.errors import InvalidInput, PaymentError
from guthaben.payments.facts import (
    CheckoutFacts,
    DisputeFacts,
    SetupFacts,
    checkout_facts,
    dispute_facts,
    payment_facts,
    refund_facts,
    refund_receipt,
    setup_facts,
)
from guthaben.payments.gateway import PaymentGateway
from guthaben.payments.webhook import verify
from guthaben.services import telling
from guthaben.services.applying import (
    DONE,
    Verdict,
    apply_told,
    credit,
    disputed,
    not_paid,
    save_card,
    settle_net,
)
from guthaben.services.guthaben import Guthaben
from guthaben.services.licence_news import LICENCE_EVENTS, LicenceNews
from guthaben.services.topups import PURPOSE_SETUP
from guthaben.store import inbox, settings
from guthaben.store.inbox import Letter
from guthaben.store.workspace import Workspace

__all__ = ["MOST_ATTEMPTS", "Inbox", "apply_told"]

log = logging.getLogger("guthaben.webhooks")

MOST_ATTEMPTS = 24
"""With the pauses below this is about three days, as long as Stripe itself repeats an event."""
_ALARM_AT_ATTEMPT = 8
_FIRST_RETRY_S = 5
_LONGEST_RETRY_S = 6 * 3600


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
        self._licences = LicenceNews(self._store, gateway)

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
        self._store.run(lambda space: _postpone(space, letter, now_s + pause_s, why))
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
            case (
                "charge.dispute.created"
                | "charge.dispute.funds_withdrawn"
                | "charge.dispute.funds_reinstated"
                | "charge.dispute.closed"
            ):
                return self._dispute(letter.event_type, dispute_facts(source))
            case kind if kind in LICENCE_EVENTS:
                return self._licences.event(kind, source)
            case _:
                return "ignored", "type"

    def _checkout(self, kind: str, told: CheckoutFacts) -> Verdict:
        if told.mode == "subscription":
            return self._licences.page(kind, told)
        if told.mode == "setup":
            if told.setup_id is None:
                return "ignored", "no_setup"
            return self._setup(self._gateway.retrieve_setup(told.setup_id))
        if kind.endswith((".expired", "_failed")):
            status = CANCELED if kind.endswith("expired") else FAILED
            return self._store.run(lambda space: not_paid(space, told, status))
        if told.payment_status != "paid" or told.payment_id is None:
            return "done", "not_paid_yet"
        return self._payment(told.payment_id, told.session_id)

    def _payment(self, payment_id: str, session_id: str) -> Verdict:
        facts = self._gateway.retrieve_payment(payment_id)
        if facts.status != "succeeded":
            return "done", f"payment_{facts.status}"
        if facts.amount_received_rappen is None or facts.currency is None:
            raise InvalidInput("the payment does not tell its amount yet")
        return self._store.run(lambda space: credit(space, facts, session_id))

    def _setup(self, facts: SetupFacts) -> Verdict:
        practice_id = facts.metadata.get("practice_id", "")
        if facts.metadata.get("aza_purpose") != PURPOSE_SETUP or not practice_id:
            return "ignored", "not_ours"
        if facts.status not in {None, "succeeded"}:
            return "done", f"setup_{facts.status}"
        if not (facts.customer_id and facts.payment_method_id):
            self._store.run(lambda space: _incomplete(space, practice_id))
            return "quarantined", "setup_incomplete"
        self._store.run(
            lambda space: save_card(space, practice_id, facts.customer_id, facts.payment_method_id)
        )
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
        return self._store.run(lambda space: settle_net(space, facts))

    def _dispute(self, kind: str, told: DisputeFacts) -> Verdict:
        if told.payment_id is None:
            return "ignored", "no_payment"  # all our payments are intents
        facts = self._gateway.retrieve_payment(told.payment_id)
        if None in (told.amount_rappen, facts.refunded_rappen, facts.amount_received_rappen):
            raise InvalidInput("the payment does not tell its refunds, or the dispute its amount")
        return self._store.run(lambda space: disputed(space, facts, told, kind))


def _postpone(space: Workspace, letter: Letter, at_s: int, why: str) -> None:
    inbox.try_again(space.cursor, letter, at_s, why)
    if letter.attempts + 1 == _ALARM_AT_ATTEMPT:
        settings.raise_alarm(space.cursor, "webhook_waiting", letter.event_id, space.now_s)


def _incomplete(space: Workspace, practice_id: str) -> None:
    settings.raise_alarm(
        space.cursor, "setup_incomplete", practice_id, space.now_s, space.practice_no(practice_id)
    )


def _bury(space: Workspace, letter: Letter, why: str) -> None:
    inbox.finish(space.cursor, letter, "dead", why, space.now_s)
    settings.raise_alarm(space.cursor, "webhook_dead", letter.event_id, space.now_s)
    telling.dead_letter(space, letter.event_id, letter.event_type, why)
