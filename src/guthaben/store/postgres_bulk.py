"""Many rows in one statement: how PostgreSQL writes and reads what a batch needs.

Law: the store's own statement is rewritten, never replaced: the same columns, the same conditions,
the rows handed over column by column, as arrays. What cannot be rewritten goes row by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg

INSERT = re.compile(
    r"INSERT INTO (?P<table>\w+) \((?P<columns>[^)]*)\) VALUES \((?P<values>[^()]*)\)"
    r"(?P<rest>|\s+ON CONFLICT .*)",
    re.DOTALL,
)
_UPDATE = re.compile(
    r"UPDATE (?P<table>\w+) SET (?P<changes>.*?) WHERE (?P<keys>[\w =?]+?)"
    r"(?P<part> AND status < 2|)$",
    re.DOTALL,
)
_IN_PARTS = ("credit_call", "credit_transfer")
"""Tables that are changed in bulk only within one part, which the statement names."""
_GIVEN = re.compile(r"(\w+) = \?")

Types = dict[tuple[str, str], str]
"""Type of a column, by table and column."""


class Bulk(NamedTuple):
    """A statement for many rows, and which columns its arrays are, in order."""

    sql: str
    columns: tuple[str, ...]
    table: str
    is_planned_anew: bool = False
    """Each time, because its table is nearly empty now and large in a minute, or the reverse."""


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
        insert = INSERT.fullmatch(sql)
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
        return Bulk(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(chosen)}"
            f" FROM {self._record(table, given)}{found['rest']}",
            given,
            table,
        )

    def _update(self, found: re.Match[str]) -> Bulk | None:
        table = found["table"]
        changes, keys = _GIVEN.findall(found["changes"]), _GIVEN.findall(found["keys"])
        plain = found["changes"].count("=") == len(changes)
        if not plain or found["keys"].count("=") != len(keys):
            return None
        given = (*changes, *keys)
        if not self._knows(table, given) or (table in _IN_PARTS and not found["part"]):
            return None
        part = found["part"].replace(" AND ", " AND t.")
        return Bulk(
            f"UPDATE {table} AS t SET {', '.join(f'{name} = r.{name}' for name in changes)}"
            f" FROM {self._record(table, given)}"
            f" WHERE {' AND '.join(f't.{name} = r.{name}' for name in keys)}{part}",
            given,
            table,
            table in _IN_PARTS,
        )

    def _record(self, table: str, given: tuple[str, ...]) -> str:
        types = [self._types[table, name] for name in given]
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, start=1))
        return f"unnest({arrays}) AS r({', '.join(given)})"

    def _knows(self, table: str, columns: tuple[str, ...]) -> bool:
        """Whether these are plain names of columns that there are, each once."""
        return len(set(columns)) == len(columns) and all(
            (table, name) in self._types for name in columns
        )


def columns_of(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Turn rows into columns."""
    return [list(column) for column in zip(*rows, strict=True)]
