"""Owns what the control API can do: one function per action, each in one transaction.

An action gets the context, the JSON body and the ids of its path, and returns JSON. It is for
tests and the demo; Stripe has nothing like it.
"""

import random
from typing import Any

from guthaben.sandbox import (
    checkout,
    deliveries,
    disputes,
    events,
    faults,
    fees,
    methods,
    passing,
    payments,
    refunds,
    script,
    webhooks,
)
from guthaben.sandbox.cards import OUTCOMES, SUCCEEDS
from guthaben.sandbox.checkout_pages import success_url
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, missing_parameter

_REFUND_ENDS = ("succeeded", "failed", "canceled")
_ORDERS = ("fifo", "reverse", "shuffle")
_MOST_SHOWN = 1000
_DECLINED_CARD = "4000000000000002"


def _number(body: JsonObject, name: str, *, minimum: float = 0) -> Any:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < minimum:
        raise invalid(f"{name} must be a number of at least {minimum}.", name)
    return value


def _whole(body: JsonObject, name: str, *, minimum: int = 1) -> int | None:
    value = _number(body, name, minimum=minimum)
    if value is not None and not isinstance(value, int):
        raise invalid(f"{name} must be an integer.", name)
    return value


def _word(body: JsonObject, name: str, options: tuple[str, ...], default: str | None = None) -> str:
    value = body.get(name, default)
    if value is None:
        raise missing_parameter(name)
    if value not in options:
        raise invalid(f"{name} must be one of {', '.join(options)}", name)
    return str(value)


# -- faults


def load_script(ctx: Context, body: JsonObject) -> JsonObject:
    """Add a script of faults: {calls: [...], deliveries: [...]}; see GET /_control/faults/schema"""
    faults.load(ctx.state, script.read(body))
    return show_faults(ctx, body)


def show_schema(ctx: Context, body: JsonObject) -> JsonObject:
    """Show the JSON Schema of scripts."""
    return script.Script.model_json_schema()


def add_call_fault(ctx: Context, body: JsonObject) -> JsonObject:
    """Add one rule for API calls: {fault, match?, times?, seconds?, when?, saved?}"""
    return load_script(ctx, {"calls": [body]})


def add_delivery_fault(ctx: Context, body: JsonObject) -> JsonObject:
    """Add one rule for deliveries: {fault, match?, times?, delay_s?, copies?, window_s?, age_s?}"""
    return load_script(ctx, {"deliveries": [body]})


def show_faults(ctx: Context, body: JsonObject) -> JsonObject:
    """Show what is left of the script."""
    return faults.loaded(ctx.state).as_json()


def clear_faults(ctx: Context, body: JsonObject) -> JsonObject:
    """Take all faults away."""
    faults.clear(ctx.state)
    return show_faults(ctx, body)


# -- deliveries


def set_deliveries(ctx: Context, body: JsonObject) -> JsonObject:
    """Set how many deliveries run at once and which secrets sign: {parallel?, secrets?}"""
    if (parallel := _whole(body, "parallel")) is not None:
        ctx.state.set_setting(webhooks.PARALLEL, parallel)
    if "secrets" in body:
        ctx.state.set_setting(deliveries.SECRETS, [str(secret) for secret in body["secrets"]])
    return {"parallel": ctx.state.setting(webhooks.PARALLEL, 1)}


def pause_deliveries(ctx: Context, body: JsonObject) -> JsonObject:
    """Hold all deliveries back."""
    ctx.state.set_setting(webhooks.PAUSED, True)
    return {"paused": True}


def resume_deliveries(ctx: Context, body: JsonObject) -> JsonObject:
    """Let the held deliveries go, at once, in this order: {order?: fifo|reverse|shuffle, seed?}"""
    order = _word(body, "order", _ORDERS, "fifo")
    waiting = ctx.state.pending_deliveries()
    if order == "reverse":
        waiting.reverse()
    elif order == "shuffle":
        random.Random(body.get("seed")).shuffle(waiting)
    for rank, seq in enumerate(waiting):
        ctx.state.rank_delivery(seq, rank)
    ctx.state.set_setting(webhooks.PAUSED, False)
    return {"paused": False, "released": len(waiting)}


