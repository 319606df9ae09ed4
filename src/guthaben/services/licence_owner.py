"""Whose a subscription is: our own record of its purchase, or names that all agree.

Law: metadata alone decides only where nothing of ours contradicts it; a contradiction, or a plan of
ours without a name, is held for an operator: nothing is granted, and nothing is lost. Inside the
caller's transaction; calls nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from guthaben.domain.licences import Item, Plans
from guthaben.payments.gateway import METADATA_INSTALLATION
from guthaben.payments.subscriptions import SubscriptionFacts
from guthaben.services.installation import made_elsewhere
from guthaben.services.netting import Verdict
from guthaben.services.notices import OPERATOR, Fact, Notice, tell
from guthaben.store import licences as rows
from guthaben.store import plans as plan_rows
from guthaben.store import settings
from guthaben.store.topups import practice_id_of
from guthaben.store.workspace import Workspace

METADATA_ORDER_ID: Final = "license_order_id"
PURPOSE_LICENSE: Final = "license"
ORDER_PREFIX: Final = "lo_"
HELD: Final = "license_held"


class Told(NamedTuple):
    """Who a subscription is for, by the names that came with it or with its page."""

    order_ids: frozenset[str] = frozenset()
    practice_ids: frozenset[str] = frozenset()

    def and_also(self, other: Told) -> Told:
        """Join the names of two tellings."""
        return Told(self.order_ids | other.order_ids, self.practice_ids | other.practice_ids)


def named(metadata: Mapping[str, str], reference: str | None = None) -> Told:
    """Read the names in metadata, and in a page's client_reference_id."""
    refs = {metadata.get(METADATA_ORDER_ID, ""), reference or ""}
    orders = {ref for ref in refs if ref.startswith(ORDER_PREFIX)}
    practices = {metadata.get("practice_id", ""), *(refs - orders)} - {""}
    return Told(frozenset(orders), frozenset(practices))


def owner_of(space: Workspace, facts: SubscriptionFacts, told: Told) -> tuple[str, str]:
    """Say whose a subscription is that we never heard of, or why that is in doubt."""
    customer_id = facts.customer_id
    customers = rows.owners_of_customer(space.cursor, customer_id) if customer_id else set()
    if made_elsewhere(facts.metadata) and not _is_ours_all_the_same(space, facts, told, customers):
        return "", ""  # another installation's: its plans and practices may be called like ours
    if told.order_ids:
        return _ordered(space, facts, told)
    plan_is_ours = plans_of(space).knows(items_of(facts))
    if not (plan_is_ours or _says_ours(facts)):
        return "", ""  # another product on the same account, whomever it names
    if len(told.practice_ids) > 1:
        return "", "practice_mismatch"
    if told.practice_ids:
        (owner,) = told.practice_ids
        if customers and owner not in customers:
            return "", "customer_mismatch"
        if not plan_is_ours and not space.practice(owner).practice_no:
            return "", "unknown_practice"
        return owner, ""
    if len(customers) == 1:
        return customers.pop(), ""
    return "", "no_practice"


def _is_ours_all_the_same(
    space: Workspace, facts: SubscriptionFacts, told: Told, customers: set[str]
) -> bool:
    """Tell whether we have a record of it, or whoever sold it without a mark sold to our customer.

    A purchase that was begun before this installation had a name bears no mark.
    """
    if any(plan_rows.load_order(space.cursor, order_id) for order_id in told.order_ids):
        return True
    return not facts.metadata.get(METADATA_INSTALLATION) and bool(customers)


def _says_ours(facts: SubscriptionFacts) -> bool:
    """Tell whether it was bought by a page of ours or of the four modules, by its metadata."""
    return facts.metadata.get("aza_purpose") == PURPOSE_LICENSE or "lookup_key" in facts.metadata


def _ordered(space: Workspace, facts: SubscriptionFacts, told: Told) -> tuple[str, str]:
    """Compare a subscription with our own record of its purchase."""
    found = [plan_rows.load_order(space.cursor, order_id) for order_id in told.order_ids]
    order = found[0]
    if order is None or len(found) > 1:
        return "", "unknown_order"
    owner = practice_id_of(space.cursor, order.practice_no)
    if told.practice_ids - {owner}:
        return "", "practice_mismatch"
    if order.livemode is not None and order.livemode != facts.livemode:
        return "", "livemode_mismatch"
    if order.customer_id and order.customer_id != facts.customer_id:
        return "", "customer_mismatch"
    if order.subscription_id not in ("", facts.subscription_id):
        return "", "second_subscription_for_order"
    return owner, ""


def hold(space: Workspace, facts: SubscriptionFacts, told: Told, why: str) -> Verdict:
    """Grant nothing, keep it, raise an alarm; told again it changes nothing."""
    named_by = ", ".join(sorted(told.practice_ids | told.order_ids))[:500]
    held = rows.hold(
        space.cursor, facts.subscription_id, facts.livemode, why, named_by, space.now_s
    )
    settings.raise_alarm(space.cursor, HELD, _held_subject(held), space.now_s)
    facts_told: dict[str, Fact] = {"reason": why, "event_no": 0}
    tell(space, OPERATOR, Notice.QUARANTINED, f"licence:{held.held_no}", facts_told)
    return "quarantined", held.reason


def _held_subject(held: rows.HeldRow) -> str:
    return f"{held.reason}:{held.held_no}"


def release_held(space: Workspace, subscription_id: str) -> None:
    """Close a held subscription whose practice an operator has named."""
    held = rows.find_held(space.cursor, subscription_id)
    if held is not None:
        rows.resolve_held(space.cursor, subscription_id, space.now_s)
        rows.clear_alarm(space.cursor, HELD, _held_subject(held), space.now_s)


def items_of(facts: SubscriptionFacts) -> tuple[Item, ...]:
    """Give a subscription's items as the domain speaks of them."""
    return tuple(Item(*item) for item in facts.items)


def plans_of(space: Workspace) -> Plans:
    """Read the plans as they are set now."""
    return Plans(plan_rows.plan_versions(space.cursor))
