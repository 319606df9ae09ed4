"""Requests: from the Python interface's arguments to commands, and from outcomes to answers.

Law: what comes from outside is checked here once, with an error that says what to do; what is
refused inside becomes the exception that names it. Both interfaces, sync and async, share this.
"""

from __future__ import annotations

from typing import Final, NoReturn

from guthaben.domain.calls import (
    EXPIRED,
    RELEASED,
    RESERVED,
    SETTLED,
    SETTLED_LATE,
    OnEnd,
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
from guthaben.domain.practice import Mode, Overrun, PracticeStatus
from guthaben.errors import (
    CallNotFound,
    CapExceeded,
    IdempotencyConflict,
    InsufficientCredit,
    InvalidAmount,
    InvalidInput,
    PracticeClosed,
    PracticeFrozen,
    Refused,
)
from guthaben.services.checks import (
    MAX_TEXT,
    LicenseOptions,
    PolicyOptions,
    ReserveOptions,
    SettleOptions,
    UsageOptions,
    amount_of,
    checked_text,
    key_of,
    known_options,
    origin_of,
    period_of,
    ttl_ms_of,
    usage_of,
)

STATUS_NAMES: Final = {
    RESERVED: "reserved",
    SETTLED: "settled",
    RELEASED: "released",
    EXPIRED: "expired",
    SETTLED_LATE: "settled_late",
}
_POLICIES: Final = {
    "release": int(OnEnd.RELEASE),
    "charge": int(OnEnd.CHARGE),
    "keep": int(OnEnd.KEEP),
}
_KINDS = {"allowance": Kind.ALLOWANCE, "promotional": Kind.PROMOTIONAL, "paid": Kind.PAID}


def reserve_command(amount_nano_usd: int, key: str, options: ReserveOptions) -> Reserve:
    """Make the command that reserves."""
    known_options(options, ReserveOptions)
    on_expiry = options.get("on_expiry", "release")
    on_exception = options.get("on_exception", "release")
    if on_expiry not in ("release", "charge"):
        raise InvalidInput("on_expiry must be 'release' or 'charge'")
    if on_exception not in ("release", "charge", "keep"):
        raise InvalidInput("on_exception must be 'release', 'charge' or 'keep'")
    return Reserve(
        key_of(key),
        amount_of("amount_nano_usd", amount_nano_usd, 1),
        ttl_ms_of(options.get("ttl_s", 900)),
        _POLICIES[on_expiry],
        _POLICIES[on_exception],
        period_of(options.get("period")),
        usage_of(options),
        origin_of(options),
    )


def grant_command(
    amount_nano_usd: int, kind: str, *, key: str, expires_at_s: int | None, period: Period | None
) -> GrantCredit:
    """Make the command that gives credit."""
    if kind not in ("allowance", "promotional", "paid"):
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
        period_of(period),
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
    known_options(options, UsageOptions)
    cost = amount_of("cost_nano_usd", cost_nano_usd, 0)
    period = period_of(options.get("period"))
    return RecordUsage(key_of(key), cost, period, usage_of(options), origin_of(options))


def settle_command(call_no: int, cost_nano_usd: int, options: SettleOptions) -> Settle:
    """Make the command that settles."""
    known_options(options, SettleOptions)
    return Settle(call_no, amount_of("cost_nano_usd", cost_nano_usd, 0), usage_of(options))


def license_command(license: str, options: LicenseOptions) -> SetLicense:
    """Make the command that tells a licence."""
    known_options(options, LicenseOptions)
    missing = sorted({"period_start_s", "period_end_s", "allowance_nano_usd"} - set(options))
    if missing:
        raise InvalidInput(f"a licence needs {', '.join(missing)}")
    if type(options.get("active", True)) is not bool:
        raise InvalidInput("active is True or False")
    start_s, end_s = options["period_start_s"], options["period_end_s"]
    allowance = options["allowance_nano_usd"]
    checked_text("license", license, MAX_TEXT, empty=False)
    if not (type(start_s) is int and type(end_s) is int and 0 <= start_s < end_s < 1 << 40):
        raise InvalidInput("a period is two integers, seconds since 1970, and ends after it starts")
    if not is_amount(allowance, 0):
        raise InvalidAmount(f"allowance_nano_usd must be from 0 to {MAX_COMMAND_NANO_USD}")
    return SetLicense(license, options.get("active", True), start_s, end_s, allowance)


def policy_command(options: PolicyOptions) -> SetPolicy:
    """Make the command that changes how a practice is treated."""
    known_options(options, PolicyOptions)
    for name in ("debt_blocks_allowance", "over_limit"):
        if not isinstance(options.get(name, False), bool):
            raise InvalidInput(f"{name} is True or False")
    limit = options.get("overdraft_limit_nano_usd")
    if limit is not None:
        amount_of("overdraft_limit_nano_usd", limit, 0)
    status, overrun = options.get("status"), options.get("overrun")
    time_zone, mode = options.get("time_zone"), options.get("mode")
    try:
        return SetPolicy(
            None if status is None else int(PracticeStatus[status.upper()]),
            None if overrun is None else int(Overrun[overrun.upper()]),
            options.get("debt_blocks_allowance"),
            None if time_zone is None else zone(time_zone).key,
            limit,
            over_limit=options.get("over_limit"),
            mode=None if mode is None else int(Mode[mode.upper()]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            "status is active, frozen or closed; overrun is debt or operator_loss; mode is live or "
            f"test; time_zone is a name such as Europe/Zurich ({error})"
        ) from error


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
    if reason == "cap_exceeded":
        raise CapExceeded(outcome.available_nano_usd, getattr(command, "amount_nano_usd", 0))
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
