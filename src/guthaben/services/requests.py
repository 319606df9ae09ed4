"""Requests: from the Python interface's arguments to commands, and from outcomes to answers.

Law: what comes from outside is checked here once, with an error that says what to do; what is
refused inside becomes the exception that names it. Both interfaces, sync and async, share this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal, NoReturn, NotRequired, TypedDict

from guthaben.domain.calls import (
    EXPIRED,
    NO_ORIGIN,
    NO_USAGE,
    RELEASED,
    RESERVED,
    SETTLED,
    SETTLED_LATE,
    OnEnd,
    Origin,
    Usage,
)
from guthaben.domain.commands import (
    Adjust,
    Command,
    GrantCredit,
    Outcome,
    RecordUsage,
    Reserve,
    SetLicense,
    SetPolicy,
    Settle,
)
from guthaben.domain.grants import NEVER_S, Kind
from guthaben.domain.money import MAX_COMMAND_NANO_USD, is_amount
from guthaben.domain.period import Period, zone
from guthaben.domain.practice import Overrun, PracticeStatus
from guthaben.errors import (
    CallNotFound,
    IdempotencyConflict,
    InsufficientCredit,
    InvalidAmount,
    InvalidInput,
    PracticeClosed,
    PracticeFrozen,
    Refused,
)

CreditKind = Literal["allowance", "promotional", "paid"]
EndPolicy = Literal["release", "charge", "keep"]

STATUS_NAMES: Final = {
    RESERVED: "reserved",
    SETTLED: "settled",
    RELEASED: "released",
    EXPIRED: "expired",
    SETTLED_LATE: "settled_late",
}
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


class UsageOptions(SettleOptions, OriginOptions, total=False):
    """What may be said when metering after the fact."""

    period: Period | None


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


def practice_id_of(value: str) -> str:
    """Check a practice's id: 1 to 200 printable characters."""
    return _text("practice_id", value, MAX_ID, empty=False)


def key_of(value: str) -> str:
    """Check an idempotency key: 1 to 255 printable characters."""
    return _text("key", value, MAX_KEY, empty=False)


def _text(name: str, value: str, most: int, *, empty: bool = True) -> str:
    if not _is_text(value) or len(value) > most or not (value or empty):
        raise InvalidInput(f"{name} must be a text of {0 if empty else 1} to {most} characters")
    if not value.isprintable():
        raise InvalidInput(f"{name} must hold printable characters only")
    return value


def _is_text(value: object) -> bool:
    return type(value) is str


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


def usage_of(options: Mapping[str, object]) -> Usage:
    """Check what a call used."""
    said = {name: options[name] for name in _USAGE_NAMES if name in options}
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
        _text("model", model, MAX_TEXT),
        _text("operation_type", operation_type, MAX_TEXT),
        input_tokens,
        output_tokens,
        total_tokens or input_tokens + output_tokens,
        round(audio_seconds * 1_000_000),
        _text("price_version", price_version, MAX_TEXT),
    )


_USAGE_NAMES = tuple(SettleOptions.__annotations__)
_ORIGIN_NAMES = tuple(OriginOptions.__annotations__)


