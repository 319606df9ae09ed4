"""The plan for Citus, held against the catalogue of a real PostgreSQL, and carried out.

Without a cluster a stand-in notes what it is asked; with one, databases are really spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from guthaben.domain.commands import Reserve, Settle
from guthaben.domain.practice import Balance
from guthaben.errors import ConfigError, OutcomeUnknown, StoreUnavailable
from guthaben.store import postgres_distribute as plan
from guthaben.store import postgres_partitions, queries
from guthaben.store.postgres import connect
from guthaben.store.postgres_together import lay
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from tests import citus, postgres
from tests.store.bank import T0_S, Clock, hold, pay


@pytest.fixture
def url() -> str:
    return postgres.fresh(0, postgres.CUT)


@pytest.fixture
def con(url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(url) as opened:
        yield opened


NAMES = [f"prac_{number}" for number in range(9)]


def lived(url: str, clock: Clock) -> dict[str, Balance]:
    """Fill a database: one call each that is over, one that is open; tell the balances."""
    store = Store(url, clock_ms=clock)
    for name in NAMES:
        pay(store, name, 1000)
        assert store.execute(name, Settle(hold(store, name, 10, "over"), 7)).applied
        hold(store, name, 20, "open")
    found = balances(store)
    assert store.verify().problems == []
    store.close()
    return found


def balances(store: Store) -> dict[str, Balance]:
    """What every practice has."""

    def every(cursor: Cursor) -> dict[str, Balance]:
        return {name: queries.balance(cursor, name, None, T0_S)[0] for name in NAMES}

    return store.read(every)


def spread() -> set[str]:
    return {table for table, column in plan.PLAN.items() if column != plan.LOCAL}


@pytest.fixture
def laid(con: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """Tables laid together, for as long as the test takes."""
    with con.transaction(force_rollback=True):
        lay(con)
        yield con


def test_every_table_is_in_the_plan_and_every_key_fits(laid: psycopg.Connection[Any]) -> None:
    assert plan.obstacles(laid) == []
    there = {name for (name,) in laid.execute(plan._TABLES)}
    assert set(plan.PLAN) <= there, "the plan names tables that are not there"
    assert there - set(plan.PLAN) <= {plan.BINDINGS}


def test_an_obstacle_is_found(laid: psycopg.Connection[Any]) -> None:
    laid.execute("CREATE TABLE credit_new (practice_no BIGINT PRIMARY KEY)")
    laid.execute("CREATE UNIQUE INDEX credit_wrong ON credit_grant (grant_no)")
    assert plan.obstacles(laid) == [
        "credit_new has no place in the plan",
        "the unique key credit_wrong of credit_grant does not contain practice_no",
    ]


def test_parts_and_triggers_that_write_are_obstacles(con: psycopg.Connection[Any]) -> None:
    """So are ours, until they are laid together."""
    told = plan.obstacles(con)
    assert [one.partition(" is cut")[0] for one in told if " is cut" in one] == [
        "credit_call",
        "credit_transfer",
    ]
    assert [one for one in told if " writes" in one], "the registry is filled by a trigger"


def test_laid_together_nothing_is_lost_and_keys_are_unique(url: str, clock: Clock) -> None:
    before = lived(url, clock)
    with connect(url) as con, con.transaction(force_rollback=True):
        moved = lay(con)
        assert moved == {"credit_call": 2 * len(before), "credit_transfer": 2 * len(before)}
        assert not postgres_partitions.is_cut(con)
        assert postgres_partitions.is_together(con)
        keys = dict(con.execute(plan.UNIQUE_KEYS, ("credit_call",)).fetchall())
        assert keys["credit_call_key"] == ["practice_no", "operation", "key"] or sorted(
            keys["credit_call_key"]
        ) == ["key", "operation", "practice_no"]
        with pytest.raises(psycopg.errors.RaiseException):
            con.execute("DELETE FROM credit_transfer")
    with connect(url) as con:
        assert postgres_partitions.is_cut(con), "it was undone"


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


def test_what_is_spread_by_practice_is_named_by_it_in_its_key(
    laid: psycopg.Connection[Any],
) -> None:
    for table in spread():
        keys = dict(laid.execute(plan.UNIQUE_KEYS, (table,)).fetchall())
        assert keys, f"{table} has no key"
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
    CREATE TABLE citus_stand_in.pg_dist_node (
        groupid INT, shouldhaveshards BOOLEAN, isactive BOOLEAN);
    CREATE TABLE citus_stand_in.pg_dist_partition (
        logicalrelid REGCLASS, columns TEXT, beside TEXT);
    INSERT INTO citus_stand_in.pg_extension VALUES ('citus', '13.2');
    INSERT INTO citus_stand_in.pg_dist_node VALUES (0, false, true), (1, true, true);
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
    CREATE FUNCTION citus_stand_in.noted(name TEXT) RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION citus_stand_in.truncate_local_data_after_distributing_table(name REGCLASS)
        RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION citus_stand_in.create_reference_table(name REGCLASS)
        RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION citus_stand_in.citus_add_local_table_to_metadata(name REGCLASS)
        RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION citus_stand_in.create_distributed_function(name REGPROCEDURE)
        RETURNS VOID LANGUAGE sql AS 'SELECT';
    SET search_path = public, citus_stand_in, pg_catalog;
"""


