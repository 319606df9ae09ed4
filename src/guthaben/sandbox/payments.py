"""Owns the life of a PaymentIntent: created, attempted, settled, canceled, and its charges.

Law: an intent has at most one succeeded charge. It knows no Checkout; refunds and disputes are in
their own modules.
"""

from typing import Final

from guthaben.sandbox import bookings, methods, money_objects, objects
from guthaben.sandbox.cards import AUTHENTICATION, DECLINES, PROCESSING, Decline
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import ApiError, JsonObject, invalid, wrong_state
from guthaben.sandbox.events import emit

MINIMA: Final = dict.fromkeys(("chf", "eur", "usd", "cad", "aud", "jpy", "nzd", "sgd"), 50) | {
    "gbp": 30,
    "dkk": 250,
    "nok": 300,
    "sek": 300,
    "pln": 200,
    "czk": 1500,
    "huf": 17500,
}
_MAXIMUM: Final = 99_999_999
_CANCELABLE: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
_UNEXPECTED: Final = "payment_intent_unexpected_state"


def check_currency(currency: str, param: str) -> str:
    """Return the currency in lower case, or refuse an unknown one."""
    if currency.lower() not in MINIMA:
        raise invalid(f"Invalid currency: {currency[:10]}", param)
    return currency.lower()


def check_amount(amount: int, currency: str, param: str) -> int:
    """Return the amount, or refuse one below the currency's minimum or above the limit."""
    if amount < MINIMA[currency]:
        message = f"Amount must be at least {MINIMA[currency]} {currency}."
        raise invalid(message, param, "amount_too_small")
    if amount > _MAXIMUM:
        message = f"Amount must be no more than {_MAXIMUM} {currency}."
        raise invalid(message, param, "amount_too_large")
    return amount


def create(ctx: Context, amount: int, currency: str, **given: object) -> JsonObject:
    """Create an intent."""
    intent = ctx.state.put(objects.payment_intent(ctx.now_s(), amount, currency, **given))
    emit(ctx, "payment_intent.created", intent)
    return intent


def refuse_unless(intent: JsonObject, *statuses: str) -> None:
    """Refuse a step that the intent's status does not allow."""
    if intent["status"] not in statuses:
        message = f"The PaymentIntent has the status {intent['status']}."
        raise wrong_state(message, _UNEXPECTED, payment_intent=intent)


def attempt(
    ctx: Context, intent: JsonObject, method: JsonObject, outcome: str, *, off_session: bool
) -> JsonObject | None:
    """Charge the method; return the error if the attempt failed. Keeps the intent's new state."""
    intent["payment_method"] = method["id"]
    if outcome == AUTHENTICATION and not off_session:
        require_action(ctx, intent, f"{ctx.base_url}/c/authenticate/{intent['id']}")
        return None
    return _conclude(ctx, intent, method, outcome)


def _conclude(
    ctx: Context, intent: JsonObject, method: JsonObject, outcome: str
) -> JsonObject | None:
    if outcome in DECLINES:
        charge = money_objects.charge(ctx.now_s(), intent, method)
        return _decline(ctx, intent, method, charge, DECLINES[outcome])
    mandate_id = None
    if intent["customer"] and (intent["setup_future_usage"] or method["customer"]):
        methods.attach(ctx, method, intent["customer"])
        mandate_id = methods.give_mandate(ctx, method)
    methods.mark_used(ctx, method)
    charge = money_objects.charge(ctx.now_s(), intent, method, mandate_id)
    if outcome == PROCESSING:
        _process(ctx, intent, charge)
    else:
        _succeed(ctx, intent, charge)
    return None


def _succeed(ctx: Context, intent: JsonObject, charge: JsonObject) -> None:
    booked = bookings.book_charge(ctx, charge)
    charge |= {
        "amount_captured": charge["amount"],
        "balance_transaction": booked["id"],
        "captured": True,
        "outcome": money_objects.approved(),
        "paid": True,
        "receipt_url": f"{ctx.base_url}/c/receipt/{charge['id']}",
        "status": "succeeded",
    }
    _close(ctx, intent, charge, status="succeeded", amount_received=charge["amount"])
    emit(ctx, "charge.succeeded", charge)
    emit(ctx, "payment_intent.succeeded", intent)


