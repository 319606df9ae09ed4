"""Owns the shape of charges, refunds, disputes and fraud warnings. Pure builders."""

from guthaben.sandbox.cards import Decline
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.form import words
from guthaben.sandbox.ids import new_id


def charge(
    now_s: int, intent: JsonObject, method: JsonObject, mandate_id: str | None = None
) -> JsonObject:
    """Build a pending charge of an intent's whole amount; what is no card has ids in `py_`."""
    kind = method["type"]
    charge_id = new_id("ch" if kind == "card" else "py")
    details = _card_details(method) if kind == "card" else {"mandate": mandate_id}
    return {
        "id": charge_id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SANDBOX",
        "captured": False,
        "created": now_s,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "on_behalf_of": None,
        "outcome": None,
        "paid": False,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {kind: details, "type": kind},
        "presentment_details": None,
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "pending",
        "transfer_data": None,
        "transfer_group": None,
    }


def _card_details(method: JsonObject) -> JsonObject:
    card = method["card"]
    shown = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {name: card[name] for name in (*shown, "last4", "regulated_status", "wallet")} | {
        "authorization_code": None,
        "installments": None,
        "mandate": None,
        "network": card["brand"],
        "network_token": {"used": False},
        "network_transaction_id": None,
        "three_d_secure": None,
    }


def approved() -> JsonObject:
    """Build the outcome of a charge that went through."""
    return _outcome("approved_by_network", "authorized", None, "Payment complete.")


def refused(decline: Decline) -> JsonObject:
    """Build the outcome of a charge that was declined."""
    outcome = _outcome("declined_by_network", "issuer_declined", decline.decline_code, "Declined.")
    outcome["reason"] = decline.decline_code or decline.code
    return outcome | {"advice_code": decline.advice_code}


def _outcome(network: str, kind: str, decline_code: str | None, message: str) -> JsonObject:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": decline_code and "05",
        "network_status": network,
        "reason": None,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": message,
        "type": kind,
    }


_DESTINATION: JsonObject = {
    "reference_status": "pending",
    "reference_type": "acquirer_reference_number",
    "type": "refund",
}


def refund(now_s: int, charged: JsonObject, amount: int, **given: object) -> JsonObject:
    """Build a refund of a charge or of a part of it."""
    kind = charged["payment_method_details"]["type"]
    return {
        "id": new_id("re" if kind == "card" else "pyr"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charged["id"],
        "created": now_s,
        "currency": charged["currency"],
        "customer": charged["customer"],
        "customer_account": None,
        "destination_details": {kind: _DESTINATION if kind == "card" else {}, "type": kind},
        "metadata": {},
        "payment_intent": charged["payment_intent"],
        "payment_method": charged["payment_method"],
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    } | given


_EVIDENCE = words(
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure "
    "cancellation_rebuttal customer_communication customer_email_address customer_name "
    "customer_purchase_ip customer_signature duplicate_charge_documentation "
    "duplicate_charge_explanation duplicate_charge_id product_description receipt refund_policy "
    "refund_policy_disclosure refund_refusal_explanation service_date service_documentation "
    "shipping_address shipping_carrier shipping_date shipping_documentation "
    "shipping_tracking_number uncategorized_file uncategorized_text"
)


def dispute(now_s: int, charged: JsonObject, amount: int, reason: str, status: str) -> JsonObject:
    """Build a dispute of a charge."""
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charged["id"],
        "created": now_s,
        "currency": charged["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(sorted(_EVIDENCE)), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now_s + 7 * 86400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": status.startswith("warning"),
        "livemode": False,
        "metadata": {},
        "payment_intent": charged["payment_intent"],
        "reason": reason,
        "status": status,
    } | _disputed_card(charged, status)


def _disputed_card(charged: JsonObject, status: str) -> JsonObject:
    details = charged["payment_method_details"]
    if details["type"] != "card":
        return {}
    card = {
        "brand": details["card"]["brand"],
        "case_type": "inquiry" if status.startswith("warning") else "chargeback",
        "network_reason_code": "10.4",
    }
    return {"payment_method_details": {"card": card, "type": "card"}}


def early_fraud_warning(now_s: int, charged: JsonObject, fraud_type: str) -> JsonObject:
    """Build a warning that a charge may be disputed."""
    return {
        "id": new_id("issfr"),
        "object": "radar.early_fraud_warning",
        "actionable": not charged["refunded"],
        "charge": charged["id"],
        "created": now_s,
        "fraud_type": fraud_type,
        "livemode": False,
        "payment_intent": charged["payment_intent"],
    }
