"""Bringing a payment up to date: stale readings are thrown away, names agree, fees are kept."""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.errors import InvalidInput
from guthaben.payments.facts import BalanceEntry, PaymentFacts
from tests.services.house import (
    CHF_30,
    TEN_USD,
    House,
    metadata_of,
    page_of,
)
from tests.services.test_refunds import left, tell


@pytest.fixture
def bought(house: House) -> House:
    """30 CHF were paid for 10 USD."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    return house


def meanwhile(house: House, times: int, work: Any) -> None:
    """Let somebody do something after a worker has read, and before it books."""
    real, left_over = house.gateway.retrieve_payment, [times]

    def read(payment_id: str) -> PaymentFacts:
        found = real(payment_id)
        if left_over[0] > 0:
            left_over[0] -= 1
            work()
        return found

    house.gateway.retrieve_payment = read  # type: ignore[method-assign]


def test_an_older_reading_that_comes_last_changes_nothing(bought: House) -> None:
    bought.gateway.put("pi_1", refunded_rappen=1_000)

    def failed_and_booked() -> None:
        """Another worker sees the refund taken, then failed, while the first one still thinks."""
        bought.inbox.settler.settle("pi_1")
        bought.gateway.put("pi_1", refunded_rappen=0)
        bought.inbox.settler.settle("pi_1")

    meanwhile(bought, 1, failed_and_booked)
    bought.inbox.settler.settle("pi_1")
    assert bought.credit() == TEN_USD


def test_a_payment_that_changes_at_each_reading_waits(bought: House) -> None:
    amounts = iter(range(1, 3_000, 7))

    def somebody_else() -> None:
        bought.gateway.put("pi_1", refunded_rappen=next(amounts))
        gateway: Any = bought.gateway
        slow, gateway.retrieve_payment = gateway.retrieve_payment, gateway.payments.__getitem__
        bought.inbox.settler.settle("pi_1")
        gateway.retrieve_payment = slow

    meanwhile(bought, 99, somebody_else)
    with pytest.raises(InvalidInput, match="changed each time"):
        bought.inbox.settler.settle("pi_1")


@pytest.mark.parametrize("rappen", [1, 3_000])
def test_two_readings_of_the_same_book_once(bought: House, rappen: int) -> None:
    bought.gateway.put("pi_1", refunded_rappen=rappen)
    meanwhile(bought, 1, lambda: bought.inbox.settler.settle("pi_1"))
    assert tell(bought) == "done:duplicate"
    assert bought.credit() == left(rappen)
    assert len(bought.events()) == 2


# ---------------------------------------------------------------- names


def test_our_id_and_a_page_that_lead_to_different_purchases_are_held_back(house: House) -> None:
    house.open_purchase("tu_1", session_id="cs_1")
    house.open_purchase("tu_2", session_id="cs_2")
    house.gateway.put("pi_1", metadata=metadata_of("tu_1"))
    page = page_of("cs_2", metadata=metadata_of("tu_1"))
    for _ in range(2):
        assert house.tell("checkout.session.completed", page) == "quarantined:names_differ"
    assert house.statuses() == ["pending", "pending", "quarantined"]
    assert (house.credit(), house.alarms()) == (0, ["payment_quarantined"])
    house.gateway.put("pi_2", metadata=metadata_of("tu_2"))  # and the other one's own payment
    told = house.tell("checkout.session.completed", page_of("cs_2", "pi_2"))
    assert told == "done:credited"


def test_a_page_told_without_its_payment_and_then_the_payment_alone_is_one(house: House) -> None:
    house.open_purchase()
    assert house.paid(payment_id="").credited
    house.gateway.put("pi_1", metadata=metadata_of())
    told = house.tell("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})
    assert told == "done:duplicate"
    assert (house.credit(), house.statuses(), house.alarms()) == (TEN_USD, ["succeeded"], [])
    assert house.event()["payment_id"] == "pi_1"
    house.gateway.put("pi_1", refunded_rappen=1_500)  # it is known by its payment from now on
    tell(house)
    assert house.credit() == TEN_USD // 2


def test_another_payment_after_a_page_without_one_must_fit(house: House) -> None:
    house.open_purchase()
    house.paid(payment_id="")
    house.gateway.put("pi_1", metadata=metadata_of(), amount_received_rappen=100)
    told = house.tell("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})
    assert told == "quarantined:amount_mismatch"
    assert house.credit() == TEN_USD


# ---------------------------------------------------------------- fees, modes


def test_fees_are_kept_when_a_payment_is_credited(house: House) -> None:
    house.open_purchase()
    line = BalanceEntry("txn_1", "charge", "ch_1", CHF_30, 117, 2_883, "chf", None)
    house.gateway.put("pi_1", metadata=metadata_of(), charge_id="ch_1", balance=line)
    house.tell("checkout.session.completed", page_of())
    (row,) = house.rows("SELECT charge_id, fee_minor, net_minor FROM credit_payment_state")
    assert tuple(row.values()) == ("ch_1", 117, 2_883)


def test_a_payment_of_the_other_mode_is_held_back(house: House) -> None:
    house.gateway.put("pi_1", metadata=metadata_of(""), livemode=False)
    told = house.tell("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})
    assert told == "quarantined:livemode_mismatch"
    assert house.credit() == 0
