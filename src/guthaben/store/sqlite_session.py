"""The writer's connection to SQLite.

Law: `BEGIN IMMEDIATE` takes the one write lock before anything is read; what was kept from earlier
is valid only if `PRAGMA data_version` says that no other connection has written since.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

from guthaben.errors import OutcomeUnknown, StoreUnavailable
from guthaben.store.cache import Cache
from guthaben.store.connection import Location, connect
from guthaben.store.schema import migrate
from guthaben.store.turnstile import Turnstile

_NOBODY_WAITS = contextlib.nullcontext()


class SqliteSession:
    """Opens and migrates the database file; see `session.Session`."""

    def __init__(self, location: Location, now_s: Callable[[], int]) -> None:
        self._location = location
        self._now_s = now_s
        self._turnstile = None if location.in_memory else Turnstile(location.path)
        self._version = -1
        self._cursor: sqlite3.Cursor | None = None
        self.cache = Cache()
        self.con: sqlite3.Connection | None = None
        self._open()

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Let other processes have their turn, if there are any."""
        if self._turnstile is None or self._turnstile.is_open:
            return _NOBODY_WAITS
        return self._turnstile.passed()

    def begin(self) -> tuple[sqlite3.Cursor, bool]:
        """Take the write lock."""
        interrupted = False
        try:
            if self.con is None:
                self._open()
            con = self.con
            assert con is not None
            cursor = con.cursor()
            if con.in_transaction:
                interrupted = True
                cursor.execute("ROLLBACK")
            cursor.execute("BEGIN IMMEDIATE")
            (version,) = cursor.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error
        unchanged = version == self._version
        if not unchanged and self._version != -1 and self._turnstile is not None:
            self._turnstile.met()
        self._version, self._cursor = version, cursor
        return cursor, unchanged and not interrupted

    def commit(self, write: Callable[[], None]) -> None:
        """Commit; what is still open after an error can be undone, and then surely was not."""
        try:
            write()
        except BaseException as error:
            self.roll_back(error)
            raise
        con, cursor = self.con, self._cursor
        assert con is not None
        assert cursor is not None
        try:
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            undone = False
            if con.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    con.execute("ROLLBACK")
                    undone = True
            self._drop()
            if undone:
                raise StoreUnavailable(str(error)) from error
            raise OutcomeUnknown(f"the answer to COMMIT was lost: {error}") from error

    def roll_back(self, error: BaseException) -> None:
        """Undo what was begun; an operational error also drops the connection."""
        con = self.con
        try:
            if con is not None and con.in_transaction:
                con.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()
        if isinstance(error, sqlite3.OperationalError):
            self._drop()
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Close the connection and the lock files."""
        con, self.con = self.con, None
        if con is not None:
            con.close()
        if self._turnstile is not None:
            self._turnstile.close()

    def _open(self) -> None:
        con = connect(self._location)
        cursor = con.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            migrate(cursor, self._now_s())
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            con.close()
            raise StoreUnavailable(f"cannot prepare the database: {error}") from error
        except BaseException:
            con.close()
            raise
        self.con = con
        self._version = -1

    def _drop(self) -> None:
        """Leave a connection that is in doubt; one in memory is kept, it has everything."""
        self._version = -1
        if self.con is not None and not self._location.in_memory:
            self.con.close()
            self.con = None
