"""What Stripe says about subscriptions, and which one an invoice belongs to, as typed facts.

Law: a period lives on the items (since API 2025-03-31; an older webhook endpoint still sends it on
the subscription). A fact that is missing is None or an error, never a guess. Nothing here decides
what a subscription entitles to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from guthaben.errors import InvalidInput
from guthaben.payments.discreet import Discreet
from guthaben.payments.reading import flag, items, read, reference, text, texts, whole

__all__ = ["PricedItem", "SubscriptionFacts", "invoice_subscription", "subscription_facts"]

_LARGEST_QUANTITY = 1_000_000


class PricedItem(NamedTuple):
    """One item; `lookup_key` is empty where the price has none."""

    lookup_key: str
    quantity: int
    period_start_s: int
    period_end_s: int


@dataclass(frozen=True, slots=True, repr=False)
class SubscriptionFacts(Discreet):
    """A subscription; `ends_at_s` is when it ended or is to end, None if nobody has ended it."""

    subscription_id: str
    status: str
    customer_id: str | None
    livemode: bool
    created_at_s: int
    ends_at_s: int | None
    items: tuple[PricedItem, ...]
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)


def subscription_facts(source: object) -> SubscriptionFacts:
    """Read a subscription; raises InvalidInput for one without id, status, mode or period."""
    subscription_id = reference(source, "id", "sub_")
    status, livemode = text(source, "status"), flag(source, "livemode")
    created_at_s = whole(source, "created")
    if subscription_id is None or status is None or livemode is None or created_at_s is None:
        raise InvalidInput("Expected a subscription with id, status, livemode and created.")
    priced = _items(source)
    return SubscriptionFacts(
        subscription_id=subscription_id,
        status=status,
        customer_id=reference(source, "customer", "cus_"),
        livemode=livemode,
        created_at_s=created_at_s,
        ends_at_s=_end(source, priced),
        items=priced,
        metadata=texts(source, "metadata"),
    )


def _items(source: object) -> tuple[PricedItem, ...]:
    listed = read(source, "items")
    found = tuple(_item(source, item) for item in items(listed, "data"))
    if not found or flag(listed, "has_more"):
        raise InvalidInput("Expected a subscription with all of its items.", field="items")
    return found


def _item(source: object, item: object) -> PricedItem:
    start_s = _either(item, source, "current_period_start")
    end_s = _either(item, source, "current_period_end")
    quantity = whole(item, "quantity")
    quantity = 1 if quantity is None else quantity  # metered prices have none
    if start_s is None or end_s is None or not 0 <= start_s < end_s < 1 << 40:
        raise InvalidInput("Expected items whose period ends after it starts.", field="items")
    if not 0 <= quantity <= _LARGEST_QUANTITY:
        raise InvalidInput("Expected items with a quantity.", field="quantity")
    return PricedItem(text(read(item, "price"), "lookup_key") or "", quantity, start_s, end_s)


def _either(item: object, source: object, name: str) -> int | None:
    found = whole(item, name)
    return whole(source, name) if found is None else found


def _end(source: object, priced: tuple[PricedItem, ...]) -> int | None:
    ended_at_s, cancel_at_s = whole(source, "ended_at"), whole(source, "cancel_at")
    if ended_at_s is not None:
        return ended_at_s
    if cancel_at_s is not None:
        return cancel_at_s
    if flag(source, "cancel_at_period_end"):
        return max(item.period_end_s for item in priced)
    return None


def invoice_subscription(source: object) -> str | None:
    """Tell which subscription an invoice belongs to; None for a purchase of another kind."""
    details = read(read(source, "parent"), "subscription_details")
    found = reference(details, "subscription", "sub_")
    # Before API 2025-03-31 it stood on the invoice itself.
    return found or reference(source, "subscription", "sub_")
