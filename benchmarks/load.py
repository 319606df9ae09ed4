"""The load: pairs of reserve and settle, by threads or by tasks, on one practice or on many."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from itertools import count

from guthaben import AsyncGuthaben, Guthaben

AMOUNT, COST = 1_000_000, 700_000
_runs = count()


@dataclass(frozen=True, slots=True)
class Result:
    """What one load measured; latencies are of a whole pair."""

    pairs: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def pairs_per_s(self) -> float:
        """Pairs per second."""
        return self.pairs / self.seconds


def _practices(callers: int, hot: bool) -> list[str]:
    return ["hot"] * callers if hot else [f"practice-{number}" for number in range(callers)]


def _result(latencies: list[float], seconds: float) -> Result:
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return Result(len(ordered), seconds, p50 * 1000, p99 * 1000)


def threads(url: str, callers: int, seconds: float, *, hot: bool) -> Result:
    """Run pairs on so many threads."""
    latencies: list[float] = []
    run = next(_runs)

    def work(credit: Guthaben, practice: str, caller: int, until: float) -> None:
        mine = []
        for number in count():
            begun = time.perf_counter()
            if begun > until:
                break
            call = credit.reserve(practice, AMOUNT, key=f"{run}-{caller}-{number}")
            call.settle(COST)
            mine.append(time.perf_counter() - begun)
        latencies.extend(mine)

    with Guthaben.open(url) as credit:
        names = _practices(callers, hot)
        for practice in set(names):
            credit.grant(practice, 10**15, key=f"grant-{run}", kind="paid")
        start = time.perf_counter()
        workers = [
            threading.Thread(target=work, args=(credit, practice, caller, start + seconds))
            for caller, practice in enumerate(names)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return _result(latencies, time.perf_counter() - start)


def tasks(url: str, callers: int, seconds: float, *, hot: bool) -> Result:
    """Run pairs on so many tasks of one event loop."""
    return asyncio.run(_tasks(url, callers, seconds, hot))


async def _tasks(url: str, callers: int, seconds: float, hot: bool) -> Result:
    latencies: list[float] = []
    run = next(_runs)
    async with AsyncGuthaben.open(url) as credit:
        names = _practices(callers, hot)
        for practice in set(names):
            await credit.grant(practice, 10**15, key=f"grant-{run}", kind="paid")
        start = time.perf_counter()

        async def work(practice: str, caller: int) -> None:
            for number in count():
                begun = time.perf_counter()
                if begun > start + seconds:
                    return
                call = await credit.reserve(practice, AMOUNT, key=f"{run}-{caller}-{number}")
                await call.settle(COST)
                latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(work(practice, caller) for caller, practice in enumerate(names)))
        return _result(latencies, time.perf_counter() - start)
