"""Ids out of every shape they come in, and what of them may be shown."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import stripe

from guthaben.payments.ids import mask_stripe_reference, normalize_stripe_id


class ClassAttribute:
    id = "pm_class"


class Slotted:
    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = "pm_slot"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("pm_abc123", "pm_abc123"),
        (" pm_abc123\n", "pm_abc123"),
        ({"id": "pm_dict", "object": "payment_method"}, "pm_dict"),
        ('{"id": "pm_json", "object": "payment_method"}', "pm_json"),
        (ClassAttribute(), "pm_class"),
        (Slotted(), "pm_slot"),
        (SimpleNamespace(id="pm_ns"), "pm_ns"),
        (MagicMock(id="pm_mock"), "pm_mock"),
        (stripe.PaymentMethod.construct_from({"id": "pm_obj"}, "sk_test_1"), "pm_obj"),
        (MagicMock(), None),
        (MagicMock(spec=dict), None),
        (stripe.PaymentMethod.construct_from({}, "sk_test_1"), None),
        ("not_an_id", None),
        ("cus_1", None),
        ("PM_1", None),
        ("pm_", None),
        ("pm_ä", None),
        ("pm_1 pm_2", None),
        ("pm_1'; DROP", None),
        ("pm_" + "x" * 300, None),
        ("", None),
        (None, None),
        (0, None),
        (True, None),
        (b"pm_1", None),
        ([], None),
        (["pm_1"], None),
        ({}, None),
        ({"id": None}, None),
        ({"id": 7}, None),
        ({"id": {"id": "pm_deep"}}, None),
        ({"id": "cus_1"}, None),
        ('{"id": 1}', None),
        ('{"id": "pm_1"', None),
        ('"pm_1"', None),
        ('["pm_1"]', None),
        ('{"a":' * 3_000, None),
        (json.dumps({"id": "pm_1", "x": "y" * 30_000}), None),
        (object(), None),
        (ValueError, None),
    ],
)
def test_normalize(value: Any, expected: str | None) -> None:
    found = normalize_stripe_id(value, "pm_")
    assert found == expected
    assert found is None or type(found) is str


@pytest.mark.parametrize(
    ("ref", "masked"),
    [
        ("pi_1234567890abcdef", "pi_…cdef"),
        ("cs_test_a1YS1URlnyQCN5fU", "cs_…N5fU"),
        ("seti_1234567890abcdef", "seti_…cdef"),
        ("pi_old_rate", "pi_…te"),
        ("pi_1", "pi_…"),
        ("pi_12345", "pi_…5"),
        ("pi_", "pi_…"),
        ("x", "…"),
        ("someone@example.org", "….org"),
        ("sk_live_abcdefghijklmnop", "sk_…mnop"),
        ("", None),
        ("  ", None),
        (None, None),
        (7, None),
        (MagicMock(), None),
    ],
)
def test_mask(ref: Any, masked: str | None) -> None:
    assert mask_stripe_reference(ref) == masked


@pytest.mark.parametrize("length", range(40))
def test_a_mask_never_shows_more_than_a_quarter(length: int) -> None:
    unique = "".join(chr(ord("a") + i % 26) for i in range(length))
    masked = mask_stripe_reference("pi_" + unique) or ""
    shown = masked.removeprefix("pi_…")
    assert len(shown) <= min(4, length / 4)
    assert unique.endswith(shown)
