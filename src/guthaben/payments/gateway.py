"""What the services need from a payment provider, in the provider's absence.

Law: amounts are integer Rappen (the smallest unit of `currency`). An order is checked when it
is made, so a bad one never reaches the provider. `charge_saved_card` answers with a value for
everything that can happen; the other methods raise the `PaymentError` tree: after
`PaymentOutcomeUnknown` the request may have been carried out, after the others it was not.
No method repeats a request by itself, opens a transaction, or decides about credit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from guthaben.errors import InvalidAmount, InvalidInput
from guthaben.payments.discreet import Discreet
from guthaben.payments.facts import (
    CheckoutFacts,
    PaymentFacts,
    RefundReceipt,
    SetupFacts,
)
from guthaben.payments.lists import PaymentLists
from guthaben.payments.subscriptions import SubscriptionFacts

__all__ = [
    "METADATA_INSTALLATION",
    "METADATA_REFUND_ID",
    "METADATA_TOPUP_ID",
    "PaymentGateway",
    "CheckoutOrder",
    "SetupOrder",
    "SubscriptionOrder",
    "ChargeOrder",
    "HostedPage",
    "ChargeResult",
    "Charged",
    "Processing",
    "NeedsCustomer",
    "Declined",
    "Unknown",
    "NotSent",
    "NotSentWhy",
    "CheckoutFacts",
    "PaymentFacts",
    "RefundReceipt",
    "SetupFacts",
    "SubscriptionFacts",
    "check_idempotency_key",
]

METADATA_TOPUP_ID: Final = "topup_id"
"""The metadata key under which our own top-up id travels, and by which a payment is found."""

METADATA_INSTALLATION: Final = "installation"
"""The metadata key that tells installations apart which share one account."""

METADATA_REFUND_ID: Final = "guthaben_refund"
"""The metadata key under which our own refund id travels, and by which a lost answer is found."""

_CURRENCY: Final = re.compile(r"[a-z]{3}")
_LARGEST_AMOUNT: Final = 99_999_999  # what Stripe takes at most
_MOST_METADATA: Final = 50


# ---------------------------------------------------------------- orders


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class CheckoutOrder(Discreet):
    """A hosted page where the customer pays once. The URLs are used exactly as given."""

    amount_rappen: int
    description: str
    success_url: str = field(repr=False)
    cancel_url: str = field(repr=False)
    currency: str = "chf"
    customer_id: str | None = None
    customer_email: str | None = field(repr=False, default=None)
    client_reference_id: str | None = None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    save_payment_method: bool = False
    """Keep a card that pays for later; no other method is ever kept where methods are named."""
    locale: str | None = None
    idempotency_key: str | None = None
    payment_method_types: tuple[str, ...] | None = None
    details: str | None = None
    """A second line under the description, where the page shows one."""
    note: str | None = None
    """A sentence beside the button that pays."""

    def __post_init__(self) -> None:
        _check_money(self.amount_rappen, self.currency)
        _check_text("description", self.description)
        _check_page(self)


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class SetupOrder(Discreet):
    """A hosted page where the customer saves a payment method and pays nothing."""

    success_url: str = field(repr=False)
    cancel_url: str = field(repr=False)
    currency: str = "chf"
    customer_id: str | None = None
    customer_email: str | None = field(repr=False, default=None)
    client_reference_id: str | None = None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    locale: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        _check_currency(self.currency)
        _check_page(self)


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class SubscriptionOrder(Discreet):
    """A hosted page that begins a subscription to one price, by its id or its lookup key."""

    success_url: str = field(repr=False)
    cancel_url: str = field(repr=False)
    price_id: str | None = None
    lookup_key: str | None = None
    quantity: int = 1
    customer_id: str | None = None
    customer_email: str | None = field(repr=False, default=None)
    client_reference_id: str | None = None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    locale: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        if (self.price_id is None) == (self.lookup_key is None):
            raise InvalidInput("Give either price_id or lookup_key.", field="price_id")
        _check_text("price_id" if self.price_id is not None else "lookup_key", self.price)
        if type(self.quantity) is not int or self.quantity < 1:
            raise InvalidAmount(f"quantity must be a whole number from 1, not {self.quantity!r}.")
        _check_page(self)

    @property
    def price(self) -> str:
        """Whichever of price id and lookup key was given."""
        return self.price_id or self.lookup_key or ""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class ChargeOrder(Discreet):
    """A charge of a saved payment method, without the customer being there.

    `is_retry` says whether a request with this key may have been sent before: then even a
    refused request leaves open what the earlier one did, and `NotSent` becomes `Unknown`.
    Without `return_url` methods that send the customer to another page (TWINT) are excluded.
    """

    amount_rappen: int
    customer_id: str
    payment_method_id: str
    idempotency_key: str
    is_retry: bool
    currency: str = "chf"
    description: str | None = None
    return_url: str | None = field(repr=False, default=None)
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        _check_money(self.amount_rappen, self.currency)
        _check_text("customer_id", self.customer_id)
        _check_text("payment_method_id", self.payment_method_id)
        check_idempotency_key(self.idempotency_key)
        if self.return_url is not None:
            _check_text("return_url", self.return_url)
        _check_metadata(self.metadata)


# ---------------------------------------------------------------- results


@dataclass(frozen=True, slots=True, repr=False)
class HostedPage(Discreet):
    """Where to send the customer; whoever has the URL can act on the page."""

    session_id: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Charged(Discreet):
    """The money is ours."""

    payment_id: str


@dataclass(frozen=True, slots=True, repr=False)
class Processing(Discreet):
    """The provider will say later; nothing may be charged meanwhile."""

    payment_id: str


@dataclass(frozen=True, slots=True, repr=False)
class NeedsCustomer(Discreet):
    """No money moved; the customer has to come back and authenticate or pay by hand."""

    payment_id: str | None
    status: str


@dataclass(frozen=True, slots=True, repr=False)
class Declined(Discreet):
    """The bank or network said no. `never_retry`: this method won't ever work as it is."""

    payment_id: str | None
    code: str
    decline_code: str | None
    advice_code: str | None
    never_retry: bool


