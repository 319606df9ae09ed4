"""Sharding with Citus: which table lies where, and the statements that bring it there.

Law: the plan is data and names every table. What belongs to a practice and grows with its calls is
spread by the practice's number and lies together; the registry of payments is spread by the
payment's id; the rest stays whole, with its unique keys, on the node that servers connect to. All
of it happens in one transaction, or nothing does; and from then on, what one transaction writes
here and on a node is committed on both or on none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from guthaben.errors import ConfigError
from guthaben.store import postgres_partitions, postgres_roles, postgres_together

PRACTICE: Final = "practice_no"
LOCAL: Final = ""
ANCHOR: Final = "credit_practice"
PLAN: Final[dict[str, str]] = {
    # What comes with calls: spread by the practice.
    ANCHOR: PRACTICE,
    "credit_grant": PRACTICE,
    "credit_call": PRACTICE,
    "credit_transfer": PRACTICE,
    "credit_archived_call": PRACTICE,
    "credit_key": PRACTICE,
    "credit_blocked_call": PRACTICE,
    "credit_cap": PRACTICE,
    "credit_cap_counter": PRACTICE,
    "credit_cycles_call": PRACTICE,
    "credit_cycles_step": PRACTICE,
    # What must be unique over all practices, without end.
    "credit_payment": "ref",
    # What must be unique over all practices and grows with purchases, not with calls.
    "credit_practice_name": LOCAL,
    "credit_event": LOCAL,
    "credit_note": LOCAL,
    "credit_inbox": LOCAL,
    "credit_dispute": LOCAL,
    "credit_payment_state": LOCAL,
    "credit_fraud_warning": LOCAL,
    "credit_case": LOCAL,
    "credit_refund": LOCAL,
    "credit_checkout": LOCAL,
    "credit_card_consent": LOCAL,
    "credit_license_order": LOCAL,
    "credit_subscription": LOCAL,
    "credit_subscription_seen": LOCAL,
    "credit_subscription_held": LOCAL,
    # Settings and people of a practice: small, and read with the above.
    "credit_topup_settings": LOCAL,
    "credit_topup_stop": LOCAL,
    "credit_provider_customer": LOCAL,
    "credit_consent": LOCAL,
    "credit_settings_audit": LOCAL,
    "credit_language": LOCAL,
    "credit_low_watch": LOCAL,
    "credit_contact": LOCAL,
    "credit_unsubscribed": LOCAL,
    "credit_endpoint": LOCAL,
    "credit_endpoint_secret": LOCAL,
    "credit_notice": LOCAL,
    "credit_delivery": LOCAL,
    "credit_api_key": LOCAL,
    # The installation's own.
    "credit_meta": LOCAL,
    "credit_migration": LOCAL,
    "credit_price_sheet": LOCAL,
    "credit_price_version": LOCAL,
    "credit_plan": LOCAL,
    "credit_lease": LOCAL,
    "credit_job": LOCAL,
    "credit_alarm": LOCAL,
    "credit_operator_note": LOCAL,
    "credit_archive": LOCAL,
    "credit_reconcile_run": LOCAL,
}
"""Table -> the column that it is spread by."""
BINDINGS: Final = "credit_reader"
"""Which login reads which practice: the one table that every node has a copy of."""

DROPPED: Final = {"credit_practice_practice_id_key": ANCHOR}
"""Unique keys that can't be spread, and their tables; `credit_practice_name` keeps this one."""
TWO_PHASE: Final = "credit_two_phase"

_INSTALLED: Final = "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
_AVAILABLE: Final = "SELECT 1 FROM pg_available_extensions WHERE name = 'citus'"
_TABLES: Final = f"""
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname LIKE 'credit\\_%%' AND c.relname <> '{TWO_PHASE}' ORDER BY 1"""
UNIQUE_KEYS: Final = """
    SELECT i.indexrelid::regclass::text, array_agg(a.attname ORDER BY a.attnum)
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
    WHERE i.indrelid = to_regclass(%s) AND (i.indisunique OR i.indisprimary)
    GROUP BY i.indexrelid ORDER BY 1"""
