"""Routes for whoever runs the server: is it alive, is it ready, and its metrics.

Law: they name no practice and need no key; keep them inside your network. `/healthz` asks nobody,
`/readyz` asks the store through the writer, because a gate that can't write is no gate.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.store import licences
from guthaben.store.figures import Figures, figures
from guthaben.store.workspace import Workspace
from guthaben.web import metrics, models
from guthaben.web.deps import Services
from guthaben.web.problems import Problem
from guthaben.web.routing import add, answer, open_router

_READY_S: Final = 3
_FIGURES_S: Final = 5


class _Known(NamedTuple):
    """Figures that were asked for a moment ago, and how long they are shown."""

    figures: Figures
    until_s: float


class HealthRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: _Known | None = None
        self._question: asyncio.Task[None] | None = None

    async def alive(self, request: Request) -> Response:
        """Tell that the process answers."""
        return answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Tell whether the store answers; 503 otherwise."""
        services = self._services
        if not services.running:
            raise Problem(503, "stopping", "The server is stopping.")
        # One question at a time: probes of a store that hangs must not use up the threads.
        if self._question is None or self._question.done():
            asking = asyncio.to_thread(services.core.store.run, _nothing)
            self._question = asyncio.create_task(asking)
        try:
            await asyncio.wait_for(asyncio.shield(self._question), _READY_S)
        except TimeoutError as error:
            detail = f"The store did not answer within {_READY_S} s."
            raise Problem(503, "store_unavailable", detail) from error
        return answer({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Give the metrics in Prometheus' text format."""
        known = self._known
        if known is None or known.until_s < time.monotonic():
            ask, now_s = self._services.core.ask, self._services.core.now_ms() // 1000
            found = await asyncio.to_thread(ask, figures)
            sold = await asyncio.to_thread(ask, lambda cur: licences.figures(cur, now_s))
            self._services.metrics.licences(sold)
            known = self._known = _Known(found, time.monotonic() + _FIGURES_S)
        body = self._services.metrics.render(known.figures, self._services.core.now_ms())
        return Response(body, 200, {"Content-Type": metrics.CONTENT_TYPE})


def _nothing(_space: Workspace) -> None:
    """Take the writer's turn and change nothing."""


def router(services: Services) -> APIRouter:
    """Make the routes for whoever runs the server."""
    routes, api = HealthRoutes(services), open_router("health")
    healthy = {200: models.HealthModel}
    add(api, "GET", "/healthz", routes.alive, answers=healthy)
    add(api, "GET", "/readyz", routes.ready, answers=healthy)
    api.add_api_route("/metrics", routes.metrics, methods=["GET"], include_in_schema=False)
    return api
