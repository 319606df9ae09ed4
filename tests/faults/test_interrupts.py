"""Ctrl-C or a worker's time limit at any moment: nobody hangs, and nothing is half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guthaben.store.store import Store
from tests.store.bank import free, problems, rows, url

pytestmark = [pytest.mark.faults, pytest.mark.soak]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_an_interrupt_leaves_no_lock_and_no_open_transaction(
    tmp_path: Path, soak_factor: int
) -> None:
    database = tmp_path / "credit.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    seconds = 4 * soak_factor
    command = [sys.executable, "-m", "tests.faults.workers", "interrupted", url(database)]
    done = subprocess.run(
        [*command, str(seconds)], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        timeout=seconds + 30, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["interrupts"] > 20
    assert told["failed"] == [], "an interrupt must not spoil the next command"
    store = Store(url(database))
    stored = {key for (key,) in rows(store, "SELECT key FROM credit_key")}
    assert {*told["done"], "last"} <= stored
    assert free(store, "p") == len(stored)
    assert problems(store) == []
    store.close()
