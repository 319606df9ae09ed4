"""Retention: personal data that has done its work is erased, and what only counted is forgotten.

Law: an event's id is kept for ever, its content for some days after it was applied; what waits, is
dead or in quarantine is kept until a person has decided. Counters of caps outlive every call that
could still change them. Money, consents and the journal are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from guthaben import config
from guthaben.domain.period import day_of, month_of
from guthaben.errors import ConfigError
from guthaben.services.jobs import Turn
from guthaben.store import retention as rows
from guthaben.store.workspace import Workspace

DAY_S: Final = 86_400
COUNTER_DAYS: Final = 62
"""A day's counter is asked for that day; this leaves room for every time zone and late settles."""
COUNTER_MONTH_DAYS: Final = 400
DELIVERY_DAYS: Final = 400
_EVENTS: Final = 500
_PRACTICES: Final = 200
_DEFAULT_DAYS, _LEAST_DAYS, _MOST_DAYS = 90, 7, 3_650


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much one turn erased or forgot."""

    events: int = 0
    counters: int = 0
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """Forgets what is old; `event_days` 0 keeps the content of events for ever."""

    event_days: int = _DEFAULT_DAYS

    @classmethod
    def from_environment(cls) -> Self:
        """Read GUTHABEN_KEEP_EVENTS_DAYS: 0, or 7 to 3650; default 90."""
        name = "GUTHABEN_KEEP_EVENTS_DAYS"
        days = config.whole(name, _DEFAULT_DAYS, 0, _MOST_DAYS)
        if 0 < days < _LEAST_DAYS:
            raise ConfigError(f"{name} must be 0 (for ever) or {_LEAST_DAYS} to {_MOST_DAYS}.")
        return cls(days)

    def run(self, turn: Turn) -> Forgotten:
        """Do all that is due, in small transactions; what is left is found by the next turn."""
        events = self._erase_events(turn)
        counters = deliveries = 0
        after_no = -1
        while turn.may_go_on():
            last_no, *counts = turn.run(lambda space, after_no=after_no: _page(space, after_no))  # type: ignore[misc]
            if last_no == after_no:
                break
            after_no = last_no
            counters, deliveries = counters + counts[0], deliveries + counts[1]
        return Forgotten(events, counters, deliveries)

    def _erase_events(self, turn: Turn) -> int:
        erased = 0
        while self.event_days and turn.may_go_on():
            found = turn.run(self._some_events)
            erased += found
            if found < _EVENTS:
                break
        return erased

    def _some_events(self, space: Workspace) -> int:
        before_s = space.now_s - self.event_days * DAY_S
        return rows.erase_events(space.cursor, before_s, space.now_s, _EVENTS)


def _page(space: Workspace, after_no: int) -> tuple[int, int, int]:
    """Forget what is old of the next practices; give the last one's number, and what was done."""
    numbers = rows.practices_after(space.cursor, after_no, _PRACTICES)
    if not numbers:
        return after_no, 0, 0
    first_no, last_no = numbers[0], numbers[-1]
    zone, now_s = config.time_zone(), space.now_s
    day = day_of(zone, now_s - COUNTER_DAYS * DAY_S)
    month = month_of(zone, now_s - COUNTER_MONTH_DAYS * DAY_S)
    counters = rows.forget_counters(space.cursor, first_no, last_no, day, month)
    before_s = now_s - DELIVERY_DAYS * DAY_S
    return last_no, counters, rows.forget_deliveries(space.cursor, first_no, last_no, before_s)
