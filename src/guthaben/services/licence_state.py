"""Licences inside one transaction: what the provider told becomes the practice's licence.

Law: an answer of the provider that was asked for before another was stored is not believed. What
it was seen to have earlier only ever adds to the allowance of the period it was seen in. Credit
changes by commands only: SetLicense, which may be said twice without harm, and GrantCredit, with a
key of the period. Calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from guthaben.domain.commands import GrantCredit, SetLicense
from guthaben.domain.grants import ALLOWANCE, NEVER_S
from guthaben.domain.licences import (
    OVER,
    PAID_FOR,
    PAST_DUE,
    STATUSES,
    TRIALING,
    Sighting,
    Standing,
    leading,
    never_ends,
    period_allowance,
    standing,
)
from guthaben.domain.period import Period
from guthaben.domain.practice import Practice
from guthaben.errors import Refused
from guthaben.payments.ids import mask_stripe_reference
from guthaben.payments.subscriptions import SubscriptionFacts
from guthaben.services.licence_owner import (
    Told,
    hold,
    items_of,
    named,
    owner_of,
    plans_of,
    release_held,
)
from guthaben.services.netting import Verdict
from guthaben.services.notices import Fact, Notice, tell
from guthaben.store import licences as rows
from guthaben.store import plans as plan_rows
from guthaben.store import settings
from guthaben.store.licences import SubscriptionRow
from guthaben.store.store import Store
from guthaben.store.topups import practice_id_of
from guthaben.store.workspace import Workspace

UNKNOWN_PLAN: Final = "license_unknown_plan"
UNKNOWN_STATUS: Final = "license_unknown_status"
SECOND: Final = "license_second_subscription"
DIFFERS: Final = "license_practice_differs"

UNPAID: Final = frozenset({PAST_DUE, "unpaid"})
_NEVER_BEGAN: Final = frozenset({"incomplete", "incomplete_expired"})
_NEWS_IS_LATE_S: Final = 3_600
"""The provider renews within the hour; from then on a licence without news is asked for."""


# ---------------------------------------------------------------- hearing


def hear(
    space: Workspace,
    facts: SubscriptionFacts,
    told: Told,
    *,
    seen_before: SubscriptionFacts | None,
    expected_version: int,
    practice_id: str | None = None,
) -> Verdict | None:
    """Take what the provider says now, and what an event says it said earlier.

    `practice_id` is an operator's word on whose it is. None: what was said may be older than what
    is stored, so nothing was changed; ask again. Raises `Refused` (`subscription_taken`).
    """
    known = rows.find_subscription(space.cursor, facts.subscription_id, facts.livemode)
    if known is not None:  # no other server stores anything of it from here on
        space.practice(practice_id_of(space.cursor, known.practice_no))
        known = rows.find_subscription(space.cursor, facts.subscription_id, facts.livemode)
    if (known.version if known else 0) != expected_version:
        return None
    told = told.and_also(named(facts.metadata))
    if known is not None:
        owner = practice_id_of(space.cursor, known.practice_no)
        if practice_id not in (None, owner):
            raise Refused("It belongs to another practice.", reason="subscription_taken")
        if told.practice_ids - {owner} and practice_id is None:
            _alarm(space, DIFFERS, owner, str(mask_stripe_reference(facts.subscription_id)))
    elif practice_id is not None:
        owner = practice_id
    else:
        owner, why = owner_of(space, facts, told)
        if why:
            return None if _is_stored(space, facts) else hold(space, facts, told, why)
        if not owner:
            return "ignored", "not_ours"
    if known is None:
        space.practice_no(owner)  # whoever stores it first in this moment is waited for
        if _is_stored(space, facts):
            return None
    release_held(space, facts.subscription_id)
    _store(space, owner, facts, known)
    for order_id in told.order_ids:
        number = space.practice_no(owner)
        plan_rows.complete_order(space.cursor, number, order_id, facts.subscription_id)
    _tell_people(space, owner, facts, known)
    earlier = _see(space, owner, facts, seen_before)
    retell(space, owner, earlier)
    return "done", "told"


def _is_stored(space: Workspace, facts: SubscriptionFacts) -> bool:
    """Tell whether another server has stored it since this transaction looked."""
    found = rows.find_subscription(space.cursor, facts.subscription_id, facts.livemode)
    return found is not None


# ---------------------------------------------------------------- storing


def _store(
    space: Workspace, owner: str, facts: SubscriptionFacts, known: SubscriptionRow | None
) -> None:
    items = items_of(facts)
    understood = facts.status in STATUSES
    if not understood:
        _alarm(space, UNKNOWN_STATUS, owner, facts.status[:60])
    # A status nobody has heard of must neither give nor take: the one before it stays.
    status = facts.status if understood else (known.status if known else "incomplete")
    plan = plans_of(space).term(items, trial=False).allowance_nano_usd
    kept = known.allowance_nano_usd if known else 0
    over = status in OVER
    rows.save_subscription(
        space.cursor,
        SubscriptionRow(
            space.practice_no(owner),
            facts.subscription_id,
            facts.livemode,
            facts.customer_id or (known.customer_id if known else ""),
            status,
            rows.items_text(items),
            never_ends(facts.ends_at_s),
            facts.created_at_s,
            over,
            NEVER_S if over else _due_at_s(facts) + _NEWS_IS_LATE_S,
            kept if plan is None else plan,
            plan is None and not over,
            (known.version if known else 0) + 1,
            space.now_s,
        ),
    )


def _due_at_s(facts: SubscriptionFacts) -> int:
    """Tell when the provider has news at the latest: of the next period, or of the end."""
    renewal_s = max(item.period_end_s for item in facts.items)
    return min(renewal_s, never_ends(facts.ends_at_s))


def _tell_people(
    space: Workspace, owner: str, facts: SubscriptionFacts, known: SubscriptionRow | None
) -> None:
    """Tell the practice and the operator what changed for the worse, once each."""
    name = str(mask_stripe_reference(facts.subscription_id))
    start_s = max(item.period_start_s for item in facts.items)
    if facts.status in UNPAID and (known is None or known.status not in UNPAID):
        key = f"{name}:{start_s}"
        tell(space, owner, Notice.LICENCE_UNPAID, key, {"license": name})
    ends_at_s = never_ends(facts.ends_at_s)
    was_paid_for = known is not None and known.status not in _NEVER_BEGAN
    if ends_at_s < NEVER_S and was_paid_for:
        key = f"{name}:{ends_at_s}"
        told: dict[str, Fact] = {"license": name, "ends_at_s": ends_at_s}
        tell(space, owner, Notice.LICENCE_CANCELLED, key, told)


def _see(
    space: Workspace, owner: str, now: SubscriptionFacts, before: SubscriptionFacts | None
) -> list[Period]:
    """Remember what it was seen to have while paid for; give earlier periods that this changed."""
    row = rows.find_subscription(space.cursor, now.subscription_id, now.livemode)
    assert row is not None
    changed: list[Period] = []
    for facts in (before, now):
        if facts is None or facts.status not in PAID_FOR:
            continue
        seen = Sighting(items_of(facts), facts.status == TRIALING)
        if not rows.see(space.cursor, row, seen, space.now_s):
            continue
        term = plans_of(space).term(seen.items, trial=seen.trial)
        if facts is before and term.allowance_nano_usd is not None:
            known = rows.seen_since(
                space.cursor, row.practice_no, row.subscription_id, term.start_s
            )
            most = period_allowance(known, plans_of(space), term.start_s)
            changed.append(Period(row.subscription_id, term.start_s, term.end_s, most))
    return changed


# ---------------------------------------------------------------- telling the engine


def standings(space: Workspace, practice_no: int) -> list[Standing]:
    """Tell what each subscription of a practice that is not over entitles to."""
    found = rows.subscriptions_of(space.cursor, practice_no)
    plans = plans_of(space)
    return [standing(rows.subscription_of(space.cursor, row), plans, space.now_s) for row in found]


def retell(space: Workspace, practice_id: str, earlier: Sequence[Period] = ()) -> None:
    """Make the practice's licence what its subscriptions entitle to; idempotent.

    `earlier` are periods of which something was heard late: they are brought in line first.
    """
    practice_no = space.practice_no(practice_id)
    before = space.practice(practice_id)
    found = standings(space, practice_no)
    current = leading(found)
    _alarms(space, practice_id, found)
    late = [period for period in sorted(earlier) if not _is_of(current, period)]
    for period in late:
        space.apply(practice_id, SetLicense(period.license, True, *period[1:4]))
    if current is not None:
        _tell(space, practice_id, current)
    elif late or before.license_active:
        # One that an operator has told stays; one of the subscriptions is over.
        theirs = not before.license or rows.is_subscription_of(
            space.cursor, practice_no, before.license
        )
        _tell_again(space, before, active=before.license_active and not theirs)


def _is_of(current: Standing | None, period: Period) -> bool:
    """Tell whether a period is the leading licence's own: that is told anyway, and last."""
    return current is not None and (
        (current.subscription_id, current.start_s) == (period.license, period.start_s)
    )


