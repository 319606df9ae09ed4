"""Growth on PostgreSQL: open calls apart, ended ones in months, transfers and keys in eight shares.

Law: a key makes one call for ever. No key can be unique over months, so the registry says which
call a key made, and when; the database itself fills it with every insert. Ending a call moves its
row to its month, where it is written once. A month that is missing does no harm: its calls lie in
the default partition until it is made. What is asked otherwise than on SQLite is `INSTEAD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import psycopg

from guthaben.store import calls
from guthaben.store.session import Cursor

MIGRATION: Final = 11
"""The migration with which the tables are cut."""
SHARES: Final = 8
AHEAD: Final = 3
"""So many months beyond this one have their partition."""

CALL: Final = (
    "practice_no", "call_no", "body_hash", "created_at_ms", "expires_at_ms", "reserved_nano_usd",
    "cost_nano_usd", "period_start_s", "grace_ms", "ended_at_s", "first_seq", "input_tokens",
    "output_tokens", "total_tokens", "audio_us", "uncovered_nano_usd", "legacy_id", "operation",
    "status", "ended_by", "on_expiry", "on_exception", "overage_policy", "key", "license", "slices",
    "model", "operation_type", "price_version", "user_id", "device_id", "api_key_id", "reference",
    "tags",
)  # fmt: skip
TRANSFER: Final = (
    "practice_no", "seq", "amount_nano_usd", "grant_no", "call_no", "event_no", "reverses_seq",
    "at_s", "source", "target", "code", "hash",
)  # fmt: skip
_SMALL: Final = {"operation", "status", "ended_by", "on_expiry", "on_exception", "overage_policy",
                 "source", "target", "code"}  # fmt: skip
_TEXTS: Final = ("key", "license", "slices", "model", "operation_type", "price_version", "user_id",
                 "device_id", "api_key_id", "reference", "tags")  # fmt: skip
_NULLABLE: Final = (*_TEXTS[3:], "legacy_id")
_LEAST: Final = {
    **dict.fromkeys(("reserved_nano_usd", "cost_nano_usd", "input_tokens", "output_tokens",
                     "total_tokens", "audio_us", "uncovered_nano_usd"), 0),
    "amount_nano_usd": 1, "seq": 1,
}  # fmt: skip
_CHECKS: Final = {
    "operation": "operation IN (1, 2)",
    "key": "length(key) BETWEEN 1 AND 255",
    "hash": "length(hash) = 32",
}


def _column(name: str) -> str:
    """Describe a column: the small codes small, and the widest first, so that nothing is padded."""
    kind = "TEXT" if name in _TEXTS else "SMALLINT" if name in _SMALL else "BIGINT"
    words = [name, "BYTEA" if name == "hash" else kind]
    if name not in _NULLABLE:
        words.append("NOT NULL")
    if name == "uncovered_nano_usd":
        words.append("DEFAULT 0")
    if name in _LEAST:
        words.append(f"CHECK ({name} >= {_LEAST[name]})")
    if name in _CHECKS:
        words.append(f"CHECK ({_CHECKS[name]})")
    return " ".join(words)


def columns(names: tuple[str, ...]) -> str:
    """Describe the columns of calls or transfers."""
    return ", ".join(map(_column, names))


NO_TRUNCATE: Final = """
    CREATE OR REPLACE FUNCTION credit_no_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'transfers and keys are append-only: none is ever deleted'; END $$"""
_FUNCTIONS: Final = (
    # Not declared immutable, so that the planner writes its body into the statement.
    """CREATE OR REPLACE FUNCTION credit_key_hash(BIGINT, TEXT) RETURNS UUID LANGUAGE sql STABLE
        AS $$ SELECT substring(encode(sha256(convert_to($1 || ':' || $2, 'UTF8')), 'hex')
            FOR 32)::uuid $$""",
    """CREATE OR REPLACE FUNCTION credit_register_calls() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO credit_call_registry (practice_no, call_no, created_at_ms, key_hash)
            SELECT practice_no, call_no, created_at_ms, credit_key_hash(operation, key) FROM fresh;
            RETURN NULL;
        END $$""",
    """CREATE OR REPLACE FUNCTION credit_registry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the registry of call keys is kept for ever'; END $$""",
    """CREATE OR REPLACE FUNCTION credit_month_of(BIGINT) RETURNS DATE LANGUAGE sql STABLE
        AS $$ SELECT date_trunc('month', to_timestamp($1 / 1000) AT TIME ZONE 'UTC')::date $$""",
    """CREATE OR REPLACE FUNCTION credit_month_ms(DATE) RETURNS BIGINT LANGUAGE sql IMMUTABLE
        AS $$ SELECT extract(epoch FROM $1)::bigint * 1000 $$""",
    # What only the owner may do and servers need: each makes or joins tables, none loses a row.
    """CREATE OR REPLACE FUNCTION credit_add_month(month DATE) RETURNS BIGINT LANGUAGE plpgsql
        SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '3s' AS $$
        DECLARE
            first DATE := date_trunc('month', month);
            name TEXT := 'credit_call_' || to_char(first, 'YYYY_MM');
            begin_ms BIGINT := credit_month_ms(first);
            end_ms BIGINT := credit_month_ms((first + INTERVAL '1 month')::date);
            moved BIGINT := 0;
        BEGIN
            PERFORM pg_advisory_xact_lock(1735750761);
            IF to_regclass(name) IS NOT NULL THEN RETURN -1; END IF;
            EXECUTE format('CREATE TABLE %I (LIKE credit_call INCLUDING ALL,'
                ' PRIMARY KEY (practice_no, call_no))', name);
            IF EXISTS (SELECT 1 FROM credit_call_default
                WHERE created_at_ms >= begin_ms AND created_at_ms < end_ms) THEN
                LOCK TABLE credit_call_ended IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('WITH gone AS (DELETE FROM credit_call_default WHERE'
                    ' created_at_ms >= $1 AND created_at_ms < $2 RETURNING *)'
                    ' INSERT INTO %I SELECT * FROM gone', name) USING begin_ms, end_ms;
                GET DIAGNOSTICS moved = ROW_COUNT;
            END IF;
            EXECUTE format('ALTER TABLE credit_call_ended ATTACH PARTITION %I'
                ' FOR VALUES FROM (%s) TO (%s)', name, begin_ms, end_ms);
            RETURN moved;
        END $$""",
    """CREATE OR REPLACE FUNCTION credit_dissolve_month(month DATE, now_ms BIGINT)
        RETURNS BIGINT LANGUAGE plpgsql
        SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '3s'
        SET enable_seqscan = off AS $$
        DECLARE
            first DATE := date_trunc('month', month);
            name TEXT := 'credit_call_' || to_char(first, 'YYYY_MM');
            left_over BIGINT;
        BEGIN
            PERFORM pg_advisory_xact_lock(1735750761);
            IF to_regclass(name) IS NULL
                OR credit_month_ms((first + INTERVAL '1 month')::date)
                    > now_ms - 35 * 86400000::bigint
                OR NOT EXISTS (SELECT 1 FROM credit_archive a
                    WHERE a.month = to_char(first, 'YYYY-MM') AND a.state = 3)
                OR EXISTS (SELECT 1 FROM credit_archive a
                    WHERE a.month = to_char(first, 'YYYY-MM') AND a.state <> 3)
            THEN RETURN -1; END IF;
            EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %I LIMIT 10001) s', name)
                INTO left_over;
            IF left_over > 10000 THEN RETURN -1; END IF;
            LOCK TABLE credit_call_ended IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('ALTER TABLE credit_call_ended DETACH PARTITION %I', name);
            EXECUTE format('INSERT INTO credit_call_default SELECT * FROM %I', name);
            GET DIAGNOSTICS left_over = ROW_COUNT;
            EXECUTE format('DROP TABLE %I', name);
            RETURN left_over;
        END $$""",
)
# Months that somebody filled from outside get their own if they are worth it: a client that
# tells of usage in a thousand different months must not make a thousand tables.
_MISSING: Final = """CREATE OR REPLACE FUNCTION
    credit_missing_months(now_ms BIGINT, ahead BIGINT, worth BIGINT)
    RETURNS SETOF DATE LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT first::date FROM generate_series(credit_month_of(now_ms)::timestamp,
        credit_month_of(now_ms) + ahead * INTERVAL '1 month', INTERVAL '1 month') first
    WHERE to_regclass('credit_call_' || to_char(first, 'YYYY_MM')) IS NULL
    UNION
    SELECT credit_month_of(created_at_ms) FROM credit_call_default GROUP BY 1
    HAVING (count(*) >= worth OR credit_month_of(min(created_at_ms))
            >= credit_month_of(now_ms - 32 * 86400000::bigint)
        AND min(created_at_ms) <= now_ms)
    AND NOT EXISTS (SELECT 1 FROM credit_archive a
        WHERE a.month = to_char(credit_month_of(min(created_at_ms)), 'YYYY-MM'))
    ORDER BY 1 $$"""
