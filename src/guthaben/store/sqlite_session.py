"""The writer's connection to SQLite.

Law: `BEGIN IMMEDIATE` takes the one write lock before anything is read; what was kept from earlier
is valid only if `PRAGMA data_version` says that no other connection has written since. Whoever
finds the lock taken waits at the turnstile and not in SQLite, where the busiest wins. Nothing is
acknowledged that was written to a file which is no longer where it was opened.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

from guthaben.errors import OutcomeUnknown, StoreUnavailable
from guthaben.store import connection
from guthaben.store.cache import Cache
from guthaben.store.checkpoints import Checkpoints
from guthaben.store.connection import Location, Place, connect
from guthaben.store.schema import migrate
from guthaben.store.turnstile import Turnstile, pauses_s

_SECRET = "SELECT value FROM credit_meta WHERE name = 'secret'"
_NOBODY_WAITS = contextlib.nullcontext()


class SqliteSession:
    """Opens and migrates the database file; see `session.Session`."""

    lacks_a_node = False

    def __init__(self, location: Location, now_s: Callable[[], int]) -> None:
        self._location = location
        self._now_s = now_s
        self._turnstile = None if location.in_memory else Turnstile(location.path)
        self._asked = True
        self._meanwhile = contextlib.ExitStack()
        self._waits_itself = False
        self._version = -1
        self._cursor: sqlite3.Cursor | None = None
        self.cache = Cache()
        self._place: Place | None = None
        self._checkpoints: Checkpoints | None = None
        self._secret = ""
        self.con: sqlite3.Connection | None = None
        self._open()

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Let other processes have their turn, if there are any."""
        if self._turnstile is None:
            return _NOBODY_WAITS
        self._asked = not self._turnstile.is_open
        return self._turnstile.passed() if self._asked else self._meanwhile

    def begin(self) -> tuple[sqlite3.Cursor, bool]:
        """Take the write lock."""
        interrupted = False
        try:
            if self._place is not None and self._place.seems_left:
                self._drop()
            if self.con is None:
                self._open()
            con = self.con
            assert con is not None
            if self._checkpoints is not None:
                self._checkpoints.look_after(con)
            cursor = con.cursor()
            if con.in_transaction:
                interrupted = True
                cursor.execute("ROLLBACK")
            self._take_lock(cursor)
            (version,) = cursor.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error
        unchanged = version == self._version
        if not unchanged and self._version != -1 and self._turnstile is not None:
            self._turnstile.met()
        self._version, self._cursor = version, cursor
        return cursor, unchanged and not interrupted

    def _take_lock(self, cursor: sqlite3.Cursor) -> None:
        """Begin; whoever did not ask at the turnstile and finds the lock taken asks after all."""
        until_s = time.monotonic() + connection.BUSY_TIMEOUT_MS / 1000
        pauses = pauses_s()
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not (busy and self._waits_itself) or time.monotonic() >= until_s:
                    raise
            else:
                return
            if self._asked or self._turnstile is None:
                time.sleep(next(pauses))
            else:
                self._asked = True
                self._turnstile.met()
                self._meanwhile.enter_context(self._turnstile.passed())

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
            # A full disk stops the writing before the end of the transaction is written.
            undone = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            if con.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    con.execute("ROLLBACK")
                    undone = True
            self._drop()
            if undone:
                raise StoreUnavailable(str(error)) from error
            raise OutcomeUnknown(f"no answer to COMMIT: {error}") from error
        if self._place is not None and self._place.is_left:
            self._drop()
            raise OutcomeUnknown(f"{self._location.path!r} was moved or deleted while writing")

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
        if self._checkpoints is not None:
            self._checkpoints.close()
        if con is not None:
            con.close()
        if self._turnstile is not None:
            self._turnstile.close()

    def _open(self) -> None:
        # Only at first: an empty file in the place of one that is gone would hide the loss.
        con = connect(self._location, create=not self._secret)
        cursor = con.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            migrate(cursor, self._now_s())
            secret = cursor.execute(_SECRET).fetchone()[0]
            if self._secret and secret != self._secret:
                raise StoreUnavailable(
                    f"{self._location.path!r} is another database than the one that was opened: "
                    "put that one back, or start anew"
                )
            cursor.execute("COMMIT")
            # With a log only the beginning meets a lock, and there we wait ourselves.
            self._waits_itself = cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            if self._waits_itself:
                cursor.execute("PRAGMA busy_timeout = 0")
        except sqlite3.Error as error:
            con.close()
            raise StoreUnavailable(f"cannot prepare the database: {error}") from error
        except BaseException:
            con.close()
            raise
        self.con = con
        self._secret = secret
        if not self._location.in_memory:
            self._place = Place(self._location.path)
            self._checkpoints = Checkpoints(self._location)
        self._version = -1

    def _drop(self) -> None:
        """Leave a connection that is in doubt; one in memory is kept, it has everything."""
        self._version = -1
        if self.con is not None and not self._location.in_memory:
            self.con.close()
            self.con = None
