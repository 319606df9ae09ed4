"""Owns what is special about TWINT: Swiss francs only, a limit, and a page outside of Checkout.

Saved TWINT accounts (possible since API 2026-05-27) are charged under a mandate, which `methods`
keeps. What the payer sees is in `twint_pages`.
"""

from typing import Final

from guthaben.sandbox.cards import TWINT, TWINT_LIMIT
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid
from guthaben.sandbox.form import Params

TYPE: Final = TWINT.type
# What the account has switched on; the API picks of these what fits a payment.
_ACCOUNT: Final = ("card", TYPE)


def types_for(
    params: Params, amount: int, currency: str | None, *, redirects: bool = True
) -> list[str]:
    """Return the types of payment methods that fit, of those that the parameters let through."""
    allowed = params.texts("allowed_payment_method_types") or list(_ACCOUNT)
    excluded = params.texts("excluded_payment_method_types")
    fitting = [
        kind
        for kind in _ACCOUNT
        if kind in allowed
        and kind not in excluded
        and (kind != TYPE or (redirects and _fits(amount, currency)))
    ]
    if not fitting:
        message = "No payment method of the account fits this payment."
        raise invalid(message, "allowed_payment_method_types")
    return fitting


def _fits(amount: int, currency: str | None) -> bool:
    return currency == "chf" and amount <= TWINT_LIMIT


def refuse_unfit(intent: JsonObject, method: JsonObject) -> None:
    """Refuse a method of a type that the intent doesn't take."""
    if method["type"] not in intent["payment_method_types"]:
        message = f"The PaymentIntent takes no payment methods of type {method['type']}."
        raise invalid(message, "payment_method", "payment_intent_incompatible_payment_method")


def page_url(ctx: Context, intent: JsonObject) -> str:
    """Return where the payer of an intent, or of a set-up, meets TWINT."""
    return f"{ctx.base_url}/c/twint/{intent['id']}"
