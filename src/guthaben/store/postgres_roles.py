"""Roles on PostgreSQL: one for servers, which can't rewrite history, and one to read with.

Law: a server that runs as `guthaben_app` can neither change nor delete a transfer, a key or a
registered payment, nor alter a table. Who reads as a member of `guthaben_reader` sees the rows of
the one practice that its login is bound to, and no reference of a payment provider.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from guthaben.store import postgres_partitions

APP, READER = "guthaben_app", "guthaben_reader"
APPEND_ONLY = ("credit_transfer", "credit_key", "credit_payment", "credit_migration",
               "credit_call_registry", "credit_archived_call")  # fmt: skip
"""Tables of which the servers' role may only add rows, or, of `credit_migration`, not even that."""
READABLE = {
    "credit_practice": (),
    "credit_grant": (),
    "credit_transfer": (),
    "credit_call": ("key", "body_hash", "user_id", "api_key_id"),
    "credit_archived_call": ("key", "body_hash"),
    "credit_event": ("payment_id", "session_id", "idempotency_key", "params", "topup_id"),
}
"""What a reader sees, and which columns not."""

_MAY_CREATE = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
_TABLES = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')"
    # Who goes through a table needs no right on its partitions, and gets none.
    " AND NOT c.relispartition AND c.relname LIKE 'credit\\_%' ORDER BY 1"
)
_COLUMNS = (
    "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    " AND table_name = %s ORDER BY ordinal_position"
)
_BINDING = (
    """CREATE TABLE IF NOT EXISTS credit_reader (
        role_name NAME PRIMARY KEY, practice_no BIGINT NOT NULL)""",
    # The second setting is for a cluster, where a node asks its own copy of the bindings.
    """CREATE OR REPLACE FUNCTION credit_own_practice() RETURNS BIGINT LANGUAGE sql STABLE
        SECURITY DEFINER SET search_path FROM CURRENT
        SET citus.allow_nested_distributed_execution = on
        AS $$ SELECT practice_no FROM credit_reader WHERE role_name = session_user $$""",
)


def ensure(con: psycopg.Connection[Any]) -> bool:
    """Create the roles and grant them what they may; tell whether this user is allowed to.

    Idempotent; in the open transaction.
    """
    if con.execute(_MAY_CREATE).fetchone() != (True,):
        return False
    for role in (APP, READER):
        # Roles belong to the whole server: another database may be creating them right now.
        con.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN;"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$".encode()
        )
    for statement in _BINDING:
        con.execute(statement.encode())
    (schema,) = con.execute("SELECT current_schema()").fetchone() or ("public",)
    _do(con, "GRANT USAGE ON SCHEMA {} TO {}, {}", schema, APP, READER)
    for (table,) in con.execute(_TABLES.encode()).fetchall():
        _grant_to_app(con, table)
        if table in READABLE:
            _grant_to_reader(con, table)
    _do(con, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {} TO {}", schema, APP)
    for signature in postgres_partitions.FOR_SERVERS if postgres_partitions.is_cut(con) else ():
        con.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {APP}".encode())
    return True


def bind_reader(con: psycopg.Connection[Any], login: str, practice_no: int) -> None:
    """Let an existing login read one practice, and nothing else of ours."""
    con.execute(
        "INSERT INTO credit_reader (role_name, practice_no) VALUES (%s, %s)"
        " ON CONFLICT (role_name) DO UPDATE SET practice_no = excluded.practice_no",
        (login, practice_no),
    )
    _do(con, "GRANT {} TO {}", READER, login)


def _grant_to_app(con: psycopg.Connection[Any], table: str) -> None:
    _do(con, "REVOKE ALL ON {} FROM {}", table, APP)
    if table in ("credit_migration", "credit_reader"):
        _do(con, "GRANT SELECT ON {} TO {}", table, APP)
    elif table in APPEND_ONLY:
        _do(con, "GRANT SELECT, INSERT ON {} TO {}", table, APP)
    else:
        _do(con, "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}", table, APP)


def _grant_to_reader(con: psycopg.Connection[Any], table: str) -> None:
    hidden = READABLE[table]
    names = [name for (name,) in con.execute(_COLUMNS, (table,)) if name not in hidden]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    con.execute(
        sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
            columns, sql.Identifier(table), sql.Identifier(READER)
        )
    )
    _do(con, "ALTER TABLE {} ENABLE ROW LEVEL SECURITY", table)
    for policy in ("credit_app", "credit_own"):
        _do(con, "DROP POLICY IF EXISTS {} ON {}", policy, table)
    _do(con, "CREATE POLICY credit_app ON {} TO {} USING (true) WITH CHECK (true)", table, APP)
    # A question is asked once per statement; but Citus takes none in a policy.
    own = "credit_own_practice()"
    own = own if postgres_partitions.is_together(con) else f"(SELECT {own})"
    _do(
        con,
        f"CREATE POLICY credit_own ON {{}} FOR SELECT TO {{}} USING (practice_no = {own})",
        table,
        READER,
    )


def _do(con: psycopg.Connection[Any], statement: str, *names: str) -> None:
    con.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
