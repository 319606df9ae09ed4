"""The automatic top-up's decisions: whether to charge, how much, and what a failure leads to.

Law: it never charges without being enabled, unstopped, below its trigger, with a saved card, under
the monthly cap (pending, unknown, succeeded, and failed ones the customer could still complete),
alone in flight, after cooldown and back-off, and within the consent. It decides; it does nothing
else. The order of the checks is part of the contract.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from guthaben.domain.declines import Verdict
from guthaben.domain.money import nano_usd_for_rappen, rappen_for_nano_usd

COOLDOWN_S = 86_400
MOST_TRIES_OF_NEED: Final = 3
MOST_FAILURES_IN_ROW: Final = 3
MOST_TRIES_OF_CARD: Final = 15
"""Without success within `CARD_WINDOW_S`; card networks block and fine more."""
CARD_WINDOW_S: Final = 30 * 86_400
UNSENT_PAUSE_S: Final = 3_600
BACK_OFF_S: Final = {
    Verdict.SOON: (3_600, 6 * 3_600),
    Verdict.LATER: (86_400, 3 * 86_400),
}
"""How long to wait after the first and the second failure of a need."""
PAUSE, RETRY = "pause", "retry"


class Reason(StrEnum):
    """Why the automatic top-up does or does not charge."""

    CHARGE = "charge"
    DISABLED = "disabled"
    STOPPED = "topups_stopped"
    ABOVE_TRIGGER = "above_trigger"
    NO_PAYMENT_METHOD = "no_payment_method"
    MONTHLY_LIMIT_REACHED = "auto_topup_monthly_limit_reached"
    PENDING = "pending_auto_topup"
    COOLDOWN = "cooldown_24h"
    BACKING_OFF = "waiting_to_retry"
    NEED_EXHAUSTED = "need_exhausted"
    CARD_EXHAUSTED = "card_exhausted"
    PRACTICE_NOT_ACTIVE = "practice_not_active"
    NO_CONSENT = "no_consent"
    MISCONFIGURED = "misconfigured"


class Consent(NamedTuple):
    """What the customer agreed to; a charge must stay within it."""

    consent_no: int
    amount_rappen: int
    cap_rappen: int
    largest_rappen: int = 0


class AutoTopup(NamedTuple):
    """All that the decision looks at, read in the transaction that records the attempt."""

    enabled: bool = False
    amount_rappen: int = 3_000
    credit_nano_usd: int = 10_000_000_000
    trigger_percent: int = 5
    trigger_below_nano_usd: int = 0
    """Used where there is no allowance to take a percentage of."""
    cap_rappen: int = 30_000
    cooldown_s: int = COOLDOWN_S
    customer_id: str = ""
    payment_method_id: str = ""
    consent: Consent | None = None
    spent_rappen: int = 0
    """This month's attempts that are pending, unknown or succeeded, or that may still succeed."""
    in_flight: bool = False
    last_success_at_s: int | None = None
    practice_active: bool = True
    cap_month: str = ""
    cap_zone: str = ""
    largest_rappen: int = 0
    """The most that one charge may be to close a whole shortfall; 0: always `amount_rappen`."""
    stopped: bool = False
    """An operator holds back this practice, or all."""
    on_decline: str = PAUSE
    need_no: int = 0
    """The first attempt of the need at hand; 0 where the next attempt begins one."""
    retry_at_s: int = 0
    tries_of_need: int = 0
    failures_in_row: int = 0
    tries_of_card: int = 0


class Decision(NamedTuple):
    """The reason, and the instant before which asking again is pointless (0: ask any time)."""

    reason: Reason
    not_before_s: int = 0

    @property
    def charges(self) -> bool:
        """Whether a charge is to be made."""
        return self.reason is Reason.CHARGE


class Price(NamedTuple):
    """What one charge takes and what it buys."""

    rappen: int
    credit_nano_usd: int


def below_trigger(
    context: AutoTopup, available_nano_usd: int, allowance_nano_usd: int, shortfall: bool
) -> bool:
    """Tell whether credit is low: a refused call, or strictly below the percentage or amount."""
    if shortfall:
        return True
    if allowance_nano_usd > 0:
        return available_nano_usd * 100 < context.trigger_percent * allowance_nano_usd
    return available_nano_usd < context.trigger_below_nano_usd


def price_of(context: AutoTopup, missing_nano_usd: int = 0) -> Price:
    """Size the charge: the ordinary amount, or as much as closes the whole shortfall.

    A larger one is made only where the customer agreed to it, and only if it closes the shortfall
    within the largest charge and what the month still allows: less would not help the call.
    """
    ordinary = Price(context.amount_rappen, context.credit_nano_usd)
    if context.largest_rappen <= 0 or missing_nano_usd <= context.credit_nano_usd:
        return ordinary
    needed = rappen_for_nano_usd(missing_nano_usd)
    if needed > min(context.largest_rappen, context.cap_rappen - context.spent_rappen):
        return ordinary
    return Price(needed, nano_usd_for_rappen(needed))


