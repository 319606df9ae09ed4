"""The load: pairs of reserve and settle, by threads or by tasks, on one practice or on many.

Law: a closed load keeps so many callers busy, and counts only what began after the warm-up. An open
load begins pairs at a fixed rate whatever becomes of them, and counts each latency from the moment
it was due, not from when somebody had time for it (the omission that a closed load can't help).
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks.past import GRANT_NANO_USD, name_of
from guthaben import AsyncGuthaben, Guthaben

AMOUNT, COST = 1_000_000, 700_000
PRACTICES = 256
WARM_UP_S = 1.0
"""So that a lone caller, too, has made SQLite's log as long as it stays: growing costs more."""


def warm_up_s(seconds: float) -> float:
    """Tell for how long a load of so many seconds warms up; a tiny one only tries the program."""
    return min(WARM_UP_S, 2 * seconds)


class Load(NamedTuple):
    """What to run."""

    kind: str
    """`threads`, `tasks`, or `open` (tasks at a fixed rate)."""
    callers: int
    hot: bool
    seconds: float
    rate_per_s: float = 0


class Result(NamedTuple):
    """What one load measured; latencies are of a whole pair."""

    pairs: int
    pairs_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us_per_pair: float
    """Of this process: the engine and its callers, not a database's server."""
    memory_mb: float


def run(url: str, load: Load) -> Result:
    """Run one load on a database that `prepare` has seen."""
    if load.kind == "threads":
        return _threads(url, load)
    return asyncio.run(_tasks(url, load) if load.kind == "tasks" else _open(url, load))


def prepare(url: str) -> None:
    """Give every practice credit; repeating it changes nothing."""

    async def give() -> None:
        async with AsyncGuthaben.open(url) as credit:
            names = [name_of(number) for number in range(PRACTICES)]
            await asyncio.gather(
                *(credit.grant(name, GRANT_NANO_USD, key="given", kind="paid") for name in names)
            )

    asyncio.run(give())


class _Watch:
    """Gathers latencies from the end of the warm-up to the end of the load.

    A load of which nothing could be measured goes on until something was: a machine that stood
    still for so long must not be taken for an engine that did.
    """

    def __init__(self, seconds: float) -> None:
        self.begin = time.perf_counter() + warm_up_s(seconds)
        self.end = self.begin + seconds
        self.latencies: list[float] = []
        self._cpu_s = 0.0
        self._last = self.begin

    def start_counting(self) -> None:
        """Note what was used until now."""
        self._cpu_s = _cpu_s()

    def result(self) -> Result:
        """Sum up; the load ends when its last pair does."""
        ordered = sorted(self.latencies)
        took_s = max(time.perf_counter(), self.end) - self.begin
        done = len(self.latencies)
        return Result(
            done,
            done / took_s,
            1000 * ordered[len(ordered) // 2],
            1000 * ordered[int(len(ordered) * 0.99)],
            1000 * ordered[-1],
            1e6 * (_cpu_s() - self._cpu_s) / done,
            memory_mb(),
        )


def _names(caller: int, *, hot: bool) -> Callable[[int], str]:
    """Give the practice of a caller's nth pair: always one, or each in its turn."""
    if hot:
        return lambda _number: name_of(0)
    return lambda number: name_of((caller * 4 + number) % PRACTICES)


def _threads(url: str, load: Load) -> Result:
    with Guthaben.open(url) as credit:
        watch = _Watch(load.seconds)

        def work(caller: int) -> None:
            mine: list[float] = []
            name = _names(caller, hot=load.hot)
            for number in count():
                begun = time.perf_counter()
                if begun > watch.end and mine:
                    break
                credit.reserve(name(number), AMOUNT).settle(COST)
                if begun >= watch.begin:
                    mine.append(time.perf_counter() - begun)
            watch.latencies.extend(mine)

        with _running(threading.Thread(target=work, args=(n,)) for n in range(load.callers)):
            time.sleep(max(0.0, watch.begin - time.perf_counter()))
            watch.start_counting()
        return watch.result()


@contextmanager
def _running(threads: Iterator[threading.Thread]) -> Iterator[None]:
    begun = list(threads)
    for thread in begun:
        thread.start()
    yield
    for thread in begun:
        thread.join()


async def _tasks(url: str, load: Load) -> Result:
    async with AsyncGuthaben.open(url) as credit:
        watch = _Watch(load.seconds)
        asyncio.get_running_loop().call_at(_loop_time(watch.begin), watch.start_counting)

        async def work(caller: int) -> None:
            name = _names(caller, hot=load.hot)
            for number in count():
                begun = time.perf_counter()
                if begun > watch.end and watch.latencies:
                    return
                call = await credit.reserve(name(number), AMOUNT)
                await call.settle(COST)
                if begun >= watch.begin:
                    watch.latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(work(caller) for caller in range(load.callers)))
        return watch.result()


async def _open(url: str, load: Load) -> Result:
    async with AsyncGuthaben.open(url) as credit:
        watch = _Watch(load.seconds)
        asyncio.get_running_loop().call_at(_loop_time(watch.begin), watch.start_counting)
        begun_at = watch.begin - warm_up_s(load.seconds)
        running: set[asyncio.Task[None]] = set()
        counting = False

        async def pair(number: int, due: float) -> None:
            call = await credit.reserve(_names(number, hot=load.hot)(0), AMOUNT)
            await call.settle(COST)
            if due >= watch.begin:
                watch.latencies.append(time.perf_counter() - due)

        for number in count():
            due = begun_at + number / load.rate_per_s
            if due > watch.end and counting:
                break
            counting = due >= watch.begin
            if due > (now := time.perf_counter()):
                await asyncio.sleep(due - now)
            task = asyncio.create_task(pair(number, due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        return watch.result()


def _loop_time(at: float) -> float:
    return asyncio.get_running_loop().time() + at - time.perf_counter()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mb() -> float:
    """Tell how much memory this process holds now."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not on Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024
