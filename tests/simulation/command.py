"""The command line of the simulation: seeds over the cores, failures shrunk, bugs searched for.

Law: it imports nothing of the engine by itself, so that a bug can be planted in a worker first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation import planted

if TYPE_CHECKING:
    from tests.simulation.run import Found

MOST_SEEDS = 300
_SHOWN_LINES = 60


def seeds_of(text: str) -> range:
    """Read seeds: `17`, `0-299`, or with a leading `x` a number of them, `x1000`."""
    if text.startswith("x"):
        return range(int(text[1:]))
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def run_one(seed: int) -> Found:
    """Run one seed; called in worker processes."""
    from tests.simulation.run import run

    return run(seed)


def first_failure(bug: str, seeds: Iterable[int]) -> tuple[int, str, str]:
    """Plant a bug here and give the first seed that finds it, with the law and the detail."""
    planted.plant(planted.load()[bug])
    for seed in seeds:
        found = run_one(seed)
        planted.require_planted()
        if found.law:
            return seed, found.law, found.detail
    return -1, "", ""


class Hunt(NamedTuple):
    """How a planted bug was found: after how many seeds, by which law, or not at all (0)."""

    bug: str
    seeds: int
    law: str
    seconds: int


def hunt(bug: str, most: int = MOST_SEEDS) -> Hunt:
    """Look for a planted bug in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.simulation", "--bug", bug, f"x{most}", "--json"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=planted.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise RuntimeError(f"{bug}: {done.stderr[-2000:]}")
    seed, law, _detail = json.loads(done.stdout)
    return Hunt(bug, seed + 1, law, round(time.monotonic() - began))


def hunt_all(names: Sequence[str], most: int, jobs: int) -> list[Hunt]:
    """Look for many, over the cores, telling each as it is found."""
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(lambda name: hunt(name, most), names):
            print(f"{one.bug:34} {one.seeds or 'NOT FOUND':>9}  {one.law:28} {one.seconds} s")
            sys.stdout.flush()
            found.append(one)
    return found


def run_all(seeds: Sequence[int], jobs: int, *, history: bool = False) -> int:
    """Run seeds over the cores; print what is broken, shrunk, and how it goes on; 1 if any is."""
    began, broken = time.monotonic(), 0
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(run_one, seeds, chunksize=4):
            if found.law:
                broken += 1
                show(found)
            elif history:
                print(found.history)
    print(f"{len(seeds)} seeds, {broken} broken, {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


def show(found: Found) -> None:
    """Print a broken run: the law, how to see it again, and the shortest history that breaks it."""
    from tests.simulation.shrink import shrink

    short = shrink(found)
    lines = short.history.splitlines()
    print(f"seed {found.seed} breaks {found.law}: {found.detail}")
    print(f"  again: make simulate SEEDS={found.seed} ARGS=--history")
    print(f"  shrunk from {found.steps} steps to {short.steps}: {short.detail}")
    print("\n".join(f"  | {line}" for line in lines[-_SHOWN_LINES:]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seeds", nargs="?", default=f"x{MOST_SEEDS}", help="17, 0-299 or x1000")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--history", action="store_true", help="print the histories")
    parser.add_argument("--bug", help="plant this bug and tell the first seed that finds it")
    parser.add_argument("--bugs", action="store_true", help="look for every planted bug")
    parser.add_argument("--docs", action="store_true", help="write the table of planted bugs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    seeds = seeds_of(options.seeds)
    if options.bug:
        found = first_failure(options.bug, seeds)
        print(json.dumps(found) if options.json else found)
        return 0
    if options.bugs:
        from tests.simulation import table

        hunts = hunt_all(list(planted.load()), len(seeds), options.jobs)
        if options.docs:
            table.write(hunts)
        return 0 if all(one.seeds for one in hunts) else 1
    return run_all(seeds, options.jobs, history=options.history)
