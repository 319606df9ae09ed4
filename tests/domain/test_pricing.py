"""Costs: exact, rounded up once, never free, never negative; what grows never gets cheaper."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.metering import MAX_COUNT, UNIT_OF_PRICE, UNITS, Metered, metered
from guthaben.domain.price_sheet import day_s
from guthaben.domain.pricing import Margin, Rate, rate_card
from guthaben.errors import InvalidInput, Refused
from tests.domain.price_desk import BOOK, NOW, SHEET, book

M = 1_000_000


def cost(model: str, at_s: int = NOW, **counts: int) -> int:
    return BOOK.price(model, metered(counts), at_s).cost_nano_usd


@pytest.mark.parametrize(
    ("model", "counts", "nano_usd"),
    [
        ("gpt-4o-mini", {"input_tokens": 1000, "output_tokens": 200}, 270_000),
        (
            "gpt-4o-mini",
            {"input_tokens": 400, "cache_read_tokens": 600, "output_tokens": 200},
            225_000,
        ),
        ("gpt-4o-mini", {"input_tokens": 1}, 150),
        ("gpt-4o-mini", {"cache_read_tokens": 1}, 75),
        # Reasoning, and whatever has no price of its own, costs what its kind costs.
        ("gpt-4o-mini", {"input_tokens": 1000, "output_reasoning_tokens": 200}, 270_000),
        ("gpt-4o-mini", {"input_image_tokens": 1000, "cache_write_tokens": 1000}, 300_000),
        ("whisper-1", {"audio_us": 60 * M}, 6_000_000),
        ("whisper-1", {"input_audio_us": 60 * M}, 6_000_000),
        ("whisper-1", {"audio_us": 1}, 1),  # 0.1 nano-USD
        # 1,000.1 nano-USD
        ("whisper-1", {"input_audio_us": 10_001}, 1001),
        ("tts-1", {"input_characters": 1}, 15_000),
        ("gpt-audio", {"input_audio_tokens": 1000, "output_audio_tokens": 10}, 40_800_000),
        # Cached audio has no price of its own: the dearer of cached and audio counts.
        ("gpt-audio", {"cache_audio_read_tokens": 1000}, 40_000_000),
        (
            "claude-sonnet",
            {
                "input_tokens": 1000, "cache_read_tokens": 1000, "cache_write_5m_tokens": 1000,
                "cache_write_1h_tokens": 1000, "output_tokens": 1000, "web_searches": 2,
            },
            3_000_000 + 300_000 + 3_750_000 + 6_000_000 + 15_000_000 + 20_000_000,
        ),
        # Up to 272,000 tokens of input one price, from 272,001 on another, for all of them.
        ("gpt-long", {"input_tokens": 272_000}, 680_000_000),
        ("gpt-long", {"input_tokens": 272_001}, 1_360_005_000),
        (
            "gpt-long",
            {"input_tokens": 1, "cache_read_tokens": 272_000, "output_tokens": 1},
            5_000 + 136_000_000 + 22_500,
        ),
        ("gpt-long", {"output_tokens": 1_000_000}, 15_000_000_000),
    ],
)  # fmt: skip
def test_costs_computed_by_hand(model: str, counts: dict[str, int], nano_usd: int) -> None:
    assert cost(model, **counts) == nano_usd


def test_a_price_counts_from_its_day_on() -> None:
    turn = day_s("2025-06-10")
    assert cost("o3", turn - 1, input_tokens=1000, output_tokens=200) == 18_000_000
    assert cost("o3", turn, input_tokens=1000, output_tokens=200) == 3_600_000
    assert cost("o3", 0, input_tokens=1000, output_tokens=200) == 18_000_000


@pytest.mark.parametrize(
    ("hours", "nano_usd"),
    [(0, 135), (0.5, 270), (16, 270), (16.5, 135), (23.9, 135)],
)
def test_a_price_counts_in_its_hours(hours: float, nano_usd: int) -> None:
    at_s = day_s("2026-01-01") + int(hours * 3600)
    assert cost("deepseek-chat", at_s, input_tokens=1) == nano_usd


def test_a_request_has_a_price_of_its_own() -> None:
    price = BOOK.price("sonar", metered({"input_tokens": 1}), NOW, "perplexity")
    assert price.cost_nano_usd == 5_000_000 + 1000


def test_short_audio_is_charged_by_the_minimum() -> None:
    def asked(us: int) -> int:
        usage = metered({"audio_us": us})
        return BOOK.price("whisper-large", usage, NOW, "groq").cost_nano_usd

    assert asked(1) == asked(10 * M) == 308_334  # 0.111 / 360, rounded up
    assert asked(20 * M) == 616_667


def test_nothing_costs_nothing() -> None:
    assert cost("gpt-4o-mini") == 0


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        ("gpt-free", {"input_tokens": 5}),
        ("whisper-1", {"input_tokens": 5}),  # the wrong unit: tokens where hours have the price
        ("gpt-4o-mini", {"audio_us": 5}),
        ("gpt-4o-mini", {"input_tokens": 5, "web_searches": 1}),
        ("gpt-future", {"input_tokens": 5}),
    ],
)
def test_what_has_no_price_is_refused_by_name(model: str, counts: dict[str, int]) -> None:
    with pytest.raises(Refused, match=f"'{model}'") as refused:
        cost(model, **counts)
    assert refused.value.reason == "unpriced_usage"


def test_a_cost_beyond_all_reason_is_refused() -> None:
    assert cost("gpt-4o-mini", output_tokens=1666666666666 // 2) < 10**15
    with pytest.raises(Refused, match="1,000,000 USD") as refused:
        cost("gpt-long", output_tokens=MAX_COUNT)
    assert refused.value.reason == "cost_too_high"


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": -1},
        {"input_tokens": True},
        {"input_tokens": 1.0},
        {"input_tokens": "1"},
        {"input_tokens": None},
        {"input_tokens": MAX_COUNT + 1},
        {"audio_us": 10**15 + 1},
        {"requests": 1},
        {"words": 1},
    ],
)
def test_a_count_that_is_none_is_refused(counts: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        metered(counts)
    assert refused.value.reason == "invalid_usage"


def test_a_usage_has_one_form() -> None:
    one = metered({"output_tokens": 2, "input_tokens": 1, "web_searches": 0}, {"b": "1", "a": "2"})
    other = metered({"input_tokens": 1, "output_tokens": 2}, {"a": "2", "b": "1"})
    assert (
        one
        == other
        == Metered((("input_tokens", 1), ("output_tokens", 2)), (("a", "2"), ("b", "1")))
    )
    assert one.count("input_tokens", "web_searches") == 1


def test_every_meter_has_one_price_key() -> None:
    assert len(UNIT_OF_PRICE) == len(UNITS)
    assert len({unit.traits for unit in UNITS.values()}) == len(UNITS)


# ---------------------------------------------------------------- margins


@pytest.mark.parametrize(
    ("margin", "nano_usd"),
    [
        (Margin(), 270_000),
        (Margin(6, 5), 324_000),
        (Margin(1, 3), 90_000),
        (Margin(1, 1, 500), 270_500),
        (Margin(4, 3, 7), 360_007),
        (Margin(1, 7), 38_572),  # 38,571.43
        (Margin(100_001, 100_000, 1), 270_004),  # 270,003.7: rounded once, at the end
    ],
)
def test_margins_are_exact(margin: Margin, nano_usd: int) -> None:
    rates = {"input_mtok": Rate(15 * 10**16), "output_mtok": Rate(60 * 10**16)}
    card = rate_card("m", "r", rates, margin)
    assert card.cost_nano_usd(metered({"input_tokens": 1000, "output_tokens": 200})) == nano_usd


def test_a_fixed_part_does_not_make_a_free_model_sold() -> None:
    card = rate_card("m", "r", {"input_mtok": Rate(0)}, Margin(1, 1, 500))
    with pytest.raises(Refused, match="free for input_tokens"):
        card.cost_nano_usd(metered({"input_tokens": 1}))


def test_plans_have_margins() -> None:
    margins: dict[str, Any] = {
        "pro": {"factor": "1.5"},
        "*": {"factor": "2", "fixed_nano_usd": 3},
    }
    sold = book(None, **margins)
    usage = metered({"input_tokens": 1000, "output_tokens": 200})
    assert sold.price("gpt-4o-mini", usage, NOW, plan="pro") == (
        405_000,
        "v1/openai/gpt-4o-mini+pro",
    )
    assert sold.price("gpt-4o-mini", usage, NOW, plan="x") == (540_003, "v1/openai/gpt-4o-mini")
    assert sold.price("gpt-4o-mini", usage, NOW) == (540_003, "v1/openai/gpt-4o-mini")


# ---------------------------------------------------------------- properties

COUNTS = st.dictionaries(
    st.sampled_from(
        "input_tokens cache_read_tokens cache_write_5m_tokens cache_write_1h_tokens output_tokens"
        " output_reasoning_tokens web_searches input_audio_tokens".split()
    ),
    st.integers(0, 10**6),
)
MODELS = ["claude-sonnet", "gpt-long", "gpt-audio"]
WITHOUT_SEARCHES = COUNTS.map(lambda counts: {k: v for k, v in counts.items() if "web" not in k})


@given(counts=COUNTS)
def test_the_cost_is_the_exact_sum_rounded_up(counts: dict[str, int]) -> None:
    (sonnet,) = [m for p in SHEET["providers"] for m in p["models"] if m["id"] == "claude-sonnet"]
    rates = sonnet["prices"][0]["rates"]
    keys = {
        "input_tokens": "input_mtok", "input_audio_tokens": "input_mtok",
        "cache_read_tokens": "cache_read_mtok", "cache_write_5m_tokens": "cache_write_mtok",
        "cache_write_1h_tokens": "cache_write_1h_mtok", "output_tokens": "output_mtok",
        "output_reasoning_tokens": "output_mtok", "web_searches": "web_searches_kcount",
    }  # fmt: skip
    exact = sum(
        Fraction(rates[keys[meter]]) * count / UNIT_OF_PRICE[keys[meter]].per
        for meter, count in counts.items()
    )
    assert cost("claude-sonnet", **counts) == -(-exact * 10**9 // 1)


@given(model=st.sampled_from(MODELS), counts=WITHOUT_SEARCHES, more=WITHOUT_SEARCHES)
def test_more_of_anything_never_costs_less(
    model: str, counts: dict[str, int], more: dict[str, int]
) -> None:
    both = {name: counts.get(name, 0) + more.get(name, 0) for name in counts | more}
    assert cost(model, **both) >= cost(model, **counts)


@given(counts=COUNTS, more=COUNTS)
def test_splitting_a_call_saves_nothing(counts: dict[str, int], more: dict[str, int]) -> None:
    both = {name: counts.get(name, 0) + more.get(name, 0) for name in counts | more}
    apart = cost("claude-sonnet", **counts) + cost("claude-sonnet", **more)
    assert 0 <= apart - cost("claude-sonnet", **both) <= 1
