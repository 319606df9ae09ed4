"""Owns refunds: money that goes back, and what that does to the charge.

`charge.amount_refunded` is cumulative; a refund that fails is taken out of it again. A refund is
`succeeded` at once, or `pending` where its card or an order of control says so, and may fail even
after it has succeeded.
"""

from typing import Final

from guthaben.sandbox import bookings, disputes, methods, money_objects
from guthaben.sandbox.cards import PENDING_REFUNDS
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, wrong_state
from guthaben.sandbox.events import emit

_ORDER: Final = "refunds_begin_as"
BEGINNINGS: Final = ("succeeded", "pending")


def order_beginning(ctx: Context, status: str) -> None:
    """Decide how refunds begin from now on."""
    ctx.state.set_setting(_ORDER, status)


def create(
    ctx: Context, charge: JsonObject, amount: int | None, reason: str | None, **given: object
) -> JsonObject:
    """Refund a charge, or a part of it."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if not charge["paid"]:
        raise wrong_state("The charge has taken no money.", "charge_not_refundable")
    if disputes.stands(ctx, charge):
        raise wrong_state("The charge has been charged back.", "charge_disputed")
    if left == 0:
        raise wrong_state("The charge has already been refunded.", "charge_already_refunded")
    if amount is not None and amount > left:
        raise invalid(f"Refund amount ({amount}) is more than what is left ({left}).", "amount")
    refund = money_objects.refund(
        ctx.now_s(), charge, amount or left, reason=reason, status=_beginning(ctx, charge), **given
    )
    refund["balance_transaction"] = bookings.book_refund(ctx, refund, charge)["id"]
    ctx.state.put(refund)
    before = charge["amount_refunded"]
    _add(ctx, charge, refund["amount"])
    emit(ctx, "refund.created", refund)
    emit(ctx, "charge.refunded", charge, {"amount_refunded": before})
    disputes.calm_warnings(ctx, charge)
    return refund


def _beginning(ctx: Context, charge: JsonObject) -> str:
    method = ctx.get(charge["payment_method"], "payment_method", "payment_method")
    if methods.card_behind(ctx, method).number == PENDING_REFUNDS:
        return "pending"
    return str(ctx.state.setting(_ORDER, "succeeded"))


def _add(ctx: Context, charge: JsonObject, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    ctx.state.put(charge)


def settle(ctx: Context, refund: JsonObject, status: str) -> JsonObject:
    """End a refund: `succeeded`, or `failed` and `canceled`, which give the money back."""
    before = refund["status"]
    if before in ("failed", "canceled") or before == status:
        raise wrong_state(f"The refund has the status {before}.", "refund_over")
    refund["status"] = status
    if status != "succeeded":
        _undo(ctx, refund)
    ctx.state.put(refund)
    emit(ctx, "refund.updated", refund, {"status": before})
    emit(ctx, "charge.refund.updated", refund, {"status": before})
    if status == "failed":
        emit(ctx, "refund.failed", refund)
    return refund


def _undo(ctx: Context, refund: JsonObject) -> None:
    charge = ctx.get(refund["charge"], "charge", "charge")
    booked = bookings.book_refund_failure(ctx, refund)
    refund["failure_balance_transaction"] = booked["id"]
    if refund["status"] == "failed":
        refund["failure_reason"] = "expired_or_canceled_card"
    _add(ctx, charge, -refund["amount"])
