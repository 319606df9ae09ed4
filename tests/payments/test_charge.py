"""Charging a saved card: every answer becomes the one result that is certain; nothing is raised."""

from __future__ import annotations

import threading
import time
from typing import Any
from unittest import mock

import pytest
import stripe

from guthaben.errors import ConfigError, InvalidInput
from guthaben.payments.gateway import (
    Charged,
    Declined,
    NeedsCustomer,
    NotSent,
    Processing,
    Unknown,
)
from guthaben.payments.stripe_gateway import API_VERSION, StripeGateway, point_sdk_at
from tests.payments.conftest import FakeStripe, MakeOrder, intent

CREATE = "stripe.PaymentIntent.create"


@pytest.fixture
def alone() -> StripeGateway:
    """A gateway for tests that patch the SDK."""
    return StripeGateway("sk_test_local")


def _mock(**attributes: Any) -> mock.MagicMock:
    answer = mock.MagicMock()
    for name, value in attributes.items():
        setattr(answer, name, value)
    return answer


def _stripe(**changes: Any) -> stripe.PaymentIntent:
    return stripe.PaymentIntent.construct_from(intent(**changes), "sk_test_1")


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (_mock(id="pi_ok", status="succeeded"), Charged("pi_ok")),
        (intent(), Charged("pi_1")),
        (_stripe(), Charged("pi_1")),
        (
            _mock(id="pi_fail", status="requires_action"),
            NeedsCustomer("pi_fail", "requires_action"),
        ),
        (_stripe(status="processing"), Processing("pi_1")),
        (intent(status="requires_confirmation"), Unknown("status_requires_confirmation", "pi_1")),
        (intent(status="requires_capture"), Unknown("status_requires_capture", "pi_1")),
        (intent(status="brand_new"), Unknown("status_brand_new", "pi_1")),
        (intent(status="canceled"), Declined("pi_1", "canceled", None, None, True)),
        (
            _stripe(
                status="requires_payment_method",
                last_payment_error={
                    "code": "card_declined",
                    "decline_code": "stolen_card",
                    "advice_code": "do_not_try_again",
                },
            ),
            Declined("pi_1", "card_declined", "stolen_card", "do_not_try_again", True),
        ),
        (intent(amount=2999), Unknown("amount_differs", "pi_1")),
        (_stripe(currency="eur"), Unknown("amount_differs", "pi_1")),
        (intent(id=None), Unknown("unparsable")),
        (intent(id="ch_1"), Unknown("unparsable")),
        (intent(status=None), Unknown("unparsable", "pi_1")),
        (_mock(id="pi_1"), Unknown("unparsable", "pi_1")),
        (mock.MagicMock(), Unknown("unparsable")),
        ({}, Unknown("unparsable")),
        (None, Unknown("unparsable")),
        ([], Unknown("unparsable")),
        ("pi_1", Unknown("unparsable", "pi_1")),
    ],
)
def test_answers(alone: StripeGateway, order: MakeOrder, answer: Any, result: object) -> None:
    with mock.patch(CREATE, return_value=answer) as create:
        assert alone.charge_saved_card(order()) == result
    create.assert_called_once()


def test_what_is_sent(alone: StripeGateway, order: MakeOrder) -> None:
    with mock.patch(CREATE, return_value=intent()) as create:
        alone.charge_saved_card(order(description="Credit"))
    assert create.call_args.args == ()
    assert create.call_args.kwargs == {
        "amount": 3000,
        "currency": "chf",
        "customer": "cus_1234567890abcdef",
        "payment_method": "pm_1234567890abcdef",
        "off_session": True,
        "confirm": True,
        "description": "Credit",
        "metadata": {"topup_id": "42"},
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "idempotency_key": "topup:42:1",
        "api_key": "sk_test_local",
        "stripe_version": API_VERSION,
        "max_network_retries": 0,
    }


def test_a_return_url_allows_redirects(alone: StripeGateway, order: MakeOrder) -> None:
    with mock.patch(CREATE, return_value=intent()) as create:
        alone.charge_saved_card(order(return_url="https://x/back"))
    assert create.call_args.kwargs["return_url"] == "https://x/back"
    assert create.call_args.kwargs["automatic_payment_methods"] == {"enabled": True}


