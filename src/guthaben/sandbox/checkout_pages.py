"""Owns what a payer sees: the hosted Checkout page and the receipt.

Plain HTML, no script, nothing loaded from elsewhere; every value is escaped. It decides nothing:
buttons end in `checkout` and `payments`.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from guthaben.sandbox import checkout, passing
from guthaben.sandbox.cards import CARDS, SLOW, card_of
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.page_texts import MESSAGE, PAY
from guthaben.sandbox.state import State
from guthaben.sandbox.webhooks import Postman

_DECLINED_CARD = "4000000000000002"
_OK_CARD = "4242424242424242"
_ENVIRONMENT = Environment(autoescape=True)
_PAY = _ENVIRONMENT.from_string(PAY)
_MESSAGE = _ENVIRONMENT.from_string(MESSAGE)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


def show_money(amount: int, currency: str) -> str:
    """Return an amount for people, such as `CHF 30.00`."""
    if currency == "jpy":
        return f"JPY {amount}"
    units, rest = divmod(amount, 100)
    return f"{currency.upper()} {units}.{rest:02d}"


class PageRoutes:
    """What every group of pages is given."""

    def __init__(self, state: State, settings: Settings, postman: Postman) -> None:
        self._state = state
        self._settings = settings
        self._postman = postman

    def _context(self, request: Request) -> Context:
        base_url = self._settings.public_url or str(request.base_url).rstrip("/")
        return Context(self._state, self._settings, base_url)


class Pages(PageRoutes):
    """Serves everything under /c."""

    def routes(self) -> list[Route]:
        """Return the pages' addresses."""
        return [
            Route("/c/pay/{session_id}", self.show, methods=["GET"]),
            Route("/c/pay/{session_id}", self.press, methods=["POST"]),
            Route("/c/receipt/{charge_id}", self.receipt, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Response:
        """Show the page of an open session."""
        return self._show(request)

    def _show(
        self, request: Request, typed: Mapping[str, str] | None = None, error: str = ""
    ) -> Response:
        session = self._session(request)
        if session is None:
            return message("Nothing here", "There is no such payment page.", 404)
        if session["status"] == "complete":
            return redirect(success_url(session))
        if session["status"] != "open":
            text = "This payment page has expired. Go back and start again."
            return message("Expired", text, 410)
        typed = typed or {}
        page = _PAY.render(
            session=session,
            items=self._items(session),
            total=_total(session),
            cards=list(CARDS.values()) if "card" in session["payment_method_types"] else [],
            twint="twint" in session["payment_method_types"],
            chosen=typed.get("card", _OK_CARD),
            email=typed.get("email") or self._email(session),
            error=error,
        )
        return HTMLResponse(page, 200, HEADERS)

    def _session(self, request: Request) -> JsonObject | None:
        context = self._context(request)
        if passing.is_due(self._state):
            with self._state.transaction():
                passing.run(context)
            self._postman.wake()
        return self._state.find(request.path_params["session_id"], checkout.KIND)

    def _items(self, session: JsonObject) -> list[tuple[str, int, str]]:
        items = self._state.private(session["id"]).get("line_items", [])
        return [
            (i["description"], i["quantity"], show_money(i["amount_total"], i["currency"]))
            for i in items
        ]

    def _email(self, session: JsonObject) -> str:
        customer = self._state.find(session["customer"] or "", "customer") or {}
        return str(session["customer_email"] or customer.get("email") or "")

    async def press(self, request: Request) -> Response:
        """Do what the pressed button says."""
        typed = await typed_in(request)
        session = self._session(request)
        if session is None or session["status"] != "open":
            return self._show(request)
        if typed.get("action") == "cancel":
            if session["cancel_url"]:
                return redirect(session["cancel_url"])
            return message("Canceled", "Nothing has been paid. You may close this page.", 200)
        number = _DECLINED_CARD if typed.get("action") == "decline" else typed.get("card", "")
        card = card_of(number)
        if card is None or card.type not in session["payment_method_types"]:
            return self._show(request, typed, "Choose one of the ways to pay.")
        if card.on_page == SLOW:
            await asyncio.sleep(self._settings.slow_ms / 1000)
        email = session["customer_email"] or typed.get("email") or None
        return self._pay(request, typed, checkout.Payer(card, email, typed.get("name") or None))

    def _pay(self, request: Request, typed: Mapping[str, str], payer: checkout.Payer) -> Response:
        session = self._session(request)  # again: it may have been paid while a slow card waited
        if session is None or session["status"] != "open":
            return self._show(request)
        with self._state.transaction():
            pressed = checkout.pay(self._context(request), session, payer)
        self._postman.wake()
        if pressed.go_to:
            return redirect(pressed.go_to)
        return self._show(request, typed, pressed.error or "")

    async def receipt(self, request: Request) -> Response:
        """Show the receipt of a charge."""
        charge = self._state.find(request.path_params["charge_id"], "charge")
        if charge is None or not charge["paid"]:
            return message("Nothing here", "There is no such receipt.", 404)
        day = datetime.fromtimestamp(charge["created"], UTC).date().isoformat()
        amount = show_money(charge["amount"], charge["currency"])
        text = f"{amount} paid on {day} with {_means(charge)}."
        return message("Receipt", text, 200)


def _means(charge: JsonObject) -> str:
    details = charge["payment_method_details"]
    if details["type"] != "card":
        return "TWINT"
    return f"the card ending in {details['card']['last4']}"


def _total(session: JsonObject) -> str | None:
    if session["mode"] == "setup":
        return None
    return show_money(session["amount_total"], session["currency"])


def success_url(session: JsonObject) -> str:
    """Return where the payer goes after paying, with the session's id filled in."""
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


async def typed_in(request: Request) -> dict[str, str]:
    """Return what a form says."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def redirect(url: str) -> Response:
    """Send the payer on."""
    return RedirectResponse(url, 303)


def message(title: str, text: str, status: int) -> Response:
    """Show a page with a title and a sentence."""
    return HTMLResponse(_MESSAGE.render(title=title, text=text), status, HEADERS)
