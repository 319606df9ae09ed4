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

from guthaben import config
from guthaben.domain.topup import CANCELED, FAILED
from guthaben.errors import (
    InvalidInput,
    PaymentError,
    PaymentUnavailable,
    StoreUnavailable,
    WebhookRejected,
)
from guthaben.payments.facts import (
    CheckoutFacts,
    DisputeFacts,
    SetupFacts,
    WarningFacts,
    checkout_facts,
    dispute_facts,
    payment_facts,
    refund_facts,
    refund_receipt,
    setup_facts,
    warning_facts,
)
from guthaben.payments.gateway import PaymentGateway
from guthaben.payments.reading import whole
from guthaben.payments.webhook import WebhookEvent, authentic, not_for_us
from guthaben.services import telling
from guthaben.services.applying import DONE, apply_told, not_paid
from guthaben.services.cards import Card, save_card
from guthaben.services.checks import is_practice_id
from guthaben.services.guthaben import Guthaben
from guthaben.services.installation import made_elsewhere
from guthaben.services.licence_news import LICENCE_EVENTS, LicenceNews
from guthaben.services.netting import Verdict, warned
from guthaben.services.refunds import Refunds
from guthaben.services.settling import Settler
from guthaben.services.topups import PURPOSE_SETUP
from guthaben.store import inbox, settings
from guthaben.store.inbox import Letter
from guthaben.store.workspace import Workspace

__all__ = ["HANDLED", "MOST_ATTEMPTS", "Inbox", "apply_told"]

log = logging.getLogger("guthaben.webhooks")

MOST_ATTEMPTS = 24
"""With the pauses below this is about three days, as long as Stripe itself repeats an event."""
_ALARM_AT_ATTEMPT = 8
_FIRST_RETRY_S = 5
_LONGEST_RETRY_S = 6 * 3600
_LONGEST_OUTAGE_PAUSE_S = 900

_PAGES = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
    }
)
_PAYMENTS = frozenset({"payment_intent.succeeded", "payment_intent.canceled"})
_REFUNDS = frozenset(
    {
        "charge.refunded",
        "charge.refund.updated",
        "refund.created",
        "refund.updated",
        "refund.failed",
    }
)
_DISPUTES = frozenset(
    {
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    }
)
_WARNINGS = frozenset({"radar.early_fraud_warning.created", "radar.early_fraud_warning.updated"})
HANDLED = _PAGES | _PAYMENTS | _REFUNDS | _DISPUTES | _WARNINGS | {"setup_intent.succeeded"}
"""The kinds of events that move money or cards of ours."""
_PAYMENT_FAILED = frozenset({"requires_payment_method", "canceled"})


