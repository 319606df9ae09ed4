"""The old budget on the engine: what is left of a licence's period, metering, refused calls.

Law: usage belongs to the period it is recorded with, never to the clock. Asking changes nothing and
costs the same however much was used before.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.calls import Origin, Usage
from guthaben.domain.commands import RecordUsage, SetLicense
from guthaben.domain.period import Period
from guthaben.domain.practice import ACTIVE, Practice, allowance_of, balance_of
from guthaben.errors import InvalidAmount
from guthaben.services.call_keys import new_key
from guthaben.services.legacy.plans import OldLicense, is_over, period_of
from guthaben.services.requests import checked
from guthaben.store import licences, practices, queries
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.rows import BlockedCall
from guthaben.store.session import Cursor
from guthaben.store.workspace import Workspace


class Left(NamedTuple):
    """What a licence's period has, in nano-USD; `extra` is bought and given credit."""

    budget: int
    used: int
    remaining: int
    extra: int
    debt: int
    active: bool
    due: bool
    """A hold or a grant is over and not swept yet, so there may be more than is told."""

    @property
    def allows(self) -> bool:
        """Whether a call may be made."""
        return self.active and (self.remaining > 0 or self.extra > 0)


class Report(NamedTuple):
    """What a call used, as its caller says."""

    cost_nano_usd: int
    status: str
    usage: Usage
    origin: Origin


def left(cursor: Cursor, license: OldLicense, now_ms: int) -> Left:
    """Tell what is left, changing nothing; an upgrade that nobody used yet counts already."""
    asked = period_of(license)
    now_s = now_ms // 1000
    practice, period = queries.practice_with(cursor, license.practice_id, asked, now_s)
    balance = balance_of(practice, period, now_s)
    grant = allowance_of(practice.grants, period)
    granted = grant.granted_nano_usd if grant else 0
    upgrade = max(0, period.allowance_nano_usd - granted) if grant else 0
    free = balance.allowance_nano_usd + upgrade
    owes = practice.debt_blocks_allowance and practice.debt_nano_usd > 0
    return Left(
        budget=max(granted, period.allowance_nano_usd),
        used=grant.period_used_nano_usd if grant else 0,
        remaining=0 if owes or is_over(license) else free,
        extra=balance.credit_nano_usd,
        debt=practice.debt_nano_usd,
        active=practice.status == ACTIVE,
        due=practice.next_due_ms <= now_ms,
    )


def extra_credit(cursor: Cursor, practice_id: str, now_s: int) -> int:
    """Tell the bought and given credit that may be used now, in nano-USD."""
    practice = practices.load_practice(cursor, practice_id)
    if practice is None:
        return 0
    return balance_of(practice, Period("", 0, 0), now_s).credit_nano_usd


def record(space: Workspace, license: OldLicense, report: Report) -> int:
    """Meter one call in its licence's period; tell its number in the old view.

    Each report is a call of its own. What no credit covers becomes debt.
    """
    if report.status.startswith("blocked"):
        return block(space, license, report)
    if report.cost_nano_usd < 0:
        raise InvalidAmount("estimated_cost_usd must not be negative")
    period = period_of(license)
    _tell_license(space, license, period)
    tags = "" if report.status == "success" else legacy_rows.status_tags(report.status)
    command = RecordUsage(
        new_key("row:", space.now_ms),
        report.cost_nano_usd,
        period,
        report.usage,
        report.origin._replace(tags=tags),
    )
    call = checked(space.apply(license.practice_id, command), license.practice_id, command).call
    assert call is not None
    number = space.practice_no(license.practice_id)
    return legacy_rows.usage_row_id(space.cursor, number, call.call_no)


def _tell_license(space: Workspace, license: OldLicense, period: Period) -> None:
    """Let the engine know the licence, forwards only, unless the host told it another one."""
    known = space.practice(license.practice_id)
    if known.license not in ("", period.license) or period.end_s <= period.start_s:
        return
    if known.license == period.license and period.start_s < known.period_start_s:
        return
    command = SetLicense(
        period.license,
        not is_over(license),
        period.start_s,
        period.end_s,
        period.allowance_nano_usd,
    )
    if command != _told(space, license.practice_id) and not _is_sold_here(space, known):
        space.apply(license.practice_id, command)


def _told(space: Workspace, practice_id: str) -> SetLicense:
    known = space.practice(practice_id)
    return SetLicense(
        known.license,
        known.license_active,
        known.period_start_s,
        known.period_end_s,
        known.allowance_nano_usd,
    )


def _is_sold_here(space: Workspace, known: Practice) -> bool:
    """Tell whether the licence is a subscription that the engine hears of by itself."""
    return licences.is_subscription_of(space.cursor, known.practice_no, known.license)


def block(space: Workspace, license: OldLicense, report: Report) -> int:
    """Keep a refused call where it never counts; tell its number in the old view."""
    usage, origin = report.usage, report.origin
    call = BlockedCall(
        license.subscription_id, license.start_s, license.end_s, space.now_s,
        report.status[: legacy_rows.LONGEST_STATUS], usage.operation_type or None,
        usage.model or None, origin.device_id or None, origin.reference or None,
        usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.audio_us,
        max(0, report.cost_nano_usd),
    )  # fmt: skip
    return legacy_rows.insert_blocked(space.cursor, space.practice_no(license.practice_id), call)
