"""What is PostgreSQL's alone: lost connections, races of servers, its schema and its SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from guthaben.domain.commands import Command, GrantCredit, Outcome, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import OutcomeUnknown, StoreUnavailable
from guthaben.store.postgres import PostgresCursor, connect, name_of, translated
from guthaben.store.postgres_bulk import Rewriter, column_types, document
from guthaben.store.postgres_schema import translated as translated_ddl
from guthaben.store.store import Store
from tests import postgres
from tests.store.bank import Clock, held, hold, pay, problems, rows


@pytest.fixture
def url() -> str:
    return postgres.fresh()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    opened = Store(url, clock_ms=clock)
    yield opened
    opened.close()


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


def cut(store: Store, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Cut the writer's connection once, right before or right after the server has committed."""
    con = connection(store)
    execute = con.execute

    def cutting(query: Any, *values: Any, **more: Any) -> Any:
        if query != "COMMIT":
            return execute(query, *values, **more)
        if before:
            _terminate(store, con)
        answer = execute(query, *values, **more)
        if not before:
            assert con._pipeline is not None
            con._pipeline.sync()  # the server has answered: it is committed
            _terminate(store, con)
        return answer

    monkeypatch.setattr(con, "execute", cutting)


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
def test_a_connection_that_is_gone_is_opened_anew(store: Store) -> None:
    pay(store, "p", 10)
    _terminate(store, connection(store))
    with pytest.raises(StoreUnavailable):
        store.execute("p", Reserve("a", 4))
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
    with connect(url) as con:
        con.execute("BEGIN")
        con.execute("SELECT 1 FROM credit_practice WHERE practice_id = 'p' FOR UPDATE")
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


def test_every_row_at_once_is_the_same_statement(url: str) -> None:
    with connect(url) as con:
        rewriter = Rewriter(column_types(con))
        insert = "INSERT INTO credit_meta (name, value) VALUES (?, ?)"
        update = "UPDATE credit_meta SET value = ? WHERE name = ?"
        cursor = PostgresCursor(con, writes=False, rewriter=rewriter)
        cursor.executemany(insert, [(f"n{n}", 'it\'s \\ "ü" \u2028') for n in range(9)])
        cursor.executemany(update, [(f"v{n}", f"n{n}") for n in range(0, 9, 2)])
        found = dict(cursor.execute("SELECT name, value FROM credit_meta").fetchall())
        assert [found[f"n{n}"] for n in range(3)] == ["v0", 'it\'s \\ "ü" \u2028', "v2"]
    assert rewriter.bulk(insert) is not None
    assert rewriter.bulk(update) is not None
    for other in (
        "UPDATE credit_meta SET value = value || ? WHERE name = ?",
        "UPDATE credit_meta SET value = ? WHERE name > ?",
        "DELETE FROM credit_meta WHERE name = ?",
        "INSERT INTO credit_meta (name, value) VALUES (?, lower(?))",
    ):
        assert rewriter.bulk(other) is None, other


def test_bytes_and_booleans_travel_in_a_document(url: str) -> None:
    with connect(url) as con:
        rewriter = Rewriter(column_types(con))
    bulk = rewriter.bulk("UPDATE credit_practice SET head = ?, status = ? WHERE practice_no = ?")
    assert bulk is not None
    assert document(bulk, [(b"\x01\xff", True, 3)]) == (
        '[{"head": "\\\\x01ff", "status": 1, "practice_no": 3}]'
    )


def test_statements_and_triggers_are_translated() -> None:
    asked = "SELECT a FROM t INDEXED BY i WHERE b LIKE 'x%' AND c = ? /* FOR UPDATE */"
    said = "SELECT a FROM t WHERE b LIKE 'x%%' AND c = %s "
    assert translated(asked, writes=True) == said + "FOR UPDATE"
    assert translated(asked, writes=False) == said + "/* FOR UPDATE */"
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
