"""Bad input is refused in Stripe's way."""

from typing import Any

import pytest
import stripe

from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.form import pairs_of, parse
from tests.sandbox.harness import Running, buy


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"amount": None}, "amount", "parameter_missing"),
        ({"amount": 20.5}, "amount", "parameter_invalid_integer"),
        ({"amount": "1e3"}, "amount", "parameter_invalid_integer"),
        ({"amount": -100}, "amount", "parameter_invalid_integer"),
        ({"amount": 0}, "amount", "parameter_invalid_integer"),
        ({"amount": 49}, "amount", "amount_too_small"),
        ({"amount": 10**8}, "amount", "amount_too_large"),
        ({"currency": None}, "currency", "parameter_missing"),
        ({"currency": "xyz"}, "currency", None),
        ({"customer": "cus_none"}, "customer", "resource_missing"),
        ({"payment_method": "pm_none"}, "payment_method", "resource_missing"),
        ({"confirm": True}, "payment_method", "parameter_missing"),
        ({"off_session": True}, "off_session", None),
        ({"ammount": 5}, "ammount", "parameter_unknown"),
        ({"capture_method": "manual"}, "capture_method", None),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 41}]", None),
        ({"metadata": {"k": "v" * 501}}, "metadata[k]", None),
        ({"metadata": {str(n): "v" for n in range(51)}}, "metadata", None),
        ({"expand": ["amount.of.nothing"]}, "expand", None),
    ],
)
def test_payment_intents(
    sandbox: Running, changes: dict[str, Any], param: str, code: str | None
) -> None:
    params = {"amount": 3000, "currency": "chf"} | changes
    given: dict[str, Any] = {k: v for k, v in params.items() if v is not None}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.PaymentIntent.create(**given)
    assert (caught.value.http_status, caught.value.param, caught.value.code) == (400, param, code)
    assert sandbox.look("/counters")["objects"] == {}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"mode": "subscription"}, "payment_intent_data"),
        ({"mode": "gift"}, "mode"),
        ({"line_items": []}, "line_items"),
        ({"line_items": [{"quantity": 1}]}, "line_items[0][price_data]"),
        ({"success_url": "no address"}, "success_url"),
        ({"cancel_url": "javascript:alert(1)"}, "cancel_url"),
        ({"customer_creation": "perhaps"}, "customer_creation"),
        ({"expires_at": 5}, "expires_at"),
        ({"setup_intent_data": {"metadata": {"a": "b"}}}, "setup_intent_data"),
        ({"payment_intent_data": {"colour": "red"}}, "payment_intent_data[colour]"),
        ({"ui_mode": "embedded_page"}, "ui_mode"),
    ],
)
def test_sessions(sandbox: Running, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        buy(**changes)
    assert caught.value.param == param


def test_a_setup_needs_a_currency_and_one_customer(sandbox: Running) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.checkout.Session.create(mode="setup", success_url="http://127.0.0.1:9/")
    assert caught.value.param == "currency"
    customer = stripe.Customer.create()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        buy(customer=customer.id, customer_creation="always")
    assert caught.value.param == "customer_creation"


def test_a_session_below_the_minimum(sandbox: Running) -> None:
    price = {"currency": "chf", "unit_amount": 49, "product_data": {"name": "x"}}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        buy(line_items=[{"price_data": price, "quantity": 1}])
    assert caught.value.code == "amount_too_small"


def test_keys_of_the_api(sandbox: Running) -> None:
    for key in ("sk_live_x", "pk_test_x", "nonsense"):
        with pytest.raises(stripe.AuthenticationError):
            stripe.Customer.create(api_key=key)
    url = f"{sandbox.url}/v1/customers"
    client = sandbox.http
    assert client.get(url, headers={"Authorization": ""}).status_code == 401
    assert client.get(url, headers={"Authorization": "Basic !!"}).status_code == 401
    basic = client.get(url, auth=("sk_test_x", ""))
    assert basic.status_code == 200
    assert basic.headers["Request-Id"].startswith("req_")


def test_unknown_things(sandbox: Running) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.PaymentIntent.retrieve("pi_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.Coupon.create(percent_off=10, duration="once")
    assert caught.value.http_status == 404
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Charge.retrieve(stripe.Customer.create().id)
    assert sandbox.http.post("/v1/customers", content=b"\xff=1").status_code == 400
    assert sandbox.http.post("/v1/customers", content=b"x=" + b"1" * 10**6).status_code == 413


def test_the_form_is_read_as_stripe_writes_it() -> None:
    params = parse(pairs_of(b"a[x]=1&a[y]=&e[]=p&e[]=q&r[1][n]=2&r[0][n]=1&metadata[k]=v&m=true"))
    assert params.group("a").text("x") == "1"
    assert params.group("a").text("y") is None
    assert params.texts("e") == ["p", "q"]
    assert [row.integer("n") for row in params.rows("r")] == [1, 2]
    assert params.metadata({"old": "1", "k": "0"}) == {"old": "1", "k": "v"}
    assert params.flag("m") is True
    with pytest.raises(ApiError):
        parse(pairs_of("a[²]=1".encode())).texts("a")


@pytest.mark.parametrize(
    "body", [b"[a]=1", b"a[b=1", b"a=1&a[b]=2", b"a[b]=1&a=2", b"a" + b"[b]" * 9]
)
def test_broken_forms_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError):
        parse(pairs_of(body))
