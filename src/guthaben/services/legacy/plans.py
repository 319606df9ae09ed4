"""What the old licences include: lookup key -> monthly allowance, and whose credit it is.

Law: one table, here. A setting (`GUTHABEN_MONTHLY_BUDGETS_USD`) adds plans or changes one; a plan
that nobody names has the allowance of the smallest. A licence that is over includes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guthaben import config
from guthaben.domain.money import MAX_COMMAND_NANO_USD, NANO_PER_USD, parse_usd
from guthaben.domain.period import Period
from guthaben.errors import ConfigError, InvalidInput

MONTHLY_ALLOWANCES: Final = {"aza_basic_monthly": 20 * NANO_PER_USD}
OTHER_PLANS: Final = 20 * NANO_PER_USD
_EVERY_OTHER: Final = "*"
_OVER: Final = frozenset({"canceled", "unpaid", "incomplete", "incomplete_expired", "paused"})
_LATEST_S: Final = 1 << 40


class OldLicense(NamedTuple):
    """A licence as the old modules hand it in; its period is taken as it is, whatever the clock."""

    subscription_id: str
    practice_id: str
    lookup_key: str
    status: str
    start_s: int
    end_s: int


def monthly_allowance(lookup_key: str | None) -> int:
    """Tell a plan's allowance per period in nano-USD; raises `ConfigError` for a bad setting."""
    told = config.monthly_budgets_usd()
    name = lookup_key or ""
    if name in told:
        return _read(name, told[name])
    if name in MONTHLY_ALLOWANCES:
        return MONTHLY_ALLOWANCES[name]
    return _read(_EVERY_OTHER, told[_EVERY_OTHER]) if _EVERY_OTHER in told else OTHER_PLANS


def _read(name: str, written: str) -> int:
    try:
        amount = parse_usd(written)
    except ValueError as error:
        raise ConfigError(f"GUTHABEN_MONTHLY_BUDGETS_USD: {name!r}: {error}") from error
    if not 0 <= amount <= MAX_COMMAND_NANO_USD:
        raise ConfigError(f"GUTHABEN_MONTHLY_BUDGETS_USD: {name!r} is out of range")
    return amount


def is_over(license: OldLicense) -> bool:
    """Tell whether a licence no longer entitles to an allowance; its bought credit stays usable."""
    return ends_all(license.status)


def ends_all(status: str) -> bool:
    """Tell whether a licence of this status entitles to nothing."""
    return status.strip().lower() in _OVER


def period_of(license: OldLicense) -> Period:
    """Give the licence's period with its allowance. Raises `InvalidInput` for one that is none."""
    start_s, end_s = license.start_s, license.end_s
    if not license.subscription_id:
        raise InvalidInput("a licence needs its subscription_id", field="subscription_id")
    if not all(type(at_s) is int and 0 <= at_s <= _LATEST_S for at_s in (start_s, end_s)):
        raise InvalidInput("a period is two integers of seconds since 1970", field="period_start")
    allowance = 0 if is_over(license) else monthly_allowance(license.lookup_key)
    return Period(license.subscription_id, start_s, end_s, allowance)


def practice_of(practice_id: str | None, subscription_id: str | None) -> str:
    """Tell whose credit it is: the practice's, and of a licence without one the subscription's.

    The subscription is the one thing that such a licence keeps for ever.
    """
    found = practice_id or subscription_id
    if not isinstance(found, str) or not 1 <= len(found) <= 200:
        raise InvalidInput("practice_id or subscription_id must name somebody", field="practice_id")
    return found
