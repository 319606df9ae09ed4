"""Checks: what comes from outside is checked here once, with an error that says what to do.

Law: nothing unchecked becomes part of a command. Raises `InvalidInput` or `InvalidAmount`, both
of which are `ValueError`s too; decides nothing about credit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict, get_type_hints

from guthaben.domain.calls import NO_ORIGIN, NO_USAGE, Origin, Usage
from guthaben.domain.grants import NEVER_S
from guthaben.domain.money import MAX_COMMAND_NANO_USD, is_amount
from guthaben.domain.period import Period
from guthaben.errors import InvalidAmount, InvalidInput

CreditKind = Literal["allowance", "promotional", "paid"]
EndPolicy = Literal["release", "charge", "keep"]

MAX_ID = 200
MAX_KEY = 255
MAX_TEXT = 200
MAX_TAGS = 10
MAX_COUNT = 10**12


class SettleOptions(TypedDict, total=False):
    """What may be told when settling: what the provider said was used."""

    model: str
    operation_type: str
    input_tokens: int
    output_tokens: int
    total_tokens: int
    audio_seconds: float
    price_version: str


class OriginOptions(TypedDict, total=False):
    """Who makes a call: opaque references, never personal data; at most ten short tags."""

    user_id: str
    device_id: str
    api_key_id: str
    reference: str
    tags: Mapping[str, str]


class ReserveOptions(OriginOptions, total=False):
    """What may be said when reserving. Defaults: 900 s, release on expiry and on an exception."""

    ttl_s: float
    on_expiry: EndPolicy
    on_exception: EndPolicy
    period: Period | None
    model: str
    operation_type: str


class PriceOptions(TypedDict, total=False):
    """What a call may use at most; a price from the book takes the place of an amount."""

    input_tokens: int
    max_output_tokens: int
    audio_seconds: float
    provider: str
    plan: str


class PricedReserveOptions(ReserveOptions, PriceOptions, total=False):
    """What may be said when reserving, with or without an amount."""


class UsageOptions(SettleOptions, OriginOptions, total=False):
    """What may be said when metering after the fact."""

    period: Period | None


class PricedUsageOptions(UsageOptions, total=False):
    """What may be said when metering by a provider's usage."""

    provider: str
    plan: str


class LicenseOptions(TypedDict):
    """A licence's current period, half-open and in seconds since 1970, and its allowance."""

    period_start_s: int
    period_end_s: int
    allowance_nano_usd: int
    active: NotRequired[bool]


class PolicyOptions(TypedDict, total=False):
    """How a practice is treated; what is left out stays as it is."""

    status: Literal["active", "frozen", "closed"]
    overrun: Literal["debt", "operator_loss"]
    debt_blocks_allowance: bool
    time_zone: str
    overdraft_limit_nano_usd: int
    """How much debt leases of the Cycles protocol may make; 0 lets them make none."""
    over_limit: bool
    """False lets leases begin again although an earlier one used more than there was."""
    mode: Literal["live", "test"]
    """Whether the provider's real cards are charged for it or those of its test mode."""


def practice_id_of(value: str) -> str:
    """Check a practice's id: 1 to 200 printable characters."""
    return checked_text("practice_id", value, MAX_ID, empty=False)


def is_practice_id(value: str) -> bool:
    """Tell whether a practice may be called so."""
    return _is_text(value) and 1 <= len(value) <= MAX_ID and value.isprintable()


def key_of(value: str) -> str:
    """Check an idempotency key: 1 to 255 printable characters."""
    return checked_text("key", value, MAX_KEY, empty=False)


def checked_text(name: str, value: str, most: int, *, empty: bool = True) -> str:
    """Check a text: its length, and that it holds printable characters only."""
    if not _is_text(value) or len(value) > most or not (value or empty):
        raise InvalidInput(f"{name} must be a text of {0 if empty else 1} to {most} characters")
    if not value.isprintable():
        raise InvalidInput(f"{name} must hold printable characters only")
    return value


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def amount_of(name: str, value: int, least: int) -> int:
    """Check an amount of nano-USD: a true integer within the limits of one command."""
    if not is_amount(value, least):
        raise InvalidAmount(
            f"{name} must be an integer of nano-USD from {least} to {MAX_COMMAND_NANO_USD}"
            f" (1 USD = 1,000,000,000), not {value!r}"
        )
    return value


def ttl_ms_of(ttl_s: float) -> int:
    """Check a time to live in seconds, fractions allowed, as milliseconds: at most 24 hours."""
    if not _is_number(ttl_s) or not 0 < ttl_s <= 86_400:
        raise InvalidInput(f"ttl_s must be above 0 and at most 86400 seconds, not {ttl_s!r}")
    return max(1, round(ttl_s * 1000))


