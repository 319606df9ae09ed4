"""SQLite as a database of the store: one writing session, and idle connections to ask through.

Law: a question sees every commit that was answered before it, and one moment of the database.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from guthaben.errors import ConfigError, InvalidInput, StoreUnavailable
from guthaben.store.connection import Location, Place, connect
from guthaben.store.copying import Table, tables_from
from guthaben.store.durable import sync
from guthaben.store.session import Cursor, Grown
from guthaben.store.sqlite_session import SqliteSession

T = TypeVar("T")
_IDLE_READERS = 8
_TABLES = (
    "SELECT m.name, c.name, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c"
    " WHERE m.type = 'table' AND m.name LIKE 'credit\\_%' ESCAPE '\\' ORDER BY m.name, c.cid"
)


class SqliteDatabase:
    """One file, or one database in memory; see `database.Database`."""

    lanes = 1

    def __init__(self, location: Location) -> None:
        self.location = location
        self.name = location.path
        self.in_memory = location.in_memory
        self.survives_fork = not location.in_memory
        self._place: Place | None = None
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def sees_one_moment(self) -> bool:
        """Tell that a read sees all tables at one moment."""
        return True

    def exists(self) -> bool:
        """Tell whether the file is there."""
        return self.in_memory or Path(self.location.path).exists()

    def session(self, now_s: Callable[[], int]) -> SqliteSession:
        """Open the writing connection, migrating the file."""
        return SqliteSession(self.location, now_s)

    def tables(self, cursor: Cursor) -> list[Table]:
        """List our tables as they are there."""
        return tables_from(cursor, _TABLES)

    def before_copy(self, cursor: Cursor, source: Cursor) -> None:
        """Nothing to do: a file is not cut."""

    def after_copy(self, cursor: Cursor) -> None:
        """Nothing to do: SQLite numbers after the highest."""

    def distribute(self, by: str) -> bool:
        """Refuse: a file is one node."""
        raise ConfigError(
            f"A SQLite file can't be spread with {by!r}: nothing was changed. Move to PostgreSQL"
            " first: guthaben copy --to postgresql://..."
        )

    def read(self, question: Callable[[Cursor], T]) -> T:
        """Ask through an idle connection, or a new one."""
        con = self._take()
        try:
            cursor = con.cursor()
            cursor.execute("BEGIN")
            answer = question(cursor)
            cursor.execute("ROLLBACK")
        except BaseException as error:
            con.close()  # whatever broke, the next question gets a sound connection
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailable(str(error)) from error
            raise
        self._give_back(con)
        return answer

    def back_up(self, target: Path, prepare: Callable[[Cursor], None]) -> None:
        """Copy the file as it is at one moment, let `prepare` write into the copy, keep the copy.

        Writers go on meanwhile. The copy appears under its name when it is whole and on the disk;
        nothing that is there is replaced. Raises `StoreUnavailable`, `InvalidInput`.
        """
        if target.exists():
            raise InvalidInput(f"{str(target)!r} exists already; a backup replaces nothing")
        part = target.with_name(f"{target.name}.part")
        try:
            part.unlink(missing_ok=True)
            with (
                contextlib.closing(connect(self.location, read_only=True)) as source,
                contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy,
            ):
                source.backup(copy)  # in one step: one moment, however much is written beside it
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
                copy.execute("PRAGMA synchronous = FULL")
                cursor = copy.cursor()
                cursor.execute("BEGIN IMMEDIATE")
                prepare(cursor)
                cursor.execute("COMMIT")
            sync(part)
            os.link(part, target)
            part.unlink()
            sync(target.parent)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreUnavailable(f"the backup was not written: {error}") from error

    def grow(self, now_ms: int) -> Grown:
        """Nothing to do: room that archived calls leave is used again."""
        return Grown({}, {})

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for con in idle:
            con.close()

    def _take(self) -> sqlite3.Connection:
        if self._place is not None and self._place.is_left:
            self.close()  # they would answer from a file that is somewhere else now
            self._place = None
        with self._lock:
            if self._idle:
                return self._idle.pop()
        con = connect(self.location, read_only=True)
        self._place = Place(self.location.path)
        return con

    def _give_back(self, con: sqlite3.Connection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_READERS:
                self._idle.append(con)
                return
        con.close()
