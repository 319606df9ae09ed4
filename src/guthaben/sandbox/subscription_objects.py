"""Owns the shape of products, prices, subscriptions and invoices, as Stripe sends them.

Pure builders. A period lives on a subscription's items, and an invoice names its subscription in
`parent`.
"""

from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.form import words
from guthaben.sandbox.ids import new_id, random_text
from guthaben.sandbox.objects import as_list


def product(now_s: int, name: str, **given: object) -> JsonObject:
    """Build a product."""
    return {
        "id": new_id("prod", 14),
        "object": "product",
        "active": True,
        "created": now_s,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": now_s,
        "url": None,
    } | given


def price(now_s: int, product_id: str, amount: int, currency: str, **given: object) -> JsonObject:
    """Build a price; one that recurs says so in `recurring`."""
    return {
        "id": new_id("price"),
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": now_s,
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": product_id,
        "recurring": None,
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if given.get("recurring") else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    } | given


def _plan(of: JsonObject) -> JsonObject:
    """Build what an item still shows beside its price."""
    recurring = of["recurring"]
    return {
        "id": of["id"],
        "object": "plan",
        "active": of["active"],
        "amount": of["unit_amount"],
        "amount_decimal": of["unit_amount_decimal"],
        "billing_scheme": "per_unit",
        "created": of["created"],
        "currency": of["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": of["metadata"],
        "meter": None,
        "nickname": of["nickname"],
        "product": of["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def subscription_item(
    now_s: int, subscription_id: str, of: JsonObject, quantity: int, bounds: tuple[int, int]
) -> JsonObject:
    """Build one item with its period."""
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": now_s,
        "current_period_end": bounds[1],
        "current_period_start": bounds[0],
        "discounts": [],
        "metadata": {},
        "plan": _plan(of),
        "price": of,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def subscription(now_s: int, customer_id: str, currency: str, **given: object) -> JsonObject:
    """Build a subscription without items."""
    subscription_id = new_id("sub")
    url = f"/v1/subscription_items?subscription={subscription_id}"
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now_s,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now_s,
        "currency": currency,
        "customer": customer_id,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": as_list(url, []),
        "latest_invoice": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now_s,
        "status": "incomplete",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    } | given


_NO_INVOICE_DETAILS: JsonObject = {
    **dict.fromkeys(
        words(
            "account_tax_ids application automatically_finalizes_at custom_fields customer_account "
            "customer_address customer_email customer_name customer_phone customer_shipping "
            "default_payment_method default_source description due_date footer from_invoice "
            "hosted_invoice_url invoice_pdf last_finalization_error latest_revision "
            "next_payment_attempt on_behalf_of receipt_number rendering shipping_cost "
            "shipping_details statement_descriptor test_clock webhooks_delivered_at"
        )
    ),
    "account_country": "CH",
    "account_name": "Sandbox",
    "amount_overpaid": 0,
    "amount_paid": 0,
    "amount_shipping": 0,
    "attempt_count": 0,
    "attempted": False,
    "auto_advance": True,
    "collection_method": "charge_automatically",
    "customer_tax_exempt": "none",
    "customer_tax_ids": [],
    "default_tax_rates": [],
    "discounts": [],
    "ending_balance": 0,
    "issuer": {"type": "self"},
    "livemode": False,
    "metadata": {},
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    "starting_balance": 0,
    "total_discount_amounts": [],
    "total_pretax_credit_amounts": [],
    "total_taxes": [],
}


def invoice(now_s: int, of: JsonObject, amount: int, reason: str) -> JsonObject:
    """Build an open invoice of a subscription."""
    invoice_id = new_id("in")
    item = of["items"]["data"][0]
    bounds = item["current_period_start"], item["current_period_end"]
    lines = [_line(invoice_id, of, each, bounds) for each in of["items"]["data"]]
    return _NO_INVOICE_DETAILS | {
        "id": invoice_id,
        "object": "invoice",
        "amount_due": amount,
        "amount_remaining": amount,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "billing_reason": reason,
        "created": now_s,
        "currency": of["currency"],
        "customer": of["customer"],
        "effective_at": now_s,
        "lines": as_list(f"/v1/invoices/{invoice_id}/lines", lines),
        "number": f"{random_text(8).upper()}-0001",
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": of["metadata"], "subscription": of["id"]},
            "type": "subscription_details",
        },
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": now_s,
        "period_start": bounds[0],
        "status": "open",
        "status_transitions": {
            "finalized_at": now_s,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "total": amount,
        "total_excluding_tax": amount,
    }


def _line(invoice_id: str, of: JsonObject, item: JsonObject, bounds: tuple[int, int]) -> JsonObject:
    price_of = item["price"]
    return {
        "id": new_id("il"),
        "object": "line_item",
        "amount": price_of["unit_amount"] * item["quantity"],
        "currency": of["currency"],
        "description": price_of["nickname"] or price_of["lookup_key"],
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": of["metadata"],
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": of["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
        "period": {"end": bounds[1], "start": bounds[0]},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price_of["id"], "product": price_of["product"]},
            "type": "price_details",
            "unit_amount_decimal": price_of["unit_amount_decimal"],
        },
        "quantity": item["quantity"],
        "quantity_decimal": str(item["quantity"]),
        "subscription": of["id"],
        "subtotal": price_of["unit_amount"] * item["quantity"],
        "taxes": [],
    }
