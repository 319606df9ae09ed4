"""Amounts and dates as people in Switzerland write and type them, the same in all four languages.

Law: exact, from integers and back to integers; what could be read in two ways is not read at all.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "en": "January February March April May June July August September October November December",
}
_TYPED: Final = re.compile(r"([0-9]{1,3}(?:['’][0-9]{3})+|[0-9]{1,7})(?:[.,]([0-9]{1,2}))?")
_LEAST_NANO_USD: Final = 100_000
_NANO_PER_CENT: Final = 10_000_000


def chf(rappen: int) -> str:
    """Write Rappen as `1'234.50`."""
    return _grouped(rappen, 100, 2)


def usd(nano_usd: int, decimals: int = 2) -> str:
    """Write nano-USD as `1'234.50`, cut (never rounded up) after some decimals."""
    step = 10 ** (9 - decimals)
    return _grouped((abs(nano_usd) // step) * (1 if nano_usd >= 0 else -1), 10**decimals, decimals)


def usd_exact(nano_usd: int) -> str:
    """Write nano-USD with the decimals it has, two at least, four at most: `6.6667`."""
    return usd(nano_usd) if nano_usd % _NANO_PER_CENT == 0 else usd(nano_usd, 4)


def usd_used(nano_usd: int) -> str:
    """Write what was used with four decimals; the least of it does not look like nothing."""
    return "< 0.0001" if 0 < nano_usd < _LEAST_NANO_USD else usd(nano_usd, 4)


def _grouped(amount: int, unit: int, decimals: int) -> str:
    whole, rest = divmod(abs(amount), unit)
    sign = "−" if amount < 0 else ""
    return f"{sign}{whole:,}".replace(",", "'") + f".{rest:0{decimals}d}"


def typed_chf(typed: str) -> int | None:
    """Read what a person typed (`30`, `30.50`, `30,50`, `1'234.50`) as Rappen; None if unclear."""
    match = _TYPED.fullmatch(typed.strip().removeprefix("CHF").strip())
    if match is None:
        return None
    whole, rest = match.groups()
    digits = whole.replace("'", "").replace("’", "")
    return int(digits) * 100 + int((rest or "").ljust(2, "0"))


def day(at_s: int, zone: str, language: str) -> str:
    """Write the day of an instant: `1. März 2026`, `1 mars 2026`."""
    moment = datetime.fromtimestamp(at_s, ZoneInfo(zone))
    month = _MONTHS[language].split()[moment.month - 1]
    number = {"de": f"{moment.day}.", "fr": "1er" if moment.day == 1 else str(moment.day)}.get(
        language, str(moment.day)
    )
    return f"{number} {month} {moment.year}"


def minute(at_s: int, zone: str) -> str:
    """Write an instant as `01.03.2026 14:05`."""
    return datetime.fromtimestamp(at_s, ZoneInfo(zone)).strftime("%d.%m.%Y %H:%M")
