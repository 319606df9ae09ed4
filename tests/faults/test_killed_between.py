"""Kill -9 between an event's steps: stored, read, applied, closed; and around sending a refund.

The next process finds what was left and does the rest, once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.house import CHF_30, TEN_USD, House, metadata_of, page_of

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]


def killed(house: House, where: str) -> None:
    """Let a process work on the database and be killed at a place."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.faults.money_worker", house.database.url, where]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("where", ["read", "applied", "closing"])
def test_an_event_is_applied_once_whenever_its_worker_died(house: House, where: str) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    event = house.envelope("checkout.session.completed", page_of())
    house.post(event)
    killed(house, where)
    assert house.letters()[event["id"]]["status"] == "new"
    assert house.credit() == (0 if where == "read" else TEN_USD)
    assert house.inbox.work_once() == 1
    assert (house.credit(), house.statuses(), house.alarms()) == (TEN_USD, ["succeeded"], [])


@pytest.mark.parametrize("where", ["refund_before", "refund_after"])
def test_a_refund_is_made_once_whenever_its_process_died(house: House, where: str) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    house.tell("checkout.session.completed", page_of())
    killed(house, where)
    (row,) = house.rows("SELECT * FROM credit_refund")
    assert (row["status"], row["attempts"]) == ("pending", 1)
    if where == "refund_after":  # the provider has done it: it knows the key
        receipt = house.gateway.give_back("pi_1", 1_500, metadata={"guthaben_refund":
                                                                   row["refund_id"]})  # fmt: skip
        house.gateway._refunded[row["idempotency_key"]] = receipt.refund_id
    house.clock.ms = max(house.clock.ms, (row["next_try_at_s"] + 1) * 1000)
    assert house.inbox.refunds.resolve_waiting() == 1
    assert house.gateway.payments["pi_1"].refunded_rappen == 1_500
    assert house.credit() == TEN_USD * 1_500 // CHF_30
