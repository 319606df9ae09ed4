"""Owns the endpoints of customers, payment methods, SetupIntents and events.

A handler reads parameters, calls what owns the rule, and returns the answer's JSON.
"""

import re

from guthaben.sandbox import cards, methods, objects
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import ApiError, JsonObject, invalid, missing_parameter
from guthaben.sandbox.events import emit
from guthaben.sandbox.form import Params
from guthaben.sandbox.listing import page
from guthaben.sandbox.payments import decline_error

_MOST_TYPES = 20
_EVENTS_KEPT_S = 30 * 86_400
_EVENT_TYPE = re.compile(r"[a-z0-9_.*]{1,100}")
_TEXTS = ("description", "email", "name", "phone")


def create_customer(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/customers"""
    customer = objects.customer(ctx.now_s(), metadata=params.metadata())
    _write_customer(ctx, customer, params)
    method_id = params.text("payment_method")
    ctx.state.put(customer)
    emit(ctx, "customer.created", customer)
    if method_id:
        _attach(ctx, methods.resolve(ctx, method_id, "payment_method"), customer["id"])
    return customer


def update_customer(ctx: Context, params: Params, customer_id: str) -> JsonObject:
    """POST /v1/customers/{id}"""
    customer = living_customer(ctx, customer_id, "id", in_path=True)
    customer["metadata"] = params.metadata(customer["metadata"])
    _write_customer(ctx, customer, params)
    ctx.state.put(customer)
    emit(ctx, "customer.updated", customer)
    return customer


def _write_customer(ctx: Context, customer: JsonObject, params: Params) -> None:
    for name in _TEXTS:
        if name in params:
            customer[name] = params.text(name)
    for name in ("address", "shipping"):
        if name in params:
            customer[name] = params.plain(name)
    email = customer["email"]
    if email is not None and "@" not in email:
        raise invalid("Invalid email address", "email", "email_invalid")
    settings = params.group("invoice_settings")
    if "default_payment_method" in settings:
        method_id = settings.text("default_payment_method")
        if method_id is not None:
            where = settings.path("default_payment_method")
            method = ctx.get(method_id, "payment_method", where)
            if method["customer"] != customer["id"]:
                raise invalid("The payment method is not attached to the customer.", where)
        customer["invoice_settings"]["default_payment_method"] = method_id


def living_customer(
    ctx: Context, customer_id: str, param: str, *, in_path: bool = False
) -> JsonObject:
    """Return a customer that is not deleted."""
    find = ctx.at_path if in_path else ctx.get
    customer = find(customer_id, "customer", param)
    if customer.get("deleted"):
        raise ApiError(404 if in_path else 400, f"No such customer: '{customer_id}'", param=param)
    return customer


def get_customer(ctx: Context, params: Params, customer_id: str) -> JsonObject:
    """GET /v1/customers/{id}; a deleted one answers with `deleted: true`"""
    return ctx.at_path(customer_id, "customer", "id")


def delete_customer(ctx: Context, params: Params, customer_id: str) -> JsonObject:
    """DELETE /v1/customers/{id}; its payment methods are detached"""
    customer = living_customer(ctx, customer_id, "id", in_path=True)
    for method in ctx.state.select("payment_method", {"customer": customer_id}):
        methods.detach(ctx, method)
    gone: JsonObject = {"id": customer_id, "object": "customer", "deleted": True}
    ctx.state.put(gone)
    emit(ctx, "customer.deleted", customer)
    return gone


def list_customers(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/customers"""
    answer = page(ctx, params, "customer", "/v1/customers", ("email",))
    answer["data"] = [customer for customer in answer["data"] if not customer.get("deleted")]
    return answer


def list_customer_methods(ctx: Context, params: Params, customer_id: str) -> JsonObject:
    """GET /v1/customers/{id}/payment_methods"""
    living_customer(ctx, customer_id, "customer", in_path=True)
    url = f"/v1/customers/{customer_id}/payment_methods"
    return page(ctx, params, "payment_method", url, ("type",), fixed={"customer": customer_id})


def create_method(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/payment_methods, with `card[number]` or `card[token]=tok_visa`"""
    if params.required("type") != "card":
        raise invalid("The sandbox knows payment methods of type card only.", "type")
    card = params.group("card")
    number = card.text("number")
    if card.text("token") == "tok_visa":
        number = "4242424242424242"
    if number is None:
        raise missing_parameter(card.path("number"))
    known = methods.known_card(number, card.path("number"))
    return methods.make(ctx, known, metadata=params.metadata())


def get_method(ctx: Context, params: Params, method_id: str) -> JsonObject:
    """GET /v1/payment_methods/{id}"""
    return ctx.at_path(method_id, "payment_method", "payment_method")


def attach_method(ctx: Context, params: Params, method_id: str) -> JsonObject:
    """POST /v1/payment_methods/{id}/attach"""
    customer = living_customer(ctx, params.required("customer"), "customer")
    return _attach(ctx, methods.resolve(ctx, method_id, "payment_method"), customer["id"])


def _attach(ctx: Context, method: JsonObject, customer_id: str) -> JsonObject:
    """Save a card, if it can be saved: one that is declined on the page is declined here too."""
    decline = cards.DECLINES.get(methods.card_behind(ctx, method).on_page)
    if decline is not None:
        error = decline_error(decline, method)
        raise ApiError(
            402, decline.message, kind="card_error", code=decline.code, executed=True, extra=error
        )
    return methods.attach(ctx, method, customer_id)


def detach_method(ctx: Context, params: Params, method_id: str) -> JsonObject:
    """POST /v1/payment_methods/{id}/detach"""
    return methods.detach(ctx, ctx.at_path(method_id, "payment_method", "payment_method"))


def list_methods(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/payment_methods"""
    return page(ctx, params, "payment_method", "/v1/payment_methods", ("customer", "type"))


def get_mandate(ctx: Context, params: Params, mandate_id: str) -> JsonObject:
    """GET /v1/mandates/{id}"""
    return ctx.at_path(mandate_id, "mandate", "mandate")


def get_setup_intent(ctx: Context, params: Params, intent_id: str) -> JsonObject:
    """GET /v1/setup_intents/{id}"""
    return ctx.at_path(intent_id, "setup_intent", "intent")


def list_setup_intents(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/setup_intents"""
    fields = ("customer", "payment_method")
    return page(ctx, params, "setup_intent", "/v1/setup_intents", fields)


def get_event(ctx: Context, params: Params, event_id: str) -> JsonObject:
    """GET /v1/events/{id}"""
    return ctx.at_path(event_id, "event", "id")


def list_events(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/events, by `type` (with `*`), up to 20 `types`, or delivery; 30 days back"""
    kind, kinds = params.text("type"), params.texts("types")
    if kind and kinds:
        raise invalid("Give type or types, not both.", "types")
    if len(kinds) > _MOST_TYPES:
        raise invalid(f"At most {_MOST_TYPES} types can be asked for.", "types")
    wanted = [_pattern(kind, "type")] if kind else [_pattern(name, "types") for name in kinds]
    fixed = {}
    if "delivery_success" in params:
        fixed["pending_webhooks"] = 0 if params.flag("delivery_success") else 1
    return page(
        ctx,
        params,
        "event",
        "/v1/events",
        fixed=fixed,
        patterns={"type": wanted} if wanted else None,
        since_s=ctx.now_s() - _EVENTS_KEPT_S,
        also=("type", "types", "delivery_success"),
    )


def _pattern(kind: str, param: str) -> str:
    if _EVENT_TYPE.fullmatch(kind) is None:
        raise invalid(f"Invalid event type: {kind[:80]}", param)
    return kind