_KNOWN: dict[type, frozenset[str]] = {
    known: frozenset(get_type_hints(known))
    for known in (SettleOptions, ReserveOptions, UsageOptions, LicenseOptions, PolicyOptions)
}


def known_options(options: Mapping[str, object], known: type) -> None:
    """Refuse an option that doesn't exist: a slip of the pen must not decide about money."""
    if not options:
        return
    unknown = sorted(options.keys() - _KNOWN[known])
    if unknown:
        raise InvalidInput(f"no such option: {', '.join(unknown)}")


def period_of(period: Period | None) -> Period | None:
    """Check a named period: bounds in seconds that follow each other, an allowance not below 0."""
    if period is None:
        return None
    if not isinstance(period, Period):
        raise InvalidInput("period must be a guthaben.Period")
    license, start_s, end_s, allowance, _provisional = period
    checked_text("a period's license", license, MAX_TEXT)
    if not (type(start_s) is int and type(end_s) is int and 0 <= start_s < end_s < 1 << 40):
        raise InvalidInput("a period is two integers, seconds since 1970, and ends after it starts")
    if not is_amount(allowance, 0):
        raise InvalidAmount(f"a period's allowance must be from 0 to {MAX_COMMAND_NANO_USD}")
    return Period(license, start_s, end_s, allowance)


def usage_of(options: Mapping[str, object]) -> Usage:
    """Check what a call used."""
    said = {name: options[name] for name in _USAGE_NAMES if name in options} if options else {}
    if not said:
        return NO_USAGE
    return _usage(**said)  # type: ignore[arg-type]


def _usage(
    model: str = "",
    operation_type: str = "",
    input_tokens: int = 0,
    output_tokens: int = 0,
    total_tokens: int = 0,
    audio_seconds: float = 0,
    price_version: str = "",
) -> Usage:
    counts = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": total_tokens,
    }
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise InvalidInput(f"{name} must be an integer from 0 to {MAX_COUNT}, not {count!r}")
    if not _is_number(audio_seconds) or not 0 <= audio_seconds <= 10**9:
        raise InvalidInput(f"audio_seconds must be from 0 to 10^9, not {audio_seconds!r}")
    return Usage(
        checked_text("model", model, MAX_TEXT),
        checked_text("operation_type", operation_type, MAX_TEXT),
        input_tokens,
        output_tokens,
        total_tokens or input_tokens + output_tokens,
        round(audio_seconds * 1_000_000),
        checked_text("price_version", price_version, MAX_TEXT),
    )


_USAGE_NAMES = tuple(SettleOptions.__annotations__)
_ORIGIN_NAMES = tuple(OriginOptions.__annotations__)


def origin_of(options: Mapping[str, object]) -> Origin:
    """Check who made a call."""
    said = {name: options[name] for name in _ORIGIN_NAMES if name in options} if options else {}
    if not said:
        return NO_ORIGIN
    return _origin(**said)  # type: ignore[arg-type]


def _origin(
    user_id: str = "",
    device_id: str = "",
    api_key_id: str = "",
    reference: str = "",
    tags: Mapping[str, str] | None = None,
) -> Origin:
    written = ""
    if tags:
        if not _is_mapping(tags) or len(tags) > MAX_TAGS:
            raise InvalidInput(f"tags is a mapping of at most {MAX_TAGS} short texts")
        for name, value in tags.items():
            checked_text("a tag's name", name, 40, empty=False)
            checked_text("a tag's value", value, MAX_TEXT)
        written = json.dumps(dict(tags), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Origin(
        checked_text("user_id", user_id, MAX_TEXT),
        checked_text("device_id", device_id, MAX_TEXT),
        checked_text("api_key_id", api_key_id, MAX_TEXT),
        checked_text("reference", reference, MAX_TEXT),
        written,
    )


def reason_of(reason: str) -> str:
    """Check an operator's reason: it is required."""
    if not _is_text(reason) or not 3 <= len(reason.strip()) <= 1000 or not _encodable(reason):
        raise InvalidInput("reason must say why, in 3 to 1000 characters")
    return reason.strip()


def page_key(value: int | None) -> int | None:
    """Check the number a page begins before."""
    if value is not None and not (type(value) is int and 0 < value < NEVER_S):
        raise InvalidInput("a page is asked for by the number its predecessor gave")
    return value


def _encodable(text: str) -> bool:
    """Line breaks are welcome in a reason; half a character is not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
