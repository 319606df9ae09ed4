"""Routes of licences: a practice's own, buying one, and for operators plans and what is in doubt.

Law: a practice sees its own and buys plans that an operator has set, nothing else. A purchase is
recorded before the provider is asked; the licence begins when the provider says so.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.services import licences
from guthaben.services.checks import MAX_TEXT
from guthaben.services.licences import MOST_SEATS
from guthaben.services.plans import PlanBook
from guthaben.texts import LANGUAGES
from guthaben.web import licence_views, models
from guthaben.web.call_shapes import NO_QUERY
from guthaben.web.deps import Services
from guthaben.web.problems import switched_off
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import (
    Shape,
    choice,
    integer,
    needed,
    text,
    url,
    usd,
    ways_back,
)
from guthaben.web.strict_json import read_object

CHECKOUT: Final = Shape(
    "Licence to buy",
    {
        "plan": needed(text("The plan's lookup key.", MAX_TEXT, least=1)),
        "quantity": integer("How many; default 1.", 1, MOST_SEATS),
        "success_url": url("Where the customer comes back after success; default: this server."),
        "cancel_url": url("Where the customer comes back after turning back; default likewise."),
        "language": choice("The language of the provider's page.", *LANGUAGES),
    },
    {
        "plan": "basic_monthly",
        "quantity": 1,
        "success_url": "https://app.example.com/licence?done=1",
        "cancel_url": "https://app.example.com/licence",
        "language": "de",
    },
)
PLAN: Final = Shape(
    "Plan",
    {
        "lookup_key": needed(text("The lookup key of its price.", MAX_TEXT, least=1)),
        "allowance_usd": needed(usd("What each period includes.", 0)),
        "trial_usd": usd("What a trial includes; default the same.", 0),
        "from_s": integer("For periods that begin then or later; default now.", 0, 1 << 39),
    },
    {"lookup_key": "basic_monthly", "allowance_usd": "20.00"},
)
PLAN_GONE: Final = Shape(
    "Plan to remove",
    {"lookup_key": needed(text("The lookup key of its price.", MAX_TEXT, least=1))},
    {"lookup_key": "basic_monthly"},
)
ASSIGN: Final = Shape(
    "Subscription to assign",
    {"held_no": needed(integer("Its number among those that are held.", 1))},
    {"held_no": 1},
)
_PRACTICE: Final = {"practice_id": "The practice."}


class LicenceRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._plans = PlanBook(services.core)

    # ---- a practice's own

    async def show(self, request: Request) -> Response:
        """Tell the practice's licence."""
        caller = await self._services.access.caller(request, "credit")
        read_query(request, NO_QUERY)
        found = await self._services.slowly(licences.show, self._services.core, caller.practice_id)
        return answer(licence_views.licence(found))

    async def start(self, request: Request) -> Response:
        """Begin to buy a licence; send the customer to `checkout_url`.

        The licence begins when the provider says so. 409 `license_exists` while there is one.
        """
        caller = await self._services.access.caller(request, "credit")
        options = CHECKOUT.read(await read_object(request))
        if not self._services.purchases_allowed():
            raise switched_off()
        start = await self._services.slowly(
            self._services.payments.licences.start_checkout,
            caller.practice_id,
            options["plan"],
            quantity=options.get("quantity", 1),
            **ways_back(options, self._services.public_url, ("/", "/")),
        )
        self._services.metrics.command("license", "ok")
        return answer({"checkout_url": start.url, "order_id": start.order_id}, 201)

    # ---- for operators

    async def of_practice(self, request: Request) -> Response:
        """Tell a practice's licence."""
        operator = await self._services.access.operator(request)
        read_query(request, NO_QUERY)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        found = await self._services.slowly(licences.show, self._services.core, practice_id)
        return answer(licence_views.licence(found))

    async def refresh(self, request: Request) -> Response:
        """Ask the provider anew about a practice's subscriptions."""
        operator = await self._services.access.operator(request)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        work = self._services.payments.licences.refresh
        return answer(licence_views.licence(await self._services.slowly(work, practice_id)))

    async def assign(self, request: Request) -> Response:
        """Say that a held subscription belongs to this practice."""
        operator = await self._whole(request)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        options = ASSIGN.read(await read_object(request))
        work = self._services.payments.licences.assign
        found = await self._services.slowly(work, practice_id, str(options["held_no"]))
        return answer(licence_views.licence(found))

    async def held(self, request: Request) -> Response:
        """List subscriptions whose practice is in doubt, newest first."""
        await self._whole(request)
        read_query(request, NO_QUERY)
        found = await self._services.slowly(licences.held, self._services.core)
        return answer(licence_views.held(found))

    async def plans(self, request: Request) -> Response:
        """List what plans include."""
        await self._services.access.operator(request)
        read_query(request, NO_QUERY)
        return answer(licence_views.plans(await self._services.slowly(self._plans.current)))

    async def set_plan(self, request: Request) -> Response:
        """Say what a plan includes in periods that begin at a date or later.

        The first entry of a plan counts for every period. A later one acts backwards on nothing.
        """
        operator = await self._whole(request)
        options = PLAN.read(await read_object(request))
        made = await self._services.slowly(
            self._plans.set,
            options["lookup_key"],
            options["allowance_usd"],
            trial_nano_usd=options.get("trial_usd"),
            from_s=options.get("from_s"),
            author=operator.key_id,
        )
        return answer(licence_views.plan(made))

    async def remove_plan(self, request: Request) -> Response:
        """Let a price be no plan in periods that begin from now on.

        Licences that have it keep their allowance, and an alarm is raised.
        """
        operator = await self._whole(request)
        options = PLAN_GONE.read(await read_object(request))
        await self._services.slowly(
            self._plans.remove, options["lookup_key"], author=operator.key_id
        )
        return answer(licence_views.plans(await self._services.slowly(self._plans.current)))

    async def _whole(self, request: Request) -> Any:
        """Let in operators of all practices only: this concerns more than one."""
        operator = await self._services.access.operator(request)
        operator.may_touch_all()
        return operator


def router(services: Services) -> APIRouter:
    """Make the routes of licences."""
    routes, api = LicenceRoutes(services), new_router("license")
    licence = {200: models.LicenseModel}
    plans = {200: models.PlansModel}
    add(api, "GET", "/v1/license", routes.show, answers=licence)
    add(
        api, "POST", "/v1/license/checkout", routes.start,
        body=CHECKOUT, answers={201: models.LicenseCheckoutModel},
    )  # fmt: skip
    add(api, "GET", "/v1/admin/plans", routes.plans, answers=plans)
    add(api, "PUT", "/v1/admin/plans", routes.set_plan, body=PLAN, answers={200: models.PlanModel})
    add(api, "POST", "/v1/admin/plans/remove", routes.remove_plan, body=PLAN_GONE, answers=plans)
    add(api, "GET", "/v1/admin/licenses/held", routes.held, answers={200: models.HeldsModel})
    path = "/v1/admin/practices/{practice_id:path}/license"
    add(api, "GET", path, routes.of_practice, answers=licence, path_parameters=_PRACTICE)
    add(
        api, "POST", f"{path}/refresh", routes.refresh,
        answers=licence, path_parameters=_PRACTICE,
    )  # fmt: skip
    add(
        api, "POST", f"{path}/assign", routes.assign,
        body=ASSIGN, answers=licence, path_parameters=_PRACTICE,
    )  # fmt: skip
    return api
