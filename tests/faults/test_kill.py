"""Kill -9 at any moment: what was acknowledged is there, exactly, and nothing is half done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guthaben.store.store import Store
from tests.databases import Database
from tests.store.bank import problems, rows

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.soak]

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 25


def killed_after(database: Database, round_no: int, delay_s: float) -> list[list[str]]:
    """Let a process work for a moment, kill it, and give the lines it had written by then."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.faults.workers", "diary", database.url]
    command.append(str(round_no))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    assert child.stdout is not None
    try:
        first = child.stdout.readline()
        assert first == b"ready - 0\n"
        time.sleep(delay_s)
    finally:
        child.kill()
    rest = child.stdout.read()
    child.wait(30)
    child.stdout.close()
    # The last line may have been cut off; then it was not told to anybody.
    return [line.decode().split() for line in rest.split(b"\n")[:-1]]


def test_what_was_acknowledged_is_there(database: Database, soak_factor: int) -> None:
    told: dict[str, dict[str, int]] = {}
    for round_no in range(ROUNDS * soak_factor):
        delay_s = random.uniform(0.005, 0.15)
        for kind, name, amount in killed_after(database, round_no, delay_s):
            told.setdefault(kind, {})[name] = int(amount)
        store = Store(database.url)
        assert problems(store) == []
        check(store, told, round_no + 1)
        store.close()
    assert all(len(told[kind]) > ROUNDS for kind in ("grant", "reserve", "settle", "usage")), {
        kind: len(names) for kind, names in told.items()
    }


def check(store: Store, told: dict[str, dict[str, int]], rounds: int) -> None:
    """Compare everything that was ever acknowledged with what is stored."""
    grants = dict(
        rows(
            store,
            "SELECT k.key, g.granted_nano_usd FROM credit_key k JOIN credit_grant g"
            " USING (practice_no, grant_no)",
        )
    )
    calls = rows(store, "SELECT operation, key, status, reserved_nano_usd, cost_nano_usd"
                        " FROM credit_call")  # fmt: skip
    reserved = {key: amount for operation, key, _, amount, _ in calls if operation == 1}
    settled = {key: cost for op, key, status, _, cost in calls if op == 1 and status == 2}
    usage = {key: cost for operation, key, _, _, cost in calls if operation == 2}
    stored = {"grant": grants, "reserve": reserved, "settle": settled, "usage": usage}
    for kind, acknowledged in told.items():
        assert acknowledged.items() <= stored[kind].items(), kind
        # What each of the two threads had under way may be done or not, and a line be cut off.
        assert len(stored[kind]) - len(acknowledged) <= 3 * rounds
