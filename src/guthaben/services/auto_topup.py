"""The automatic top-up: claim an attempt, charge the saved card, store what came of it.

Law: the attempt is committed before anything leaves the process, and the charge is never made
inside a transaction. A lost answer is a state, `unknown`; it is resolved with the same key within
twelve hours or by looking the payment up, never by a new attempt. A failure pauses.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

from guthaben.domain.auto_topup import Decision, decide
from guthaben.domain.commands import ClaimTopup, CloseEvent, Outcome
from guthaben.domain.money import format_chf, format_usd
from guthaben.domain.practice import ACTIVE
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    CANCELED,
    FAILED,
    FAILED_AUTO_TOPUP,
    IN_FLIGHT,
    PENDING,
    SUCCEEDED,
    UNKNOWN,
    CreditEvent,
)
from guthaben.errors import GuthabenError, InvalidInput, PaymentError
from guthaben.payments.gateway import (
    METADATA_TOPUP_ID,
    Charged,
    ChargeOrder,
    ChargeResult,
    Declined,
    NeedsCustomer,
    NotSent,
    PaymentFacts,
    PaymentGateway,
    Processing,
    Unknown,
)
from guthaben.services import telling
from guthaben.services.purchases import PaymentNotice, credit_payment
from guthaben.store import settings, topups
from guthaben.store.adopted import Run
from guthaben.store.connection import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.auto_topup")

RETRY_SAME_KEY_S = 12 * 3600
"""Stripe may forget a key after 24 h; half of that leaves room for clocks and delays."""
ALARM_AFTER_S = 24 * 3600
_SETTLED_FOR_S = 60
"""An attempt younger than this may still be under way in another thread."""
_BACK_OFF_S = 3600
PURPOSE = "ai_auto_topup"


class ChargeReport(NamedTuple):
    """What a charge came to."""

    charged: bool
    paused: bool
    unknown: bool
    reason: str
    event: CreditEvent


def new_topup_id() -> str:
    """Make the public id of a top-up: 96 random bits."""
    return "tu_" + secrets.token_hex(12)


def decision(space: Workspace, practice_id: str, is_low: bool) -> Decision:
    """Tell what claiming would decide now, changing nothing."""
    context = space.claim_context(practice_id)
    active = space.practice(practice_id).status == ACTIVE
    return decide(context._replace(practice_active=active), is_low, space.now_s)


def claim(run: Run, practice_id: str, *, license: str = "", is_low: bool = False) -> Outcome:
    """Claim an attempt and commit it; `applied` False tells in `reason` why there is none.

    `is_low` says that the caller has seen credit below the trigger; otherwise the practice's own
    balance decides. Cap, single flight and cooldown are checked in the same transaction.
    """
    command = ClaimTopup(new_topup_id(), license, is_low)
    return run(lambda space: space.apply(practice_id, command))


def charge_claimed(
    run: Run,
    gateway: PaymentGateway,
    practice_id: str,
    event: CreditEvent,
    *,
    is_retry: bool = False,
) -> ChargeReport:
    """Charge the card for a claimed attempt and store the outcome, in a transaction of its own."""
    result = gateway.charge_saved_card(_order(practice_id, event, is_retry))
    return run(lambda space: store_result(space, practice_id, event, result))


def _order(practice_id: str, event: CreditEvent, is_retry: bool) -> ChargeOrder:
    """Say exactly what the attempt's record says, so that a repeated request is the same one."""
    params: dict[str, Any] = json.loads(event.params)
    return ChargeOrder(
        amount_rappen=params["amount_rappen"],
        currency=params["currency"],
        customer_id=params["customer_id"],
        payment_method_id=params["payment_method_id"],
        idempotency_key=event.idempotency_key,
        is_retry=is_retry,
        metadata={
            "aza_purpose": PURPOSE,
            "practice_id": practice_id,
            "subscription_id": params["license"],
            "internal_credit_usd": format_usd(params["credit_nano_usd"]),
            "paid_chf": format_chf(params["amount_rappen"]),
            METADATA_TOPUP_ID: event.topup_id,
        },
    )


def store_result(
    space: Workspace, practice_id: str, event: CreditEvent, result: ChargeResult
) -> ChargeReport:
    """Store what a charge came to; the webhook may have told it before."""
    match result:
        case Charged(payment_id):
            return _charged(space, practice_id, event, payment_id)
        case Processing(payment_id):
            return _open(space, practice_id, event, PENDING, payment_id, "processing")
        case NeedsCustomer(payment_id, status):
            return _failed(space, practice_id, event, payment_id, status, pause=True)
        case Declined():
            reason = result.decline_code or result.code
            return _failed(space, practice_id, event, result.payment_id, reason, pause=True)
        case NotSent():
            return _not_sent(space, practice_id, event, result)
        case Unknown(why, known_id):
            return _open(space, practice_id, event, UNKNOWN, known_id or "", why)