def test_an_empty_key_never_reaches_the_sdk(alone: StripeGateway, order: MakeOrder) -> None:
    forged = order()
    object.__setattr__(forged, "idempotency_key", "")
    with mock.patch(CREATE) as create, pytest.raises(InvalidInput):
        alone.charge_saved_card(forged)
    create.assert_not_called()


# ---------------------------------------------------------------- exceptions


def _card_error(**error: Any) -> stripe.CardError:
    body = {"error": {"type": "card_error"} | error}
    code = error.get("code")
    return stripe.CardError("no", None, code, http_status=402, json_body=body)


def _invalid(**error: Any) -> stripe.InvalidRequestError:
    body = {"error": {"type": "invalid_request_error"} | error}
    return stripe.InvalidRequestError(
        "no", error.get("param"), error.get("code"), http_status=400, json_body=body
    )


def _limit(code: str) -> stripe.RateLimitError:
    return stripe.RateLimitError("no", http_status=429, json_body={"error": {"code": code}})


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (
            _card_error(
                code="card_declined",
                decline_code="insufficient_funds",
                advice_code="try_again_later",
                payment_intent=intent(status="requires_payment_method"),
            ),
            Declined("pi_1", "card_declined", "insufficient_funds", "try_again_later", False),
        ),
        (
            _card_error(code="expired_card", payment_intent={"id": "pi_2"}),
            Declined("pi_2", "expired_card", None, None, True),
        ),
        (
            _card_error(code="card_declined", decline_code="lost_card"),
            Declined(None, "card_declined", "lost_card", None, True),
        ),
        (
            _card_error(code="card_declined", decline_code="never_seen"),
            Declined(None, "card_declined", "never_seen", None, True),
        ),
        (_card_error(), Declined(None, "unknown", None, None, True)),
        (
            stripe.CardError("no", None, "card_declined"),  # without any body
            Declined(None, "card_declined", None, None, True),
        ),
        (
            _card_error(
                code="card_declined",
                payment_intent={
                    "id": "pi_1",
                    "last_payment_error": {"advice_code": "do_not_try_again"},
                },
            ),
            Declined("pi_1", "card_declined", None, "do_not_try_again", True),
        ),
        (
            _card_error(
                code="authentication_required",
                payment_intent=intent(status="requires_payment_method"),
            ),
            NeedsCustomer("pi_1", "authentication_required"),
        ),
        (
            _card_error(code="card_declined", decline_code="authentication_required"),
            NeedsCustomer(None, "authentication_required"),
        ),
        (
            _card_error(code="x", payment_intent=intent(status="requires_action")),
            NeedsCustomer("pi_1", "requires_action"),
        ),
        (
            _card_error(code="x", payment_intent=intent(status="succeeded")),
            Unknown("error_but_succeeded", "pi_1"),
        ),
        (
            _invalid(code="x", payment_intent=intent(status="processing")),
            Unknown("error_but_processing", "pi_1"),
        ),
        (
            _invalid(code="y", payment_intent=intent(status="requires_payment_method")),
            Declined("pi_1", "y", None, None, True),
        ),
        (
            _invalid(code="resource_missing", param="payment_method"),
            NotSent("method_unusable", "resource_missing"),
        ),
        (
            _invalid(code="resource_missing", param="customer"),
            NotSent("method_unusable", "resource_missing"),
        ),
        (
            _invalid(
                code="resource_missing",
                param="customer",
                message="No such customer; a similar object exists in live mode, but a test",
            ),
            NotSent("misconfigured", "resource_missing"),
        ),
        (
            _invalid(code="payment_intent_mandate_invalid"),
            NotSent("method_unusable", "payment_intent_mandate_invalid"),
        ),
        (_invalid(code="amount_too_small"), NotSent("invalid_request", "amount_too_small")),
        (_invalid(), NotSent("invalid_request")),
        (stripe.AuthenticationError("no", http_status=401), NotSent("auth")),
        (stripe.PermissionError("no", http_status=403), NotSent("auth")),
        (_limit("rate_limit"), NotSent("rate_limit", "rate_limit")),
        (_limit("lock_timeout"), Unknown("lock_timeout")),
        (
            stripe.IdempotencyError("other parameters", http_status=400),
            Unknown("idempotency_mismatch"),
        ),
        (stripe.APIConnectionError("lost"), Unknown("connection")),
        (stripe.APIError("oops", http_status=500), Unknown("server_error")),
        (stripe.APIError("busy", http_status=409), Unknown("conflict")),
        (stripe.APIError("html", http_status=200), Unknown("unparsable")),
        (stripe.StripeError("?"), Unknown("unparsable")),
        (TimeoutError(), Unknown("deadline")),
        (RuntimeError("bug"), Unknown("unexpected_RuntimeError")),
        (ValueError("bug"), Unknown("unexpected_ValueError")),
    ],
)
def test_exceptions(alone: StripeGateway, order: MakeOrder, error: Any, result: Any) -> None:
    with mock.patch(CREATE, side_effect=error) as create:
        assert alone.charge_saved_card(order()) == result
        again = alone.charge_saved_card(order(is_retry=True))
    assert create.call_count == 2
    if isinstance(result, NotSent):
        # The second request did nothing either, but nobody knows what the first one did.
        assert again == Unknown(f"retry_{result.why}")
    else:
        assert again == result


