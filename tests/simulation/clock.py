"""The virtual clock, and where in time a run begins: near the edges of Zurich's months and days.

Law: time passes only between steps, or while a task waits for Stripe; never by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

ZURICH = ZoneInfo("Europe/Zurich")

# The instants around which local time does something: months end in winter and in summer, on the
# day the clocks change, at a year's end and on a leap day; an hour is missing or comes twice.
EDGES = (
    datetime(2026, 1, 31, 23, tzinfo=UTC),  # February begins, UTC+1
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # 02:00 becomes 03:00
    datetime(2026, 3, 31, 22, tzinfo=UTC),  # April begins, UTC+2
    datetime(2026, 6, 30, 22, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # 03:00 becomes 02:00
    datetime(2026, 10, 31, 23, tzinfo=UTC),  # November begins, UTC+1
    datetime(2026, 12, 31, 23, tzinfo=UTC),
    datetime(2028, 2, 29, 23, tzinfo=UTC),
)


class Clock:
    """Milliseconds since 1970; stands until it is moved, and never goes back."""

    def __init__(self, at_s: int) -> None:
        self.ms = at_s * 1000
        self._shown = (0, "")

    def __call__(self) -> int:
        return self.ms

    @property
    def s(self) -> int:
        """Whole seconds."""
        return self.ms // 1000

    def advance_ms(self, ms: int) -> None:
        """Let time pass."""
        assert ms >= 0
        self.ms += ms

    def shown(self) -> str:
        """Write the instant as Zurich's clocks show it."""
        if self._shown[0] != self.ms:
            local = datetime.fromtimestamp(self.s, ZURICH)
            text = f"{local:%Y-%m-%d %H:%M:%S}.{self.ms % 1000:03d}{local:%z}"
            self._shown = (self.ms, text)
        return self._shown[1]


def start_s(rng: Random) -> int:
    """Choose where a run begins: minutes to hours before an edge, now and then anywhere."""
    if rng.random() < 0.1:
        return int(datetime(2026, 5, 4, 8, tzinfo=UTC).timestamp()) + rng.randrange(30 * 86_400)
    before = rng.choice((60, 600, 3_600, 6 * 3_600, 30 * 3_600))
    return int(rng.choice(EDGES).timestamp()) - rng.randrange(1, before)


def month_of(at_s: int) -> str:
    """Tell Zurich's calendar month, written apart from the engine's own."""
    local = datetime.fromtimestamp(at_s, UTC).astimezone(ZURICH)
    return f"{local:%Y-%m}"


def until_next_month_s(at_s: int) -> int:
    """Tell how many seconds are left of Zurich's month."""
    local = datetime.fromtimestamp(at_s, ZURICH)
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1, tzinfo=ZURICH)
    return int(following.timestamp()) - at_s