def _charged(
    space: Workspace, practice_id: str, event: CreditEvent, payment_id: str
) -> ChargeReport:
    notice = PaymentNotice(
        practice_id, AUTO_TOPUP_PURCHASE, event.amount_nano_usd, event.price_minor, event.license,
        event.currency, payment_id, "", event.topup_id, event.livemode,
    )  # fmt: skip
    result = credit_payment(space, notice)
    done = space.event(practice_id, event.event_no) or event
    return ChargeReport(
        result.credited or result.duplicate, result.quarantined, False, result.reason, done
    )


def _open(
    space: Workspace, practice_id: str, event: CreditEvent, status: str, payment_id: str, why: str
) -> ChargeReport:
    """Keep an attempt without an outcome; it still counts toward the cap."""
    close = CloseEvent(event.event_no, status, "", payment_id, "", why)
    stored = space.apply(practice_id, close).event or event
    return ChargeReport(False, False, status == UNKNOWN, why, stored)


def _failed(
    space: Workspace,
    practice_id: str,
    event: CreditEvent,
    payment_id: str | None,
    reason: str,
    *,
    pause: bool,
) -> ChargeReport:
    close = CloseEvent(
        event.event_no, FAILED, FAILED_AUTO_TOPUP, payment_id or "", "", reason[:100]
    )
    outcome = space.apply(practice_id, close)
    if not outcome.applied:  # its success was told meanwhile, and stands
        stored = outcome.event or event
        return ChargeReport(stored.status == SUCCEEDED, False, False, "", stored)
    space.flush()
    practice_no = space.practice_no(practice_id)
    if pause:
        settings.pause_auto_topup(space.cursor, practice_no, reason[:100], space.now_s)
        settings.raise_alarm(
            space.cursor, "auto_topup_paused", practice_id, space.now_s, practice_no
        )
        telling.paused(space, practice_id, event, reason[:100])
    else:
        settings.defer_auto_topup(space.cursor, practice_no, space.now_s + _BACK_OFF_S)
    return ChargeReport(False, pause, False, reason, outcome.event or event)


def _not_sent(
    space: Workspace, practice_id: str, event: CreditEvent, result: NotSent
) -> ChargeReport:
    """Certainly no charge: only a method that can't be used is the customer's to mend."""
    pause = result.why == "method_unusable"
    if result.why in {"auth", "misconfigured", "invalid_request"}:
        settings.raise_alarm(space.cursor, "charges_not_sent", result.why, space.now_s)
        telling.charges_not_sent(space, result.why)
    return _failed(space, practice_id, event, None, f"not_sent_{result.why}", pause=pause)


# ---------------------------------------------------------------- resolving


def resolve(run: Run, gateway: PaymentGateway, located: topups.Located, now_s: int) -> bool:
    """Find out what became of an attempt without an outcome; tell whether it has one now.

    What the customer has switched off meanwhile is looked up, never sent. Raises the
    `PaymentError` tree when the provider can't be asked.
    """
    practice_id = located.practice_id
    event, wanted = run(lambda space: _still_wanted(space, practice_id, located.event))
    if event is None:
        return True
    if event.payment_id:
        return _read(run, practice_id, event, gateway.retrieve_payment(event.payment_id))
    if wanted and now_s - event.recorded_at_s <= RETRY_SAME_KEY_S:
        report = charge_claimed(run, gateway, practice_id, event, is_retry=True)
        return report.event.status not in IN_FLIGHT
    customer_id = json.loads(event.params)["customer_id"]
    found = gateway.find_payment(event.topup_id, customer_id, event.recorded_at_s)
    if found is not None:
        return _read(run, practice_id, event, found)
    if wanted:
        run(lambda space: _failed(space, practice_id, event, None, "never_arrived", pause=False))
    else:
        run(lambda space: _withdrawn(space, practice_id, event, "switched_off"))
    return True


def _still_wanted(
    space: Workspace, practice_id: str, claimed: CreditEvent
) -> tuple[CreditEvent | None, bool]:
    """Read the attempt again (none if it has an outcome), and whether it may still be sent."""
    event = space.event(practice_id, claimed.event_no)
    if event is None or event.status not in IN_FLIGHT:
        return None, False
    context = space.claim_context(practice_id)
    active = space.practice(practice_id).status == ACTIVE
    consented = context.consent is not None and (
        (event.price_minor or 0) <= context.consent.amount_rappen
    )
    return event, context.enabled and active and consented


def _withdrawn(space: Workspace, practice_id: str, event: CreditEvent, why: str) -> None:
    """Close an attempt that was certainly never charged."""
    space.apply(practice_id, CloseEvent(event.event_no, CANCELED, reason=why))


