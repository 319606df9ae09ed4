"""Owns what is special about TWINT: Swiss francs only, a limit, and a page outside of Checkout.

Saved TWINT accounts (possible since API 2026-05-27) are charged under a mandate, which `methods`
keeps. What the payer sees is in `twint_pages`.
"""

from typing import Final

from guthaben.sandbox.cards import TWINT, TWINT_LIMIT
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid

TYPE: Final = TWINT.type
_KNOWN: Final = frozenset({"card", TYPE})


def check_types(asked: list[str], param: str) -> None:
    """Refuse types of payment methods that the sandbox doesn't have."""
    unknown = set(asked) - _KNOWN
    if unknown or not asked:
        raise invalid("The sandbox knows payment methods of types card and twint.", param)


def fits(amount: int, currency: str) -> bool:
    """Tell whether a payment can be made with TWINT."""
    return currency == "chf" and amount <= TWINT_LIMIT


def refuse_unless_fits(amount: int, currency: str, param: str) -> None:
    """Refuse to offer TWINT for a payment that it can't make."""
    if currency != "chf":
        raise invalid("TWINT pays in chf only.", param)
    if amount > TWINT_LIMIT:
        message = f"TWINT pays at most {TWINT_LIMIT} chf."
        raise invalid(message, param, "amount_too_large")


def refuse_unfit(intent: JsonObject, method: JsonObject) -> None:
    """Refuse a method of a type that the intent doesn't take."""
    if method["type"] not in intent["payment_method_types"]:
        message = f"The PaymentIntent takes no payment methods of type {method['type']}."
        raise invalid(message, "payment_method", "payment_intent_incompatible_payment_method")


def page_url(ctx: Context, intent: JsonObject) -> str:
    """Return where the payer of an intent, or of a set-up, meets TWINT."""
    return f"{ctx.base_url}/c/twint/{intent['id']}"
