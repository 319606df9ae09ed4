"""The server: how long until it answers, on nothing and again, and the memory it then holds."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.child import Failed, environment
from benchmarks.databases import Database
from benchmarks.rounds import Spread

_START_S = 30
_LABEL = "server"


def measure(database: Database, rounds: int = 3) -> dict[str, Any]:
    """Start `guthaben serve`: seconds until ready, MB of memory. Raises `Failed`."""
    first: list[float] = []
    again: list[float] = []
    memory: list[float] = []
    for _ in range(rounds):
        first.append(_start(database.fresh(_LABEL))[0])
        start_s, memory_mb = _start(database.kept(_LABEL))
        again.append(start_s)
        memory.append(memory_mb)
    return {
        "first_start_s": Spread.of(first)._asdict(),
        "start_s": Spread.of(again)._asdict(),
        "memory_mb": Spread.of(memory)._asdict(),
    }


def _start(url: str) -> tuple[float, float]:
    port = _free_port()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "guthaben.cli", "serve", "--port", str(port)],
        env={**environment(), "GUTHABEN_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(port):
            if time.perf_counter() - begun > _START_S or process.poll() is not None:
                raise Failed("the server did not answer")
            time.sleep(0.01)
        return time.perf_counter() - begun, _memory_mb(process.pid)
    finally:
        process.terminate()
        process.wait(15)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except OSError:
        return False


def _memory_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:  # not on Linux
        return 0
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