def _read(run: Run, practice_id: str, event: CreditEvent, facts: PaymentFacts) -> bool:
    """Store what the provider says of the payment, compared with what we asked for."""
    if facts.status == "succeeded":
        if facts.amount_received_rappen is None or facts.currency is None:
            raise InvalidInput("the payment does not tell its amount yet")
        notice = PaymentNotice(
            practice_id, AUTO_TOPUP_PURCHASE, event.amount_nano_usd,
            facts.amount_received_rappen, event.license, facts.currency, facts.payment_id, "",
            event.topup_id, facts.livemode,
        )  # fmt: skip
        run(lambda space: credit_payment(space, notice))
        return True
    if facts.status in {"processing", "requires_capture"}:
        return False
    reason = facts.status or "unreadable"
    run(lambda space: _failed(space, practice_id, event, facts.payment_id, reason, pause=True))
    return True


class Charger:
    """Charges claimed attempts on a thread of its own, and resolves those without an outcome.

    Give its `claimed` and `allowed` to `Guthaben.open(on_claim=..., may_claim=...)`, `attach` the
    store, then `start` it.
    """

    def __init__(
        self, gateway: PaymentGateway, *, allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self.allowed = allowed
        self._gateway = gateway
        self._queue: SimpleQueue[tuple[str, CreditEvent] | None] = SimpleQueue()
        self._stopping = False
        self._store: Store | None = None
        self._thread: threading.Thread | None = None

    def attach(self, store: Store) -> None:
        """Tell which store the attempts are in."""
        self._store = store

    def claimed(self, practice_id: str, outcome: Outcome) -> None:
        """Take over a claimed attempt; called by the store, returns at once."""
        if outcome.event is not None:
            self._queue.put((practice_id, outcome.event))

    def start(self) -> None:
        """Begin charging."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="guthaben-charger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the charge under way; what is queued stays pending and is resolved later."""
        if self._thread is not None:
            self._stopping = True
            self._queue.put(None)
            self._thread.join(timeout=15)
            self._thread = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopping:
            practice_id, event = item
            try:
                self._charge(practice_id, event)
            except GuthabenError:
                log.exception("an attempt keeps no outcome; it will be resolved later")
            except Exception:
                log.exception("charging broke; the attempt will be resolved later")

    def _charge(self, practice_id: str, claimed: CreditEvent) -> None:
        store = self._store
        if store is None or store.clock_ms() // 1000 - claimed.recorded_at_s > _SETTLED_FOR_S:
            return  # too old to be sure that nobody else has sent it: the resolver's work
        event, wanted = store.run(lambda space: _still_wanted(space, practice_id, claimed))
        if event is None:
            return
        if not (wanted and self.allowed()):
            store.run(lambda space: _withdrawn(space, practice_id, event, "not_allowed"))
            return
        report = charge_claimed(store.run, self._gateway, practice_id, event)
        log.info("automatic top-up: charged=%s reason=%s", report.charged, report.reason)

    def resolve_waiting(self, most: int = 500) -> int:
        """Resolve attempts without an outcome, the oldest first; tell how many have one now."""
        store = self._store
        if store is None or not self.allowed():
            return 0
        now_s = store.clock_ms() // 1000
        after, seen, done = (0, 0, 0), 0, 0
        while page := store.read(_page(now_s - _SETTLED_FOR_S, after)):
            for located in page:
                done += self._resolve_one(store, located, now_s)
            last = page[-1]
            after = (last.event.recorded_at_s, last.practice_no, last.event.event_no)
            seen += len(page)
            if seen >= most:
                break
        return done

    def _resolve_one(self, store: Store, located: topups.Located, now_s: int) -> bool:
        if now_s - located.event.recorded_at_s > ALARM_AFTER_S:
            store.run(lambda space: _complain(space, located, "attempt_without_outcome"))
        try:
            return resolve(store.run, self._gateway, located, now_s)
        except PaymentError as error:
            log.warning("an attempt could not be resolved yet: %s", error.code)
        except Exception:
            log.exception("an attempt can't be resolved; the others go on")
            store.run(lambda space: _complain(space, located, "attempt_unresolvable"))
        return False


def _page(
    recorded_before_s: int, after: tuple[int, int, int]
) -> Callable[[Cursor], list[topups.Located]]:
    return lambda cur: topups.waiting_events(cur, AUTO_TOPUP_PURCHASE, recorded_before_s, after)


def _complain(space: Workspace, located: topups.Located, code: str) -> None:
    subject = f"{located.practice_id}:{located.event.event_no}"
    settings.raise_alarm(space.cursor, code, subject, space.now_s, located.practice_no)
    telling.unresolved(space, located.practice_id, located.event)
