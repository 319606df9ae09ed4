"""The automatic top-up's decision: one pure function, one enum reason for every outcome.

Law: it never charges without being enabled, below its trigger, with a saved card, under the monthly
cap (pending, unknown and succeeded count), alone in flight and after the cooldown. It decides; it
does nothing else. The order of the checks is part of the contract.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

COOLDOWN_S = 86_400


class Reason(StrEnum):
    """Why the automatic top-up does or does not charge."""

    CHARGE = "charge"
    DISABLED = "disabled"
    ABOVE_TRIGGER = "above_trigger"
    NO_PAYMENT_METHOD = "no_payment_method"
    MONTHLY_LIMIT_REACHED = "auto_topup_monthly_limit_reached"
    PENDING = "pending_auto_topup"
    COOLDOWN = "cooldown_24h"
    PRACTICE_NOT_ACTIVE = "practice_not_active"
    NO_CONSENT = "no_consent"
    MISCONFIGURED = "misconfigured"


class Consent(NamedTuple):
    """What the customer agreed to; a charge must stay within it."""

    consent_no: int
    amount_rappen: int
    cap_rappen: int


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
    """This month's attempts that are pending, unknown or succeeded."""
    in_flight: bool = False
    last_success_at_s: int | None = None
    practice_active: bool = True
    cap_month: str = ""
    cap_zone: str = ""


class Decision(NamedTuple):
    """The reason, and the instant before which asking again is pointless (0: ask any time)."""

    reason: Reason
    not_before_s: int = 0

    @property
    def charges(self) -> bool:
        """Whether a charge is to be made."""
        return self.reason is Reason.CHARGE


def below_trigger(
    context: AutoTopup, available_nano_usd: int, allowance_nano_usd: int, shortfall: bool
) -> bool:
    """Tell whether credit is low: a refused call, or strictly below the percentage or amount."""
    if shortfall:
        return True
    if allowance_nano_usd > 0:
        return available_nano_usd * 100 < context.trigger_percent * allowance_nano_usd
    return available_nano_usd < context.trigger_below_nano_usd


def decide(context: AutoTopup, is_low: bool, now_s: int) -> Decision:
    """Decide whether to charge the saved card now; the first check that fails is the reason."""
    if not context.enabled:
        return Decision(Reason.DISABLED)
    if not is_low:
        return Decision(Reason.ABOVE_TRIGGER)
    if not context.practice_active:
        return Decision(Reason.PRACTICE_NOT_ACTIVE)
    if not (context.customer_id and context.payment_method_id):
        return Decision(Reason.NO_PAYMENT_METHOD)
    if context.spent_rappen + context.amount_rappen > context.cap_rappen:
        return Decision(Reason.MONTHLY_LIMIT_REACHED)
    if context.in_flight:
        return Decision(Reason.PENDING)
    return _brakes(context, now_s)


def _brakes(context: AutoTopup, now_s: int) -> Decision:
    last_s = context.last_success_at_s
    if last_s is not None and now_s - last_s < context.cooldown_s:
        return Decision(Reason.COOLDOWN, last_s + context.cooldown_s)
    if not _covered(context):
        return Decision(Reason.NO_CONSENT)
    if context.amount_rappen <= 0 or context.credit_nano_usd <= 0:
        return Decision(Reason.MISCONFIGURED)
    return Decision(Reason.CHARGE)


def _covered(context: AutoTopup) -> bool:
    consent = context.consent
    return (
        consent is not None
        and context.amount_rappen <= consent.amount_rappen
        and context.cap_rappen <= consent.cap_rappen
    )