@dataclass(frozen=True, slots=True, repr=False)
class Unknown(Discreet):
    """The charge may have been made. Repeat the same key, or look it up; never a new attempt."""

    why: str
    payment_id: str | None = None


NotSentWhy: TypeAlias = Literal[
    "auth", "rate_limit", "invalid_request", "method_unusable", "busy", "misconfigured"
]


@dataclass(frozen=True, slots=True, repr=False)
class NotSent(Discreet):
    """Certainly no charge was made, and it is no decline.

    `method_unusable` (deleted, detached, mandate revoked) needs another method from the
    customer; `rate_limit` and `busy` pass by themselves; the rest needs an operator and would
    hit every practice alike, so a batch should stop.
    """

    why: NotSentWhy
    code: str | None = None


ChargeResult: TypeAlias = Charged | Processing | NeedsCustomer | Declined | Unknown | NotSent


# ---------------------------------------------------------------- the protocol


class PaymentGateway(PaymentLists, Protocol):
    """A payment provider, as the services see it. Every method blocks for some seconds."""

    @property
    def livemode(self) -> bool:
        """Whether it moves real money."""
        ...

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        """Make a page where the customer pays once."""
        ...

    def create_setup(self, order: SetupOrder) -> HostedPage:
        """Make a page where the customer saves a payment method."""
        ...

    def create_subscription_checkout(self, order: SubscriptionOrder) -> HostedPage:
        """Make a page where the customer begins a subscription."""
        ...

    def charge_saved_card(self, order: ChargeOrder) -> ChargeResult:
        """Charge a saved method once per idempotency key; raises nothing."""
        ...

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        """Read a payment with its refunds and disputes."""
        ...

    def find_payment(
        self, topup_id: str, customer_id: str, created_after_s: int
    ) -> PaymentFacts | None:
        """Find the payment of a top-up; None is certain: there is none."""
        ...

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        """Read a hosted page's state."""
        ...

    def retrieve_setup(self, setup_id: str) -> SetupFacts:
        """Read a set-up and the method it saved."""
        ...

    def retrieve_subscription(self, subscription_id: str) -> SubscriptionFacts:
        """Read a subscription with its items and their periods."""
        ...

    def cancel_payment(self, payment_id: str) -> PaymentFacts:
        """Cancel a payment that hasn't been made; raises PaymentRejected if it has."""
        ...

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        """Close a hosted page; raises PaymentRejected if it isn't open."""
        ...

    def refund(
        self,
        payment_id: str,
        amount_rappen: int | None,
        idempotency_key: str,
        metadata: Mapping[str, str] | None = None,
    ) -> RefundReceipt:
        """Give back `amount_rappen`, or all that is left with None, once per idempotency key."""
        ...


# ---------------------------------------------------------------- checks


def check_idempotency_key(key: object) -> None:
    """Raise InvalidInput unless the key has 1 to 255 visible ASCII characters.

    The SDK silently replaces an empty key by a random one: the next try would charge again.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= 255 or not re.fullmatch(r"[!-~]+", key):
        raise InvalidInput(
            "The idempotency key must have 1 to 255 visible ASCII characters.",
            field="idempotency_key",
        )


def _check_page(order: CheckoutOrder | SetupOrder | SubscriptionOrder) -> None:
    _check_text("success_url", order.success_url)
    _check_text("cancel_url", order.cancel_url)
    _check_metadata(order.metadata)
    if order.customer_id is not None:
        _check_text("customer_id", order.customer_id)
    if order.idempotency_key is not None:
        check_idempotency_key(order.idempotency_key)


def _check_money(amount_rappen: object, currency: object) -> None:
    # The SDK sends whatever it is given, 20.5 and True included.
    whole = amount_rappen if type(amount_rappen) is int else 0
    if not 1 <= whole <= _LARGEST_AMOUNT:
        raise InvalidAmount(
            f"amount_rappen must be a whole number from 1 to {_LARGEST_AMOUNT}, "
            f"not {amount_rappen!r}."
        )
    _check_currency(currency)


def _check_currency(currency: object) -> None:
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidInput("The currency must be three lower-case letters.", field="currency")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{name} must not be empty.", field=name)


def _check_metadata(metadata: Mapping[Any, Any]) -> None:
    # Stripe drops a None and refuses what is too long, both without naming our mistake.
    good = len(metadata) <= _MOST_METADATA and all(
        isinstance(key, str)
        and isinstance(value, str)
        and 1 <= len(key) <= 40
        and not set(key) & {"[", "]"}
        and len(value) <= 500
        for key, value in metadata.items()
    )
    if not good:
        raise InvalidInput(
            "Metadata takes 50 pairs of strings, keys up to 40 and values up to 500 characters.",
            field="metadata",
        )