def _process(ctx: Context, intent: JsonObject, charge: JsonObject) -> None:
    kind = charge["payment_method_details"]["type"]
    processing = {"type": kind, kind: {}}
    _close(ctx, intent, charge, status="processing", processing=processing)
    emit(ctx, "charge.pending", charge)
    emit(ctx, "payment_intent.processing", intent)


def _decline(
    ctx: Context, intent: JsonObject, method: JsonObject, charge: JsonObject, decline: Decline
) -> JsonObject:
    charge |= {
        "failure_code": decline.code,
        "failure_message": decline.message,
        "outcome": money_objects.refused(decline),
        "status": "failed",
    }
    error = decline_error(decline, method) | {"charge": charge["id"]}
    _close(
        ctx,
        intent,
        charge,
        status="requires_payment_method",
        last_payment_error=error,
        payment_method=None,
    )
    emit(ctx, "charge.failed", charge)
    emit(ctx, "payment_intent.payment_failed", intent)
    return error | {"payment_intent": intent}


def decline_error(decline: Decline, method: JsonObject) -> JsonObject:
    """Return the error of a declined card."""
    error = {
        "type": "card_error" if method["type"] == "card" else "invalid_request_error",
        "code": decline.code,
        "message": decline.message,
        "payment_method": method,
    }
    optional = {"decline_code": decline.decline_code, "advice_code": decline.advice_code}
    return error | {name: value for name, value in optional.items() if value is not None}


def require_action(
    ctx: Context, intent: JsonObject, url: str, return_url: str | None = None
) -> None:
    """Send the payer to another page, to authenticate or to pay there."""
    redirect = {"return_url": return_url, "url": url}
    intent |= {
        "status": "requires_action",
        "next_action": {"type": "redirect_to_url", "redirect_to_url": redirect},
    }
    ctx.state.put(intent)
    emit(ctx, f"{intent['object']}.requires_action", intent)


def _close(ctx: Context, intent: JsonObject, charge: JsonObject, **changes: object) -> None:
    ctx.state.put(charge)
    intent |= {"next_action": None, "processing": None, "last_payment_error": None}
    intent |= changes | {"latest_charge": charge["id"]}
    ctx.state.put(intent)


def settle(ctx: Context, intent: JsonObject, outcome: str) -> None:
    """End what was left open by `processing`, an authentication or another page."""
    refuse_unless(intent, "processing", "requires_action")
    method = ctx.get(intent["payment_method"], "payment_method", "payment_method")
    if intent["status"] == "requires_action":
        _conclude(ctx, intent, method, outcome)
        return
    charge = ctx.get(intent["latest_charge"], "charge", "charge")
    if outcome == PROCESSING:
        raise invalid("The payment is in processing already.", "outcome")
    if outcome in DECLINES:
        _decline(ctx, intent, method, charge, DECLINES[outcome])
    else:
        _succeed(ctx, intent, charge)


def come_back(ctx: Context, intent: JsonObject, outcome: str) -> None:
    """Let the customer pay an intent after all that had failed, with the method it failed with."""
    refuse_unless(intent, "requires_payment_method")
    failed = (intent["last_payment_error"] or {}).get("payment_method")
    if failed is None:
        raise refuse_missing_method(intent)
    method = ctx.get(failed["id"], "payment_method", "payment_method")
    attempt(ctx, intent, method, AUTHENTICATION, off_session=False)
    settle(ctx, intent, outcome)


def cancel(ctx: Context, intent: JsonObject, reason: str | None) -> JsonObject:
    """Cancel an intent that has taken no money."""
    refuse_unless(intent, *_CANCELABLE)
    intent |= {
        "canceled_at": ctx.now_s(),
        "cancellation_reason": reason,
        "next_action": None,
        "status": "canceled",
    }
    ctx.state.put(intent)
    emit(ctx, "payment_intent.canceled", intent)
    return intent


def is_cancelable(intent: JsonObject) -> bool:
    """Tell whether an intent can be canceled: nothing was paid, nothing is under way."""
    return intent["status"] in _CANCELABLE


def refuse_missing_method(intent: JsonObject) -> ApiError:
    """Return the refusal to confirm an intent without a payment method."""
    message = "The PaymentIntent can't be confirmed without a payment method."
    return wrong_state(message, _UNEXPECTED, payment_intent=intent)