def origin_of(options: Mapping[str, object]) -> Origin:
    """Check who made a call."""
    said = {name: options[name] for name in _ORIGIN_NAMES if name in options}
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
        if len(tags) > MAX_TAGS:
            raise InvalidInput(f"at most {MAX_TAGS} tags")
        for name, value in tags.items():
            _text("a tag's name", name, 40, empty=False)
            _text("a tag's value", value, MAX_TEXT)
        written = json.dumps(dict(tags), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Origin(
        _text("user_id", user_id, MAX_TEXT),
        _text("device_id", device_id, MAX_TEXT),
        _text("api_key_id", api_key_id, MAX_TEXT),
        _text("reference", reference, MAX_TEXT),
        written,
    )


_POLICIES: Final = {
    "release": int(OnEnd.RELEASE),
    "charge": int(OnEnd.CHARGE),
    "keep": int(OnEnd.KEEP),
}
_KINDS = {"allowance": Kind.ALLOWANCE, "promotional": Kind.PROMOTIONAL, "paid": Kind.PAID}


def reserve_command(amount_nano_usd: int, key: str, options: ReserveOptions) -> Reserve:
    """Make the command that reserves."""
    on_expiry = options.get("on_expiry", "release")
    on_exception = options.get("on_exception", "release")
    if on_expiry not in ("release", "charge"):
        raise InvalidInput("on_expiry must be 'release' or 'charge'")
    if on_exception not in _POLICIES:
        raise InvalidInput("on_exception must be 'release', 'charge' or 'keep'")
    return Reserve(
        key_of(key),
        amount_of("amount_nano_usd", amount_nano_usd, 1),
        ttl_ms_of(options.get("ttl_s", 900)),
        _POLICIES[on_expiry],
        _POLICIES[on_exception],
        options.get("period"),
        usage_of(options),
        origin_of(options),
    )


def grant_command(
    amount_nano_usd: int, kind: str, *, key: str, expires_at_s: int | None, period: Period | None
) -> GrantCredit:
    """Make the command that gives credit."""
    if kind not in _KINDS:
        raise InvalidInput("kind must be 'allowance', 'promotional' or 'paid'")
    if expires_at_s is not None and not (type(expires_at_s) is int and 0 < expires_at_s < NEVER_S):
        raise InvalidInput("expires_at_s must be seconds since 1970, or None for never")
    if kind == "allowance" and expires_at_s is not None:
        raise InvalidInput("an allowance ends with its period: leave expires_at_s out")
    return GrantCredit(
        key_of(key),
        int(_KINDS[kind]),
        amount_of("amount_nano_usd", amount_nano_usd, 1),
        NEVER_S if expires_at_s is None else expires_at_s,
        period,
    )


def adjust_command(amount_nano_usd: int, kind: str, *, key: str) -> Adjust:
    """Make the command that corrects a balance."""
    if kind not in ("promotional", "paid"):
        raise InvalidInput("kind must be 'promotional' or 'paid'")
    amount = amount_of("amount_nano_usd", amount_nano_usd, -MAX_COMMAND_NANO_USD)
    if amount == 0:
        raise InvalidAmount("amount_nano_usd must not be 0: there is nothing to correct")
    return Adjust(key_of(key), amount, int(_KINDS[kind]))


def usage_command(cost_nano_usd: int, key: str, options: UsageOptions) -> RecordUsage:
    """Make the command that meters after the fact."""
    cost = amount_of("cost_nano_usd", cost_nano_usd, 0)
    period = options.get("period")
    return RecordUsage(key_of(key), cost, period, usage_of(options), origin_of(options))


def settle_command(call_no: int, cost_nano_usd: int, options: SettleOptions) -> Settle:
    """Make the command that settles."""
    return Settle(call_no, amount_of("cost_nano_usd", cost_nano_usd, 0), usage_of(options))


def license_command(license: str, options: LicenseOptions) -> SetLicense:
    """Make the command that tells a licence."""
    start_s, end_s = options["period_start_s"], options["period_end_s"]
    allowance = options["allowance_nano_usd"]
    _text("license", license, MAX_TEXT, empty=False)
    if not (type(start_s) is int and type(end_s) is int and 0 <= start_s < end_s < 1 << 40):
        raise InvalidInput("a period is two integers, seconds since 1970, and ends after it starts")
    if not is_amount(allowance, 0):
        raise InvalidAmount(f"allowance_nano_usd must be from 0 to {MAX_COMMAND_NANO_USD}")
    return SetLicense(license, bool(options.get("active", True)), start_s, end_s, allowance)


def policy_command(options: PolicyOptions) -> SetPolicy:
    """Make the command that changes how a practice is treated."""
    status, overrun = options.get("status"), options.get("overrun")
    time_zone = options.get("time_zone")
    try:
        return SetPolicy(
            None if status is None else int(PracticeStatus[status.upper()]),
            None if overrun is None else int(Overrun[overrun.upper()]),
            options.get("debt_blocks_allowance"),
            None if time_zone is None else zone(time_zone).key,
        )
    except (KeyError, ValueError) as error:
        raise InvalidInput(
            "status is active, frozen or closed; overrun is debt or operator_loss; time_zone is a "
            f"name such as Europe/Zurich ({error})"
        ) from error


def reason_of(reason: str) -> str:
    """Check an operator's reason: it is required."""
    if type(reason) is not str or not 3 <= len(reason.strip()) <= 1000:
        raise InvalidInput("reason must say why, in 3 to 1000 characters")
    return reason.strip()


def checked(outcome: Outcome, practice_id: str, command: Command) -> Outcome:
    """Give an accepted outcome back; raise the exception that names a refusal."""
    if not outcome.ok:
        _raise(outcome, practice_id, command)
    return outcome


def _raise(outcome: Outcome, practice_id: str, command: Command) -> NoReturn:
    reason = outcome.reason
    if reason == "insufficient_credit":
        asked = getattr(command, "amount_nano_usd", 0)
        raise InsufficientCredit(outcome.available_nano_usd, asked, practice_id=practice_id)
    if reason == "idempotency_conflict":
        raise IdempotencyConflict(
            getattr(command, "key", ""), operation=type(command).__name__.lower()
        )
    if reason == "call_not_found":
        raise CallNotFound(str(getattr(command, "call_no", "")))
    if reason == "practice_frozen":
        raise PracticeFrozen(practice_id)
    if reason == "practice_closed":
        raise PracticeClosed(practice_id)
    raise Refused(_EXPLAINED.get(reason, ""), reason=reason)


_EXPLAINED: Final = {
    "settled_otherwise": "The call is already settled with another cost; that cost stands. "
    "Correct it with an adjustment.",
    "call_over": "The call is over, so it can't be extended. Reserve a new one.",
    "lifetime_exceeded": "A reservation lives at most 24 hours in all. Settle it and reserve anew.",
    "allowance_exists": "This period has its allowance already; there is never a second one.",
    "already_expired": "expires_at_s lies in the past.",
    "balance_limit": "No balance may grow beyond 4e18 nano-USD.",
    "not_due": "The call is not due yet.",
}
