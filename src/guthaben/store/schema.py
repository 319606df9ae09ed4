"""Migrations: numbered SQL files, each applied once, in order, in the caller's transaction.

Law: a fresh database and one that was migrated step by step have the same schema (tested).
Statements run one by one, because `executescript` would commit a caller's open transaction.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from guthaben.errors import MigrationNeeded


class Migration(NamedTuple):
    """One numbered step."""

    number: int
    name: str
    sql: str

    @property
    def is_of_sqlite(self) -> bool:
        """Whether it orders a SQLite file anew and says nothing to another database."""
        return self.name.endswith("_sqlite")


def migrations() -> list[Migration]:
    """Read all migrations of this version, in order."""
    found = []
    for file in files("guthaben.store").joinpath("migrations").iterdir():
        number, _, rest = file.name.partition("_")
        if file.name.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text("utf-8")))
    return sorted(found)


def statements(sql: str) -> Iterator[str]:
    """Split SQL into complete statements; a trigger's body stays in one piece."""
    piece = ""
    for line in sql.splitlines(keepends=True):
        piece += line
        if sqlite3.complete_statement(piece):
            yield piece.strip()
            piece = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in piece.splitlines()):
        raise ValueError(f"incomplete SQL statement: {piece.strip()[:80]!r}")


def applied(cursor: sqlite3.Cursor) -> int:
    """Tell the number of the last migration of this database, 0 for none."""
    if not cursor.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'credit_migration'"
    ).fetchone():
        return 0
    row = cursor.execute("SELECT COALESCE(MAX(number), 0) FROM credit_migration").fetchone()
    return int(row[0])


def _done(cursor: sqlite3.Cursor) -> set[int]:
    if applied(cursor) == 0:
        return set()
    return {row[0] for row in cursor.execute("SELECT number FROM credit_migration")}


def require_known(done: set[int], known: list[Migration]) -> None:
    """Refuse a database that a later version has migrated. Raises `MigrationNeeded`."""
    have, last = max(done, default=0), known[-1].number
    if have > last:
        raise MigrationNeeded(
            [f"schema {have} is newer than this version's {last}: upgrade guthaben"]
        )


def migrate(cursor: sqlite3.Cursor, now_s: int) -> list[Migration]:
    """Bring the schema up to date inside the open transaction; tell what was applied.

    Idempotent. Raises `MigrationNeeded` when the database was written by a later version.
    """
    known = migrations()
    have = applied(cursor)
    # Not those above `have`: steps of branches that were joined later may have lower numbers.
    done = _done(cursor)
    require_known(done, known)
    todo = [migration for migration in known if migration.number not in done]
    if have == 0:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS credit_migration ("
            "number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at_s INTEGER NOT NULL)"
        )
    for migration in todo:
        for statement in statements(migration.sql):
            cursor.execute(statement)
        cursor.execute(
            "INSERT INTO credit_migration (number, name, applied_at_s) VALUES (?, ?, ?)",
            (migration.number, migration.name, now_s),
        )
    if have == 0:
        cursor.execute(
            "INSERT INTO credit_meta (name, value) VALUES ('secret', ?)", (secrets.token_hex(32),)
        )
    return todo
