"""Partitions on PostgreSQL: what lies where, what finds it, and who may touch it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from guthaben.domain.commands import Extend, RecordUsage, Release, Reserve, Settle
from guthaben.services import growth
from guthaben.services.moving import copy_database
from guthaben.store import postgres_partitions, postgres_roles, postgres_schema, schema
from guthaben.store.postgres import connect
from guthaben.store.postgres_session import LEAN
from guthaben.store.postgres_wire import Wire
from guthaben.store.store import Store
from tests import postgres
from tests.store.bank import T0_S, Clock, hold, pay, problems, rows
from tests.store.history import NAMES, Stopped, lived, ms, seen, stopping
from tests.store.test_postgres_roles import APP_LOGIN, as_login

pytestmark = pytest.mark.cut


@pytest.fixture
def database() -> str:
    return postgres.fresh()


@pytest.fixture
def con(database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as opened:
        yield opened


def partitions(con: psycopg.Connection[Any]) -> set[str]:
    found = con.execute(
        "SELECT relid::text FROM pg_partition_tree('credit_call') WHERE isleaf"
    ).fetchall()
    return {name for (name,) in found}


def where(con: psycopg.Connection[Any]) -> dict[str, str]:
    found = con.execute("SELECT key, tableoid::regclass::text FROM credit_call").fetchall()
    return dict(found)


def with_months(store: Store, clock: Clock) -> None:
    """Ten days of November whose calls lie in that month's partition."""
    clock.now_ms = ms(2023, 11, 5)
    store.grow()
    lived(store, clock, 10)


# ---- months


def test_months_are_made_ahead_and_only_once(store: Store, con: Any, clock: Clock) -> None:
    clock.now_ms = ms(2031, 11, 30)
    made = store.grow().made
    assert list(made) == ["2031-11", "2031-12", "2032-01", "2032-02"]
    assert {f"credit_call_{month.replace('-', '_')}" for month in made} <= partitions(con)
    assert store.grow().made == {}
    clock.now_ms = ms(2031, 12, 1)
    assert list(store.grow().made) == ["2032-03"]


def test_an_open_call_lies_apart_and_its_end_in_its_month(
    store: Store, con: Any, clock: Clock
) -> None:
    clock.now_ms = ms(2032, 4, 30, 23, 59)
    store.grow()
    pay(store, "p", 1000)
    for key in "abc":
        hold(store, "p", 10, key)
    assert set(where(con).values()) == {"credit_call_open"}
    clock.now_ms = ms(2032, 5, 1)
    first = rows(store, "SELECT MIN(call_no) FROM credit_call")[0][0]
    assert store.execute("p", Settle(first, 5)).applied
    assert store.execute("p", Release(first + 1)).applied
    assert store.execute("p", Extend(first + 2, 3_600_000)).applied
    store.execute("p", RecordUsage("d", 1))
    assert where(con) == {
        "a": "credit_call_2032_04", "b": "credit_call_2032_04",
        "c": "credit_call_open", "d": "credit_call_2032_05",
    }  # fmt: skip
    assert problems(store) == []


def test_a_missing_month_is_harmless_and_made_up_for(store: Store, con: Any, clock: Clock) -> None:
    clock.now_ms = ms(2033, 6, 10)
    pay(store, "p", 1000)
    call_no = hold(store, "p", 10, "a")
    store.execute("p", Settle(call_no, 5))
    hold(store, "p", 10, "b")
    assert where(con) == {"a": "credit_call_default", "b": "credit_call_open"}
    assert store.execute("p", Reserve("a", 10)).replayed
    clock.now_ms = ms(2033, 7, 2)
    assert store.grow().made["2033-06"] == 1
    assert where(con)["a"] == "credit_call_2033_06"
    assert store.execute("p", Reserve("a", 10)).replayed
    assert not store.execute("p", Settle(call_no, 5)).applied
    assert problems(store) == []


