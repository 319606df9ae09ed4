"""Owns the shape of a Checkout Session and its line items. Pure builders."""

from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import new_id
from guthaben.sandbox.objects import NO_ADDRESS


def checkout_session(now_s: int, mode: str, **given: object) -> JsonObject:
    """Build an open Checkout Session without its address."""
    return {
        "id": new_id("cs_test", 58),
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False} if mode == "payment" else None,
        "after_expiration": None,
        "allowed_payment_method_types": None,
        "allow_promotion_codes": None,
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": None,
        "client_reference_id": None,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now_s,
        "currency": None,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": None,
        "customer_account": None,
        "customer_creation": None,
        "customer_details": None,
        "customer_email": None,
        "discounts": [] if mode == "payment" else None,
        "excluded_payment_method_types": None,
        "expires_at": now_s + 86400,
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": None,
        "managed_payments": None,
        "metadata": {},
        "mode": mode,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "if_required" if mode == "payment" else "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if mode == "payment" else "no_payment_required",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": None,
        "total_details": None,
        "ui_mode": "hosted_page",
        "url": None,
        "wallet_options": None,
    } | given


def customer_details(email: str | None, name: str | None) -> JsonObject:
    """Build what the payer has typed in."""
    return {
        "address": {**NO_ADDRESS, "country": "CH"},
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def line_item(now_s: int, name: str, unit_amount: int, currency: str, quantity: int) -> JsonObject:
    """Build a line item with the price that was made for it."""
    total = unit_amount * quantity
    return {
        "id": new_id("li"),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": currency,
        "description": name,
        "price": _price(now_s, unit_amount, currency),
        "quantity": quantity,
    }


def _price(now_s: int, unit_amount: int, currency: str) -> JsonObject:
    return {
        "id": new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": now_s,
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": new_id("prod", 14),
        "recurring": None,
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }
