"""Kill -9 between sending and noting, and two servers at once: all arrives, under one id each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from guthaben.services.delivery import LEASE_S, Dispatcher
from guthaben.services.jobs import LEASE_S as LEAD_S
from guthaben.services.jobs import Job, Runner
from guthaben.services.notices import Fact, Notice, tell
from guthaben.services.targets import Targets
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from guthaben.store.writer import wall_clock_ms
from tests.databases import Database
from tests.services.receivers import HookReceiver

pytestmark = [pytest.mark.faults]

ROOT = Path(__file__).resolve().parents[2]
PAID: dict[str, Fact] = {"price_rappen": 3_000, "credit_nano_usd": 1, "automatic": 0}


def ids(hooks: HookReceiver) -> Counter[str]:
    return Counter(hook.headers["webhook-id"] for hook in hooks.received)


def told(store: Store, number: int, url: str) -> None:
    """Subscribe an endpoint, and tell so many things."""
    Targets(store, allow_private=lambda: True).add_endpoint("p", url)

    def tell_all(space: Workspace) -> None:
        for key in range(number):
            tell(space, "p", Notice.TOPPED_UP, str(key), PAID)

    store.run(tell_all)


def test_what_a_killed_process_had_sent_is_sent_again_under_its_id(database: Database) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with HookReceiver() as hooks:
        store = Store(database.url)
        told(store, 3, hooks.url)
        store.close()
        command = [sys.executable, "-m", "tests.faults.outbox_worker", database.url]
        child = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=60)
        assert child.returncode == -9
        assert sum(ids(hooks).values()) == 1
        # Its leases run out by the clock; until then nobody touches what it may be sending.
        ahead_ms = 0
        later = Store(database.url, clock_ms=lambda: wall_clock_ms() + ahead_ms)
        dispatcher = Dispatcher(later, allow_private=lambda: True)
        runner = Runner(later, [Job("outbox", 1, dispatcher.work)])
        assert runner.work_once() is None, "the dead one still holds the lead"
        ahead_ms = LEAD_S * 1000 + 1
        assert runner.work_once() is not None
        assert sum(ids(hooks).values()) == 1
        ahead_ms = (LEASE_S + LEAD_S) * 1000 + 1
        assert runner.work_once() is not None
        assert sorted(ids(hooks).values()) == [1, 1, 2]
        rows = later.read(lambda cur: cur.execute("SELECT status FROM credit_delivery").fetchall())
        assert rows == [("delivered",)] * 3
        later.close()


def test_two_servers_send_everything_once(database: Database) -> None:
    with HookReceiver() as hooks:
        stores = [Store(database.url) for _ in range(2)]
        sent = threading.Event()
        hooks.before = lambda: sent.set() if len(hooks.received) >= 30 else None
        runners = [
            Runner(store, [Job("outbox", 1, Dispatcher(store, allow_private=lambda: True).work)])
            for store in stores
        ]
        for runner in runners:
            runner.start()
        told(stores[0], 30, hooks.url)
        for runner in runners:
            runner.wake("outbox")
        assert sent.wait(20)
        for runner in runners:
            runner.stop(5)
        assert set(ids(hooks).values()) == {1}
        assert len(ids(hooks)) == 30
        for store in stores:
            store.close()
