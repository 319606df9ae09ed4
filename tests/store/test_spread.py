"""PostgreSQL as a cluster wants it: the same engine on tables laid together, and on real nodes.

Everything here runs on one server whose tables lie like a cluster's; and, where one is named, on a
cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from guthaben.domain.calls import NO_ORIGIN
from guthaben.domain.caps import Cap
from guthaben.domain.commands import (
    Command,
    Extend,
    GrantCredit,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    Settle,
)
from guthaben.domain.grants import PAID
from guthaben.errors import OutcomeUnknown
from guthaben.store import caps, queries
from guthaben.store.postgres import connect
from guthaben.store.postgres_bulk import INSERT
from guthaben.store.postgres_distribute import PLAN, PRACTICE
from guthaben.store.postgres_spread import SpreadCursor, by_number, chunk_of
from guthaben.store.postgres_wire import Wire, written
from guthaben.store.session import NUMBER_OF
from guthaben.store.store import Store
from guthaben.store.verify import Problem, Verification, verify
from tests import citus, postgres
from tests.store.bank import T0_S, Clock, hold, pay, problems, rows, together
from tests.store.test_plans import hot_path, recorded, set_up
from tests.store.test_postgres import at_once, cut, wire_of


@pytest.fixture(params=[postgres.TOGETHER, postgres.CITUS])
def layout(request: pytest.FixtureRequest) -> str:
    if request.param == postgres.CITUS:
        citus.coordinator()
    return str(request.param)


@pytest.fixture
def url(layout: str) -> str:
    return postgres.fresh(0, layout)


@pytest.fixture
def store(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "1")
    opened = Store(url, clock_ms=clock, on_claim=lambda _name, _outcome: None)
    yield opened
    opened.close()


@pytest.fixture
def other(url: str, clock: Clock) -> Iterator[Store]:
    """The store of another server."""
    opened = Store(url, clock_ms=clock)
    yield opened
    opened.close()


def number_of(store: Store, name: str) -> int:
    return store.read(lambda cursor: queries.practice_no(cursor, name))


# ---- the engine


def test_the_store_finds_out_how_its_tables_lie(store: Store) -> None:
    assert store.run(lambda space: type(space.cursor)) is SpreadCursor
    assert not store._database.sees_one_moment()
    assert store.grow() == ({}, {}), "there are no months to make"


def test_there_are_more_writers_because_they_wait_for_nodes(
    url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUTHABEN_WRITER_LANES", raising=False)
    opened = Store(url, clock_ms=clock)
    assert len(opened._writers) >= 8
    opened.close()


def test_the_life_of_calls(store: Store, clock: Clock) -> None:
    for name in ("p", "q", "r"):
        pay(store, name, 1000)
    a, b, c, d = (hold(store, "p", 100, key) for key in "abcd")
    assert store.execute("p", Settle(a, 70)).applied
    assert store.execute("p", Release(b)).applied
    assert store.execute("p", Extend(c, 3_600_000)).applied
    assert store.execute("p", RecordUsage("u", 5)).applied
    clock.wait(1_000_000)
    assert hold(store, "p", 10, "e"), "it expires d first"
    told = store.execute("p", Settle(c, 20)), store.execute("p", Settle(d, 30))
    assert [one.call.status for one in told if one.call] == [2, 5]
    assert store.execute("p", Reserve("much", 10_000)).reason == "insufficient_credit"
    balance, _due = store.read(lambda cursor: queries.balance(cursor, "p", None, T0_S))
    assert balance.available_nano_usd == 1000 - 70 - 5 - 20 - 30 - 10
    assert [call.key for call in store.read(lambda c: queries.recent_calls(c, "p", 99, 3))] == [
        "e", "u", "d",
    ]  # fmt: skip
    assert problems(store) == []


def test_keys_are_told_again_whatever_became_of_their_call(store: Store, other: Store) -> None:
    pay(store, "p", 1000)
    for name in ("p", "stranger"):
        assert not store.execute(name, Reserve("free", 10_000)).ok
    call_no = hold(store, "p", 10, "a")
    assert store.execute("p", Settle(call_no, 4)).applied
    for each in (store, other):
        again = each.execute("p", Reserve("a", 10))
        assert (again.replayed, again.call and again.call.call_no) == (True, call_no)
        assert each.execute("p", Reserve("a", 11)).reason == "idempotency_conflict"
        assert each.execute("p", GrantCredit("paid", PAID, 1000)).replayed
    assert store.execute("p", Reserve("free", 10)).applied, "a refusal consumes nothing"
    assert problems(store) == []


def test_a_batch_of_one_practice_and_of_many(store: Store) -> None:
    names = [f"p{number}" for number in range(7)]
    for name in names:
        pay(store, name, 1000)
    asked: list[tuple[str, Command]] = [("p0", Reserve(f"k{n}", 2)) for n in range(40)]
    asked += [(name, Reserve("k", 3)) for name in (*names[1:], "nobody")]
    answers = together(store, asked)
    assert [a.ok for a in answers] == [True] * 46 + [False]
    ended: list[tuple[str, Command]] = [
        (name, Settle(answer.call.call_no, 1))
        for (name, _command), answer in zip(asked, answers, strict=True)
        if answer.ok
    ]
    assert all(answer.applied for answer in together(store, ended))
    told = rows(store, "SELECT COUNT(*), SUM(cost_nano_usd) FROM credit_call WHERE status = 2")
    assert [tuple(map(int, row)) for row in told] == [(46, 46)]
    assert problems(store) == []


def test_a_cap_holds(store: Store, other: Store) -> None:
    pay(store, "p", 1000)
    origin = NO_ORIGIN._replace(api_key_id="k1")
    store.run(
        lambda space: caps.put(space.cursor, space.practice_no("p"), Cap("key:k1", 25), T0_S), "p"
    )
    for each, key, ok in ((store, "a", True), (other, "b", True), (store, "c", False)):
        told = each.execute("p", Reserve(key, 10, origin=origin))
        assert (told.ok, told.reason) == (ok, "" if ok else "cap_exceeded"), key
    assert store.execute("p", Reserve("d", 10)).ok, "it names no key"
    assert problems(store) == []


# ---- many at once


@pytest.mark.faults
def test_the_ceiling_is_exact_over_servers(store: Store, other: Store) -> None:
    for name in ("p", "q"):
        pay(store, name, 10)
    answers = at_once(
        [
            lambda each=each, key=key, name=name: each.execute(name, Reserve(f"k{key}", 1))
            for key in range(16)
            for each in (store, other)
            for name in ("p", "q")
        ]
    )
    admitted = [a for a in answers if isinstance(a, Outcome) and a.ok and not a.replayed]
    assert all(isinstance(a, Outcome) for a in answers), answers
    assert len(admitted) == 20
    assert problems(store) == []
    # Nothing is inserted by a release: only the lock keeps two of them from undoing each other.
    open_calls = [answer.call.call_no for answer in admitted if answer.call is not None]
    answers = at_once(
        [
            lambda each=each, name=name, no=no: each.execute(name, Release(no))
            for no in sorted(set(open_calls))
            for each, name in zip((store, other), ("p", "q") if no % 2 else ("q", "p"), strict=True)
        ]
    )
    assert all(isinstance(a, Outcome) and a.ok for a in answers), answers
    assert rows(store, "SELECT DISTINCT held_nano_usd FROM credit_practice") == [(0,)]
    assert problems(store) == []


@pytest.mark.faults
def test_servers_that_meet_a_new_practice_make_one(store: Store, other: Store) -> None:
    for turn in range(5):
        answers = at_once(
            [
                lambda each=each, key=key, turn=turn: each.execute(
                    f"p{turn}", GrantCredit(key, PAID, 5)
                )
                for each, key in ((store, "here"), (other, "there"))
            ]
        )
        assert all(isinstance(answer, Outcome) and answer.ok for answer in answers), answers
    assert rows(store, "SELECT COUNT(*) FROM credit_practice") == [(5,)]
    assert problems(store) == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["command", "job"])
def test_a_practice_that_is_only_being_made_is_waited_for(
    store: Store, url: str, kind: str
) -> None:
    """Its name is committed on one node a moment before its row is on another."""
    with connect(url) as con, connect(url) as node:
        con.execute("INSERT INTO credit_practice_name (practice_id, practice_no) VALUES ('p', 77)")
        node.execute("BEGIN")
        node.execute(
            "INSERT INTO credit_practice (practice_no, practice_id, head)"
            " VALUES (77, 'p', sha256('x'))"
        )
        answers: list[Any] = []

        def ask() -> None:
            if kind == "command":
                answers.append(store.execute("p", Reserve("a", 10)).reason)
            else:
                answers.append(store.run(lambda space: space.practice_no("p"), "p"))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), answers
        node.execute("COMMIT")
        thread.join(20)
    assert answers == ["insufficient_credit" if kind == "command" else 77]


# ---- commits


@pytest.mark.faults
@pytest.mark.parametrize("before", [True, False])
def test_a_lost_answer_to_commit_is_resolved_by_the_key(
    store: Store, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    pay(store, "p", 10)
    cut(store, monkeypatch, before=before)
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        store.execute("p", Reserve("a", 4))
    told = store.execute("p", Reserve("a", 4))
    assert (told.ok, told.replayed) == (True, not before)
    assert problems(store) == []


@pytest.mark.faults
def test_a_commit_that_fails_leaves_the_outcome_unknown(store: Store) -> None:
    """A node may have done its share before the error came; here nobody has."""
    pay(store, "p", 10)
    with connect(store.url) as con:
        con.execute(
            "CREATE FUNCTION test_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN RAISE EXCEPTION 'a node is gone'; END $$"
        )
        con.execute(
            "CREATE CONSTRAINT TRIGGER test_at_commit AFTER INSERT ON credit_alarm"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION test_at_commit()"
        )
        try:
            with pytest.raises(OutcomeUnknown, match=r"COMMIT.*a node is gone"):
                store.run(
                    lambda space: space.cursor.execute(
                        "INSERT INTO credit_alarm (code, subject, raised_at_s) VALUES ('x', '', 1)"
                    )
                )
        finally:
            con.execute("DROP TRIGGER test_at_commit ON credit_alarm")
            con.execute("DROP FUNCTION test_at_commit()")
    assert store.execute("p", Reserve("a", 4)).applied
    assert problems(store) == []


# ---- verify


def test_what_was_wrong_only_for_a_moment_is_not_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay(store, "p", 10)
    torn = [Problem("p", "credit event 1: its payment is not in the registry"), Problem("", "1")]
    looks = []

    def seen(cursor: Any, practice_id: str | None, now_s: int) -> Verification:
        found = verify(cursor, practice_id, now_s)
        looks.append(practice_id)
        return found._replace(problems=torn if len(looks) == 1 else found.problems)

    monkeypatch.setattr("guthaben.store.store.verify", seen)
    assert store.verify() == Verification(1, 1, [])
    assert looks == [None, None]


def test_what_is_wrong_is_told(store: Store, url: str) -> None:
    pay(store, "p", 10)
    with connect(url) as con:
        con.execute("UPDATE credit_practice SET debt_nano_usd = 3 WHERE practice_no = 1")
        con.execute(
            "INSERT INTO credit_cap (practice_no, subject, changed_at_s) VALUES (9, 'k:*', 1)"
        )
    found = store.verify().problems
    assert {problem.practice_id for problem in found} == {"p"}
    assert "debt: the journal says 0, stored is 3" in {problem.text for problem in found}
    assert store.verify("p").problems == found


# ---- statements


def test_names_become_numbers() -> None:
    assert by_number("SELECT 1 WHERE a = ?") == ("SELECT 1 WHERE a = ?", ())
    question = f"SELECT ? FROM t WHERE no = {NUMBER_OF} AND b = ? OR no = {NUMBER_OF}"
    assert by_number(question) == ("SELECT ? FROM t WHERE no = ? AND b = ? OR no = ?", (1, 3))


def test_a_chunk_says_the_same_of_more_rows() -> None:
    sql = "INSERT INTO t (a, b) VALUES (?, NULL) ON CONFLICT (a) DO NOTHING"
    found = INSERT.fullmatch(chunk_of(sql))
    assert found is None, "it has more than one row of values"
    assert chunk_of(sql).startswith("INSERT INTO t (a, b) VALUES ($1, NULL), ($2, NULL)")
    assert chunk_of(sql).endswith("($16, NULL) ON CONFLICT (a) DO NOTHING")


def spread_tables_in(sql: str) -> set[str]:
    return {word.strip("(),") for word in sql.split() if PLAN.get(word.strip("(),")) == PRACTICE}


def test_every_statement_of_the_hot_path_is_one_practices(
    store: Store, clock: Clock, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster it is one node's task, by an index; on one server it names one practice."""
    set_up(store)
    said = recorded(monkeypatch)
    hot_path(store, clock)
    monkeypatch.undo()
    statements = {sql: values for sql, values in said if spread_tables_in(sql)}
    assert len(statements) > 20
    with connect(store.url) as con:
        con.execute("SET citus.propagate_set_commands = 'local'")
        con.execute("BEGIN")
        # Of a few rows a node would rather read all.
        con.execute("SET LOCAL enable_seqscan = off")
        for sql, values in statements.items():
            assert f"{PRACTICE} = $" in sql or sql.startswith("INSERT"), sql
            if layout == postgres.CITUS:
                assert_one_task(con, sql, values)


