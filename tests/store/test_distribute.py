"""The plan for Citus, held against the catalogue of a real PostgreSQL; no Citus was at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from guthaben.errors import ConfigError
from guthaben.store import postgres_distribute as plan
from guthaben.store.postgres import connect
from tests import postgres


@pytest.fixture
def con() -> Iterator[psycopg.Connection[Any]]:
    with connect(postgres.fresh()) as opened:
        yield opened


def spread() -> set[str]:
    return {table for table, column in plan.PLAN.items() if column != plan.LOCAL}


def test_every_table_is_in_the_plan_and_every_key_fits(con: psycopg.Connection[Any]) -> None:
    assert [one for one in plan.obstacles(con) if "Citus" not in one] == []
    there = {name for (name,) in con.execute(plan._TABLES)}
    assert set(plan.PLAN) - there <= {"credit_reader"}, "the plan names tables that are not there"


def test_an_obstacle_is_found(con: psycopg.Connection[Any]) -> None:
    with con.transaction(force_rollback=True):
        con.execute("CREATE TABLE credit_new (practice_no BIGINT PRIMARY KEY)")
        con.execute("CREATE UNIQUE INDEX credit_wrong ON credit_grant (grant_no)")
        assert [one for one in plan.obstacles(con) if "Citus" not in one] == [
            "credit_new has no place in the plan",
            "the unique key credit_wrong of credit_grant does not contain practice_no",
        ]


def test_what_citus_would_refuse_is_said_before_anything_is_changed(
    con: psycopg.Connection[Any],
) -> None:
    """Calls, transfers and keys lie in parts (decision 411); nobody lays them together yet."""
    told = [one for one in plan.obstacles(con) if "Citus" in one]
    assert [one.partition(" is cut")[0] for one in told if " is cut" in one] == [
        "credit_call",
        "credit_call_registry",
        "credit_transfer",
    ]
    assert [one for one in told if " writes" in one], "the registry is filled by a trigger"


def test_whole_tables_with_triggers_that_refuse_are_no_obstacle(
    con: psycopg.Connection[Any],
) -> None:
    with con.transaction(force_rollback=True):
        con.execute("DROP TABLE credit_call, credit_transfer, credit_call_registry CASCADE")
        assert plan.obstacles(con) == []


def test_what_is_spread_has_no_foreign_keys_and_wide_identities(
    con: psycopg.Connection[Any],
) -> None:
    tables = sorted(spread())
    foreign = con.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f'"
        " AND (conrelid::regclass::text = ANY(%s) OR confrelid::regclass::text = ANY(%s))",
        (tables, tables),
    ).fetchall()
    assert foreign == []
    identities = con.execute(
        "SELECT attrelid::regclass::text, atttypid::regtype::text FROM pg_attribute"
        " WHERE attidentity <> '' AND attrelid::regclass::text = ANY(%s)",
        (tables,),
    ).fetchall()
    assert identities == [("credit_practice", "bigint")]


def test_what_is_spread_by_practice_is_named_by_it_in_its_key(con: psycopg.Connection[Any]) -> None:
    for table in spread():
        keys = dict(con.execute(plan.UNIQUE_KEYS, (table,)).fetchall())
        # Calls lie in parts that have keys of their own; their parent has none.
        assert keys or table == "credit_call", f"{table} has no key"
        for key, columns in keys.items():
            assert plan.PLAN[table] in columns or key in plan.DROPPED, (table, key)


def test_without_citus_nothing_is_changed(con: psycopg.Connection[Any]) -> None:
    with pytest.raises(ConfigError, match=r"not installed.*nothing was changed.*CREATE EXTENSION"):
        plan.distribute(con)
    kept = con.execute("SELECT to_regclass('credit_practice_practice_id_key')").fetchone()
    assert kept != (None,)


_FAKE = """
    CREATE SCHEMA citus_stand_in;
    CREATE TABLE citus_stand_in.pg_extension (extname TEXT, extversion TEXT);
    CREATE TABLE citus_stand_in.pg_dist_partition (
        logicalrelid REGCLASS, columns TEXT, beside TEXT);
    INSERT INTO citus_stand_in.pg_extension VALUES ('citus', '13.0');
    CREATE FUNCTION citus_stand_in.create_distributed_table(
        name REGCLASS, by_column TEXT, colocate_with TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM attname FROM pg_catalog.pg_attribute WHERE attrelid = name AND attname = by_column;
        IF NOT FOUND THEN RAISE EXCEPTION '% has no %', name, by_column; END IF;
        IF current_setting('citus.enable_unsafe_triggers', true) IS DISTINCT FROM 'on' THEN
            RAISE EXCEPTION 'triggers are not supported on distributed tables'; END IF;
        IF name = 'credit_transfer'::regclass AND current_setting('test.fails', true) = 'yes' THEN
            RAISE EXCEPTION 'a node has gone'; END IF;
        INSERT INTO citus_stand_in.pg_dist_partition VALUES (name, by_column, colocate_with);
    END $$;
    SET search_path = citus_stand_in, pg_catalog, public;
"""


@pytest.fixture
def stand_in(con: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A catalogue that says Citus is there, with a function that writes down what it is asked."""
    con.execute("SET search_path = public")
    con.execute(_FAKE.encode())
    yield con
    con.execute("DROP SCHEMA citus_stand_in CASCADE")
    con.execute("SET search_path = public")
    con.execute(
        "DO $$ BEGIN ALTER TABLE credit_practice"
        " ADD CONSTRAINT credit_practice_practice_id_key UNIQUE (practice_id);"
        " EXCEPTION WHEN duplicate_table THEN NULL; END $$"
    )


def placed(con: psycopg.Connection[Any]) -> dict[str, tuple[str, str]]:
    found = con.execute("SELECT logicalrelid::text, columns, beside FROM pg_dist_partition")
    return {table.removeprefix("public."): (column, beside) for table, column, beside in found}


def test_with_citus_each_table_goes_to_its_place_once(
    stand_in: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "obstacles", lambda _con: [])  # it looks into the first schema
    assert plan.distribute(stand_in)
    found = placed(stand_in)
    assert set(found) == spread()
    assert found["credit_practice"] == ("practice_no", "none")
    assert found["credit_transfer"] == ("practice_no", "credit_practice")
    assert found["credit_payment"] == ("ref", "none")
    assert not plan.distribute(stand_in), "the second time nothing is to do"


def test_a_failure_on_the_way_changes_nothing(
    stand_in: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "obstacles", lambda _con: [])
    stand_in.execute("SET test.fails = 'yes'")
    with pytest.raises(psycopg.errors.RaiseException, match="a node has gone"):
        plan.distribute(stand_in)
    assert placed(stand_in) == {}
    keys = stand_in.execute("SELECT to_regclass('public.credit_practice_practice_id_key')")
    assert keys.fetchone() != (None,)


def test_an_obstacle_stops_it(
    stand_in: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "obstacles", lambda _con: ["credit_new has no place in the plan"])
    with pytest.raises(ConfigError, match="nothing was changed: credit_new has no place"):
        plan.distribute(stand_in)
    assert placed(stand_in) == {}
