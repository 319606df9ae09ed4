"""Rows of the inbox: verified webhooks, stored before they are answered, applied afterwards.

Law: an event is stored once per provider and mode; nothing is deleted because it failed.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class Letter(NamedTuple):
    """One stored event."""

    livemode: bool
    event_id: str
    event_type: str
    payload: bytes
    attempts: int
    received_at_s: int


def store(
    cursor: sqlite3.Cursor,
    *,
    livemode: bool,
    event_id: str,
    event_type: str,
    payload: bytes,
    now_s: int,
) -> bool:
    """Store an event; tell whether it is new."""
    cursor.execute(
        "INSERT INTO credit_inbox (provider, livemode, provider_event_id, event_type, payload,"
        " received_at_s, status) VALUES ('stripe', ?, ?, ?, ?, ?, 'new') ON CONFLICT DO NOTHING",
        (int(livemode), event_id, event_type, payload, now_s),
    )
    return cursor.rowcount == 1


def waiting(cursor: sqlite3.Cursor, now_s: int, limit: int) -> list[Letter]:
    """Read events that are due to be applied, in the order of their arrival."""
    rows = cursor.execute(
        "SELECT livemode, provider_event_id, event_type, payload, attempts, received_at_s"
        " FROM credit_inbox WHERE status = 'new' AND next_try_at_s <= ?"
        " ORDER BY next_try_at_s, received_at_s LIMIT ?",
        (now_s, limit),
    ).fetchall()
    return [Letter(bool(row[0]), *row[1:]) for row in rows]


def finish(cursor: sqlite3.Cursor, letter: Letter, status: str, reason: str, now_s: int) -> None:
    """Close an event: done, ignored, quarantined or dead."""
    cursor.execute(
        "UPDATE credit_inbox SET status = ?, reason = ?, done_at_s = ?, attempts = attempts + 1"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ? AND status = 'new'",
        (status, reason, now_s, int(letter.livemode), letter.event_id),
    )


def try_again(cursor: sqlite3.Cursor, letter: Letter, at_s: int, reason: str) -> None:
    """Put an event off."""
    cursor.execute(
        "UPDATE credit_inbox SET next_try_at_s = ?, reason = ?, attempts = attempts + 1"
        " WHERE provider = 'stripe' AND livemode = ? AND provider_event_id = ? AND status = 'new'",
        (at_s, reason, int(letter.livemode), letter.event_id),
    )


def depth(cursor: sqlite3.Cursor) -> dict[str, int]:
    """Count events by status, the finished ones left out."""
    rows = cursor.execute(
        "SELECT status, COUNT(*) FROM credit_inbox WHERE status IN ('new', 'dead', 'quarantined')"
        " GROUP BY status"
    )
    return {row[0]: int(row[1]) for row in rows}
