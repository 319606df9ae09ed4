"""Where a PostgreSQL database lives, so that one restored from a dump is noticed when it is opened.

Law: a dump is restored into new tables, usually of another database or server; whoever finds
itself elsewhere than where it last was carries the mark of `restored`. A copy of a server's files
is the same place: nobody can notice that.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from guthaben.store import restored
from guthaben.store.postgres import PostgresCursor

log = logging.getLogger("guthaben.store")

_HOME = """
    SELECT (SELECT value FROM credit_meta WHERE name = 'home'),
    COALESCE((SELECT system_identifier::text FROM pg_control_system()
        WHERE has_function_privilege('pg_control_system()', 'execute')), ''),
    (SELECT oid::text FROM pg_database WHERE datname = current_database()),
    'credit_meta'::regclass::oid::text, 'credit_practice'::regclass::oid::text"""
"""What was noted; then the server, if this user may know it, the database and two tables."""


def settle_in(con: psycopg.Connection[Any], now_s: int) -> None:
    """Compare where this database is with where it was, and mark it where that differs.

    In a transaction of its own, if there is anything to write.
    """
    row = con.execute(_HOME.encode()).fetchone()
    assert row is not None
    was, *home = row
    if restored.same_home(was, tuple(home)):
        return
    with con.transaction():
        moved = restored.settle_in(PostgresCursor(con), tuple(home), now_s)
    if moved:
        log.warning("this database comes from a backup: automatic charges are stopped")
