"""What the commands on automatic charges do: claim one, mark it as sent, close what it left open.

Law: an attempt is recorded before anybody charges, with the exact parameters of the charge. It is
marked once before it first leaves us, so that what was never sent is known for certain.
"""

from __future__ import annotations

import json

from guthaben.domain.applied import Applied
from guthaben.domain.auto_topup import (
    AutoTopup,
    Decision,
    Price,
    Reason,
    below_trigger,
    decide,
    price_of,
)
from guthaben.domain.commands import ClaimTopup, ConfirmCancelled, Outcome, SendAttempt
from guthaben.domain.draft import Refusal
from guthaben.domain.practice import ACTIVE, Practice, balance_of, current_period
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, PENDING, CreditEvent


def apply_attempt(
    practice: Practice,
    context: AutoTopup,
    event: CreditEvent | None,
    command: ClaimTopup | SendAttempt | ConfirmCancelled,
    now_s: int,
) -> Applied:
    """Apply a command on an automatic charge; each but the claim speaks of a known attempt."""
    if isinstance(command, ClaimTopup):
        return claim_topup(practice, context, command, now_s)
    if event is None:
        raise Refusal("event_not_found")
    if isinstance(command, SendAttempt):
        return send_attempt(practice, event, command, now_s)
    return confirm_cancelled(practice, event)


def claim_topup(practice: Practice, context: AutoTopup, command: ClaimTopup, now_s: int) -> Applied:
    """Decide about an automatic charge and, if it is to be made, record the attempt as pending."""
    context = context._replace(practice_active=practice.status == ACTIVE)
    decision = claim_decision(practice, context, command, now_s)
    if not decision.charges:
        resting = practice._replace(auto_topup_next_s=_next_look(decision, now_s))
        outcome = Outcome(True, decision.reason.value, False)
        return Applied(resting, None, [], outcome)
    event = _attempt(practice, context, command, now_s)
    after = practice._replace(
        next_event_no=practice.next_event_no + 1, auto_topup_next_s=now_s + _LOOK_AGAIN_S
    )
    return Applied(after, None, [], Outcome(True, event=event), event)


_LOOK_AGAIN_S = 30
"""How long a decision not to charge is trusted, so that a low balance costs no query per call."""


def _next_look(decision: Decision, now_s: int) -> int:
    if decision.reason is Reason.ABOVE_TRIGGER:
        return 0
    return min(decision.not_before_s or now_s + _LOOK_AGAIN_S, now_s + 3600)


def claim_decision(
    practice: Practice, context: AutoTopup, command: ClaimTopup, now_s: int
) -> Decision:
    """Tell what `ClaimTopup` would decide now, from the practice's own balance."""
    period = current_period(practice, now_s)
    available = balance_of(practice, period, now_s).available_nano_usd
    low = below_trigger(context, available, period.allowance_nano_usd, command.shortfall)
    return decide(context, low, now_s, command.missing_nano_usd)


def _attempt(
    practice: Practice, context: AutoTopup, command: ClaimTopup, now_s: int
) -> CreditEvent:
    price = price_of(context, command.missing_nano_usd)
    return CreditEvent(
        practice.next_event_no, AUTO_TOPUP_PURCHASE, PENDING, price.credit_nano_usd,
        price.rappen, "chf", command.license or practice.license, now_s, now_s,
        context.cap_month, context.cap_zone, topup_id=command.topup_id,
        idempotency_key=f"guthaben-{command.topup_id}",
        params=_charge_params(practice, context, command, price),
        need_no=context.need_no or practice.next_event_no,
        method_id=context.payment_method_id,
    )  # fmt: skip


def _charge_params(
    practice: Practice, context: AutoTopup, command: ClaimTopup, price: Price
) -> str:
    """Write down exactly what the charge will say, before anybody says it."""
    return json.dumps(
        {
            "amount_rappen": price.rappen,
            "currency": "chf",
            "customer_id": context.customer_id,
            "payment_method_id": context.payment_method_id,
            "credit_nano_usd": price.credit_nano_usd,
            "practice_id": practice.practice_id,
            "license": command.license or practice.license,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def send_attempt(
    practice: Practice, event: CreditEvent, command: SendAttempt, now_s: int
) -> Applied:
    """Mark an attempt as leaving us now; one that was sent before, or is over, is not applied."""
    if event.status != PENDING or event.sent_at_s:
        return Applied(practice, event, [], Outcome(True, applied=False, event=event))
    sent = event._replace(sent_at_s=now_s, livemode=command.livemode)
    return Applied(practice, sent, [], Outcome(True, event=sent))


def confirm_cancelled(practice: Practice, event: CreditEvent) -> Applied:
    """Let the payment of a failed attempt count toward the cap no longer."""
    if not event.open_minor:
        return Applied(practice, event, [], Outcome(True, applied=False, event=event))
    closed = event._replace(open_minor=0)
    return Applied(practice, closed, [], Outcome(True, event=closed))
