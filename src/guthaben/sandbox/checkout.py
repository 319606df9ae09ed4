"""Owns what happens to an open Checkout Session: paid, declined, expired, settled later.

How a session is created from a request is in `api_checkout`; what the payer sees is in
`checkout_pages`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from guthaben.sandbox import (
    api_subscriptions,
    methods,
    objects,
    payments,
    session_objects,
    twint,
)
from guthaben.sandbox.cards import DECLINES, PROCESSING, SUCCEEDS, TWINT, Card
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, wrong_state
from guthaben.sandbox.events import emit
from guthaben.sandbox.state import State

KIND = "checkout.session"


@dataclass(frozen=True, slots=True)
class Payer:
    """What a person types into the hosted page."""

    card: Card
    email: str | None = None
    name: str | None = None


class Pressed(NamedTuple):
    """What came of pressing the button: an error to show, or another page to go to, or neither."""

    error: str | None = None
    go_to: str | None = None


def expire_due(ctx: Context) -> None:
    """Expire the open sessions whose time has come."""
    for session in ctx.state.select(KIND, {"status": "open"}, limit=1000):
        if session["expires_at"] <= ctx.now_s():
            expire(ctx, session)


def next_due_s(state: State) -> int | None:
    """Return when the next open session expires."""
    return state.next_expiry_s(KIND)


def expire(ctx: Context, session: JsonObject) -> JsonObject:
    """Close a session that nobody may pay any more, and cancel what was begun."""
    if session["status"] != "open":
        message = f"Only an open session can be expired; this one is {session['status']}."
        raise wrong_state(message, "resource_already_exists")
    session |= {"status": "expired", "url": None}
    ctx.state.put(session)
    intent = ctx.state.find(session["payment_intent"] or "", "payment_intent")
    if intent is not None and payments.is_cancelable(intent):
        payments.cancel(ctx, intent, "automatic")
    emit(ctx, "checkout.session.expired", session)
    return session


def pay(ctx: Context, session: JsonObject, payer: Payer) -> Pressed:
    """Let a person press the button."""
    if session["status"] != "open":
        raise invalid(f"The session is {session['status']}.", "session")
    if payer.card.type not in session["payment_method_types"]:
        raise invalid(f"The session doesn't take {payer.card.label}.", "card")
    if session["mode"] == "setup":
        return _set_up(ctx, session, payer)
    if session["mode"] == "subscription":
        return _subscribe(ctx, session, payer)
    return _buy(ctx, session, payer)


def _buy(ctx: Context, session: JsonObject, payer: Payer) -> Pressed:
    asked = ctx.state.private(session["id"])["payment_intent_data"]
    if payer.card.type == twint.TYPE:
        intent = _intent(ctx, session, asked, None)
        intent["payment_method"] = _method(ctx, payer)["id"]
        return _send_away(ctx, session, payer, intent)
    outcome = payer.card.on_page
    customer_id = None if outcome in DECLINES else _customer(ctx, session, payer)
    intent = _intent(ctx, session, asked, customer_id)
    method = _method(ctx, payer)
    error = payments.attempt(ctx, intent, method, outcome, off_session=True)
    if error is not None:
        return Pressed(error=str(error["message"]))
    status = "unpaid" if outcome == PROCESSING else "paid"
    _complete(ctx, session, payer, customer_id, payment_status=status)
    return Pressed()


def _send_away(ctx: Context, session: JsonObject, payer: Payer, intent: JsonObject) -> Pressed:
    """Send the payer to TWINT, and remember who it is until it comes back."""
    url = twint.page_url(ctx, intent)
    payments.require_action(ctx, intent, url, session["success_url"])
    private = ctx.state.private(session["id"]) | {"payer": [payer.email, payer.name]}
    ctx.state.put(session, private)
    return Pressed(go_to=url)


def _intent(
    ctx: Context, session: JsonObject, asked: JsonObject, customer_id: str | None
) -> JsonObject:
    """Return the session's intent, made at the first try to pay."""
    if session["payment_intent"]:
        intent = ctx.get(session["payment_intent"], "payment_intent", "payment_intent")
        intent["customer"] = customer_id or session["customer"]
        return intent
    given = {**asked, "customer": customer_id or session["customer"]}
    given["payment_method_types"] = session["payment_method_types"]
    intent = payments.create(ctx, session["amount_total"], session["currency"], **given)
    ctx.state.put(intent, {"session": session["id"]})
    session["payment_intent"] = intent["id"]
    ctx.state.put(session)
    return intent


def _method(ctx: Context, payer: Payer) -> JsonObject:
    billing = objects.billing_details(payer.email, payer.name)
    return methods.make(ctx, payer.card, billing_details=billing)


