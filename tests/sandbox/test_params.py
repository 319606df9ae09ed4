"""Requests are held against the SDK's own types."""

import contextlib
from typing import Any

import pytest
import stripe

from guthaben.sandbox.sdk_types import Group, Kind, ListOf, OneOf, group_of, names_of
from guthaben.sandbox.table import endpoints
from tests.sandbox.harness import Account, buy


def inside(kind: Kind, seen: set[Any]) -> int:
    """Count the parameters below a kind, reading every type on the way."""
    match kind:
        case Group(type_) if type_ not in seen:
            seen.add(type_)
            names = names_of(type_)
            assert names.required <= names.kinds.keys()
            return sum(1 + inside(inner, seen) for inner in names.kinds.values())
        case ListOf(entry):
            return inside(entry, seen)
        case OneOf(kinds):
            return sum(inside(one, seen) for one in kinds)
        case _:
            return 0


def test_the_sdk_knows_every_endpoint_of_the_sandbox() -> None:
    seen: set[Any] = set()
    counted = 0
    for method, path in endpoints():
        group = group_of(method, path)
        assert group is not None, (method, path)
        counted += inside(group, seen)
    assert counted > 1000
    assert group_of("POST", "/v1/nothing") is None


def test_options_of_the_sdk_are_no_parameters() -> None:
    group = group_of("POST", "/v1/refunds")
    assert group is not None
    names = names_of(group.type_)
    assert "amount" in names.kinds
    assert not {"idempotency_key", "api_key", "stripe_account"} & names.kinds.keys()


PRICE = {"currency": "chf", "unit_amount": 3000, "product_data": {"name": "Credit"}}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"payment_intent_data": {"colour": "red"}}, "payment_intent_data[colour]",
         "parameter_unknown"),
        ({"line_items": [{"price_data": PRICE | {"size": 1}, "quantity": 1}]},
         "line_items[0][price_data][size]", "parameter_unknown"),
        ({"line_items": [{"price_data": {"unit_amount": 1}, "quantity": 1}]},
         "line_items[0][price_data][currency]", "parameter_missing"),
        ({"payment_intent_data": {"transfer_data": {"amount": 1}}},
         "payment_intent_data[transfer_data][destination]", "parameter_missing"),
        ({"line_items": [{"price_data": PRICE, "quantity": 1.5}]},
         "line_items[0][quantity]", "parameter_invalid_integer"),
        ({"line_items": "two"}, "line_items", None),
        ({"adaptive_pricing": {"enabled": "perhaps"}}, "adaptive_pricing[enabled]", None),
        ({"mode": {"is": "payment"}}, "mode", None),
        ({"expires_at": "tomorrow"}, "expires_at", "parameter_invalid_integer"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(
    account: Account, changes: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        buy(**changes)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert account.objects("checkout.session") == []


def test_a_refused_parameter_leaves_the_key_free(account: Account) -> None:
    amounts: list[Any] = ["x", 1000]
    for amount in amounts:
        with contextlib.suppress(stripe.InvalidRequestError):
            stripe.PaymentIntent.create(amount=amount, currency="chf", idempotency_key="k")
    assert len(account.objects("payment_intent")) == 1


def test_names_of_ones_own_are_free(account: Account) -> None:
    made = stripe.Customer.create(metadata={"anything at all": "1"})
    assert made.metadata is not None
    assert made.metadata.to_dict() == {"anything at all": "1"}
