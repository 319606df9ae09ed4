"""A database that comes from a backup: it charges nobody before its books are compared.

Law: whatever happened after the backup is unknown here: charges, consents that were withdrawn, keys
that were revoked. So a copy carries a stop of all automatic charges, and a mark that says since
when it knows nothing; the mark is lifted with the stop, after a reconciliation that covers it.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store import attempts, settings
from guthaben.store.attempts import EVERYBODY, Stop
from guthaben.store.session import Cursor

ALARM = "database_restored"
REASON = "this database comes from a backup: reconcile it, then resume"
_AT, _KNOWN, _HOME = "restored_at_s", "restored_known_until_s", "home"
_APART = "/"


class Mark(NamedTuple):
    """When a copy was noticed, and until when its books are complete."""

    at_s: int
    known_until_s: int


class Left(NamedTuple):
    """What a person should look at before going on from a backup."""

    known_until_s: int
    armed_practices: int
    """Automatic top-up on and card saved, as the backup says."""
    keys: int
    """API keys that let somebody in, as the backup says."""
    open_calls: int
    open_attempts: int
    unsent: int
    """Messages that were waiting: they may have been sent by the lost database."""


def mark(cursor: Cursor, now_s: int) -> None:
    """Mark this database as one that comes from a backup, stop all charges, alarm somebody."""
    # The stop first: who lifts one, lifts it before the mark, and neither waits for the other.
    attempts.put_stop(cursor, EVERYBODY, Stop(REASON, "", now_s))
    _write(cursor, _AT, str(now_s))
    _write(cursor, _KNOWN, str(known_until_s(cursor)))
    settings.audit(cursor, EVERYBODY, "database_restored", "", "", now_s)
    settings.raise_alarm(cursor, ALARM, "", now_s)


def mark_of(cursor: Cursor) -> Mark | None:
    """Read the mark; none where this is no copy, or where everything was compared since."""
    at_s = _read(cursor, _AT)
    return None if at_s is None else Mark(int(at_s), int(_read(cursor, _KNOWN) or 0))


def carry(source: Cursor, target: Cursor) -> None:
    """Give a mark on to a database that everything is copied into; its stop is copied as a row."""
    for name in (_AT, _KNOWN):
        value = _read(source, name)
        if value is not None:
            _write(target, name, value)


def lift(cursor: Cursor, now_s: int) -> None:
    """Forget that this database was a copy."""
    cursor.execute("DELETE FROM credit_meta WHERE name IN (?, ?)", (_AT, _KNOWN))
    settings.clear_alarm(cursor, ALARM, "", now_s)


def is_reconciled(cursor: Cursor, given: Mark) -> bool:
    """Tell whether a reconciliation that mends has looked at all that this copy can't know."""
    run = "SELECT 1 FROM credit_reconcile_run WHERE fixes = 1 AND ended_at_s > 0"
    found = cursor.execute(
        f"{run} AND started_at_s >= ? AND since_s <= ? LIMIT 1", (given.at_s, given.known_until_s)
    ).fetchone()
    return found is not None


def known_until_s(cursor: Cursor) -> int:
    """Tell when the last money moved that this database knows of; 0 if none ever did."""
    (event_s,) = cursor.execute("SELECT MAX(recorded_at_s) FROM credit_event").fetchone()
    (transfer_s,) = cursor.execute("SELECT MAX(at_s) FROM credit_transfer").fetchone()
    return max(event_s or 0, transfer_s or 0)


def left(cursor: Cursor) -> Left:
    """Count what a person should look at."""
    found = mark_of(cursor)
    questions = (
        "credit_practice WHERE auto_topup_armed = 1",
        "credit_api_key WHERE revoked_at_s = 0",
        "credit_call WHERE status = 1",
        "credit_event WHERE status IN ('pending', 'unknown')",
        "credit_delivery WHERE status = 'waiting'",
    )
    counts = [cursor.execute(f"SELECT COUNT(*) FROM {one}").fetchone()[0] for one in questions]
    return Left(found.known_until_s if found else known_until_s(cursor), *counts)


def settle_in(cursor: Cursor, home: tuple[str, ...], now_s: int) -> bool:
    """Compare where this database is with where it was; tell whether it was moved, and mark it.

    A part that is empty says nothing: who asks may not be allowed to know it.
    """
    here = _APART.join(home)
    cursor.execute(
        "INSERT INTO credit_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (_HOME, here),
    )
    was = _read(cursor, _HOME)
    if same_home(was, home):
        return False
    cursor.execute(
        "UPDATE credit_meta SET value = ? WHERE name = ? AND value = ?", (here, _HOME, was)
    )
    if cursor.rowcount != 1:
        return False  # another server has noticed it in this moment
    mark(cursor, now_s)
    return True


def same_home(was: str | None, home: tuple[str, ...]) -> bool:
    """Tell whether two places are the same as far as both are known."""
    if was is None:
        return False
    return all(not a or not b or a == b for a, b in zip(was.split(_APART), home, strict=False))


def _read(cursor: Cursor, name: str) -> str | None:
    row = cursor.execute("SELECT value FROM credit_meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _write(cursor: Cursor, name: str, value: str) -> None:
    cursor.execute(
        "INSERT INTO credit_meta (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
