"""The goals: what this project set out to reach, each with what was measured.

Law: every goal is a row, in every run. What was not measured was not reached, and the row says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

MANY_CALLS = 10_000_000
SET_BESIDE = 13_148
"""The floor, operations per second, of the machine on which goals in pairs per second were set."""
Run = dict[str, Any]


class Figure(NamedTuple):
    """What was measured, or nothing and why."""

    value: float | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing to reach: at least, or at most, and what we would like."""

    name: str
    unit: str
    bound: float
    goal: float | None
    at_least: bool
    read: Callable[[Run], Figure]


class Verdict(NamedTuple):
    """How a run stands to one goal."""

    name: str
    unit: str
    measured: float | None
    bound: float
    at_least: bool
    reached: bool
    goal: float | None
    goal_reached: bool
    why_not: str


def judge(run: Run) -> list[Verdict]:
    """Compare a run with every goal."""
    return [_judged(goal, goal.read(run)) for goal in GOALS]


def _judged(goal: Goal, figure: Figure) -> Verdict:
    def within(limit: float | None) -> bool:
        if limit is None or figure.value is None:
            return False
        return figure.value >= limit if goal.at_least else figure.value <= limit

    reached = within(goal.bound)
    return Verdict(
        goal.name,
        goal.unit,
        figure.value,
        goal.bound,
        goal.at_least,
        reached,
        goal.goal,
        reached if goal.goal is None else within(goal.goal),
        figure.why_not,
    )


def _database(run: Run, name: str) -> tuple[Run, str]:
    found = run.get("databases", {}).get(name)
    if found is None:
        return {}, run.get("missing", {}).get(name, "not measured")
    return found, "not measured"


def _of_load(database: str, load: str, figure: str) -> Callable[[Run], Figure]:
    def read(run: Run) -> Figure:
        found, why_not = _database(run, database)
        row = found.get("loads", {}).get(load)
        return Figure(row[figure]["median"]) if row else Figure(None, why_not)

    return read


def _half_load(run: Run) -> Figure:
    found, why_not = _database(run, "sqlite")
    row = found.get("half_load")
    return Figure(row["p99_ms"]["median"]) if row else Figure(None, why_not)


def _hot_to_many(run: Run) -> Figure:
    found, why_not = _database(run, "postgresql")
    loads = found.get("loads", {})
    if "64 tasks" not in loads or "64 tasks, hot" not in loads:
        return Figure(None, why_not)
    hot, many = (loads[name]["pairs_per_s"]["median"] for name in ("64 tasks, hot", "64 tasks"))
    return Figure(hot / many)


def _past(
    database: str, read: Callable[[Run], float], *, all_of_it: bool
) -> Callable[[Run], Figure]:
    def figure(run: Run) -> Figure:
        found, why_not = _database(run, database)
        past = found.get("history", {})
        if "calls" not in past:
            return Figure(None, past.get("skipped", why_not))
        if all_of_it and past["calls"] < MANY_CALLS:
            return Figure(None, f"{read(past):.2f} with {past['calls']:,} past calls only")
        try:
            return Figure(read(past))
        except KeyError:
            return Figure(None, past["verify"].get("failed", why_not))

    return figure


def _verify(database: str) -> Callable[[Run], Figure]:
    def read(past: Run) -> float:
        told = past["verify"]
        if not told["ok"]:
            return 0.0
        # SQLite works inside of this process; PostgreSQL's server takes turns with it.
        seconds = told["cpu_seconds"] if database == "sqlite" else told["seconds"]
        return float(told["transfers"]) / seconds

    return _past(database, read, all_of_it=False)


def _worst_ratio(past: Run) -> float:
    return max(past["cost_ratio"].values())


def _room(database: str) -> Callable[[Run], Figure]:
    """Read the larger of what a past in bulk and what live traffic left."""

    def figure(run: Run) -> Figure:
        found, why_not = _database(run, database)
        rooms = [found.get("live_bytes_per_call"), found.get("history", {}).get("bytes_per_call")]
        known = [room for room in rooms if room is not None]
        return Figure(max(known)) if known else Figure(None, why_not)

    return figure


def _pairs(load: str, bound: int, goal: int | None) -> list[Goal]:
    """Set a goal in pairs per second twice: as it is, and beside the floor that it was set beside.

    The first tells of the machine as well, the second of this engine alone.
    """
    beside = None if goal is None else _beside(goal)
    return [
        Goal(f"SQLite, {load}", "pairs/s", bound, goal, True,
             _of_load("sqlite", load, "pairs_per_s")),
        Goal(f"SQLite, {load} to the floor", "ratio", _beside(bound), beside, True,
             _of_load("sqlite", load, "operations_to_floor")),
    ]  # fmt: skip


def _beside(pairs: int) -> float:
    return round(2 * pairs / SET_BESIDE, 2)


GOALS = [
    *_pairs("64 tasks", 6_000, 10_000),
    *_pairs("64 threads", 5_000, 10_000),
    Goal("SQLite, 1 thread", "pairs/s", 1_800, None, True,
         _of_load("sqlite", "1 thread", "pairs_per_s")),
    Goal("SQLite, p99 at half load", "ms", 20, None, False, _half_load),
    Goal("SQLite, one caller to the floor", "ratio", 0.35, None, True,
         _of_load("sqlite", "1 thread", "operations_to_floor")),
    Goal("PostgreSQL, 64 tasks to the floor at 32 clients", "ratio", 1.2, 2.0, True,
         _of_load("postgresql", "64 tasks", "operations_to_floor")),
    Goal("PostgreSQL, one hot practice to many", "ratio", 0.9, None, True, _hot_to_many),
    Goal("PostgreSQL, one caller to the floor", "ratio", 0.35, None, True,
         _of_load("postgresql", "1 thread", "operations_to_floor")),
    Goal("SQLite, a pair after 10,000,000 past calls to after 10,000", "ratio", 1.15, None, False,
         _past("sqlite", _worst_ratio, all_of_it=True)),
    Goal("PostgreSQL, a pair after 10,000,000 past calls to after 10,000", "ratio", 1.15, None,
         False, _past("postgresql", _worst_ratio, all_of_it=True)),
    Goal("SQLite, disk per call", "bytes", 400, 300, False,
         _room("sqlite")),
    Goal("PostgreSQL, disk per call", "bytes", 700, 500, False,
         _room("postgresql")),
    Goal("SQLite, verify on one core", "transfers/s", 200_000, None, True, _verify("sqlite")),
    Goal("PostgreSQL, verify on one core", "transfers/s", 200_000, None, True,
         _verify("postgresql")),
]  # fmt: skip
