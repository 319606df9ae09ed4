"""One measurement in a process of its own, so that no run inherits another's memory or threads.

`python -m benchmarks.child JOB` with a JSON object prints one JSON object. The parent gives every
job a limit of time; what takes longer is ended and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A measurement that broke or took too long; its text says which and why."""


def job_of(what: str, url: str, options: Mapping[str, Any]) -> str:
    """Write a job for the command line."""
    return json.dumps({"what": what, "url": url, "options": dict(options)})


def environment() -> dict[str, str]:
    """Give the variables of a measuring process: without settings that could change the engine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AZA_", "STRIPE_", "GUTHABEN_"))
    }
    paths = [str(_ROOT / "src"), str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def measure(
    what: str, url: str, options: Mapping[str, Any] = MappingProxyType({}), *, limit_s: float = 120
) -> dict[str, Any]:
    """Run one job and give what it printed. Raises `Failed`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", job_of(what, url, options)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what} took longer than {limit_s:.0f} s") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Failed(f"{what}: {last[0]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _floor(url: str, clients: int, seconds: float, hot: bool) -> dict[str, Any]:
    from benchmarks import floor

    return {"operations_per_s": floor.operations_per_s(url, clients, seconds, hot=hot)}


def _prepare(url: str) -> dict[str, Any]:
    from benchmarks import load

    load.prepare(url)
    return {}


def _load(url: str, **options: Any) -> dict[str, Any]:
    from benchmarks import load

    return load.run(url, load.Load(**options))._asdict()


def _grow(url: str, practices: int, calls: int) -> dict[str, Any]:
    from benchmarks import past
    from guthaben import Guthaben

    begun = time.perf_counter()
    with Guthaben.open(url) as credit:
        past.grow(credit, practices, calls)
    return {"seconds": time.perf_counter() - begun}


def _balance(url: str, rounds: int = 9, each: int = 200) -> dict[str, Any]:
    from benchmarks.past import name_of
    from guthaben import Guthaben

    found = []
    with Guthaben.open(url) as credit:
        for _ in range(rounds):
            begun = time.perf_counter()
            for number in range(each):
                credit.balance(name_of(number % 100))
            found.append((time.perf_counter() - begun) / each * 1e6)
    return {"balance_us": median(found)}


def _verify(url: str) -> dict[str, Any]:
    from benchmarks.load import memory_mb
    from guthaben import Guthaben

    with Guthaben.open(url) as credit:
        before_mb = memory_mb()
        used_s, begun = time.process_time(), time.perf_counter()
        told = credit.verify()
        took_s = time.perf_counter() - begun
        return {
            "ok": told.ok,
            "problems": [problem.text for problem in told.problems[:3]],
            "practices": told.practices,
            "transfers": told.transfers,
            "seconds": took_s,
            "cpu_seconds": time.process_time() - used_s,
            "grew_mb": memory_mb() - before_mb,
        }


def _stages(url: str, **options: Any) -> dict[str, Any]:
    from benchmarks import load, stages

    return stages.watch(url, load.Load(**options))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "balance": _balance,
    "floor": _floor,
    "grow": _grow,
    "load": _load,
    "prepare": _prepare,
    "stages": _stages,
    "verify": _verify,
}


def main() -> None:
    """Do the job that the command line names."""
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job["what"]](job["url"], **job["options"])))


if __name__ == "__main__":
    main()
