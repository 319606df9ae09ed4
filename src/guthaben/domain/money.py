"""Money: integer nano-USD for credit, integer Rappen for CHF; parsing, formatting, named roundings.

Law: an amount is an integer everywhere. `float` exists only here, at the edge of the four modules:
it enters through `nano_usd_from_float` and leaves through `float_from_nano_usd`.
This module does not know prices of models (see `pricing`) nor what credit is used for.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, NewType

NanoUsd = NewType("NanoUsd", int)
"""Credit in 1e-9 US dollars."""

Rappen = NewType("Rappen", int)
"""Swiss francs in 1/100 CHF."""

NANO_PER_USD: Final = 1_000_000_000
NANO_PER_MICROCENT: Final = 10
"""The Cycles protocol counts in millionths of a US cent."""
RAPPEN_PER_CHF: Final = 100
MAX_COMMAND_NANO_USD: Final = 10**15
"""No single command moves more than this: 1,000,000 USD."""
MAX_BALANCE_NANO_USD: Final = 4 * 10**18
"""No sum of one practice grows beyond this, so that 64 bits always hold it."""

_DECIMAL_USD = re.compile(r"(-?)([0-9]{1,10})(?:\.([0-9]{1,9}))?", re.ASCII)
_DECIMAL_CHF = re.compile(r"(-?)([0-9]{1,10})(?:\.([0-9]{1,2}))?", re.ASCII)


def is_amount(value: object, least: int, most: int = MAX_COMMAND_NANO_USD) -> bool:
    """Tell whether `value` is a true integer (no bool, no float) within `least..most`."""
    return type(value) is int and least <= value <= most


def div_half_even(numerator: int, denominator: int) -> int:
    """Divide two integers and round to the nearest, a tie to the even neighbour."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient


def div_up(numerator: int, denominator: int) -> int:
    """Divide two integers and round towards plus infinity: the rounding of prices."""
    return -(-numerator // denominator)


def parse_usd(text: str) -> NanoUsd:
    """Read a decimal string in USD, at most nine decimals, ASCII digits only, as nano-USD.

    Raises `ValueError` for anything else: exponents, blanks, NaN, signs other than a leading minus.
    """
    return NanoUsd(_parse_decimal(_DECIMAL_USD, text, 9))


def parse_chf(text: str) -> Rappen:
    """Read a decimal string in CHF, at most two decimals, ASCII digits only, as Rappen."""
    return Rappen(_parse_decimal(_DECIMAL_CHF, text, 2))


def _parse_decimal(pattern: re.Pattern[str], text: str, decimals: int) -> int:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"not a decimal amount with at most {decimals} decimals: {text!r}")
    sign, whole, fraction = match.groups()
    value: int = int(whole) * 10**decimals + int((fraction or "").ljust(decimals, "0"))
    return -value if sign else value


def format_usd(amount_nano_usd: int) -> str:
    """Write nano-USD as a decimal string in USD that `parse_usd` reads back exactly: "10.00"."""
    return _format_decimal(amount_nano_usd, 9)


def format_chf(amount_rappen: int) -> str:
    """Write Rappen as a decimal string in CHF: "30.00"."""
    return _format_decimal(amount_rappen, 2)


def _format_decimal(value: int, decimals: int) -> str:
    whole, fraction = divmod(abs(value), 10**decimals)
    digits = f"{fraction:0{decimals}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if value < 0 else ''}{whole}.{digits}"


def nano_usd_for_rappen(price_rappen: int) -> NanoUsd:
    """Convert a price to the credit it buys: CHF / 3, half-even to four decimals of a USD.

    30 CHF buys 10 USD; 10 CHF buys 3.3333 USD; 50 CHF buys 16.6667 USD. The result is frozen when
    the purchase is made and never computed again.
    """
    ten_thousandths = div_half_even(price_rappen * 10_000, 3 * RAPPEN_PER_CHF)
    return NanoUsd(ten_thousandths * (NANO_PER_USD // 10_000))


def rappen_for_nano_usd(amount_nano_usd: int) -> Rappen:
    """Find the least price that buys at least this credit; rounding moves it by one at most."""
    price = -(-amount_nano_usd * 3 * RAPPEN_PER_CHF // NANO_PER_USD)
    if nano_usd_for_rappen(price) < amount_nano_usd:
        return Rappen(price + 1)
    if nano_usd_for_rappen(price - 1) >= amount_nano_usd:
        return Rappen(price - 1)
    return Rappen(price)


def nano_usd_from_float(amount_usd: float) -> NanoUsd:
    """Take a float (or int) of USD over the edge: by its shortest decimal, half-even to nano.

    A positive amount below one nano becomes one, so that a cost never vanishes.
    Raises `ValueError` for NaN, infinities, booleans and amounts beyond the limit of a command.
    """
    numerator, denominator = _ratio(amount_usd)
    nano = div_half_even(numerator * NANO_PER_USD, denominator)
    if nano == 0 and numerator > 0:
        nano = 1
    if abs(nano) > MAX_COMMAND_NANO_USD:
        raise ValueError(f"amount beyond 1,000,000 USD: {amount_usd!r}")
    return NanoUsd(nano)


def float_from_nano_usd(amount_nano_usd: int) -> float:
    """Let nano-USD leave over the edge as a float of USD: divided by 1e9, so 6.6667 comes back."""
    return amount_nano_usd / NANO_PER_USD


def rappen_from_float(amount_chf: float) -> Rappen:
    """Take a float (or int) of CHF over the edge, half-even to Rappen; errors as for USD."""
    numerator, denominator = _ratio(amount_chf)
    rappen = div_half_even(numerator * RAPPEN_PER_CHF, denominator)
    if abs(rappen) > MAX_COMMAND_NANO_USD:
        raise ValueError(f"amount beyond the limit: {amount_chf!r}")
    return Rappen(rappen)


def float_from_rappen(amount_rappen: int) -> float:
    """Let Rappen leave over the edge as a float of CHF."""
    return amount_rappen / RAPPEN_PER_CHF


def micros_from_float(seconds: float) -> int:
    """Take a float of seconds (audio) over the edge as microseconds, half-even, never negative."""
    numerator, denominator = _ratio(seconds)
    micros = div_half_even(numerator * 1_000_000, denominator)
    if not 0 <= micros <= MAX_COMMAND_NANO_USD or numerator < 0:
        raise ValueError(f"seconds out of range: {seconds!r}")
    return micros


def _ratio(value: object) -> tuple[int, int]:
    """Give the exact fraction of a number's shortest decimal, whatever the decimal context is."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"not a number: {value!r}")
    if isinstance(value, float):
        # A subclass (numpy's float64) may write itself in another way.
        value = Decimal(float.__repr__(value))
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    return value.as_integer_ratio()
