"""Owns the table of API endpoints: method and path to handler."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guthaben.sandbox import (
    api_checkout,
    api_customers,
    api_money_back,
    api_payments,
    api_subscriptions,
)
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.form import Params
from guthaben.sandbox.param_check import check

Handler = Callable[..., JsonObject]


@dataclass(frozen=True, slots=True)
class Match:
    """The endpoint that a call has found, with the ids in its path."""

    method: str
    pattern: str
    handler: Handler
    ids: tuple[str, ...]

    def handle(self, context: Context, params: Params) -> JsonObject:
        """Execute the call, if its parameters are those that the SDK's types know."""
        check(self.method, self.pattern, params)
        return self.handler(context, params, *self.ids)

    def is_slow(self, context: Context, params: Params) -> bool:
        """Tell whether the answer comes late because of the card. Writes nothing."""
        if self.handler not in (api_payments.create_intent, api_payments.confirm_intent):
            return False
        return api_payments.is_slow(context, params, *self.ids)


_ENDPOINTS: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("POST", "/v1/customers", api_customers.create_customer),
    ("GET", "/v1/customers", api_customers.list_customers),
    ("POST", "/v1/customers/{}", api_customers.update_customer),
    ("GET", "/v1/customers/{}", api_customers.get_customer),
    ("DELETE", "/v1/customers/{}", api_customers.delete_customer),
    ("GET", "/v1/customers/{}/payment_methods", api_customers.list_customer_methods),
    ("POST", "/v1/payment_methods", api_customers.create_method),
    ("GET", "/v1/payment_methods", api_customers.list_methods),
    ("GET", "/v1/payment_methods/{}", api_customers.get_method),
    ("POST", "/v1/payment_methods/{}/attach", api_customers.attach_method),
    ("POST", "/v1/payment_methods/{}/detach", api_customers.detach_method),
    ("GET", "/v1/setup_intents", api_customers.list_setup_intents),
    ("GET", "/v1/setup_intents/{}", api_customers.get_setup_intent),
    ("GET", "/v1/mandates/{}", api_customers.get_mandate),
    ("GET", "/v1/events", api_customers.list_events),
    ("GET", "/v1/events/{}", api_customers.get_event),
    ("POST", "/v1/checkout/sessions", api_checkout.create_session),
    ("GET", "/v1/checkout/sessions", api_checkout.list_sessions),
    ("GET", "/v1/checkout/sessions/{}", api_checkout.get_session),
    ("GET", "/v1/checkout/sessions/{}/line_items", api_checkout.list_line_items),
    ("POST", "/v1/checkout/sessions/{}/expire", api_checkout.expire_session),
    ("POST", "/v1/payment_intents", api_payments.create_intent),
    ("GET", "/v1/payment_intents", api_payments.list_intents),
    ("POST", "/v1/payment_intents/{}", api_payments.update_intent),
    ("GET", "/v1/payment_intents/{}", api_payments.get_intent),
    ("POST", "/v1/payment_intents/{}/confirm", api_payments.confirm_intent),
    ("POST", "/v1/payment_intents/{}/cancel", api_payments.cancel_intent),
    ("GET", "/v1/charges", api_money_back.list_charges),
    ("GET", "/v1/charges/{}", api_money_back.get_charge),
    ("POST", "/v1/refunds", api_money_back.create_refund),
    ("GET", "/v1/refunds", api_money_back.list_refunds),
    ("POST", "/v1/refunds/{}", api_money_back.update_refund),
    ("GET", "/v1/refunds/{}", api_money_back.get_refund),
    ("POST", "/v1/refunds/{}/cancel", api_money_back.cancel_refund),
    ("GET", "/v1/disputes", api_money_back.list_disputes),
    ("GET", "/v1/disputes/{}", api_money_back.get_dispute),
    ("POST", "/v1/disputes/{}", api_money_back.update_dispute),
    ("POST", "/v1/disputes/{}/close", api_money_back.close_dispute),
    ("GET", "/v1/radar/early_fraud_warnings", api_money_back.list_fraud_warnings),
    ("GET", "/v1/radar/early_fraud_warnings/{}", api_money_back.get_fraud_warning),
    ("GET", "/v1/balance_transactions", api_money_back.list_balance_transactions),
    ("GET", "/v1/balance_transactions/{}", api_money_back.get_balance_transaction),
    ("POST", "/v1/products", api_subscriptions.create_product),
    ("GET", "/v1/products/{}", api_subscriptions.get_product),
    ("POST", "/v1/prices", api_subscriptions.create_price),
    ("GET", "/v1/prices", api_subscriptions.list_prices),
    ("GET", "/v1/prices/{}", api_subscriptions.get_price),
    ("POST", "/v1/subscriptions", api_subscriptions.create_subscription),
    ("GET", "/v1/subscriptions", api_subscriptions.list_subscriptions),
    ("POST", "/v1/subscriptions/{}", api_subscriptions.update_subscription),
    ("GET", "/v1/subscriptions/{}", api_subscriptions.get_subscription),
    ("DELETE", "/v1/subscriptions/{}", api_subscriptions.cancel_subscription),
    ("POST", "/v1/subscriptions/{}/resume", api_subscriptions.resume_subscription),
    ("GET", "/v1/invoices", api_subscriptions.list_invoices),
    ("GET", "/v1/invoices/{}", api_subscriptions.get_invoice),
    ("POST", "/v1/invoices/{}/pay", api_subscriptions.pay_invoice),
)
_PATTERNS: Final = tuple(
    (method, path, re.compile(path.replace("{}", r"([A-Za-z0-9_]{1,100})")), handler)
    for method, path, handler in _ENDPOINTS
)


def endpoints() -> list[tuple[str, str]]:
    """Return method and path of every endpoint."""
    return [(method, path) for method, path, _ in _ENDPOINTS]


def match(method: str, path: str) -> Match:
    """Return the endpoint, or answer 404 like any unknown address."""
    for known, written, pattern, handler in _PATTERNS:
        found = pattern.fullmatch(path)
        if found and known == method:
            return Match(method, written, handler, found.groups())
    raise ApiError(404, f"Unrecognized request URL ({method}: {path[:200]}).")