FOR_SERVERS: Final = (
    "credit_add_month(DATE)",
    "credit_missing_months(BIGINT, BIGINT, BIGINT)",
    "credit_dissolve_month(DATE, BIGINT)",
)
"""Functions that run with their owner's rights: for members of the servers' role, nobody else."""


def cut(con: psycopg.Connection[Any], now_s: int) -> None:
    """Cut the plain tables of the migrations into partitions, with the rows that they hold."""
    for statement in (NO_TRUNCATE, *_FUNCTIONS):
        con.execute(statement.encode())
    _make_registry(con)
    _cut_calls(con, now_s)
    _cut_transfers(con)
    # The registry keeps it; and a row costs less without an index of its own.
    con.execute("DROP INDEX credit_archived_call_key")
    con.execute(
        "ALTER TABLE credit_archived_call ALTER archive_no TYPE INTEGER,"
        " ALTER operation TYPE SMALLINT, ALTER status TYPE SMALLINT"
    )
    forbid_truncate(con, "credit_archived_call")
    for signature in FOR_SERVERS:
        con.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC".encode())


def _make_registry(con: psycopg.Connection[Any]) -> None:
    con.execute(
        "CREATE TABLE credit_call_registry (practice_no BIGINT NOT NULL, call_no BIGINT NOT NULL,"
        " created_at_ms BIGINT NOT NULL, key_hash UUID NOT NULL,"
        " PRIMARY KEY (practice_no, key_hash)) PARTITION BY HASH (practice_no)"
    )
    _make_shares(con, "credit_call_registry")
    con.execute(
        "CREATE TRIGGER credit_call_registry_stays BEFORE UPDATE OR DELETE ON credit_call_registry"
        " FOR EACH ROW EXECUTE FUNCTION credit_registry_stays()"
    )


