"""Sheets: prices read exactly or refused; written as they were read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.price_sheet import (
    atto_usd,
    canonical,
    content_hash,
    day_s,
    entry_of,
    factor_of,
    margins_of,
    names_fit,
    rate_of,
    rate_value,
    usd_text,
)
from guthaben.domain.pricing import Margin, Rate
from guthaben.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "atto"),
    [
        ("0", 0),
        ("0.15", 15 * 10**16),
        ("0.000000000000000001", 1),
        ("0.18000000000000002", 180000000000000020),
        ("600", 600 * 10**18),
    ],
)
def test_prices_are_read_exactly(text: str, atto: int) -> None:
    assert atto_usd(text) == atto
    assert usd_text(atto) == text


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1e-6", ".5", "5.", "NaN", "0.0000000000000000001", "1" * 10, "١", " 1", 1, None],
)
def test_other_prices_are_refused(text: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        atto_usd(text)
    assert refused.value.reason == "invalid_prices"


@given(atto=st.integers(0, 10**27 - 1))
def test_what_is_written_is_read_back(atto: int) -> None:
    assert atto_usd(usd_text(atto)) == atto


def test_tiers() -> None:
    value = ["2.5", [200, "5"], [300, "10"]]
    rate = rate_of(value)
    assert rate == Rate(25 * 10**17, ((200, 5 * 10**18), (300, 10**19)))
    assert rate_value(rate) == value
    assert rate_value(rate_of("1.5")) == "1.5"
    assert [rate.above(n) // 10**17 for n in (-1, 199, 200, 299, 300, 10**9)] == [
        25, 25, 50, 50, 100, 100,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        [],
        ["1", [200, "5"], [100, "6"]],
        ["1", [200, "5"], [200, "6"]],
        ["1", [-1, "5"]],
        ["1", [True, "5"]],
        ["1", ["200", "5"]],
        ["1", [200]],
        ["1", "5"],
        [[200, "5"]],
    ],
)
def test_what_is_no_tier(value: Any) -> None:
    with pytest.raises(InvalidInput):
        rate_of(value)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"rates": {}, "until": "2026-01-01"},
        {"rates": {"input_mtok": 1}},
        {"rates": {"input": "1"}},
        {"rates": {}, "from": "2026-02-30"},
        {"rates": {}, "from": 5},
        {"rates": {}, "daily": ["25:00", "01:00"]},
        {"rates": {}, "daily": [1, 2]},
        {"rates": {}, "when": {"a": 1}},
    ],
)
def test_what_is_no_entry(raw: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        entry_of(raw)


def test_days_begin_in_utc() -> None:
    assert day_s("1970-01-02") == 86_400
    assert day_s("2025-06-10") == 1_749_513_600


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("1", (1, 1)), ("1.25", (125, 100)), ("5/4", (5, 4)), ("1000", (1000, 1)), ("0.5", (5, 10))],
)
def test_factors(text: str, fraction: tuple[int, int]) -> None:
    assert factor_of(text) == fraction


@pytest.mark.parametrize("text", ["0", "0/5", "5/0", "-1", "1001", "1e3", "x", "", "0.0"])
def test_what_is_no_factor(text: str) -> None:
    with pytest.raises(InvalidInput):
        factor_of(text)


def test_margins() -> None:
    assert margins_of({"margins": {"a": {"factor": "6/5", "fixed_nano_usd": 7}, "*": {}}}) == {
        "a": Margin(6, 5, 7),
        "*": Margin(1, 1, 0),
    }
    for plan, raw in (
        ("", {}),
        ("x" * 31, {}),
        ("a\n", {}),
        ("a", {"percent": 5}),
        ("a", {"fixed_nano_usd": -1}),
        ("a", {"fixed_nano_usd": True}),
        ("a", {"fixed_nano_usd": 10**12 + 1}),
    ):
        with pytest.raises(InvalidInput):
            margins_of({"margins": {plan: raw}})


def test_names_fit_into_a_reference() -> None:
    assert names_fit("openai", "gpt-4o-mini")
    for provider, model in (("", "m"), ("p", ""), ("p", "m" * 100), ("p", "m\n")):
        assert not names_fit(provider, model)


def test_equal_sheets_have_equal_hashes() -> None:
    one, other = {"b": ["1", [2, "ä"]], "a": 1}, {"a": 1, "b": ["1", [2, "ä"]]}
    assert canonical(one) == canonical(other) == '{"a":1,"b":["1",[2,"ä"]]}'
    assert len(content_hash(canonical(one))) == 64
