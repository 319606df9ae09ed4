"""The server: how long until it answers, and how much memory it then holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(folder: Path) -> dict[str, float]:
    """Start `guthaben serve` on a fresh database; measure start in seconds and memory in MB."""
    port = _free_port()
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("AZA_", "STRIPE_", "GUTHABEN_"))
    }
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "guthaben.cli", "serve", "--port", str(port)],
        env={**clean, "GUTHABEN_DATABASE_URL": f"sqlite:///{folder / 'server.db'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                    break
            except OSError:
                if time.perf_counter() - begun > 30 or process.poll() is not None:
                    return {}
                time.sleep(0.02)
        start_s = time.perf_counter() - begun
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        rss_kb = next(
            int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")
        )
        return {"server_start_s": start_s, "server_memory_mb": rss_kb / 1024}
    finally:
        process.terminate()
        process.wait(10)
