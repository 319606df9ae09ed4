"""Price sheets: the documents that prices are kept in, read strictly; and their hashes.

Law: a price is a decimal string in USD with at most 18 decimals and is read exactly, or the sheet
is refused. A sheet is hashed in its canonical form, so equal sheets have equal hashes.
Two kinds exist: what was imported, and the vendor's own prices, aliases and margins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from hashlib import sha256
from typing import Any, Final, NamedTuple

from guthaben.domain.metering import UNIT_OF_PRICE, Context
from guthaben.domain.pricing import ATTO_PER_USD, Margin, Rate
from guthaben.errors import InvalidInput

FORMAT: Final = 1
DECIMALS: Final = 18
MAX_NAMES: Final = 100
"""Characters of a provider's and a model's id together, so that a reference to them fits a call."""
MAX_PLAN: Final = 30
MAX_FACTOR: Final = 1000
DAY_S: Final = 86_400

_PRICE: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,18}))?", re.ASCII)
_FACTOR: Final = re.compile(r"([0-9]{1,12})(?:/([0-9]{1,12}))?", re.ASCII)
_DECIMAL_FACTOR: Final = re.compile(r"([0-9]{1,6})\.([0-9]{1,12})", re.ASCII)

Document = Mapping[str, Any]


class Entry(NamedTuple):
    """Prices and when they count: from an instant on, in hours of the day, in circumstances."""

    from_s: int
    daily_s: tuple[int, int] | None
    """Seconds of the day (UTC) from and until; until may lie before from."""
    when: Context
    rates: tuple[tuple[str, Rate | None], ...]
    """By price key; None takes a price away."""

    def active(self, at_s: int) -> bool:
        """Tell whether these prices count at an instant."""
        if self.daily_s is None:
            return self.from_s <= at_s
        start, end = self.daily_s
        second = at_s % DAY_S
        if end < start:
            return second >= start or second < end
        return start <= second < end

    def turns_s(self, at_s: int) -> tuple[int, ...]:
        """Tell the instants around this one at which they begin or end to count."""
        if self.daily_s is None:
            return (self.from_s,)
        midnight = at_s - at_s % DAY_S
        days = (midnight - DAY_S, midnight, midnight + DAY_S)
        return tuple(day + second for day in days for second in self.daily_s)


def canonical(document: Document) -> str:
    """Write a sheet in its one canonical form."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str) -> str:
    """Hash a text: sha256 in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def refused(why: str) -> InvalidInput:
    """Make the refusal of prices that can't be taken exactly as they are."""
    return InvalidInput(f"These prices can't be taken: {why}.", reason="invalid_prices")


def atto_usd(text: object) -> int:
    """Read a decimal string in USD as atto-USD, exactly, or refuse it."""
    match = _PRICE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise refused(f"{text!r:.60} is no decimal string of USD with at most {DECIMALS} decimals")
    whole, fraction = match.groups()
    return int(whole) * ATTO_PER_USD + int((fraction or "").ljust(DECIMALS, "0"))


def usd_text(amount_atto_usd: int) -> str:
    """Write atto-USD as the shortest decimal string in USD."""
    whole, fraction = divmod(amount_atto_usd, ATTO_PER_USD)
    digits = f"{fraction:0{DECIMALS}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def rate_of(value: object) -> Rate:
    """Read a price: a decimal string, or a list of it and of tiers [input tokens, price]."""
    if not isinstance(value, list):
        return Rate(atto_usd(value))
    tiers = []
    for tier in value[1:]:
        if not (isinstance(tier, list) and len(tier) == 2 and type(tier[0]) is int):
            raise refused(f"{tier!r:.60} is no tier")
        tiers.append((tier[0], atto_usd(tier[1])))
    starts = [start for start, _ in tiers]
    if not value or starts != sorted(set(starts)) or any(start < 0 for start in starts):
        raise refused(f"{value!r:.80} has no base price, or its tiers don't ascend")
    return Rate(atto_usd(value[0]), tuple(tiers))


def rate_value(rate: Rate) -> object:
    """Write a price as a sheet has it."""
    if not rate.tiers:
        return usd_text(rate.base_atto_usd)
    tiers = [[start, usd_text(price)] for start, price in rate.tiers]
    return [usd_text(rate.base_atto_usd), *tiers]


def entry_of(raw: Document) -> Entry:
    """Read one set of prices. Raises `InvalidInput` for what it does not know."""
    unknown = raw.keys() - {"from", "daily", "when", "rates"}
    if unknown or "rates" not in raw:
        raise refused(f"an entry has 'rates', and no {sorted(unknown)!r:.80}")
    rates = []
    for key, value in raw["rates"].items():
        if key not in UNIT_OF_PRICE:
            raise refused(f"{key!r:.60} is no price that is known")
        rates.append((key, None if value is None else rate_of(value)))
    when = raw.get("when", {})
    if not all(isinstance(text, str) for pair in when.items() for text in pair):
        raise refused("'when' holds texts")
    daily = raw.get("daily")
    return Entry(
        day_s(raw["from"]) if "from" in raw else 0,
        (_second(daily[0]), _second(daily[1])) if daily else None,
        tuple(sorted(when.items())),
        tuple(sorted(rates, key=lambda pair: pair[0])),
    )


def day_s(text: str) -> int:
    """Read a day, such as 2025-06-10, as the instant it begins in UTC."""
    try:
        day = date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise refused(f"{text!r:.40} is no day such as 2025-06-10") from error
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _second(text: str) -> int:
    try:
        moment = time.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise refused(f"{text!r:.40} is no time such as 16:30") from error
    return moment.hour * 3600 + moment.minute * 60 + moment.second


def names_fit(provider: str, model: str) -> bool:
    """Tell whether ids are short and plain enough to be part of a reference on each call."""
    both = provider + model
    return bool(provider and model) and len(both) <= MAX_NAMES and both.isprintable()


def margin_of(raw: Document) -> Margin:
    """Read a margin: `factor` as "6/5", "1.2" or "2", and `fixed_nano_usd` a call."""
    unknown = raw.keys() - {"factor", "fixed_nano_usd"}
    fixed = raw.get("fixed_nano_usd", 0)
    if unknown or type(fixed) is not int or not 0 <= fixed <= 10**12:
        raise refused("a margin has a factor and a fixed_nano_usd from 0 to 10^12")
    numerator, denominator = factor_of(raw.get("factor", "1"))
    return Margin(numerator, denominator, fixed)


def factor_of(text: str) -> tuple[int, int]:
    """Read a factor exactly, as a fraction above 0 and at most 1000."""
    decimal = _DECIMAL_FACTOR.fullmatch(text)
    match = _FACTOR.fullmatch(text)
    if decimal:
        whole, fraction = decimal.groups()
        numerator, denominator = int(whole + fraction), 10 ** len(fraction)
    elif match:
        numerator, denominator = int(match[1]), int(match[2] or 1)
    else:
        numerator, denominator = 0, 1
    if not 0 < numerator <= MAX_FACTOR * denominator:
        raise refused(f"{text!r:.40} is no factor such as 1.25 or 5/4, above 0, at most 1000")
    return numerator, denominator


def margins_of(document: Document) -> dict[str, Margin]:
    """Read the margins of a vendor's sheet, by plan; "*" is for every other plan."""
    margins = {}
    for plan, raw in document.get("margins", {}).items():
        if not (0 < len(plan) <= MAX_PLAN and plan.isprintable()):
            raise refused(f"a plan's name has 1 to {MAX_PLAN} characters, unlike {plan!r:.60}")
        margins[plan] = margin_of(raw)
    return margins
