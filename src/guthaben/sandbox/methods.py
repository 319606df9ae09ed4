"""Owns saved payment methods: making, finding, attaching, detaching, and what they will do.

The card number and what a control call has ordered for a method are kept beside it, never in the
object that the API shows. It charges nothing.
"""

from guthaben.sandbox import cards, objects
from guthaben.sandbox.cards import CARDS, TOKENS, TWINT, Card, card_of
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import ApiError, JsonObject, invalid, no_such
from guthaben.sandbox.events import emit

_DEFAULT_CARD = "4242424242424242"


def make(ctx: Context, card: Card, **given: object) -> JsonObject:
    """Make a payment method that belongs to nobody yet."""
    method = objects.payment_method(ctx.now_s(), card, **given)
    return ctx.state.put(method, {"number": card.number})


def known_card(number: str, param: str) -> Card:
    """Return a test card, or refuse the number."""
    card = card_of(number)
    if card is None:
        message = "The number is none of the sandbox's test cards."
        raise ApiError(402, message, kind="card_error", code="incorrect_number", param=param)
    return card


def resolve(ctx: Context, reference: str, param: str) -> JsonObject:
    """Return the method with that id; a well-known test id makes a fresh one."""
    if reference in TOKENS:
        return make(ctx, CARDS[TOKENS[reference]])
    found = ctx.state.find(reference, "payment_method")
    if found is None:
        raise no_such("PaymentMethod", reference, param)
    return found


def card_behind(ctx: Context, method: JsonObject) -> Card:
    """Return the test card behind a method."""
    number = ctx.state.private(method["id"]).get("number", _DEFAULT_CARD)
    return TWINT if number == TWINT.number else CARDS[number]


def outcome(ctx: Context, method: JsonObject, *, off_session: bool) -> str:
    """Return what charging the method through the API does."""
    ordered = ctx.state.private(method["id"]).get("outcome")
    if ordered is not None:
        return str(ordered)
    card = card_behind(ctx, method)
    later = off_session or card.later == cards.AUTHENTICATION or method["customer"] is not None
    return card.later if later else card.on_page


def give_mandate(ctx: Context, method: JsonObject) -> str | None:
    """Return the id of the mandate under which a saved method may be charged; cards need none."""
    if method["type"] == "card":
        return None
    private = ctx.state.private(method["id"])
    if "mandate" not in private:
        made = ctx.state.put(objects.mandate(ctx.now_s(), method))
        private["mandate"] = made["id"]
        ctx.state.put(method, private)
    return str(private["mandate"])


def mandate_of(ctx: Context, method: JsonObject) -> JsonObject | None:
    """Return the mandate of a saved method."""
    return ctx.state.find(ctx.state.private(method["id"]).get("mandate", ""), "mandate")


def revoke_mandate(ctx: Context, method: JsonObject) -> JsonObject:
    """Let the payer take the mandate back, in the app."""
    mandate = mandate_of(ctx, method)
    if mandate is None or mandate["status"] != "active":
        raise invalid("The payment method has no active mandate.", "payment_method")
    mandate["status"] = "inactive"
    ctx.state.put(mandate)
    emit(ctx, "mandate.updated", mandate, {"status": "active"})
    return mandate


def refuse_without_mandate(ctx: Context, method: JsonObject) -> None:
    """Refuse to charge a saved method whose mandate was taken back."""
    if method["type"] == "card":
        return
    mandate = mandate_of(ctx, method)
    if mandate is None or mandate["status"] != "active":
        message = "The mandate of the payment method is not active."
        raise invalid(message, "payment_method", "payment_intent_mandate_invalid")


def order_outcome(ctx: Context, method: JsonObject, word: str | None) -> None:
    """Decide what a method does from now on; None returns to its card's own outcome."""
    private = ctx.state.private(method["id"]) | {"outcome": word}
    ctx.state.put(method, private)


def is_slow(ctx: Context, reference: str | None) -> bool:
    """Tell whether charging the method answers late. Writes nothing."""
    if reference in TOKENS:
        return CARDS[TOKENS[reference]].later == cards.SLOW
    method = ctx.state.find(reference or "", "payment_method")
    return method is not None and outcome(ctx, method, off_session=True) == cards.SLOW


def attach(ctx: Context, method: JsonObject, customer_id: str) -> JsonObject:
    """Save a method for a customer; saving the same pair again changes nothing."""
    if method["customer"] == customer_id:
        return method
    refuse_if_unusable(ctx, method, None)
    method["customer"] = customer_id
    ctx.state.put(method)
    emit(ctx, "payment_method.attached", method)
    return method


def detach(ctx: Context, method: JsonObject) -> JsonObject:
    """Take a method from its customer; it can't be used again."""
    if method["customer"] is None:
        raise invalid("The payment method is attached to no customer.", "payment_method")
    method["customer"] = None
    ctx.state.put(method, ctx.state.private(method["id"]) | {"spent": True})
    emit(ctx, "payment_method.detached", method)
    return method


def refuse_if_unusable(ctx: Context, method: JsonObject, customer_id: str | None) -> None:
    """Refuse a method that is another customer's, or was detached."""
    if method["customer"] is not None and method["customer"] != customer_id:
        message = "The payment method belongs to another customer; name that customer."
        raise invalid(message, "payment_method")
    if ctx.state.private(method["id"]).get("spent"):
        message = "The payment method was detached, or used without a customer; it is spent."
        raise invalid(message, "payment_method")


def mark_used(ctx: Context, method: JsonObject) -> None:
    """Remember that a method without a customer has been used: it serves only once."""
    if method["customer"] is None:
        ctx.state.put(method, ctx.state.private(method["id"]) | {"spent": True})
