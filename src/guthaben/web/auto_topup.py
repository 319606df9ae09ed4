"""Routes beside the automatic top-up: what its customer agrees to, and a page when a charge failed.

Law: the text and its numbers are those of the consent; a page is made only after what a decline
left open is cancelled.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.services.consent_texts import Terms
from guthaben.services.topups import LEAST_RAPPEN, MOST_CAP_RAPPEN, MOST_RAPPEN
from guthaben.texts import LANGUAGES
from guthaben.web import models, topup_models
from guthaben.web.credit import RESULT_PATH, SETUP, CreditRoutes
from guthaben.web.deps import Services
from guthaben.web.problems import switched_off
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import Shape, chf, choice, digits, needed, usd
from guthaben.web.strict_json import read_object

CONSENT_TEXT: Final = Shape(
    "Terms of a consent",
    {
        "language": needed(choice("The language of the text.", *LANGUAGES)),
        "amount_chf": chf("As in the settings; default what they say.", LEAST_RAPPEN, MOST_RAPPEN),
        "trigger_percent": digits("As in the settings.", 1, 100),
        "trigger_below_usd": usd("As in the settings.", 0),
        "cap_chf": chf("As in the settings.", LEAST_RAPPEN, MOST_CAP_RAPPEN),
        "largest_chf": chf("As in the settings.", 0, MOST_RAPPEN),
    },
    {"language": "de", "amount_chf": "30.00", "cap_chf": "300.00"},
)

CARD_TEXT: Final = Shape(
    "Language of a text",
    {"language": needed(choice("The language of the text.", *LANGUAGES))},
    {"language": "de"},
)


class AutoTopupRoutes(CreditRoutes):
    """The endpoints."""

    async def consent_text(self, request: Request) -> Response:
        """Give the text that the customer agrees to, with its version.

        Numbers that are left out are those of the settings.
        """
        caller = await self._services.access.caller(request, "credit")
        options = read_query(request, CONSENT_TEXT)
        terms = Terms(**await self._numbers(caller.practice_id, options))
        version, words = self._services.payments.topups.consent_text(options["language"], terms)
        return answer({"version": version, "language": options["language"], "text": words})

    async def card_text(self, request: Request) -> Response:
        """Give the text that the customer agrees to whose card is kept, with its version."""
        await self._services.access.caller(request, "credit")
        language = read_query(request, CARD_TEXT)["language"]
        version, words = self._services.payments.topups.card_text(language)
        return answer({"version": version, "language": language, "text": words})

    async def start_replacement(self, request: Request) -> Response:
        """Pay by hand what an automatic charge could not, and save the card anew.

        What the decline left open is cancelled first. Send the customer to `checkout_url`.
        """
        caller = await self._services.access.caller(request, "credit")
        options = SETUP.read(await read_object(request))
        if not self._services.purchases_allowed():
            raise switched_off()
        start = await self._services.slowly(
            self._services.payments.topups.start_replacement,
            caller.practice_id,
            **self._ways_back(options, RESULT_PATH),
        )
        self._services.metrics.command("topup", "ok")
        return answer({"checkout_url": start.url, "topup_id": start.topup_id}, 201)


def router(services: Services) -> APIRouter:
    """Make the routes beside the automatic top-up."""
    routes, api = AutoTopupRoutes(services), new_router("credit")
    add(
        api, "GET", "/v1/auto-topup/consent-text", routes.consent_text,
        query=CONSENT_TEXT, answers={200: topup_models.ConsentTextModel},
    )  # fmt: skip
    add(
        api, "GET", "/v1/payment-method/consent-text", routes.card_text,
        query=CARD_TEXT, answers={200: topup_models.ConsentTextModel},
    )  # fmt: skip
    add(
        api, "POST", "/v1/auto-topup/payment", routes.start_replacement,
        body=SETUP, answers={201: models.CheckoutModel},
    )  # fmt: skip
    return api
