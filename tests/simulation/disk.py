"""The disk: a database in memory that outlives the processes of a run, and fails as told.

Law: what was committed stays; a process that dies loses exactly what it had not committed. Each
process has a connection of its own, so SQLite itself keeps them apart. COMMIT may fail with
or without having been carried out, as a real disk's answer may be lost.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from guthaben.store.schema import migrate

_numbers = itertools.count()

Mishap = Literal["", "refused", "lost", "undone"]
"""BEGIN is refused; COMMIT is carried out and its answer lost; COMMIT fails, nothing is done."""


class _Cursor(sqlite3.Cursor):
    mishap: Callable[[str], None]

    def execute(self, sql: str, parameters: Any = ()) -> _Cursor:
        con = self.connection
        if isinstance(con, Connection) and sql in {"BEGIN IMMEDIATE", "COMMIT"}:
            return con.bound(self, sql)
        super().execute(sql, parameters)
        return self

    def plain(self, sql: str) -> _Cursor:
        super().execute(sql)
        return self


class Connection(sqlite3.Connection):
    """A process's connection; `before` and `after` hear of every BEGIN and COMMIT."""

    before: Callable[[str], Mishap]
    after: Callable[[str], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.before = lambda _sql: ""
        self.after = lambda _sql: None

    def cursor(self, *args: Any, **options: Any) -> Any:
        return super().cursor(_Cursor)

    def bound(self, cursor: _Cursor, sql: str) -> _Cursor:
        """Begin or commit, unless something goes wrong."""
        mishap = self.before(sql)
        if mishap in {"refused", "undone"}:
            raise sqlite3.OperationalError("simulated: database is locked")
        cursor.plain(sql)
        if sql == "COMMIT":
            self.after("lost" if mishap == "lost" else "done")
        if mishap == "lost":
            raise sqlite3.OperationalError("simulated: disk I/O error")
        return cursor


@cache
def _template() -> sqlite3.Connection:
    con = sqlite3.connect(":memory:", isolation_level=None)
    cursor = con.cursor()
    migrate(cursor, 0)
    cursor.execute("UPDATE credit_meta SET value = ? WHERE name = 'secret'", ("5e" * 32,))
    return con


class Disk:
    """One database; `looking` is the oracle's own connection, which only reads."""

    def __init__(self) -> None:
        self._uri = f"file:/simulation-{next(_numbers)}?vfs=memdb"
        self.looking = sqlite3.connect(self._uri, uri=True, isolation_level=None)
        _template().backup(self.looking)

    def open(self) -> Connection:
        """Open a connection for a process."""
        con = sqlite3.connect(
            self._uri,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=Connection,
        )
        con.execute("PRAGMA busy_timeout = 0")
        con.execute("PRAGMA temp_store = MEMORY")
        return con

    def close(self) -> None:
        """Forget the database."""
        self.looking.close()
