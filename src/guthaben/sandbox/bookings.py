"""Owns the balance: one transaction for each movement of money, with fee, net and source.

Law: net = amount - fee, and what came of a source and went back nets to the fees. There are no
payouts. A transaction is `pending` until its day of availability; that is told when it is read.
"""

from typing import Final

from guthaben.sandbox import fees
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import new_id

_AVAILABLE_AFTER_S: Final = 7 * 86_400


def book_charge(ctx: Context, charge: JsonObject) -> JsonObject:
    """Book a charge that went through."""
    paid_with = charge["payment_method_details"]["type"]
    kind = "charge" if paid_with == "card" else "payment"
    fee = fees.fee_of(ctx.state, paid_with, charge["amount"])
    return _book(ctx, charge, kind, charge["amount"], fee, category="charge")


def book_refund(ctx: Context, refund: JsonObject, charge: JsonObject) -> JsonObject:
    """Book a refund; the fee of the charge is not given back."""
    paid_with = charge["payment_method_details"]["type"]
    kind = "refund" if paid_with == "card" else "payment_refund"
    return _book(ctx, refund, kind, -refund["amount"], category="refund")


def book_refund_failure(ctx: Context, refund: JsonObject) -> JsonObject:
    """Book that a refund came back."""
    return _book(ctx, refund, "refund_failure", refund["amount"], category="refund_failure")


def book_dispute(ctx: Context, dispute: JsonObject) -> JsonObject:
    """Book that a disputed amount was withdrawn, and the fee for it."""
    fee = fees.fee_of(ctx.state, "dispute", dispute["amount"])
    return _book(ctx, dispute, "adjustment", -dispute["amount"], fee, category="dispute")


def book_dispute_reversal(ctx: Context, dispute: JsonObject) -> JsonObject:
    """Book that a disputed amount came back."""
    return _book(ctx, dispute, "adjustment", dispute["amount"], category="dispute_reversal")


def _book(
    ctx: Context, source: JsonObject, kind: str, amount: int, fee: int = 0, *, category: str
) -> JsonObject:
    told = {"application": None, "description": "Processing fee", "type": "stripe_fee"}
    detail = {"amount": fee, "currency": source["currency"], **told}
    return ctx.state.put(
        {
            "id": new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": ctx.now_s() + _AVAILABLE_AFTER_S,
            "balance_type": "payments",
            "created": ctx.now_s(),
            "currency": source["currency"],
            "description": None,
            "exchange_rate": None,
            "fee": fee,
            "fee_details": [detail] if fee else [],
            "net": amount - fee,
            "reporting_category": category,
            "source": source["id"],
            "status": "pending",
            "type": kind,
        }
    )


def as_of_now(ctx: Context, booked: JsonObject) -> JsonObject:
    """Return a transaction with its status as it is now."""
    done = booked["available_on"] <= ctx.now_s()
    return booked | {"status": "available" if done else "pending"}
