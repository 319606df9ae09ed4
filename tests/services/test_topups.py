"""Buying by hand: our own record is committed before the provider is asked, and says what came.

A practice sees its own top-ups only; a foreign id answers as a missing one does.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from guthaben.domain.money import nano_usd_for_rappen
from guthaben.errors import (
    GuthabenError,
    InvalidAmount,
    InvalidInput,
    PaymentDeclined,
    PaymentError,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
    Refused,
    StoreUnavailable,
)
from guthaben.services.checkouts import CheckoutStart
from tests.services.house import CHF_30, OTHER, PRACTICE, TEN_USD, House, metadata_of, page_of

PAGES: dict[str, Any] = {
    "success_url": "https://app.example/ok",
    "cancel_url": "https://app.example/back",
}


def buy(house: House, amount_rappen: Any = CHF_30, **more: Any) -> CheckoutStart:
    """Begin a purchase."""
    return house.topups.start_checkout(PRACTICE, amount_rappen, **{**PAGES, **more})


# ---------------------------------------------------------------- the record comes first


def test_our_record_is_committed_before_the_provider_is_asked(house: House) -> None:
    start = buy(house)
    (asked,) = house.gateway.asked
    (row,) = asked.committed
    assert (row["status"], row["topup_id"], row["session_id"]) == ("pending", start.topup_id, "")
    assert (row["price_minor"], row["amount_nano_usd"], row["currency"]) == (
        CHF_30, TEN_USD, "chf",
    )  # fmt: skip
    assert asked.others_could_write


def test_the_page_carries_our_id_and_the_frozen_amounts(house: House) -> None:
    start = buy(house, customer_email="someone@example.org", locale="de", save_card=True)
    order = house.gateway.asked[0].argument
    assert order.amount_rappen == CHF_30
    assert order.client_reference_id == start.topup_id
    assert order.idempotency_key == f"guthaben-{start.topup_id}"
    assert metadata_of(start.topup_id).items() <= order.metadata.items()
    assert (order.success_url, order.cancel_url) == tuple(PAGES.values())
    assert (order.customer_email, order.locale) == ("someone@example.org", "de")
    assert order.save_payment_method is True
    assert "example.org" not in json.dumps(dict(order.metadata))


def test_the_page_that_was_made_is_noted(house: House) -> None:
    start = buy(house)
    assert start.url == "https://pay.example/1"
    assert house.event()["session_id"] == "cs_1"


def test_each_start_is_a_purchase_of_its_own(house: House) -> None:
    ids = {buy(house).topup_id for _ in range(5)}
    assert len(ids) == 5
    assert house.statuses() == ["pending"] * 5
    assert house.credit() == 0


def test_a_purchase_that_is_paid_is_credited(house: House) -> None:
    start = buy(house)
    house.gateway.put("pi_1", metadata=metadata_of(start.topup_id))
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    view = house.topups.one(PRACTICE, start.topup_id)
    assert (view.status, view.amount_nano_usd, view.price_rappen) == ("succeeded", TEN_USD, CHF_30)
    assert (house.credit(), house.gateway.methods()) == (
        TEN_USD, ["create_checkout", "retrieve_payment"],
    )  # fmt: skip


def test_a_payment_told_before_the_page_was_noted_is_credited_once(house: House) -> None:
    real = house.gateway.create_checkout

    def paid_at_once(order: Any) -> Any:
        page = real(order)
        house.gateway.put("pi_1", metadata=dict(order.metadata))
        assert house.tell("payment_intent.succeeded", {"id": "pi_1"}) == "done:credited"
        return page

    house.gateway.create_checkout = paid_at_once  # type: ignore[method-assign]
    buy(house)
    assert house.tell("checkout.session.completed", page_of()) == "done:duplicate"
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)


def test_a_card_saved_with_a_purchase_is_kept_and_enables_nothing(house: House) -> None:
    buy(house, save_card=True)
    house.gateway.put("pi_1", metadata=dict(house.gateway.asked[0].argument.metadata))
    house.tell("checkout.session.completed", page_of())
    view = house.topups.settings(PRACTICE)
    assert (view.card_saved, view.enabled) == (True, False)


def test_a_purchase_by_hand_switches_nothing_on(house: House) -> None:
    for save_card in (False, True):
        buy(house, save_card=save_card)
        metadata = house.gateway.asked[-1].argument.metadata
        house.gateway.put(f"pi_{save_card}", metadata=dict(metadata))
        house.tell("checkout.session.completed", page_of(f"cs_{save_card}", f"pi_{save_card}"))
    assert house.topups.settings(PRACTICE).enabled is False
    assert house.rows("SELECT * FROM credit_consent") == []
    assert house.why_not() == "disabled"


# ---------------------------------------------------------------- the provider says no

REFUSALS: list[tuple[Exception, str]] = [
    (PaymentUnavailable("down"), "canceled"),
    (PaymentRejected("no"), "canceled"),
    (PaymentDeclined("fraudulent"), "canceled"),
    (PaymentError("who knows"), "canceled"),
    (PaymentOutcomeUnknown("lost"), "pending"),
    (RuntimeError("a bug"), "pending"),
]


@pytest.mark.parametrize(("error", "status"), REFUSALS, ids=[type(e).__name__ for e, _ in REFUSALS])
def test_the_record_says_what_the_provider_said(
    house: House, error: Exception, status: str
) -> None:
    house.gateway.refuse = error
    with pytest.raises(type(error)) as caught:
        buy(house)
    assert caught.value is error
    row = house.event()
    assert row["status"] == status
    code = error.code if status == "canceled" and isinstance(error, GuthabenError) else ""
    assert row["reason"] == code


@pytest.mark.parametrize(
    ("error", "_status"), REFUSALS, ids=[type(e).__name__ for e, _ in REFUSALS]
)
def test_a_payment_that_comes_all_the_same_is_credited(
    house: House, error: Exception, _status: str
) -> None:
    house.gateway.refuse = error
    with pytest.raises(type(error)):
        buy(house)
    topup_id = house.event()["topup_id"]
    house.gateway.put("pi_1", metadata=metadata_of(topup_id))
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    assert house.credit() == TEN_USD


def test_without_a_store_the_provider_is_not_asked(house: House) -> None:
    house.guthaben.close()
    with pytest.raises(StoreUnavailable):
        buy(house)
    assert house.gateway.asked == []


# ---------------------------------------------------------------- bad input

BAD_AMOUNTS: list[Any] = [
    0, -3_000, 999, 500_001, 10**12, 10**30, True, False, 30.0, 3_000.0, 20.005, float("nan"),
    float("inf"), "3000", "1e3", None, b"3000", [3_000],
]  # fmt: skip


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=repr)
def test_an_amount_that_is_none_is_refused_and_nothing_is_recorded(
    house: House, amount: Any
) -> None:
    with pytest.raises(InvalidAmount, match=r"10\.00 to 5000\.00 CHF, in whole Rappen"):
        buy(house, amount)
    assert (house.events(), house.gateway.asked) == ([], [])


@pytest.mark.parametrize("amount", [1_000, 1_001, 3_000, 5_000, 499_999, 500_000])
def test_an_amount_within_the_limits_buys_a_third_of_it_in_usd(house: House, amount: int) -> None:
    buy(house, amount)
    row = house.event()
    assert (row["price_minor"], row["amount_nano_usd"]) == (amount, nano_usd_for_rappen(amount))


@pytest.mark.parametrize("practice_id", ["", "x" * 201, "a\nb", "\ud800", 5, None, b"p"], ids=repr)
def test_a_practice_that_is_none_is_refused(house: House, practice_id: Any) -> None:
    for ask in (
        lambda: house.topups.start_checkout(practice_id, CHF_30, **PAGES),
        lambda: house.topups.start_setup(practice_id, **PAGES),
        lambda: house.topups.settings(practice_id),
    ):
        with pytest.raises(InvalidInput):
            ask()
    assert house.gateway.asked == []


@pytest.mark.parametrize("changes", [{"success_url": ""}, {"cancel_url": " "}], ids=repr)
def test_an_order_that_is_none_leaves_no_record_behind(
    house: House, changes: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        buy(house, **changes)
    assert house.statuses() == []


# ---------------------------------------------------------------- isolation


def answer_to(house: House, practice_id: str, topup_id: str) -> tuple[type, str, str]:
    """What looking at a top-up that is not ours comes to."""
    with pytest.raises(Refused) as caught:
        house.topups.one(practice_id, topup_id)
    return type(caught.value), caught.value.reason, str(caught.value)


def test_a_foreign_top_up_answers_as_a_missing_one(house: House) -> None:
    mine = buy(house).topup_id
    foreign = answer_to(house, OTHER, mine)
    assert foreign == answer_to(house, OTHER, "tu_" + "0" * 24)
    assert foreign == answer_to(house, "prac_unknown", mine)
    assert foreign == answer_to(house, PRACTICE, "")
    assert foreign[1] == "topup_not_found"
    assert mine not in foreign[2]
    assert house.topups.one(PRACTICE, mine).topup_id == mine


@pytest.mark.parametrize("topup_id", [
    "\ud800", pytest.param("x" * 10_000, id="long"), "tu_1' OR '1'='1", "%", "tu_\x00",
])  # fmt: skip
def test_an_id_that_is_none_answers_as_a_missing_one(house: House, topup_id: str) -> None:
    buy(house)
    assert answer_to(house, PRACTICE, topup_id)[1] in ("topup_not_found", "invalid_input")


def test_a_refund_has_no_public_id_of_its_own(house: House) -> None:
    start = buy(house)
    house.gateway.put("pi_1", metadata=metadata_of(start.topup_id))
    house.tell("checkout.session.completed", page_of())
    house.gateway.put("pi_1", refunded_rappen=CHF_30)
    house.tell("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"})
    view = house.topups.one(PRACTICE, start.topup_id)
    assert (view.event_type, view.clawed_back_nano_usd) == ("topup_purchase", TEN_USD)


def test_what_a_practice_sees_shows_no_provider_id(house: House) -> None:
    start = buy(house)
    house.gateway.put("pi_1234567890", metadata=metadata_of(start.topup_id))
    house.tell("checkout.session.completed", page_of(payment_id="pi_1234567890"))
    told = repr((house.topups.one(PRACTICE, start.topup_id), house.guthaben.topups(PRACTICE)))
    assert "pi_1234567890" not in told
    assert "cus_1" not in told
    assert "pi_…90" in told
