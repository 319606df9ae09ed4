"""What is PostgreSQL's alone: lost connections, races of servers, its schema and its SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from guthaben.domain.commands import Command, GrantCredit, Outcome, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from guthaben.store.postgres import connect, name_of, translated
from guthaben.store.postgres_bulk import Rewriter, column_types
from guthaben.store.postgres_cache import ProvenCache
from guthaben.store.postgres_schema import translated as translated_ddl
from guthaben.store.postgres_session import PostgresSession
from guthaben.store.postgres_wire import Answer, Wire
from guthaben.store.postgres_writing import WritingCursor, numbered
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests import postgres
from tests.store.bank import Clock, held, hold, pay, problems, rows


@pytest.fixture
def url() -> str:
    return postgres.fresh()


@pytest.fixture
def database(url: str) -> str:
    return url


@pytest.fixture
def other(url: str, clock: Clock) -> Iterator[Store]:
    """The store of another server."""
    opened = Store(url, clock_ms=clock)
    yield opened
    opened.close()


def connection(store: Store) -> psycopg.Connection[Any]:
    con = store._writers[0]._session.con  # type: ignore[attr-defined]
    assert isinstance(con, psycopg.Connection)
    return con


def wire_of(store: Store, lane: int = 0) -> Wire:
    session = store._writers[lane]._session
    assert isinstance(session, PostgresSession)
    assert session._wire is not None
    return session._wire


def cut(store: Store, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Cut the writer's connection once, right before or right after the server has committed."""
    wire = wire_of(store)
    flush = wire.flush

    def cutting() -> list[Answer]:
        is_last = any(statement.sql == b"COMMIT" for statement, *_rest in wire._queue)
        if is_last and before:
            _terminate(store, connection(store))
        answers = flush()
        if is_last and not before:
            wire.is_lost = True  # what the server answered does not arrive
            _terminate(store, connection(store))
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return answers

    monkeypatch.setattr(wire, "flush", cutting)


def _terminate(store: Store, con: psycopg.Connection[Any]) -> None:
    with connect(store.url) as axe:
        axe.execute("SELECT pg_terminate_backend(%s::int4, 5000)", (con.info.backend_pid,))