def decide(context: AutoTopup, is_low: bool, now_s: int, missing_nano_usd: int = 0) -> Decision:
    """Decide whether to charge the saved card now; the first check that fails is the reason."""
    if not context.enabled:
        return Decision(Reason.DISABLED)
    if context.stopped:
        return Decision(Reason.STOPPED)
    if not is_low:
        return Decision(Reason.ABOVE_TRIGGER)
    if not context.practice_active:
        return Decision(Reason.PRACTICE_NOT_ACTIVE)
    if not (context.customer_id and context.payment_method_id):
        return Decision(Reason.NO_PAYMENT_METHOD)
    price = price_of(context, missing_nano_usd)
    if context.spent_rappen + price.rappen > context.cap_rappen:
        return Decision(Reason.MONTHLY_LIMIT_REACHED)
    if context.in_flight:
        return Decision(Reason.PENDING)
    return _brakes(context, now_s)


def _brakes(context: AutoTopup, now_s: int) -> Decision:
    last_s = context.last_success_at_s
    if last_s is not None and now_s - last_s < context.cooldown_s:
        return Decision(Reason.COOLDOWN, last_s + context.cooldown_s)
    if now_s < context.retry_at_s:
        return Decision(Reason.BACKING_OFF, context.retry_at_s)
    if context.tries_of_need >= MOST_TRIES_OF_NEED:
        return Decision(Reason.NEED_EXHAUSTED)
    if context.tries_of_card >= MOST_TRIES_OF_CARD:
        return Decision(Reason.CARD_EXHAUSTED)
    if not _covered(context):
        return Decision(Reason.NO_CONSENT)
    if context.amount_rappen <= 0 or context.credit_nano_usd <= 0:
        return Decision(Reason.MISCONFIGURED)
    return Decision(Reason.CHARGE)


def _covered(context: AutoTopup) -> bool:
    return covers(
        context.consent, context.amount_rappen, context.cap_rappen, context.largest_rappen
    )


def covers(
    consent: Consent | None, amount_rappen: int, cap_rappen: int, largest_rappen: int = 0
) -> bool:
    """Tell whether the customer agreed to settings like these."""
    return (
        consent is not None
        and amount_rappen <= consent.amount_rappen
        and cap_rappen <= consent.cap_rappen
        and largest_rappen <= consent.largest_rappen
    )


def why_not_send(context: AutoTopup, price_rappen: int, method_id: str, cap_month: str) -> str:
    """Say why a claimed attempt may not leave us after all; empty when it may.

    Asked right before it is sent: what the customer or an operator changed since the claim counts.
    The attempt itself is part of what the month has spent.
    """
    if not context.enabled:
        return "switched_off"
    if context.stopped:
        return Reason.STOPPED.value
    if not context.practice_active:
        return Reason.PRACTICE_NOT_ACTIVE.value
    if not agreed(context.consent, price_rappen):
        return Reason.NO_CONSENT.value
    if method_id != context.payment_method_id:
        return "card_changed"
    if cap_month == context.cap_month and context.spent_rappen > context.cap_rappen:
        return Reason.MONTHLY_LIMIT_REACHED.value
    return ""


def agreed(consent: Consent | None, price_rappen: int) -> bool:
    """Tell whether the customer agreed to single charges of this size."""
    return consent is not None and price_rappen <= max(
        consent.amount_rappen, consent.largest_rappen
    )


class Consequence(NamedTuple):
    """What a failed attempt leads to: a pause, for this reason, or a later attempt."""

    pause: str = ""
    retry_at_s: int = 0


THREE_FAILURES: Final = "three_failures"
CARD_TRIED_TOO_OFTEN: Final = "card_tried_too_often"


def after_failure(context: AutoTopup, verdict: Verdict, reason: str, now_s: int) -> Consequence:
    """Decide what a failed attempt leads to; the context's counters include it already."""
    if verdict is Verdict.UNSENT:
        return Consequence(retry_at_s=now_s + UNSENT_PAUSE_S)
    if verdict is Verdict.NEVER or context.on_decline != RETRY:
        return Consequence(pause=reason)
    if context.failures_in_row >= MOST_FAILURES_IN_ROW:
        return Consequence(pause=THREE_FAILURES)
    if context.tries_of_card >= MOST_TRIES_OF_CARD:
        return Consequence(pause=CARD_TRIED_TOO_OFTEN)
    if context.tries_of_need >= MOST_TRIES_OF_NEED:
        return Consequence(pause=THREE_FAILURES)
    pauses = BACK_OFF_S[verdict]
    step = min(max(context.tries_of_need, context.failures_in_row, 1), len(pauses))
    return Consequence(retry_at_s=now_s + pauses[step - 1])
