"""Laying together: the cut tables of `postgres_partitions` as plain ones again, as on SQLite.

Law: a cluster spreads plain tables only, so nothing is cut twice: each shard is one part, and keeps
a call's key unique by itself. Every row is moved and counted, in the caller's transaction; a count
that differs undoes all. Nothing here knows of nodes: the same tables work on one server.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from guthaben.errors import ConfigError
from guthaben.store import postgres_partitions, postgres_roles

_KEYS: Final = {
    "credit_call": (
        "ALTER TABLE credit_call ADD PRIMARY KEY (practice_no, call_no)",
        "CREATE UNIQUE INDEX credit_call_key ON credit_call (practice_no, operation, key)",
        """CREATE INDEX credit_call_due ON credit_call
            (practice_no, (expires_at_ms + grace_ms)) WHERE status = 1""",
    ),
    "credit_transfer": ("ALTER TABLE credit_transfer ADD PRIMARY KEY (practice_no, seq)",),
}
"""Tables that are cut, and the keys and indices they have in one piece."""
_ARCHIVED_KEY: Final = (
    "CREATE UNIQUE INDEX IF NOT EXISTS credit_archived_call_key"
    " ON credit_archived_call (practice_no, operation, key)"
)
_OF_PARTS: Final = (
    "DROP TABLE credit_call_registry",
    """DROP FUNCTION credit_register_calls(), credit_registry_stays(), credit_add_month(DATE),
        credit_dissolve_month(DATE, BIGINT), credit_missing_months(BIGINT, BIGINT, BIGINT),
        credit_month_of(BIGINT), credit_month_ms(DATE), credit_key_hash(BIGINT, TEXT)""",
)
"""What only cut tables need: the key of a call is unique in its own table now."""


def lay(con: psycopg.Connection[Any]) -> dict[str, int]:
    """Lay the cut tables together in the open transaction; tell how many rows each has.

    Servers must not be running: they would look for parts that are gone. Raises `ConfigError`.
    """
    moved = {table: _lay_one(con, table) for table in _KEYS}
    for statement in (*_OF_PARTS, _ARCHIVED_KEY):
        con.execute(statement.encode())
    postgres_partitions.forbid_changes(con)
    postgres_partitions.forbid_truncate(con, "credit_transfer")
    postgres_roles.ensure(con)
    return moved


def _lay_one(con: psycopg.Connection[Any], table: str) -> int:
    parts = f"{table}_in_parts"
    con.execute(f"ALTER TABLE {table} RENAME TO {parts}".encode())
    con.execute(f"ALTER INDEX IF EXISTS {table}_pkey RENAME TO {parts}_pkey".encode())
    # Whatever columns and checks it has by now; the keys come with the rows.
    con.execute(
        f"CREATE TABLE {table} (LIKE {parts} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)".encode()
    )
    con.execute(f"INSERT INTO {table} SELECT * FROM {parts}".encode())
    was, now = count(con, parts), count(con, table)
    if was != now:
        raise ConfigError(f"{was - now} rows of {table} were lost on the way: nothing was changed")
    con.execute(f"DROP TABLE {parts} CASCADE".encode())
    for statement in _KEYS[table]:
        con.execute(statement.encode())
    return now


def count(con: psycopg.Connection[Any], table: str) -> int:
    """Count the rows of a table."""
    (rows,) = con.execute(f"SELECT COUNT(*) FROM {table}".encode()).fetchone() or (0,)
    return int(rows)