@pytest.mark.faults
@pytest.mark.parametrize("before", [True, False])
def test_a_lost_answer_to_commit_is_resolved_by_the_key(
    store: Store, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    pay(store, "p", 10)
    cut(store, monkeypatch, before=before)
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        store.execute("p", Reserve("a", 4))
    assert held(store, "p") == (0 if before else 4)
    told = store.execute("p", Reserve("a", 4))  # it has connected anew
    assert (told.ok, told.replayed) == (True, not before)
    assert (held(store, "p"), problems(store)) == (4, [])


@pytest.mark.faults
def test_a_connection_that_ended_while_idle_is_opened_anew_before_anything_is_sent(
    store: Store,
) -> None:
    pay(store, "p", 10)
    _terminate(store, connection(store))
    assert store.execute("p", Reserve("a", 4)).applied
    assert problems(store) == []


@pytest.mark.faults
def test_a_connection_lost_before_the_last_round_trip_has_done_nothing(store: Store) -> None:
    pay(store, "p", 10)

    def work(space: Workspace) -> None:
        assert space.apply("p", Reserve("a", 4)).ok
        space.flush()
        _terminate(store, connection(store))
        space.cursor.execute("SELECT 1").fetchone()

    with pytest.raises(StoreUnavailable):
        store.run(work)
    assert held(store, "p") == 0
    assert store.execute("p", Reserve("a", 4)).applied
    assert problems(store) == []


def at_once(work: Sequence[Callable[..., Any]]) -> list[Any]:
    """Do all of it on threads that start together."""
    answers: list[Any] = [None] * len(work)
    gate = threading.Barrier(len(work))

    def run(number: int) -> None:
        gate.wait()
        try:
            answers[number] = work[number]()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_servers_that_meet_a_new_practice_make_one(store: Store, other: Store) -> None:
    for turn in range(10):
        work = [
            lambda each=each, key=key, turn=turn: each.execute(
                f"p{turn}", GrantCredit(key, PAID, 5)
            )
            for each, key in ((store, "here"), (other, "there"))
        ]
        assert all(isinstance(answer, Outcome) and answer.ok for answer in at_once(work))
    assert rows(store, "SELECT COUNT(*) FROM credit_practice") == [(10,)]
    assert rows(store, "SELECT SUM(free_nano_usd) FROM credit_grant") == [(100,)]
    assert problems(store) == []


def test_batches_over_the_same_practices_do_not_stop_each_other(store: Store, other: Store) -> None:
    """Each server's batches touch the practices in another order."""
    names = [f"p{number}" for number in range(6)]
    for name in names:
        pay(store, name, 1000)

    def work(each: Store, order: list[str], tag: str) -> list[Any]:
        asked: list[tuple[str, Command]] = [
            (name, Reserve(f"{tag}-{turn}", 1)) for turn in range(20) for name in order
        ]
        return at_once([lambda a=a: each.execute(*a) for a in asked[:60]])

    here, there = at_once(
        [lambda: work(store, names, "here"), lambda: work(other, names[::-1], "there")]
    )
    assert all(isinstance(a, Outcome) and a.ok for a in (*here, *there)), (here, there)
    assert sum(held(store, name) for name in names) == 120
    assert problems(store) == []


def test_the_ceiling_is_exact_over_two_servers(store: Store, other: Store) -> None:
    pay(store, "p", 10)
    answers = at_once(
        [
            lambda each=each, key=key: each.execute("p", Reserve(f"k{key}", 1))
            for key in range(20)
            for each in (store, other)
        ][:40]
    )
    # Both servers use the same twenty keys: what the first reserved, the second hears again.
    applied = [a for a in answers if isinstance(a, Outcome) and a.ok and not a.replayed]
    assert len(applied) == 10
    assert held(store, "p") == 10
    assert problems(store) == []


def test_a_writer_waits_for_the_lock_of_another_and_sees_what_it_did(
    store: Store, url: str
) -> None:
    pay(store, "p", 10)
    call_no = hold(store, "p", 5, "a")
    ((practice_no,),) = rows(store, "SELECT practice_no FROM credit_practice")
    with connect(url) as con:
        con.execute("BEGIN")
        con.execute(
            "SELECT 1 FROM credit_practice WHERE practice_no = %s FOR UPDATE", (practice_no,)
        )
        done = threading.Event()
        answers: list[Outcome] = []

        def settle() -> None:
            answers.append(store.execute("p", Settle(call_no, 3)))
            done.set()

        thread = threading.Thread(target=settle)
        thread.start()
        assert not done.wait(0.2)
        con.execute("COMMIT")
    thread.join(10)
    assert answers[0].applied


# ---- rewriting


ODD = 'it\'s \\ "ü" \u2028 {NULL}, %s'


def test_every_row_at_once_is_the_same_statement(url: str) -> None:
    with connect(url) as con:
        rewriter = Rewriter(column_types(con))
        insert = "INSERT INTO credit_meta (name, value) VALUES (?, ?)"
        update = "UPDATE credit_meta SET value = ? WHERE name = ?"
        wire = Wire(con)
        cursor = WritingCursor(wire, rewriter, ProvenCache(), trusts=False)
        cursor.executemany(insert, [(f"n{n}", ODD if n else "null") for n in range(9)])
        cursor.executemany(update, [(f"v{n}", f"n{n}") for n in range(2, 9, 2)])
        found = dict(cursor.execute("SELECT name, value FROM credit_meta").fetchall())
        assert [found[f"n{n}"] for n in range(3)] == ["null", ODD, "v2"]
        assert wire.round_trips == 1
        cursor.end()
    assert rewriter.bulk(insert) is not None
    assert rewriter.bulk(update) is not None
    for other in (
        "UPDATE credit_meta SET value = value || ? WHERE name = ?",
        "UPDATE credit_meta SET value = ? WHERE name > ?",
        "DELETE FROM credit_meta WHERE name = ?",
        "INSERT INTO credit_meta (name, value) VALUES (?, lower(?))",
    ):
        assert rewriter.bulk(other) is None, other


def test_values_travel_as_they_are(url: str) -> None:
    kinds = ("bytea", "bigint", "text", "bigint")
    rows: list[tuple[Any, ...]] = [
        (b"\x01\xff", True, ODD, None),
        (b"", -(2**62), "", 7),
        (None, 0, None, PAID),
    ]
    with connect(url) as con:
        wire = Wire(con)
        alone = [
            wire.ask(f"SELECT {', '.join(f'${n}::{k}' for n, k in enumerate(kinds, 1))}", row)
            for row in rows
        ]
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(kinds, start=1))
        together = wire.ask(
            f"SELECT * FROM unnest({arrays})", [list(column) for column in zip(*rows, strict=True)]
        )
    assert [one[0] for one in alone] == together == rows


