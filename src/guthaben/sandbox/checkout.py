"""Owns what happens to an open Checkout Session: paid, declined, expired, settled later.

How a session is created from a request is in `api_checkout`; what the payer sees is in
`checkout_pages`.
"""

from dataclasses import dataclass

from guthaben.sandbox import methods, objects, payments, session_objects
from guthaben.sandbox.cards import DECLINES, PROCESSING, SUCCEEDS, Card
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


def expire_due(ctx: Context) -> None:
    """Expire the open sessions whose time has come."""
    for session in ctx.state.select(KIND, {"status": "open"}, limit=1000):
        if session["expires_at"] <= ctx.now_s():
            expire(ctx, session)


def next_due_s(state: State) -> int | None:
    """Return when the next open session expires."""
    return state.next_expiry_s(KIND)


def expire(ctx: Context, session: JsonObject) -> JsonObject:
    """Close a session that nobody may pay any more."""
    if session["status"] != "open":
        message = f"Only an open session can be expired; this one is {session['status']}."
        raise wrong_state(message, "resource_already_exists")
    session |= {"status": "expired", "url": None}
    ctx.state.put(session)
    emit(ctx, "checkout.session.expired", session)
    return session


def pay(ctx: Context, session: JsonObject, payer: Payer) -> str | None:
    """Let a person press the button; return why the card was refused, or None."""
    if session["status"] != "open":
        raise invalid(f"The session is {session['status']}.", "session")
    if session["mode"] == "setup":
        return _set_up(ctx, session, payer)
    return _buy(ctx, session, payer)


def _buy(ctx: Context, session: JsonObject, payer: Payer) -> str | None:
    asked = ctx.state.private(session["id"])["payment_intent_data"]
    outcome = payer.card.on_page
    customer_id = None if outcome in DECLINES else _customer(ctx, session, payer)
    intent = _intent(ctx, session, asked, customer_id)
    method = _method(ctx, payer)
    error = payments.attempt(ctx, intent, method, outcome, off_session=True)
    if error is not None:
        return str(error["message"])
    status = "unpaid" if outcome == PROCESSING else "paid"
    _complete(ctx, session, payer, customer_id, payment_status=status)
    return None


def _intent(
    ctx: Context, session: JsonObject, asked: JsonObject, customer_id: str | None
) -> JsonObject:
    """Return the session's intent, made at the first try to pay."""
    if session["payment_intent"]:
        intent = ctx.get(session["payment_intent"], "payment_intent", "payment_intent")
        intent["customer"] = customer_id or session["customer"]
        return intent
    given = {**asked, "customer": customer_id or session["customer"]}
    intent = payments.create(ctx, session["amount_total"], session["currency"], **given)
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


def _set_up(ctx: Context, session: JsonObject, payer: Payer) -> str | None:
    intent = ctx.get(session["setup_intent"], "setup_intent", "setup_intent")
    method = _method(ctx, payer)
    decline = DECLINES.get(payer.card.on_page)
    if decline is not None:
        intent["last_setup_error"] = payments.decline_error(decline, method)
        ctx.state.put(intent)
        emit(ctx, "setup_intent.setup_failed", intent)
        return decline.message
    customer_id = _customer(ctx, session, payer)
    if customer_id:
        methods.attach(ctx, method, customer_id)
    intent |= {
        "customer": customer_id,
        "last_setup_error": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    ctx.state.put(intent)
    emit(ctx, "setup_intent.succeeded", intent)
    _complete(ctx, session, payer, customer_id)
    return None


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
    payments.settle(ctx, intent, outcome)
    for session in ctx.state.select(KIND, {"payment_intent": intent["id"]}, limit=1):
        if session["status"] == "complete" and session["payment_status"] == "unpaid":
            _tell_later(ctx, session, paid=intent["status"] == "succeeded")
    return intent


def _tell_later(ctx: Context, session: JsonObject, *, paid: bool) -> None:
    if paid:
        session["payment_status"] = "paid"
        ctx.state.put(session)
    word = "succeeded" if paid else "failed"
    emit(ctx, f"checkout.session.async_payment_{word}", session)
