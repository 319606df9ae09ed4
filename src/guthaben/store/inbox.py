"""Rows of the inbox: verified webhooks, stored before they are answered, applied afterwards.

Law: an event is stored once per provider and mode; nothing is deleted because it failed.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor


class Letter(NamedTuple):
    """One stored event."""

    livemode: bool
    event_id: str
    event_type: str
    payload: bytes
    attempts: int
    received_at_s: int


def store(
    cursor: Cursor,
    *,
    livemode: bool,
    event_id: str,
    event_type: str,
    payload: bytes,
    now_s: int,
    not_for_us: str = "",
) -> bool:
    """Store an event; tell whether it is new. With a reason not to apply it, it is quarantined."""
    cursor.execute(
        "INSERT INTO credit_inbox (provider, livemode, provider_event_id, event_type, payload,"
        " received_at_s, status, reason) VALUES ('stripe', ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (
            int(livemode), event_id, event_type, payload, now_s,
            "quarantined" if not_for_us else "new", not_for_us,
        ),
    )  # fmt: skip
    return cursor.rowcount == 1


def is_stored(cursor: Cursor, livemode: bool, event_id: str) -> bool:
    """Tell whether an event was received before."""
    row = cursor.execute(
        "SELECT 1 FROM credit_inbox WHERE provider = 'stripe' AND livemode = ?"
        " AND provider_event_id = ?",
        (int(livemode), event_id),
    ).fetchone()
    return row is not None


def waiting(cursor: Cursor, now_s: int, limit: int) -> list[Letter]:
    """Read events that are due to be applied, in the order of their arrival."""
    rows = cursor.execute(
        "SELECT livemode, provider_event_id, event_type, payload, attempts, received_at_s"
        " FROM credit_inbox WHERE status = 'new' AND next_try_at_s <= ?"
        " ORDER BY next_try_at_s, received_at_s LIMIT ?",
        (now_s, limit),
    ).fetchall()
    return [Letter(bool(row[0]), *row[1:]) for row in rows]


def finish(cursor: Cursor, letter: Letter, status: str, reason: str, now_s: int) -> bool:
    """Close an event: done, ignored, quarantined or dead; tell whether it was still open."""
    cursor.execute(
        "UPDATE credit_inbox SET status = ?, reason = ?, done_at_s = ?, attempts = attempts + 1"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ? AND status = 'new'",
        (status, reason, now_s, int(letter.livemode), letter.event_id),
    )
    return cursor.rowcount == 1


def try_again(cursor: Cursor, letter: Letter, at_s: int, reason: str) -> bool:
    """Put an event off; tell whether it was still open."""
    cursor.execute(
        "UPDATE credit_inbox SET next_try_at_s = ?, reason = ?, attempts = attempts + 1"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ? AND status = 'new'",
        (at_s, reason, int(letter.livemode), letter.event_id),
    )
    return cursor.rowcount == 1


def depth(cursor: Cursor) -> dict[str, int]:
    """Count events by status, the finished ones left out."""
    rows = cursor.execute(
        "SELECT status, COUNT(*) FROM credit_inbox WHERE status IN ('new', 'dead', 'quarantined')"
        " GROUP BY status"
    )
    return {row[0]: int(row[1]) for row in rows}


# ---------------------------------------------------------------- for operators


class LetterRow(NamedTuple):
    """One stored event as an operator sees it; without its payload."""

    event_id: str
    livemode: bool
    event_type: str
    status: str
    reason: str
    attempts: int
    received_at_s: int
    next_try_at_s: int
    done_at_s: int


_ROW = (
    "SELECT provider_event_id, livemode, event_type, status, reason, attempts, received_at_s,"
    " next_try_at_s, done_at_s FROM credit_inbox"
)


def page(
    cursor: Cursor, statuses: tuple[str, ...], after: tuple[int, str], limit: int
) -> list[LetterRow]:
    """Read events of some statuses in the order of their arrival, after (instant, event id)."""
    marks = ", ".join("?" * len(statuses))
    rows = cursor.execute(
        f"{_ROW} WHERE provider = 'stripe' AND status IN ({marks})"
        " AND (received_at_s, provider_event_id) > (?, ?)"
        " ORDER BY received_at_s, provider_event_id LIMIT ?",
        (*statuses, *after, limit),
    ).fetchall()
    return [LetterRow(row[0], bool(row[1]), *row[2:]) for row in rows]


def find(cursor: Cursor, event_id: str) -> list[LetterRow]:
    """Read an event by its id; there may be one in each mode."""
    rows = cursor.execute(
        f"{_ROW} WHERE provider = 'stripe' AND livemode IN (0, 1) AND provider_event_id = ?",
        (event_id,),
    ).fetchall()
    return [LetterRow(row[0], bool(row[1]), *row[2:]) for row in rows]


def payload_of(cursor: Cursor, row: LetterRow) -> bytes:
    """Read the event itself, byte for byte."""
    found = cursor.execute(
        "SELECT payload FROM credit_inbox WHERE provider = 'stripe' AND livemode = ?"
        " AND provider_event_id = ?",
        (int(row.livemode), row.event_id),
    ).fetchone()
    return bytes(found[0])


def reopen(cursor: Cursor, row: LetterRow) -> bool:
    """Let a dead or quarantined event be applied anew, at once; tell whether this did it."""
    cursor.execute(
        "UPDATE credit_inbox SET status = 'new', attempts = 0, next_try_at_s = 0, done_at_s = 0"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ?"
        " AND status IN ('dead', 'quarantined')",
        (int(row.livemode), row.event_id),
    )
    return cursor.rowcount == 1


def hasten(cursor: Cursor, row: LetterRow) -> bool:
    """Let a waiting event be applied at once; tell whether it waited."""
    cursor.execute(
        "UPDATE credit_inbox SET next_try_at_s = 0 WHERE provider = 'stripe' AND livemode = ?"
        " AND provider_event_id = ? AND status = 'new'",
        (int(row.livemode), row.event_id),
    )
    return cursor.rowcount == 1


def discard(cursor: Cursor, row: LetterRow, now_s: int) -> bool:
    """Close an event that shall never be applied; it is kept. Tell whether this did it."""
    cursor.execute(
        "UPDATE credit_inbox SET status = 'ignored', reason = 'discarded', done_at_s = ?"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ?"
        " AND status IN ('new', 'dead', 'quarantined')",
        (now_s, int(row.livemode), row.event_id),
    )
    return cursor.rowcount == 1