def test_a_text_that_cannot_be_stored_is_refused_before_anything_is_sent(url: str) -> None:
    with connect(url) as con:
        wire = Wire(con)
        for odd in ("a\x00b", ["a\x00b"]):
            with pytest.raises(psycopg.DataError, match="NUL"):
                wire.send("SELECT $1", (odd,))
        with pytest.raises(UnicodeEncodeError):
            wire.send("SELECT $1", ("\ud800",))
        with pytest.raises(TypeError, match="float"):
            wire.send("SELECT $1", (1.5,))
        assert wire.flush() == []


def test_a_flush_ends_with_its_first_error_and_the_next_one_works(url: str) -> None:
    with connect(url) as con:
        wire = Wire(con)
        for _turn in range(3):  # asked for once, prepared, prepared already
            wire.send("SELECT 1")
            wire.send("SELECT 1 / $1", (0,))
            wire.send("SELECT nothing")
            with pytest.raises(psycopg.errors.DivisionByZero):
                wire.flush()
            wire.send("DO $$ BEGIN RAISE EXCEPTION 'odd' USING ERRCODE = 'ZZ123'; END $$")
            with pytest.raises(psycopg.DatabaseError, match="odd"):
                wire.flush()
            assert wire.ask("SELECT $1 + 1", (1,)) == [(2,)]


def test_statements_and_triggers_are_translated() -> None:
    asked = "SELECT a FROM t INDEXED BY i WHERE b LIKE 'x%' AND c = ? /* FOR UPDATE */"
    assert numbered(asked) == "SELECT a FROM t WHERE b LIKE 'x%' AND c = $1 FOR UPDATE"
    assert translated(asked) == "SELECT a FROM t WHERE b LIKE 'x%%' AND c = %s /* FOR UPDATE */"
    with pytest.raises(ValueError, match="no translation for this trigger"):
        list(translated_ddl("CREATE TRIGGER odd AFTER UPDATE ON t BEGIN SELECT 1; END;"))


def test_a_name_has_no_password() -> None:
    assert name_of("postgresql://u:secret@db.example:5433/credit?x=y") == (
        "postgresql://db.example:5433/credit"
    )
    assert (
        name_of("postgresql://u:secret@/credit?host=/run/pg") == "postgresql://local socket/credit"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_transfer SET amount_nano_usd = 1",
        "DELETE FROM credit_transfer",
        "TRUNCATE credit_transfer",
        "UPDATE credit_key SET body_hash = 1",
        "DELETE FROM credit_key",
        "DELETE FROM credit_payment",
    ],
)
def test_what_is_append_only_stays(store: Store, url: str, statement: str) -> None:
    pay(store, "p", 10)
    with connect(url) as con:
        con.execute("INSERT INTO credit_payment VALUES ('stripe', 'payment', 'pi_1', 1, 1, 1, 1)")
        with pytest.raises(psycopg.errors.RaiseException, match=r"append-only|kept for ever"):
            con.execute(statement.encode())
    assert problems(store) == []


def test_a_text_that_can_not_be_stored_is_the_callers_mistake(store: Store) -> None:
    question = "SELECT 1 FROM credit_practice WHERE practice_id = ?"
    for ask in (store.read, lambda work: store.run(lambda space: work(space.cursor))):
        with pytest.raises(InvalidInput, match="NUL"):
            ask(lambda cursor: cursor.execute(question, ("a\x00b",)))
    pay(store, "p", 100)
