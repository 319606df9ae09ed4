"""Owns refunds and disputes: money that goes back, and what that does to the charge.

`charge.amount_refunded` is cumulative; a refund that fails is taken out of it again.
"""

from guthaben.sandbox import methods, money_objects
from guthaben.sandbox.cards import PENDING_REFUNDS
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, wrong_state
from guthaben.sandbox.events import emit


def create(
    ctx: Context, charge: JsonObject, amount: int | None, reason: str | None, **given: object
) -> JsonObject:
    """Refund a charge, or a part of it."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if not charge["paid"]:
        raise wrong_state("The charge has taken no money.", "charge_not_refundable")
    if charge["disputed"] and not charge["refunded"]:
        raise wrong_state("The charge is disputed.", "charge_disputed")
    if left == 0:
        raise wrong_state("The charge has already been refunded.", "charge_already_refunded")
    if amount is not None and amount > left:
        raise invalid(f"Refund amount ({amount}) is more than what is left ({left}).", "amount")
    status = "pending" if _stays_pending(ctx, charge) else "succeeded"
    refund = money_objects.refund(
        ctx.now_s(), charge, amount or left, reason=reason, status=status, **given
    )
    booked = money_objects.balance_transaction(ctx.now_s(), refund, "refund", -refund["amount"])
    refund["balance_transaction"] = ctx.state.put(booked)["id"]
    ctx.state.put(refund)
    _add(ctx, charge, refund["amount"])
    emit(ctx, "refund.created", refund)
    emit(ctx, "charge.refunded", charge)
    return refund


def _stays_pending(ctx: Context, charge: JsonObject) -> bool:
    method = ctx.get(charge["payment_method"], "payment_method", "payment_method")
    return methods.card_behind(ctx, method).number == PENDING_REFUNDS


def _add(ctx: Context, charge: JsonObject, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    ctx.state.put(charge)


def settle(ctx: Context, refund: JsonObject, status: str) -> JsonObject:
    """End a refund: `succeeded`, or `failed` and `canceled`, which give the money back."""
    if refund["status"] in ("failed", "canceled") or refund["status"] == status:
        raise wrong_state(f"The refund has the status {refund['status']}.", "refund_over")
    refund["status"] = status
    if status != "succeeded":
        _undo(ctx, refund)
    ctx.state.put(refund)
    emit(ctx, "refund.updated", refund)
    emit(ctx, "charge.refund.updated", refund)
    if status == "failed":
        emit(ctx, "refund.failed", refund)
    return refund


def _undo(ctx: Context, refund: JsonObject) -> None:
    charge = ctx.get(refund["charge"], "charge", "charge")
    booked = money_objects.balance_transaction(
        ctx.now_s(), refund, "refund_failure", refund["amount"]
    )
    refund["failure_balance_transaction"] = ctx.state.put(booked)["id"]
    if refund["status"] == "failed":
        refund["failure_reason"] = "expired_or_canceled_card"
    _add(ctx, charge, -refund["amount"])


def open_dispute(
    ctx: Context, charge: JsonObject, amount: int | None, reason: str, *, inquiry: bool
) -> JsonObject:
    """Open a dispute; unless it is only an inquiry, the money is withdrawn at once."""
    if not charge["paid"] or charge["disputed"]:
        raise invalid("The charge can't be disputed.", "charge")
    status = "warning_needs_response" if inquiry else "needs_response"
    dispute = money_objects.dispute(ctx.now_s(), charge, amount or charge["amount"], reason, status)
    charge["disputed"] = True
    ctx.state.put(charge)
    if not inquiry:
        _book(ctx, dispute, -dispute["amount"])
    ctx.state.put(dispute)
    emit(ctx, "charge.dispute.created", dispute)
    if not inquiry:
        emit(ctx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def _book(ctx: Context, dispute: JsonObject, amount: int) -> None:
    booked = money_objects.balance_transaction(ctx.now_s(), dispute, "adjustment", amount)
    dispute["balance_transactions"].append(ctx.state.put(booked))


def close_dispute(ctx: Context, dispute: JsonObject, status: str) -> JsonObject:
    """Close a dispute: `won` gives the money back, `lost` keeps it, `warning_closed` ends a hint.

    A lost dispute may still be closed as won: some are reopened.
    """
    inquiry = dispute["status"].startswith("warning")
    if inquiry != (status == "warning_closed") or dispute["status"] in ("won", "warning_closed"):
        message = f"A dispute that is {dispute['status']} can't be closed as {status}."
        raise invalid(message, "status")
    dispute["status"] = status
    if status == "won":
        _book(ctx, dispute, dispute["amount"])
    ctx.state.put(dispute)
    emit(ctx, "charge.dispute.closed", dispute)
    if status == "won":
        emit(ctx, "charge.dispute.funds_reinstated", dispute)
    return dispute


def warn_of_fraud(ctx: Context, charge: JsonObject) -> JsonObject:
    """Send an early fraud warning for a charge."""
    warning = ctx.state.put(money_objects.early_fraud_warning(ctx.now_s(), charge))
    emit(ctx, "radar.early_fraud_warning.created", warning)
    return warning
