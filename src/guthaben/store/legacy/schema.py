"""The old tables `ai_credit_ledger` and `ai_usage_events`: views on the engine's tables.

Law: there is one bookkeeping. Where real old tables lie they are taken over first (see
`legacy_takeover`), in the same savepoint; what can't be explained raises `MigrationNeeded` and
changes nothing. Works inside a caller's open transaction, and again and again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.resources import files

from guthaben.errors import MigrationNeeded
from guthaben.store.adopted import Adopted
from guthaben.store.connection import joined
from guthaben.store.legacy.takeover import take_over
from guthaben.store.schema import applied, migrate, migrations, statements
from guthaben.store.writer import wall_clock_ms

Connection = sqlite3.Connection
"""What a host hands in; named here so that the services need no database driver."""

VIEWS = ("ai_credit_ledger", "ai_usage_events")
_MARK = "legacy_views"


def ensure(
    con: sqlite3.Connection,
    allowance_of: Callable[[str], int],
    clock_ms: Callable[[], int] = wall_clock_ms,
) -> None:
    """Have the engine's schema and the old views on a caller's connection, taking over old tables.

    `allowance_of` tells a plan's allowance per period in nano-USD by its lookup key. Idempotent;
    once all is there it only reads.
    """
    if Adopted(con).read(_is_current):
        return
    now_ms = clock_ms()
    with joined(con) as cursor:
        migrate(cursor, now_ms // 1000)
        _make_way(cursor)
        take_over(cursor, now_ms, allowance_of)
        _lay_views(cursor)


def _is_current(cursor: sqlite3.Cursor) -> bool:
    if applied(cursor) != _newest() or _kinds(cursor) != dict.fromkeys(VIEWS, "view"):
        return False
    return _mark(cursor) == _version()


@cache
def _newest() -> int:
    return migrations()[-1].number


@cache
def _sql() -> str:
    return files("guthaben.store.legacy").joinpath("views.sql").read_text("utf-8")


@cache
def _version() -> str:
    return sha256(_sql().encode()).hexdigest()


def _kinds(cursor: sqlite3.Cursor) -> dict[str, str]:
    """Tell which of the two names exist, as table or view."""
    rows = cursor.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name IN ('ai_credit_ledger', 'ai_usage_events')"
    )
    return dict(rows.fetchall())


def _mark(cursor: sqlite3.Cursor) -> str | None:
    row = cursor.execute("SELECT value FROM credit_meta WHERE name = ?", (_MARK,)).fetchone()
    return row[0] if row else None


def _make_way(cursor: sqlite3.Cursor) -> None:
    """Remove earlier versions of our own views; refuse a host's view of that name."""
    views = [name for name, kind in _kinds(cursor).items() if kind == "view"]
    if views and _mark(cursor) is None:
        raise MigrationNeeded([f"{name} is a view that Guthaben did not make" for name in views])
    for name in views:
        cursor.execute(f"DROP VIEW {name}")


def _lay_views(cursor: sqlite3.Cursor) -> None:
    for statement in statements(_sql()):
        cursor.execute(statement)
    cursor.execute(
        "INSERT INTO credit_meta (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_MARK, _version()),
    )
