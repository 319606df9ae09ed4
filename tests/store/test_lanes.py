"""Several writers on one PostgreSQL: lanes of one process, servers that meet in a practice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from guthaben.domain.calls import NO_ORIGIN
from guthaben.domain.caps import Cap
from guthaben.domain.commands import (
    Adjust,
    Command,
    GrantCredit,
    Outcome,
    RecordUsage,
    Reserve,
    Settle,
)
from guthaben.domain.grants import PAID
from guthaben.errors import ConfigError, StoreUnavailable
from guthaben.store import caps, cases, outbox, settings
from guthaben.store.postgres import connect
from guthaben.store.postgres_session import PostgresSession
from guthaben.store.postgres_wire import Wire
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests import postgres
from tests.store.bank import T0_S, Clock, held, hold, pay, problems, rows
from tests.store.test_postgres import at_once

NAMES = [f"p{number}" for number in range(12)]


@pytest.fixture
def url() -> str:
    return postgres.fresh()


def opened(url: str, clock: Clock, lanes: int, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", str(lanes))
    return Store(url, clock_ms=clock)


@pytest.fixture
def store(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Three lanes."""
    mine = opened(url, clock, 3, monkeypatch)
    yield mine
    mine.close()


@pytest.fixture
def one(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """One lane."""
    mine = opened(url, clock, 1, monkeypatch)
    yield mine
    mine.close()


@pytest.fixture
def other(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Another server, of two lanes."""
    mine = opened(url, clock, 2, monkeypatch)
    yield mine
    mine.close()


def wire_of(store: Store) -> Wire:
    session = store._writers[0]._session
    assert isinstance(session, PostgresSession)
    assert session._wire is not None
    return session._wire


# ---- lanes


@pytest.mark.cut
def test_practices_are_spread_and_each_stays_in_its_lane(store: Store) -> None:
    lanes = {name: store._lane(name) for name in NAMES}
    assert set(lanes.values()) == {0, 1, 2}
    for name in NAMES:
        pay(store, name, 10)
        hold(store, name, 4, "a")
    for lane, writer in enumerate(store._writers):
        kept = writer._cache.practices
        assert set(kept) == {name for name, its in lanes.items() if its == lane}
    assert problems(store) == []


@pytest.mark.cut
def test_the_number_of_lanes_is_a_setting(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "0")
    with pytest.raises(ConfigError, match="GUTHABEN_WRITER_LANES must be 1 to 64"):
        Store(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GUTHABEN_WRITER_LANES")
        patch.setattr(os, "cpu_count", lambda: 9)
        with contextlib.closing(Store(url)) as nine:
            assert len(nine._writers) == 4
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "7")
    with contextlib.closing(Store("sqlite://")) as memory:
        assert len(memory._writers) == 1


def test_tasks_are_answered_from_every_lane(store: Store) -> None:
    async def load() -> list[Outcome]:
        asked = [store.execute_soon(name, GrantCredit("g", PAID, 10)) for name in NAMES * 3]
        return list(await asyncio.wait_for(asyncio.gather(*asked), 30))

    answers = asyncio.run(load())
    assert sum(not answer.replayed for answer in answers) == len(NAMES)
    assert all(answer.ok for answer in answers)
    assert rows(store, "SELECT SUM(free_nano_usd) FROM credit_grant") == [(10 * len(NAMES),)]


def test_a_cancelled_awaiter_of_any_lane_leaves_no_hold(
    url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "3")
    opened = Store(url, clock_ms=clock, on_abandoned=lambda name, _c, _a: heard.append(name))
    with contextlib.closing(opened) as store:
        for name in NAMES:
            pay(store, name, 10)

        async def cancel() -> None:
            asked = [store.execute_soon(name, Reserve("a", 1)) for name in NAMES]
            for future in asked:
                future.cancel()
            for _turn in range(500):
                if len(heard) == len(NAMES):
                    break
                await asyncio.sleep(0.01)

        asyncio.run(cancel())
    assert sorted(heard) == sorted(NAMES)


def test_closing_finishes_what_every_lane_has(store: Store) -> None:
    for name in NAMES:
        store.send(name, GrantCredit("g", PAID, 10))
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable):
        store.execute("p0", Reserve("a", 1))
    with connect(store.url) as con:
        assert con.execute("SELECT COUNT(*) FROM credit_grant").fetchone() == (len(NAMES),)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_opens_lanes_of_its_own(store: Store) -> None:
    for name in NAMES:
        pay(store, name, 10)
    child = os.fork()
    if child == 0:
        try:
            fine = all(store.execute(name, Reserve("child", 3)).applied for name in NAMES)
            os._exit(0 if fine else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert all(store.execute(name, Reserve("parent", 3)).applied for name in NAMES)
    assert [held(store, name) for name in NAMES] == [6] * len(NAMES)
    assert problems(store) == []


# ---- who is in the way


@pytest.mark.faults
def test_jobs_over_several_practices_and_lanes_in_a_circle_are_done_again(
    store: Store, other: Store
) -> None:
    """Each job holds one practice and wants the other's: the database breaks the circle."""
    for name in ("p0", "p1"):
        pay(store, name, 100)
    meet = threading.Barrier(2)
    tries: list[str] = []

    def job(first: str, second: str) -> None:
        def work(space: Workspace) -> None:
            tries.append(first)
            assert space.apply(first, Reserve(f"{first}-first", 1)).ok
            space.flush()
            if len(tries) <= 2:
                meet.wait(10)
            assert space.apply(second, Reserve(f"{first}-second", 1)).ok

        here = store if first == "p0" else other
        here.run(work, first)

    assert at_once([lambda: job("p0", "p1"), lambda: job("p1", "p0")]) == [None, None]
    assert len(tries) >= 3, "they did not collide"
    assert (held(store, "p0"), held(store, "p1")) == (2, 2)
    assert problems(store) == []


@pytest.mark.faults
def test_lanes_and_servers_crowd_one_practice_and_many(store: Store, other: Store) -> None:
    for name in NAMES:
        pay(store, name, 40)

    def work(each: Store, tag: str) -> int:
        got = 0
        for turn in range(8):
            for name in ["hot", *NAMES]:
                asked: Command = Reserve(f"{tag}-{turn}", 1)
                told = each.execute(name, asked)
                again = each.execute(name, asked)
                assert again.ok == told.ok, (told, again)
                got += told.ok and name == "hot"
                if told.call is not None and turn % 2:
                    assert each.execute(name, Settle(told.call.call_no, 1)).ok
        return got

    pay(store, "hot", 50)
    workers = [
        (each, f"{kind}{n}") for kind, each in (("a", store), ("b", other)) for n in range(4)
    ]
    answers = at_once([lambda each=e, tag=t: work(each, tag) for e, t in workers])
    assert sum(answers) == 50, answers
    assert problems(store) == []


# ---- what is kept is proven


@pytest.mark.cut
def test_what_another_server_did_is_seen_whatever_was_kept(one: Store, other: Store) -> None:
    pay(one, "p", 10)
    call_no = hold(one, "p", 6, "a")
    assert "p" in one._writers[0]._cache.practices
    assert other.execute("p", Settle(call_no, 2)).applied
    late = one.execute("p", Settle(call_no, 6))
    assert late.reason == "settled_otherwise", "the other server's settle has won"
    assert one.execute("p", Reserve("b", 8)).ok
    assert problems(one) == []


def test_a_refusal_is_proven_too(one: Store, other: Store) -> None:
    """The credit that another server gave is there, though what was kept says there is none."""
    pay(one, "p", 10)
    hold(one, "p", 10, "a")
    assert one.execute("p", Reserve("b", 1)).reason == "insufficient_credit"
    pay(other, "p", 5, "more")
    assert one.execute("p", Reserve("b", 1)).ok


@pytest.mark.parametrize("ours", [True, False])
def test_a_replay_is_a_replay_when_nothing_is_left(one: Store, other: Store, ours: bool) -> None:
    """A key taken as new is proven new even where the command would be refused."""
    pay(one, "p", 10)
    first = (one if ours else other).execute("p", Reserve("a", 10))
    assert first.call is not None
    one.execute("p", Settle(first.call.call_no, 10))
    hold_of_nothing = one.execute("p", Reserve("b", 1))
    assert hold_of_nothing.reason == "insufficient_credit"
    again = one.execute("p", Reserve("a", 10))
    assert (again.ok, again.replayed) == (True, True)
    assert one.execute("p", Reserve("a", 9)).reason == "idempotency_conflict"
    usage = one.execute("p", RecordUsage("a", 3))
    assert usage.applied, "another operation's keys are its own"
    assert one.execute("p", RecordUsage("a", 3)).replayed
    assert problems(one) == []


def test_a_cap_of_another_server_counts_at_once(one: Store, other: Store) -> None:
    origin = NO_ORIGIN._replace(api_key_id="k1")
    pay(one, "p", 100)
    assert one.execute("p", Reserve("a", 10, origin=origin)).ok

    def cap(space: Workspace) -> None:
        practice = space.practice("p")
        caps.put(space.cursor, practice.practice_no, Cap("key:k1", 15, None), T0_S)
        caps.recount(space.cursor, practice, "key:k1", T0_S)

    other.run(cap)
    refused = one.execute("p", Reserve("b", 6, origin=origin))
    assert (refused.reason, refused.available_nano_usd) == ("cap_exceeded", 5)
    assert one.execute("p", Reserve("b", 5, origin=origin)).ok
    assert one.execute("p", Reserve("c", 6)).ok


# ---- round trips


def trips(store: Store, practice_id: str, command: Command) -> int:
    wire = wire_of(store)
    before = wire.round_trips
    assert store.execute(practice_id, command).ok
    return wire.round_trips - before


@pytest.mark.cut
def test_a_lone_command_takes_two_round_trips_and_one_when_its_practice_is_known(
    one: Store, other: Store
) -> None:
    pay(one, "p", 100)
    pay(other, "q", 100)
    assert trips(one, "p", Reserve("a", 1)) == 1
    assert trips(one, "p", Settle(1, 1)) == 1
    assert trips(one, "p", RecordUsage("u", 1)) == 1
    assert trips(one, "q", Reserve("a", 1)) == 3, "the number of a practice is asked for once"
    pay(other, "q", 100, "more")
    one._writers[0]._cache.clear()
    assert trips(one, "q", Reserve("b", 1)) == 2


@pytest.mark.cut
def test_a_batch_takes_as_many_round_trips_as_a_lone_command(one: Store) -> None:
    for name in NAMES:
        pay(one, name, 100)
    wire = wire_of(one)
    space_of = one._writers[0]._transaction

    def batch(key: str) -> int:
        before = wire.round_trips
        asked: list[tuple[str, Command]] = [
            (name, Reserve(f"{key}{n}", 1)) for name in NAMES for n in range(3)
        ]

        def work(space: Workspace) -> None:
            space.prepare(asked)
            assert all(space.apply(*each).ok for each in asked)

        space_of(work)
        return wire.round_trips - before

    one._writers[0]._cache.clear()
    assert batch("read") == 2
    assert batch("kept") == 1
    assert problems(one) == []


# ---- what two servers must not do twice


def test_servers_number_credit_events_without_meeting(one: Store, other: Store) -> None:
    """Two transactions at once: each has its number before the other has committed."""
    both = threading.Barrier(2)

    def buy(each: Store, name: str) -> None:
        def work(space: Workspace) -> None:
            assert space.apply(name, Adjust(name, 5, PAID)).ok
            space.flush()
            space.cursor.execute("SELECT 1").fetchone()  # it is sent
            both.wait(10)

        each.run(work)

    assert at_once([lambda: buy(one, "p"), lambda: buy(other, "q")]) == [None, None]
    assert both.broken is False
    (first,), (second,) = sorted(rows(one, "SELECT row_id FROM credit_event"))
    assert second == first + 1


def test_an_alarm_of_two_servers_is_one(one: Store, other: Store) -> None:
    def work(space: Workspace) -> None:
        settings.raise_alarm(space.cursor, "unpaid", "p", T0_S)
        time.sleep(0.05)

    assert at_once([lambda: one.run(work), lambda: other.run(work)]) == [None, None]
    assert rows(one, "SELECT COUNT(*) FROM credit_alarm") == [(1,)]


def test_cases_of_two_servers_are_two(one: Store, other: Store) -> None:
    """A number taken by another server must not swallow a case."""

    def case(each: Store, payment_id: str) -> bool:
        def work(space: Workspace) -> bool:
            new = cases.open_case(
                space.cursor, practice_no=0, event_no=0, payment_id=payment_id, session_id="",
                livemode=True, amount_minor=1, currency="chf", reason="nobody", now_s=T0_S,
            )  # fmt: skip
            time.sleep(0.05)
            return new

        return each.run(work)

    assert at_once([lambda: case(one, "pi_1"), lambda: case(other, "pi_2")]) == [True, True]
    assert len(rows(one, "SELECT case_no FROM credit_case")) == 2


def test_a_delivery_is_claimed_by_one_server(one: Store, other: Store) -> None:
    def tell(space: Workspace) -> None:
        notice = outbox.NoticeRow(0, "alarm", "k", "n_1", "{}", T0_S, 0)
        outbox.add_notice(space.cursor, notice)
        for number in range(6):
            outbox.add_delivery(
                space.cursor,
                outbox.DeliveryRow(
                    0, "n_1", "email", f"t{number}", 0, "waiting", 0, T0_S, "", 0, "", T0_S, 0
                ),
            )

    one.run(tell)
    both = threading.Barrier(2)

    def claim(each: Store, lease: str) -> list[str]:
        def work(space: Workspace) -> list[str]:
            found = outbox.claim(space.cursor, lease, now_s=T0_S, for_s=60, limit=4)
            space.cursor.execute("SELECT 1").fetchone()  # what was claimed is sent
            both.wait(10)
            return [item.delivery.target_id for item in found]

        return each.run(work)

    mine, theirs = at_once([lambda: claim(one, "a"), lambda: claim(other, "b")])
    assert sorted([*mine, *theirs]) == [f"t{number}" for number in range(6)]
