"""Orders refuse what Stripe's SDK would send without a word."""

from __future__ import annotations

import math
from typing import Any

import pytest

from guthaben.errors import InvalidAmount, InvalidInput
from guthaben.payments.gateway import (
    ChargeOrder,
    CheckoutOrder,
    HostedPage,
    SetupOrder,
    SubscriptionOrder,
)
from tests.payments.conftest import MakeOrder

URLS: dict[str, Any] = {"success_url": "https://x/ok", "cancel_url": "https://x/no"}


@pytest.mark.parametrize(
    "amount", [0, -1, 0.49, 20.005, 3000.0, math.nan, "1e3", "3000", True, None, 10**12]
)
def test_amounts_are_whole_rappen(order: MakeOrder, amount: Any) -> None:
    with pytest.raises(InvalidAmount):
        order(amount_rappen=amount)
    with pytest.raises(InvalidAmount):
        CheckoutOrder(amount_rappen=amount, description="Credit", **URLS)


@pytest.mark.parametrize("key", ["", None, "x" * 256, " ", "a b", "schlüssel", "a\n", 7, b"k"])
def test_a_key_that_the_sdk_would_replace_is_refused(order: MakeOrder, key: Any) -> None:
    with pytest.raises(InvalidInput, match="idempotency key"):
        order(idempotency_key=key)


@pytest.mark.parametrize("key", ["x", "topup:42:1", "x" * 255])
def test_good_keys_pass(order: MakeOrder, key: str) -> None:
    assert order(idempotency_key=key).idempotency_key == key


@pytest.mark.parametrize("currency", ["CHF", "ch", "", None, "chf ", 756])
def test_currency(order: MakeOrder, currency: Any) -> None:
    with pytest.raises(InvalidInput):
        order(currency=currency)


@pytest.mark.parametrize(
    "metadata",
    [
        {"n": None},
        {"n": 1},
        {"": "x"},
        {"k" * 41: "x"},
        {"k": "x" * 501},
        {"a[b]": "x"},
        {str(n): "x" for n in range(51)},
    ],
)
def test_metadata(order: MakeOrder, metadata: Any) -> None:
    with pytest.raises(InvalidInput):
        order(metadata=metadata)


@pytest.mark.parametrize("missing", ["customer_id", "payment_method_id", "return_url"])
def test_empty_parts(order: MakeOrder, missing: str) -> None:
    with pytest.raises(InvalidInput):
        order(**{missing: "  "})


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"price_id": "price_1", "lookup_key": "basic"},
        {"price_id": ""},
        {"lookup_key": "basic", "quantity": 0},
        {"lookup_key": "basic", "quantity": True},
        {"lookup_key": "basic", "idempotency_key": ""},
        {"lookup_key": "basic", "customer_id": ""},
    ],
)
def test_subscription_orders(choice: dict[str, Any]) -> None:
    with pytest.raises((InvalidInput, InvalidAmount)):
        SubscriptionOrder(**URLS, **choice)


def test_pages_need_their_urls() -> None:
    with pytest.raises(InvalidInput):
        SetupOrder(success_url="", cancel_url="https://x/no")


def test_reprs_may_be_logged(order: MakeOrder) -> None:
    charge: ChargeOrder = order(metadata={"mail": "a@example.org"}, return_url="https://x/?t=s3")
    page = CheckoutOrder(
        amount_rappen=3000,
        description="Credit",
        customer_email="a@example.org",
        metadata={"secret": "hidden"},
        **URLS,
    )
    hosted = HostedPage("cs_test_1234567890abcdef", "https://checkout.stripe.com/c/hidden")
    shown = repr((charge, page, hosted))
    for secret in ("1234567890", "example.org", "hidden", "s3"):
        assert secret not in shown
    assert "cus_…cdef" in shown
    assert "pm_…cdef" in shown
    assert "amount_rappen=3000" in shown
