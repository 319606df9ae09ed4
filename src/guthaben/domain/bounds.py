"""Upper bounds: what a call can cost at most, and how long an answer a balance affords.

Law: for every usage within the limits the bound is at least its cost, whatever mix of meters it has
and whichever tier its length leads to. How a request's limits are found is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from guthaben.domain.metering import (
    AUDIO_METERS,
    INPUT_TOKEN_METERS,
    MAX_AUDIO_US,
    MAX_COUNT,
    OUTPUT_TOKEN_METERS,
    UNITS,
)
from guthaben.domain.pricing import RateCard, unpriced
from guthaben.errors import InvalidInput


class Limit(NamedTuple):
    """Of these meters together, a call uses at most so much."""

    meters: tuple[str, ...]
    at_most: int


class Span(NamedTuple):
    """One tier: an exact amount that is certain, and what one more token of output adds."""

    amount: int
    per_output: int


def input_tokens(
    at_most: int, modalities: Iterable[str] = (), cache_writes: Iterable[str] = ("", "5m", "1h")
) -> Limit:
    """Limit tokens of input, text and the named modalities, cached or not.

    `cache_writes` are the lifetimes that the request can write: none for a request that can't.
    """
    meters = _tokens(INPUT_TOKEN_METERS, tuple(modalities), frozenset(cache_writes))
    return Limit(meters, at_most)


def output_tokens(at_most: int, modalities: Iterable[str] = ()) -> Limit:
    """Limit tokens of output, text and the named modalities, reasoning included."""
    return Limit(_tokens(OUTPUT_TOKEN_METERS, tuple(modalities), frozenset()), at_most)


@lru_cache(maxsize=256)
def _tokens(
    meters: frozenset[str], modalities: tuple[str, ...], writes: frozenset[str]
) -> tuple[str, ...]:
    wanted = {"", *modalities}
    found = []
    for meter in sorted(meters):
        traits = dict(UNITS[meter].traits)
        written = traits.get("kind") == "cache_write" and traits.get("ttl", "") not in writes
        if traits.get("modality", "") in wanted and not written:
            found.append(meter)
    return tuple(found)


def bound_nano_usd(card: RateCard, limits: Sequence[Limit]) -> int:
    """Compute the most that a call within the limits costs, rounded up once.

    Raises `Refused` (`unpriced_usage`) where a limit has no price at all or all would be free.
    """
    return card.rounded(max(span.amount for span in _spans(card, limits, None)))


def affordable(
    card: RateCard, limits: Sequence[Limit], output: Limit, available_nano_usd: int
) -> int:
    """Tell how many tokens of output, at most the limit's, an available amount affords.

    The bound of all limits and that many tokens is within the amount; one more is not. 0 where
    not even the rest is affordable. Raises as `bound_nano_usd`.
    """
    budget = available_nano_usd * card.denominator - card.fixed
    tokens = output.at_most
    for span in _spans(card, limits, output):
        if span.amount > budget:
            return 0
        if span.per_output:
            tokens = min(tokens, (budget - span.amount) // span.per_output)
    return tokens


def _spans(card: RateCard, limits: Sequence[Limit], output: Limit | None) -> list[Span]:
    """Give each tier that the limits can reach."""
    for limit in (*limits, *((output,) if output else ())):
        _check(card, limit)
    longest = sum(limit.at_most for limit in limits if limit.meters[0] in INPUT_TOKEN_METERS)
    spans = []
    for band in card.bands:
        if band.above < 0 or band.above < longest:
            amount = card.base + sum(
                _dearest(band.rates, limit.meters) * _charged(card, limit) for limit in limits
            )
            per_output = _dearest(band.rates, output.meters) if output else 0
            spans.append(Span(amount, per_output))
    if limits and not any(span.amount or span.per_output for span in spans):
        raise unpriced(card.model, "would be free")
    return spans


def _check(card: RateCard, limit: Limit) -> None:
    most = MAX_AUDIO_US if limit.meters[0] in AUDIO_METERS else MAX_COUNT
    if type(limit.at_most) is not int or not 0 <= limit.at_most <= most:
        raise InvalidInput(
            f"{limit.meters[0]} must be limited by an integer from 0 to {most}",
            field=limit.meters[0],
        )
    if limit.at_most and not any(card.prices(meter) for meter in limit.meters):
        raise unpriced(card.model, f"has no price for {limit.meters[0]}")


def _charged(card: RateCard, limit: Limit) -> int:
    shortest = card.minimum_us if limit.meters[0] in AUDIO_METERS else 0
    return max(limit.at_most, shortest) if limit.at_most else 0


def _dearest(rates: Mapping[str, int], meters: tuple[str, ...]) -> int:
    return max(rates.get(meter, 0) for meter in meters)