_CUT: Final = "SELECT partrelid::regclass::text FROM pg_partitioned_table ORDER BY 1"
_WRITING: Final = """
    SELECT t.tgrelid::regclass::text, t.tgname FROM pg_trigger t
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
    AND p.prosrc ~* '\\m(INSERT|UPDATE|DELETE|PERFORM)\\M' AND p.prosrc !~ 'RAISE EXCEPTION'
    ORDER BY 1, 2"""
_SPREAD: Final = "SELECT 1 FROM pg_dist_partition WHERE logicalrelid = to_regclass(%s)"
_KNOWS_NODES: Final = "SELECT to_regclass('pg_dist_partition') IS NOT NULL"
_UNSAFE: Final = "SET LOCAL citus.enable_unsafe_triggers TO on"
_ONE_BY_ONE: Final = "SET LOCAL citus.multi_shard_modify_mode TO 'sequential'"
_COORDINATOR: Final = "SELECT 1 FROM pg_dist_node WHERE groupid = 0"
_WORKERS: Final = "SELECT 1 FROM pg_dist_node WHERE shouldhaveshards AND isactive"
_NO_TRUNCATE: Final = """
    SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgtype & 32 <> 0"""

_DISCONNECT: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND application_name IN ('guthaben', 'guthaben reader')"""

# Citus commits one node's share before the coordinator's own, unless it knows of both. It sees what
# is written to a table of its own, not what is written to ours: so each of ours tells it.
_BOTH: Final = (
    f"CREATE TABLE IF NOT EXISTS {TWO_PHASE} (nothing BIGINT)",
    f"SELECT citus_add_local_table_to_metadata('{TWO_PHASE}')",
    f"""CREATE OR REPLACE FUNCTION {TWO_PHASE}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM {TWO_PHASE} WHERE nothing = 1; RETURN NULL; END $$""",
)


def tell_of(table: str) -> str:
    """Write the statement by which all changes of a whole table count as a node's share."""
    return (
        f"CREATE OR REPLACE TRIGGER {table}_two_phase AFTER INSERT OR UPDATE OR DELETE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {TWO_PHASE}()"
    )


def before() -> Iterator[str]:
    """Give what is to be run before the tables are spread, in order."""
    # Triggers of ours only refuse what must not change; they read no other row of any node.
    yield _UNSAFE
    yield _ONE_BY_ONE
    for key, table in DROPPED.items():
        yield f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {key}"
    yield f"CREATE INDEX IF NOT EXISTS credit_practice_by_name ON {ANCHOR} (practice_id)"


def placing(table: str) -> str:
    """Write the statement that spreads a table."""
    column = PLAN[table]
    beside = "none" if table == ANCHOR or column != PRACTICE else ANCHOR
    return f"SELECT create_distributed_table('{table}', '{column}', colocate_with => '{beside}')"


def obstacles(con: psycopg.Connection[Any]) -> list[str]:
    """Tell what of the tables, laid together, or of the cluster does not fit the plan."""
    there = {name for (name,) in con.execute(_TABLES)}
    found = [f"{table} has no place in the plan" for table in sorted(there - {*PLAN, BINDINGS})]
    for table, column in PLAN.items():
        if column == LOCAL or table not in there:
            continue
        for key, columns in con.execute(UNIQUE_KEYS, (table,)):
            if column not in columns and key not in DROPPED:
                found.append(f"the unique key {key} of {table} does not contain {column}")
    spread = {table for table, column in PLAN.items() if column != LOCAL}
    for (table,) in con.execute(_CUT):
        if table in spread:
            found.append(f"{table} is cut into parts, and Citus spreads no such table")
    for table, name in con.execute(_WRITING):
        if table in spread:
            found.append(f"the trigger {name} of {table} writes, and Citus allows none")
    return found


