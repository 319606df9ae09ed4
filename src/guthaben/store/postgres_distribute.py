"""Sharding with Citus: which table lies where, and the statements that bring it there.

Law: the plan is data and names every table. What belongs to a practice and grows with its calls is
spread by the practice's number and lies together; the registry of payments is spread by the
payment's id; the rest stays whole, with its unique keys, on the node that servers connect to. All
of it happens in one transaction, or nothing does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from guthaben.errors import ConfigError

PRACTICE: Final = "practice_no"
LOCAL: Final = ""
ANCHOR: Final = "credit_practice"
PLAN: Final[dict[str, str]] = {
    # What comes with calls: spread by the practice.
    ANCHOR: PRACTICE,
    "credit_grant": PRACTICE,
    "credit_call": PRACTICE,
    "credit_transfer": PRACTICE,
    "credit_call_registry": PRACTICE,
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
    "credit_reader": LOCAL,
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

DROPPED: Final = {"credit_practice_practice_id_key": ANCHOR}
"""Unique keys that can't be spread, and their tables; `credit_practice_name` keeps this one."""

_INSTALLED: Final = "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
_AVAILABLE: Final = "SELECT 1 FROM pg_available_extensions WHERE name = 'citus'"
_TABLES: Final = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname LIKE 'credit\\_%%' ORDER BY 1"""
UNIQUE_KEYS: Final = """
    SELECT i.indexrelid::regclass::text, array_agg(a.attname ORDER BY a.attnum)
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
    WHERE i.indrelid = to_regclass(%s) AND (i.indisunique OR i.indisprimary)
    GROUP BY i.indexrelid ORDER BY 1"""
_CUT: Final = """
    SELECT p.partrelid::regclass::text FROM pg_partitioned_table p
    WHERE p.partstrat = 'h' OR EXISTS (
        SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = p.partrelid AND c.relkind = 'p')
    ORDER BY 1"""
_WRITING: Final = """
    SELECT t.tgrelid::regclass::text, t.tgname FROM pg_trigger t
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
    AND p.prosrc ~* '\\m(INSERT|UPDATE|DELETE|PERFORM)\\M' AND p.prosrc !~ 'RAISE EXCEPTION'
    ORDER BY 1, 2"""
_SPREAD: Final = "SELECT 1 FROM pg_dist_partition WHERE logicalrelid = to_regclass(%s)"


def statements() -> Iterator[str]:
    """Give what is to be run, in order."""
    # Ours only refuse what must not change; they read no other row of any node.
    yield "SET LOCAL citus.enable_unsafe_triggers TO on"
    for key, table in DROPPED.items():
        yield f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {key}"
    for table, column in PLAN.items():
        if column == LOCAL:
            continue
        beside = "none" if table == ANCHOR or column != PRACTICE else ANCHOR
        yield (
            f"SELECT create_distributed_table('{table}', '{column}', colocate_with => '{beside}')"
        )


def obstacles(con: psycopg.Connection[Any]) -> list[str]:
    """Tell what of the schema at hand does not fit the plan, or is nothing that Citus takes."""
    there = {name for (name,) in con.execute(_TABLES)}
    found = [f"{table} has no place in the plan" for table in sorted(there - set(PLAN))]
    for table, column in PLAN.items():
        if column == LOCAL or table not in there:
            continue
        for key, columns in con.execute(UNIQUE_KEYS, (table,)):
            if column not in columns and key not in DROPPED:
                found.append(f"the unique key {key} of {table} does not contain {column}")
    return [*found, *_not_taken(con)]


def _not_taken(con: psycopg.Connection[Any]) -> list[str]:
    """Tell what of the tables to be spread Citus would refuse, by its documentation."""
    spread = {table for table, column in PLAN.items() if column != LOCAL}
    cut = [table for (table,) in con.execute(_CUT) if table in spread]
    writing = [(table, name) for table, name in con.execute(_WRITING) if table in spread]
    return [
        *(f"{table} is cut by hash or twice, and Citus spreads no such table" for table in cut),
        *(
            f"the trigger {name} of {table} writes, and Citus allows none"
            for table, name in writing
        ),
    ]


def distribute(con: psycopg.Connection[Any]) -> bool:
    """Spread the tables; tell whether that was still to do. All or nothing.

    Raises `ConfigError` where Citus is not there or the schema does not fit: nothing is changed.
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
    if con.execute(_SPREAD, (ANCHOR,)).fetchone() is not None:
        return False
    wrong = obstacles(con)
    if wrong:
        raise ConfigError(f"The tables can't be spread, nothing was changed: {'; '.join(wrong)}.")
    with con.transaction():
        for statement in statements():
            con.execute(statement.encode())
    return True
