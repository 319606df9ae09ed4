"""Stripe, behind the PaymentGateway protocol: the only caller of the SDK.

Law: every request carries its own key, API version and `max_network_retries=0`, so that nothing
of a host application's global settings decides about our money, and ours disturb nothing of
theirs. The SDK's functions are looked up at call time, by the paths that callers patch. Each
request ends after a total deadline. No text of Stripe's, no id in full and no key leaves here in
an exception or a repr. What may be charged, and when, is decided in the services.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import stripe

from guthaben.errors import (
    ConfigError,
    InvalidAmount,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
)
from guthaben.payments.deadline import Deadline
from guthaben.payments.facts import (
    CheckoutFacts,
    PaymentFacts,
    RefundReceipt,
    SetupFacts,
    checkout_facts,
    payment_facts,
    refund_receipt,
    setup_facts,
)
from guthaben.payments.gateway import (
    ChargeOrder,
    ChargeResult,
    CheckoutOrder,
    HostedPage,
    NotSent,
    SetupOrder,
    SubscriptionOrder,
    Unknown,
    check_idempotency_key,
)
from guthaben.payments.ids import normalize_stripe_id
from guthaben.payments.reading import items, text
from guthaben.payments.stripe_lists import EXPANDED, StripeLists, stripe_id, understood
from guthaben.payments.stripe_outcomes import as_payment_error, charge_answer, charge_failure
from guthaben.payments.stripe_params import charge_params, checkout_params, page_params
from guthaben.payments.subscriptions import SubscriptionFacts, subscription_facts

T = TypeVar("T")

__all__ = ["API_VERSION", "StripeGateway", "limit_sdk_timeout", "point_sdk_at"]

API_VERSION: Final = "2026-10-28.endive"
"""The version whose answers this package reads; a newer SDK must not change them unseen."""


def point_sdk_at(url: str | None) -> None:
    """Make the SDK talk to `url`, for the whole process; None means Stripe itself.

    Only the composition root of a process of its own may call it, never a host application's
    modules: the module-level functions of the SDK know no other way to another address.
    """
    stripe.api_base = stripe.DEFAULT_API_BASE if url is None else url.rstrip("/")


def limit_sdk_timeout(timeout_s: int) -> None:
    """Make abandoned requests end after `timeout_s` without a byte, for the whole process.

    For the composition root only, like `point_sdk_at`; without it they end after 80 s.
    """
    stripe.default_http_client = stripe.RequestsClient(timeout=timeout_s)


class StripeGateway(StripeLists):
    """One Stripe account and mode, given by its secret key. Threads may share it.

    `api_base` only guards: if given, the SDK must point there, or nothing is sent. So a demo
    that believes to be in the sandbox can't reach Stripe.
    """

    __slots__ = ("_api_base", "_api_key", "_api_version", "_deadline")

    def __init__(
        self,
        api_key: str | None,
        *,
        api_base: str | None = None,
        timeout_s: float = 10,
        api_version: str = API_VERSION,
        most_in_flight: int = 32,
    ) -> None:
        if api_key is None or not api_key.strip():
            raise ConfigError("There is no Stripe key. Set STRIPE_SECRET_KEY.")
        self._api_key = api_key.strip()
        self._api_base = api_base and api_base.rstrip("/")
        self._api_version = api_version
        self._deadline = Deadline(timeout_s, most_in_flight)

    def __repr__(self) -> str:
        return f"StripeGateway({'live' if self._is_live else 'test'})"

    # ------------------------------------------------------------ hosted pages

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        """Make a page where the customer pays once."""
        return self._create_page(checkout_params(order))

    def create_setup(self, order: SetupOrder) -> HostedPage:
        """Make a page where the customer saves a payment method."""
        params = page_params(order, new_customer=True)
        params |= {
            "mode": "setup",
            "currency": order.currency,
            "setup_intent_data": {"metadata": dict(order.metadata)},
        }
        return self._create_page(params)

    def create_subscription_checkout(self, order: SubscriptionOrder) -> HostedPage:
        """Make a page where the customer begins a subscription."""
        price_id = order.price_id or self._pricestripe_id(order.price)
        params = page_params(order, new_customer=False)
        params |= {
            "mode": "subscription",
            "line_items": [{"price": price_id, "quantity": order.quantity}],
            "subscription_data": {"metadata": dict(order.metadata)},
        }
        return self._create_page(params)

    def _create_page(self, params: dict[str, Any]) -> HostedPage:
        session = self._change(stripe.checkout.Session.create, **params)
        session_id, url = text(session, "id"), text(session, "url")
        if session_id is None or url is None:
            raise PaymentOutcomeUnknown("Stripe made a page but didn't say where; make another.")
        return HostedPage(session_id, url)

    def _pricestripe_id(self, lookup_key: str) -> str:
        found = self._read(stripe.Price.list, lookup_keys=[lookup_key], active=True, limit=1)
        for price in items(found, "data"):
            price_id = normalize_stripe_id(price, "price_")
            if price_id is not None:
                return price_id
        raise PaymentRejected(
            f"Stripe has no active price with the lookup key {lookup_key!r}. Create it there.",
            provider_code="price_not_found",
        )

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        """Read a hosted page's state."""
        return checkout_facts(
            self._read_one(stripe.checkout.Session.retrieve, stripe_id(session_id, "cs_"))
        )

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        """Close a hosted page; raises PaymentRejected if it isn't open."""
        wanted = stripe_id(session_id, "cs_")
        return understood(
            checkout_facts, self._change(stripe.checkout.Session.expire, wanted), changed=True
        )

    def retrieve_setup(self, setup_id: str) -> SetupFacts:
        """Read a set-up and the method it saved."""
        return setup_facts(
            self._read_one(stripe.SetupIntent.retrieve, stripe_id(setup_id, "seti_"))
        )

    def retrieve_subscription(self, subscription_id: str) -> SubscriptionFacts:
        """Read a subscription with its items and their periods."""
        return understood(
            subscription_facts,
            self._read_one(stripe.Subscription.retrieve, stripe_id(subscription_id, "sub_")),
        )

    # ------------------------------------------------------------ payments

    def charge_saved_card(self, order: ChargeOrder) -> ChargeResult:
        """Charge a saved method once per idempotency key; raises nothing."""
        # Checked again because a frozen value can be forged, and an empty key charges twice.
        check_idempotency_key(order.idempotency_key)
        try:
            self._check_address()
        except ConfigError:
            return Unknown("retry_misconfigured") if order.is_retry else NotSent("misconfigured")
        try:
            answer = self._send(stripe.PaymentIntent.create, **charge_params(order))
            return charge_answer(answer, order)
        except Exception as error:  # noqa: BLE001 after sending, no exception may pass for a no
            return charge_failure(error, order)

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        """Read a payment with its refunds and disputes."""
        return payment_facts(
            self._read_one(
                stripe.PaymentIntent.retrieve, stripe_id(payment_id, "pi_"), expand=[EXPANDED]
            )
        )

    def cancel_payment(self, payment_id: str) -> PaymentFacts:
        """Cancel a payment that hasn't been made; raises PaymentRejected if it has."""
        wanted = stripe_id(payment_id, "pi_")
        return understood(
            payment_facts, self._change(stripe.PaymentIntent.cancel, wanted), changed=True
        )

    def refund(
        self,
        payment_id: str,
        amount_rappen: int | None,
        idempotency_key: str,
        metadata: Mapping[str, str] | None = None,
    ) -> RefundReceipt:
        """Give back `amount_rappen`, or all that is left with None, once per idempotency key."""
        check_idempotency_key(idempotency_key)
        params: dict[str, Any] = {"payment_intent": stripe_id(payment_id, "pi_")}
        if amount_rappen is not None:
            if type(amount_rappen) is not int or amount_rappen < 1:
                raise InvalidAmount(f"A refund of {amount_rappen!r} Rappen can't be made.")
            params["amount"] = amount_rappen
        if metadata:
            params["metadata"] = dict(metadata)
        refund = self._change(stripe.Refund.create, idempotency_key=idempotency_key, **params)
        return understood(refund_receipt, refund, changed=True)

    # ------------------------------------------------------------ the wire

    def _read(self, call: Callable[..., object], *args: str, **params: Any) -> object:
        return self._ask(False, call, *args, **params)

    def _read_one(self, call: Callable[..., object], object_id: str, **params: Any) -> object:
        found = self._read(call, object_id, **params)
        if text(found, "id") != object_id or text(found, "status") is None:
            raise PaymentUnavailable("Stripe's answer can't be understood; try later.")
        return found

    def _change(self, call: Callable[..., object], *args: str, **params: Any) -> object:
        return self._ask(True, call, *args, **params)

    def _ask(self, changes: bool, call: Callable[..., object], *args: str, **params: Any) -> object:
        self._check_address()
        try:
            return self._send(call, *args, **params)
        except Exception as error:  # noqa: BLE001 the SDK raises more than its own errors
            failure = as_payment_error(error, changes=changes)
        # Raised out here so that the SDK's error, whose body quotes e-mail addresses and client
        # secrets, doesn't hang on ours as __context__ for an error tracker to send away.
        raise failure

    def _send(self, call: Callable[..., object], *args: str, **params: Any) -> object:
        return self._deadline.run(
            partial(
                call,
                *args,
                **params,
                api_key=self._api_key,
                stripe_version=self._api_version,
                max_network_retries=0,
            )
        )

    def _check_address(self) -> None:
        if self._api_base is not None and stripe.api_base != self._api_base:
            raise ConfigError(
                f"The Stripe SDK points at {stripe.api_base}, not at {self._api_base}. "
                "Call point_sdk_at when the process starts."
            )
        if self._is_live and not stripe.api_base.startswith("https://"):
            raise ConfigError("A live Stripe key is only sent over https.")

    @property
    def livemode(self) -> bool:
        """Whether the key moves real money."""
        return self._is_live

    @property
    def _is_live(self) -> bool:
        # A key of unknown kind counts as live, the case that needs more care.
        return not self._api_key.startswith(("sk_test_", "rk_test_"))
