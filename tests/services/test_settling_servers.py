"""Two servers on one PostgreSQL hear of one payment at once: what was read last is what stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guthaben.services.settling import Settler
from guthaben.store import payment_states, topups
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from tests import postgres
from tests.services.fakes import FakeGateway
from tests.services.house import Clock, metadata_of

_A_MOMENT_S = 0.5


@pytest.fixture
def servers() -> Iterator[tuple[Store, Store]]:
    url, clock = postgres.fresh(), Clock()
    here, there = (Store(url, clock_ms=clock) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def test_an_older_reading_never_undoes_what_another_server_booked(
    servers: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = tmp_path / "looked_at.db"  # the fake looks into a file at each question
    Store(f"sqlite:///{looked_at}").close()
    gateway = FakeGateway(looked_at, livemode=True)
    here, there = (Settler(store, gateway) for store in servers)
    gateway.put("pi_1", metadata=metadata_of(""), refunded_rappen=0)
    here.settle("pi_1")
    looks, late = payment_states.looks, list[threading.Thread]()

    def interrupted(cursor: Cursor, payment_id: str) -> int:
        found = looks(cursor, payment_id)
        if threading.current_thread().name == "guthaben-writer" and not late:
            gateway.put("pi_1", refunded_rappen=1_000)
            late.append(threading.Thread(target=there.settle, args=("pi_1",)))
            late[0].start()
            late[0].join(_A_MOMENT_S)
        return found

    monkeypatch.setattr(payment_states, "looks", interrupted)
    gateway.put("pi_1", refunded_rappen=500)
    here.settle("pi_1")
    late[0].join()

    def event(cursor: Cursor) -> Any:
        return topups.locate_event(cursor, "payment_id", "pi_1")

    assert servers[0].read(event).event.net_minor == 2_000
