"""A real cluster for tests: databases on every node, spread by the command itself.

`GUTHABEN_TEST_CITUS` names a database of the coordinator in which Citus is installed and every node
is added; its user must be a superuser whom all nodes trust alike. Nobody starts a cluster here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

NAMED = "GUTHABEN_TEST_CITUS"
SHARDS = 4
WHY_NOT = f"needs a Citus cluster: {NAMED} names a database of its coordinator"
_NODES = (
    "SELECT nodename, nodeport FROM pg_dist_node WHERE isactive AND noderole = 'primary'"
    " ORDER BY groupid"
)
_SHARDS_OF_A_NODE = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    " AND relname ~ '^credit_[a-z_]+_[0-9]+$' ORDER BY 1"
)
NAME: str | None = os.environ.get(NAMED)
"""As it was when the tests began: each of them has a clean environment."""


def coordinator() -> str:
    """Give the URL of the coordinator's named database, or skip aloud."""
    if not NAME:
        pytest.skip(WHY_NOT)
    return NAME


@cache
def nodes() -> tuple[str, ...]:
    """Give the URLs of all nodes, the coordinator first."""
    with psycopg.connect(coordinator(), autocommit=True) as con:
        found = con.execute(_NODES).fetchall()
    user = urlsplit(coordinator()).username or "postgres"
    return tuple(f"postgresql://{user}@{host}:{port}/postgres" for host, port in found)


def of_database(url: str, name: str) -> str:
    """Name another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def create(name: str, *, ports: Sequence[int] = ()) -> str:
    """Create a database on every node, with Citus and with the nodes in it; give its URL.

    With `ports` the coordinator reaches the others through these ports of this machine.
    """
    for node in nodes():
        with psycopg.connect(of_database(node, "postgres"), autocommit=True) as con:
            con.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            con.execute(f"CREATE DATABASE {name}".encode())
            con.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
            con.execute(f"ALTER DATABASE {name} SET citus.shard_count = {SHARDS}".encode())
        with psycopg.connect(of_database(node, name), autocommit=True) as con:
            con.execute("CREATE EXTENSION citus")
    url = of_database(nodes()[0], name)
    with psycopg.connect(url, autocommit=True) as con:
        first, *others = (urlsplit(node) for node in nodes())
        con.execute("SELECT citus_set_coordinator_host(%s, %s)", (first.hostname, first.port))
        for place, other in enumerate(others):
            where = ("127.0.0.1", ports[place]) if ports else (other.hostname, other.port)
            con.execute("SELECT citus_add_node(%s, %s)", where)
    return url


def drop(name: str) -> None:
    """Drop a database on every node."""
    for node in nodes():
        with psycopg.connect(of_database(node, "postgres"), autocommit=True) as con:
            con.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@cache
def _emptier(url: str) -> psycopg.Connection[tuple[str, ...]]:
    con = psycopg.connect(url, autocommit=True)
    con.execute("SET citus.enable_ddl_propagation = off")
    con.execute("SET citus.enable_manual_changes_to_shards = on")
    con.execute("SET citus.override_table_visibility = off")
    return con


@cache
def _emptying(url: str) -> bytes:
    shards = [name for (name,) in _emptier(url).execute(_SHARDS_OF_A_NODE.encode())]
    body = "\n".join(
        f"IF EXISTS (SELECT 1 FROM {shard}) THEN DELETE FROM {shard}; END IF;" for shard in shards
    )
    # What is append-only says no else.
    return f"DO $$ BEGIN SET LOCAL session_replication_role = replica;\n{body}\nEND $$".encode()


def empty_shards(name: str) -> None:
    """Delete all rows of all shards of a database, behind everybody's back."""
    for node in nodes()[1:]:
        url = of_database(node, name)
        _emptier(url).execute(_emptying(url))
