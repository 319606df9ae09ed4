"""Caps: how much an API key or a device of a practice may use in a day and in a month.

Law: a call counts with what it holds while it is open and with what it cost afterwards, in the day
and month in which it was reserved, so a counter is the sum over calls and nothing else. A cap
refuses reservations only: what was used anyway is counted above it, never refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from guthaben.domain.calls import RESERVED, Call, Origin
from guthaben.domain.period import day_of, month_of

EVERY: Final = "*"


class Cap(NamedTuple):
    """Limits of one subject; None is no cap on money, 0 no limit of requests."""

    subject: str
    day_nano_usd: int | None = None
    month_nano_usd: int | None = None
    per_minute: int = 0
    at_once: int = 0


Caps = Mapping[str, Cap]
"""The caps of a practice by their subjects."""


def subjects_of(origin: Origin) -> list[str]:
    """Give the subjects that a call of this origin counts for."""
    if not (origin.api_key_id or origin.device_id):
        return []
    named = (("key", origin.api_key_id), ("device", origin.device_id))
    return [f"{kind}:{name}" for kind, name in named if name]


def cap_of(caps: Caps, subject: str) -> Cap | None:
    """Find the cap of a subject: its own, else that of every other one of its kind."""
    kind = subject.partition(":")[0]
    return caps.get(subject) or caps.get(f"{kind}:{EVERY}")


def capped(caps: Caps, origin: Origin) -> Iterable[tuple[str, Cap]]:
    """Give the subjects of an origin that have caps, with them."""
    for subject in subjects_of(origin):
        cap = cap_of(caps, subject)
        if cap is not None:
            yield subject, cap


def windows(time_zone: str, at_ms: int) -> tuple[str, str]:
    """Name the day and the month of an instant: ("2026-11-21", "2026-11")."""
    at_s = at_ms // 1000
    return day_of(time_zone, at_s), month_of(time_zone, at_s)


def counted(call: Call | None) -> int:
    """Tell what a call counts with: what it holds, then what it cost."""
    if call is None:
        return 0
    return call.reserved_nano_usd if call.status == RESERVED else call.cost_nano_usd


def left(cap: Cap, used_day: int, used_month: int) -> int | None:
    """Tell how much a cap leaves, None where it caps no money."""
    pairs = ((cap.day_nano_usd, used_day), (cap.month_nano_usd, used_month))
    found = [max(0, limit - used) for limit, used in pairs if limit is not None]
    return min(found, default=None)