def _make_shares(con: psycopg.Connection[Any], table: str) -> None:
    for share in range(SHARES):
        con.execute(
            f"CREATE TABLE {table}_{share} PARTITION OF {table}"
            f" FOR VALUES WITH (MODULUS {SHARES}, REMAINDER {share})".encode()
        )
        forbid_truncate(con, f"{table}_{share}")


def forbid_truncate(con: psycopg.Connection[Any], table: str) -> None:
    """Forbid it for one table: what is said of a whole does not hold for its parts."""
    con.execute(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION credit_no_truncate()".encode()
    )


def _cut_calls(con: psycopg.Connection[Any], now_s: int) -> None:
    plain = put_aside(con, "credit_call", CALL)
    con.execute("DROP INDEX credit_call_key, credit_call_due")
    con.execute(f"CREATE TABLE credit_call ({columns(CALL)}) PARTITION BY LIST (status)".encode())
    # Rows come and go here all the time: what is dead must be vacuumed early.
    con.execute(
        "CREATE TABLE credit_call_open PARTITION OF credit_call"
        " (PRIMARY KEY (practice_no, call_no)) FOR VALUES IN (1)"
        " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
    )
    con.execute(
        "CREATE INDEX credit_call_due ON credit_call_open (practice_no, (expires_at_ms + grace_ms))"
        " WHERE status = 1"
    )
    con.execute(
        "CREATE TABLE credit_call_ended PARTITION OF credit_call"
        " FOR VALUES IN (2, 3, 4, 5) PARTITION BY RANGE (created_at_ms)"
    )
    con.execute(
        "CREATE TABLE credit_call_default PARTITION OF credit_call_ended"
        " (PRIMARY KEY (practice_no, call_no)) DEFAULT"
    )
    con.execute(
        "CREATE TRIGGER credit_call_registered AFTER INSERT ON credit_call"
        " REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT"
        " EXECUTE FUNCTION credit_register_calls()"
    )
    con.execute(_MISSING.encode())
    months = con.execute(
        f"SELECT DISTINCT credit_month_of(created_at_ms) FROM {plain} ORDER BY 1".encode()
    ).fetchall()
    for (month,) in months:
        con.execute("SELECT credit_add_month(%s)", (month,))
    add_months(con, now_s * 1000)
    bring_back(con, plain, "credit_call", CALL)