def assert_one_task(con: psycopg.Connection[Any], sql: str, values: Any) -> None:
    texts = [written(value)[1] for value in values]
    given = ", ".join("NULL" if t is None else f"'{t.decode()}'" for t in texts)
    con.execute(f"PREPARE asked AS {sql}".encode())
    plan = "\n".join(
        line for (line,) in con.execute(f"EXPLAIN (COSTS OFF) EXECUTE asked({given})".encode())
    )
    con.execute("DEALLOCATE asked")
    assert "Task Count: 1\n" in plan, f"{sql}\n{plan}"
    assert "Distributed Subplan" not in plan, f"{sql}\n{plan}"
    assert "Seq Scan" not in plan, f"{sql}\n{plan}"


def test_a_lone_command_takes_three_round_trips(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It locks and reads, it writes, and it commits; what COMMIT tells must be told apart."""
    pay(store, "p", 1000)
    hold(store, "p", 1, "a")
    wire: Wire = wire_of(store)
    before = wire.round_trips
    hold(store, "p", 1, "b")
    assert wire.round_trips - before <= 4


# ---- rights


@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
def test_what_was_written_stays(store: Store, url: str, layout: str, verb: str) -> None:
    pay(store, "p", 10)
    store.execute("p", Settle(hold(store, "p", 4, "a"), 3))
    tables = {"credit_transfer": "amount_nano_usd", "credit_key": "grant_no"}
    for table, column in tables.items():
        texts = {
            "UPDATE": f"UPDATE {table} SET {column} = 1 WHERE practice_no = 1",
            "DELETE": f"DELETE FROM {table} WHERE practice_no = 1",
            "TRUNCATE": f"TRUNCATE {table}",
        }
        with connect(url) as con, pytest.raises(psycopg.errors.RaiseException):
            con.execute(texts[verb].encode())
    assert problems(store) == []


# ---- on nodes only


@pytest.fixture
def spread(clock: Clock) -> Iterator[Store]:
    citus.coordinator()
    opened = Store(postgres.fresh(0, postgres.CITUS), clock_ms=clock)
    yield opened
    opened.close()


def test_a_shard_refuses_on_its_own_node(spread: Store) -> None:
    pay(spread, "p", 10)
    name = spread.url.rpartition("/")[2]
    refused = 0
    for node in citus.nodes()[1:]:
        with psycopg.connect(citus.of_database(node, name), autocommit=True) as con:
            con.execute("SET citus.enable_manual_changes_to_shards = on")
            con.execute("SET citus.override_table_visibility = off")
            for (shard,) in con.execute(
                "SELECT relname FROM pg_class WHERE relname ~ '^credit_transfer_[0-9]+$'"
            ).fetchall():
                try:
                    con.execute(f"DELETE FROM {shard}".encode())
                except psycopg.errors.RaiseException:
                    refused += 1
    assert refused == 1, "one shard has rows"
    assert problems(spread) == []


def test_what_is_written_here_and_on_a_node_is_committed_in_two_phases(spread: Store) -> None:
    pay(spread, "p", 10)
    said: list[str] = []
    with connect(spread.url) as con:
        con.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        con.execute("SET citus.log_remote_commands = on")
        con.execute("BEGIN")
        con.execute("UPDATE credit_practice SET status = status WHERE practice_no = 1")
        con.execute("INSERT INTO credit_alarm (code, subject, raised_at_s) VALUES ('x', 'y', 1)")
        con.execute("COMMIT")
        both = [line for line in said if "PREPARE" in line]
        said.clear()
        con.execute("BEGIN")
        con.execute("UPDATE credit_practice SET status = status WHERE practice_no = 1")
        con.execute("COMMIT")
    assert len(both) == 2, "PREPARE TRANSACTION, then COMMIT PREPARED"
    assert not [line for line in said if "PREPARE" in line], "one node alone needs one phase"


def test_every_whole_table_tells_of_its_changes(spread: Store) -> None:
    with connect(spread.url) as con:
        telling = {
            table.removeprefix("public.")
            for (table,) in con.execute(
                "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%\\_two\\_phase'"
            )
        }
    assert telling == {table for table, column in PLAN.items() if not column}
