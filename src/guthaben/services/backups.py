"""Backups: a copy of a running database, and what a person does after one was restored.

Law: a copy is compared with its own journal before it is called a backup. A database that comes
from a backup charges nobody until it was reconciled with the payment provider.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from guthaben.services.guthaben import Guthaben
from guthaben.store import restored
from guthaben.store.database import open_database
from guthaben.store.restored import Left
from guthaben.store.verify import Verification, verify


class BackedUp(NamedTuple):
    """A backup: where it is, what `verify` says of it, until when its books are complete."""

    path: Path
    size_bytes: int
    verified: Verification
    known_until_s: int


def back_up(guthaben: Guthaben, target: Path) -> BackedUp:
    """Copy a running SQLite database into a new file and verify the copy.

    Raises `InvalidInput` if the file exists, `StoreUnavailable`, `ConfigError` on PostgreSQL.
    """
    store = guthaben.core.store
    store.back_up(target)
    copy = open_database(f"sqlite:///{target}")
    try:
        now_s = store.now_s()
        verified = copy.read(lambda cursor: verify(cursor, None, now_s))
        known_s = copy.read(restored.known_until_s)
    finally:
        copy.close()
    return BackedUp(target, target.stat().st_size, verified, known_s)


def say_restored(guthaben: Guthaben) -> Left:
    """Mark a database as one that comes from a backup, where nothing could notice it.

    Idempotent. Stops all automatic charges, and tells what to look at.
    """
    store = guthaben.core.store
    store.run(lambda space: restored.mark(space.cursor, space.now_s))
    return store.read(restored.left)


def what_is_left(guthaben: Guthaben) -> Left | None:
    """Tell what to look at before going on; None where this database is no copy."""

    return guthaben.core.store.read(
        lambda cursor: restored.left(cursor) if restored.mark_of(cursor) else None
    )
