"""Tasks, threads and forks: nobody's hold is lost, and nobody else's is released."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from guthaben.domain.commands import GrantCredit, Release, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import StoreUnavailable
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from guthaben.store.writer import Job, Order
from tests.store.bank import free, held, hold, pay, problems, rows, url


@pytest.fixture
async def credit(path: Path) -> AsyncIterator[AsyncGuthaben]:
    async with AsyncGuthaben.open(url(path)) as opened:
        await opened.grant("p", 100, key="g", kind="paid")
        yield opened


class Busy:
    """Keeps the writer at work until told otherwise."""

    def __init__(self, store: Store) -> None:
        self._go_on, self._going = threading.Event(), threading.Event()
        store._writers[0].submit(Job(self._work, lambda _answer: None))
        assert self._going.wait(20)

    def _work(self, _space: Workspace) -> None:
        self._going.set()
        assert self._go_on.wait(20)

    def end(self) -> None:
        self._go_on.set()


async def settled_down(credit: AsyncGuthaben) -> None:
    """Wait until answers were handed over, and what that set off is done."""
    for _ in range(3):
        await asyncio.to_thread(credit.core.store.run, lambda space: None)
        await asyncio.sleep(0.01)


async def test_a_cancelled_reserve_leaves_no_hold(credit: AsyncGuthaben) -> None:
    busy = Busy(credit.core.store)
    tasks = [asyncio.ensure_future(credit.reserve("p", 10, key=f"k{n}")) for n in range(4)]
    await asyncio.sleep(0.01)
    for task in tasks[:3]:
        task.cancel()
    busy.end()
    kept = await tasks[3]
    await settled_down(credit)
    assert (await credit.balance("p")).held_nano_usd == 10
    ends = {call.key: call.status for call in await credit.calls("p")}
    assert ends == {"k0": "released", "k1": "released", "k2": "released", "k3": "reserved"}
    assert (await kept.settle(4)).status == "settled"
    assert (await credit.verify()).ok


async def test_a_cancelled_repetition_does_not_end_the_first_callers_hold(
    credit: AsyncGuthaben,
) -> None:
    first = await credit.reserve("p", 10, key="k")
    again = asyncio.ensure_future(credit.reserve("p", 10, key="k"))
    await asyncio.sleep(0)
    again.cancel()
    await settled_down(credit)
    assert (await credit.balance("p")).held_nano_usd == 10
    assert (await first.settle(4)).applied


async def test_a_cancelled_extension_does_not_end_the_call(credit: AsyncGuthaben) -> None:
    call = await credit.reserve("p", 10, key="k")
    longer = asyncio.ensure_future(call.extend(3000))
    await asyncio.sleep(0)
    longer.cancel()
    await settled_down(credit)
    assert (await call.settle(4)).applied


async def test_a_cancelled_task_inside_the_block_ends_its_call_as_fixed(
    credit: AsyncGuthaben,
) -> None:
    entered = asyncio.Event()

    async def work(key: str, on_exception: str) -> None:
        async with await credit.reserve("p", 10, key=key, on_exception=on_exception):  # type: ignore[arg-type]
            entered.set()
            await asyncio.sleep(60)

    for key in ("release", "charge", "keep"):
        entered.clear()
        task = asyncio.ensure_future(work(key, key))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settled_down(credit)
    found = {call.key: (call.status, call.cost_nano_usd) for call in await credit.calls("p")}
    assert found == {"release": ("released", 0), "charge": ("settled", 10), "keep": ("reserved", 0)}


async def in_company(credit: AsyncGuthaben) -> Store:
    """Let commands come together, so that the next ones wait for each other."""
    store = credit.core.store
    busy = Busy(store)
    crowd = [asyncio.ensure_future(credit.grant("p", 1, key=f"crowd-{n}")) for n in range(3)]
    await asyncio.sleep(0.01)
    busy.end()
    await asyncio.gather(*crowd)
    assert store._writers[0].has_company
    return store


async def test_what_a_crowd_asks_in_one_turn_is_one_batch(
    credit: AsyncGuthaben, monkeypatch: pytest.MonkeyPatch
) -> None:
    await credit.reserve("p", 1)  # the first one asks for prices
    store = await in_company(credit)
    (writer,) = store._writers
    sizes: list[int] = []
    real = writer._commands

    def counted(orders: list[Order]) -> None:
        sizes.append(len(orders))
        real(orders)

    monkeypatch.setattr(writer, "_commands", counted)
    calls = await asyncio.gather(*(credit.reserve("p", 1, key=f"k{n}") for n in range(20)))
    await asyncio.gather(*(call.settle(1) for call in calls))
    assert sizes == [20, 20]
    assert (await credit.verify()).ok


async def test_who_asks_alone_does_not_wait_for_the_end_of_the_turn(
    credit: AsyncGuthaben,
) -> None:
    store = credit.core.store
    (writer,) = store._writers
    busy = Busy(store)
    assert not writer.has_company
    asked = store.execute_soon("p", Reserve("k", 1))
    assert writer._queue.qsize() == 1
    busy.end()
    assert (await asked).ok


async def test_closing_does_first_what_was_asked_in_the_same_turn(credit: AsyncGuthaben) -> None:
    store = await in_company(credit)
    asked = store.execute_soon("p", Reserve("k", 1))
    assert store._writers[0]._queue.empty()
    store.close()
    assert (await asked).ok


@pytest.mark.parametrize("company", [1, 2])
async def test_what_is_asked_after_closing_is_refused(credit: AsyncGuthaben, company: int) -> None:
    store = credit.core.store
    store.close()
    store._writers[0]._last_batch = company

    async def ask(key: str) -> None:
        await store.execute_soon("p", Reserve(key, 1))

    told = await asyncio.wait_for(asyncio.gather(ask("a"), ask("b"), return_exceptions=True), 20)
    assert [type(one) for one in told] == [StoreUnavailable] * 2
    assert all("closed" in str(one) for one in told)


async def test_what_is_sent_stays_behind_what_was_asked(credit: AsyncGuthaben) -> None:
    call = (await credit.reserve("p", 10, key="k"))._call
    store = await in_company(credit)
    settled = store.execute_soon("p", Settle(call.call_no, 4))
    store.send("p", Release(call.call_no))
    assert (await settled).applied
    await settled_down(credit)
    assert [found.status for found in await credit.calls("p")] == ["settled"]


async def test_the_order_of_asking_outlasts_the_company(credit: AsyncGuthaben) -> None:
    store = await in_company(credit)
    first = store.execute_soon("p", GrantCredit("same", PAID, 5))
    store._writers[0]._last_batch = 1
    second = store.execute_soon("p", GrantCredit("same", PAID, 5))
    assert [(await one).replayed for one in (first, second)] == [False, True]


def test_closing_after_the_loop_is_gone_ends(path: Path) -> None:
    """The answer finds no loop and, because the store closes, nobody to release the hold either."""
    credit = AsyncGuthaben.open(url(path))

    async def leave() -> Busy:
        await credit.grant("p", 100, key="g", kind="paid")
        busy = Busy(credit.core.store)
        asyncio.ensure_future(credit.reserve("p", 10, key="k"))  # noqa: RUF006
        await asyncio.sleep(0.01)
        return busy

    busy = asyncio.run(leave())
    closing = threading.Thread(target=credit.core.close, daemon=True)
    closing.start()
    busy.end()
    closing.join(20)
    assert not closing.is_alive()
    again = Store(url(path))
    assert problems(again) == []
    again.close()


def test_a_loop_that_is_gone_releases_its_holds(path: Path) -> None:
    credit = AsyncGuthaben.open(url(path))
    store = credit.core.store

    async def leave() -> Busy:
        await credit.grant("p", 100, key="g", kind="paid")
        busy = Busy(store)
        asyncio.ensure_future(credit.reserve("p", 10, key="k"))  # noqa: RUF006
        await asyncio.sleep(0.01)
        return busy

    asyncio.run(leave()).end()
    for _ in range(3):
        store.run(lambda space: None)
    assert held(store, "p") == 0
    store.close()


async def test_many_tasks_hear_their_own_answers(credit: AsyncGuthaben) -> None:
    calls = await asyncio.gather(*(credit.reserve("p", 1, key=f"k{n}") for n in range(100)))
    assert [call.key for call in calls] == [f"k{n}" for n in range(100)]
    views = await asyncio.gather(*(call.settle(n % 2) for n, call in enumerate(calls)))
    assert [view.cost_nano_usd for view in views] == [n % 2 for n in range(100)]
    assert (await credit.balance("p")).available_nano_usd == 50


# ---- forks


def in_a_child(work: object) -> int:
    """Run a function in a forked child; give its exit code (0: it returned True)."""
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = 0 if work() else 1  # type: ignore[operator]
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_a_fork_opens_anew(store: Store) -> None:
    pay(store, "p", 100)
    hold(store, "p", 10, "parent")

    def child() -> bool:
        replayed = store.execute("p", Reserve("parent", 10)).replayed
        fresh = store.execute("p", Reserve("child", 20)).applied
        seen = held(store, "p") == 30
        store.close()
        return replayed and fresh and seen

    assert in_a_child(child) == 0
    assert held(store, "p") == 30
    assert store.execute("p", Reserve("child", 20)).replayed
    assert hold(store, "p", 30, "after") == 3
    assert problems(store) == []


@needs_fork
def test_forks_and_parent_together_keep_the_ceiling(store: Store) -> None:
    pay(store, "p", 30)

    def child(number: int) -> bool:
        for n in range(20):
            store.execute("p", Reserve(f"{number}-{n}", 1))
        store.close()
        return True

    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                child(number)
            finally:
                os._exit(0)
        pids.append(pid)
    for n in range(20):
        store.execute("p", Reserve(f"parent-{n}", 1))
    for pid in pids:
        os.waitpid(pid, 0)
    assert (held(store, "p"), free(store, "p")) == (30, 0)
    assert problems(store) == []


@needs_fork
def test_memory_is_not_shared_with_a_fork() -> None:
    store = Store("sqlite://")
    pay(store, "p", 100)

    def child() -> bool:
        try:
            store.execute("p", Reserve("child", 20))
        except StoreUnavailable:
            return True
        return False

    assert in_a_child(child) == 0
    assert held(store, "p") == 0
    store.close()


# ---- reading


def test_readers_see_every_answered_commit_and_stay_few(store: Store) -> None:
    pay(store, "p", 1000)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    seen: list[bool] = []

    def use(number: int) -> None:
        call_no = hold(store, "p", 1, f"k{number}")
        sql = "SELECT 1 FROM credit_call WHERE call_no = ?"
        seen.append(bool(rows(store, sql, call_no)))

    for number in range(60):
        thread = threading.Thread(target=use, args=(number,))
        thread.start()
        thread.join()
    assert seen == [True] * 60
    if before:
        assert len(os.listdir("/proc/self/fd")) - before < 30


def test_a_question_that_fails_is_told_as_what_it_is(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="no_such_table"):
        rows(store, "SELECT * FROM no_such_table")
    with pytest.raises(LookupError):
        store.read(lambda cursor: dict[str, int]()["nothing"])
    assert rows(store, "SELECT 1") == [(1,)]


def test_a_question_can_change_nothing(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match=r"readonly|read-only"):
        rows(store, "DELETE FROM credit_meta")
