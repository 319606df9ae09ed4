"""Two servers on one PostgreSQL at once: what one decides, it decides of what is so by then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guthaben.services.quarantine import Decision, Quarantine
from guthaben.services.refunds import Refunds
from guthaben.services.settling import Settler
from guthaben.store.store import Store
from tests import postgres
from tests.meanwhile import Meanwhile
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import Clock, metadata_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers(clock: Clock) -> Iterator[tuple[Store, Store]]:
    url = postgres.fresh()
    here, there = (Store(url, clock_ms=clock) for _ in range(2))
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway(Elsewhere())


@pytest.fixture
def meanwhile(servers: tuple[Store, Store]) -> Meanwhile:
    return Meanwhile(servers[0].url)


def quarantine_of(store: Store, gateway: FakeGateway) -> Quarantine:
    settler = Settler(store, gateway)
    return Quarantine(store, gateway, settler, Refunds(store, gateway, settler))


def shown(sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in postgres.rows(0, sql, ())]


# ---- what was read of a payment before another server booked it


def test_a_case_that_went_back_is_not_opened_again_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    assert here.settle("pi_1") == ("quarantined", "amount_mismatch")
    meanwhile.at(
        monkeypatch, gateway, "retrieve_payment", lambda: there.refund(1, Decision("twice"))
    )
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status FROM credit_case") == [("refunded",)]


def test_a_case_is_opened_again_once_if_its_refund_fails_and_not_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    here.settle("pi_1")
    there.refund(1, Decision("twice"))

    def fails_and_is_refunded_again() -> None:
        gateway.refund_fails("re_1")
        Settler(servers[1], gateway).settle("pi_1")

    meanwhile.at(monkeypatch, gateway, "retrieve_payment", fails_and_is_refunded_again)
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status FROM credit_case") == [("open",)]


@pytest.mark.parametrize(
    ("older", "newer"),
    [("warning_needs_response", "warning_closed"), ("needs_response", "lost")],
)
def test_an_older_reading_of_a_dispute_never_replaces_a_newer_one(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    older: str,
    newer: str,
) -> None:
    here, there = (Settler(store, gateway) for store in servers)
    gateway.put("pi_1", metadata=metadata_of(""))
    gateway.dispute("pi_1", older)
    here.settle("pi_1")

    def the_end_is_told() -> None:
        gateway.dispute("pi_1", newer)
        there.settle("pi_1")

    meanwhile.at(monkeypatch, gateway, "payment_disputes", the_end_is_told)
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status, is_closed FROM credit_dispute") == [(newer, 1)]
