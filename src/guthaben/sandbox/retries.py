"""Owns when an event is sent again: the pauses after each failed attempt, as data. Pure."""

from typing import Final

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS

# Growing pauses up to three days in all, as Stripe does in live mode.
LIVE_PAUSES_MS: Final = (
    5 * _MINUTE_MS,
    30 * _MINUTE_MS,
    2 * _HOUR_MS,
    5 * _HOUR_MS,
    10 * _HOUR_MS,
    12 * _HOUR_MS,
    12 * _HOUR_MS,
    12 * _HOUR_MS,
    12 * _HOUR_MS,
)


def doubling(base_ms: int, cap_ms: int, max_attempts: int) -> tuple[int, ...]:
    """Return pauses that double up to a cap, for so many attempts in all."""
    return tuple(min(base_ms << min(n, 30), cap_ms) for n in range(max_attempts - 1))
