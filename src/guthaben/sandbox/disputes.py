"""Owns disputes and early fraud warnings: their states, and what they do to charge and balance.

Law: an inquiry (`warning_*`) moves no money; a chargeback withdraws its amount once, `won` gives
it back once, also when it comes after `lost`.
"""

from typing import Final

from guthaben.sandbox import bookings, money_objects
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, wrong_state
from guthaben.sandbox.events import emit

# From each state, the states that may follow; a lost dispute may still be won: some are reopened.
_NEXT: Final[dict[str, tuple[str, ...]]] = {
    "warning_needs_response": ("warning_under_review", "warning_closed", "needs_response"),
    "warning_under_review": ("warning_closed", "needs_response"),
    "warning_closed": (),
    "needs_response": ("under_review", "won", "lost"),
    "under_review": ("won", "lost"),
    "lost": ("won",),
    "won": (),
}
STATES: Final = tuple(_NEXT)
ENDS: Final = ("won", "lost", "warning_closed")


def open_dispute(
    ctx: Context, charge: JsonObject, amount: int | None, reason: str, *, inquiry: bool
) -> JsonObject:
    """Open a dispute; unless it is only an inquiry, the money is withdrawn at once."""
    if not charge["paid"] or charge["disputed"]:
        raise invalid("The charge can't be disputed.", "charge")
    disputed = charge["amount"] if amount is None else amount
    if disputed > charge["amount"]:
        raise invalid("A dispute can't be about more than the charge.", "amount")
    status = "warning_needs_response" if inquiry else "needs_response"
    dispute = money_objects.dispute(ctx.now_s(), charge, disputed, reason, status)
    charge["disputed"] = True
    ctx.state.put(charge)
    if not inquiry:
        dispute["balance_transactions"].append(bookings.book_dispute(ctx, dispute))
    ctx.state.put(dispute)
    emit(ctx, "charge.dispute.created", dispute)
    if not inquiry:
        emit(ctx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def move(ctx: Context, dispute: JsonObject, status: str) -> JsonObject:
    """Bring a dispute into its next state."""
    before = dispute["status"]
    if status not in _NEXT[before]:
        raise invalid(f"A dispute that is {before} can't become {status}.", "status")
    dispute["status"] = status
    moved = _move_money(ctx, dispute, before)
    ctx.state.put(dispute)
    if status in ENDS:
        emit(ctx, "charge.dispute.closed", dispute, {"status": before})
    else:
        emit(ctx, "charge.dispute.updated", dispute, {"status": before})
    if moved:
        emit(ctx, f"charge.dispute.{moved}", dispute)
    return dispute


def _move_money(ctx: Context, dispute: JsonObject, before: str) -> str | None:
    if dispute["status"] == "won":
        dispute["balance_transactions"].append(bookings.book_dispute_reversal(ctx, dispute))
        return "funds_reinstated"
    if dispute["status"] == "needs_response" and before.startswith("warning"):
        dispute |= {"is_charge_refundable": False}
        dispute["balance_transactions"].append(bookings.book_dispute(ctx, dispute))
        return "funds_withdrawn"
    return None


def submit_evidence(ctx: Context, dispute: JsonObject, evidence: JsonObject) -> JsonObject:
    """Hand evidence to the bank, which then reviews it."""
    if "needs_response" not in dispute["status"]:
        raise wrong_state(f"The dispute is {dispute['status']}.", "dispute_not_open")
    dispute["evidence"] |= evidence
    dispute["evidence_details"] |= {"has_evidence": True, "submission_count": 1}
    warning = dispute["status"].startswith("warning")
    return move(ctx, dispute, "warning_under_review" if warning else "under_review")


def keep_evidence(ctx: Context, dispute: JsonObject, evidence: JsonObject) -> JsonObject:
    """Keep evidence without handing it in."""
    dispute["evidence"] |= evidence
    dispute["evidence_details"]["has_evidence"] = True
    ctx.state.put(dispute)
    emit(ctx, "charge.dispute.updated", dispute)
    return dispute


def accept(ctx: Context, dispute: JsonObject) -> JsonObject:
    """Give a dispute up."""
    return move(ctx, dispute, "lost")


def stands(ctx: Context, charge: JsonObject) -> bool:
    """Tell whether a chargeback of a charge keeps it from being refunded."""
    found = ctx.state.select("dispute", {"charge": charge["id"]})
    return any(not dispute["status"].startswith("warning") for dispute in found)


def warn_of_fraud(ctx: Context, charge: JsonObject, fraud_type: str) -> JsonObject:
    """Send an early fraud warning for a charge."""
    warning = money_objects.early_fraud_warning(ctx.now_s(), charge, fraud_type)
    ctx.state.put(warning)
    emit(ctx, "radar.early_fraud_warning.created", warning)
    return warning


def calm_warnings(ctx: Context, charge: JsonObject) -> None:
    """Take warnings of a charge that was given back: nothing is left to do about them."""
    for warning in ctx.state.select("radar.early_fraud_warning", {"charge": charge["id"]}):
        if warning["actionable"] and charge["refunded"]:
            warning["actionable"] = False
            ctx.state.put(warning)
            emit(ctx, "radar.early_fraud_warning.updated", warning, {"actionable": True})