@pytest.fixture
def stand_in(
    con: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """A catalogue that says Citus is there, with functions that do or note what they are asked."""
    monkeypatch.setattr(
        plan, "_INSTALLED", plan._INSTALLED.replace("FROM ", "FROM citus_stand_in.")
    )
    with con.transaction(force_rollback=True):
        con.execute(_FAKE.encode())
        yield con


def placed(con: psycopg.Connection[Any]) -> dict[str, tuple[str, str]]:
    found = con.execute("SELECT logicalrelid::text, columns, beside FROM pg_dist_partition")
    return {table: (column, beside) for table, column, beside in found}


def test_with_citus_each_table_goes_to_its_place_once(
    stand_in: psycopg.Connection[Any],
) -> None:
    assert plan.distribute(stand_in)
    found = placed(stand_in)
    assert set(found) == spread()
    assert found["credit_practice"] == ("practice_no", "none")
    assert found["credit_transfer"] == ("practice_no", "credit_practice")
    assert found["credit_payment"] == ("ref", "none")
    assert not plan.distribute(stand_in), "the second time nothing is to do"


def test_a_failure_on_the_way_changes_nothing(stand_in: psycopg.Connection[Any]) -> None:
    stand_in.execute("SET LOCAL test.fails = 'yes'")
    with pytest.raises(psycopg.errors.RaiseException, match="a node has gone"):
        plan.distribute(stand_in)
    assert placed(stand_in) == {}
    assert postgres_partitions.is_cut(stand_in), "what was laid together is cut again"
    kept = stand_in.execute("SELECT to_regclass('credit_practice_practice_id_key')").fetchone()
    assert kept != (None,)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("DELETE FROM pg_dist_node WHERE groupid = 0", "citus_set_coordinator_host"),
        ("DELETE FROM pg_dist_node WHERE groupid = 1", "citus_add_node"),
        ("CREATE TABLE credit_new (a BIGINT)", "credit_new has no place in the plan"),
    ],
)
def test_what_is_in_the_way_is_said_and_nothing_is_changed(
    stand_in: psycopg.Connection[Any], gone: str, told: str
) -> None:
    stand_in.execute(gone.encode())
    with pytest.raises(ConfigError, match=f"nothing was changed: .*{told}"):
        plan.distribute(stand_in)
    assert placed(stand_in) == {}
    assert postgres_partitions.is_cut(stand_in)


# ---- a cluster


