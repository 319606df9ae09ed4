"""History: what a pair costs after ten thousand and after millions of past calls; room; verify.

Law: the two databases are measured in turns, like a load and its floor. The long past is built once
and kept, under a name that changes with the schema; each run adds a few thousand calls to it.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks import past
from benchmarks.child import Failed, measure
from benchmarks.databases import Database, schema
from benchmarks.rounds import Deadline, Spread

FEW_CALLS = 10_000
PRACTICES = 1_024
_SLOWER = 1.5
"""How much longer a call of a long past takes to write than one of a short past, with VACUUM."""
_LOADS: dict[str, dict[str, Any]] = {
    "1 thread": {"kind": "threads", "callers": 1, "hot": False},
    "64 tasks": {"kind": "tasks", "callers": 64, "hot": False},
}


def label_of(database: Database, calls: int) -> str:
    """Name the kept database of so many calls."""
    return f"past-{calls}-{schema(database.name)}-{past.VERSION}"


def measure_history(
    database: Database,
    calls: int,
    seconds: float,
    rounds: int,
    deadline: Deadline,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Build what is missing, then measure both, the room and `verify`."""
    label = label_of(database, calls)
    if database.calls(label) < calls:
        needed_s = _SLOWER * calls * _few(database) / FEW_CALLS
        if needed_s > deadline.left_s:
            return {
                "skipped": f"{calls:,} past calls take about {needed_s:.0f} s to write and there"
                f" were {max(0.0, deadline.left_s):.0f} s left: make bench-full writes them"
            }
        for old in database.labels():
            if old.startswith(f"past-{calls}-"):
                database.drop(old)
        tell(f"{database.name}: writing {calls:,} past calls, once")
        past_of = {"practices": PRACTICES, "calls": calls}
        measure("grow", database.fresh(label), past_of, limit_s=20 * needed_s + 60)
        database.vacuum(label)
    # A running server has it in memory; verify would read the tables, but no index.
    if not database.warm(label):
        tell(f"{database.name}: the past may not be in memory: only a superuser may read it all")
    return _measured(database, label, calls, seconds, rounds, deadline)


def _few(database: Database) -> float:
    """Write the short past; tell how many seconds it took, which says how busy the machine is."""
    told = measure("grow", database.fresh("few"), {"practices": PRACTICES // 4, "calls": FEW_CALLS})
    return float(told["seconds"])


def _measured(
    database: Database, label: str, calls: int, seconds: float, rounds: int, deadline: Deadline
) -> dict[str, Any]:
    pairs: dict[str, dict[str, list[float]]] = {name: {"few": [], "many": []} for name in _LOADS}
    balances: dict[str, list[float]] = {"few": [], "many": []}
    measure("prepare", database.kept(label))
    verified = _verified(database, label, calls)
    for number in range(rounds):
        if number and deadline.left_s < 4 * (seconds + 2):
            break
        _few(database)
        few = database.kept("few")
        measure("prepare", few)
        for name, load in _LOADS.items():
            for size, url in (("few", few), ("many", database.kept(label))):
                row = measure("load", url, {**load, "seconds": seconds})
                pairs[name][size].append(row["pairs_per_s"])
        for size, url in (("few", few), ("many", database.kept(label))):
            balances[size].append(measure("balance", url)["balance_us"])
    # It was vacuumed when it was written, and has grown by a few thousand calls at most.
    room = database.size(label)
    return {
        "calls": calls,
        "few_calls": FEW_CALLS,
        "pairs_per_s": {
            name: {size: Spread.of(found)._asdict() for size, found in sizes.items()}
            for name, sizes in pairs.items()
        },
        "cost_ratio": {name: _ratio(sizes) for name, sizes in pairs.items()},
        "balance_us": {size: Spread.of(found)._asdict() for size, found in balances.items()},
        "bytes_per_call": room.bytes_per_call,
        "verify": verified,
    }


def _ratio(sizes: dict[str, list[float]]) -> float:
    """Tell how much more a pair costs with a long past: the median of the rounds' ratios."""
    return median(few / many for few, many in zip(sizes["few"], sizes["many"], strict=True))


def _verified(database: Database, label: str, calls: int) -> dict[str, Any]:
    try:
        told = measure("verify", database.kept(label), limit_s=120 + calls / 10_000)
    except Failed as failure:
        return {"failed": str(failure)}
    return {**told, "transfers_per_s": told["transfers"] / told["seconds"]}
