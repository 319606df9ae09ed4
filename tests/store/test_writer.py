"""The writer: batches are folded, the culprit alone is refused, and an answer is never a guess."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.apply import apply
from guthaben.domain.commands import Command, GrantCredit, Outcome, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import InternalRefused, OutcomeUnknown, StoreUnavailable
from guthaben.store import workspace
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from guthaben.store.writer import Job, Order
from tests.store.bank import Clock, connection, free, held, hold, pay, problems, rows, together


def commits(store: Store, done: list[str]) -> int:
    return sum(statement == "COMMIT" for statement in done)


@pytest.mark.sqlite
def test_commands_that_wait_share_one_commit(store: Store, statements: list[str]) -> None:
    asked: list[tuple[str, Command]] = [
        (f"p{n % 3}", GrantCredit(f"g{n}", PAID, n + 1)) for n in range(30)
    ]
    answers = together(store, asked)
    assert all(isinstance(a, Outcome) and a.applied for a in answers)
    assert commits(store, statements) == 3  # the two jobs of this test, and one for all thirty
    assert [free(store, f"p{n}") for n in range(3)] == [145, 155, 165]


@pytest.mark.sqlite
def test_a_batch_has_an_end(store: Store, statements: list[str]) -> None:
    asked: list[tuple[str, Command]] = [("p", GrantCredit(f"g{n}", PAID, 1)) for n in range(600)]
    together(store, asked)
    assert commits(store, statements) > 3
    assert free(store, "p") == 600


def test_in_a_batch_each_command_sees_the_one_before(store: Store) -> None:
    answers = together(
        store,
        [
            ("p", GrantCredit("g", PAID, 50)),
            ("p", Reserve("a", 30)),
            ("p", Reserve("b", 30)),
            ("p", Reserve("a", 30)),
            ("p", Settle(1, 10)),
            ("p", Reserve("b", 30)),
            ("p", GrantCredit("g", PAID, 50)),
            ("p", Settle(1, 10)),
        ],
    )
    told = [(a.ok, a.reason, a.applied, a.replayed) for a in answers]
    assert told == [
        (True, "", True, False),
        (True, "", True, False),
        (False, "insufficient_credit", False, False),
        (True, "", False, True),
        (True, "", True, False),
        (True, "", True, False),
        (True, "", False, True),
        (True, "", False, True),
    ]
    assert (free(store, "p"), held(store, "p")) == (10, 30)
    assert problems(store) == []


def test_a_refused_command_disturbs_nobody(store: Store) -> None:
    pay(store, "p", 10)
    answers = together(
        store, [("p", Reserve("a", 4)), ("p", Reserve("much", 999)), ("p", Reserve("b", 6))]
    )
    assert [a.ok for a in answers] == [True, False, True]
    assert held(store, "p") == 10


BAD: dict[str, Command] = {
    "a key that no database can store": Reserve("\udc80", 1),
    "a key that is too long": Reserve("k" * 256, 1),
    "no key": Reserve("", 1),
    "a kind that does not exist": GrantCredit("g", 7, 5),
    "a number too large for a row": Reserve("n", 1, 1000, grace_ms=1 << 70),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_command_that_breaks_is_refused_alone_and_alarmed(
    store: Store, bad: Command, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    pay(store, "p", 10)
    asked: list[tuple[str, Command]] = [("p", Reserve("a", 4)), ("q", GrantCredit("g", PAID, 5))]
    asked.insert(place, ("p", bad))
    with caplog.at_level(logging.CRITICAL, logger="guthaben.writer"):
        answers = together(store, asked)
    assert isinstance(answers.pop(place), InternalRefused)
    assert all(isinstance(answer, Outcome) and answer.applied for answer in answers)
    assert (held(store, "p"), free(store, "q")) == (4, 5)
    alarms = rows(store, "SELECT code, subject FROM credit_alarm")
    assert [code for code, _ in alarms] == ["internal_refused"]
    assert alarms[0][1].startswith(type(bad).__name__)
    assert problems(store) == []


def test_a_fault_of_ours_hits_its_own_caller_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = apply

    def faulty(practice: Any, subject: Any, command: Any, now_ms: int) -> Any:
        if getattr(command, "key", "") == "cursed":
            raise ZeroDivisionError("a fault of ours")
        return real(practice, subject, command, now_ms)

    monkeypatch.setattr(workspace, "apply", faulty)
    pay(store, "p", 10)
    with caplog.at_level(logging.CRITICAL, logger="guthaben.writer"):
        answers = together(
            store, [("p", Reserve("a", 1)), ("p", Reserve("cursed", 1)), ("p", Reserve("b", 1))]
        )
        with pytest.raises(InternalRefused, match="ZeroDivisionError"):
            store.execute("p", Reserve("cursed", 1))
    assert [type(answer) for answer in answers] == [Outcome, InternalRefused, Outcome]
    assert held(store, "p") == 2
    assert len(rows(store, "SELECT 1 FROM credit_alarm")) == 1  # once per open alarm


def test_a_closed_store_says_so(path: Path, store: Store) -> None:
    pay(store, "p", 10)
    store.close()
    store.close()
    for use in (
        lambda: store.execute("p", Reserve("a", 1)),
        lambda: store.send("p", Reserve("a", 1)),
        lambda: store.run(lambda space: None),
        lambda: store.read(lambda cursor: cursor.execute("SELECT 1").fetchone()),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()


def test_what_is_queued_before_the_end_is_done(store: Store, path: Path, clock: Clock) -> None:
    pay(store, "p", 10)
    going, go_on = threading.Event(), threading.Event()

    def busy(_space: Workspace) -> None:
        going.set()
        assert go_on.wait(20)

    answers: list[Any] = []
    store._writers[0].submit(Job(busy, answers.append))
    assert going.wait(20)
    store._writers[0].submit(Order("p", Reserve("a", 4), answers.append))
    closing = threading.Thread(target=store.close)
    closing.start()
    go_on.set()
    closing.join(20)
    assert not closing.is_alive()
    assert [type(answer) for answer in answers] == [type(None), Outcome]
    again = Store(f"sqlite:///{path}", clock_ms=clock)
    assert held(again, "p") == 4
    again.close()


def test_nobody_is_left_waiting_when_many_come_while_it_closes(path: Path) -> None:
    for _ in range(10):
        store = Store(f"sqlite:///{path}")
        heard: list[str] = []

        def ask(store: Store = store, heard: list[str] = heard) -> None:
            try:
                while True:
                    store.execute("p", GrantCredit("g", PAID, 1))
            except StoreUnavailable as error:
                heard.append(error.why)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        store.close()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
        assert all("closed" in why for why in heard)
        assert len(heard) == 4


# ---- what the database may do


class Faulty:
    """A connection that fails once where a test wants it to."""

    def __init__(self, con: sqlite3.Connection, at: str, *, afterwards: bool) -> None:
        self.con, self.at, self.afterwards, self.times = con, at, afterwards, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.con, name)

    def cursor(self) -> Any:
        return _FaultyCursor(self, self.con.cursor())

    def execute(self, sql: str, *values: Any) -> Any:
        return self.cursor().execute(sql, *values)


class _FaultyCursor:
    def __init__(self, owner: Faulty, cursor: sqlite3.Cursor) -> None:
        self._owner, self._cursor = owner, cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def _run(self, run: Any, sql: str, values: tuple[Any, ...]) -> Any:
        hit = sql.startswith(self._owner.at) and self._owner.times > 0
        if hit:
            self._owner.times -= 1
            if self._owner.afterwards:
                run(sql, *values)
            raise sqlite3.OperationalError("disk I/O error")
        return run(sql, *values)

    def execute(self, sql: str, *values: Any) -> Any:
        return self._run(self._cursor.execute, sql, values)

    def executemany(self, sql: str, *values: Any) -> Any:
        return self._run(self._cursor.executemany, sql, values)


def fail(store: Store, at: str, *, afterwards: bool = False) -> None:
    """Let the next statement that begins so fail, before or after the database has done it."""
    faulty = Faulty(connection(store), at, afterwards=afterwards)
    store._writers[0]._session.con = faulty  # type: ignore[attr-defined]


@pytest.mark.sqlite
def test_a_commit_that_failed_for_sure_is_unavailable(store: Store) -> None:
    pay(store, "p", 10)
    fail(store, "COMMIT")
    with pytest.raises(StoreUnavailable, match="disk I/O error"):
        store.execute("p", Reserve("a", 4))
    assert held(store, "p") == 0
    assert store.execute("p", Reserve("a", 4)).applied  # it has connected anew
    assert problems(store) == []


@pytest.mark.sqlite
def test_a_commit_whose_answer_was_lost_is_unknown_and_a_repetition_tells(store: Store) -> None:
    pay(store, "p", 10)
    fail(store, "COMMIT", afterwards=True)
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        store.execute("p", Reserve("a", 4))
    assert held(store, "p") == 4
    assert store.execute("p", Reserve("a", 4)).replayed
    assert (held(store, "p"), problems(store)) == (4, [])


@pytest.mark.parametrize(
    "at", ["BEGIN", "PRAGMA", "INSERT INTO credit_call", "UPDATE credit_practice", "SELECT"]
)
@pytest.mark.sqlite
def test_a_batch_that_the_database_fails_fails_all_its_callers(store: Store, at: str) -> None:
    pay(store, "p", 10)
    answers: list[Any] = []

    def queue_up(_space: Workspace) -> None:
        for key in ("a", "b"):
            store._writers[0].submit(Order("p", Reserve(key, 1), answers.append))
        fail(store, at)  # from the next transaction on

    store.run(queue_up)
    store.run(lambda space: None)
    assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]
    assert held(store, "p") == 0
    assert store.execute("p", Reserve("c", 1)).applied
    assert problems(store) == []


@pytest.mark.sqlite
def test_states_of_a_batch_that_was_undone_are_forgotten(store: Store) -> None:
    pay(store, "p", 10)
    call_no = hold(store, "p", 4, "a")
    fail(store, "COMMIT")
    with pytest.raises(StoreUnavailable):
        store.execute("p", Settle(call_no, 3))
    told = store.execute("p", Settle(call_no, 2))
    assert (told.applied, told.replayed) == (True, False)
    assert (free(store, "p"), problems(store)) == (8, [])


# ---- jobs


def test_a_job_that_breaks_leaves_nothing(store: Store) -> None:
    pay(store, "p", 10)

    def work(space: Workspace) -> None:
        assert space.apply("p", Reserve("a", 4)).ok
        space.flush()
        space.cursor.execute("INSERT INTO credit_meta VALUES ('mine', '1')")
        raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        store.run(work)
    assert held(store, "p") == 0
    assert rows(store, "SELECT 1 FROM credit_meta WHERE name = 'mine'") == []
    assert store.execute("p", Reserve("a", 10)).applied
    assert problems(store) == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_job_raises_is_its_callers(store: Store, error: BaseException) -> None:
    def work(_space: Workspace) -> None:
        raise error

    with pytest.raises(type(error)):
        store.run(work)
    pay(store, "p", 10)
    assert free(store, "p") == 10


def test_a_job_gives_what_its_work_gives(store: Store) -> None:
    assert store.run(lambda space: space.practice("p").practice_id) == "p"
    assert store.run(lambda space: None) is None


def test_commands_and_jobs_keep_their_order(store: Store) -> None:
    pay(store, "p", 10)
    seen: list[int] = []

    def look(space: Workspace) -> None:
        seen.append(space.practice("p").held_nano_usd)

    def queue_up(_space: Workspace) -> None:
        writer = store._writers[0]
        writer.submit(Order("p", Reserve("a", 1), lambda _answer: None))
        writer.submit(Job(look, lambda _answer: None))
        writer.submit(Order("p", Reserve("b", 2), lambda _answer: None))
        writer.submit(Job(look, lambda _answer: None))

    store.run(queue_up)
    store.run(look)
    assert seen == [1, 3, 3]


def test_a_writer_that_breaks_leaves_nobody_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(batch: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(store._writers[0], "_batch", broken)
    with (
        caplog.at_level(logging.CRITICAL + 1, logger="guthaben.writer"),
        pytest.raises(StoreUnavailable),
    ):
        store.run(lambda space: None)
    with pytest.raises(StoreUnavailable):
        store.execute("p", Reserve("a", 1))
    store.close()


def test_in_memory_it_is_the_same(clock: Clock) -> None:
    with_nothing = Store("sqlite://", clock_ms=clock)
    pay(with_nothing, "p", 10)
    hold(with_nothing, "p", 4, "a")
    assert (held(with_nothing, "p"), free(with_nothing, "p")) == (4, 6)
    assert problems(with_nothing) == []
    with_nothing.close()