@pytest.fixture
def unspread() -> Iterator[str]:
    """A database of a cluster before anything was spread."""
    name = postgres.name_of_another()
    yield citus.create(name)
    citus.drop(name)


@pytest.mark.parametrize("filled", [False, True])
def test_a_cluster_holds_what_one_server_held(unspread: str, clock: Clock, filled: bool) -> None:
    before = lived(unspread, clock) if filled else {}
    store = Store(unspread, clock_ms=clock)  # as the command does it
    assert store.distribute("citus")
    assert not store.distribute("citus"), "the second time nothing is to do"
    found = store.verify()
    assert (found.practices, found.transfers, found.problems) == (
        (9, 18, []) if filled else (0, 0, [])
    )
    if filled:
        assert balances(store) == before
        assert store.execute(NAMES[0], Reserve("open", 20)).replayed
    for name in NAMES:
        pay(store, name, 10, "new")
    store.close()
    with connect(unspread) as con:
        spread_now = con.execute("SELECT COUNT(*) FROM pg_dist_shard").fetchone()
        assert spread_now == (len(spread()) * citus.SHARDS + 2,), "two tables have one each"
        left = con.execute(
            "SELECT pg_relation_size('credit_call') + pg_relation_size('credit_transfer')"
            " + pg_relation_size('credit_practice')"
        ).fetchone()
        assert left == (0,), "nothing stayed behind"


def test_a_later_table_gets_its_place(unspread: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(unspread).close()
    with connect(unspread) as con:
        assert plan.distribute(con)
        monkeypatch.setattr(
            plan, "PLAN", {**plan.PLAN, "credit_newer": plan.PRACTICE, "credit_newest": plan.LOCAL}
        )
        con.execute("CREATE TABLE credit_newer (practice_no BIGINT PRIMARY KEY)")
        con.execute("CREATE TABLE credit_newest (a BIGINT)")
        with con.transaction():
            plan.complete(con)
            plan.complete(con)
        assert con.execute(plan._SPREAD, ("credit_newer",)).fetchone() == (1,)
        told = "SELECT COUNT(*) FROM pg_trigger WHERE tgname = 'credit_newest_two_phase'"
        assert con.execute(told).fetchone() == (1,)


def test_a_running_server_finds_out_by_itself(unspread: str, clock: Clock) -> None:
    lived(unspread, clock)
    running, command = (Store(unspread, clock_ms=clock) for _ in range(2))
    assert running.execute(NAMES[0], Reserve("warm", 1)).applied
    assert running.verify().ok
    assert command.distribute("citus")
    told = []
    for turn in range(3):
        try:
            told.append(running.execute(NAMES[0], Reserve(f"then{turn}", 1)).applied)
        except (StoreUnavailable, OutcomeUnknown):
            told.append(False)
    assert told[1:] == [True, True], "at most the first try is refused"
    assert running.execute(NAMES[0], Reserve("then0", 1)).ok, "the key tells"
    balance, _due = running.read(lambda cur: queries.balance(cur, NAMES[0], None, T0_S))
    assert balance.held_nano_usd == 20 + 1 + len(told)
    assert command.verify().ok
    running.close()
    command.close()


def test_a_failure_on_a_cluster_changes_nothing(
    unspread: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lived(unspread, clock)
    placing = plan.placing
    monkeypatch.setattr(
        plan, "placing", lambda t: "SELECT 1 / 0" if t == "credit_payment" else placing(t)
    )
    store = Store(unspread, clock_ms=clock)
    with pytest.raises(StoreUnavailable, match="nothing was changed: division by zero"):
        store.distribute("citus")
    with connect(unspread) as con:
        assert con.execute("SELECT COUNT(*) FROM pg_dist_partition").fetchone() == (0,)
        assert postgres_partitions.is_cut(con)
    assert balances(store) == before
    assert store.verify().ok
    monkeypatch.undo()
    assert store.distribute("citus"), "what was in the way is gone"
    assert balances(store) == before
    assert store.verify().ok
    store.close()
