"""Subscriptions and invoices as Stripe sends them, from API answers and events of any version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import stripe

from guthaben.errors import InvalidInput, PaymentUnavailable
from guthaben.payments.stripe_gateway import API_VERSION, StripeGateway
from guthaben.payments.subscriptions import (
    PricedItem,
    invoice_subscription,
    subscription_facts,
)

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared/stripe/fixtures3_2026-08.json"
START, END = 1_700_000_000, 1_702_592_000


def item(**fields: Any) -> dict[str, Any]:
    known = {
        "id": "si_1", "quantity": 2, "price": {"id": "price_1", "lookup_key": "basic"},
        "current_period_start": START, "current_period_end": END,
    }  # fmt: skip
    return {name: value for name, value in (known | fields).items() if value != "absent"}


def subscription(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": "sub_1", "object": "subscription", "status": "active", "livemode": False,
        "created": START, "customer": "cus_1", "metadata": {"practice_id": "p"},
        "items": {"object": "list", "data": list(items or (item(),)), "has_more": False},
        "cancel_at": None, "cancel_at_period_end": False, "ended_at": None,
    }  # fmt: skip
    return {name: value for name, value in (known | fields).items() if value != "absent"}


def test_a_period_lives_on_the_items() -> None:
    facts = subscription_facts(subscription())
    assert facts.items == (PricedItem("basic", 2, START, END),)
    assert (facts.subscription_id, facts.status, facts.customer_id) == ("sub_1", "active", "cus_1")
    assert (facts.ends_at_s, facts.metadata) == (None, {"practice_id": "p"})


def test_an_older_endpoint_sends_the_period_on_the_subscription() -> None:
    old = item(current_period_start="absent", current_period_end="absent")
    facts = subscription_facts(
        subscription(old, current_period_start=START, current_period_end=END)
    )
    assert facts.items[0][2:] == (START, END)


def test_an_object_of_the_sdk_is_read_like_a_dict() -> None:
    made = stripe.Subscription.construct_from(subscription(customer={"id": "cus_2"}), "sk_test_x")
    facts = subscription_facts(made)
    assert (facts.customer_id, facts.items[0].lookup_key) == ("cus_2", "basic")


@pytest.mark.parametrize(
    ("fields", "ends_at_s"),
    [
        ({}, None),
        ({"cancel_at": 5}, 5),
        ({"cancel_at_period_end": True}, END),
        ({"cancel_at": 5, "cancel_at_period_end": True}, 5),
        ({"ended_at": 4, "cancel_at": 5}, 4),
    ],
)
def test_its_end(fields: dict[str, Any], ends_at_s: int | None) -> None:
    assert subscription_facts(subscription(**fields)).ends_at_s == ends_at_s


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"price": {"lookup_key": None}}, PricedItem("", 2, START, END)),
        ({"price": None}, PricedItem("", 2, START, END)),
        ({"price": "price_1"}, PricedItem("", 2, START, END)),
        ({"quantity": None}, PricedItem("basic", 1, START, END)),
        ({"quantity": 0}, PricedItem("basic", 0, START, END)),
    ],
)
def test_items(fields: dict[str, Any], expected: PricedItem) -> None:
    assert subscription_facts(subscription(item(**fields))).items == (expected,)


@pytest.mark.parametrize(
    "source",
    [
        {}, None, [], "sub_1",
        subscription(id="cus_1"), subscription(id="absent"), subscription(status=None),
        subscription(status=["active"]), subscription(livemode="absent"), subscription(created=1.5),
        subscription(items="absent"), subscription(items={"data": [], "has_more": False}),
        subscription(items={"data": [item()], "has_more": True}),
        subscription(item(current_period_start="absent")),
        subscription(item(current_period_end=START)),
        subscription(item(current_period_end=1 << 50)),
        subscription(item(current_period_start=-1)),
        subscription(item(current_period_start=True)),
        subscription(item(quantity=-1)), subscription(item(quantity=10**9)),
    ],
)  # fmt: skip
def test_what_can_not_be_understood_is_refused(source: Any) -> None:
    with pytest.raises(InvalidInput):
        subscription_facts(source)


def test_its_repr_shows_no_id() -> None:
    facts = subscription_facts(subscription(id="sub_1234567890abcdef", customer="cus_12345678"))
    assert "1234567890" not in repr(facts)
    assert "practice_id" not in repr(facts)


@pytest.mark.parametrize(
    ("invoice", "found"),
    [
        ({"parent": {"subscription_details": {"subscription": "sub_1"}}}, "sub_1"),
        ({"parent": {"subscription_details": {"subscription": {"id": "sub_1"}}}}, "sub_1"),
        ({"subscription": "sub_1"}, "sub_1"),
        ({"parent": {"type": "quote_details", "subscription_details": None}}, None),
        ({"parent": None, "subscription": None}, None),
        ({"parent": {"subscription_details": {"subscription": "in_1"}}}, None),
        ({}, None),
    ],
)
def test_the_subscription_of_an_invoice(invoice: dict[str, Any], found: str | None) -> None:
    assert invoice_subscription(invoice) == found


@pytest.mark.skipif(not SAMPLES.exists(), reason="Stripe's samples are not beside the project")
def test_stripes_own_samples_are_understood() -> None:
    samples = json.loads(SAMPLES.read_text())["resources"]
    sample = samples["subscription"]
    # The sample's instants are made up, and its period ends before it begins.
    sample["items"]["data"][0] |= {"current_period_start": START, "current_period_end": END}
    facts = subscription_facts(sample)
    assert facts.items == (PricedItem("", 1, START, END),)
    assert (facts.status, facts.ends_at_s) == ("active", sample["ended_at"])
    assert invoice_subscription(samples["invoice"]) is None
    samples["invoice"]["parent"]["subscription_details"]["subscription"] = "sub_9"
    assert invoice_subscription(samples["invoice"]) == "sub_9"


def test_it_is_asked_for_with_our_version_and_key() -> None:
    made = stripe.Subscription.construct_from(subscription(), "sk_test_x")
    with mock.patch("stripe.Subscription.retrieve", return_value=made) as retrieve:
        facts = StripeGateway("sk_test_local").retrieve_subscription("sub_1")
    assert facts.subscription_id == "sub_1"
    retrieve.assert_called_once_with(
        "sub_1", api_key="sk_test_local", stripe_version=API_VERSION, max_network_retries=0
    )


@pytest.mark.parametrize("answer", [{"id": "sub_2", "status": "active"}, {"id": "sub_1"}, None])
def test_an_answer_about_something_else_is_no_answer(answer: Any) -> None:
    with (
        mock.patch("stripe.Subscription.retrieve", return_value=answer),
        pytest.raises(PaymentUnavailable),
    ):
        StripeGateway("sk_test_local").retrieve_subscription("sub_1")


def test_only_the_id_of_a_subscription_is_asked_for() -> None:
    with pytest.raises(InvalidInput):
        StripeGateway("sk_test_local").retrieve_subscription("cus_1")