# ---------------------------------------------------------------- over the wire


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, intent(), Charged("pi_1")),
        (200, intent(status="processing"), Processing("pi_1")),
        (
            402,
            {
                "error": {
                    "type": "card_error",
                    "code": "card_declined",
                    "decline_code": "do_not_honor",
                    "payment_intent": intent(status="requires_payment_method"),
                }
            },
            Declined("pi_1", "card_declined", "do_not_honor", None, True),
        ),
        (
            402,
            {
                "error": {
                    "type": "card_error",
                    "code": "authentication_required",
                    "payment_intent": intent(status="requires_payment_method"),
                }
            },
            NeedsCustomer("pi_1", "authentication_required"),
        ),
        (400, {"error": {"type": "idempotency_error"}}, Unknown("idempotency_mismatch")),
        (
            400,
            {"error": {"type": "invalid_request_error", "param": "amount"}},
            NotSent("invalid_request"),
        ),
        (401, {"error": {"type": "invalid_request_error"}}, NotSent("auth")),
        (403, {"error": {"type": "invalid_request_error"}}, NotSent("auth")),
        (409, {"error": {"type": "invalid_request_error"}}, Unknown("conflict")),
        (429, {"error": {"code": "rate_limit"}}, NotSent("rate_limit", "rate_limit")),
        (429, {"error": {"code": "lock_timeout"}}, Unknown("lock_timeout")),
        (429, b"<html>proxy</html>", Unknown("unparsable")),
        (403, b"<html>firewall</html>", Unknown("unparsable")),
        (500, {"error": {"type": "api_error"}}, Unknown("server_error")),
        (502, b"<html>bad gateway</html>", Unknown("server_error")),
        (200, b"", Unknown("unparsable")),
        (200, b"not json", Unknown("unparsable")),
        (200, {}, Unknown("unparsable")),
    ],
)
def test_over_the_wire(
    fake: FakeStripe,
    gateway: StripeGateway,
    order: MakeOrder,
    status: int,
    body: Any,
    result: object,
) -> None:
    fake.status, fake.body = status, body
    assert gateway.charge_saved_card(order()) == result
    assert len(fake.seen) == 1, "no request may be repeated by the SDK"
    seen = fake.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/payment_intents")
    assert seen.headers["idempotency-key"] == "topup:42:1"
    assert seen.headers["authorization"] == "Bearer sk_test_local"
    assert seen.headers["stripe-version"] == API_VERSION
    assert seen.params["amount"] == "3000"
    assert seen.params["off_session"] == "true"
    assert seen.params["confirm"] == "true"
    assert seen.params["metadata[topup_id]"] == "42"


def test_an_answer_out_of_this_world(
    fake: FakeStripe, gateway: StripeGateway, order: MakeOrder
) -> None:
    fake.body = [1, 2]
    assert isinstance(gateway.charge_saved_card(order()), Unknown)