def _tell(space: Workspace, practice_id: str, current: Standing) -> None:
    bounds = current.start_s, current.end_s
    this = SetLicense(
        current.subscription_id, True, *bounds, current.period_nano_usd, current.ends_at_s
    )
    space.apply(practice_id, this)
    if current.next_nano_usd < current.period_nano_usd:
        # A lower plan acts from the next period on: what this one includes is given before.
        period = Period(current.subscription_id, *bounds)
        key = f"license:{current.subscription_id}:{current.start_s}"
        space.apply(
            practice_id, GrantCredit(key, ALLOWANCE, this.allowance_nano_usd, period=period)
        )
        space.apply(practice_id, this._replace(allowance_nano_usd=current.next_nano_usd))


def _tell_again(space: Workspace, before: Practice, *, active: bool) -> None:
    if not before.license:
        before = space.practice(before.practice_id)
    space.apply(
        before.practice_id,
        SetLicense(
            before.license, active, before.period_start_s, before.period_end_s,
            before.allowance_nano_usd, before.license_ends_at_s,
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- alarms


def _alarms(space: Workspace, practice_id: str, found: list[Standing]) -> None:
    active = [each for each in found if each.active]
    _set_alarm(space, SECOND, practice_id, practice_id, len(active) > 1)
    for each in found:
        subject = str(mask_stripe_reference(each.subscription_id))
        unknown = each.active and not each.known
        _set_alarm(space, UNKNOWN_PLAN, practice_id, subject, unknown)
        if unknown:
            key = f"{subject}:{each.start_s}"
            tell(space, practice_id, Notice.UNKNOWN_PLAN, key, {"plan": each.plans[:100]})


def _set_alarm(space: Workspace, code: str, practice_id: str, subject: str, on: bool) -> None:
    if on:
        _alarm(space, code, practice_id, subject)
    else:
        number = space.practice_no(practice_id)
        rows.clear_alarm(space.cursor, code, subject, space.now_s, number)


def _alarm(space: Workspace, code: str, practice_id: str, subject: str) -> None:
    number = space.practice_no(practice_id)
    settings.raise_alarm(space.cursor, code, subject, space.now_s, number)


# ---------------------------------------------------------------- all of them


def retell_all(store: Store) -> None:
    """Make every practice's licence what its subscriptions entitle to: after plans were changed."""
    after_no = 0
    while page := store.read(_page(after_no)):
        for _practice_no, practice_id in page:
            store.run(_retelling(practice_id))
        after_no = page[-1][0]


def _page(after_no: int) -> Callable[..., list[tuple[int, str]]]:
    return lambda cursor: rows.page_of_owners(cursor, after_no, 200)


def _retelling(practice_id: str) -> Callable[[Workspace], None]:
    def work(space: Workspace) -> None:
        _refresh_known(space, practice_id)
        retell(space, practice_id)

    return work


def _refresh_known(space: Workspace, practice_id: str) -> None:
    """Note anew which subscriptions have a plan that is known."""
    practice_no = space.practice_no(practice_id)  # first, so that the plans are today's
    plans = plans_of(space)
    for row in rows.subscriptions_of(space.cursor, practice_no):
        items = rows.subscription_of(space.cursor, row).items
        plan = plans.term(items, trial=False).allowance_nano_usd
        kept = row.allowance_nano_usd if plan is None else plan
        changed = row._replace(allowance_nano_usd=kept, is_unknown=plan is None)
        if changed != row:
            rows.save_subscription(space.cursor, changed)