def redeliver(ctx: Context, body: JsonObject, event_id: str) -> JsonObject:
    """Deliver an event again: {times?}"""
    event = ctx.at_path(event_id, "event", "id")
    for _ in range(_whole(body, "times") or 1):
        ctx.state.add_delivery(event["id"], twist={})
    return event


def send_event(ctx: Context, body: JsonObject) -> JsonObject:
    """Send an event of any type about anything: {type, object, event?: fields to overwrite}"""
    if not isinstance(body.get("type"), str) or not isinstance(body.get("object"), dict):
        raise invalid("type must be a text and object a JSON object.", "type")
    event = events.emit(ctx, body["type"], body["object"])
    return ctx.state.put({**event, **body.get("event", {}), "id": event["id"], "object": "event"})


# -- payers, banks and the operator's other hand


def pay_session(ctx: Context, body: JsonObject, session_id: str) -> JsonObject:
    """Pay without a browser: {card? or "twint", email?, name?}; a decline answers `paid: false`"""
    session = ctx.at_path(session_id, checkout.KIND, "session")
    card = methods.known_card(str(body.get("card", "4242424242424242")), "card")
    email = session["customer_email"] or body.get("email", "payer@example.com")
    pressed = checkout.pay(ctx, session, checkout.Payer(card, email, body.get("name")))
    done = session["status"] == "complete"
    return {
        "paid": done,
        "message": pressed.error,
        "redirect_url": success_url(session) if done else pressed.go_to,
        "session": session,
    }


def decline_session(ctx: Context, body: JsonObject, session_id: str) -> JsonObject:
    """Try to pay with a card that is declined."""
    return pay_session(ctx, body | {"card": _DECLINED_CARD}, session_id)


def expire_session(ctx: Context, body: JsonObject, session_id: str) -> JsonObject:
    """Expire an open session."""
    return checkout.expire(ctx, ctx.at_path(session_id, checkout.KIND, "session"))


def settle_intent(ctx: Context, body: JsonObject, intent_id: str) -> JsonObject:
    """End a payment in processing or requires_action: {outcome?: succeeds or a decline}"""
    outcome = _word(body, "outcome", OUTCOMES, SUCCEEDS)
    return checkout.settle_intent(ctx, ctx.at_path(intent_id, "payment_intent", "id"), outcome)


def settle_setup(ctx: Context, body: JsonObject, intent_id: str) -> JsonObject:
    """End a set-up whose payer was sent to TWINT: {outcome?: succeeds or a decline}"""
    outcome = _word(body, "outcome", OUTCOMES, SUCCEEDS)
    return checkout.settle_setup(ctx, ctx.at_path(intent_id, "setup_intent", "id"), outcome)


def come_back(ctx: Context, body: JsonObject, intent_id: str) -> JsonObject:
    """Let the customer authenticate a payment that had failed: {outcome?: succeeds or a decline}"""
    intent = ctx.at_path(intent_id, "payment_intent", "id")
    payments.come_back(ctx, intent, _word(body, "outcome", OUTCOMES, SUCCEEDS))
    return intent


def revoke_mandate(ctx: Context, body: JsonObject, method_id: str) -> JsonObject:
    """Let the payer revoke the mandate of a saved TWINT account."""
    return methods.revoke_mandate(ctx, ctx.at_path(method_id, "payment_method", "id"))


def order_outcome(ctx: Context, body: JsonObject, method_id: str) -> JsonObject:
    """Decide what a saved card does from now on: {outcome: word or null}"""
    method = ctx.at_path(method_id, "payment_method", "id")
    word = None if body.get("outcome") is None else _word(body, "outcome", OUTCOMES)
    methods.order_outcome(ctx, method, word)
    return {"payment_method": method_id, "outcome": word}


def refund_charge(ctx: Context, body: JsonObject, charge_id: str) -> JsonObject:
    """Refund as if in the dashboard: {amount?, reason?}"""
    charge = ctx.at_path(charge_id, "charge", "id")
    return refunds.create(ctx, charge, _whole(body, "amount"), body.get("reason"))