def _customer(ctx: Context, session: JsonObject, payer: Payer) -> str | None:
    """Return the session's customer; a new one only where the session says `always`."""
    if session["customer"]:
        return str(session["customer"])
    if session["customer_creation"] != "always":
        return None
    made = objects.customer(ctx.now_s(), email=payer.email, name=payer.name)
    ctx.state.put(made)
    emit(ctx, "customer.created", made)
    return str(made["id"])


def _set_up(ctx: Context, session: JsonObject, payer: Payer) -> Pressed:
    intent = ctx.get(session["setup_intent"], "setup_intent", "setup_intent")
    method = _method(ctx, payer)
    intent["payment_method"] = method["id"]
    if payer.card.type == twint.TYPE:
        return _send_away(ctx, session, payer, intent)
    return _end_set_up(ctx, session, payer, intent, method, payer.card.on_page)


def _end_set_up(
    ctx: Context,
    session: JsonObject,
    payer: Payer,
    intent: JsonObject,
    method: JsonObject,
    outcome: str,
) -> Pressed:
    intent["next_action"] = None
    decline = DECLINES.get(outcome)
    if decline is not None:
        intent |= {
            "last_setup_error": payments.decline_error(decline, method),
            "payment_method": None,
            "status": "requires_payment_method",
        }
        ctx.state.put(intent)
        emit(ctx, "setup_intent.setup_failed", intent)
        return Pressed(error=decline.message)
    customer_id = _customer(ctx, session, payer)
    if customer_id:
        methods.attach(ctx, method, customer_id)
        intent["mandate"] = methods.give_mandate(ctx, method)
    intent |= {"customer": customer_id, "last_setup_error": None, "status": "succeeded"}
    ctx.state.put(intent)
    emit(ctx, "setup_intent.succeeded", intent)
    _complete(ctx, session, payer, customer_id)
    return Pressed()


def _subscribe(ctx: Context, session: JsonObject, payer: Payer) -> Pressed:
    decline = DECLINES.get(payer.card.on_page)
    if decline is not None:
        return Pressed(error=decline.message)
    customer_id = _customer(ctx, session, payer) or ""
    sub = api_subscriptions.sell(ctx, session, _method(ctx, payer), customer_id)
    session |= {"subscription": sub["id"], "invoice": sub["latest_invoice"]}
    _complete(ctx, session, payer, customer_id, payment_status="paid")
    return Pressed()


def _complete(
    ctx: Context, session: JsonObject, payer: Payer, customer_id: str | None, **changes: str
) -> None:
    session |= changes | {
        "customer": customer_id,
        "customer_details": session_objects.customer_details(payer.email, payer.name),
        "status": "complete",
        "url": None,
    }
    ctx.state.put(session)
    emit(ctx, "checkout.session.completed", session)


def settle_intent(ctx: Context, intent: JsonObject, outcome: str = SUCCEEDS) -> JsonObject:
    """End a payment that was left open, and tell the session that waits for it."""
    session = session_of(ctx, intent)
    if session is None or session["status"] != "open":
        payments.settle(ctx, intent, outcome)
        if session is not None and session["payment_status"] == "unpaid":
            _tell_later(ctx, session, paid=intent["status"] == "succeeded")
        return intent
    payer = _payer(ctx, session)
    if outcome not in DECLINES:
        intent["customer"] = _customer(ctx, session, payer)
    payments.settle(ctx, intent, outcome)
    if outcome not in DECLINES:
        status = "unpaid" if outcome == PROCESSING else "paid"
        _complete(ctx, session, payer, intent["customer"], payment_status=status)
    return intent


def settle_setup(ctx: Context, intent: JsonObject, outcome: str = SUCCEEDS) -> JsonObject:
    """End a set-up for which the payer was sent away."""
    session = session_of(ctx, intent)
    if session is None or session["status"] != "open" or intent["status"] != "requires_action":
        raise invalid(f"The set-up is {intent['status']}.", "setup_intent")
    method = ctx.get(intent["payment_method"], "payment_method", "payment_method")
    _end_set_up(ctx, session, _payer(ctx, session), intent, method, outcome)
    return intent


def session_of(ctx: Context, intent: JsonObject) -> JsonObject | None:
    """Return the session that an intent belongs to."""
    found = ctx.state.select(KIND, {intent["object"]: intent["id"]}, limit=1)
    return found[0] if found else None


def _payer(ctx: Context, session: JsonObject) -> Payer:
    email, name = ctx.state.private(session["id"]).get("payer", (None, None))
    return Payer(TWINT, email, name)


def _tell_later(ctx: Context, session: JsonObject, *, paid: bool) -> None:
    if paid:
        session["payment_status"] = "paid"
        ctx.state.put(session)
    word = "succeeded" if paid else "failed"
    emit(ctx, f"checkout.session.async_payment_{word}", session)
