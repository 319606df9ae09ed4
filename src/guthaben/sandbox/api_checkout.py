"""Owns the endpoints of Checkout Sessions and the rules for their parameters.

What mode=subscription wants is in `api_subscriptions`. What happens to an open session is in
`checkout`.
"""

from guthaben.sandbox import api_subscriptions, checkout, objects, session_objects, twint
from guthaben.sandbox.api_customers import living_customer
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, missing_parameter
from guthaben.sandbox.events import emit
from guthaben.sandbox.form import Params
from guthaben.sandbox.listing import page
from guthaben.sandbox.objects import as_list
from guthaben.sandbox.payments import check_amount, check_currency

_SHOWN_BACK = (
    "adaptive_pricing",
    "consent_collection",
    "invoice_creation",
    "payment_method_options",
    "saved_payment_method_options",
)
_SHORTEST_S = 30 * 60
_LONGEST_S = 24 * 60 * 60


def create_session(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/checkout/sessions"""
    mode = params.choice("mode", ("payment", "setup", "subscription"))
    if mode is None:
        raise missing_parameter("mode")
    _check_customer(ctx, params)
    session = session_objects.checkout_session(ctx.now_s(), mode, **_common(ctx, params))
    private = _PRIVATE[mode](ctx, params, session)
    session["url"] = f"{ctx.base_url}/c/pay/{session['id']}"
    return ctx.state.put(session, private)


def _check_customer(ctx: Context, params: Params) -> None:
    customer_id = params.text("customer")
    if customer_id is None:
        return
    living_customer(ctx, customer_id, "customer")
    for other in ("customer_creation", "customer_email"):
        if other in params:
            raise invalid(
                f"You may only specify one of these parameters: customer, {other}.", other
            )


def _common(ctx: Context, params: Params) -> JsonObject:
    if params.text("ui_mode") not in (None, "hosted", "hosted_page"):
        raise invalid("The sandbox shows hosted pages only.", "ui_mode")
    success_url = params.url("success_url")
    if success_url is None:
        raise missing_parameter("success_url")
    creation = params.choice("customer_creation", ("always", "if_required"))
    customer_id = params.text("customer")
    shown = {name: params.plain(name) for name in _SHOWN_BACK if name in params}
    return shown | {
        "allowed_payment_method_types": params.texts("allowed_payment_method_types") or None,
        "cancel_url": params.url("cancel_url"),
        "client_reference_id": params.text("client_reference_id", limit=200),
        "customer": customer_id,
        "customer_creation": None if customer_id else creation or "if_required",
        "customer_email": params.text("customer_email", limit=800),
        "excluded_payment_method_types": params.texts("excluded_payment_method_types") or None,
        "expires_at": _expires_at_s(ctx, params),
        "locale": params.text("locale"),
        "metadata": params.metadata(),
        "success_url": success_url,
        "submit_type": params.choice("submit_type", ("auto", "book", "donate", "pay")),
    }


def _expires_at_s(ctx: Context, params: Params) -> int:
    asked_s = params.integer("expires_at")
    if asked_s is None:
        return ctx.now_s() + _LONGEST_S
    if not _SHORTEST_S - 5 <= asked_s - ctx.now_s() <= _LONGEST_S + 5:
        raise invalid("expires_at must be 30 minutes to 24 hours away.", "expires_at")
    return asked_s


def _payment(ctx: Context, params: Params, session: JsonObject) -> JsonObject:
    if "setup_intent_data" in params:
        raise invalid("setup_intent_data belongs to mode=setup.", "setup_intent_data")
    rows = params.rows("line_items")
    if not rows:
        raise missing_parameter("line_items")
    items = [_line_item(ctx, row) for row in rows]
    currencies = {item["currency"] for item in items}
    if len(currencies) > 1:
        raise invalid("All line items must have the same currency.", "line_items")
    total = sum(item["amount_total"] for item in items)
    session |= {
        "amount_subtotal": total,
        "amount_total": check_amount(total, items[0]["currency"], "line_items"),
        "currency": items[0]["currency"],
        "payment_method_types": twint.types_for(params, total, items[0]["currency"]),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    }
    data = params.group("payment_intent_data")
    if data.text("capture_method") == "manual":
        raise invalid("The sandbox captures at once.", data.path("capture_method"))
    asked = {
        "description": data.text("description", limit=1000),
        "metadata": data.metadata(),
        "receipt_email": data.text("receipt_email"),
        "setup_future_usage": _future_usage(params, data),
        "statement_descriptor_suffix": data.text("statement_descriptor_suffix", limit=22),
        "transfer_group": data.text("transfer_group"),
    }
    return {"line_items": items, "payment_intent_data": asked}


def _future_usage(params: Params, data: Params) -> str | None:
    """Read whether the method is kept: said of the payment, or of the only method there is."""
    choices = ("on_session", "off_session")
    of_card = params.group("payment_method_options").group("card")
    return data.choice("setup_future_usage", choices) or of_card.choice(
        "setup_future_usage", choices
    )


def _line_item(ctx: Context, row: Params) -> JsonObject:
    if "price" in row:
        raise invalid("The sandbox keeps no prices; give price_data.", row.path("price"))
    price = row.group("price_data")
    if not price:
        raise missing_parameter(row.path("price_data"))
    currency = check_currency(price.required("currency"), price.path("currency"))
    name = price.group("product_data").required("name")
    amount = price.integer("unit_amount", minimum=0)
    if amount is None:
        raise missing_parameter(price.path("unit_amount"))
    quantity = row.integer("quantity", minimum=1)
    if quantity is None:
        raise missing_parameter(row.path("quantity"))
    return session_objects.line_item(ctx.now_s(), name, amount, currency, quantity)


def _setup(ctx: Context, params: Params, session: JsonObject) -> JsonObject:
    for name in ("line_items", "payment_intent_data", "invoice_creation"):
        if name in params:
            raise invalid(f"{name} can't be given in mode=setup.", name)
    currency = params.text("currency")
    if currency is None and "allowed_payment_method_types" not in params:
        raise missing_parameter("currency")
    if currency is not None:
        session["currency"] = check_currency(currency, "currency")
    session["payment_method_types"] = twint.types_for(params, 0, session["currency"])
    data = params.group("setup_intent_data")
    intent = objects.setup_intent(
        ctx.now_s(),
        customer=session["customer"],
        description=data.text("description", limit=1000),
        metadata=data.metadata(),
        payment_method_types=session["payment_method_types"],
    )
    session["setup_intent"] = ctx.state.put(intent)["id"]
    emit(ctx, "setup_intent.created", intent)
    return {}


_PRIVATE = {"payment": _payment, "setup": _setup, "subscription": api_subscriptions.on_page}


def get_session(ctx: Context, params: Params, session_id: str) -> JsonObject:
    """GET /v1/checkout/sessions/{id}"""
    return ctx.at_path(session_id, checkout.KIND, "session")


def expire_session(ctx: Context, params: Params, session_id: str) -> JsonObject:
    """POST /v1/checkout/sessions/{id}/expire"""
    return checkout.expire(ctx, ctx.at_path(session_id, checkout.KIND, "session"))


def list_sessions(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/checkout/sessions"""
    fields = ("customer", "payment_intent", "status")
    return page(ctx, params, checkout.KIND, "/v1/checkout/sessions", fields)


def list_line_items(ctx: Context, params: Params, session_id: str) -> JsonObject:
    """GET /v1/checkout/sessions/{id}/line_items"""
    ctx.at_path(session_id, checkout.KIND, "session")
    items = ctx.state.private(session_id).get("line_items", [])
    return as_list(f"/v1/checkout/sessions/{session_id}/line_items", items)
