"""Rounds: every load beside its floor, again and again, until the time for them is over.

Law: a load stands beside the floor that was measured right before it, in the same round; a ratio is
taken inside a round, and then the median of the rounds. So a machine that is slower for a minute
moves both. The spread is told with every figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.child import Failed, measure
from benchmarks.databases import Database
from benchmarks.load import WARM_UP_S, Load

CALLERS = (1, 8, 64, 256)
FLOOR_CLIENTS = 32
FLOOR_SHARE = 0.5
START_S = 0.9
"""What a process of its own costs before it measures anything."""


class Kind(NamedTuple):
    """One row of the table."""

    kind: str
    callers: int
    hot: bool

    @property
    def name(self) -> str:
        """What to call it."""
        one = {"threads": "thread", "tasks": "task"}[self.kind] if self.callers == 1 else self.kind
        return f"{self.callers} {one}{', hot' if self.hot else ''}"


KINDS = [
    Kind(kind, callers, hot)
    for callers in CALLERS
    for hot in ((False,) if callers == 1 else (False, True))
    for kind in ("threads", "tasks")
]


class Spread(NamedTuple):
    """The median of the rounds, and the lowest and highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Sum up what the rounds found."""
        return cls(median(values), min(values), max(values))


@dataclass(slots=True)
class Found:
    """All that the rounds found on one database."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By the name of a kind, one entry per round, with its floor's operations."""
    floors: dict[str, list[float]] = field(default_factory=dict)
    loops_ms: list[float] = field(default_factory=list)
    """What a loop took that has nothing to do with us, all the while."""
    open_loop: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def values(self, name: str, figure: str) -> list[float]:
        """Give a figure of a kind, round by round."""
        return [row[figure] for row in self.rows.get(name, ())]


Clock = Callable[[], float]


class Deadline:
    """Time that is left."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left_s(self) -> float:
        """How many seconds."""
        return self._end - self._clock()


def round_s(databases: int, seconds: float, kinds: list[Kind]) -> float:
    """Tell about how long one round takes."""
    floors = (len(_steps(kinds)) + 1) * (seconds * FLOOR_SHARE + START_S)
    return databases * (floors + len(kinds) * (seconds + WARM_UP_S + START_S) + 2)


def run(
    databases: list[Database],
    seconds: float,
    rounds: int,
    deadline: Deadline,
    kinds: list[Kind] = KINDS,
    tell: Callable[[str], None] = print,
) -> dict[str, Found]:
    """Run so many rounds, or as many as there is time for; what is left out is told."""
    found = {database.name: Found() for database in databases}
    took_s = 0.0
    for number in range(rounds):
        if deadline.left_s < took_s:
            tell(f"no time for round {number + 1} of {rounds}")
            break
        tell(f"round {number + 1} of {rounds}")
        before_s = deadline.left_s
        for database in databases:
            _round(database, seconds, kinds, found[database.name], deadline)
        took_s = before_s - deadline.left_s
    return found


def _steps(kinds: list[Kind]) -> list[tuple[bool, bool, list[Kind]]]:
    """Put kinds together that stand beside one floor: alone or not, hot or not."""
    steps: dict[tuple[int, bool], list[Kind]] = {}
    for kind in kinds:
        steps.setdefault((kind.callers, kind.hot), []).append(kind)
    return [(callers == 1, hot, some) for (callers, hot), some in steps.items()]


def _round(
    database: Database, seconds: float, kinds: list[Kind], found: Found, deadline: Deadline
) -> None:
    base = database.fresh("floor")
    url = database.fresh("load")
    measure("prepare", url)
    # SQLite has one writer: its floor is highest with one client, and that is what counts.
    most = 1 if database.name == "sqlite" else FLOOR_CLIENTS
    if most == 1:
        _floor(base, FLOOR_CLIENTS, False, seconds, found)
    for alone, hot, some in _steps(kinds):
        found.loops_ms.append(machine.loop_ms())
        operations = _floor(base, 1 if alone else most, hot and most > 1, seconds, found)
        for kind in some:
            if deadline.left_s < seconds:
                found.failed.append(f"{kind.name}: the time was over before it")
                continue
            for row in _loaded(url, kind, seconds, found):
                row["floor_operations_per_s"] = operations
                row["operations_to_floor"] = 2 * row["pairs_per_s"] / operations
                found.rows.setdefault(kind.name, []).append(row)


def _floor(url: str, clients: int, hot: bool, seconds: float, found: Found) -> float:
    job = {"clients": clients, "seconds": seconds * FLOOR_SHARE, "hot": hot}
    operations: float = measure("floor", url, job)["operations_per_s"]
    name = f"{clients} client{'' if clients == 1 else 's'}{', hot' if hot else ''}"
    found.floors.setdefault(name, []).append(operations)
    return operations


def _loaded(url: str, kind: Kind, seconds: float, found: Found) -> Iterator[dict[str, Any]]:
    try:
        yield measure("load", url, {**kind._asdict(), "seconds": seconds})
    except Failed as failure:
        found.failed.append(f"{kind.name}: {failure}")


def open_loop(
    database: Database, found: Found, seconds: float, rounds: int, deadline: Deadline
) -> None:
    """Load at half of what 64 tasks reached, at a fixed rate; latencies count from when due."""
    reached = found.values("64 tasks", "pairs_per_s")
    if not reached:
        found.failed.append("half load: 64 tasks were not measured")
        return
    rate = median(reached) / 2
    for number in range(rounds):
        if number and deadline.left_s < seconds + 2:
            return
        load = Load("open", 0, hot=False, seconds=seconds, rate_per_s=rate)
        try:
            row = measure("load", database.kept("load"), load._asdict())
        except Failed as failure:
            found.failed.append(f"half load: {failure}")
        else:
            found.open_loop.append({**row, "rate_per_s": rate})
