"""Periods: half-open `[start_s, end_s)` stretches of a licence, and calendar months in a time zone.

Law: a period belongs to the licence, not to the clock; a month belongs to a named time zone.
This module reads no clock: every instant is an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DEFAULT_TIME_ZONE = "Europe/Zurich"


class Period(NamedTuple):
    """One period of a licence; `allowance_nano_usd` is what its first touch grants (0: nothing)."""

    license: str
    start_s: int
    end_s: int
    allowance_nano_usd: int = 0
    provisional: bool = False


def rolled(start_s: int, end_s: int, now_s: int) -> tuple[int, int, bool]:
    """Roll a period on by its own length until it contains `now_s`; tell whether it had to.

    A period that lies in the future stays as it is.
    """
    length_s = end_s - start_s
    if now_s < end_s or length_s <= 0:
        return start_s, end_s, False
    steps = (now_s - start_s) // length_s
    return start_s + steps * length_s, end_s + steps * length_s, True


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Look up a time zone; raises `ValueError` when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as error:
        raise ValueError(f"unknown time zone: {name!r}") from error


def month_of(time_zone: str, at_s: int) -> str:
    """Name the calendar month of an instant as "2026-11", in the given time zone."""
    local = datetime.fromtimestamp(at_s, zone(time_zone))
    return f"{local.year:04d}-{local.month:02d}"


def day_of(time_zone: str, at_s: int) -> str:
    """Name the calendar day of an instant as "2026-11-21", in the given time zone."""
    return datetime.fromtimestamp(at_s, zone(time_zone)).date().isoformat()


def day_bounds(time_zone: str, at_s: int) -> tuple[int, int]:
    """Give the calendar day that contains `at_s` in a time zone, as `(start_s, end_s)`."""
    local = datetime.fromtimestamp(at_s, zone(time_zone))
    start = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=start.tzinfo)
    return int(start.astimezone(UTC).timestamp()), int(following.astimezone(UTC).timestamp())


def month_bounds(time_zone: str, at_s: int) -> tuple[int, int]:
    """Give the calendar month that contains `at_s` in a time zone, as `(start_s, end_s)`."""
    month = calendar_month(time_zone, at_s)
    return month.start_s, month.end_s


def calendar_month(time_zone: str, at_s: int) -> Period:
    """Give the calendar month that contains `at_s` in a time zone, as nobody's licence's period."""
    hit = _last_month.get(time_zone)
    if hit is not None and hit.start_s <= at_s < hit.end_s:
        return hit
    local = datetime.fromtimestamp(at_s, zone(time_zone))
    month = _last_month[time_zone] = _calendar_month(time_zone, local.year, local.month)
    return month


_last_month: dict[str, Period] = {}
"""The month asked for last, per zone: the memo of a pure function."""


def _calendar_month(time_zone: str, year: int, month: int) -> Period:
    start = datetime(year, month, 1, tzinfo=zone(time_zone))
    following = (year + month // 12, month % 12 + 1)
    end = datetime(*following, 1, tzinfo=zone(time_zone))
    start_s, end_s = (int(bound.astimezone(UTC).timestamp()) for bound in (start, end))
    return Period("", start_s, end_s)
