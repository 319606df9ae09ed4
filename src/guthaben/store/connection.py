"""Connections to SQLite, and joining a connection that belongs to a caller.

Law: only an opened database gets pragmas (WAL, synchronous FULL); a caller's connection is used as
it is. What the caller began, only the caller ends: inside an open transaction we work in a
savepoint, otherwise we commit what we began.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from guthaben.errors import ConfigError, StoreUnavailable

BUSY_TIMEOUT_MS = 30_000
_LOG_PAGES = 16_000
"""At 32 MB a commit itself carries the log over; `checkpoints` does so long before."""
_CACHE_KIB = 16_000
"""At most so much of the file in memory: the ends of a thousand practices, and the ways there."""
_PAGE_BYTES = 2048
"""Half of SQLite's own choice: a commit writes every page it touched, and ours touch many."""
MOMENT_S = 0.01
"""For so long a file that was seen in its place is not looked for before it is written to."""
_SAVEPOINT = "guthaben"


class Location(NamedTuple):
    """Where a database lives: a file's path, or in memory for as long as it is open."""

    path: str
    in_memory: bool


def locate(url: str) -> Location:
    """Read a database URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://`."""
    if url in {"sqlite://", "sqlite:///:memory:"}:
        return Location(":memory:", True)
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return Location(unquote(url.removeprefix("sqlite:///")), False)
    raise ConfigError(
        f"not a database URL that this version opens: {url!r}. Use sqlite:///credit.db for a file "
        "in this folder, sqlite:////srv/credit.db for an absolute path, or sqlite:// for memory."
    )


class Place:
    """Where a file was when it was opened.

    A file that is moved or deleted stays open, and what is written to it is lost without an error:
    so it is asked after each transaction whether its name still leads to it, and before one too
    unless that was a moment ago.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen_until_s = 0.0
        self._was = self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def is_left(self) -> bool:
        """Whether the name leads elsewhere now, or nowhere."""
        if self._now() != self._was:
            return True
        self._seen_until_s = time.monotonic() + MOMENT_S
        return False

    @property
    def seems_left(self) -> bool:
        """Whether it is left, as far as that was seen a moment ago; never an answer to a commit."""
        return time.monotonic() >= self._seen_until_s and self.is_left


def connect(
    location: Location, *, read_only: bool = False, create: bool = True
) -> sqlite3.Connection:
    """Open a connection of our own, in autocommit mode, with durable commits.

    Raises `StoreUnavailable` when the file can't be opened or is no database.
    """
    try:
        if location.in_memory or (create and not read_only):
            name, is_uri = location.path, False
        else:
            mode = "ro" if read_only else "rw"
            name, is_uri = f"{Path(location.path).resolve().as_uri()}?mode={mode}", True
        con = sqlite3.connect(
            name, uri=is_uri, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        con.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if not read_only:
            # Of a new file only; one that is there keeps what it has.
            con.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("PRAGMA synchronous = FULL")
            con.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            con.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        con.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"cannot open {location.path!r}: {error}; does the folder exist, may this process "
            "write there, and is the file a SQLite database?"
        ) from error
    return con


@contextmanager
def joined(con: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """Work on a caller's connection: in a savepoint of its transaction, or in one of our own.

    Yields a cursor that gives plain tuples whatever the caller's row factory. When the block ends,
    a transaction that we began is committed; the caller's is left open. An exception undoes the
    block's work only. Raises `StoreUnavailable` when the database is locked or gone.
    """
    text_factory = con.text_factory
    con.text_factory = str
    theirs = con.in_transaction
    try:
        cursor = con.cursor()
        cursor.row_factory = None
        cursor.execute(f"SAVEPOINT {_SAVEPOINT}" if theirs else "BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            _undo(con, cursor, theirs)
            raise
        cursor.execute(f"RELEASE {_SAVEPOINT}" if theirs else "COMMIT")
    except sqlite3.OperationalError as error:
        if con.in_transaction and not theirs:
            con.execute("ROLLBACK")
        raise StoreUnavailable(str(error)) from error
    finally:
        con.text_factory = text_factory


def _undo(con: sqlite3.Connection, cursor: sqlite3.Cursor, theirs: bool) -> None:
    if not con.in_transaction:
        return  # SQLite itself rolled back: a full disk, an I/O error
    if theirs:
        cursor.execute(f"ROLLBACK TO {_SAVEPOINT}")
        cursor.execute(f"RELEASE {_SAVEPOINT}")
    else:
        cursor.execute("ROLLBACK")


def take_write_lock(cursor: sqlite3.Cursor) -> None:
    """Write before reading, so that a stale snapshot shows at once and not after the work."""
    cursor.execute("UPDATE credit_meta SET value = value WHERE name = ''")
