"""Owns the endpoints of products, prices, subscriptions and invoices, and subscriptions on a page.

A handler reads parameters, calls what owns the rule, and returns the answer's JSON.
"""

from guthaben.sandbox import methods, session_objects, subscription_objects, subscriptions
from guthaben.sandbox.api_customers import living_customer
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, missing_parameter
from guthaben.sandbox.events import emit
from guthaben.sandbox.form import Params, words
from guthaben.sandbox.listing import page
from guthaben.sandbox.payments import check_currency
from guthaben.sandbox.subscriptions import INVOICE, KIND, Row

_INTERVALS = ("day", "week", "month", "year")
_PRODUCT = words(
    "active default_price_data description expand id images marketing_features metadata name "
    "package_dimensions shippable statement_descriptor tax_code unit_label url"
)
_PRICE = words(
    "active billing_scheme currency currency_options custom_unit_amount expand lookup_key metadata "
    "nickname product product_data recurring tax_behavior tiers tiers_mode transfer_lookup_key "
    "transform_quantity unit_amount unit_amount_decimal"
)
_CREATE = words(
    "automatic_tax billing_cycle_anchor cancel_at cancel_at_period_end collection_method currency "
    "customer days_until_due default_payment_method description discounts expand items metadata "
    "off_session payment_behavior payment_settings proration_behavior trial_end trial_period_days "
    "trial_settings"
)
_UPDATE = words(
    "cancel_at_period_end cancellation_details default_payment_method description expand items "
    "metadata off_session payment_behavior proration_behavior proration_date trial_end"
)
_PRORATIONS = ("always_invoice", "create_prorations", "none")
_PAGE_DATA = words("description metadata trial_period_days trial_settings")