class Inbox:
    """Receives events and applies them to the credit of their practices."""

    def __init__(
        self,
        guthaben: Guthaben,
        gateway: PaymentGateway,
        *,
        secrets: Callable[[], tuple[str, ...]],
        livemode_expected: bool | None,
        account: Callable[[], str | None] = config.stripe_account_id,
    ) -> None:
        self._store = guthaben.core.store
        self._gateway = gateway
        self._secrets = secrets
        self._livemode_expected = livemode_expected
        self._account = account
        self.settler = Settler(self._store, gateway, livemode_expected=livemode_expected)
        self.refunds = Refunds(self._store, gateway, self.settler)
        self._licences = LicenceNews(self._store, gateway)

    def receive(self, body: bytes, signature_header: str | None) -> bool:
        """Verify an event over its raw bytes and store it durably; tell whether it is new.

        Answer 200 only after this returns. What is signed rightly and is not for us is stored too,
        quarantined. Raises `WebhookRejected`, `StoreUnavailable`.
        """
        now_s = self._store.now_s()
        event = authentic(body, signature_header, self._secrets(), now_s)
        why = not_for_us(event, livemode_expected=self._livemode_expected, account=self._account())
        new = self._store.run(lambda space: _keep(space, event, body, why))
        if why:
            raise WebhookRejected(why, authentic=True)
        return new

    def take(self, event: WebhookEvent) -> bool:
        """Store an event that was read from the provider's own list; tell whether it was missed."""
        why = not_for_us(event, livemode_expected=self._livemode_expected, account=self._account())
        if why or event.type not in HANDLED:
            return False
        body = json.dumps(event.payload, separators=(",", ":")).encode()
        return self._store.run(lambda space: _keep(space, event, body, ""))

    def missed(self, event: WebhookEvent) -> bool:
        """Tell whether an event that concerns us was never received."""
        why = not_for_us(event, livemode_expected=self._livemode_expected, account=self._account())
        if why or event.type not in HANDLED:
            return False
        return not self._store.read(
            lambda cur: inbox.is_stored(cur, event.livemode, event.event_id)
        )

    def work_once(self, limit: int = 50) -> int:
        """Apply what is due, in the order of arrival; tell how many events were closed."""
        now_s = self._store.now_s()
        closed = 0
        for letter in self._store.read(lambda cur: inbox.waiting(cur, now_s, limit)):
            try:
                closed += self._apply(letter, now_s)
            except PaymentUnavailable as error:
                self._put_off(letter, now_s, error.code, for_ever=True)
                if error.http_status in (401, 403):  # the next one would be refused as well
                    log.error("the provider refuses our key: the inbox waits")
                    break
        return closed

    def _apply(self, letter: Letter, now_s: int) -> bool:
        try:
            verdict = self._decide(letter)
        except PaymentUnavailable:
            raise
        except (PaymentError, InvalidInput) as error:
            return self._put_off(letter, now_s, error.code)
        except StoreUnavailable:
            log.warning("an event waits for the store: %s", letter.event_type)
            return False
        except Exception:
            log.exception("an event could not be applied: %s", letter.event_type)
            return self._put_off(letter, now_s, "internal")
        self._store.run(lambda space: inbox.finish(space.cursor, letter, *verdict, space.now_s))
        return True

    def _put_off(self, letter: Letter, now_s: int, why: str, *, for_ever: bool = False) -> bool:
        """Try again with growing pauses; at the end keep it, dead and alarmed.

        `for_ever`: it is not the event's fault, so it is never given up.
        """
        if letter.attempts + 1 >= MOST_ATTEMPTS and not for_ever:
            self._store.run(lambda space: _bury(space, letter, why))
            return True
        pause_s = min(_FIRST_RETRY_S * 2 ** min(letter.attempts, 20), _LONGEST_RETRY_S)
        if for_ever:
            pause_s = min(pause_s, _LONGEST_OUTAGE_PAUSE_S)
        self._store.run(lambda space: _postpone(space, letter, now_s + pause_s, why))
        return False

    # ---- by kind of event

    def _decide(self, letter: Letter) -> Verdict:
        event = json.loads(letter.payload)
        source: Mapping[str, Any] = event["data"]["object"]
        kind, happened_at_s = letter.event_type, whole(event, "created")
        if kind in _PAGES:
            return self._checkout(kind, checkout_facts(source), happened_at_s)
        if kind in _PAYMENTS:
            return self.settler.settle(payment_facts(source).payment_id)
        if kind == "setup_intent.succeeded":
            return self._setup(setup_facts(source), happened_at_s)
        if kind in _REFUNDS:
            return self._refund(kind, source)
        if kind in _DISPUTES:
            return self._dispute(dispute_facts(source))
        if kind in _WARNINGS:
            return self._warning(warning_facts(source))
        if kind in LICENCE_EVENTS:
            return self._licences.event(kind, source)
        return "ignored", "type"

    def _checkout(self, kind: str, told: CheckoutFacts, happened_at_s: int | None) -> Verdict:
        if told.mode == "subscription":
            return self._licences.page(kind, told)
        if told.mode == "setup":
            if told.setup_id is None:
                return "ignored", "no_setup"
            return self._setup(self._gateway.retrieve_setup(told.setup_id), happened_at_s)
        if told.payment_id is not None and told.payment_status == "paid":
            return self.settler.settle(told.payment_id, told.session_id)
        if kind == "checkout.session.completed":
            return "done", "not_paid_yet"
        return self.settle_page(told.session_id)

    def settle_page(self, session_id: str) -> Verdict:
        """Read a page at the provider, and credit or close its purchase as it stands there now."""
        page = self._gateway.retrieve_checkout(session_id)
        if page.payment_status == "paid" and page.payment_id is not None:
            return self.settler.settle(page.payment_id, page.session_id)
        if page.status == "expired":
            return self._store.run(lambda space: not_paid(space, page, CANCELED))
        if page.status == "complete" and page.payment_id is not None:
            payment = self._gateway.retrieve_payment(page.payment_id)
            if payment.status in _PAYMENT_FAILED:
                return self._store.run(lambda space: not_paid(space, page, FAILED))
        return "done", "not_paid_yet"

    def _setup(self, facts: SetupFacts, happened_at_s: int | None) -> Verdict:
        practice_id = facts.metadata.get("practice_id", "")
        if facts.metadata.get("aza_purpose") != PURPOSE_SETUP or not is_practice_id(practice_id):
            return "ignored", "not_ours"
        if made_elsewhere(facts.metadata):  # its practices may be called like ours
            return "ignored", "other_installation"
        if facts.status not in {None, "succeeded"}:
            return "done", f"setup_{facts.status}"
        if not (facts.customer_id and facts.payment_method_id):
            self._store.run(lambda space: _incomplete(space, practice_id))
            return "quarantined", "setup_incomplete"
        card = Card(facts.customer_id, facts.payment_method_id, happened_at_s)
        is_taken = self._store.run(lambda space: save_card(space, practice_id, card))
        return DONE if is_taken else ("done", "older_card")

    def _refund(self, kind: str, source: Mapping[str, Any]) -> Verdict:
        told = refund_facts(source) if kind == "charge.refunded" else refund_receipt(source)
        if told.payment_id is None:
            return "ignored", "no_payment"  # all our payments are intents
        verdict = self.settler.settle(told.payment_id)
        self.refunds.follow(told.payment_id)
        return verdict

    def _dispute(self, told: DisputeFacts) -> Verdict:
        # What Stripe says of the dispute now decides; the event may be an old one.
        payment_id = told.payment_id
        if payment_id is None:
            payment_id = self._gateway.retrieve_dispute(told.dispute_id).payment_id
        if payment_id is None:
            return "ignored", "no_payment"
        return self.settler.settle(payment_id, ask_disputes=True)

    def _warning(self, told: WarningFacts) -> Verdict:
        if told.payment_id is None:
            return "ignored", "no_payment"
        return self.settler.settle(
            told.payment_id, after=lambda space, facts: warned(space, facts, told)
        )