def settle_refund(ctx: Context, body: JsonObject, refund_id: str) -> JsonObject:
    """End a refund: {status: succeeded|failed|canceled}"""
    refund = ctx.at_path(refund_id, "refund", "id")
    return refunds.settle(ctx, refund, _word(body, "status", _REFUND_ENDS))


def dispute_charge(ctx: Context, body: JsonObject, charge_id: str) -> JsonObject:
    """Open a dispute: {amount?, reason?, inquiry?}"""
    charge = ctx.at_path(charge_id, "charge", "id")
    reason, inquiry = str(body.get("reason", "fraudulent")), bool(body.get("inquiry"))
    return disputes.open_dispute(ctx, charge, _whole(body, "amount"), reason, inquiry=inquiry)


def move_dispute(ctx: Context, body: JsonObject, dispute_id: str) -> JsonObject:
    """Bring a dispute into its next state: {status: under_review|won|lost|warning_closed|...}"""
    dispute = ctx.at_path(dispute_id, "dispute", "dispute")
    return disputes.move(ctx, dispute, _word(body, "status", disputes.STATES))


def close_dispute(ctx: Context, body: JsonObject, dispute_id: str) -> JsonObject:
    """End a dispute: {status: won|lost|warning_closed}"""
    dispute = ctx.at_path(dispute_id, "dispute", "dispute")
    return disputes.move(ctx, dispute, _word(body, "status", disputes.ENDS))


def warn_of_fraud(ctx: Context, body: JsonObject, charge_id: str) -> JsonObject:
    """Send an early fraud warning: {fraud_type?}"""
    kind = str(body.get("fraud_type", "unauthorized_use_of_card"))
    return disputes.warn_of_fraud(ctx, ctx.at_path(charge_id, "charge", "id"), kind)


def order_refunds(ctx: Context, body: JsonObject) -> JsonObject:
    """Decide how refunds begin from now on: {status: succeeded|pending}"""
    status = _word(body, "status", refunds.BEGINNINGS)
    refunds.order_beginning(ctx, status)
    return {"status": status}


def set_fees(ctx: Context, body: JsonObject) -> JsonObject:
    """Set what Stripe keeps: {card?, twint?, dispute?: {basis_points?, fixed?}}"""
    return fees.set_schedule(ctx.state, body)


# -- clock, views, reset


def advance_clock(ctx: Context, body: JsonObject) -> JsonObject:
    """Move the sandbox's clock; expire what is then over, renew subscriptions: {seconds}"""
    seconds = _whole(body, "seconds")
    if seconds is None:
        raise missing_parameter("seconds")
    ctx.state.advance_clock(seconds)
    passing.run(ctx)
    return {"now_s": ctx.now_s()}


def show_clock(ctx: Context, body: JsonObject) -> JsonObject:
    """Show the sandbox's time."""
    return {"now_s": ctx.now_s()}


def show_counters(ctx: Context, body: JsonObject) -> JsonObject:
    """Count objects, charges by status, deliveries by state, and API calls by status."""
    return dict(ctx.state.tallies())


def show_objects(ctx: Context, body: JsonObject, kind: str) -> JsonObject:
    """Show the objects of a kind, oldest first, at most 1000."""
    return {"data": ctx.state.select(kind, limit=_MOST_SHOWN, oldest_first=True)}


def show_deliveries(ctx: Context, body: JsonObject) -> JsonObject:
    """Show the last 1000 deliveries, oldest first."""
    return {"data": ctx.state.deliveries(_MOST_SHOWN)}


def show_calls(ctx: Context, body: JsonObject) -> JsonObject:
    """Show the last 1000 API calls, oldest first."""
    return {"data": ctx.state.calls(_MOST_SHOWN)}


def reset(ctx: Context, body: JsonObject) -> JsonObject:
    """Forget everything: objects, keys, deliveries, faults, clock."""
    ctx.state.reset()
    return {"reset": True}
