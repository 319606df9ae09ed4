"""The state of one practice: its settings, its licence, its grants and counters, immutable.

Law: this is all that a command needs to know of the past, so cost does not grow with history.
The transitions are in `apply`; loading and saving is the store's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from guthaben.domain.grants import ALLOWANCE, NEVER_S, Grant, burn_down
from guthaben.domain.period import DEFAULT_TIME_ZONE, Period, calendar_month, rolled


class Mode(IntEnum):
    """Whether real money stands behind a practice's credit."""

    LIVE = 1
    TEST = 2


class PracticeStatus(IntEnum):
    """`FROZEN` starts nothing new; `CLOSED` only ends what is open and takes paid credit."""

    ACTIVE = 1
    FROZEN = 2
    CLOSED = 3


class Overrun(IntEnum):
    """What becomes of cost beyond all credit."""

    DEBT = 1
    OPERATOR_LOSS = 2


LIVE, TEST = (int(mode) for mode in Mode)
ACTIVE, FROZEN, CLOSED = (int(status) for status in PracticeStatus)
NEVER_MS = NEVER_S


class Practice(NamedTuple):
    """One practice as its commands see it."""

    practice_no: int
    practice_id: str
    head: bytes
    """Hash of its last transfer, or of its beginning."""
    last_seq: int = 0
    held_nano_usd: int = 0
    debt_nano_usd: int = 0
    next_grant_no: int = 1
    next_call_no: int = 1
    next_event_no: int = 1
    next_due_ms: int = NEVER_MS
    """No open call and no grant falls due before this instant (a lower bound)."""
    status: int = ACTIVE
    mode: int = LIVE
    overrun: int = Overrun.DEBT.value
    debt_blocks_allowance: bool = False
    overdraft_limit_nano_usd: int = 0
    time_zone: str = DEFAULT_TIME_ZONE
    license: str = ""
    license_active: bool = False
    period_start_s: int = 0
    period_end_s: int = 0
    allowance_nano_usd: int = 0
    license_ends_at_s: int = NEVER_S
    """An active licence is over from this instant on."""
    auto_topup_armed: bool = False
    auto_topup_next_s: int = 0
    """Do not look at the automatic top-up again before this instant."""
    over_limit: bool = False
    """A lease used more than there was and nobody has given credit since: no lease begins."""
    grants: Mapping[int, Grant] = {}


class Balance(NamedTuple):
    """What a practice has, for one period, in nano-USD."""

    practice_id: str
    available_nano_usd: int
    """What may be reserved now."""
    held_nano_usd: int
    debt_nano_usd: int
    allowance_nano_usd: int
    """What is left of the period's allowance."""
    credit_nano_usd: int
    """Promotional and paid credit that may be reserved."""
    period: Period


def current_period(practice: Practice, now_s: int) -> Period:
    """Tell the period that a command without one uses: the licence's, else the calendar month."""
    if practice.license_active and now_s < practice.license_ends_at_s:
        start_s, end_s, provisional = rolled(practice.period_start_s, practice.period_end_s, now_s)
        return Period(practice.license, start_s, end_s, practice.allowance_nano_usd, provisional)
    return calendar_month(practice.time_zone, now_s)


def allowance_grant(grants: Mapping[int, Grant], license: str, period_start_s: int) -> Grant | None:
    """Find the allowance of the period that begins, or once began, at an instant."""
    former: Grant | None = None
    for grant in grants.values():
        if grant.kind == ALLOWANCE and grant.license == license:
            if grant.period_start_s == period_start_s:
                return grant
            if grant.former_starts and period_start_s in grant.former_starts:
                former = grant
    return former


def allowance_of(grants: Mapping[int, Grant], period: Period) -> Grant | None:
    """Find a period's allowance, also one that was granted before its real bounds were known.

    The one that begins with the period goes first, then one that once began then, then the oldest
    provisional one; the last two only if their bounds overlap the period's.
    """
    found = allowance_grant(grants, period.license, period.start_s)
    if found is not None and (found.period_start_s == period.start_s or _overlap(found, period)):
        return found
    guesses = [
        grant
        for grant in grants.values()
        if grant.kind == ALLOWANCE
        and grant.provisional
        and grant.license == period.license
        and _overlap(grant, period)
    ]
    return min(guesses, default=None)


def _overlap(grant: Grant, period: Period) -> bool:
    return grant.period_start_s < period.end_s and period.start_s < grant.period_end_s


def balance_of(practice: Practice, period: Period, now_s: int) -> Balance:
    """Compute the balance for a period; an allowance not touched yet counts as granted."""
    allowance = allowance_of(practice.grants, period)
    included = period.allowance_nano_usd if allowance is None else allowance.free_nano_usd
    others = (grant for grant in practice.grants.values() if grant.kind != ALLOWANCE)
    credit = sum(grant.free_nano_usd for grant in burn_down(others, now_s))
    blocked = practice.debt_blocks_allowance and practice.debt_nano_usd > 0
    return Balance(
        practice.practice_id,
        credit + (0 if blocked else included),
        practice.held_nano_usd,
        practice.debt_nano_usd,
        included,
        credit,
        period,
    )