def test_a_lost_connection(fake: FakeStripe, gateway: StripeGateway, order: MakeOrder) -> None:
    fake.drop = True
    assert gateway.charge_saved_card(order()) == Unknown("connection")
    assert len(fake.seen) == 1


def test_nobody_listening(gateway: StripeGateway, fake: FakeStripe, order: MakeOrder) -> None:
    deaf = "http://127.0.0.1:9"
    point_sdk_at(deaf)
    assert StripeGateway("sk_test_1", api_base=deaf).charge_saved_card(order()) == Unknown(
        "connection"
    )


def test_the_deadline_holds(fake: FakeStripe, order: MakeOrder) -> None:
    fake.wait_s, fake.body = 60, intent()
    hasty = StripeGateway("sk_test_local", api_base=fake.url, timeout_s=0.1)
    began = time.monotonic()
    assert hasty.charge_saved_card(order()) == Unknown("deadline")
    assert time.monotonic() - began < 30


def test_hanging_calls_are_limited(order: MakeOrder) -> None:
    gateway = StripeGateway("sk_test_local", timeout_s=0.2, most_in_flight=2)
    go_on = threading.Event()

    def hang(**_: Any) -> Any:
        go_on.wait(30)
        return intent()

    with mock.patch(CREATE, side_effect=hang) as create:
        results = [gateway.charge_saved_card(order()) for _ in range(3)]
        assert results == [Unknown("deadline"), Unknown("deadline"), NotSent("busy")]
        assert create.call_count == 2
        go_on.set()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if gateway.charge_saved_card(order()) == Charged("pi_1"):
                break
        else:
            pytest.fail("the places weren't given back")


def test_without_a_thread_nothing_was_sent(alone: StripeGateway, order: MakeOrder) -> None:
    with (
        mock.patch(CREATE) as create,
        mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start")),
    ):
        for _ in range(40):  # more than there are places: each must be given back
            assert alone.charge_saved_card(order()) == NotSent("busy")
    create.assert_not_called()


# ---------------------------------------------------------------- where it goes


def test_a_sandbox_gateway_sends_nothing_elsewhere(order: MakeOrder) -> None:
    gateway = StripeGateway("sk_test_1", api_base="http://127.0.0.1:8421")
    with mock.patch(CREATE) as create:
        assert gateway.charge_saved_card(order()) == NotSent("misconfigured")
        assert gateway.charge_saved_card(order(is_retry=True)) == Unknown("retry_misconfigured")
    create.assert_not_called()
    with pytest.raises(ConfigError, match="point_sdk_at"):
        gateway.retrieve_payment("pi_1")


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1", "unknown"])
def test_a_live_key_never_travels_open(fake: FakeStripe, order: MakeOrder, key: str) -> None:
    gateway = StripeGateway(key)
    assert gateway.charge_saved_card(order()) == NotSent("misconfigured")
    with pytest.raises(ConfigError, match="https"):
        gateway.retrieve_payment("pi_1")
    assert fake.seen == []


@pytest.mark.parametrize("key", [None, "", "  "])
def test_no_key_no_gateway(key: str | None) -> None:
    with pytest.raises(ConfigError):
        StripeGateway(key)


def test_globals_of_the_host_are_left_alone(
    fake: FakeStripe, gateway: StripeGateway, order: MakeOrder
) -> None:
    names = ("api_key", "api_version", "max_network_retries", "api_base", "proxy", "app_info")
    before = {name: getattr(stripe, name) for name in names}
    fake.body = intent()
    gateway.charge_saved_card(order())
    assert {name: getattr(stripe, name) for name in names} == before


def test_the_repr_hides_the_key() -> None:
    assert repr(StripeGateway("sk_live_hidden")) == "StripeGateway(live)"
    assert repr(StripeGateway("sk_test_hidden")) == "StripeGateway(test)"


def test_the_sdk_still_replaces_an_empty_key(fake: FakeStripe) -> None:
    """The reason for the check: should this fail one day, the check has become a courtesy."""
    fake.body = intent()
    stripe.PaymentIntent.create(amount=1, currency="chf", idempotency_key="", api_key="sk_test_1")
    assert len(fake.seen[0].headers["idempotency-key"]) > 20
