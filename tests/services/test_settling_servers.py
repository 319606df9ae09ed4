"""Two servers on one PostgreSQL hear of one payment at once: what was read last is what stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.commands import OpenEvent
from guthaben.domain.topup import CreditEvent
from guthaben.errors import Refused
from guthaben.services.quarantine import Decision, Quarantine
from guthaben.services.refunds import Refunds
from guthaben.services.settling import Settler
from guthaben.store import payment_states, refunds, topups
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from tests import databases, postgres
from tests.services.fakes import FakeGateway
from tests.services.house import CHF_30, PRACTICE, TEN_USD, Clock, metadata_of

_A_MOMENT_S = 0.5


@pytest.fixture
def servers() -> Iterator[tuple[Store, Store]]:
    url, clock = postgres.fresh(), Clock()
    here, there = (Store(url, clock_ms=clock) for _ in range(2))
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def gateway(tmp_path: Path) -> FakeGateway:
    # The fake looks into a database at each question; here not into the servers'.
    return FakeGateway(databases.made("sqlite", tmp_path), livemode=True)


def quarantine_of(store: Store, gateway: FakeGateway) -> Quarantine:
    settler = Settler(store, gateway)
    return Quarantine(store, gateway, settler, Refunds(store, gateway, settler))


def test_an_older_reading_never_undoes_what_another_server_booked(
    servers: tuple[Store, Store], gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_case_that_one_server_credits_is_not_refunded_by_another(
    servers: tuple[Store, Store], gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (quarantine_of(store, gateway) for store in servers)
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    Settler(servers[0], gateway).settle("pi_1")
    of_payment, late, told = refunds.of_payment, list[threading.Thread](), list[object]()

    def refund() -> None:
        try:
            told.append(there.refund(1, Decision("twice")))
        except Refused as error:
            told.append(error.reason)

    def interrupted(cursor: Cursor, payment_id: str) -> list[refunds.RefundRow]:
        found = of_payment(cursor, payment_id)
        if threading.current_thread().name == "guthaben-writer" and not late:
            late.append(threading.Thread(target=refund))
            late[0].start()
            late[0].join(_A_MOMENT_S)
        return found

    monkeypatch.setattr(refunds, "of_payment", interrupted)
    assert here.credit(1, PRACTICE, Decision("paid")).changed
    late[0].join()
    assert told == ["case_resolved"]


@pytest.mark.parametrize("number", range(1, 6))
def test_one_booking_is_not_taken_for_a_contradiction_of_its_own_record(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """The registry is read before another server books the payment, the record after it."""
    here, there = (Settler(store, gateway) for store in servers)
    opened = CreditEvent(
        0, "topup_purchase", "pending", TEN_USD, price_minor=CHF_30, livemode=True,
        topup_id="tu_1", session_id="cs_1",
    )  # fmt: skip
    servers[0].execute(PRACTICE, OpenEvent(opened))
    gateway.put("pi_1", metadata=metadata_of())
    find, asked, meanwhile = topups.find_payment, count(1), list[threading.Thread]()

    def interrupted(cursor: Cursor, *names: str) -> topups.Registered | None:
        found = find(cursor, *names)
        if threading.current_thread().name == "guthaben-writer" and next(asked) == number:
            meanwhile.append(threading.Thread(target=there.settle, args=("pi_1", "cs_1")))
            meanwhile[0].start()
            meanwhile[0].join(_A_MOMENT_S)
        return found

    monkeypatch.setattr(topups, "find_payment", interrupted)
    assert here.settle("pi_1", "cs_1")[0] == "done"
    for thread in meanwhile:
        thread.join()
    statuses = servers[0].read(
        lambda cursor: cursor.execute("SELECT status FROM credit_event").fetchall()
    )
    assert statuses == [("succeeded",)]
