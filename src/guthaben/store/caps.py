"""Caps in the database: what is set, and what was used of it; counted with the calls themselves.

Law: a counter changes in the transaction that changes its call, so it is the sum over the calls of
its window at every commit. Counting begins with a cap: setting one counts what was used before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from guthaben.domain.calls import Call, Origin
from guthaben.domain.caps import Cap, Caps, capped, counted, left, subjects_of, windows
from guthaben.domain.period import day_bounds, month_bounds
from guthaben.domain.practice import Practice
from guthaben.store.session import Cursor

NO_CAPS: Final[Caps] = {}
_COLUMN_OF: Final = {"key": "api_key_id", "device": "device_id"}
_RAISE: Final = (
    'INSERT INTO credit_cap_counter (practice_no, subject, "window", used_nano_usd)'
    ' VALUES (?, ?, ?, ?) ON CONFLICT (practice_no, subject, "window")'
    " DO UPDATE SET used_nano_usd = credit_cap_counter.used_nano_usd + excluded.used_nano_usd"
)
_LOWER: Final = (
    "UPDATE credit_cap_counter SET used_nano_usd ="
    " CASE WHEN used_nano_usd > ? THEN used_nano_usd - ? ELSE 0 END"
    ' WHERE practice_no = ? AND subject = ? AND "window" = ?'
)


def load(cursor: Cursor, practice_no: int) -> Caps:
    """Read the caps of a practice."""
    rows = cursor.execute(
        "SELECT subject, day_nano_usd, month_nano_usd, per_minute, at_once FROM credit_cap"
        " WHERE practice_no = ?",
        (practice_no,),
    ).fetchall()
    return {row[0]: Cap(*row) for row in rows}


def used(cursor: Cursor, practice_no: int, subject: str, window: str) -> int:
    """Read what a subject used in a window."""
    row = cursor.execute(
        "SELECT used_nano_usd FROM credit_cap_counter"
        ' WHERE practice_no = ? AND subject = ? AND "window" = ?',
        (practice_no, subject, window),
    ).fetchone()
    return int(row[0]) if row else 0


def put(cursor: Cursor, practice_no: int, cap: Cap, now_s: int) -> None:
    """Set a cap."""
    _touch(cursor, practice_no)
    cursor.execute(
        "INSERT INTO credit_cap (practice_no, subject, day_nano_usd, month_nano_usd, per_minute,"
        " at_once, changed_at_s) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (practice_no, subject) DO UPDATE SET day_nano_usd = excluded.day_nano_usd,"
        " month_nano_usd = excluded.month_nano_usd, per_minute = excluded.per_minute,"
        " at_once = excluded.at_once, changed_at_s = excluded.changed_at_s",
        (practice_no, *cap, now_s),
    )


def remove(cursor: Cursor, practice_no: int, subject: str) -> bool:
    """Take a cap away; tell whether there was one."""
    _touch(cursor, practice_no)
    cursor.execute(
        "DELETE FROM credit_cap WHERE practice_no = ? AND subject = ?", (practice_no, subject)
    )
    return cursor.rowcount > 0


def _touch(cursor: Cursor, practice_no: int) -> None:
    """Make a new version of the practice's row, so that no writer goes on with the old caps."""
    cursor.execute(
        "UPDATE credit_practice SET status = status WHERE practice_no = ?", (practice_no,)
    )


def recount(cursor: Cursor, practice: Practice, subject: str, now_s: int) -> None:
    """Count anew, from the calls, what a subject used in this day and month; '*': all of a kind.

    Its cost grows with the calls of the month: only setting a cap asks for it.
    """
    kind, _, name = subject.partition(":")
    column = _COLUMN_OF[kind]
    zone, number = practice.time_zone, practice.practice_no
    day, month = windows(zone, now_s * 1000)
    for window, bounds in ((day, day_bounds(zone, now_s)), (month, month_bounds(zone, now_s))):
        begin_ms, end_ms = (moment * 1000 for moment in bounds)
        cursor.execute(
            'DELETE FROM credit_cap_counter WHERE practice_no = ? AND "window" = ?'
            " AND (subject = ? OR (? = '*' AND subject LIKE ?))",
            (number, window, subject, name, f"{kind}:%"),
        )
        rows = cursor.execute(
            f"SELECT {column}, SUM(CASE WHEN status = 1 THEN reserved_nano_usd"
            f" ELSE cost_nano_usd END) FROM credit_call WHERE practice_no = ?"
            f" AND created_at_ms >= ? AND created_at_ms < ? AND {column} IS NOT NULL"
            f" AND {column} <> '' AND (? = '*' OR {column} = ?) GROUP BY {column}",
            (number, begin_ms, end_ms, name, name),
        ).fetchall()
        _add(cursor, number, (((f"{kind}:{who}", window), amount) for who, amount in rows))


def _add(cursor: Cursor, practice_no: int, found: Iterable[tuple[tuple[str, str], int]]) -> None:
    rows = [(practice_no, subject, window, amount) for (subject, window), amount in found]
    cursor.executemany(_RAISE, rows)


class CapCounts:
    """What the calls of one transaction change in the counters."""

    def __init__(self, cursor: Cursor, known: dict[str, Caps]) -> None:
        self._cursor = cursor
        self._known = known
        self._stored: dict[tuple[int, str, str], int] = {}
        """By practice, subject and window."""
        self._changed: dict[tuple[int, str, str], int] = {}

    def know(self, used: dict[tuple[int, str, str], int]) -> None:
        """Take over what was read beforehand."""
        self._stored.update(used)

    def _caps(self, practice: Practice) -> Caps:
        if practice.practice_no == 0:
            return NO_CAPS
        found = self._known.get(practice.practice_id)
        if found is None:
            found = self._known[practice.practice_id] = load(self._cursor, practice.practice_no)
        return found

    def refused(
        self, practice: Practice, origin: Origin, amount_nano_usd: int, now_ms: int
    ) -> int | None:
        """Tell how much the caps leave if a new call is above them, None if it may be made."""
        caps = self._caps(practice) if subjects_of(origin) else NO_CAPS
        if not caps:
            return None
        least: int | None = None
        day, month = windows(practice.time_zone, now_ms)
        for subject, cap in capped(caps, origin):
            place = (practice.practice_no, subject)
            rest = left(cap, self._used(*place, day), self._used(*place, month))
            if rest is not None and rest < amount_nano_usd:
                least = rest if least is None else min(least, rest)
        return least

    def _used(self, practice_no: int, subject: str, window: str) -> int:
        place = (practice_no, subject, window)
        if place not in self._stored:
            self._stored[place] = used(self._cursor, *place)
        return self._stored[place] + self._changed.get(place, 0)

    def note(self, practice: Practice, before: Call | None, after: Call) -> None:
        """Count what a call changed."""
        caps = self._caps(practice) if subjects_of(after.origin) else NO_CAPS
        change = counted(after) - counted(before) if caps else 0
        if not change:
            return
        for subject, _cap in capped(caps, after.origin):
            for window in windows(practice.time_zone, after.created_at_ms):
                place = (practice.practice_no, subject, window)
                self._changed[place] = self._changed.get(place, 0) + change

    def write(self) -> None:
        """Write what changed."""
        changed, self._changed = self._changed, {}
        self._stored.clear()
        if not changed:
            return
        # A window that was never counted (its cap is newer) has none to lower.
        more = [(*place, amount) for place, amount in changed.items() if amount >= 0]
        less = [(-amount, -amount, *place) for place, amount in changed.items() if amount < 0]
        if more:
            self._cursor.executemany(_RAISE, more)
        if less:
            self._cursor.executemany(_LOWER, less)
