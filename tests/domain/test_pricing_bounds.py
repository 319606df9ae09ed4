"""Bounds: never below a cost within the limits; and the longest answer that a balance affords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.bounds import (
    Limit,
    affordable,
    bound_nano_usd,
    input_tokens,
    output_tokens,
)
from guthaben.domain.metering import metered
from guthaben.domain.pricing import RateCard
from guthaben.errors import InvalidInput, Refused
from tests.domain.price_desk import BOOK, NOW, book

MODELS = [("gpt-4o-mini", ""), ("gpt-long", ""), ("gpt-audio", ""), ("sonar", "perplexity")]
SOLD = book(pro={"factor": "7/6", "fixed_nano_usd": 11})


def card(model: str, provider: str = "", plan: str = "") -> RateCard:
    return SOLD.card(model, NOW, provider, (), plan)


def test_bounds_computed_by_hand() -> None:
    limits = [input_tokens(1000), output_tokens(200)]
    assert bound_nano_usd(card("gpt-4o-mini"), limits) == 270_000
    # 1,000 tokens may all be written to the cache, for an hour.
    assert bound_nano_usd(card("claude-sonnet"), limits) == 6_000_000 + 3_000_000
    plain = [input_tokens(1000, (), ()), output_tokens(200)]
    assert bound_nano_usd(card("claude-sonnet"), plain) == 3_000_000 + 3_000_000
    heard = [input_tokens(1000, ("audio",)), output_tokens(200)]
    assert bound_nano_usd(card("gpt-audio"), heard) == 40_000_000 + 2_000_000
    assert bound_nano_usd(card("gpt-audio"), limits) == 2_500_000 + 2_000_000
    # The dearer tier is in reach from 272,001 tokens on.
    assert bound_nano_usd(card("gpt-long"), [input_tokens(272_000)]) == 680_000_000
    assert bound_nano_usd(card("gpt-long"), [input_tokens(272_001)]) == 1_360_005_000
    assert bound_nano_usd(card("sonar", "perplexity"), limits) == 5_000_000 + 1_200_000
    assert bound_nano_usd(card("gpt-4o-mini"), []) == 0


def test_audio_is_bounded_by_the_minimum() -> None:
    whisper = card("whisper-large", "groq")
    meters = ("audio_us", "input_audio_us")
    assert bound_nano_usd(whisper, [Limit(meters, 1)]) == 308_334
    assert bound_nano_usd(whisper, [Limit(meters, 20_000_000)]) == 616_667
    with pytest.raises(Refused, match="would be free"):
        bound_nano_usd(whisper, [Limit(meters, 0)])


@pytest.mark.parametrize("at_most", [-1, True, 1.5, 10**12 + 1])
def test_a_limit_is_a_true_integer(at_most: int) -> None:
    with pytest.raises(InvalidInput, match="cache_read_tokens must be limited"):
        bound_nano_usd(card("gpt-4o-mini"), [input_tokens(at_most)])


@pytest.mark.parametrize("model", ["gpt-free", "whisper-1"])
def test_what_has_no_price_has_no_bound(model: str) -> None:
    with pytest.raises(Refused, match=model):
        bound_nano_usd(card(model), [input_tokens(10)])


def split(total: int, shares: list[int]) -> list[int]:
    parts = []
    for share in shares:
        part = total * share // 100
        parts.append(part)
        total -= part
    return [*parts, total]


@given(
    chosen=st.sampled_from(MODELS),
    plan=st.sampled_from(["", "pro"]),
    limits=st.tuples(st.integers(0, 600_000), st.integers(1, 20_000)),
    used=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    shares=st.lists(st.integers(0, 100), min_size=4, max_size=4),
)
def test_no_usage_within_the_limits_costs_more(
    chosen: tuple[str, str],
    plan: str,
    limits: tuple[int, int],
    used: tuple[int, int],
    shares: list[int],
) -> None:
    prices = card(*chosen, plan)
    modalities = ("audio",) if chosen[0] == "gpt-audio" else ()
    taken, given_ = input_tokens(limits[0], modalities), output_tokens(limits[1], modalities)
    counts: dict[str, int] = {}
    for limit, percent in zip((taken, given_), used, strict=True):
        parts = split(limit.at_most * percent // 100, shares)
        counts |= dict(zip(limit.meters, parts, strict=False))
    assert prices.cost_nano_usd(metered(counts)) <= bound_nano_usd(prices, [taken, given_])


@given(
    chosen=st.sampled_from(MODELS),
    plan=st.sampled_from(["", "pro"]),
    taken=st.integers(0, 400_000),
    most=st.integers(0, 20_000),
    available=st.integers(-10, 3_000_000_000),
)
def test_what_is_affordable_fits_and_one_more_does_not(
    chosen: tuple[str, str], plan: str, taken: int, most: int, available: int
) -> None:
    prices, limits = card(*chosen, plan), [input_tokens(taken)]
    tokens = affordable(prices, limits, output_tokens(most), available)
    assert 0 <= tokens <= most

    def bound(count: int) -> int:
        return bound_nano_usd(prices, [*limits, output_tokens(count)])

    if tokens:
        assert bound(tokens) <= available
    if tokens < most:
        assert bound(tokens + 1) > available


def test_a_fixed_part_is_not_spent_on_tokens() -> None:
    prices = book(None, pro={"fixed_nano_usd": 6_000}).card("gpt-4o-mini", NOW, plan="pro")
    assert affordable(prices, [input_tokens(10)], output_tokens(500), 1_500 + 6_000 + 1_200) == 2
    assert affordable(prices, [input_tokens(10)], output_tokens(500), 1_500 + 5_999) == 0


def test_output_without_a_price_is_not_limited_by_the_balance() -> None:
    own = [
        {"provider": "openai", "model": "gpt-4o-mini", "prices": [{"rates": {"output_mtok": "0"}}]}
    ]
    prices = book(own).card("gpt-4o-mini", NOW)
    assert affordable(prices, [input_tokens(10)], output_tokens(500), 10_000) == 500
    assert affordable(BOOK.card("gpt-4o-mini", NOW), [], output_tokens(500), 0) == 0
