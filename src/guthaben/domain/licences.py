"""What a subscription entitles to: plans, dated allowances, and the one licence that leads.

Law: the allowance of a period is the highest that its plan had in it while it was paid for, so it
does not depend on the order in which that was heard. Pure; nothing is granted here. What becomes of
it are the commands SetLicense and GrantCredit. See docs/rules.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from guthaben.domain.grants import NEVER_S
from guthaben.domain.money import MAX_COMMAND_NANO_USD

PAID_FOR: Final = frozenset({"active", "trialing"})
"""Statuses in which a plan that is seen counts for its period."""
PAST_DUE: Final = "past_due"
OVER: Final = frozenset({"canceled", "incomplete_expired"})
"""Statuses that a subscription never leaves."""
_NOT_ENTITLED: Final = frozenset({"unpaid", "paused", "incomplete"})
TRIALING: Final = "trialing"
STATUSES: Final = PAID_FOR | OVER | _NOT_ENTITLED | {PAST_DUE}


class Item(NamedTuple):
    """One price of a subscription; its period is half-open."""

    lookup_key: str
    quantity: int
    start_s: int
    end_s: int


class PlanVersion(NamedTuple):
    """What a plan includes in periods that begin at `from_s` or later."""

    plan_no: int
    lookup_key: str
    from_s: int
    allowance_nano_usd: int
    trial_nano_usd: int | None = None
    """In a trial; None: the same as otherwise."""
    removed: bool = False
    author: str = ""
    at_s: int = 0


class Term(NamedTuple):
    """The period of some items and what it includes; None where none of them is a plan."""

    start_s: int
    end_s: int
    allowance_nano_usd: int | None


class Plans:
    """The plans by their lookup keys."""

    def __init__(self, versions: Iterable[PlanVersion]) -> None:
        self._versions: dict[str, list[PlanVersion]] = {}
        for version in sorted(versions, key=lambda v: (v.from_s, v.plan_no)):
            self._versions.setdefault(version.lookup_key, []).append(version)

    def version(self, lookup_key: str, start_s: int) -> PlanVersion | None:
        """Find what counts for a period that begins then; before its first date, its first."""
        known = self._versions.get(lookup_key, [])
        begun = [version for version in known if version.from_s <= start_s]
        if not begun:  # of several with the first date, the one that was entered last
            begun = [version for version in known if version.from_s == known[0].from_s]
        if not begun or begun[-1].removed:
            return None
        return begun[-1]

    def current(self, now_s: int) -> list[PlanVersion]:
        """List what counts for periods that begin now, by name."""
        found = (self.version(lookup_key, now_s) for lookup_key in sorted(self._versions))
        return [version for version in found if version is not None]

    def knows(self, items: Iterable[Item]) -> bool:
        """Tell whether one of the items is a plan."""
        return any(self.version(item.lookup_key, item.start_s) for item in items)

    def term(self, items: tuple[Item, ...], *, trial: bool) -> Term:
        """Add up what the items include in their period.

        Items that are no plan don't count beside one that is. Of plans with different periods only
        those of the period that began last count.
        """
        priced = [(item, self.version(item.lookup_key, item.start_s)) for item in items]
        plans = [(item, version) for item, version in priced if version is not None]
        counted = [item for item, _version in plans] or list(items)
        start_s, end_s = max((item.start_s, item.end_s) for item in counted)
        if not plans:
            return Term(start_s, end_s, None)
        total = sum(
            _allowance(version, trial=trial) * item.quantity
            for item, version in plans
            if (item.start_s, item.end_s) == (start_s, end_s)
        )
        return Term(start_s, end_s, min(total, MAX_COMMAND_NANO_USD))

    def name_of(self, items: Iterable[Item]) -> str:
        """Name the plan that items are sold under: the one that includes most, then by name.

        As in `term`, items that are no plan don't count beside one that is, nor does an earlier
        period. What is no plan any more keeps its name.
        """
        versions = [(item, self.version(item.lookup_key, item.start_s)) for item in items]
        priced = [
            (item.start_s, item.end_s, version.allowance_nano_usd * item.quantity, item.lookup_key)
            for item, version in versions
            if version is not None
        ] or [(item.start_s, item.end_s, 0, item.lookup_key) for item, _none in versions]
        return min(priced, key=lambda it: (-it[0], -it[1], -it[2], it[3]))[3] if priced else ""


def _allowance(version: PlanVersion, *, trial: bool) -> int:
    if trial and version.trial_nano_usd is not None:
        return version.trial_nano_usd
    return version.allowance_nano_usd


class Sighting(NamedTuple):
    """Items that a subscription was seen to have while it was paid for."""

    items: tuple[Item, ...]
    trial: bool


class Subscription(NamedTuple):
    """A subscription as the provider last told it, and what was seen of its period."""

    subscription_id: str
    status: str
    items: tuple[Item, ...]
    ends_at_s: int
    began_at_s: int
    allowance_nano_usd: int
    """What its plan included when it was last known: kept while it is not."""
    sightings: tuple[Sighting, ...] = ()


class Standing(NamedTuple):
    """What a subscription entitles to."""

    subscription_id: str
    status: str
    active: bool
    start_s: int
    end_s: int
    ends_at_s: int
    period_nano_usd: int
    """The allowance of this period."""
    next_nano_usd: int
    """The allowance of the periods after it, as the plan is now."""
    known: bool
    """False: none of its items is a plan that is known."""
    began_at_s: int
    plans: str
    """The lookup keys of its items."""
    plan: str = ""
    """The lookup key of the plan whose margin counts."""


def standing(subscription: Subscription, plans: Plans, now_s: int) -> Standing:
    """Tell what a subscription entitles to now."""
    status, sub = subscription.status, subscription
    term = plans.term(sub.items, trial=status == TRIALING)
    following = plans.term(sub.items, trial=False).allowance_nano_usd
    known = term.allowance_nano_usd is not None
    kept = 0 if known else sub.allowance_nano_usd
    return Standing(
        sub.subscription_id,
        status,
        active=status in PAID_FOR | {PAST_DUE} and now_s < _end(sub, term),
        start_s=term.start_s,
        end_s=term.end_s,
        ends_at_s=_end(sub, term),
        period_nano_usd=max(kept, period_allowance(sub.sightings, plans, term.start_s)),
        next_nano_usd=sub.allowance_nano_usd if following is None else following,
        known=known,
        began_at_s=sub.began_at_s,
        plans=", ".join(sorted({item.lookup_key or "(none)" for item in sub.items})),
        plan=plans.name_of(sub.items),
    )


def _end(subscription: Subscription, term: Term) -> int:
    """Tell when it is over; one that is past due opens no further period by itself."""
    if subscription.status == PAST_DUE:
        return min(subscription.ends_at_s, term.end_s)
    return subscription.ends_at_s


def period_allowance(sightings: Iterable[Sighting], plans: Plans, start_s: int) -> int:
    """Tell what a period includes: the highest that was seen in it while it was paid for."""
    terms = (plans.term(seen.items, trial=seen.trial) for seen in sightings)
    return max(
        (term.allowance_nano_usd or 0 for term in terms if term.start_s == start_s), default=0
    )


def leading(standings: Iterable[Standing]) -> Standing | None:
    """Choose a practice's licence: the highest allowance, of equal ones the one begun first.

    One whose plan was never known doesn't lead: it must not take the place of what there is.
    """
    active = [found for found in standings if found.active and (found.known or found.next_nano_usd)]
    return min(
        active,
        key=lambda s: (-s.period_nano_usd, -s.next_nano_usd, s.began_at_s, s.subscription_id),
        default=None,
    )


def never_ends(ends_at_s: int | None) -> int:
    """Read an end that may not be known."""
    return NEVER_S if ends_at_s is None else ends_at_s
