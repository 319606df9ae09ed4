"""What a run was made on: the machine, the versions and the commit; no path and no host's name."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("guthaben", "psycopg", "uvloop")


def machine() -> dict[str, str]:
    """Describe the processor, the cores, the memory and the system."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count() or 1),
        "memory": f"{_memory_gb()} GB",
        "system": f"{platform.system()} {platform.release().split('-', maxsplit=1)[0]}",
    }


def versions() -> dict[str, str]:
    """Tell the versions of Python, SQLite and of what is measured with them."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Name the commit, with a plus when files differ from it."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    others = [line for line in changed.splitlines() if "benchmarks/results" not in line]
    return head + ("+" if others else "")


def load_average() -> str:
    """Tell how busy the machine is by itself, so that a noisy run can be told from a quiet one."""
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def loop_ms() -> float:
    """Measure Python itself, a million additions: a slow hour is told from slow code."""
    total, begun = 0, time.perf_counter()
    for number in range(1_000_000):
        total += number
    return 1000 * (time.perf_counter() - begun)


def _git(*arguments: str) -> str:
    found = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
