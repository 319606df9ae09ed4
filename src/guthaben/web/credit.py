"""Routes of a practice's credit: balance, statement, top-ups, a saved card, automatic top-up.

Law: a practice sees its own; the provider's ids are masked by the engine. A purchase is recorded
before the provider is asked, and only an explicit consent switches the automatic top-up on.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.services.topups import (
    CONSENT_VERSION,
    LEAST_RAPPEN,
    MOST_CAP_RAPPEN,
    MOST_RAPPEN,
    AutoTopupChange,
)
from guthaben.texts import LANGUAGES
from guthaben.web import models, views
from guthaben.web.call_shapes import NO_QUERY, NUMBERED
from guthaben.web.deps import Services
from guthaben.web.problems import invalid, switched_off
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import (
    Shape,
    chf,
    choice,
    flag,
    integer,
    is_web_address,
    needed,
    text,
    url,
    usd,
)
from guthaben.web.strict_json import read_object

_URLS: Final = {
    "success_url": url("Where the customer comes back after success; default: this server."),
    "cancel_url": url("Where the customer comes back after turning back; default: this server."),
    "language": choice("The language of the provider's page.", *LANGUAGES),
}
_RETURN: Final = {
    "success_url": "https://app.example.com/credit?paid=1",
    "cancel_url": "https://app.example.com/credit",
}
TOPUP: Final = Shape(
    "Top-up",
    {
        "amount_chf": needed(chf("What is paid.", LEAST_RAPPEN, MOST_RAPPEN)),
        "save_card": flag("Also save the card for later; it enables nothing by itself."),
        **_URLS,
    },
    {"amount_chf": "30.00", "save_card": False, **_RETURN, "language": "de"},
)
SETUP: Final = Shape("Set-up", _URLS, _RETURN)
AUTO_TOPUP: Final = Shape(
    "Automatic top-up",
    {
        "enabled": needed(flag("On needs a saved card and a consent.")),
        "amount_chf": chf("What each automatic top-up charges.", LEAST_RAPPEN, MOST_RAPPEN),
        "trigger_percent": integer("Charge below this part of the allowance.", 1, 100),
        "trigger_below_usd": usd("Charge below this, where there is no allowance.", 0),
        "cap_chf": chf("The most that is charged in a month.", LEAST_RAPPEN, MOST_CAP_RAPPEN),
        "consent_text_version": text("The version of the text that the customer agreed to.", 50),
        "language": choice("The language of that text.", *LANGUAGES),
    },
    {
        "enabled": True,
        "amount_chf": "30.00",
        "trigger_percent": 5,
        "trigger_below_usd": "1.00",
        "cap_chf": "300.00",
        "consent_text_version": CONSENT_VERSION,
        "language": "de",
    },
)
_SETTINGS_OF: Final = {
    "amount_chf": "amount_rappen",
    "trigger_percent": "trigger_percent",
    "trigger_below_usd": "trigger_below_nano_usd",
    "cap_chf": "cap_rappen",
}


class CreditRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credit = services.credit

    async def balance(self, request: Request) -> Response:
        """Tell the balance now."""
        caller = await self._services.access.caller(request, "gate", "credit")
        read_query(request, NO_QUERY)
        return answer(views.balance(await self._credit.balance(caller.practice_id)))

    async def statement(self, request: Request) -> Response:
        """List every change of credit, newest first."""
        caller = await self._services.access.caller(request, "credit")
        options = read_query(request, NUMBERED)
        page = await self._credit.statement(
            caller.practice_id, limit=options.get("limit", 50), before_seq=options.get("before")
        )
        return answer(views.statement(self._services.core, page))

    async def topups(self, request: Request) -> Response:
        """List purchases, automatic charges, refunds and adjustments, newest first."""
        caller = await self._services.access.caller(request, "credit")
        options = read_query(request, NUMBERED)
        limit = options.get("limit", 50)
        found = await self._credit.topups(
            caller.practice_id, limit=limit, before_event_no=options.get("before")
        )
        return answer(views.topups(found, limit))

    async def topup(self, request: Request) -> Response:
        """Look at one top-up."""
        caller = await self._services.access.caller(request, "credit")
        read_query(request, NO_QUERY)
        topup_id = request.path_params["topup_id"]
        found = await self._services.slowly(
            self._services.payments.topups.one, caller.practice_id, topup_id
        )
        return answer(views.topup(found))

    async def start_topup(self, request: Request) -> Response:
        """Begin a purchase; send the customer to `checkout_url`.

        The credit arrives when the provider says that it was paid.
        """
        caller = await self._services.access.caller(request, "credit")
        options = TOPUP.read(await read_object(request))
        if not self._services.purchases_allowed():
            raise switched_off()
        start = await self._services.slowly(
            self._services.payments.topups.start_checkout,
            caller.practice_id,
            options["amount_chf"],
            save_card=options.get("save_card", False),
            **self._page(options),
        )
        self._services.metrics.command("topup", "ok")
        return answer({"checkout_url": start.url, "topup_id": start.topup_id}, 201)

    async def start_setup(self, request: Request) -> Response:
        """Begin to save a card; send the customer to `checkout_url`.

        Nothing is paid, and nothing is switched on by it.
        """
        caller = await self._services.access.caller(request, "credit")
        options = SETUP.read(await read_object(request))
        start = await self._services.slowly(
            self._services.payments.topups.start_setup, caller.practice_id, **self._page(options)
        )
        return answer({"checkout_url": start.url, "topup_id": None}, 201)

    def _page(self, options: dict[str, Any]) -> dict[str, Any]:
        home = self._services.public_url
        urls = {}
        for name in ("success_url", "cancel_url"):
            target = options.get(name) or (f"{home}/" if home else "")
            if not is_web_address(target):
                raise invalid(f"{name} is missing.", field=name)
            urls[name] = target
        return {**urls, "locale": options.get("language")}

    async def auto_topup(self, request: Request) -> Response:
        """Tell the automatic top-up and its limits."""
        caller = await self._services.access.caller(request, "credit")
        read_query(request, NO_QUERY)
        topups = self._services.payments.topups
        found = await self._services.slowly(topups.settings, caller.practice_id)
        return answer(views.auto_topup(found))

    async def change_auto_topup(self, request: Request) -> Response:
        """Change the automatic top-up.

        Switching it on, or raising amount or cap, needs `consent_text_version`: which text the
        customer agreed to. What is left out stays as it is.
        """
        caller = await self._services.access.caller(request, "credit")
        options = AUTO_TOPUP.read(await read_object(request))
        topups = self._services.payments.topups
        known = await self._services.slowly(topups.settings, caller.practice_id)
        numbers = {
            field: options.get(name, getattr(known, field)) for name, field in _SETTINGS_OF.items()
        }
        change = AutoTopupChange(
            enabled=options["enabled"],
            consent_text_version=options.get("consent_text_version", ""),
            language=options.get("language", "de"),
            actor=caller.key_id,
            **numbers,
        )
        changed = await self._services.slowly(topups.change_settings, caller.practice_id, change)
        return answer(views.auto_topup(changed))


def router(services: Services) -> APIRouter:
    """Make the routes of a practice's credit."""
    routes, api = CreditRoutes(services), new_router("credit")
    started = {201: models.CheckoutModel}
    add(api, "GET", "/v1/balance", routes.balance, answers={200: models.BalanceModel})
    add(
        api, "GET", "/v1/statement", routes.statement,
        query=NUMBERED, answers={200: models.StatementModel},
    )  # fmt: skip
    add(
        api, "GET", "/v1/topups", routes.topups,
        query=NUMBERED, answers={200: models.TopupsModel},
    )  # fmt: skip
    add(api, "POST", "/v1/topups", routes.start_topup, body=TOPUP, answers=started)
    add(
        api, "GET", "/v1/topups/{topup_id}", routes.topup, answers={200: models.TopupModel},
        path_parameters={"topup_id": "The id that beginning the purchase gave."},
    )  # fmt: skip
    add(api, "POST", "/v1/payment-method/setup", routes.start_setup, body=SETUP, answers=started)
    settings = {200: models.AutoTopupModel}
    add(api, "GET", "/v1/auto-topup", routes.auto_topup, answers=settings)
    add(
        api, "PUT", "/v1/auto-topup", routes.change_auto_topup,
        body=AUTO_TOPUP, answers=settings,
    )  # fmt: skip
    return api