def create_product(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/products"""
    params.allow(_PRODUCT)
    made = subscription_objects.product(
        ctx.now_s(),
        params.required("name"),
        description=params.text("description"),
        metadata=params.metadata(),
    )
    ctx.state.put(made)
    emit(ctx, "product.created", made)
    return made


def get_product(ctx: Context, params: Params, product_id: str) -> JsonObject:
    """GET /v1/products/{id}"""
    return ctx.at_path(product_id, "product", "id")


def create_price(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/prices, with `product` or `product_data[name]`"""
    params.allow(_PRICE)
    currency = check_currency(params.required("currency"), "currency")
    amount = params.integer("unit_amount", minimum=0)
    if amount is None:
        raise missing_parameter("unit_amount")
    lookup_key = params.text("lookup_key", limit=200)
    if lookup_key is not None:
        _free_lookup_key(ctx, lookup_key, take=params.flag("transfer_lookup_key"))
    made = subscription_objects.price(
        ctx.now_s(),
        _product_of(ctx, params),
        amount,
        currency,
        lookup_key=lookup_key,
        nickname=params.text("nickname"),
        metadata=params.metadata(),
        recurring=_recurring(params),
    )
    ctx.state.put(made)
    emit(ctx, "price.created", made)
    return made


def _product_of(ctx: Context, params: Params) -> str:
    if "product_data" in params:
        name = params.group("product_data").required("name")
        return str(ctx.state.put(subscription_objects.product(ctx.now_s(), name))["id"])
    return str(ctx.get(params.required("product"), "product", "product")["id"])


def _recurring(params: Params) -> JsonObject | None:
    if "recurring" not in params:
        return None
    group = params.group("recurring")
    interval = group.choice("interval", _INTERVALS)
    if interval is None:
        raise missing_parameter(group.path("interval"))
    return {
        "interval": interval,
        "interval_count": group.integer("interval_count", minimum=1) or 1,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _free_lookup_key(ctx: Context, lookup_key: str, *, take: bool) -> None:
    for other in ctx.state.select("price", {"lookup_key": lookup_key}, limit=1):
        if not take:
            raise invalid("A price has this lookup key already.", "lookup_key")
        ctx.state.put(other | {"lookup_key": None})


def get_price(ctx: Context, params: Params, price_id: str) -> JsonObject:
    """GET /v1/prices/{id}"""
    return ctx.at_path(price_id, "price", "price")


def list_prices(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/prices, by `lookup_keys` if they are given"""
    if "lookup_keys" not in params:
        return page(ctx, params, "price", "/v1/prices", ("product", "currency"))
    found = [
        price
        for key in params.texts("lookup_keys")
        for price in ctx.state.select("price", {"lookup_key": key}, limit=1)
        if "active" not in params or price["active"] == params.flag("active")
    ]
    limit = params.integer("limit", minimum=1) or 10
    return {
        "object": "list", "data": found[:limit], "has_more": len(found) > limit,
        "url": "/v1/prices",
    }  # fmt: skip


# -- subscriptions


def create_subscription(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/subscriptions"""
    params.allow(_CREATE)
    customer = living_customer(ctx, params.required("customer"), "customer")
    rows = _rows(ctx, params, "items")
    method_id = params.text("default_payment_method")
    saved = customer["invoice_settings"]["default_payment_method"]
    method = (
        ctx.get(method_id or saved, "payment_method", "default_payment_method")
        if method_id or saved
        else None
    )
    return subscriptions.begin(
        ctx,
        customer["id"],
        rows,
        method,
        metadata=params.metadata(),
        trial_days=params.integer("trial_period_days", minimum=1) or 0,
    )


def _rows(ctx: Context, params: Params, name: str) -> list[Row]:
    found = [
        (_recurring_price(ctx, row), row.integer("quantity", minimum=1) or 1)
        for row in params.rows(name)
    ]
    if not found:
        raise missing_parameter(name)
    return found


def _recurring_price(ctx: Context, row: Params) -> JsonObject:
    price = ctx.get(row.required("price"), "price", row.path("price"))
    if price["recurring"] is None:
        raise invalid("The price does not recur.", row.path("price"))
    return price


def get_subscription(ctx: Context, params: Params, subscription_id: str) -> JsonObject:
    """GET /v1/subscriptions/{id}"""
    return ctx.at_path(subscription_id, KIND, "id")


def list_subscriptions(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/subscriptions; without `status` those that have not ended"""
    if params.text("status") not in (None, "all"):
        return page(ctx, params, KIND, "/v1/subscriptions", ("customer", "status"))
    answer = page(ctx, params, KIND, "/v1/subscriptions", ("customer",), also=("status",))
    if params.text("status") is None:
        answer["data"] = [sub for sub in answer["data"] if sub["status"] != "canceled"]
    return answer


def update_subscription(ctx: Context, params: Params, subscription_id: str) -> JsonObject:
    """POST /v1/subscriptions/{id}"""
    params.allow(_UPDATE)
    sub = ctx.at_path(subscription_id, KIND, "id")
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise invalid("A canceled subscription can only be looked at.", "id")
    sub["metadata"] = params.metadata(sub["metadata"])
    if (method_id := params.text("default_payment_method")) is not None:
        sub["default_payment_method"] = methods.resolve(ctx, method_id, "default_payment_method")[
            "id"
        ]
    if params.text("trial_end") == "now":
        subscriptions.end_trial(ctx, sub)
    if "items" in params:
        proration = params.choice("proration_behavior", _PRORATIONS)
        rows = _changed_rows(ctx, params, sub)
        subscriptions.change_items(ctx, sub, rows, at_once=proration == "always_invoice")
    if "cancel_at_period_end" in params:
        subscriptions.cancel_at_period_end(ctx, sub, params.flag("cancel_at_period_end"))
    elif "items" not in params:
        ctx.state.put(sub)
        emit(ctx, "customer.subscription.updated", sub)
    return sub


def _changed_rows(ctx: Context, params: Params, sub: JsonObject) -> list[Row]:
    """Return the rows after a change: an item's `id` changes it, without one it is added."""
    known = {item["id"]: (item["price"], item["quantity"]) for item in sub["items"]["data"]}
    added: list[Row] = []
    for row in params.rows("items"):
        item_id = row.text("id")
        if item_id is not None and item_id not in known:
            raise invalid("No such subscription item.", row.path("id"))
        if item_id is not None and row.flag("deleted"):
            del known[item_id]
            continue
        old = known.get(item_id or "")
        price = _recurring_price(ctx, row) if "price" in row else (old[0] if old else None)
        if price is None:
            raise missing_parameter(row.path("price"))
        quantity = row.integer("quantity", minimum=1) or (old[1] if old else 1)
        if item_id is None:
            added.append((price, quantity))
        else:
            known[item_id] = (price, quantity)
    return [*known.values(), *added]


def cancel_subscription(ctx: Context, params: Params, subscription_id: str) -> JsonObject:
    """DELETE /v1/subscriptions/{id}"""
    sub = ctx.at_path(subscription_id, KIND, "id")
    return subscriptions.end(ctx, sub, ctx.now_s())


def resume_subscription(ctx: Context, params: Params, subscription_id: str) -> JsonObject:
    """POST /v1/subscriptions/{id}/resume"""
    return subscriptions.resume(ctx, ctx.at_path(subscription_id, KIND, "id"))


# -- invoices


def get_invoice(ctx: Context, params: Params, invoice_id: str) -> JsonObject:
    """GET /v1/invoices/{id}"""
    return ctx.at_path(invoice_id, INVOICE, "invoice")


def list_invoices(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/invoices"""
    return page(ctx, params, INVOICE, "/v1/invoices", ("customer", "status"))


def pay_invoice(ctx: Context, params: Params, invoice_id: str) -> JsonObject:
    """POST /v1/invoices/{id}/pay"""
    invoice = ctx.at_path(invoice_id, INVOICE, "invoice")
    details = invoice["parent"]["subscription_details"]
    subscriptions.pay(ctx, ctx.get(details["subscription"], KIND, "subscription"), invoice)
    return invoice


# -- on a page


def on_page(ctx: Context, params: Params, session: JsonObject) -> JsonObject:
    """Prepare a Checkout Session of mode=subscription; return what is kept beside it."""
    for name in ("payment_intent_data", "setup_intent_data", "invoice_creation"):
        if name in params:
            raise invalid(f"{name} can't be given in mode=subscription.", name)
    if params.text("customer_creation") is not None:
        message = "customer_creation can only be given in payment and setup mode."
        raise invalid(message, "customer_creation")
    rows = _rows(ctx, params, "line_items")
    data = params.group("subscription_data")
    data.allow(_PAGE_DATA)
    trial_days = data.integer("trial_period_days", minimum=1) or 0
    total = sum(price["unit_amount"] * quantity for price, quantity in rows)
    session |= {
        "amount_subtotal": 0 if trial_days else total,
        "amount_total": 0 if trial_days else total,
        "currency": rows[0][0]["currency"],
        "customer_creation": None if session["customer"] else "always",
        "payment_method_collection": "always",
        "payment_status": "unpaid",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    }
    return {
        "line_items": [_line_item(ctx, price, quantity) for price, quantity in rows],
        "subscription_data": {"metadata": data.metadata(), "trial_days": trial_days},
        "rows": [[price["id"], quantity] for price, quantity in rows],
    }


def _line_item(ctx: Context, price: JsonObject, quantity: int) -> JsonObject:
    name = ctx.get(price["product"], "product", "product")["name"]
    made = session_objects.line_item(
        ctx.now_s(), name, price["unit_amount"], price["currency"], quantity
    )
    return made | {"price": price}


def sell(ctx: Context, session: JsonObject, method: JsonObject, customer_id: str) -> JsonObject:
    """Begin the subscription that a page has sold."""
    kept = ctx.state.private(session["id"])
    rows = [(ctx.get(ref, "price", "line_items"), quantity) for ref, quantity in kept["rows"]]
    methods.attach(ctx, method, customer_id)
    return subscriptions.begin(
        ctx, customer_id, rows, method,
        metadata=kept["subscription_data"]["metadata"],
        trial_days=kept["subscription_data"]["trial_days"],
    )  # fmt: skip
