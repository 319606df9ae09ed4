"""Owns the endpoints of PaymentIntents.

A handler reads parameters, calls what owns the rule, and returns the answer's JSON; a declined
charge is an answer too (402), since what it has written must stay.
"""

from guthaben.sandbox import methods, payments, twint
from guthaben.sandbox.api_customers import living_customer
from guthaben.sandbox.cards import AUTHENTICATION
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, missing_parameter, wrong_state
from guthaben.sandbox.form import Params
from guthaben.sandbox.listing import page

_CANCEL_REASONS = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
_USAGES = ("on_session", "off_session")
_CAPTURES = ("automatic", "automatic_async")


def create_intent(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/payment_intents"""
    amount = params.integer("amount", minimum=1)
    if amount is None:
        raise missing_parameter("amount")
    currency = payments.check_currency(params.required("currency"), "currency")
    payments.check_amount(amount, currency, "amount")
    confirm = params.flag("confirm")
    if params.text("off_session") and not confirm:
        raise invalid("off_session can only be given together with confirm=true.", "off_session")
    given = _given(ctx, params)
    method_id = params.text("payment_method")
    method = methods.resolve(ctx, method_id, "payment_method") if method_id else None
    if method is not None:
        methods.refuse_if_unusable(ctx, method, params.text("customer"))
        given |= {"payment_method": method["id"], "status": "requires_confirmation"}
    if confirm and method is None:
        raise missing_parameter("payment_method")
    intent = payments.create(ctx, amount, currency, **given)
    if method is None or not confirm:
        return intent
    return _confirm(ctx, params, intent, method)


def _given(ctx: Context, params: Params) -> JsonObject:
    capture = params.choice("capture_method", _CAPTURES) or "automatic_async"
    customer_id = params.text("customer")
    if customer_id is not None:
        living_customer(ctx, customer_id, "customer")
    given: JsonObject = {
        "capture_method": capture,
        "customer": customer_id,
        "description": params.text("description", limit=1000),
        "metadata": params.metadata(),
        "receipt_email": params.text("receipt_email"),
        "setup_future_usage": params.choice("setup_future_usage", _USAGES),
        "statement_descriptor_suffix": params.text("statement_descriptor_suffix", limit=22),
        "transfer_group": params.text("transfer_group"),
    }
    return given | _types(params)


def _types(params: Params) -> JsonObject:
    redirects = params.group("automatic_payment_methods").text("allow_redirects") or "always"
    amount, currency = params.integer("amount") or 0, (params.text("currency") or "").lower()
    fitting = twint.types_for(params, amount, currency, redirects=redirects == "always")
    return {
        "automatic_payment_methods": {"allow_redirects": redirects, "enabled": True},
        "payment_method_types": fitting,
    }


def _confirm(ctx: Context, params: Params, intent: JsonObject, method: JsonObject) -> JsonObject:
    off_session = params.text("off_session") not in (None, "false")
    twint.refuse_unfit(intent, method)
    if off_session:
        methods.refuse_without_mandate(ctx, method)
    outcome = methods.outcome(ctx, method, off_session=off_session)
    if method["type"] == twint.TYPE and not off_session:
        intent["payment_method"] = method["id"]
        payments.require_action(ctx, intent, twint.page_url(ctx, intent), params.url("return_url"))
        return intent
    if outcome == AUTHENTICATION and params.flag("error_on_requires_action"):
        off_session = True
    error = payments.attempt(ctx, intent, method, outcome, off_session=off_session)
    if error is not None:
        return {"error": error}
    if intent["next_action"] and "return_url" in params:
        intent["next_action"]["redirect_to_url"]["return_url"] = params.url("return_url")
        ctx.state.put(intent)
    return intent


def confirm_intent(ctx: Context, params: Params, intent_id: str) -> JsonObject:
    """POST /v1/payment_intents/{id}/confirm"""
    intent = ctx.at_path(intent_id, "payment_intent", "intent")
    payments.refuse_unless(
        intent, "requires_payment_method", "requires_confirmation", "requires_action"
    )
    method_id = params.text("payment_method") or intent["payment_method"]
    if method_id is None:
        raise payments.refuse_missing_method(intent)
    method = methods.resolve(ctx, method_id, "payment_method")
    methods.refuse_if_unusable(ctx, method, intent["customer"])
    usage = params.choice("setup_future_usage", _USAGES)
    intent["setup_future_usage"] = usage or intent["setup_future_usage"]
    return _confirm(ctx, params, intent, method)


def is_slow(ctx: Context, params: Params, intent_id: str | None = None) -> bool:
    """Tell whether this create or confirm answers late."""
    reference = params.text("payment_method")
    if intent_id is None:
        return params.text("confirm") == "true" and methods.is_slow(ctx, reference)
    intent = ctx.state.find(intent_id, "payment_intent") or {}
    return methods.is_slow(ctx, reference or intent.get("payment_method"))


def cancel_intent(ctx: Context, params: Params, intent_id: str) -> JsonObject:
    """POST /v1/payment_intents/{id}/cancel"""
    reason = params.choice("cancellation_reason", _CANCEL_REASONS)
    intent = ctx.at_path(intent_id, "payment_intent", "intent")
    if "session" in ctx.state.private(intent_id) and payments.is_cancelable(intent):
        message = "The PaymentIntent is a Checkout Session's: expire the session instead."
        raise wrong_state(message, "payment_intent_unexpected_state", payment_intent=intent)
    return payments.cancel(ctx, intent, reason)


def update_intent(ctx: Context, params: Params, intent_id: str) -> JsonObject:
    """POST /v1/payment_intents/{id}; only metadata and description"""
    params.allow(frozenset({"metadata", "description", "expand"}))
    intent = ctx.at_path(intent_id, "payment_intent", "intent")
    intent["metadata"] = params.metadata(intent["metadata"])
    if "description" in params:
        intent["description"] = params.text("description", limit=1000)
    return ctx.state.put(intent)


def get_intent(ctx: Context, params: Params, intent_id: str) -> JsonObject:
    """GET /v1/payment_intents/{id}"""
    return ctx.at_path(intent_id, "payment_intent", "intent")


def list_intents(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/payment_intents"""
    return page(ctx, params, "payment_intent", "/v1/payment_intents", ("customer",))
