"""The two kinds of databases that tests run on, and a way to look behind the store's back.

A test that asks for the fixture `database` (or for one that is built on it, such as `house`) runs
once on SQLite and once on PostgreSQL; one that is marked `sqlite`, or that asks for a `path`, says
something of a file and runs there only. `pytest --database sqlite` leaves PostgreSQL out.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from guthaben.store.store import Store
from tests import postgres

REFUSED = (sqlite3.IntegrityError, psycopg.errors.RaiseException)
"""What a trigger raises."""
SQLITE, POSTGRESQL = "sqlite", "postgresql"
KINDS = (SQLITE, POSTGRESQL)
_PATIENCE_S = 2.0
# Whoever holds one of these has begun to write, or has locked a practice in order to.
_WRITING = (
    "SELECT COUNT(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND l.granted"
    " AND l.locktype = 'relation' AND l.mode IN ('RowExclusiveLock', 'RowShareLock')"
)


class Database(ABC):
    """An empty database with the schema: its URL, and what a stranger can see and change."""

    kind: str
    url: str

    @abstractmethod
    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Ask through a connection of our own."""

    @abstractmethod
    def change(self, sql: str, *values: Any) -> None:
        """Change it behind the store's back."""

    @abstractmethod
    def can_be_written(self) -> bool:
        """Tell whether nobody keeps a transaction open that writes."""


class File(Database):
    """A SQLite file."""

    kind = SQLITE

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Ask the file."""
        with closing(sqlite3.connect(self.path, timeout=10)) as con:
            con.row_factory = sqlite3.Row
            return [dict(row) for row in con.execute(sql, values)]

    def change(self, sql: str, *values: Any) -> None:
        """Change the file."""
        with closing(sqlite3.connect(self.path, timeout=10)) as con, con:
            con.execute(sql, values)

    def can_be_written(self) -> bool:
        """Try to take the write lock."""
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)) as con:
            try:
                con.execute("BEGIN IMMEDIATE")
                con.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
        return True


class Postgres(Database):
    """A database of this process on the PostgreSQL server."""

    kind = POSTGRESQL

    def __init__(self, number: int = 0) -> None:
        self.url = postgres.fresh(number)
        self._number = number

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Ask the database."""
        return postgres.rows(self._number, sql, values)

    def change(self, sql: str, *values: Any) -> None:
        """Change the database."""
        postgres.change(self._number, sql, values)

    def can_be_written(self) -> bool:
        """Wait for a moment in which nobody is writing; a row lock alone would be in the way."""
        end = time.monotonic() + _PATIENCE_S
        while self.rows(_WRITING)[0]["count"]:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True


def made(kind: str, folder: Path, number: int = 0) -> Database:
    """Make an empty database of a kind; databases of one test have different numbers."""
    if kind == POSTGRESQL:
        return Postgres(number)
    path = folder / f"credit{number}.db"
    empty_file(path)
    return File(path)


def quick(kind: str) -> str:
    """Give the URL of an empty database that costs least: in memory, where the kind can."""
    return postgres.fresh() if kind == POSTGRESQL else "sqlite://"


def empty_file(path: Path) -> None:
    """Make a SQLite file that has the schema and nothing else: a copy is quicker than migrating."""
    shutil.copyfile(_template(), path)


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="guthaben-empty-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Store(f"sqlite:///{folder / 'empty.db'}").close()
    return folder / "empty.db"
