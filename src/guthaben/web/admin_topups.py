"""Routes for operators about automatic charges: their state, and stops that act at once.

Law: a stop holds for every server from the next attempt on; lifting it switches on nothing that its
customer has switched off. A key of one practice sees and stops that one only.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.services.checks import MAX_ID
from guthaben.web import topup_models, views
from guthaben.web.call_shapes import NO_QUERY
from guthaben.web.deps import Services
from guthaben.web.problems import invalid
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import Shape, flag, needed, text
from guthaben.web.strict_json import read_object

STOP: Final = Shape(
    "Stop of automatic charges",
    {
        "stopped": needed(flag("True holds them back, false lets them go on.")),
        "practice_id": text("One practice; default all that the key reaches.", MAX_ID, least=1),
        "reason": text("Why; needed to stop, and kept.", 1000, opaque=False),
    },
    {"stopped": True, "practice_id": "prac_7", "reason": "the customer called: card misused"},
)


class AdminTopupRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def all(self, request: Request) -> Response:
        """Tell what is stopped, and which automatic charges have no end yet.

        A charge without an outcome is resolved by itself within a day; after that an alarm is
        raised.
        """
        operator = await self._services.access.operator(request)
        read_query(request, NO_QUERY)
        found = await self._services.slowly(self._services.stops.all)
        return answer(views.all_topups(found, operator.practice_id))

    async def one(self, request: Request) -> Response:
        """Tell a practice's automatic top-up: limits, consent, tries, and what it would do now."""
        operator = await self._services.access.operator(request)
        read_query(request, NO_QUERY)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        request.scope["guthaben.practice_id"] = practice_id
        found = await self._services.slowly(self._services.stops.show, practice_id)
        return answer(views.practice_topups(found))

    async def stop(self, request: Request) -> Response:
        """Stop automatic charges, of one practice or of all, or let them go on.

        It acts before the next attempt, on every server. The customer's own switch stays as it is.
        """
        operator = await self._services.access.operator(request)
        options = STOP.read(await read_object(request))
        practice_id = options.get("practice_id") or operator.practice_id
        if practice_id is not None:
            operator.may_touch(practice_id)
        stops, actor = self._services.stops, operator.key_id
        if options["stopped"]:
            if not options.get("reason"):
                raise invalid("A stop needs a reason.", field="reason")
            changed = await self._services.slowly(
                stops.stop, practice_id, reason=options["reason"], actor=actor
            )
        else:
            changed = await self._services.slowly(stops.resume, practice_id, actor=actor)
        shown = {"practice_id": practice_id, "stopped": options["stopped"], "changed": changed}
        return answer(shown)


def router(services: Services) -> APIRouter:
    """Make the routes for operators about automatic charges."""
    routes, api = AdminTopupRoutes(services), new_router("admin")
    add(
        api, "GET", "/v1/admin/auto-topups", routes.all,
        answers={200: topup_models.AllTopupsModel},
    )  # fmt: skip
    add(
        api, "PUT", "/v1/admin/auto-topups/stop", routes.stop,
        body=STOP, answers={200: topup_models.StopModel},
    )  # fmt: skip
    add(
        api, "GET", "/v1/admin/practices/{practice_id:path}/auto-topup", routes.one,
        answers={200: topup_models.PracticeTopupsModel},
        path_parameters={"practice_id": "The practice."},
    )  # fmt: skip
    return api
