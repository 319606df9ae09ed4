"""Owns the endpoints of charges, refunds, disputes, fraud warnings and balance transactions."""

from guthaben.sandbox import bookings, disputes, refunds
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, missing_parameter, wrong_state
from guthaben.sandbox.events import emit
from guthaben.sandbox.form import Params
from guthaben.sandbox.listing import page

_REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
_BY_PAYMENT = ("charge", "payment_intent")


def get_charge(ctx: Context, params: Params, charge_id: str) -> JsonObject:
    """GET /v1/charges/{id}"""
    return ctx.at_path(charge_id, "charge", "charge")


def list_charges(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/charges"""
    return page(ctx, params, "charge", "/v1/charges", ("customer", "payment_intent"))


def create_refund(ctx: Context, params: Params) -> JsonObject:
    """POST /v1/refunds, by charge or by PaymentIntent"""
    charge_id, intent_id = params.text("charge"), params.text("payment_intent")
    if charge_id is None and intent_id is None:
        raise missing_parameter("charge")
    if charge_id is None and intent_id is not None:
        intent = ctx.get(intent_id, "payment_intent", "payment_intent")
        charge_id = intent["latest_charge"]
        if intent["status"] != "succeeded" or charge_id is None:
            raise invalid("The PaymentIntent has no successful charge.", "payment_intent")
    charge = ctx.get(charge_id or "", "charge", "charge")
    if intent_id is not None and charge["payment_intent"] != intent_id:
        raise invalid("The charge is not the PaymentIntent's.", "charge")
    amount = params.integer("amount", minimum=1)
    reason = params.choice("reason", _REFUND_REASONS)
    return refunds.create(ctx, charge, amount, reason, metadata=params.metadata())


def update_refund(ctx: Context, params: Params, refund_id: str) -> JsonObject:
    """POST /v1/refunds/{id}; only metadata"""
    refund = ctx.at_path(refund_id, "refund", "id")
    refund["metadata"] = params.metadata(refund["metadata"])
    emit(ctx, "refund.updated", refund)
    return ctx.state.put(refund)


def cancel_refund(ctx: Context, params: Params, refund_id: str) -> JsonObject:
    """POST /v1/refunds/{id}/cancel; only a refund that waits for its receiver can be canceled"""
    refund = ctx.at_path(refund_id, "refund", "id")
    if refund["status"] != "requires_action":
        raise wrong_state(f"The refund has the status {refund['status']}.", "refund_over")
    return refunds.settle(ctx, refund, "canceled")


def get_refund(ctx: Context, params: Params, refund_id: str) -> JsonObject:
    """GET /v1/refunds/{id}"""
    return ctx.at_path(refund_id, "refund", "id")


def list_refunds(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/refunds"""
    return page(ctx, params, "refund", "/v1/refunds", _BY_PAYMENT)


def get_dispute(ctx: Context, params: Params, dispute_id: str) -> JsonObject:
    """GET /v1/disputes/{id}"""
    return ctx.at_path(dispute_id, "dispute", "dispute")


def update_dispute(ctx: Context, params: Params, dispute_id: str) -> JsonObject:
    """POST /v1/disputes/{id}: metadata, and evidence, which `submit` (the default) hands in"""
    dispute = ctx.at_path(dispute_id, "dispute", "dispute")
    dispute["metadata"] = params.metadata(dispute["metadata"])
    evidence = {name: value for name, value in (params.plain("evidence") or {}).items() if value}
    if not evidence:
        return ctx.state.put(dispute)
    if params.text("submit") == "false":
        return disputes.keep_evidence(ctx, dispute, evidence)
    return disputes.submit_evidence(ctx, dispute, evidence)


def close_dispute(ctx: Context, params: Params, dispute_id: str) -> JsonObject:
    """POST /v1/disputes/{id}/close: give it up"""
    return disputes.accept(ctx, ctx.at_path(dispute_id, "dispute", "dispute"))


def list_disputes(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/disputes"""
    return page(ctx, params, "dispute", "/v1/disputes", _BY_PAYMENT)


def get_fraud_warning(ctx: Context, params: Params, warning_id: str) -> JsonObject:
    """GET /v1/radar/early_fraud_warnings/{id}"""
    return ctx.at_path(warning_id, "radar.early_fraud_warning", "early_fraud_warning")


def list_fraud_warnings(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/radar/early_fraud_warnings"""
    url = "/v1/radar/early_fraud_warnings"
    return page(ctx, params, "radar.early_fraud_warning", url, _BY_PAYMENT)


def get_balance_transaction(ctx: Context, params: Params, transaction_id: str) -> JsonObject:
    """GET /v1/balance_transactions/{id}"""
    return bookings.as_of_now(ctx, ctx.at_path(transaction_id, "balance_transaction", "id"))


def list_balance_transactions(ctx: Context, params: Params) -> JsonObject:
    """GET /v1/balance_transactions"""
    fields = ("currency", "source", "type")
    answer = page(ctx, params, "balance_transaction", "/v1/balance_transactions", fields)
    answer["data"] = [bookings.as_of_now(ctx, booked) for booked in answer["data"]]
    return answer
