"""Many at once: the ceiling holds, one ending wins, and nobody starves."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.calls import Status
from guthaben.domain.commands import (
    ClaimTopup,
    Command,
    Expire,
    Fulfil,
    OpenEvent,
    Outcome,
    Release,
    Reserve,
    Settle,
)
from guthaben.domain.topup import PENDING, TOPUP_PURCHASE, CreditEvent
from guthaben.store.store import Store
from tests import databases
from tests.faults.workers import attack, busy
from tests.store.bank import Clock, free, held, hold, pay, problems, rows
from tests.store.test_payments import switch_on

pytestmark = pytest.mark.faults

SPAWN = multiprocessing.get_context("spawn")
PROCESSES, THREADS = 4, 64
MOST_OVERTAKEN = 300
"""Far above what chance does among four, far below what SQLite's own lock does to a loser."""

Fresh = Callable[[], str]


@pytest.fixture
def fresh(database_kind: str, tmp_path: Path) -> Fresh:
    """Give the URL of an empty database; the one before is not looked at any more."""
    numbers = itertools.count()

    def make() -> str:
        number = next(numbers) if database_kind == databases.SQLITE else 0
        return databases.made(database_kind, tmp_path, number).url

    return make


@pytest.fixture
def url(fresh: Fresh) -> str:
    return fresh()


