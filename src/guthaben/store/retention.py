"""What is forgotten: the content of applied events, counters of past windows, old deliveries.

Law: nothing that decides about money or about once is touched: ids of events, notices and their
keys, calls and the journal stay for ever. Each function does a bounded part and tells where it is.
"""

from __future__ import annotations

from guthaben.store.session import Cursor

_APPLIED = "('done', 'ignored')"


def erase_events(cursor: Cursor, done_before_s: int, now_s: int, limit: int) -> int:
    """Erase the content of events that were applied or ignored before an instant; tell how many."""
    rows = cursor.execute(
        "SELECT provider, livemode, provider_event_id FROM credit_inbox WHERE erased_at_s = 0"
        f" AND status IN {_APPLIED} AND done_at_s < ? ORDER BY done_at_s LIMIT ?",
        (done_before_s, limit),
    ).fetchall()
    cursor.executemany(
        "UPDATE credit_inbox SET payload = ?, erased_at_s = ? WHERE provider = ? AND livemode = ?"
        f" AND provider_event_id = ? AND erased_at_s = 0 AND status IN {_APPLIED}",
        [(b"", now_s, *row) for row in rows],
    )
    return len(rows)


def practices_after(cursor: Cursor, after_no: int, limit: int) -> list[int]:
    """List the next practices by their numbers; 0, the operator, is the first."""
    rows = cursor.execute(
        "SELECT practice_no FROM credit_practice WHERE practice_no > ? ORDER BY practice_no"
        " LIMIT ?",
        (after_no, limit),
    ).fetchall()
    found = [int(row[0]) for row in rows]
    return [0, *found] if after_no < 0 else found


def forget_counters(
    cursor: Cursor, first_no: int, last_no: int, before_day: str, before_month: str
) -> int:
    """Forget what was counted in windows that are long past, of practices from one to another."""
    cursor.execute(
        "DELETE FROM credit_cap_counter WHERE practice_no BETWEEN ? AND ?"
        ' AND ((length("window") = 10 AND "window" < ?)'
        ' OR (length("window") = 7 AND "window" < ?))',
        (first_no, last_no, before_day, before_month),
    )
    return cursor.rowcount


def forget_deliveries(cursor: Cursor, first_no: int, last_no: int, done_before_s: int) -> int:
    """Forget to whom notices were delivered long ago; the notices stay, and are not told again."""
    cursor.execute(
        "DELETE FROM credit_delivery WHERE practice_no BETWEEN ? AND ?"
        " AND status IN ('delivered', 'dropped') AND done_at_s < ?",
        (first_no, last_no, done_before_s),
    )
    return cursor.rowcount