def _keep(space: Workspace, event: WebhookEvent, body: bytes, why: str) -> bool:
    if why:
        # One alarm for all of a kind: whoever mends the endpoint's settings sees them in the list.
        settings.raise_alarm(space.cursor, "webhook_not_for_us", why, space.now_s)
    return inbox.store(
        space.cursor,
        livemode=event.livemode,
        event_id=event.event_id,
        event_type=event.type,
        payload=body,
        now_s=space.now_s,
        not_for_us=why,
    )


def _postpone(space: Workspace, letter: Letter, at_s: int, why: str) -> None:
    waits = inbox.try_again(space.cursor, letter, at_s, why)
    if waits and letter.attempts + 1 == _ALARM_AT_ATTEMPT:
        settings.raise_alarm(space.cursor, "webhook_waiting", letter.event_id, space.now_s)


def _incomplete(space: Workspace, practice_id: str) -> None:
    settings.raise_alarm(
        space.cursor, "setup_incomplete", practice_id, space.now_s, space.practice_no(practice_id)
    )


def _bury(space: Workspace, letter: Letter, why: str) -> None:
    if not inbox.finish(space.cursor, letter, "dead", why, space.now_s):
        return  # another server has applied it meanwhile
    settings.raise_alarm(space.cursor, "webhook_dead", letter.event_id, space.now_s)
    telling.dead_letter(space, letter.event_id, letter.event_type, why)
