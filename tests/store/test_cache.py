"""States kept between batches are used only while the database proves that nobody else wrote."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

from guthaben.domain.calls import Status
from guthaben.domain.commands import (
    Adjust,
    GrantCredit,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    SetPolicy,
    Settle,
)
from guthaben.domain.grants import ALLOWANCE, PAID
from guthaben.domain.period import Period
from guthaben.store import cache as cache_module
from guthaben.store import queries
from guthaben.store.store import Store
from tests.store.bank import T0_S, Clock, connection, free, held, hold, pay, problems, rows, url


def _grant_in_another_process(database_url: str) -> None:
    store = Store(database_url)
    pay(store, "p", 90, "elsewhere")
    store.close()


@pytest.fixture
def other(path: Path, clock: Clock, store: Store) -> Store:
    """A second store on the same file, as another process would have it."""
    return Store(url(path), clock_ms=clock)


def test_another_stores_writes_are_seen_at_once(store: Store, other: Store) -> None:
    pay(store, "p", 10)
    hold(store, "p", 5, "a")
    for turn in range(6):
        writer, reader = (other, store) if turn % 2 else (store, other)
        pay(writer, "p", 1, f"more-{turn}")
        told = reader.execute("p", Reserve("too much", 999))
        assert told.available_nano_usd == 5 + turn + 1
    assert problems(store) == []
    other.close()


def test_a_call_that_another_store_ended_is_over(store: Store, other: Store) -> None:
    pay(store, "p", 10)
    call_no = hold(store, "p", 5, "a")
    assert other.execute("p", Settle(call_no, 3)).applied
    told = store.execute("p", Release(call_no))
    assert told.call is not None
    assert (told.applied, told.call.status) == (False, Status.SETTLED)
    assert free(store, "p") == 7
    other.close()


def test_an_allowance_that_another_store_granted_is_known(store: Store, other: Store) -> None:
    license = SetLicense("L", True, T0_S, T0_S + 1000, 100)
    store.execute("p", SetPolicy(overrun=1))
    assert store.execute("p", Reserve("a", 5)).reason == "insufficient_credit"
    other.execute("p", license)
    assert other.execute("p", Reserve("b", 60)).applied
    told = store.execute("p", Reserve("c", 60))
    assert (told.reason, told.available_nano_usd) == ("insufficient_credit", 40)
    assert store.execute("p", Reserve("d", 40)).applied
    other.close()
    assert len(rows(store, "SELECT 1 FROM credit_grant WHERE kind = 1")) == 1


def test_another_process(store: Store, path: Path) -> None:
    pay(store, "p", 10)
    hold(store, "p", 10, "a")
    child = multiprocessing.get_context("spawn").Process(
        target=_grant_in_another_process, args=(url(path),)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert store.execute("p", Reserve("b", 90)).applied
    assert problems(store) == []


def test_a_hand_in_the_database_is_noticed(store: Store, path: Path) -> None:
    pay(store, "p", 10)
    hold(store, "p", 1, "a")
    con = sqlite3.connect(path)
    con.execute("UPDATE credit_practice SET status = 2")
    con.commit()
    con.close()
    assert store.execute("p", Reserve("b", 1)).reason == "practice_frozen"


def test_it_decides_on_what_is_true_after_it_has_the_lock(store: Store, path: Path) -> None:
    pay(store, "p", 10)
    con = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    con.execute("BEGIN IMMEDIATE")
    con.execute("UPDATE credit_practice SET status = 2")
    committing = threading.Timer(0.3, lambda: con.execute("COMMIT"))
    committing.start()
    # It waits for somebody who knows no turnstile, and must not have read anything before.
    assert store.execute("p", Reserve("a", 1)).reason == "practice_frozen"
    committing.join()
    con.close()


def test_our_own_jobs_are_seen(store: Store) -> None:
    pay(store, "p", 10)
    hold(store, "p", 1, "a")
    store.run(lambda space: space.cursor.execute("UPDATE credit_practice SET status = 2"))
    assert store.execute("p", Reserve("b", 1)).reason == "practice_frozen"


@pytest.mark.sqlite
def test_what_is_kept_is_really_used(store: Store) -> None:
    """Without this the other tests of this file would prove nothing."""
    pay(store, "p", 100)
    hold(store, "p", 1, "warm")
    done: list[str] = []
    connection(store).set_trace_callback(done.append)
    call_no = hold(store, "p", 1, "a")
    store.execute("p", Settle(call_no, 1))
    assert not [s for s in done if s.startswith("SELECT") and "FROM credit_practice" in s]
    assert not [s for s in done if s.startswith("SELECT") and "FROM credit_grant" in s]


def test_it_stays_within_bounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_CACHED", 5)
    for n in range(30):
        pay(store, f"p{n}", 10)
        hold(store, f"p{n}", 3, "a")
        kept = store._writers[0]._cache
        assert max(len(kept.practices), len(kept.calls), len(kept.no_allowance)) <= 5
    assert all(held(store, f"p{n}") == 3 for n in range(30))


def test_a_grant_that_was_used_up_comes_back_when_it_is_named(store: Store) -> None:
    pay(store, "p", 10)
    call_no = hold(store, "p", 10, "a")
    store.execute("p", Settle(call_no, 10))
    pay(store, "p", 5, "new")  # the first grant is spent and need not be loaded any more
    late = hold(store, "p", 5, "b")
    store.execute("p", Release(late, 2))
    assert store.execute("p", Settle(late, 2)).applied
    assert store.execute("p", Adjust("down", -3, PAID)).applied
    assert (free(store, "p"), problems(store)) == (0, [])


@pytest.mark.parametrize("fresh", [False, True])
def test_former_bounds_are_known_also_when_the_guess_is_long_past(
    store: Store, path: Path, clock: Clock, fresh: bool
) -> None:
    store.execute("p", SetLicense("L", True, T0_S, T0_S + 1000, 100))
    clock.wait(1_500_000)
    store.execute("p", RecordUsage("late", 60))  # in a period that nobody has told yet
    guessed = Period("L", T0_S + 1000, T0_S + 2000, 100)
    store.execute("p", SetLicense("L", True, T0_S + 1010, T0_S + 2010, 100))
    clock.wait(5_000_000)
    pay(store, "p", 7)  # what is past is not kept
    asked = Store(url(path), clock_ms=clock) if fresh else store
    nearby = guessed._replace(start_s=guessed.start_s + 10)
    for number, period in enumerate((guessed, nearby)):
        told = asked.execute("p", Reserve(f"too much {number}", 999, period=period))
        assert told.available_nano_usd == 40 + 7
    assert asked.execute("p", GrantCredit("a", ALLOWANCE, 5, period=guessed)).reason == (
        "allowance_exists"
    )
    balance = asked.read(lambda cur: queries.balance(cur, "p", guessed, clock.now_ms // 1000))[0]
    assert balance.available_nano_usd == 40 + 7
    assert problems(asked) == []
    if fresh:
        asked.close()


def test_a_guess_that_is_long_past_is_found_by_overlap(store: Store, clock: Clock) -> None:
    store.execute("p", SetLicense("L", True, T0_S, T0_S + 1000, 100))
    clock.wait(1_500_000)
    store.execute("p", RecordUsage("late", 60))
    clock.wait(5_000_000)
    told = Period("L", T0_S + 1010, T0_S + 2010, 100)
    for number in range(2):  # the second time what was not found might be remembered
        pay(store, "p", 1, f"more-{number}")
        refused = store.execute("p", Reserve(f"too much {number}", 999, period=told))
        assert refused.available_nano_usd == 40 + number + 1
    assert store.execute("p", Reserve("a", 40, period=told)).ok
    assert store.execute("p", Reserve("b", 3, period=told)).reason == "insufficient_credit"
    assert problems(store) == []
