"""Owns the control actions for subscriptions: what banks, dunning and the operator's hand do."""

from guthaben.sandbox import subscriptions
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid


def _subscription(ctx: Context, subscription_id: str) -> JsonObject:
    return ctx.at_path(subscription_id, subscriptions.KIND, "id")


def pay(ctx: Context, body: JsonObject, subscription_id: str) -> JsonObject:
    """Pay every open invoice of a subscription"""
    sub = _subscription(ctx, subscription_id)
    for invoice in subscriptions.open_invoices(ctx, sub):
        subscriptions.pay(ctx, sub, invoice)
    return sub


def give_up(ctx: Context, body: JsonObject, subscription_id: str) -> JsonObject:
    """End the retries: {status: unpaid|canceled|incomplete_expired}"""
    status = body.get("status", "canceled")
    if status not in ("unpaid", "canceled", "incomplete_expired"):
        raise invalid("status must be unpaid, canceled or incomplete_expired.", "status")
    return subscriptions.give_up(ctx, _subscription(ctx, subscription_id), str(status))


def pause(ctx: Context, body: JsonObject, subscription_id: str) -> JsonObject:
    """Pause a subscription, as when a trial ends without a card"""
    return subscriptions.pause(ctx, _subscription(ctx, subscription_id))