def _missing_nodes(con: psycopg.Connection[Any]) -> Iterator[str]:
    if con.execute(_COORDINATOR).fetchone() is None:
        yield "the coordinator does not know itself: SELECT citus_set_coordinator_host(NAME, PORT)"
    if con.execute(_WORKERS).fetchone() is None:
        yield "there is no node to hold shards: SELECT citus_add_node(NAME, PORT) for each"


def is_distributed(con: psycopg.Connection[Any]) -> bool:
    """Tell whether the tables are on the nodes of a cluster."""
    if con.execute(_KNOWS_NODES.encode()).fetchone() != (True,):
        return False
    return con.execute(_SPREAD, (ANCHOR,)).fetchone() is not None


def complete(con: psycopg.Connection[Any]) -> None:
    """Give tables that came later their place on a cluster; in the open transaction."""
    if not is_distributed(con):
        return
    for statement in (_UNSAFE, _ONE_BY_ONE):
        con.execute(statement.encode())
    there = {name for (name,) in con.execute(_TABLES)}
    for table, column in PLAN.items():
        if table not in there:
            continue
        if column == LOCAL:
            con.execute(tell_of(table).encode())
        elif con.execute(_SPREAD, (table,)).fetchone() is None:
            _spread_one(con, table)


def distribute(con: psycopg.Connection[Any]) -> bool:
    """Spread the tables, with what they hold; tell whether that was still to do. All or nothing.

    Servers must not be running. Raises `ConfigError` where Citus is not there, the schema does not
    fit or a row was lost: nothing is changed.
    """
    installed = con.execute(_INSTALLED).fetchone()
    if installed is None:
        is_there = con.execute(_AVAILABLE).fetchone() is not None
        how = (
            "CREATE EXTENSION citus in this database on every node"
            if is_there
            else "install Citus on every node, add it to shared_preload_libraries, restart, and"
            " CREATE EXTENSION citus in this database"
        )
        raise ConfigError(f"Citus is not installed in this database: nothing was changed. {how}.")
    if is_distributed(con):
        return False
    with con.transaction():
        _spread_all(con)
    # Whoever was connected knows the tables as they were; they find out when they connect again.
    con.execute(_DISCONNECT)
    return True


def _spread_all(con: psycopg.Connection[Any]) -> None:
    wrong = [*_missing_nodes(con)]
    if not wrong and postgres_partitions.is_cut(con):
        postgres_together.lay(con)
    wrong = wrong or obstacles(con)
    if wrong:
        raise ConfigError(f"The tables can't be spread, nothing was changed: {'; '.join(wrong)}.")
    for statement in before():
        con.execute(statement.encode())
    there = {name for (name,) in con.execute(_TABLES)}
    _spread_bindings(con, there)
    for table, column in PLAN.items():
        if column != LOCAL:
            _spread_one(con, table)
    for statement in _BOTH:
        con.execute(statement.encode())
    for table, column in PLAN.items():
        if column == LOCAL and table in there:
            con.execute(tell_of(table).encode())
    con.execute("SELECT create_distributed_function('hex(bytea)')")
    postgres_roles.ensure(con)


def _spread_bindings(con: psycopg.Connection[Any], there: set[str]) -> None:
    """Give every node the bindings of readers, and the function that asks for them."""
    if BINDINGS in there:
        con.execute(f"SELECT create_reference_table('{BINDINGS}')".encode())
        con.execute("SELECT create_distributed_function('credit_own_practice()')")


def _spread_one(con: psycopg.Connection[Any], table: str) -> None:
    """Spread a table; every row must have arrived, and none stays behind where it was."""
    was = postgres_together.count(con, table)
    # They would forbid to empty what was left behind.
    guards = con.execute(_NO_TRUNCATE, (table,)).fetchall()
    for name, _definition in guards:
        con.execute(f"DROP TRIGGER {name} ON {table}".encode())
    con.execute(placing(table).encode())
    now = postgres_together.count(con, table)
    if now != was:
        raise ConfigError(f"{was - now} rows of {table} were lost on the way: nothing was changed")
    if was:
        con.execute("SELECT truncate_local_data_after_distributing_table(%s)", (table,))
    for _name, definition in guards:
        con.execute(definition.encode())
