"""Owns the life of a subscription: begun, renewed by the clock, changed, unpaid, paused, ended.

Law: the period moves by whole intervals from the anchor, and moves before its invoice is paid, as
Stripe's does: so `active` is told for a new period, and `past_due` only when its payment failed. A
trial is a period of its own. How a page sells one is in `checkout`.
"""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Final

from guthaben.sandbox import methods, payments
from guthaben.sandbox import subscription_objects as objects
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, wrong_state
from guthaben.sandbox.events import emit
from guthaben.sandbox.objects import as_list
from guthaben.sandbox.state import State

KIND: Final = "subscription"
INVOICE: Final = "invoice"
_ENDED: Final = ("canceled", "incomplete_expired")
_LIVING: Final = ("active", "trialing", "past_due", "unpaid")
_DAY_S: Final = 86_400
_MOST_RENEWALS: Final = 60

Row = tuple[JsonObject, int]
"""A price and a quantity."""


def after(anchor_s: int, recurring: JsonObject, steps: int) -> int:
    """Return the anchor moved on by so many intervals; the end of a month is clipped."""
    count = recurring["interval_count"] * steps
    begun = datetime.fromtimestamp(anchor_s, UTC)
    if recurring["interval"] in ("day", "week"):
        days = count * (7 if recurring["interval"] == "week" else 1)
        return int((begun + timedelta(days=days)).timestamp())
    months = begun.month - 1 + count * (12 if recurring["interval"] == "year" else 1)
    year, month = begun.year + months // 12, months % 12 + 1
    day = min(begun.day, calendar.monthrange(year, month)[1])
    return int(begun.replace(year=year, month=month, day=day).timestamp())


def begin(
    ctx: Context,
    customer_id: str,
    rows: list[Row],
    method: JsonObject | None,
    *,
    metadata: dict[str, str],
    trial_days: int = 0,
) -> JsonObject:
    """Begin a subscription, and pay its first period unless it is a trial."""
    now_s = ctx.now_s()
    sub = objects.subscription(now_s, customer_id, rows[0][0]["currency"], metadata=metadata)
    sub["default_payment_method"] = method["id"] if method else None
    if trial_days:
        end_s = now_s + trial_days * _DAY_S
        sub |= {"status": "trialing", "trial_start": now_s, "trial_end": end_s}
        sub["billing_cycle_anchor"] = end_s
    else:
        end_s = after(now_s, rows[0][0]["recurring"], 1)
    _put_items(ctx, sub, rows, (now_s, end_s))
    ctx.state.put(sub)
    emit(ctx, "customer.subscription.created", sub)
    _bill(ctx, sub, "subscription_create")
    return sub


def _put_items(ctx: Context, sub: JsonObject, rows: list[Row], bounds: tuple[int, int]) -> None:
    made = [
        objects.subscription_item(ctx.now_s(), sub["id"], price, quantity, bounds)
        for price, quantity in rows
    ]
    sub["items"] = as_list(sub["items"]["url"], made)


def rows_of(sub: JsonObject) -> list[Row]:
    """Return what a subscription consists of."""
    return [(item["price"], item["quantity"]) for item in sub["items"]["data"]]


