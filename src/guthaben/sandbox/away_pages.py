"""Owns the pages to which a payer is sent away: the bank's authentication, and TWINT.

Both end an intent in `requires_action`; a payer who closes the page leaves it open. They decide
nothing: buttons end in `checkout`.
"""

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from guthaben.sandbox import checkout
from guthaben.sandbox.cards import AUTHENTICATION, PROVIDER, SUCCEEDS
from guthaben.sandbox.checkout_pages import (
    HEADERS,
    PageRoutes,
    message,
    redirect,
    show_money,
    typed_in,
)
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.page_texts import AUTHENTICATE, TWINT

_ENVIRONMENT = Environment(autoescape=True)
_AUTHENTICATE = _ENVIRONMENT.from_string(AUTHENTICATE)
_TWINT = _ENVIRONMENT.from_string(TWINT)


class AwayPages(PageRoutes):
    """Serves /c/authenticate and /c/twint."""

    def routes(self) -> list[Route]:
        """Return the pages' addresses."""
        return [
            Route("/c/authenticate/{intent_id}", self.ask, methods=["GET"]),
            Route("/c/authenticate/{intent_id}", self.authenticate, methods=["POST"]),
            Route("/c/twint/{intent_id}", self.show_twint, methods=["GET"]),
            Route("/c/twint/{intent_id}", self.answer_twint, methods=["POST"]),
        ]

    def _waiting(self, request: Request, *kinds: str) -> JsonObject | None:
        found = self._state.find(request.path_params["intent_id"])
        if found is None or found["object"] not in kinds or found["status"] != "requires_action":
            return None
        return found

    async def ask(self, request: Request) -> Response:
        """Ask the card's holder to authenticate a payment."""
        intent = self._waiting(request, "payment_intent")
        if intent is None:
            return _nothing()
        amount = show_money(intent["amount"], intent["currency"])
        return HTMLResponse(_AUTHENTICATE.render(amount=amount), 200, HEADERS)

    async def authenticate(self, request: Request) -> Response:
        """Take the holder's answer."""
        typed = await typed_in(request)
        intent = self._waiting(request, "payment_intent")
        if intent is None:
            return _nothing()
        return_url = intent["next_action"]["redirect_to_url"]["return_url"]
        outcome = SUCCEEDS if typed.get("action") == "complete" else AUTHENTICATION
        self._settle(request, intent, outcome)
        return _send_back(return_url, intent)

    async def show_twint(self, request: Request) -> Response:
        """Ask the payer to pay, or to save the account, as the TWINT app would."""
        intent = self._waiting(request, "payment_intent", "setup_intent")
        if intent is None:
            return _nothing()
        pays = intent["object"] == "payment_intent"
        amount = show_money(intent["amount"], intent["currency"]) if pays else None
        return HTMLResponse(_TWINT.render(amount=amount), 200, HEADERS)

    async def answer_twint(self, request: Request) -> Response:
        """Take the payer's answer, and bring the payer back to where it came from."""
        typed = await typed_in(request)
        intent = self._waiting(request, "payment_intent", "setup_intent")
        if intent is None:
            return _nothing()
        return_url = intent["next_action"]["redirect_to_url"]["return_url"]
        context = self._context(request)
        session = checkout.session_of(context, intent)
        self._settle(request, intent, SUCCEEDS if typed.get("action") == "pay" else PROVIDER)
        if session is None:
            return _send_back(return_url, intent)
        # The page of a session knows what to show: where a paid one leads, or the choice again.
        return redirect(f"{context.base_url}/c/pay/{session['id']}")

    def _settle(self, request: Request, intent: JsonObject, outcome: str) -> None:
        pays = intent["object"] == "payment_intent"
        settle = checkout.settle_intent if pays else checkout.settle_setup
        with self._state.transaction():
            settle(self._context(request), intent, outcome)
        self._postman.wake()


def _nothing() -> Response:
    return message("Nothing here", "No payment waits here. It may have expired.", 404)


def _send_back(return_url: str | None, intent: JsonObject) -> Response:
    if return_url:
        sign = "&" if "?" in return_url else "?"
        return redirect(f"{return_url}{sign}payment_intent={intent['id']}")
    return message("Thank you", f"The payment is now: {intent['status']}.", 200)
