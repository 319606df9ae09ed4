"""The sweep: before a Reserve what is due is expired, at most a hundred calls at a time."""

from __future__ import annotations

import pytest

from guthaben.domain.calls import EXPIRED, ON_CHARGE, RESERVED
from guthaben.domain.commands import GrantCredit, Release, Reserve
from guthaben.domain.grants import PROMOTIONAL
from guthaben.store import queries
from guthaben.store.store import Store
from tests.store.bank import T0_S, Clock, connection, free, held, hold, pay, problems, rows


def by_status(store: Store) -> dict[int, int]:
    return dict(rows(store, "SELECT status, COUNT(*) FROM credit_call GROUP BY status"))


def test_a_reserve_frees_what_others_left_behind(store: Store, clock: Clock) -> None:
    pay(store, "p", 100)
    assert store.execute("p", Reserve("a", 60, 1000)).applied
    assert store.execute("p", Reserve("b", 40, 1000, ON_CHARGE)).applied
    clock.wait(999)
    assert store.execute("p", Reserve("c", 50)).reason == "insufficient_credit"
    clock.wait(1)
    assert store.execute("p", Reserve("c", 50)).applied
    assert (held(store, "p"), free(store, "p")) == (50, 10)
    assert by_status(store) == {EXPIRED: 2, RESERVED: 1}
    assert problems(store) == []


def test_the_sweep_stands_even_if_the_reserve_is_refused(store: Store, clock: Clock) -> None:
    pay(store, "p", 100)
    store.execute("p", Reserve("a", 60, 1000))
    clock.wait(1000)
    assert store.execute("p", Reserve("much", 101)).reason == "insufficient_credit"
    assert (held(store, "p"), free(store, "p")) == (0, 100)


def test_at_most_a_hundred_calls_at_a_time_in_the_order_of_their_due_time(
    store: Store, clock: Clock
) -> None:
    pay(store, "p", 1000)
    for number in range(130):  # the last ones fall due first
        store.execute("p", Reserve(f"k{number}", 1, 5000 - number))
    clock.wait(10_000)
    hold(store, "p", 1, "first")
    assert by_status(store) == {EXPIRED: 100, RESERVED: 31}
    left = rows(store, "SELECT call_no FROM credit_call WHERE status = 1 ORDER BY call_no")
    assert [number for (number,) in left] == [*range(1, 31), 131]
    assert problems(store) == []  # what waits for the next sweep is no problem
    assert store.read(lambda cursor: queries.due_practices(cursor, clock.now_ms, 9)) == ["p"]
    hold(store, "p", 1, "second")
    assert by_status(store) == {EXPIRED: 130, RESERVED: 2}
    assert store.read(lambda cursor: queries.due_practices(cursor, clock.now_ms, 9)) == []
    assert problems(store) == []


def test_exactly_a_hundred_leave_nothing_behind(store: Store, clock: Clock) -> None:
    pay(store, "p", 1000)
    for number in range(100):
        store.execute("p", Reserve(f"k{number}", 1, 1000))
    clock.wait(1000)
    hold(store, "p", 1, "next")
    assert by_status(store) == {EXPIRED: 100, RESERVED: 1}
    assert (held(store, "p"), problems(store)) == (1, [])


def test_a_grant_is_expired_by_the_sweep_though_it_was_pinned_before(
    store: Store, clock: Clock
) -> None:
    pay(store, "p", 100)
    store.execute("p", GrantCredit("promo", PROMOTIONAL, 50, T0_S + 10))
    store.execute("p", Reserve("all of the promotional credit", 50))
    store.execute("p", Reserve("short", 1, 1000))
    clock.wait(5000)
    hold(store, "p", 1, "sweeps the short one")
    clock.wait(1000)
    store.execute("p", Release(1))
    clock.wait(5000)
    hold(store, "p", 1, "sweeps what was freed")
    expired = "SELECT grant_no, amount_nano_usd FROM credit_transfer WHERE target = 10"
    assert rows(store, expired) == [(2, 50)]
    assert problems(store) == []


@pytest.mark.sqlite
def test_nothing_due_is_nothing_read(store: Store, clock: Clock) -> None:
    pay(store, "p", 100)
    hold(store, "p", 1, "a")
    done: list[str] = []
    connection(store).set_trace_callback(done.append)
    hold(store, "p", 1, "b")
    assert not [sql for sql in done if "expires_at_ms + grace_ms" in sql]