def test_usage_told_of_odd_times_makes_no_tables(store: Store, con: Any, clock: Clock) -> None:
    clock.now_ms = ms(2033, 9, 10)
    store.grow()
    pay(store, "p", 1000)
    before = partitions(con)
    for month in range(1, 12):
        store.execute("p", RecordUsage(f"{month}", 1, event_at_s=ms(1999, month, 1) // 1000))
        store.execute("p", RecordUsage(f"+{month}", 1, event_at_s=ms(2099, month, 1) // 1000))
    store.grow()
    assert partitions(con) == before
    assert store.execute("p", RecordUsage("1", 1, event_at_s=ms(1999, 1, 1) // 1000)).replayed


def test_a_month_whose_calls_left_needs_no_partition(
    store: Store, con: Any, clock: Clock, folder: Path
) -> None:
    for month in (11, 12):
        clock.now_ms = ms(2023, month, 5)
        store.grow()
    lived(store, clock)
    clock.now_ms = ms(2024, 3, 10)
    before = seen(store)
    grew = growth.maintain(store, folder, 35)
    assert {"2023-11", "2023-12", "2024-01"} <= set(grew.dissolved)
    assert grew.dissolved["2023-12"] > 0  # what expired
    assert not {"credit_call_2023_11", "credit_call_2023_12"} & partitions(con)
    assert seen(store) == before
    assert growth.maintain(store, folder, 35) == ({}, {}, ())
    assert store.grow().made == {}, "an archived month comes back"
    assert problems(store) == []
    # What happened then but is told now still has its place, and is archived in its turn.
    told = RecordUsage("late", 1, event_at_s=ms(2023, 11, 20) // 1000)
    assert store.execute("ana", told).applied
    assert where(con)["late"] == "credit_call_default"
    clock.now_ms = ms(2024, 5, 1)
    assert [one.calls for one in growth.maintain(store, folder, 35).archived] == [1]
    assert store.execute("ana", told).replayed


def test_a_month_with_unfinished_files_or_open_ends_stays(
    store: Store, con: Any, clock: Clock, folder: Path
) -> None:
    with_months(store, clock)
    ask = "SELECT credit_dissolve_month('2023-11-01', %s)"
    assert con.execute(ask, (ms(2024, 3, 10),)).fetchone() == (-1,)  # nothing was archived
    clock.now_ms = ms(2024, 3, 10)
    with pytest.raises(Stopped):
        growth.maintain(store, folder, 35, at=stopping("recorded"))
    assert con.execute(ask, (ms(2024, 3, 10),)).fetchone() == (-1,)
    assert "credit_call_2023_11" in partitions(con)


# ---- keys


def test_no_other_month_takes_a_key(store: Store, con: Any, clock: Clock) -> None:
    pay(store, "p", 1000)
    store.execute("p", Settle(hold(store, "p", 10, "k"), 5))
    again = (
        "INSERT INTO credit_call SELECT practice_no, call_no + 9, body_hash,"
        " created_at_ms + 86400000::bigint * 40, expires_at_ms, reserved_nano_usd, cost_nano_usd,"
        " period_start_s, grace_ms, ended_at_s, first_seq, input_tokens, output_tokens,"
        " total_tokens, audio_us, uncovered_nano_usd, legacy_id, operation, status, ended_by,"
        " on_expiry, on_exception, overage_policy, key, license, slices FROM credit_call"
    )
    with pytest.raises(errors.UniqueViolation, match="credit_call_registry"):
        con.execute(again)
    for statement in ("UPDATE credit_call_registry SET call_no = 9",
                      "DELETE FROM credit_call_registry"):  # fmt: skip
        with pytest.raises(errors.RaiseException, match="kept for ever"):
            con.execute(statement.encode())
    with pytest.raises(errors.RaiseException, match="append-only"):
        con.execute("TRUNCATE credit_call_registry")


# ---- rights


@pytest.fixture
def served(database: str, clock: Clock) -> Iterator[Store]:
    """A server that runs with the rights of its role only."""
    with connect(database) as con:
        con.execute("BEGIN")
        assert postgres_roles.ensure(con)
        if not con.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (APP_LOGIN,)).fetchone():
            con.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(APP_LOGIN)))
        con.execute(f"GRANT {postgres_roles.APP} TO {APP_LOGIN}".encode())
        con.execute("COMMIT")
    opened = Store(as_login(database, APP_LOGIN), clock_ms=clock)
    yield opened
    opened.close()


def test_a_server_may_grow_and_archive(served: Store, con: Any, clock: Clock, folder: Path) -> None:
    with_months(served, clock)
    before = seen(served)
    clock.now_ms = ms(2024, 3, 10)
    grew = growth.maintain(served, folder, 35)
    assert [one.month for one in grew.archived] == ["2023-11"]
    assert "2023-11" in grew.dissolved
    assert "credit_call_2023_11" not in partitions(con)
    after = seen(served)
    assert [one for one in after if one not in before][2:] == []  # but for the balances' period
    assert problems(served) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE credit_call_default",
        "ALTER TABLE credit_call_ended DETACH PARTITION credit_call_default",
        "ALTER TABLE credit_call_default ADD COLUMN x INTEGER",
        "TRUNCATE credit_call_open",
        "TRUNCATE credit_transfer_0",
        "DELETE FROM credit_transfer_0",
        "UPDATE credit_transfer_0 SET amount_nano_usd = 1",
        "DELETE FROM credit_call_registry",
        "TRUNCATE credit_call_registry_0",
        "DELETE FROM credit_archived_call",
        "UPDATE credit_archived_call SET cost_nano_usd = 0",
        "CREATE TABLE mine PARTITION OF credit_call_ended FOR VALUES FROM (1) TO (2)",
    ],
)
def test_a_server_cannot_touch_partitions(database: str, served: Store, statement: str) -> None:
    with (
        psycopg.connect(as_login(database, APP_LOGIN), autocommit=True) as raw,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        raw.execute(statement.encode())


def test_nobody_else_may_call_what_runs_as_the_owner(con: Any) -> None:
    for signature in postgres_partitions.FOR_SERVERS:
        public = con.execute(
            "SELECT has_function_privilege('public', %s, 'EXECUTE'),"
            " has_function_privilege(%s, %s, 'EXECUTE')",
            (signature, postgres_roles.APP, signature),
        ).fetchone()
        assert public == (False, True), signature


def test_not_even_the_owner_empties_a_share_by_mistake(store: Store, con: Any) -> None:
    pay(store, "p", 10)
    for statement in ("TRUNCATE credit_transfer", "DELETE FROM credit_transfer",
                      "TRUNCATE credit_transfer_0, credit_transfer_3"):  # fmt: skip
        with pytest.raises(errors.RaiseException, match="append-only"):
            con.execute(statement.encode())


# ---- what finds it


def plans(con: psycopg.Connection[Any], asked: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Run statements once more, and give the plan of each with what it really did."""
    for setting in LEAN:
        con.execute(setting)
    for query, values in asked:
        con.execute("DEALLOCATE ALL")
        con.execute(f"PREPARE asked AS {query}".encode())
        given = sql.SQL(", ").join(map(sql.Literal, values or ()))
        execute = sql.SQL("EXECUTE asked ({})" if values else "EXECUTE asked").format(given)
        with con.transaction(force_rollback=True):
            explain = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) ") + execute
            (found,) = con.execute(explain).fetchone() or ([],)
        yield query, (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_the_hot_path_looks_into_one_month_and_reads_no_table(
    store: Store, con: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now_ms = ms(2034, 2, 10)
    store.grow()
    names = (*NAMES, "cleo", "dan")
    for name in names:
        pay(store, name, 10**6)
        for number in range(20):
            store.execute(name, Settle(hold(store, name, 10, f"k{number}"), 5))
    con.execute("ANALYZE")
    asked: list[tuple[str, Any]] = []
    send = Wire.send

    def heard(self: Wire, query: str, values: Any = (), **more: Any) -> int:
        asked.append((query, values))
        return send(self, query, values, **more)

    from guthaben.store.workspace import Workspace

    def work(space: Workspace, commands: list[Any]) -> list[Any]:
        space.prepare(commands)
        told = [space.apply(*one) for one in commands]
        space.flush()
        return told

    with monkeypatch.context() as patch:
        patch.setattr(Wire, "send", heard)
        begun = [(name, Reserve(f"n{n}", 10)) for name in names for n in range(4)]
        told = store.run(lambda space: work(space, begun))
        ended = [
            (one[0], Settle(out.call.call_no, 5)) for one, out in zip(begun, told, strict=True)
        ]
        store.run(lambda space: work(space, ended))
        store.run(lambda space: work(space, ended))
        store.run(lambda space: work(space, begun))
    hot = {query: values for query, values in asked if re.match("SELECT|UPDATE", query)}
    assert len(hot) >= 7
    touched = 0
    for query, plan in plans(con, list(hot.items())):
        for node in nodes(plan):
            table = node.get("Relation Name", "")
            assert node["Node Type"] != "Seq Scan" or not table.startswith("credit_"), query
            if not re.match(r"credit_call_(\d|default)", table) or not node["Actual Loops"]:
                continue
            touched += 1
            if "status > 1" not in query:  # the way back for what ended long ago
                assert table == "credit_call_2034_02", (table, query)
            # By all that names a call, never by the practice alone.
            assert "call_no" in node["Index Cond"], query
    assert touched > 2


# ---- fresh, migrated, copied


SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_name LIKE 'credit%' ORDER BY 1, 2;
SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'credit%' ORDER BY 2;
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid::regclass::text LIKE 'credit%' ORDER BY 1, 2;
SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger
    WHERE NOT tgisinternal ORDER BY 1, 2;
SELECT oid::regprocedure::text, prosrc, proacl::text FROM pg_proc
    WHERE proname LIKE 'credit%' ORDER BY 1;
SELECT relid::text, parentrelid::text, pg_get_expr(relpartbound, relid)
    FROM pg_partition_tree('credit_call') JOIN pg_class ON oid = relid ORDER BY 1;
SELECT relname, relacl::text, relrowsecurity FROM pg_class WHERE relname LIKE 'credit%' ORDER BY 1
"""


def shape(url: str) -> list[Any]:
    """Every table, column, index, constraint, trigger, function and right of ours."""
    with connect(url) as con:
        return [con.execute(question.encode()).fetchall() for question in SHAPE.split(";")]


def test_a_database_from_before_is_cut_with_all_that_it_holds(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(store, clock, 40)
    known = schema.migrations()
    urls = [postgres.create(postgres.name_of_another()) for _ in range(2)]
    before = [one for one in known if one.number < postgres_partitions.MIGRATION]
    with connect(urls[0]) as old, connect(store.url) as new:
        monkeypatch.setattr(postgres_schema, "migrations", lambda: before)
        postgres_schema.migrate(old, T0_S)
        for table in ("credit_practice", "credit_grant", "credit_call", "credit_transfer",
                      "credit_key", "credit_event"):  # fmt: skip
            names = [name for (name,) in old.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s",
                (table,)).fetchall()]  # fmt: skip
            columns = ", ".join(names)
            for row in new.execute(f"SELECT {columns} FROM {table}".encode()).fetchall():
                marks = ", ".join(["%s"] * len(names))
                old.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})".encode(), row)
        monkeypatch.setattr(postgres_schema, "migrations", lambda: known)
        assert [one.number for one in postgres_schema.migrate(old, T0_S)] == [
            one.number for one in known if one.number >= postgres_partitions.MIGRATION
        ]
    with closing(Store(urls[0], clock_ms=clock)) as migrated:
        assert seen(migrated) == seen(store)
        assert problems(migrated) == []
        assert migrated.execute("ana", Reserve("k0", 100)).replayed
        assert {"credit_call_2023_11", "credit_call_2023_12"} <= partitions(connect(urls[0]))
    with closing(Store(urls[1], clock_ms=clock)):
        pass
    months = re.compile(r"credit_call_\d{4}_\d\d")
    old_shape, new_shape = (
        [[row for row in part if not months.search(str(row))] for part in shape(url)]
        for url in urls
    )
    for old_part, new_part in zip(old_shape, new_shape, strict=True):
        assert set(old_part) ^ set(new_part) == set()


def test_copied_there_and_back_with_its_archive(
    store: Store, con: Any, clock: Clock, tmp_path: Path, folder: Path
) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/a.db", clock_ms=clock)) as first:
        lived(first, clock)
        clock.now_ms = ms(2024, 2, 10)
        growth.maintain(first, folder, 35)
        before = seen(first)
        assert copy_database(first, store).ok
        assert seen(store) == before
        assert problems(store) == []
        assert growth.file_problems(store, folder) == []
    assert "credit_call_2024_01" in set(where(con).values())
    for key in ("k0", "k50"):  # archived, and not
        assert store.execute("ana", Reserve(key, 100)).replayed
    growth.maintain(store, folder, 35)
    clock.now_ms = ms(2024, 3, 10)
    assert [one.month for one in growth.maintain(store, folder, 35).archived] == ["2024-01"]
    with closing(Store(f"sqlite:///{tmp_path}/b.db", clock_ms=clock)) as last:
        assert copy_database(store, last).ok
        assert [row for row in seen(last) if row not in seen(store)] == []
        assert last.execute("ana", Reserve("k0", 100)).replayed
        assert growth.file_problems(last, folder) == []
