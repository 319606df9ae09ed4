"""Stages: how long the writer spends in each part of a batch, by the clock and by the processor.

Law: a stage's time is its own; what it calls that is a stage too is taken off. The engine is not
changed: its methods are wrapped for one process that measures and then ends.
"""

from __future__ import annotations

import importlib
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import Load, Result, run

# Where a stage begins: module, class, method, and what to call it. The first is the whole.
PLACES = [
    ("guthaben.store.writer", "Writer", "_commands", "fold, answer"),
    ("guthaben.store.sqlite_session", "SqliteSession", "begin", "begin"),
    ("guthaben.store.postgres_session", "PostgresSession", "begin", "begin"),
    ("guthaben.store.workspace", "Workspace", "prepare", "lock and read"),
    ("guthaben.store.workspace", "Workspace", "apply", "load and keep states"),
    ("guthaben.store.workspace", "apply", "", "the rules (domain)"),
    ("guthaben.store.workspace", "Workspace", "flush", "write rows"),
    ("guthaben.store.workspace", "Workspace", "committed", "keep states"),
    ("guthaben.store.sqlite_session", "SqliteSession", "commit", "COMMIT"),
    ("guthaben.store.postgres_session", "PostgresSession", "commit", "COMMIT"),
    ("guthaben.store.postgres_wire", "Wire", "flush", "the server"),
]


Sums = dict[str, list[float]]
"""By the name of a stage: seconds by the clock, of the processor, and how often."""


class Stage(NamedTuple):
    """One stage, per pair."""

    wall_us: float
    cpu_us: float
    times: float


class Stages:
    """Adds up the time between the beginning and the end of wrapped methods, thread by thread."""

    def __init__(self) -> None:
        self._threads = threading.local()
        self._all_sums: list[Sums] = []

    def _mine(self) -> tuple[list[list[float]], Sums]:
        """Give this thread's open stages and sums; several lanes may write at once."""
        if not hasattr(self._threads, "sums"):
            self._threads.open, self._threads.sums = [], defaultdict(lambda: [0.0, 0.0, 0.0])
            self._all_sums.append(self._threads.sums)
        return self._threads.open, self._threads.sums

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Give the function with a watch around it."""

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            inner, sums = self._mine()
            mine = [0.0, 0.0]
            inner.append(mine)
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **options)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                inner.pop()
                total = sums[name]
                total[0] += wall - mine[0]
                total[1] += cpu - mine[1]
                total[2] += 1
                if inner:
                    inner[-1][0] += wall
                    inner[-1][1] += cpu

        return timed

    def install(self) -> None:
        """Wrap what `PLACES` names, as far as it is there."""
        for module_name, owner_name, method, name in PLACES:
            try:
                module = importlib.import_module(module_name)
            except ImportError:  # no driver for that database
                continue
            owner = getattr(module, owner_name) if method else module
            attribute = method or owner_name
            setattr(owner, attribute, self.wrapped(getattr(owner, attribute), name))

    def per(self, pairs: int) -> dict[str, Stage]:
        """Give every stage's share of one pair."""
        names = {name for sums in self._all_sums for name in sums}
        found = {}
        for name in names:
            parts = [sums[name] for sums in self._all_sums if name in sums]
            wall, cpu, times = (sum(part[index] for part in parts) for index in range(3))
            found[name] = Stage(1e6 * wall / pairs, 1e6 * cpu / pairs, times / pairs)
        return found


def watch(url: str, load: Load) -> dict[str, Any]:
    """Run a load with a watch on every stage; all figures are per pair, the warm-up's included."""
    stages = Stages()
    stages.install()
    before, used = _counters(), resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    result: Result = run(url, load)
    took_s = time.perf_counter() - begun
    after, now = _counters(), resource.getrusage(resource.RUSAGE_SELF)
    # Everything is counted from the start, so pairs are too: what was reserved and settled.
    pairs = max(1, round(stages.per(1)["load and keep states"].times / 2))
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    found = stages.per(pairs)
    return {
        "result": result._asdict(),
        "pairs": pairs,
        "wall_us": 1e6 * took_s / pairs,
        "cpu_us": 1e6 * cpu_s / pairs,
        "system_us": 1e6 * (now.ru_stime - used.ru_stime) / pairs,
        "commands_per_batch": 2 / found["fold, answer"].times,
        "waits": (now.ru_nvcsw - used.ru_nvcsw) / pairs,
        "written_bytes": (after.get("write_bytes", 0) - before.get("write_bytes", 0)) / pairs,
        "write_calls": (after.get("syscw", 0) - before.get("syscw", 0)) / pairs,
        "stages": {name: stage._asdict() for name, stage in found.items()},
    }


def _counters() -> dict[str, int]:
    """Read what Linux counts of this process's reading and writing."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}
