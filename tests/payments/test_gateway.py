"""Hosted pages, look-ups, refunds: what is sent, what is understood, what is raised."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import stripe

from guthaben.errors import (
    GuthabenError,
    InvalidAmount,
    InvalidInput,
    PaymentDeclined,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
)
from guthaben.payments.facts import RefundReceipt
from guthaben.payments.gateway import (
    CheckoutOrder,
    HostedPage,
    PaymentGateway,
    SetupOrder,
    SubscriptionOrder,
)
from guthaben.payments.stripe_gateway import (
    API_VERSION,
    StripeGateway,
    limit_sdk_timeout,
    point_sdk_at,
)
from tests.payments.conftest import FakeStripe, intent

CREATE = "stripe.checkout.Session.create"
OPTIONS = {"api_key": "sk_test_local", "stripe_version": API_VERSION, "max_network_retries": 0}
URLS: dict[str, Any] = {"success_url": "https://x/succes2", "cancel_url": "https://x/no"}
COMMON = {**URLS, "metadata": {"topup_id": "42"}, **OPTIONS}
PAGE = mock.MagicMock(url="https://checkout.stripe.com/test", id="cs_test")


@pytest.fixture
def alone() -> StripeGateway:
    return StripeGateway("sk_test_local")


def test_it_is_a_payment_gateway(alone: StripeGateway) -> None:
    gateway: PaymentGateway = alone
    assert gateway is alone


# ---------------------------------------------------------------- hosted pages


@pytest.mark.parametrize(
    ("changes", "params"),
    [
        ({}, {}),
        ({"customer_email": "a@example.org"}, {"customer_email": "a@example.org"}),
        (
            {"save_payment_method": True, "customer_email": "a@example.org"},
            {
                "customer_email": "a@example.org",
                "customer_creation": "always",
                "payment_intent_data": {
                    "metadata": {"topup_id": "42"},
                    "setup_future_usage": "off_session",
                },
            },
        ),
        (
            {"save_payment_method": True, "customer_id": "cus_1", "customer_email": "a@b"},
            {
                "customer": "cus_1",
                "payment_intent_data": {
                    "metadata": {"topup_id": "42"},
                    "setup_future_usage": "off_session",
                },
            },
        ),
        (
            {
                "client_reference_id": "prac_7",
                "locale": "de",
                "idempotency_key": "page:42",
                "payment_method_types": ("card", "twint"),
            },
            {
                "client_reference_id": "prac_7",
                "locale": "de",
                "idempotency_key": "page:42",
                "allowed_payment_method_types": ["card", "twint"],
            },
        ),
    ],
)
def test_checkout(alone: StripeGateway, changes: dict[str, Any], params: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "amount_rappen": 3000,
        "description": "AI credit",
        "metadata": {"topup_id": "42"},
        **URLS,
    }
    with mock.patch(CREATE, return_value=PAGE) as create:
        page = alone.create_checkout(CheckoutOrder(**fields | changes))
    assert page == HostedPage("cs_test", "https://checkout.stripe.com/test")
    expected: dict[str, Any] = {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": "chf",
                    "unit_amount": 3000,
                    "product_data": {"name": "AI credit"},
                },
            }
        ],
        "payment_intent_data": {"metadata": {"topup_id": "42"}},
        "adaptive_pricing": {"enabled": False},
        **COMMON,
    }
    assert create.call_args.kwargs == expected | params


@pytest.mark.parametrize(
    ("changes", "params"),
    [
        ({"customer_email": "a@b"}, {"customer_email": "a@b", "customer_creation": "always"}),
        ({}, {"customer_creation": "always"}),
        ({"customer_id": "cus_1", "customer_email": "a@b"}, {"customer": "cus_1"}),
    ],
)
def test_setup(alone: StripeGateway, changes: dict[str, Any], params: dict[str, Any]) -> None:
    with mock.patch(CREATE, return_value=PAGE) as create:
        alone.create_setup(SetupOrder(**URLS, metadata={"topup_id": "42"}, **changes))
    assert create.call_args.kwargs == {
        "mode": "setup",
        "currency": "chf",
        "setup_intent_data": {"metadata": {"topup_id": "42"}},
        **COMMON,
        **params,
    }


@pytest.mark.parametrize("choice", [{"price_id": "price_1"}, {"lookup_key": "basic"}])
def test_subscription(alone: StripeGateway, choice: dict[str, str]) -> None:
    order = SubscriptionOrder(
        **URLS, **choice, quantity=2, metadata={"topup_id": "42"}, client_reference_id="sub_top"
    )
    prices = {"data": [{"id": "price_1"}]}
    with (
        mock.patch(CREATE, return_value=PAGE) as create,
        mock.patch("stripe.Price.list", return_value=prices) as listing,
    ):
        alone.create_subscription_checkout(order)
    assert listing.called is ("lookup_key" in choice)
    assert create.call_args.kwargs == {
        "mode": "subscription",
        "line_items": [{"price": "price_1", "quantity": 2}],
        "subscription_data": {"metadata": {"topup_id": "42"}},
        "client_reference_id": "sub_top",
        **COMMON,
    }


@pytest.mark.parametrize("data", [[], [{"id": None}], None])
def test_an_unknown_price(alone: StripeGateway, data: Any) -> None:
    order = SubscriptionOrder(**URLS, lookup_key="gone")
    with (
        mock.patch("stripe.Price.list", return_value={"data": data}),
        pytest.raises(PaymentRejected) as refused,
    ):
        alone.create_subscription_checkout(order)
    assert refused.value.provider_code == "price_not_found"


@pytest.mark.parametrize("session", [mock.MagicMock(), {"id": "cs_1"}, {"url": "https://x"}, None])
def test_a_page_without_address(alone: StripeGateway, session: Any) -> None:
    with mock.patch(CREATE, return_value=session), pytest.raises(PaymentOutcomeUnknown):
        alone.create_setup(SetupOrder(**URLS))


def test_a_page_over_the_wire(fake: FakeStripe, gateway: StripeGateway) -> None:
    fake.body = {"object": "checkout.session", "id": "cs_1", "url": "https://x/pay"}
    page = gateway.create_setup(SetupOrder(**URLS))
    assert (page.session_id, page.url) == ("cs_1", "https://x/pay")
    assert fake.seen[0].params["success_url"] == "https://x/succes2"
    assert fake.seen[0].params["customer_creation"] == "always"


# ---------------------------------------------------------------- look-ups


def test_retrieve_payment(fake: FakeStripe, gateway: StripeGateway) -> None:
    charge = {"object": "charge", "id": "ch_1", "amount_refunded": 999, "disputed": True}
    fake.body = intent(latest_charge=charge)
    found = gateway.retrieve_payment("pi_1")
    assert (found.amount_received_rappen, found.refunded_rappen, found.disputed) == (
        3000,
        999,
        True,
    )
    assert (found.customer_id, found.livemode, found.metadata) == (
        "cus_1",
        False,
        {"topup_id": "42"},
    )
    assert fake.seen[0].path == "/v1/payment_intents/pi_1"
    assert fake.seen[0].params == {"expand[0]": "latest_charge.balance_transaction"}
    assert fake.seen[0].headers["stripe-version"] == API_VERSION


def test_retrieve_the_others(fake: FakeStripe, gateway: StripeGateway) -> None:
    session = {"id": "cs_1", "status": "complete", "payment_status": "paid"}
    fake.body = {"object": "checkout.session", "payment_intent": "pi_1", **session}
    assert gateway.retrieve_checkout("cs_1").payment_id == "pi_1"
    assert gateway.expire_checkout("cs_1").session_id == "cs_1"
    fake.body = {"object": "setup_intent", "id": "seti_1", "status": "succeeded"}
    assert gateway.retrieve_setup("seti_1").status == "succeeded"
    fake.body = intent(status="canceled", amount_received=0)
    assert gateway.cancel_payment("pi_1").status == "canceled"
    assert [(seen.method, seen.path) for seen in fake.seen] == [
        ("GET", "/v1/checkout/sessions/cs_1"),
        ("POST", "/v1/checkout/sessions/cs_1/expire"),
        ("GET", "/v1/setup_intents/seti_1"),
        ("POST", "/v1/payment_intents/pi_1/cancel"),
    ]


@pytest.mark.parametrize("body", [intent(id="pi_2"), intent(status=None), {}, b"", b"[]"])
def test_an_answer_to_another_question(fake: FakeStripe, gateway: StripeGateway, body: Any) -> None:
    fake.body = body
    with pytest.raises(PaymentUnavailable):
        gateway.retrieve_payment("pi_1")


@pytest.mark.parametrize("wrong", ["", "ch_1", None, 7, "pi_1/../customers", {"id": "pi_1"}])
def test_ids_are_checked_before_they_become_paths(alone: StripeGateway, wrong: Any) -> None:
    for method in (alone.retrieve_payment, alone.retrieve_setup, alone.cancel_payment):
        with pytest.raises(InvalidInput):
            method(wrong)


# ---------------------------------------------------------------- lists


def _page(*payments: dict[str, Any], more: bool = False) -> tuple[int, dict[str, Any]]:
    return 200, {"object": "list", "data": list(payments), "has_more": more}


def test_find_payment_reads_all_pages(fake: FakeStripe, gateway: StripeGateway) -> None:
    other = intent(id="pi_9", metadata={"topup_id": "41"})
    fake.answers = [_page(other, intent(id="pi_8", metadata={}), more=True), _page(intent())]
    found = gateway.find_payment("42", "cus_1", 1_700_000_600)
    assert found is not None
    assert found.payment_id == "pi_1"
    first, second = fake.seen
    assert first.params["customer"] == "cus_1"
    assert first.params["created[gte]"] == "1700000000"  # Stripe's clock isn't ours
    assert "starting_after" not in first.params
    assert second.params["starting_after"] == "pi_8"


def test_find_payment_prefers_the_one_that_was_paid(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    states = ("canceled", "never_seen", "succeeded", "processing")
    fake.answers = [_page(*(intent(id=f"pi_{state}", status=state) for state in states))]
    found = gateway.find_payment("42", "cus_1", 0)
    assert found is not None
    assert found.payment_id == "pi_succeeded"


def test_find_payment_is_sure_of_none(fake: FakeStripe, gateway: StripeGateway) -> None:
    fake.answers = [_page(intent(metadata={"topup_id": "4"}))]
    assert gateway.find_payment("42", "cus_1", 0) is None


@pytest.mark.parametrize(
    "body",
    [
        {"object": "list", "data": []},
        {"object": "list", "data": [], "has_more": True},
        {"object": "list", "has_more": "no"},
        {"object": "list", "data": [{"object": "payment_intent"}], "has_more": False},
        {},
        b"",
    ],
)
def test_a_list_that_is_not_understood_is_no_none(
    fake: FakeStripe, gateway: StripeGateway, body: Any
) -> None:
    fake.body = body
    with pytest.raises(PaymentUnavailable):
        gateway.find_payment("42", "cus_1", 0)


def test_an_endless_list_ends(alone: StripeGateway) -> None:
    numbers = itertools.count()

    def endless(**_params: object) -> object:
        return {"data": [intent(id=f"pi_{next(numbers)}", metadata={})], "has_more": True}

    with (
        mock.patch("stripe.PaymentIntent.list", side_effect=endless) as listing,
        pytest.raises(PaymentUnavailable, match="shorter"),
    ):
        alone.find_payment("42", "cus_1", 0)
    assert listing.call_count == 50


def test_a_list_that_turns_in_a_circle_ends(alone: StripeGateway) -> None:
    circle = {"data": [intent(metadata={})], "has_more": True}
    with (
        mock.patch("stripe.PaymentIntent.list", return_value=circle) as listing,
        pytest.raises(PaymentUnavailable, match="understood"),
    ):
        list(alone.payments_between(0, 1))
    assert listing.call_count == 2


def test_payments_between(fake: FakeStripe, gateway: StripeGateway) -> None:
    fake.answers = [_page(intent(id="pi_2"), more=True), _page(intent())]
    found = list(gateway.payments_between(100, 200))
    assert [payment.payment_id for payment in found] == ["pi_2", "pi_1"]
    assert fake.seen[0].params["created[gte]"] == "100"
    assert fake.seen[0].params["created[lt]"] == "200"


# ---------------------------------------------------------------- refunds


@pytest.mark.parametrize(("amount", "sent"), [(None, None), (500, "500")])
def test_refund(
    fake: FakeStripe, gateway: StripeGateway, amount: int | None, sent: str | None
) -> None:
    fake.body = {
        "object": "refund",
        "id": "re_1",
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "amount": 500,
        "currency": "chf",
        "status": "pending",
    }
    receipt = gateway.refund("pi_1", amount, "refund:42:1")
    assert receipt == RefundReceipt("re_1", "pi_1", "ch_1", 500, "chf", "pending")
    assert fake.seen[0].params.get("amount") == sent
    assert fake.seen[0].headers["idempotency-key"] == "refund:42:1"


@pytest.mark.parametrize(
    ("payment_id", "amount", "key", "error"),
    [
        ("pi_1", 500, "", InvalidInput),
        ("pi_1", 500, None, InvalidInput),
        ("ch_1", 500, "k", InvalidInput),
        ("pi_1", 0, "k", InvalidAmount),
        ("pi_1", -5, "k", InvalidAmount),
        ("pi_1", 5.5, "k", InvalidAmount),
        ("pi_1", True, "k", InvalidAmount),
    ],
)
def test_bad_refunds_are_not_sent(
    alone: StripeGateway, payment_id: str, amount: Any, key: Any, error: type[Exception]
) -> None:
    with mock.patch("stripe.Refund.create") as create, pytest.raises(error):
        alone.refund(payment_id, amount, key)
    create.assert_not_called()


def test_a_refund_that_is_not_understood_may_have_been_made(alone: StripeGateway) -> None:
    with (
        mock.patch("stripe.Refund.create", return_value=mock.MagicMock()),
        pytest.raises(PaymentOutcomeUnknown),
    ):
        alone.refund("pi_1", None, "k")


# ---------------------------------------------------------------- errors

Ask = Callable[[StripeGateway], object]
READ: Ask = lambda gateway: gateway.retrieve_payment("pi_1")  # noqa: E731
CHANGE: Ask = lambda gateway: gateway.refund("pi_1", None, "k")  # noqa: E731


@pytest.mark.parametrize(
    ("status", "error", "reading", "changing"),
    [
        (400, {"code": "x"}, PaymentRejected, PaymentRejected),
        (404, {"code": "resource_missing"}, PaymentRejected, PaymentRejected),
        (401, {}, PaymentUnavailable, PaymentUnavailable),
        (403, {}, PaymentUnavailable, PaymentUnavailable),
        (429, {"code": "rate_limit"}, PaymentUnavailable, PaymentUnavailable),
        (429, {"code": "lock_timeout"}, PaymentUnavailable, PaymentOutcomeUnknown),
        (402, {"code": "card_declined"}, PaymentDeclined, PaymentDeclined),
        (409, {}, PaymentUnavailable, PaymentOutcomeUnknown),
        (500, {}, PaymentUnavailable, PaymentOutcomeUnknown),
        (400, {"type": "idempotency_error"}, PaymentUnavailable, PaymentOutcomeUnknown),
    ],
)
def test_errors(
    fake: FakeStripe,
    gateway: StripeGateway,
    status: int,
    error: dict[str, str],
    reading: type[GuthabenError],
    changing: type[GuthabenError],
) -> None:
    fake.error(status, message="No such customer a@example.org", **error)
    for ask, kind in ((READ, reading), (CHANGE, changing)):
        with pytest.raises(GuthabenError) as raised:
            ask(gateway)
        assert type(raised.value) is kind
        assert raised.value.request_id == "req_test"  # type: ignore[attr-defined]
        assert "example.org" not in str(raised.value)
        assert raised.value.__context__ is None, "the SDK's error quotes what must not be logged"
        assert raised.value.__cause__ is None
    assert len(fake.seen) == 2


def test_lost_and_late(fake: FakeStripe, gateway: StripeGateway) -> None:
    fake.drop = True
    with pytest.raises(PaymentUnavailable, match="connection"):
        READ(gateway)
    with pytest.raises(PaymentOutcomeUnknown, match="connection"):
        CHANGE(gateway)
    hasty = StripeGateway("sk_test_local", timeout_s=0.05)
    fake.drop, fake.wait_s = False, 60
    with pytest.raises(PaymentOutcomeUnknown, match="deadline"):
        CHANGE(hasty)


def test_a_full_house_sent_nothing() -> None:
    gateway = StripeGateway("sk_test_local", timeout_s=0.02, most_in_flight=1)
    go_on = threading.Event()
    with mock.patch("stripe.Refund.create", side_effect=lambda **_: go_on.wait(30)) as create:
        with pytest.raises(PaymentOutcomeUnknown):
            CHANGE(gateway)
        with pytest.raises(PaymentUnavailable, match="hang"):
            CHANGE(gateway)
        assert create.call_count == 1
    go_on.set()


# ---------------------------------------------------------------- the process


def test_the_composition_root_may_change_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "api_base", stripe.api_base)
    monkeypatch.setattr(stripe, "default_http_client", None)
    point_sdk_at("http://127.0.0.1:8421/")
    assert stripe.api_base == "http://127.0.0.1:8421"
    point_sdk_at(None)
    assert stripe.api_base == "https://api.stripe.com"
    limit_sdk_timeout(12)
    assert stripe.default_http_client is not None


def test_the_gateway_logs_nothing_itself(
    fake: FakeStripe, gateway: StripeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    fake.error(400, message="customer cus_1234567890abcdef", code="x")
    with caplog.at_level(logging.DEBUG), pytest.raises(PaymentRejected):
        CHANGE(gateway)
    assert not [record for record in caplog.records if record.name.startswith("guthaben")]
