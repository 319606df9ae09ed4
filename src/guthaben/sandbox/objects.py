"""Owns the shape of customers, payment methods and intents: complete objects, as Stripe sends them.

Pure builders: no state, no event, no decision. Charges and what follows them are in
`money_objects`, Checkout Sessions in `session_objects`.
"""

from hashlib import sha256

from guthaben.sandbox.cards import Card
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import client_secret, new_id, random_text

NO_ADDRESS: JsonObject = {
    "city": None,
    "country": None,
    "line1": None,
    "line2": None,
    "postal_code": None,
    "state": None,
}


def customer(now_s: int, **given: object) -> JsonObject:
    """Build a customer."""
    return {
        "id": new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now_s,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": random_text(8).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    } | given


def billing_details(email: str | None = None, name: str | None = None) -> JsonObject:
    """Build billing details."""
    return {
        "address": dict(NO_ADDRESS),
        "email": email,
        "name": name,
        "phone": None,
        "tax_id": None,
    }


def fingerprint(card: Card) -> str:
    """Return what tells that two payment methods are the same card."""
    return sha256(card.number.encode()).hexdigest()[:16]


def payment_method(now_s: int, card: Card, **given: object) -> JsonObject:
    """Build a payment method."""
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(),
        card.type: _card(card) if card.type == "card" else {},
        "created": now_s,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": card.type,
    } | given


def _card(card: Card) -> JsonObject:
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "CH",
        "display_brand": card.brand,
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": fingerprint(card),
        "funding": "credit",
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def mandate(now_s: int, method: JsonObject) -> JsonObject:
    """Build the mandate that comes with a saved TWINT account."""
    return {
        "id": new_id("mandate"),
        "object": "mandate",
        "customer_acceptance": {
            "accepted_at": now_s,
            "online": {"ip_address": "127.0.0.1", "user_agent": "sandbox"},
            "type": "online",
        },
        "livemode": False,
        "multi_use": {},
        "payment_method": method["id"],
        "payment_method_details": {method["type"]: {}, "type": method["type"]},
        "status": "active",
        "type": "multi_use",
    }


_CARD_OPTIONS: JsonObject = {
    "card": {
        "installments": None,
        "mandate_options": None,
        "network": None,
        "request_three_d_secure": "automatic",
    }
}


def payment_intent(now_s: int, amount: int, currency: str, **given: object) -> JsonObject:
    """Build a PaymentIntent that still needs a payment method."""
    intent_id = new_id("pi")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": client_secret(intent_id),
        "confirmation_method": "automatic",
        "created": now_s,
        "currency": currency,
        "customer": None,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": dict(_CARD_OPTIONS),
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    } | given


def setup_intent(now_s: int, **given: object) -> JsonObject:
    """Build a SetupIntent that still needs a payment method."""
    intent_id = new_id("seti")
    return {
        "id": intent_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": None,
        "cancellation_reason": None,
        "client_secret": client_secret(intent_id),
        "created": now_s,
        "customer": None,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            }
        },
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": "off_session",
    } | given


def as_list(url: str, data: list[JsonObject], *, has_more: bool = False) -> JsonObject:
    """Build a list as the API answers it."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
