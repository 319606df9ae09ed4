"""Facts from dicts, Stripe objects and mocks: the right type, or None."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import stripe

from guthaben.errors import InvalidInput
from guthaben.payments import facts
from guthaben.payments.reading import flag, items, read, reference, text, texts, whole
from tests.payments.conftest import intent


def _stripe(values: dict[str, Any]) -> Any:
    return stripe.PaymentIntent.construct_from(values, "sk_test_1")


@pytest.mark.parametrize("shape", [dict, _stripe, lambda v: SimpleNamespace(**v)])
def test_all_shapes_read_alike(shape: Any) -> None:
    source = shape(intent())
    assert text(source, "status") == "succeeded"
    assert whole(source, "amount") == 3000
    assert flag(source, "livemode") is False
    assert reference(source, "customer", "cus_") == "cus_1"
    assert texts(source, "metadata") == {"topup_id": "42"}
    assert read(source, "nothing") is None
    assert facts.payment_facts(source) == facts.payment_facts(intent())


@pytest.mark.parametrize(
    "value",
    [MagicMock(), None, True, 20.5, 20.0, "3000", 2**63, -(2**63), [3000], {"value": 3000}],
)
def test_only_an_int_is_an_amount(value: Any) -> None:
    assert whole({"amount": value}, "amount") is None
    assert whole(SimpleNamespace(amount=value), "amount") is None


@pytest.mark.parametrize("value", [MagicMock(), None, "", 1, b"x", ["x"]])
def test_only_a_filled_string_is_text(value: Any) -> None:
    assert text({"k": value}, "k") is None
    assert flag({"k": value}, "k") is None
    assert texts({"k": value}, "k") == {}
    assert items({"k": value}, "k") in ([], ["x"])


def test_metadata_keeps_only_pairs_of_strings() -> None:
    assert texts({"metadata": {"a": "1", "b": None, "c": 3, 4: "d"}}, "metadata") == {"a": "1"}


def test_an_unset_attribute_of_a_mock_is_nothing() -> None:
    mock = MagicMock()
    mock.id, mock.status = "pi_ok", "succeeded"
    found = facts.payment_facts(mock)
    assert (found.payment_id, found.status) == ("pi_ok", "succeeded")
    others = {"amount_rappen", "currency", "livemode", "customer_id", "refunded_rappen"}
    assert all(getattr(found, name) is None for name in others)
    assert found.metadata == {}


@pytest.mark.parametrize(
    ("changes", "refunded", "disputed"),
    [
        ({"latest_charge": "ch_1"}, None, None),  # not expanded: nothing is said about refunds
        ({"latest_charge": None}, None, None),
        ({"latest_charge": {"id": "ch_1", "amount_refunded": 0, "disputed": False}}, 0, False),
        ({"latest_charge": {"id": "ch_1", "amount_refunded": 999, "disputed": True}}, 999, True),
        ({"amount_received": 0, "latest_charge": None}, 0, False),
        ({"latest_charge": {"amount_refunded": "999"}}, None, None),
    ],
)
@pytest.mark.parametrize("shape", [dict, _stripe])
def test_refunds_are_known_or_none(
    shape: Any, changes: dict[str, Any], refunded: int | None, disputed: bool | None
) -> None:
    found = facts.payment_facts(shape(intent(**changes)))
    assert (found.refunded_rappen, found.disputed) == (refunded, disputed)


def test_currency_is_lower_case() -> None:
    assert facts.payment_facts(intent(currency="CHF")).currency == "chf"


def test_references_plain_or_expanded() -> None:
    session = {
        "id": "cs_1",
        "mode": "setup",
        "customer": {"id": "cus_1", "deleted": True},
        "payment_intent": None,
        "setup_intent": {"id": "seti_1", "payment_method": {"id": "pm_1"}},
        "metadata": {"aza_purpose": "ai_topup_setup"},
    }
    found = facts.checkout_facts(session)
    assert (found.customer_id, found.payment_id) == ("cus_1", None)
    assert (found.setup_id, found.setup_payment_method_id) == ("seti_1", "pm_1")
    plain = facts.checkout_facts(session | {"setup_intent": "seti_1"})
    assert (plain.setup_id, plain.setup_payment_method_id) == ("seti_1", None)


@pytest.mark.parametrize("method", ["pm_1", "card_1", "src_1", {"id": "card_1"}])
def test_old_payment_methods_count(method: Any) -> None:
    found = facts.setup_facts({"id": "seti_1", "payment_method": method, "customer": None})
    assert found.payment_method_id == (method if isinstance(method, str) else method["id"])
    assert found.customer_id is None


@pytest.mark.parametrize(
    ("extract", "wrong"),
    [
        (facts.payment_facts, "ch_1"),
        (facts.checkout_facts, "pi_1"),
        (facts.setup_facts, None),
        (facts.refund_facts, "re_1"),
        (facts.refund_receipt, 7),
        (facts.dispute_facts, ""),
    ],
)
def test_an_object_without_its_id_is_refused(extract: Any, wrong: Any) -> None:
    sources: list[Any] = [{"id": wrong}, {}, MagicMock(), None, []]
    for source in sources:
        with pytest.raises(InvalidInput):
            extract(source)


SAMPLES = Path(__file__).with_name("stripe_samples.json")


@pytest.mark.parametrize(
    ("kind", "extract"),
    [
        ("payment_intent", facts.payment_facts),
        ("checkout.session", facts.checkout_facts),
        ("setup_intent", facts.setup_facts),
        ("charge", facts.refund_facts),
        ("refund", facts.refund_receipt),
        ("dispute", facts.dispute_facts),
    ],
)
def test_stripes_own_samples_are_understood(kind: str, extract: Any) -> None:
    sample = json.loads(SAMPLES.read_text())[kind]
    found = extract(sample)
    assert found.currency == sample["currency"] if "currency" in sample else True
    assert found == extract(_stripe(sample))
    assert sample["id"] not in repr(found)