def crowd(work: Callable[..., None], url: str, *args: Any) -> list[Any]:
    """Run the work in several processes that start together; give what each told."""
    ready, told = SPAWN.Barrier(PROCESSES), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=work, args=(url, number, *args, ready, told))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    answers = [told.get(timeout=90) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return answers


@pytest.mark.soak
def test_credit_for_ten_calls_admits_exactly_ten(fresh: Fresh, soak_factor: int) -> None:
    for _turn in range(3 * soak_factor):
        database = fresh()
        with_credit = Store(database)
        pay(with_credit, "p", 109)
        told = crowd(attack, database, THREADS)
        heard = {key: answer for answers in told for key, answer in answers.items()}
        assert Counter(heard.values()) == {
            "admitted": 10, "insufficient_credit": PROCESSES * THREADS - 10,
        }  # fmt: skip
        admitted = [key for key, answer in heard.items() if answer == "admitted"]
        found = rows(with_credit, "SELECT key FROM credit_call")
        assert sorted(key for (key,) in found) == sorted(admitted)
        assert (held(with_credit, "p"), free(with_credit, "p")) == (100, 9)
        assert problems(with_credit) == []
        with_credit.close()


@pytest.mark.soak
def test_threads_alone_admit_exactly_ten(fresh: Fresh, soak_factor: int) -> None:
    for _turn in range(5 * soak_factor):
        store = Store(fresh())
        pay(store, "p", 100)
        told = at_once(store, [("p", Reserve(f"k{n}", 10)) for n in range(THREADS)])
        assert sum(outcome.applied for outcome in told) == 10
        assert (held(store, "p"), problems(store)) == (100, [])
        store.close()


def at_once(store: Store, asked: list[tuple[str, Command]]) -> list[Outcome]:
    """Let each command come from a thread of its own, all at the same time."""
    told: list[Outcome | None] = [None] * len(asked)
    barrier = threading.Barrier(len(asked))

    def one(place: int) -> None:
        barrier.wait(60)
        told[place] = store.execute(*asked[place])

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    outcomes = [outcome for outcome in told if outcome is not None]
    assert len(outcomes) == len(asked)
    return outcomes


@pytest.mark.soak
def test_of_many_endings_one_wins_and_the_others_hear_it(url: str, soak_factor: int) -> None:
    clock = Clock()
    store = Store(url, clock_ms=clock)
    pay(store, "p", 100_000)
    winners = set()
    for turn in range(40 * soak_factor):
        before = free(store, "p")
        told = store.execute("p", Reserve(f"k{turn}", 40, 1000))
        assert told.call is not None
        number = told.call.call_no
        clock.wait(1000)
        endings: list[Command] = [
            Settle(number, 25), Release(number), Release(number, 2), Expire(number),
        ] * 2  # fmt: skip
        random.shuffle(endings)
        outcomes = at_once(store, [("p", ending) for ending in endings])
        assert all(outcome.ok and outcome.call is not None for outcome in outcomes)
        # A settle that comes after expiry or an exception is recorded once more, as late.
        statuses = [Status(o.call.status) for o in outcomes if o.applied and o.call is not None]
        ended = [status for status in statuses if status is not Status.SETTLED_LATE]
        assert len(ended) == 1
        assert len(statuses) <= 2
        final = rows(store, "SELECT status, cost_nano_usd FROM credit_call ORDER BY call_no")[-1]
        expected = Status.SETTLED_LATE if Status.SETTLED_LATE in statuses else ended[0]
        cost = 0 if expected is Status.RELEASED else 25
        assert final == (expected, cost)
        assert free(store, "p") == before - cost
        winners.add(expected)
    assert len(winners) >= 2, "chance decided the same way every time: no race took place"
    assert (held(store, "p"), problems(store)) == (0, [])
    store.close()


def test_one_key_from_many_threads_is_one_call(url: str) -> None:
    store = Store(url)
    pay(store, "p", 1000)
    told = at_once(store, [("p", Reserve("same", 10)) for _ in range(THREADS)])
    assert [outcome.ok for outcome in told] == [True] * THREADS
    assert sum(outcome.applied for outcome in told) == 1
    assert {outcome.call.call_no for outcome in told if outcome.call} == {1}
    assert (held(store, "p"), problems(store)) == (10, [])
    store.close()


def test_one_payment_told_by_many_is_one_credit(url: str) -> None:
    stores = [Store(url) for _ in range(3)]
    event = CreditEvent(0, TOPUP_PURCHASE, PENDING, 100, 3000)
    for _ in range(12):
        stores[0].execute("p", OpenEvent(event))
    told: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda store=stores[n % 3], no=n + 1: told.append(
                store.execute("p", Fulfil(no, "pi_1", f"cs_{no}")).applied
            )
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == [False] * 11 + [True]
    assert (free(stores[0], "p"), problems(stores[0])) == (100, [])
    for store in stores:
        store.close()


def test_one_low_balance_seen_by_many_is_one_attempt(url: str) -> None:
    clock = Clock()
    stores = [Store(url, clock_ms=clock) for _ in range(3)]
    stores[0].run(switch_on)
    told: list[str] = []

    def one(number: int) -> None:
        claim = ClaimTopup(f"tu_{number}", shortfall=True)
        outcome = stores[number % 3].execute("p", claim)
        told.append("charge" if outcome.applied else outcome.reason)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == ["charge"] + ["pending_auto_topup"] * 23
    for store in stores:
        store.close()


def test_busy_processes_leave_each_other_a_share(url: str) -> None:
    Store(url).close()
    told: dict[int, list[tuple[float, float]]] = dict(crowd(busy, url, 3))
    ends = sorted((ended, worker) for worker, turns in told.items() for _, ended in turns)
    # Counted while all are there, and in turns: on a busy machine everybody is slower alike.
    begin = max(turns[0][0] for turns in told.values())
    end = min(turns[-1][1] for turns in told.values())
    shares = Counter(worker for ended, worker in ends if begin <= ended <= end)
    overtaken = {worker: max(map(partial(passed, ends), turns)) for worker, turns in told.items()}
    seen = f"turns {shares}, overtaken at most {overtaken}"
    assert shares.total() > 40, seen
    assert all(shares[worker] >= shares.total() / 10 for worker in told), seen
    assert max(overtaken.values()) < MOST_OVERTAKEN, seen
    store = Store(url)
    assert {worker: free(store, f"p{worker}") for worker in told} == {
        worker: len(turns) for worker, turns in told.items()
    }
    assert problems(store) == []
    store.close()


def passed(ends: list[tuple[float, int]], turn: tuple[float, float]) -> int:
    """Count the turns of others that ended while one waited for its own."""
    began, ended = turn
    return bisect_left(ends, (ended, -1)) - bisect_left(ends, (began, PROCESSES))


def test_a_hot_practice_and_cold_ones_side_by_side(url: str) -> None:
    store = Store(url)
    names = ["hot"] * 40 + [f"cold{n}" for n in range(20)]
    for name in set(names):
        pay(store, name, 1000)
    told = at_once(store, [(name, Reserve(f"k{n}", 10)) for n, name in enumerate(names)])
    assert all(outcome.applied for outcome in told)
    assert held(store, "hot") == 400
    calls = rows(store, "SELECT call_no FROM credit_call WHERE practice_no = (SELECT practice_no"
                 " FROM credit_practice WHERE practice_id = 'hot') ORDER BY call_no")  # fmt: skip
    assert [number for (number,) in calls] == list(range(1, 41))
    assert hold(store, "hot", 1, "next") == 41
    assert problems(store) == []
    store.close()