def _cut_transfers(con: psycopg.Connection[Any]) -> None:
    plain = put_aside(con, "credit_transfer", TRANSFER)
    con.execute(
        f"CREATE TABLE credit_transfer ({columns(TRANSFER)}, CHECK (source <> target),"
        " PRIMARY KEY (practice_no, seq)) PARTITION BY HASH (practice_no)".encode()
    )
    _make_shares(con, "credit_transfer")
    forbid_changes(con)
    bring_back(con, plain, "credit_transfer", TRANSFER)


def forbid_changes(con: psycopg.Connection[Any]) -> None:
    """Forbid to change or delete a transfer; the functions are those of the first migration."""
    for name in ("update", "delete"):
        trigger = f"credit_transfer_no_{name}"
        con.execute(
            f"CREATE TRIGGER {trigger} BEFORE {name} ON credit_transfer"
            f" FOR EACH ROW EXECUTE FUNCTION {trigger}()".encode()
        )


def put_aside(con: psycopg.Connection[Any], table: str, columns: tuple[str, ...]) -> str:
    """Rename a plain table; refuse one with a column that we would lose."""
    rows = con.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = %s",
        (table,),
    ).fetchall()
    if {name for (name,) in rows} != set(columns):
        raise ValueError(f"{table} has other columns than {MIGRATION} knows: they would be lost")
    plain = f"{table}_plain"
    con.execute(f"ALTER TABLE {table} RENAME TO {plain}".encode())
    con.execute(f"ALTER INDEX {table}_pkey RENAME TO {plain}_pkey".encode())
    return plain


def bring_back(con: psycopg.Connection[Any], old: str, new: str, columns: Sequence[str]) -> None:
    """Move all rows into the new table and drop the old one."""
    names = ", ".join(columns)
    con.execute(f"INSERT INTO {new} ({names}) SELECT {names} FROM {old}".encode())
    con.execute(f"DROP TABLE {old}".encode())


IS_CUT: Final = "SELECT to_regclass('credit_call_registry') IS NOT NULL"


def is_cut(con: psycopg.Connection[Any]) -> bool:
    """Tell whether the tables are cut into parts by now."""
    return con.execute(IS_CUT.encode()).fetchone() == (True,)


def is_together(con: psycopg.Connection[Any]) -> bool:
    """Tell whether the tables were laid together again, to be spread over a cluster."""
    there = con.execute("SELECT to_regclass('credit_archived_call')").fetchone() != (None,)
    return there and not is_cut(con)


# ---------------------------------------------------------------- months


