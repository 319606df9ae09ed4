"""Background jobs: one leader, fences, turns that are late, fail, hang or are taken over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guthaben.errors import LeadershipLost, StoreUnavailable
from guthaben.services import jobs
from guthaben.services.jobs import ALARM_AFTER, LEASE_S, Job, Runner, Turn, job_states
from guthaben.store import jobs as rows
from guthaben.store.jobs import JobRow
from guthaben.store.store import Store
from tests.databases import Database
from tests.services.house import Clock

Place = Callable[..., "Server"]


class Server:
    """One process of several on a database: its own store, clock and sense of time."""

    def __init__(self, database: Database, *more: Job, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = Store(database.url, clock_ms=self.clock)
        self.turns: list[Turn] = []
        self.heard: list[str] = []
        self.breaks: Exception | None = None
        self.passed_s = 0.0
        self.runner = Runner(
            self.store,
            [Job("count", 60, self.count), *more],
            on_turn=lambda row: self.heard.append(row.outcome),
            monotonic_s=lambda: self.passed_s,
        )

    def count(self, turn: Turn) -> None:
        self.turns.append(turn)
        if self.breaks is not None:
            raise self.breaks

    def wait(self, seconds: int) -> None:
        """Let time pass, for the clock and for the process."""
        self.clock.wait(seconds)
        self.passed_s += seconds

    def due(self) -> int:
        """Do every turn that is due, as the threads would; tell how many there were."""
        before = len(self.turns)
        for desk in self.runner._desks.values():
            self.runner._turn(desk)
        return len(self.turns) - before

    @property
    def row(self) -> Any:
        return next(state.row for state in job_states(self.store)[1] if state.row.name == "count")


@pytest.fixture
def server(database: Database) -> Iterator[Place]:
    opened: list[Server] = []

    def make(*more: Job, **options: Any) -> Server:
        opened.append(Server(database, *more, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.runner.stop(5)
        one.store.close()


def test_one_leads_and_the_others_stand_by(server: Place) -> None:
    first, second = server(), server()
    assert first.runner.beat()
    assert not second.runner.beat()
    assert (first.due(), second.due()) == (1, 0)
    first.wait(LEASE_S - 1)
    second.wait(LEASE_S - 1)
    assert not second.runner.beat()
    assert first.runner.beat(), "a heartbeat keeps the lead"
    second.wait(2)
    assert not second.runner.beat()
    second.wait(LEASE_S)
    assert second.runner.beat(), "the lease of one that fell silent runs out"
    assert not first.runner.beat()
    assert not first.runner.leads()


def test_a_leader_that_slept_through_its_lease_writes_nothing_more(server: Place) -> None:
    first, second = server(), server()
    first.runner.beat()
    first.due()
    (old,) = first.turns
    assert old.run(lambda space: space.now_s) == first.clock.at_s
    second.wait(LEASE_S + 1)
    assert second.runner.beat()
    # The first one's own clock stood still: it believes that it leads, and the fence knows better.
    assert old.may_go_on()
    with pytest.raises(LeadershipLost):
        old.run(lambda space: space.practice_no("never"))
    assert (
        second.store.read(lambda cur: cur.execute("SELECT * FROM credit_practice").fetchall()) == []
    )
    second.wait(60)
    second.runner.beat()
    assert second.due() == 1
    second.runner.beat()
    assert second.turns[0].run(lambda space: space.now_s) == second.clock.at_s
    first.clock.wait(61)
    first.due()  # what it does is idempotent; what it notes of it is refused
    assert not first.runner.beat()
    assert second.row.fence == second.turns[0].fence > old.fence


def test_without_a_heartbeat_nobody_believes_to_lead(server: Place) -> None:
    one = server()
    one.runner.beat()
    one.passed_s += LEASE_S
    assert not one.runner.leads()
    assert one.due() == 0
    one.runner.beat()
    assert one.due() == 1


def test_turns_come_when_they_are_due_and_missed_ones_are_made_up_for_by_one(server: Place) -> None:
    one = server()
    one.runner.beat()
    assert [one.due(), one.due()] == [1, 0]
    one.clock.wait(59)
    assert one.due() == 0
    one.clock.wait(1)
    assert one.due() == 1
    one.clock.wait(60 * 60)
    assert [one.due(), one.due()] == [1, 0]
    one.runner.beat()
    assert (one.row.lag_ms, one.row.runs, one.row.outcome) == (59 * 60_000, 3, "ok")
    assert one.heard == ["ok"] * 3


def test_a_clock_that_was_set_back_stops_neither_turns_nor_the_next_leader(server: Place) -> None:
    first, second = server(), server()
    first.runner.beat()
    first.due()
    first.runner.beat()
    first.clock.wait(-86_400)
    second.clock.wait(-86_400)
    assert first.due() == 1
    assert second.runner.beat(), "a lease of tomorrow is no lease"


def test_clocks_that_differ_a_little_do_not_fight(server: Place) -> None:
    ahead, behind = server(), server()
    ahead.wait(30)
    assert ahead.runner.beat()
    for _ in range(5):
        assert not behind.runner.beat()
        assert ahead.runner.beat()


def test_the_next_leader_keeps_to_the_schedule(server: Place) -> None:
    first, second = server(), server()
    first.runner.beat()
    first.due()
    first.runner.beat()
    second.wait(LEASE_S)
    second.runner.beat()
    assert second.due() == 0, "the first one's turn was 12 s ago"
    second.wait(60 - LEASE_S)
    second.runner.beat()
    assert second.due() == 1


def test_a_turn_that_was_cut_off_is_made_again_and_shown_as_failed(server: Place) -> None:
    first, second = server(), server()
    first.runner.beat()
    desk = first.runner._desks["count"]
    desk.row = desk.row._replace(outcome="running", started_at_ms=first.clock.ms)
    first.runner.beat()  # and then it was killed
    assert first.row.outcome == "running"
    second.wait(LEASE_S)
    second.runner.beat()
    second.runner.beat()
    assert (second.row.outcome, second.row.error) == ("failed", "interrupted")
    assert second.due() == 1


def test_failures_are_tried_again_sooner_counted_and_alarmed_once(server: Place) -> None:
    one = server(Job("daily", 86_400, lambda _turn: None))
    one.runner.beat()
    one.breaks = StoreUnavailable("gone")
    for _ in range(ALARM_AFTER):
        assert one.due() == 1
        one.wait(60)
        one.runner.beat()
    assert one.row.error == "store_unavailable"
    assert (one.row.failures_in_a_row, one.row.failures) == (5, 5)
    assert not next(s for s in job_states(one.store)[1] if s.row.name == "count").is_well
    one.runner.beat()
    one.due()
    one.runner.beat()
    alarms = one.store.read(
        lambda cur: cur.execute("SELECT code, subject FROM credit_alarm").fetchall()
    )
    told = one.store.read(
        lambda cur: cur.execute("SELECT kind, practice_no FROM credit_notice").fetchall()
    )
    assert (alarms, told) == ([("job_failing", "count")], [("job_failing", 0)])
    one.breaks = None
    one.wait(60)
    one.runner.beat()
    assert one.due() == 1
    one.runner.beat()
    assert (one.row.failures_in_a_row, one.row.failures, one.row.runs) == (0, 6, 7)
    assert all(state.is_well for state in job_states(one.store)[1])


def test_a_long_interval_does_not_make_a_failure_wait_for_it(server: Place) -> None:
    one = server()
    daily = jobs._ended(JobRow("daily", 1, 86_400, 0), 0, "broke")
    assert daily.next_due_ms == 30_000
    assert jobs._ended(daily, 0, "broke").next_due_ms == 60_000
    many = daily._replace(failures_in_a_row=50)
    assert jobs._ended(many, 0, "broke").next_due_ms == 86_400_000
    assert jobs._ended(one.runner._desks["count"].row, 0, "broke").next_due_ms == 30_000


def test_a_job_nobody_does_is_overdue(server: Place) -> None:
    one = server()
    one.runner.work_once()
    assert all(state.is_well for state in job_states(one.store)[1])
    one.clock.wait(120)
    assert all(state.is_well for state in job_states(one.store)[1])
    one.clock.wait(30)
    lease, (state,) = job_states(one.store)
    assert (lease, state.overdue_s, state.is_well) == (None, 90, False)


def test_work_once_does_what_is_due_and_resigns(server: Place) -> None:
    first, second = server(), server()
    done = first.runner.work_once()
    assert done is not None
    assert [row.outcome for row in done] == ["ok"]
    assert second.runner.work_once() == [], "it is not due, and nobody else leads"
    everything = second.runner.work_once(everything=True)
    assert everything is not None
    assert [row.runs for row in everything] == [2]
    assert second.runner.beat()
    assert first.runner.work_once() is None, "somebody else is at it"


def test_the_threads_do_the_jobs_and_end_at_once(database: Database) -> None:
    turned, slow, began = threading.Semaphore(0), threading.Event(), threading.Event()

    def hang(turn: Turn) -> None:
        began.set()
        while turn.may_go_on():
            slow.wait(0.01)

    store = Store(database.url)
    some = [Job("quick", 3600, lambda _turn: turned.release()), Job("slow", 1, hang)]
    runner = Runner(store, some)
    runner.start()
    assert turned.acquire(timeout=5), "the first turn is at once"
    assert began.wait(5)
    runner.wake("quick")
    assert turned.acquire(timeout=5), "woken, it does not wait for its hour"
    runner.wake("nobody")
    runner.stop(5)
    lease, states = job_states(store)
    assert lease is None, "it resigned"
    assert {state.row.name: state.row.runs for state in states} == {"quick": 2, "slow": 1}
    runner.wake("quick")
    assert not turned.acquire(timeout=0.1)
    runner.start()
    runner.wake("quick")
    assert turned.acquire(timeout=5), "it can be started again"
    runner.stop(5)
    store.close()


def test_an_outage_of_the_database_is_survived(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT_S", 0.01)
    store = Store(database.url)
    turned, failed = threading.Semaphore(0), threading.Event()
    whole = store.run

    def gone(_work: object) -> Any:
        failed.set()
        raise StoreUnavailable("gone")

    runner = Runner(store, [Job("quick", 3600, lambda _turn: turned.release())])
    monkeypatch.setattr(store, "run", gone)
    runner.start()
    assert failed.wait(5)
    assert not turned.acquire(timeout=0.05)
    monkeypatch.setattr(store, "run", whole)
    assert turned.acquire(timeout=5)
    runner.stop(5)
    store.close()


def test_a_later_leader_s_word_stands(server: Place) -> None:
    one = server()
    one.runner.work_once()

    def write(fence: int) -> int:
        row = one.row._replace(fence=fence, runs=fence)
        one.store.run(lambda space: rows.save_job(space.cursor, row))
        return int(one.row.runs)

    assert [write(7), write(6), write(8)] == [7, 7, 8]


def test_two_jobs_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    store = Store("sqlite://")
    with pytest.raises(AssertionError, match="one name"):
        Runner(store, [Job("a", 1, print), Job("a", 1, print)])
    store.close()
