"""Priced calls: reserving by a model's tokens and settling by a provider's usage.

Law: the price is that of the instant at which the call was reserved. What a provider says and
can't be true is charged as it was reserved, never free; without a reservation it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from guthaben.domain.bounds import Limit, bound_nano_usd, input_tokens, output_tokens
from guthaben.domain.price_book import PriceBook
from guthaben.errors import InvalidInput, Refused
from guthaben.services.checks import (
    PricedReserveOptions,
    PricedUsageOptions,
    ReserveOptions,
    SettleOptions,
    UsageOptions,
)
from guthaben.services.provider_usage import duration_us, read_usage
from guthaben.services.tariffs import Tariff

log = logging.getLogger("guthaben")

_NAMES: Final = ("model", "provider", "plan")
_OF_PRICES = ("input_tokens", "max_output_tokens", "audio_seconds", "provider", "plan")


class PricedBy(NamedTuple):
    """Whose prices count for a call."""

    model: str = ""
    provider: str = ""
    plan: str = ""
    book: PriceBook | None = None
    """Of the reservation; None: the one that counts when it is asked for."""

    def at(self, tariff: Tariff) -> PricedBy:
        """Fix the tariff that counts now, for the whole life of a call."""
        return PricedBy(self.model, self.provider, tariff.plan, tariff.known)


NOBODYS: Final = PricedBy()


def split(
    amount_nano_usd: int | None, options: PricedReserveOptions
) -> tuple[ReserveOptions, Mapping[str, Any], PricedBy]:
    """Part what is reserved from what prices it."""
    if amount_nano_usd is not None and not options:
        return {}, {}, NOBODYS
    told = {name: value for name, value in options.items() if name in _OF_PRICES}
    rest = {name: value for name, value in options.items() if name not in _OF_PRICES}
    sized = told.keys() - {"provider", "plan"}
    if (amount_nano_usd is None) != bool(sized):
        raise InvalidInput(
            "Reserve an amount, or what the call uses at most: model, input_tokens, "
            "max_output_tokens or audio_seconds."
        )
    model, provider, plan = (_text(name, options.get(name, "")) for name in _NAMES)
    by = PricedBy(model, provider, plan)
    if sized and not by.model:
        raise InvalidInput("model must name the model to be asked", field="model")
    return cast(ReserveOptions, rest), told, by


def bound(book: PriceBook, by: PricedBy, told: Mapping[str, Any], at_s: int) -> int:
    """Compute what a call can cost at most, in nano-USD, at least 1.

    Raises `Refused` (`unknown_model`, `unpriced_usage`), `InvalidInput`.
    """
    card = book.card(by.model, at_s, by.provider, (), by.plan)
    limits = []
    if "audio_seconds" in told:
        length_us = duration_us(told["audio_seconds"], "audio_seconds")
        limits.append(Limit(("input_audio_us", "audio_us"), length_us))
    if told.get("input_tokens") is not None:
        limits.append(input_tokens(told["input_tokens"]))
    if told.get("max_output_tokens") is not None:
        limits.append(output_tokens(told["max_output_tokens"]))
    return max(1, bound_nano_usd(card, limits))


def bill(
    book: PriceBook, by: PricedBy, said: object, at_s: int, reserved_nano_usd: int
) -> tuple[int, SettleOptions]:
    """Price a usage; one that can't be read or priced costs what was reserved."""
    try:
        return price(book, by, said, at_s)
    except Refused as error:
        log.warning("a usage can't be priced", extra={"code": error.reason})
        return reserved_nano_usd, {"model": by.model}


def price(book: PriceBook, by: PricedBy, said: object, at_s: int) -> tuple[int, SettleOptions]:
    """Price a usage exactly. Raises `Refused`, `InvalidInput` (`missing_usage`, ...)."""
    read = read_usage(said)
    name = by.model or read.model
    priced = book.price(name, read.usage, at_s, provider=by.provider, plan=by.plan)
    return priced.cost_nano_usd, read.options(name, priced.price_version)


def of_usage(
    tariff_of: Callable[[str], Tariff],
    cost_or_usage: object,
    options: PricedUsageOptions,
    at_s: int,
) -> tuple[int, UsageOptions]:
    """Give the cost and what is recorded of a call that is metered after the fact."""
    told: dict[str, Any] = dict(options)
    provider, plan = (_text(name, told.pop(name, "")) for name in ("provider", "plan"))
    if is_amount_of_money(cost_or_usage):
        return cast(int, cost_or_usage), cast(UsageOptions, told)
    tariff = tariff_of(plan)
    by = PricedBy(_text("model", told.get("model", "")), provider).at(tariff)
    cost_nano_usd, recorded = price(tariff.book, by, cost_or_usage, at_s)
    return cost_nano_usd, cast(UsageOptions, {**told, **recorded})


def is_amount_of_money(value: object) -> bool:
    """Tell an amount from a usage; what is neither is refused further on, by name."""
    return isinstance(value, int | float | str)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text", field=name)
    return value
