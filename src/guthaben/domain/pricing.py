"""Pricing: what a usage costs by one model's rates; the only place where a price is rounded.

Law: a cost is summed up exactly and rounded up once per call, to whole nano-USD. A count that no
price covers, or a usage that would be free, is refused with the model's name: never free, never
negative. Which rates count when is the price book's matter (`price_book`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import gcd, lcm
from typing import Final, NamedTuple

from guthaben.domain.metering import (
    AUDIO_METERS,
    INPUT_TOKEN_METERS,
    REQUESTS,
    UNIT_OF_PRICE,
    UNITS,
    Metered,
    Unit,
)
from guthaben.domain.money import MAX_COMMAND_NANO_USD, div_up
from guthaben.errors import Refused

ATTO_PER_USD: Final = 10**18
"""Prices are integers of 1e-18 USD: finer than any list of prices, so nothing is ever lost."""
ATTO_PER_NANO_USD: Final = 10**9


class Rate(NamedTuple):
    """A price in atto-USD per the unit's `per`; a tier counts for all tokens of a longer input."""

    base_atto_usd: int
    tiers: tuple[tuple[int, int], ...] = ()
    """(input tokens above which it counts, price in atto-USD), ascending."""

    def above(self, input_tokens: int) -> int:
        """Give the price for an input just longer than this."""
        price = self.base_atto_usd
        for start, tier in self.tiers:
            if start <= input_tokens:
                price = tier
        return price


class Margin(NamedTuple):
    """What a vendor adds to the provider's price: times an exact fraction, plus so much a call."""

    numerator: int = 1
    denominator: int = 1
    fixed_nano_usd: int = 0


NO_MARGIN: Final = Margin()


class Band(NamedTuple):
    """The rates for inputs longer than `above`; -1 counts always."""

    above: int
    rates: Mapping[str, int]
    """Per meter, in 1/denominator nano-USD."""


class RateCard:
    """One model's rates at one time, for one plan, ready to multiply; immutable."""

    __slots__ = ("_last", "bands", "base", "denominator", "fixed", "minimum_us", "model", "ref")

    def __init__(
        self,
        model: str,
        ref: str,
        bands: tuple[Band, ...],
        base: int,
        fixed: int,
        denominator: int,
        minimum_us: int,
    ) -> None:
        self.model = model
        self.ref = ref
        """What is recorded on the call: version, provider and model, circumstances, plan."""
        self.bands = bands
        self.base = base
        self.fixed = fixed
        self.denominator = denominator
        self.minimum_us = minimum_us
        self._last = bands[-1]

    def prices(self, meter: str) -> bool:
        """Tell whether there is a price for this count."""
        return meter in self.bands[0].rates

    def cost_nano_usd(self, usage: Metered) -> int:
        """Compute the cost of one call, rounded up once.

        Raises `Refused` (`unpriced_usage`, `cost_too_high`), naming the model.
        """
        rates = self._band(usage).rates
        amount = self.base
        for meter, count in usage.counts:
            rate = rates.get(meter)
            if rate is None:
                raise unpriced(self.model, f"has no price for {meter}")
            short = count < self.minimum_us and meter in AUDIO_METERS
            amount += rate * (self.minimum_us if short else count)
        if amount == 0 and usage.counts:
            raise unpriced(self.model, f"would be free for {_names(usage)}")
        return self.rounded(amount)

    def rounded(self, amount: int) -> int:
        """Add the fixed part to an exact amount and round up to whole nano-USD."""
        cost = div_up(amount + self.fixed, self.denominator)
        if cost > MAX_COMMAND_NANO_USD:
            raise Refused(
                f"A call of {self.model} would cost more than 1,000,000 USD; the usage can't be "
                "right.",
                reason="cost_too_high",
            )
        return cost

    def _band(self, usage: Metered) -> Band:
        if self._last.above < 0:
            return self._last
        length = usage.count(*INPUT_TOKEN_METERS)
        return next(band for band in reversed(self.bands) if length > band.above)


def rate_card(
    model: str,
    ref: str,
    rates: Mapping[str, Rate],
    margin: Margin = NO_MARGIN,
    minimum_us: int = 0,
) -> RateCard:
    """Make a model's prices ready to multiply: integers over one common denominator."""
    units = [UNIT_OF_PRICE[key] for key in rates]
    common = lcm(*(unit.per for unit in units))
    denominator = common * ATTO_PER_NANO_USD * margin.denominator
    starts = sorted({start for rate in rates.values() for start, _ in rate.tiers})
    exact = []
    for above in (-1, *starts):
        priced = {
            unit: rates[unit.price_key].above(above) * (common // unit.per) * margin.numerator
            for unit in units
        }
        exact.append((above, _per_meter(priced)))
    fixed = margin.fixed_nano_usd * denominator
    requests = exact[0][1].pop(REQUESTS, 0)
    numbers = [number for _, band in exact for number in band.values()]
    shared = gcd(denominator, fixed, requests, *numbers)
    bands = tuple(
        Band(
            above, {meter: number // shared for meter, number in band.items() if meter != REQUESTS}
        )
        for above, band in exact
    )
    return RateCard(
        model, ref, bands, requests // shared, fixed // shared, denominator // shared, minimum_us
    )


def _per_meter(priced: Mapping[Unit, int]) -> dict[str, int]:
    """Give every meter that a price covers its rate, from the most specific price."""
    found = {}
    keys = frozenset(unit.price_key for unit in priced)
    for meter, units in _covering(keys):
        # Two prices that meet without one for both (cached, and audio): the dearer one counts.
        found[meter] = max(priced[unit] for unit in units)
    return found


@cache
def _covering(price_keys: frozenset[str]) -> tuple[tuple[str, tuple[Unit, ...]], ...]:
    units = [UNIT_OF_PRICE[key] for key in sorted(price_keys)]
    found = []
    for meter, unit in UNITS.items():
        over = [other for other in units if other.covers(unit)]
        finest = [one for one in over if not any(one.traits < other.traits for other in over)]
        if finest:
            found.append((meter, tuple(finest)))
    return tuple(found)


def unpriced(model: str, why: str) -> Refused:
    """Make the refusal of a usage that has no price."""
    return Refused(
        f"The model {model!r} {why}. Nothing is sold for nothing: add the price with "
        "guthaben prices set.",
        reason="unpriced_usage",
    )


def _names(usage: Metered) -> str:
    return ", ".join(meter for meter, _ in usage.counts)