_LAST_DAY: Final = 2_900_000  # in the year 9909
_MOST_MONTHS: Final = 240
"""Nobody has a longer history; what lies outside goes to the default partition."""
REGISTER_ARCHIVED: Final = (
    "INSERT INTO credit_call_registry (practice_no, call_no, created_at_ms, key_hash)"
    " SELECT practice_no, call_no, created_at_ms, credit_key_hash(operation, key)"
    " FROM credit_archived_call ON CONFLICT DO NOTHING"
)


def months(source: Cursor) -> list[tuple[str]]:
    """Name the months of the ended calls of a database, at most the newest of twenty years."""
    rows = source.execute(
        "SELECT created_at_ms / 86400000, COUNT(*) FROM credit_call WHERE status <> 1"
        " GROUP BY 1 ORDER BY 1"
    )
    days = [date(1970, 1, 1) + timedelta(days=day) for day, _calls in rows if day < _LAST_DAY]
    return [(month,) for month in sorted({f"{day:%Y-%m}-01" for day in days})[-_MOST_MONTHS:]]


def add_months(con: psycopg.Connection[Any], now_ms: int) -> dict[str, int]:
    """Make the partitions that are missing; tell their months, and how many calls moved there."""
    missing = con.execute(
        "SELECT m FROM credit_missing_months(%s, %s, 10000) AS m", (now_ms, AHEAD)
    ).fetchall()
    made = {}
    for (month,) in missing:
        found = con.execute("SELECT credit_add_month(%s)", (month,)).fetchone()
        if found is not None and found[0] >= 0:
            made[f"{month:%Y-%m}"] = found[0]
    return made


def dissolve_months(con: psycopg.Connection[Any], now_ms: int) -> dict[str, int]:
    """Drop the partitions whose calls are archived; the few that had to stay move to the default.

    Tells the months, and how many calls stayed. It stands in the gate's way for 5 s at most.
    """
    archived = con.execute(
        "SELECT DISTINCT month FROM credit_archive WHERE to_regclass('credit_call_'"
        " || replace(month, '-', '_')) IS NOT NULL ORDER BY 1"
    ).fetchall()
    gone = {}
    for (month,) in archived:
        # What has left must be gone from the index too; who is not the owner leaves that to
        # autovacuum.
        con.execute(f"VACUUM credit_call_{month.replace('-', '_')}".encode())
        con.execute("SET statement_timeout = '5s'")
        try:
            found = con.execute(
                "SELECT credit_dissolve_month(to_date(%s, 'YYYY-MM'), %s)", (month, now_ms)
            ).fetchone()
        finally:
            con.execute("RESET statement_timeout")
        if found is not None and found[0] >= 0:
            gone[month] = found[0]
    return gone


# ---------------------------------------------------------------- statements

_SELECTED = ", ".join(f"c.{name}" for name in calls.COLUMNS)
_OF_KEY = (
    "credit_call_registry r JOIN credit_call c ON c.practice_no = r.practice_no"
    " AND c.call_no = r.call_no AND c.created_at_ms = r.created_at_ms"
)
INSTEAD: Final = {
    calls.SELECT_NO_BY_KEY: (
        "SELECT call_no FROM credit_call_registry WHERE practice_no = ?"
        " AND key_hash = credit_key_hash(?, ?)"
    ),
    calls.SELECT_BY_KEY: (
        f"SELECT {_SELECTED} FROM {_OF_KEY}"
        " WHERE r.practice_no = ? AND r.key_hash = credit_key_hash(?, ?)"
    ),
    calls.SELECT_ARCHIVED_BY_KEY: (
        f"SELECT {', '.join(f'a.{name}' for name in calls.ARCHIVED)} FROM credit_call_registry r"
        " JOIN credit_archived_call a ON a.practice_no = r.practice_no AND a.call_no = r.call_no"
        " WHERE r.practice_no = ? AND r.key_hash = credit_key_hash(?, ?)"
    ),
}
"""Statements of the store that would look for a key in every month."""