def bounds_of(sub: JsonObject) -> tuple[int, int]:
    """Return the current period."""
    item = sub["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]


# -- money


def _bill(ctx: Context, sub: JsonObject, reason: str) -> None:
    """Make an invoice of the current period and try to have it paid."""
    amount = sum(price["unit_amount"] * quantity for price, quantity in rows_of(sub))
    if sub["status"] == "trialing":
        amount = 0
    invoice = objects.invoice(ctx.now_s(), sub, amount, reason)
    ctx.state.put(invoice)
    emit(ctx, "invoice.created", invoice)
    emit(ctx, "invoice.finalized", invoice)
    sub["latest_invoice"] = invoice["id"]
    ctx.state.put(sub)
    pay(ctx, sub, invoice)


def pay(ctx: Context, sub: JsonObject, invoice: JsonObject) -> bool:
    """Try to have an open invoice paid; tell what becomes of it and of its subscription."""
    if invoice["status"] != "open":
        message = f"The invoice is {invoice['status']}."
        raise wrong_state(message, "invoice_not_open")
    invoice |= {"attempted": True, "attempt_count": invoice["attempt_count"] + 1}
    if not _charge(ctx, sub, invoice):
        ctx.state.put(invoice)
        emit(ctx, "invoice.payment_failed", invoice)
        _turn(ctx, sub, "incomplete" if sub["status"] == "incomplete" else "past_due")
        return False
    now_s = ctx.now_s()
    invoice |= {"amount_paid": invoice["amount_due"], "amount_remaining": 0, "status": "paid"}
    invoice["status_transitions"]["paid_at"] = now_s
    ctx.state.put(invoice)
    emit(ctx, "invoice.paid", invoice)
    emit(ctx, "invoice.payment_succeeded", invoice)
    if sub["status"] in ("incomplete", "past_due", "unpaid") and not open_invoices(ctx, sub):
        _turn(ctx, sub, "active")
    return True


def _charge(ctx: Context, sub: JsonObject, invoice: JsonObject) -> bool:
    if invoice["amount_due"] == 0:
        return True
    method_id = sub["default_payment_method"]
    if method_id is None:
        return False
    method = ctx.get(method_id, "payment_method", "default_payment_method")
    intent = payments.create(
        ctx, invoice["amount_due"], invoice["currency"], customer=sub["customer"],
        description="Subscription",
    )  # fmt: skip
    outcome = methods.outcome(ctx, method, off_session=True)
    return payments.attempt(ctx, intent, method, outcome, off_session=True) is None


def open_invoices(ctx: Context, sub: JsonObject) -> list[JsonObject]:
    """Return what has not been paid, oldest first."""
    found = ctx.state.select(INVOICE, {"status": "open"}, oldest_first=True, limit=1000)
    return [
        invoice
        for invoice in found
        if invoice["parent"]["subscription_details"]["subscription"] == sub["id"]
    ]


def _turn(ctx: Context, sub: JsonObject, status: str) -> None:
    if sub["status"] == status:
        return
    sub["status"] = status
    _tell(ctx, sub)


def _tell(ctx: Context, sub: JsonObject) -> None:
    ctx.state.put(sub)
    emit(ctx, "customer.subscription.updated", sub)


# -- the clock


def next_due_s(state: State) -> int | None:
    """Return when the next subscription is renewed or ends."""
    found = [
        min(bounds_of(sub)[1], sub["cancel_at"] or bounds_of(sub)[1])
        for sub in state.select(KIND, limit=1000)
        if sub["status"] in _LIVING
    ]
    return min(found, default=None)


def advance(ctx: Context) -> None:
    """Renew or end what is due by the sandbox's clock."""
    for status in _LIVING:
        for sub in ctx.state.select(KIND, {"status": status}, limit=1000, oldest_first=True):
            _catch_up(ctx, sub)


def _catch_up(ctx: Context, sub: JsonObject) -> None:
    for _ in range(_MOST_RENEWALS):
        _start_s, end_s = bounds_of(sub)
        if sub["cancel_at"] is not None and sub["cancel_at"] <= ctx.now_s():
            end(ctx, sub, sub["cancel_at"])
        if sub["status"] in _ENDED or end_s > ctx.now_s():
            return
        _renew(ctx, sub, end_s)


def _renew(ctx: Context, sub: JsonObject, start_s: int) -> None:
    if sub["status"] == "trialing":
        sub["status"] = "active"
    rows = rows_of(sub)
    recurring, anchor_s = rows[0][0]["recurring"], sub["billing_cycle_anchor"]
    steps = 1
    while (end_s := after(anchor_s, recurring, steps)) <= start_s:
        steps += 1
    for item in sub["items"]["data"]:
        item |= {"current_period_start": start_s, "current_period_end": end_s}
    _tell(ctx, sub)
    if sub["status"] != "unpaid":
        _bill(ctx, sub, "subscription_cycle")


# -- the customer's and the operator's hand


def change_items(ctx: Context, sub: JsonObject, rows: list[Row], *, at_once: bool) -> None:
    """Change what it consists of, inside its period; `at_once` bills the change now."""
    _put_items(ctx, sub, rows, bounds_of(sub))
    _tell(ctx, sub)
    if at_once and sub["status"] == "active":
        _bill(ctx, sub, "subscription_update")


def end_trial(ctx: Context, sub: JsonObject) -> None:
    """End a trial now; a paid period begins."""
    now_s = ctx.now_s()
    sub |= {"trial_end": now_s, "billing_cycle_anchor": now_s}
    for item in sub["items"]["data"]:
        item["current_period_end"] = now_s
    _renew(ctx, sub, now_s)


def cancel_at_period_end(ctx: Context, sub: JsonObject, wanted: bool) -> None:
    """Let it end with its period, or not after all."""
    sub |= {
        "cancel_at_period_end": wanted,
        "cancel_at": bounds_of(sub)[1] if wanted else None,
        "canceled_at": ctx.now_s() if wanted else None,
    }
    _tell(ctx, sub)


def end(ctx: Context, sub: JsonObject, at_s: int, status: str = "canceled") -> JsonObject:
    """End it; it can't begin again."""
    if sub["status"] in _ENDED:
        raise wrong_state("The subscription has ended already.", "resource_missing")
    sub |= {"status": status, "ended_at": at_s, "canceled_at": sub["canceled_at"] or at_s}
    ctx.state.put(sub)
    emit(ctx, "customer.subscription.deleted", sub)
    return sub


def give_up(ctx: Context, sub: JsonObject, status: str) -> JsonObject:
    """Do what is set for the time when all retries have failed."""
    if status == "unpaid":
        _turn(ctx, sub, "unpaid")
        return sub
    return end(ctx, sub, ctx.now_s(), status)


def pause(ctx: Context, sub: JsonObject) -> JsonObject:
    """Pause it: no period passes any more."""
    sub["status"] = "paused"
    ctx.state.put(sub)
    emit(ctx, "customer.subscription.paused", sub)
    return sub


def resume(ctx: Context, sub: JsonObject) -> JsonObject:
    """Resume a paused one; a new period begins now."""
    if sub["status"] != "paused":
        raise wrong_state("The subscription is not paused.", "subscription_not_paused")
    now_s = ctx.now_s()
    sub |= {"status": "active", "billing_cycle_anchor": now_s}
    end_s = after(now_s, rows_of(sub)[0][0]["recurring"], 1)
    for item in sub["items"]["data"]:
        item |= {"current_period_start": now_s, "current_period_end": end_s}
    ctx.state.put(sub)
    emit(ctx, "customer.subscription.resumed", sub)
    _bill(ctx, sub, "subscription_update")
    return sub
