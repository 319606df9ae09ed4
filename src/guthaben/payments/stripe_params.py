"""Orders as the parameters that Stripe's API takes; pure.

Law: the same order gives the same parameters, for Stripe compares them when a key is repeated.
"""

from __future__ import annotations

from typing import Any

from guthaben.payments.gateway import ChargeOrder, CheckoutOrder, SetupOrder, SubscriptionOrder


def page_params(
    order: CheckoutOrder | SetupOrder | SubscriptionOrder, *, new_customer: bool
) -> dict[str, Any]:
    """What all hosted pages have in common."""
    params: dict[str, Any] = {
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "client_reference_id": order.client_reference_id,
        "metadata": dict(order.metadata),
        "locale": order.locale,
        "idempotency_key": order.idempotency_key,
    }
    # A customer excludes both an e-mail address and the making of a new customer.
    if order.customer_id is not None:
        params["customer"] = order.customer_id
    else:
        params["customer_email"] = order.customer_email
        params["customer_creation"] = "always" if new_customer else None
    return {name: value for name, value in params.items() if value is not None}


def checkout_params(order: CheckoutOrder) -> dict[str, Any]:
    """A page where the customer pays once.

    Metadata goes on the session and on the payment, because Stripe copies it nowhere.
    """
    payment: dict[str, Any] = {"metadata": dict(order.metadata)}
    params = page_params(order, new_customer=order.save_payment_method) | {
        "mode": "payment",
        "line_items": [line_item(order)],
        "payment_intent_data": payment,
        # Off, or Stripe may bill in the customer's currency instead of the order's.
        "adaptive_pricing": {"enabled": False},
    }
    if order.payment_method_types:
        # A filter on what the account has (API 2026-09-30), so a method it lacks is left out.
        params["allowed_payment_method_types"] = list(order.payment_method_types)
    if order.save_payment_method and order.payment_method_types:
        # Said of the card alone: said of the payment, it would keep a TWINT too.
        params["payment_method_options"] = {"card": {"setup_future_usage": "off_session"}}
    elif order.save_payment_method:
        payment["setup_future_usage"] = "off_session"
    if order.note:
        params["custom_text"] = {"submit": {"message": order.note}}
    return params


def line_item(order: CheckoutOrder) -> dict[str, Any]:
    """The purchase as its page shows it."""
    product = {"name": order.description}
    if order.details:
        product["description"] = order.details
    return {
        "quantity": 1,
        "price_data": {
            "currency": order.currency,
            "unit_amount": order.amount_rappen,
            "product_data": product,
        },
    }


def charge_params(order: ChargeOrder) -> dict[str, Any]:
    """A charge, complete but for the credentials."""
    # Everything follows from the order alone: a retry must send the very same parameters.
    methods: dict[str, Any] = {"enabled": True}
    params: dict[str, Any] = {
        "amount": order.amount_rappen,
        "currency": order.currency,
        "customer": order.customer_id,
        "payment_method": order.payment_method_id,
        "off_session": True,
        "confirm": True,
        "metadata": dict(order.metadata),
        "idempotency_key": order.idempotency_key,
        "automatic_payment_methods": methods,
    }
    if order.description is not None:
        params["description"] = order.description
    if order.return_url is not None:
        params["return_url"] = order.return_url
    else:
        # Stripe answers 400 to a confirmation that might redirect and has nowhere to return to.
        methods["allow_redirects"] = "never"
    return params
