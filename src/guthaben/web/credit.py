"""Routes of a practice's credit: balance, statement, top-ups, a saved card, automatic top-up.

Law: a practice sees its own; the provider's ids are masked by the engine. A purchase is recorded
before the provider is asked, and only an explicit consent switches the automatic top-up on.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben import config
from guthaben.domain.money import format_chf, parse_chf
from guthaben.services.consent_texts import CARD_TEXT_VERSION
from guthaben.services.portal import LINK_S
from guthaben.services.topups import (
    CONSENT_VERSION,
    LEAST_RAPPEN,
    MOST_CAP_RAPPEN,
    MOST_RAPPEN,
    AutoTopupChange,
)
from guthaben.texts import LANGUAGES
from guthaben.web import models, topup_models, views
from guthaben.web.access import Caller, Scope
from guthaben.web.call_shapes import NO_QUERY, NUMBERED
from guthaben.web.deps import Services
from guthaben.web.problems import Problem, switched_off
from guthaben.web.routing import add, answer, new_router, read_query, speak_to
from guthaben.web.shapes import (
    Field,
    Shape,
    chf,
    choice,
    flag,
    integer,
    needed,
    text,
    url,
    usd,
    ways_back,
)
from guthaben.web.strict_json import read_object

PORTAL_PATH: Final = "/portal/"
RESULT_PATH: Final = "/portal/purchase/{TOPUP_ID}"


def topup_chf(about: str) -> Field:
    """Read the amount of a purchase, within the limits of the settings at that moment."""
    plain = chf(about, 0, 99_999_999)

    def read(name: str, value: Any) -> int:
        least, most = config.topup_limits_rappen()
        try:
            amount = parse_chf(value) if type(value) is str else None
        except ValueError:
            amount = None
        if amount is None or not least <= amount <= most:
            raise topup_amount_refused(name)
        return amount

    schema = {**plain.schema, "description": f"{about} Any Rappen within the server's limits."}
    return Field(read, schema)


def topup_amount_refused(field: str) -> Problem:
    """Refuse the amount of a purchase by hand, naming the limits."""
    least, most = (format_chf(limit) for limit in config.topup_limits_rappen())
    detail = f"{field} must be a decimal string in CHF from {least} to {most}."
    return Problem(
        400, "invalid_amount", detail, text_name="topup_amount", field=field, least_chf=least,
        most_chf=most,
    )  # fmt: skip


_URLS: Final = {
    "success_url": url(
        "Where the customer comes back after success, {TOPUP_ID} being the purchase; "
        "default: a page of this server that tells how far it is."
    ),
    "cancel_url": url("Where the customer comes back after turning back; default: likewise."),
    "language": choice("The language of the provider's page.", *LANGUAGES),
}
_RETURN: Final = {
    "success_url": "https://app.example.com/credit?paid=1",
    "cancel_url": "https://app.example.com/credit",
}
TOPUP: Final = Shape(
    "Top-up",
    {
        "amount_chf": needed(topup_chf("What is paid.")),
        "save_card": flag(
            "The customer agreed that a card is kept for later; it enables nothing by itself."
        ),
        "save_card_text_version": text("The version of the text that the customer agreed to.", 50),
        **_URLS,
    },
    {"amount_chf": "30.00", "save_card": False, **_RETURN, "language": "de"},
)
SETUP: Final = Shape("Set-up", _URLS, _RETURN)
PORTAL: Final = Shape(
    "Portal",
    {
        "language": choice("The language of the pages; default: the practice's.", *LANGUAGES),
        "return_url": url("Where the pages lead back to."),
    },
    {"language": "fr", "return_url": "https://app.example.com/"},
)
LANGUAGE: Final = Shape(
    "Language",
    {"language": needed(choice("How the practice is spoken to.", *LANGUAGES))},
    {"language": "it"},
)
AUTO_TOPUP: Final = Shape(
    "Automatic top-up",
    {
        "enabled": needed(flag("On needs a saved card and a consent.")),
        "amount_chf": chf("What each automatic top-up charges.", LEAST_RAPPEN, MOST_RAPPEN),
        "trigger_percent": integer("Charge below this part of the allowance.", 1, 100),
        "trigger_below_usd": usd("Charge below this, where there is no allowance.", 0),
        "cap_chf": chf("The most that is charged in a month.", LEAST_RAPPEN, MOST_CAP_RAPPEN),
        "largest_chf": chf(
            "The most one charge may be to close a whole shortfall; 0: never more than the amount.",
            0,
            MOST_RAPPEN,
        ),
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
SETTINGS_OF: Final = {
    "amount_chf": "amount_rappen",
    "trigger_percent": "trigger_percent",
    "trigger_below_usd": "trigger_below_nano_usd",
    "cap_chf": "cap_rappen",
    "largest_chf": "largest_rappen",
}


class CreditRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credit = services.credit

    async def _caller(self, request: Request, *scopes: Scope) -> Caller:
        """Let a request in, and be ready to refuse it in its practice's language."""
        caller = await self._services.access.caller(request, *scopes)
        chosen = self._services.portal.chosen_language
        speak_to(request, lambda: chosen(caller.practice_id))
        return caller

    async def balance(self, request: Request) -> Response:
        """Tell the balance now."""
        caller = await self._caller(request, "gate", "credit")
        read_query(request, NO_QUERY)
        return answer(views.balance(await self._credit.balance(caller.practice_id)))

    async def statement(self, request: Request) -> Response:
        """List every change of credit, newest first."""
        caller = await self._caller(request, "credit")
        options = read_query(request, NUMBERED)
        page = await self._credit.statement(
            caller.practice_id, limit=options.get("limit", 50), before_seq=options.get("before")
        )
        return answer(views.statement(self._services.core, page))

    async def topups(self, request: Request) -> Response:
        """List purchases, automatic charges, refunds and adjustments, newest first."""
        caller = await self._caller(request, "credit")
        options = read_query(request, NUMBERED)
        limit = options.get("limit", 50)
        found = await self._credit.topups(
            caller.practice_id, limit=limit, before_event_no=options.get("before")
        )
        return answer(views.topups(found, limit))

    async def topup(self, request: Request) -> Response:
        """Look at one top-up."""
        caller = await self._caller(request, "credit")
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
        caller = await self._caller(request, "credit")
        options = TOPUP.read(await read_object(request))
        if not self._services.purchases_allowed():
            raise switched_off()
        start = await self._services.slowly(
            self._services.payments.topups.start_checkout,
            caller.practice_id,
            options["amount_chf"],
            save_card=options.get("save_card", False),
            card_text_version=options.get("save_card_text_version", CARD_TEXT_VERSION),
            actor=caller.key_id,
            **self._ways_back(options, RESULT_PATH),
        )
        self._services.metrics.command("topup", "ok")
        return answer({"checkout_url": start.url, "topup_id": start.topup_id}, 201)

    async def start_setup(self, request: Request) -> Response:
        """Begin to save a card; send the customer to `checkout_url`.

        Nothing is paid, and nothing is switched on by it.
        """
        caller = await self._caller(request, "credit")
        options = SETUP.read(await read_object(request))
        start = await self._services.slowly(
            self._services.payments.topups.start_setup,
            caller.practice_id,
            **self._ways_back(options, PORTAL_PATH),
        )
        return answer({"checkout_url": start.url, "topup_id": None}, 201)

    def _ways_back(self, options: dict[str, Any], own_path: str) -> dict[str, Any]:
        return ways_back(options, self._services.public_url, (own_path, f"{own_path}?back=1"))

    async def usage(self, request: Request) -> Response:
        """Tell what was used in the last thirty days, by day and by model."""
        caller = await self._caller(request, "credit")
        read_query(request, NO_QUERY)
        portal = self._services.portal
        return answer(views.usage(await self._services.slowly(portal.usage, caller.practice_id)))

    async def open_portal(self, request: Request) -> Response:
        """Make a link into the practice's own pages, good for ten minutes; redirect a person to it.

        What the person does there is noted under this key.
        """
        caller = await self._caller(request, "credit")
        options = PORTAL.read(await read_object(request))
        home = self._services.public_url
        if not home:
            raise Problem(503, "config_error", "The server is not set up for this.")
        token = await self._services.slowly(
            self._services.portal.link,
            caller.practice_id,
            actor=caller.key_id,
            language=options.get("language"),
            return_url=options.get("return_url", ""),
        )
        return answer({"url": f"{home}{PORTAL_PATH}enter?t={token}", "valid_s": LINK_S}, 201)

    async def language(self, request: Request) -> Response:
        """Tell the language the practice is spoken to in."""
        caller = await self._caller(request, "credit")
        read_query(request, NO_QUERY)
        portal = self._services.portal
        found = await self._services.slowly(portal.language, caller.practice_id)
        return answer({"language": found})

    async def change_language(self, request: Request) -> Response:
        """Choose the language of payment pages, refusals and the portal."""
        caller = await self._caller(request, "credit")
        chosen = LANGUAGE.read(await read_object(request))["language"]
        portal = self._services.portal
        await self._services.slowly(portal.set_language, caller.practice_id, chosen)
        return answer({"language": chosen})

    async def auto_topup(self, request: Request) -> Response:
        """Tell the automatic top-up and its limits."""
        caller = await self._caller(request, "credit")
        read_query(request, NO_QUERY)
        topups = self._services.payments.topups
        found = await self._services.slowly(topups.settings, caller.practice_id)
        return answer(views.auto_topup(found))

    async def change_auto_topup(self, request: Request) -> Response:
        """Change the automatic top-up.

        Switching it on, or raising an amount or the cap, needs `consent_text_version`: which text
        the customer agreed to. What is left out stays as it is.
        """
        caller = await self._caller(request, "credit")
        options = AUTO_TOPUP.read(await read_object(request))
        change = AutoTopupChange(
            enabled=options["enabled"],
            consent_text_version=options.get("consent_text_version", ""),
            language=options.get("language", "de"),
            actor=caller.key_id,
            **await self._numbers(caller.practice_id, options),
        )
        changed = await self._services.slowly(
            self._services.payments.topups.change_settings, caller.practice_id, change
        )
        return answer(views.auto_topup(changed))

    async def _numbers(self, practice_id: str, options: dict[str, Any]) -> dict[str, Any]:
        """Give the numbers of an automatic top-up: as they are sent, else as they are set."""
        known = await self._services.slowly(self._services.payments.topups.settings, practice_id)
        return {
            field: options.get(name, getattr(known, field)) for name, field in SETTINGS_OF.items()
        }


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
    add(api, "GET", "/v1/usage", routes.usage, answers={200: models.UsageModel})
    add(
        api, "POST", "/v1/portal-sessions", routes.open_portal,
        body=PORTAL, answers={201: models.PortalModel},
    )  # fmt: skip
    spoken = {200: models.LanguageModel}
    add(api, "GET", "/v1/language", routes.language, answers=spoken)
    add(api, "PUT", "/v1/language", routes.change_language, body=LANGUAGE, answers=spoken)
    settings = {200: topup_models.AutoTopupModel}
    add(api, "GET", "/v1/auto-topup", routes.auto_topup, answers=settings)
    add(
        api, "PUT", "/v1/auto-topup", routes.change_auto_topup,
        body=AUTO_TOPUP, answers=settings,
    )  # fmt: skip
    return api
