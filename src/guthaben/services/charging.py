"""One automatic charge: claim an attempt, send it, store what came of it.

Law: the attempt is committed before anything leaves the process, and the charge is never made
inside a transaction. Right before it leaves, everything that could have changed is asked again in
the transaction that marks it as sent. A lost answer is a state, `unknown`; see `janitor`.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from guthaben.domain.auto_topup import Decision, after_failure, decide, why_not_send
from guthaben.domain.commands import ClaimTopup, CloseEvent, Outcome, SendAttempt
from guthaben.domain.declines import Verdict, judge
from guthaben.domain.money import format_chf, format_usd
from guthaben.domain.practice import ACTIVE
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    CANCELED,
    FAILED,
    FAILED_AUTO_TOPUP,
    PENDING,
    SUCCEEDED,
    UNKNOWN,
    CreditEvent,
)
from guthaben.errors import InvalidInput
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
from guthaben.services import attempt_notices, telling
from guthaben.services.installation import made_here
from guthaben.services.purchases import PaymentNotice, credit_payment
from guthaben.store import attempts, settings
from guthaben.store.adopted import Run
from guthaben.store.workspace import Workspace, new_topup_id

PURPOSE = "ai_auto_topup"
_NOTHING_LEFT_OPEN = frozenset({"canceled"})


class ChargeReport(NamedTuple):
    """What a charge came to."""

    charged: bool
    paused: bool
    unknown: bool
    reason: str
    event: CreditEvent


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
    """Charge the card for a claimed attempt and store the outcome, in a transaction of its own.

    `is_retry` repeats, with the same key, an attempt that was sent before. Otherwise the attempt is
    marked as sent first, and cancelled if it is not wanted any more; then nothing was sent.
    """
    if not is_retry:
        why, event = run(lambda space: begin_sending(space, practice_id, event, gateway.livemode))
        if why:
            return ChargeReport(event.status == SUCCEEDED, False, False, why, event)
    result = gateway.charge_saved_card(_order(practice_id, event, is_retry))
    return run(lambda space: store_result(space, practice_id, event, result))


def begin_sending(
    space: Workspace, practice_id: str, claimed: CreditEvent, livemode: bool
) -> tuple[str, CreditEvent]:
    """Mark an attempt as sent, or say why it may not be; unwanted, it is cancelled and recorded."""
    event = space.event(practice_id, claimed.event_no) or claimed
    if event.status != PENDING or event.sent_at_s:
        return "sent_before", event
    context = space.claim_context(practice_id)
    why = why_not_send(context, event.price_minor or 0, event.method_id, event.cap_month)
    if why:
        return why, withdraw(space, practice_id, event, why)
    sent = space.apply(practice_id, SendAttempt(event.event_no, livemode)).event
    return "", sent or event


def withdraw(space: Workspace, practice_id: str, event: CreditEvent, why: str) -> CreditEvent:
    """Close an attempt that was certainly never charged."""
    close = CloseEvent(event.event_no, CANCELED, reason=why)
    return space.apply(practice_id, close).event or event


def withdraw_unsent(
    space: Workspace, practice_id: str, claimed: CreditEvent, why: str
) -> CreditEvent:
    """Close an attempt unless somebody has marked it as sent meanwhile; give it as it stands."""
    event = space.event(practice_id, claimed.event_no) or claimed
    if event.status != PENDING or event.sent_at_s:
        return event
    return withdraw(space, practice_id, event, why)


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
            **made_here(),
            "aza_purpose": PURPOSE,
            "practice_id": practice_id,
            "subscription_id": params["license"],
            "internal_credit_usd": format_usd(params["credit_nano_usd"]),
            "paid_chf": format_chf(params["amount_rappen"]),
            METADATA_TOPUP_ID: event.topup_id,
        },
    )


# ---------------------------------------------------------------- what came of it


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
            failure = Failure(Verdict.NEVER, status, payment_id or "", event.price_minor or 0)
            return fail(space, practice_id, event, failure)
        case Declined():
            return fail(space, practice_id, event, _declined(event, result))
        case NotSent():
            return _not_sent(space, practice_id, event, result)
        case Unknown(why, known_id):
            return _open(space, practice_id, event, UNKNOWN, known_id or "", why)


class Failure(NamedTuple):
    """Why an attempt failed, and what its payment may still take at the provider."""

    verdict: Verdict
    reason: str
    payment_id: str = ""
    open_rappen: int = 0


def _declined(event: CreditEvent, result: Declined) -> Failure:
    reason = result.decline_code or result.code
    verdict = judge(result.code, result.decline_code, result.advice_code)
    if result.never_retry:
        verdict = Verdict.NEVER
    # A declined payment waits for another method; without its id it is looked for.
    left_open = 0 if reason in _NOTHING_LEFT_OPEN else event.price_minor or 0
    return Failure(verdict, reason, result.payment_id or "", left_open)


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


def fail(space: Workspace, practice_id: str, event: CreditEvent, failure: Failure) -> ChargeReport:
    """Store a failure and what it leads to: a pause, or a later attempt of its own."""
    reason = failure.reason[:100]
    close = CloseEvent(
        event.event_no, FAILED, FAILED_AUTO_TOPUP, failure.payment_id, "", reason,
        failure.verdict.value, failure.open_rappen,
    )  # fmt: skip
    outcome = space.apply(practice_id, close)
    if not outcome.applied:  # its success was told meanwhile, and stands
        stored = outcome.event or event
        return ChargeReport(stored.status == SUCCEEDED, False, False, "", stored)
    space.flush()
    stored = outcome.event or event
    context = space.claim_context(practice_id)
    leads_to = after_failure(context, failure.verdict, reason, space.now_s)
    practice_no = space.practice_no(practice_id)
    if leads_to.pause:
        settings.pause_auto_topup(space.cursor, practice_no, leads_to.pause, space.now_s)
        attempt_notices.after_pause(space, practice_id, stored, leads_to.pause)
    else:
        attempts.retry_at(space.cursor, practice_no, leads_to.retry_at_s)
        if failure.verdict is not Verdict.UNSENT:
            attempt_notices.put_off(space, practice_id, stored)
    return ChargeReport(False, bool(leads_to.pause), False, failure.reason, stored)


def _not_sent(
    space: Workspace, practice_id: str, event: CreditEvent, result: NotSent
) -> ChargeReport:
    """Certainly no charge: only a method that can't be used is the customer's to mend."""
    verdict = Verdict.NEVER if result.why == "method_unusable" else Verdict.UNSENT
    if result.why in {"auth", "misconfigured", "invalid_request"}:
        settings.raise_alarm(space.cursor, "charges_not_sent", result.why, space.now_s)
        telling.charges_not_sent(space, result.why)
    return fail(space, practice_id, event, Failure(verdict, f"not_sent_{result.why}"))


def store_reading(run: Run, practice_id: str, event: CreditEvent, facts: PaymentFacts) -> bool:
    """Store what the provider says of an attempt's payment; tell whether that is an outcome.

    Amount and currency are compared with what we asked for. An attempt that had failed before
    only turns into credit, or is noted as cancelled.
    """
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
    left_open = 0 if facts.status in _NOTHING_LEFT_OPEN else event.price_minor or 0
    failure = Failure(Verdict.NEVER, facts.status or "unreadable", facts.payment_id, left_open)
    run(lambda space: fail(space, practice_id, event, failure))
    return True
