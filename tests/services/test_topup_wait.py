"""A call that lacks credit may wait for the automatic charge that its refusal caused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from guthaben.domain.commands import Reserve
from guthaben.errors import InsufficientCredit
from guthaben.payments.gateway import ChargeOrder, Declined
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.auto_topup import Charger
from guthaben.services.guthaben import Guthaben
from tests.services.conftest import Build
from tests.services.house import PRACTICE, TEN_USD, USD, House, in_parallel

LOST_CARD = Declined("pi_lost", "card_declined", "lost_card", None, True)


class Waiting:
    """A gate on the house's database that waits for its own charger."""

    def __init__(self, house: House, wait_s: float) -> None:
        self.house = house
        self.charger = Charger(house.gateway)
        self.credit = Guthaben.open(
            house.database.url,
            clock_ms=house.clock,
            on_claim=self.charger.claimed,
            under_way=self.charger.under_way,
            topup_wait_s=wait_s,
        )
        self.charger.attach(self.credit.core.store)
        self.charger.start()

    def close(self) -> None:
        self.charger.stop()
        self.credit.close()


@pytest.fixture
def house(build: Build) -> House:
    made = build(watching=False)
    made.arm()
    return made


@pytest.fixture
def gate(house: House) -> Iterator[Waiting]:
    opened = Waiting(house, 10)
    yield opened
    opened.close()


def test_the_call_goes_on_when_credit_came_in_time(gate: Waiting) -> None:
    call = gate.credit.reserve(PRACTICE, USD, key="k")
    assert (call.status, call.replayed) == ("reserved", False)
    assert gate.house.gateway.charged_rappen == 3_000


async def test_a_task_goes_on_too_and_the_loop_is_not_held_up(gate: Waiting) -> None:
    gate.house.gateway.during = lambda _order: time.sleep(0.2)
    credit = AsyncGuthaben(gate.credit.core)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(beat())
    call = await credit.reserve(PRACTICE, USD, key="k")
    beating.cancel()
    assert call.status == "reserved"
    assert beats >= 5


def test_many_that_are_refused_wait_for_one_charge(gate: Waiting) -> None:
    gate.house.gateway.during = lambda _order: time.sleep(0.1)
    found = in_parallel(6, lambda index: gate.credit.reserve(PRACTICE, USD, key=f"k{index}"))
    assert [one for one in found if isinstance(one, BaseException)] == []
    assert len(gate.house.gateway.charges) == 1


def test_a_charge_that_is_quicker_than_the_question_counts_too(gate: Waiting) -> None:
    """Refused, charged and credited, before whoever was refused comes to ask."""
    core = gate.credit.core
    refused = core.store.execute(PRACTICE, Reserve("k", USD))
    assert refused.reason == "insufficient_credit"
    charge = core.charge_to_await(PRACTICE)
    assert charge is not None
    assert charge.result(10)
    assert gate.house.credit() == TEN_USD
    assert core.credit_came(PRACTICE)


def test_a_charge_that_is_declined_lets_the_refusal_stand(gate: Waiting) -> None:
    gate.house.gateway.then(LOST_CARD)
    with pytest.raises(InsufficientCredit):
        gate.credit.reserve(PRACTICE, USD, key="k")
    assert gate.house.statuses() == ["failed"]


async def test_a_declined_charge_lets_a_tasks_refusal_stand(gate: Waiting) -> None:
    gate.house.gateway.then(LOST_CARD)
    with pytest.raises(InsufficientCredit):
        await AsyncGuthaben(gate.credit.core).reserve(PRACTICE, USD, key="k")


def test_nobody_waits_longer_than_agreed(house: House) -> None:
    gate, hold = Waiting(house, 0.05), threading.Event()

    def slow(_order: ChargeOrder) -> None:
        hold.wait(10)

    house.gateway.during = slow
    with pytest.raises(InsufficientCredit):
        gate.credit.reserve(PRACTICE, USD, key="k")
    assert house.statuses() == ["pending"]
    hold.set()
    gate.close()
    assert house.credit() == TEN_USD  # the charge was finished all the same


async def test_a_task_waits_no_longer_either_and_its_end_cancels_nothing(house: House) -> None:
    gate, hold = Waiting(house, 0.05), threading.Event()
    house.gateway.during = lambda _order: _held(hold)
    with pytest.raises(InsufficientCredit):
        await AsyncGuthaben(gate.credit.core).reserve(PRACTICE, USD, key="k")
    hold.set()
    await asyncio.to_thread(gate.close)
    assert house.credit() == TEN_USD


def test_by_default_nobody_waits(house: House) -> None:
    gate, hold = Waiting(house, 0), threading.Event()
    house.gateway.during = lambda _order: _held(hold)
    with pytest.raises(InsufficientCredit):
        gate.credit.reserve(PRACTICE, USD, key="k")
    assert house.statuses() == ["pending"]
    hold.set()
    gate.close()


def test_without_a_charge_under_way_nobody_waits(house: House) -> None:
    house.change("UPDATE credit_topup_settings SET enabled = 0")
    gate = Waiting(house, 60)
    began = time.monotonic()
    with pytest.raises(InsufficientCredit):
        gate.credit.reserve(PRACTICE, USD, key="k")
    assert time.monotonic() - began < 30
    gate.close()


def test_whoever_waits_when_the_charger_stops_hears_that_nothing_came(house: House) -> None:
    charger = Charger(house.gateway)
    charger.attach(house.store)
    charger.start()
    hold = threading.Event()
    house.gateway.during = lambda _order: _held(hold)
    from guthaben.domain.commands import Outcome

    charger.claimed(PRACTICE, Outcome(True, event=house.claim()))
    waited_for = charger.under_way(PRACTICE)
    assert waited_for is not None
    threading.Timer(0.05, hold.set).start()
    charger.stop()
    assert waited_for.result(timeout=5) in (True, False)
    assert charger.under_way(PRACTICE) is None


def _held(hold: threading.Event) -> None:
    hold.wait(10)
