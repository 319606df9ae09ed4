"""Questions to the store that change nothing: balances, statements, histories, lists.

Law: none of them grows with history; what is long is paged by key, newest first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from guthaben.domain.calls import Call
from guthaben.domain.period import Period
from guthaben.domain.practice import Balance, Practice, balance_of, current_period
from guthaben.domain.topup import CreditEvent
from guthaben.store import calls, practices, topups
from guthaben.store.session import NUMBER_OF, Cursor

MAX_PAGE = 500


class PracticeRow(NamedTuple):
    """One practice in a list."""

    practice_id: str
    status: int
    mode: int
    held_nano_usd: int
    debt_nano_usd: int
    credit_nano_usd: int
    license: str
    last_seq: int


class UsageRow(NamedTuple):
    """What one model cost within a quarter of an hour, the smallest step between time zones."""

    quarter_hour: int
    model: str
    calls: int
    cost_nano_usd: int


class Head(NamedTuple):
    """The end of one practice's chain: what `anchors` exports."""

    practice_id: str
    last_seq: int
    head: str


def practice_no(cursor: Cursor, practice_id: str) -> int:
    """Read the internal number of a practice, 0 for one that nobody has stored."""
    return practices.number_of(cursor, practice_id) or 0


def practice_with(
    cursor: Cursor, practice_id: str, period: Period | None, now_s: int
) -> tuple[Practice, Period]:
    """Read a practice with the allowance of a period (default: its current one)."""
    practice = practices.load_practice(cursor, practice_id)
    if practice is None:
        practice = practices.stranger(practice_id)
    period = period or current_period(practice, now_s)
    number, license = practice.practice_no, period.license
    allowance = practices.load_allowance(cursor, number, license, period.start_s)
    found = practices.load_movable(cursor, number, license) if allowance is None else [allowance]
    if found:
        grants = {**practice.grants, **{grant.grant_no: grant for grant in found}}
        practice = practice._replace(grants=grants)
    return practice, period


def balance(
    cursor: Cursor, practice_id: str, period: Period | None, now_s: int
) -> tuple[Balance, int]:
    """Compute a balance, and tell from which instant (ms) something of the practice is due."""
    practice, period = practice_with(cursor, practice_id, period, now_s)
    return balance_of(practice, period, now_s), practice.next_due_ms


def recent_calls(cursor: Cursor, practice_id: str, before_call_no: int, limit: int) -> list[Call]:
    """Read calls, newest first, archived ones among them as far as they are known."""
    limit = min(limit, MAX_PAGE)
    place = (practice_no(cursor, practice_id), before_call_no, limit)
    rows = cursor.execute(
        f"SELECT {calls.SELECTED} FROM credit_call WHERE practice_no = ?"
        " AND call_no < ? ORDER BY call_no DESC LIMIT ?",
        place,
    ).fetchall()
    short = cursor.execute(calls.SELECT_ARCHIVED_PAGE, place).fetchall()
    found = [*map(calls.from_row, rows), *map(calls.archived_from_row, short)]
    return sorted(found, key=lambda call: -call.call_no)[:limit]


def recent_events(
    cursor: Cursor, practice_id: str, before_event_no: int, limit: int
) -> list[CreditEvent]:
    """Read credit events, newest first."""
    rows = cursor.execute(
        f"SELECT {topups.SELECTED} FROM credit_event WHERE practice_no = {NUMBER_OF}"
        " AND event_no < ? ORDER BY event_no DESC LIMIT ?",
        (practice_id, before_event_no, min(limit, MAX_PAGE)),
    ).fetchall()
    return [topups.event_from_row(row) for row in rows]


def usage_by_quarter_hour(
    cursor: Cursor, practice_id: str, since_ms: int, most_calls: int
) -> list[UsageRow]:
    """Add up the newest calls of a practice, at most so many, that were made since an instant."""
    rows = cursor.execute(
        "SELECT created_at_ms / 900000, model, COUNT(*), SUM(cost_nano_usd) FROM ("
        " SELECT created_at_ms, COALESCE(model, '') AS model, cost_nano_usd FROM credit_call"
        f" WHERE practice_no = {NUMBER_OF}"
        " ORDER BY call_no DESC LIMIT ?) AS newest"
        " WHERE created_at_ms >= ? AND cost_nano_usd > 0 GROUP BY 1, 2",
        (practice_id, most_calls, since_ms),
    )
    return [UsageRow(*row) for row in rows]


def time_zone_of(cursor: Cursor, practice_id: str) -> str:
    """Read the zone of a practice's days and months; a new one's is the default."""
    row = cursor.execute(
        f"SELECT time_zone FROM credit_practice WHERE practice_no = {NUMBER_OF}", (practice_id,)
    ).fetchone()
    return str(row[0]) if row else practices.stranger(practice_id).time_zone


def list_practices(cursor: Cursor, after_id: str, limit: int) -> list[PracticeRow]:
    """Read practices in the order of their ids."""
    rows = cursor.execute(
        "SELECT practice_id, status, mode, held_nano_usd, debt_nano_usd,"
        " COALESCE((SELECT SUM(free_nano_usd) FROM credit_grant g INDEXED BY credit_grant_open"
        " WHERE g.practice_no = p.practice_no AND g.is_open = 1), 0),"
        " license, last_seq FROM credit_practice p WHERE practice_id > ?"
        " ORDER BY practice_id LIMIT ?",
        (after_id, min(limit, MAX_PAGE)),
    )
    return [PracticeRow(*row) for row in rows]


def heads(cursor: Cursor) -> list[Head]:
    """Read the end of every chain."""
    rows = cursor.execute(
        "SELECT practice_id, last_seq, hex(head) FROM credit_practice ORDER BY practice_id"
    )
    return [Head(row[0], row[1], row[2].lower()) for row in rows]


def due_practices(cursor: Cursor, now_ms: int, limit: int) -> list[str]:
    """Read which practices have something due."""
    rows = cursor.execute(
        "SELECT practice_id FROM credit_practice WHERE next_due_ms <= ?"
        " ORDER BY next_due_ms LIMIT ?",
        (now_ms, limit),
    )
    return [row[0] for row in rows]


def open_alarms(cursor: Cursor, limit: int) -> list[dict[str, Any]]:
    """Read alarms nobody cleared, newest first."""
    rows = cursor.execute(
        "SELECT alarm_no, code, subject, raised_at_s FROM credit_alarm WHERE cleared_at_s = 0"
        " ORDER BY alarm_no DESC LIMIT ?",
        (limit,),
    )
    return [
        dict(zip(("alarm_no", "code", "subject", "raised_at_s"), row, strict=True)) for row in rows
    ]


def meta(cursor: Cursor, name: str) -> str:
    """Read one value of the database's own settings."""
    row = cursor.execute("SELECT value FROM credit_meta WHERE name = ?", (name,)).fetchone()
    return str(row[0])
