"""Copying everything that a database holds into another one, row by row, in one transaction.

Law: nothing is computed anew. Rows arrive as they were; only a practice's internal number and an
entry's row number are moved behind those that the target already has. What could belong to
something else in the target is refused and listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from guthaben.errors import MigrationNeeded
from guthaben.store import practices, restored
from guthaben.store.session import Cursor
from guthaben.store.workspace import Workspace

PAGE = 2_000
_PRIVATE = ("credit_migration", "credit_meta")
_MARK = "copied_from:"
_NUMBERED = {"credit_event": "row_id"}
"""Columns that are unique over all practices, beside the practice's own number."""


_CALL = [(1, "practice_no"), (2, "call_no")]
"""What names a call, also where its table has no key because it is cut into parts."""


class Table(NamedTuple):
    """A table of ours: its columns, and those of its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def are_alike(some: list[Table], others: list[Table]) -> bool:
    """Tell whether two databases hold the same; in which order columns lie is a database's own."""
    return [(table.name, sorted(table.columns)) for table in some] == [
        (table.name, sorted(table.columns)) for table in others
    ]


def tables_from(cursor: Cursor, question: str) -> list[Table]:
    """Make tables of rows (table, column, place in the key or 0), the practices first."""
    columns: dict[str, list[str]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    for table, column, place in cursor.execute(question).fetchall():
        columns.setdefault(table, []).append(column)
        if place > 0:
            keys.setdefault(table, []).append((place, column))
    found = [
        Table(name, tuple(names), tuple(name for _place, name in sorted(keys.get(name, _CALL))))
        for name, names in columns.items()
    ]
    return sorted(found, key=lambda table: (table.name != "credit_practice", table.name))


class Copied(NamedTuple):
    """How many rows of which table were copied; none if it had been done before."""

    rows: dict[str, int]
    repeated: bool


def fingerprint(source: Cursor) -> str:
    """Name a database: its secret is its own, and nobody learns it from half of a hash."""
    (secret,) = source.execute("SELECT value FROM credit_meta WHERE name = 'secret'").fetchone()
    return sha256(f"copy|{secret}".encode()).hexdigest()[:32]


def copy(source: Cursor, space: Workspace, tables: list[Table], name: str = "") -> Copied:
    """Copy all rows, of tables as they are there, into the database of an open transaction.

    `name` names the source; without it the source's own secret does. Idempotent: the second time
    nothing is done. Raises `MigrationNeeded` with what stands in the way.
    """
    target = space.cursor
    mark = _MARK + (name or fingerprint(source))
    if _meta(target, mark) is not None:
        return Copied({}, True)
    fresh = target.execute("SELECT 1 FROM credit_practice LIMIT 1").fetchone() is None
    problems = list(_problems(source, target, tables))
    if problems:
        raise MigrationNeeded(problems)
    moved = _Offsets(
        _most(target, "credit_practice", "practice_no"),
        {table: _most(target, table, column) for table, column in _NUMBERED.items()},
    )
    rows = {table.name: _copy_table(source, target, table, moved) for table in tables}
    if fresh:
        # Names of calls and checked keys stay valid: they are sealed with the secret.
        (secret,) = source.execute("SELECT value FROM credit_meta WHERE name = 'secret'").fetchone()
        target.execute("UPDATE credit_meta SET value = ? WHERE name = 'secret'", (secret,))
    target.execute("INSERT INTO credit_meta (name, value) VALUES (?, ?)", (mark, str(space.now_s)))
    restored.carry(source, target)
    return Copied({name: number for name, number in rows.items() if number}, False)


class _Offsets(NamedTuple):
    practice_no: int
    of: dict[str, int]


def _problems(source: Cursor, target: Cursor, tables: list[Table]) -> Iterator[str]:
    for (practice_id,) in source.execute("SELECT practice_id FROM credit_practice ORDER BY 1"):
        if practices.number_of(target, practice_id) is not None:
            yield f"practice {practice_id} exists in the target already"
    for table in tables:
        if "practice_no" in table.columns and table.name != "credit_practice":
            continue
        if table.name in (*_PRIVATE, "credit_practice") or not _any(source, table.name):
            continue
        if _any(target, table.name):
            yield f"{table.name} holds rows in both databases, and they belong to no practice"
    refs = "SELECT provider, livemode, kind, ref FROM credit_payment"
    for row in source.execute(refs):
        same = f"{refs} WHERE provider = ? AND livemode = ? AND kind = ? AND ref = ?"
        if target.execute(same, row).fetchone():
            yield f"the {row[2]} {row[3][:8]}... has been credited in the target"

    if source.execute("SELECT 1 FROM credit_archive WHERE state <> 3").fetchone():
        yield "an archive is unfinished: run guthaben maintain --archive-to its folder first"


def _any(cursor: Cursor, table: str) -> bool:
    return cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None


def _most(cursor: Cursor, table: str, column: str) -> int:
    return int(cursor.execute(f"SELECT COALESCE(MAX({column}), 0) FROM {table}").fetchone()[0])


def _meta(cursor: Cursor, name: str) -> str | None:
    row = cursor.execute("SELECT value FROM credit_meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _copy_table(source: Cursor, target: Cursor, table: Table, moved: _Offsets) -> int:
    if table.name in _PRIVATE:
        return 0
    insert = (
        f"INSERT INTO {table.name} ({', '.join(map(_quoted, table.columns))})"
        f" VALUES ({', '.join('?' * len(table.columns))})"
    )
    copied = 0
    for page in _pages(source, table):
        rows = list(_renumbered(page, table, moved))
        target.executemany(insert, rows)
        copied += len(rows)
    return copied


def _pages(source: Cursor, table: Table) -> Iterator[list[Any]]:
    """Read a table in the order of its key, a page at a time."""
    names, key = (", ".join(map(_quoted, some)) for some in (table.columns, table.key))
    places = [table.columns.index(name) for name in table.key]
    after: tuple[Any, ...] = ()
    while True:
        beyond = f" WHERE ({key}) > ({', '.join('?' * len(after))})" if after else ""
        page = source.execute(
            f"SELECT {names} FROM {table.name}{beyond} ORDER BY {key} LIMIT ?", (*after, PAGE)
        ).fetchall()
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = tuple(page[-1][place] for place in places)


def _quoted(column: str) -> str:
    return f'"{column}"' if column == "window" else column  # a word that PostgreSQL keeps


def _renumbered(rows: Iterable[Any], table: Table, moved: _Offsets) -> Iterator[tuple[Any, ...]]:
    changes: dict[int, int] = {}
    if "practice_no" in table.columns:
        changes[table.columns.index("practice_no")] = moved.practice_no
    if table.name in _NUMBERED:
        changes[table.columns.index(_NUMBERED[table.name])] = moved.of[table.name]
    for row in rows:
        values = list(row)
        for place, by in changes.items():
            if values[place]:  # practice 0 stands for none, or for all
                values[place] += by
        yield tuple(values)
