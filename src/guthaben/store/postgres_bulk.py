"""Many rows in one statement: how PostgreSQL writes and reads what a batch needs.

Law: the store's own statement is rewritten, never replaced: the same columns, the same conditions,
the rows handed over as one JSON document. What cannot be rewritten runs row by row in a pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg

_INSERT = re.compile(
    r"INSERT INTO (?P<table>\w+) \((?P<columns>[^)]*)\) VALUES \((?P<values>[^()]*)\)"
    r"(?P<rest>|\s+ON CONFLICT .*)",
    re.DOTALL,
)
_UPDATE = re.compile(
    r"UPDATE (?P<table>\w+) SET (?P<changes>.*?) WHERE (?P<keys>[\w =?]+)$", re.DOTALL
)
_GIVEN = re.compile(r"(\w+) = \?")

Types = dict[tuple[str, str], str]
"""Type of a column, by table and column."""


class Bulk(NamedTuple):
    """A statement for many rows, and which columns its JSON objects have, in order."""

    sql: str
    columns: tuple[str, ...]
    is_bytes: tuple[bool, ...]


def column_types(con: psycopg.Connection[Any]) -> Types:
    """Read the types of all columns of our tables."""
    rows = con.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name LIKE 'credit\\_%'"
    )
    return {(table, column): kind for table, column, kind in rows}


class Rewriter:
    """Rewrites statements for the schema of one database."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self.bulk = lru_cache(maxsize=256)(self._bulk)

    def _bulk(self, sql: str) -> Bulk | None:
        insert = _INSERT.fullmatch(sql)
        if insert is not None:
            return self._insert(insert)
        update = _UPDATE.fullmatch(sql)
        return None if update is None else self._update(update)

    def _insert(self, found: re.Match[str]) -> Bulk | None:
        table = found["table"]
        columns = [name.strip() for name in found["columns"].split(",")]
        values = [value.strip() for value in found["values"].split(",")]
        given = tuple(name for name, value in zip(columns, values, strict=True) if value == "?")
        if "?" in found["rest"] or not self._knows(table, given):
            return None
        chosen = [
            f"r.{name}" if value == "?" else value
            for name, value in zip(columns, values, strict=True)
        ]
        return self._made(
            table,
            given,
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(chosen)}"
            f" FROM {self._record(table, given)}{found['rest']}",
        )

    def _update(self, found: re.Match[str]) -> Bulk | None:
        table = found["table"]
        changes, keys = _GIVEN.findall(found["changes"]), _GIVEN.findall(found["keys"])
        plain = found["changes"].count("=") == len(changes)
        if not plain or found["keys"].count("=") != len(keys):
            return None
        given = (*changes, *keys)
        if not self._knows(table, given):
            return None
        return self._made(
            table,
            given,
            f"UPDATE {table} AS t SET {', '.join(f'{name} = r.{name}' for name in changes)}"
            f" FROM {self._record(table, given)}"
            f" WHERE {' AND '.join(f't.{name} = r.{name}' for name in keys)}",
        )

    def _record(self, table: str, given: tuple[str, ...]) -> str:
        columns = ", ".join(f"{name} {self._types[table, name]}" for name in given)
        return f"json_to_recordset(%s) AS r({columns})"

    def _knows(self, table: str, columns: tuple[str, ...]) -> bool:
        """Whether these are plain names of columns that there are, each once."""
        return len(set(columns)) == len(columns) and all(
            (table, name) in self._types for name in columns
        )

    def _made(self, table: str, given: tuple[str, ...], sql: str) -> Bulk | None:
        if "%" in sql.replace("%s", ""):
            return None
        return Bulk(sql, given, tuple(self._types[table, name] == "bytea" for name in given))


def document(bulk: Bulk, rows: Sequence[Sequence[Any]]) -> str:
    """Write rows as a JSON array of objects."""
    names, is_bytes = bulk.columns, bulk.is_bytes
    if any(is_bytes):
        rows = [
            [
                "\\x" + value.hex() if binary and value is not None else value
                for value, binary in zip(row, is_bytes, strict=True)
            ]
            for row in rows
        ]
    return json.dumps(
        [dict(zip(names, map(_plain, row), strict=True)) for row in rows], ensure_ascii=False
    )


def _plain(value: Any) -> Any:
    return int(value) if value is True or value is False else value
