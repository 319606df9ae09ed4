"""The composition root: from settings to a running server, and the routers for a host's own app.

Law: here, and only here, the parts are chosen and put together. Everything else is handed what it
needs. Opening blocks (it may migrate); nothing is opened at import.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from guthaben import __version__, config
from guthaben.payments.stripe_gateway import StripeGateway, limit_sdk_timeout, point_sdk_at
from guthaben.store.writer import wall_clock_ms
from guthaben.web import (
    admin,
    admin_topups,
    auto_topup,
    calls,
    credit,
    health,
    licences,
    money,
    portal,
    problems,
    stripe_webhook,
    telling,
)
from guthaben.web.cycles import routes as cycles
from guthaben.web.deps import Services
from guthaben.web.gateway import errors as openai_errors
from guthaben.web.gateway import routes as openai_routes
from guthaben.web.gateway.settings import GatewaySettings
from guthaben.web.observing import Observing
from guthaben.web.problems import Problem
from guthaben.web.routing import request_id
from guthaben.web.stripe_webhook import WEBHOOK_PATH

log = logging.getLogger("guthaben.web")

DEFAULT_DATABASE: Final = "sqlite:///guthaben.db"
_OLD_ROUTERS: Final = ("aza_ai_credit_routes", "stripe_routes")
_STRIPE_TIMEOUT_S: Final = 30
_STATUS_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def create_router(services: Services, gateway: GatewaySettings | None = None) -> APIRouter:
    """Make the routes, `/v1`, `/openai/v1`, `/portal`, `/stripe/webhook`, for a host's own app.

    `gateway`: which AI providers there are; default what the environment says. The host runs
    `async with services:` in its lifespan. Errors are problem details there too, and in OpenAI's
    shape under `/openai/v1`. Raises `ConfigError`.
    """
    router = APIRouter()
    settings = gateway or GatewaySettings.from_environment()
    router.routes.extend(openai_routes.router(services, settings).routes)
    for group in (
        cycles,
        calls,
        credit,
        auto_topup,
        admin,
        admin_topups,
        money,
        portal,
        telling,
        stripe_webhook,
        licences,
    ):
        # Not included but taken over: a router in a router is searched anew for each request.
        router.routes.extend(group.router(services).routes)
    return router


def create_app(services: Services, gateway: GatewaySettings | None = None) -> FastAPI:
    """Make the server's app; it starts the services and stops them. Raises `ConfigError`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with services:
            yield

    app = FastAPI(
        title="Guthaben",
        version=__version__,
        summary="Prepaid AI credit: reserve before the call, settle after it, exactly.",
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # the viewers load their scripts from elsewhere
        redoc_url=None,
        exception_handlers={HTTPException: _not_served, Exception: _broken},
    )
    app.add_middleware(Observing, metrics=services.metrics)
    for router in (create_router(services, gateway), health.router(services)):
        app.router.routes.extend(router.routes)
    for name in _OLD_ROUTERS:
        _include_old(app, name)
    return app


def open_services(
    database_url: str | None = None,
    public_url: str | None = None,
    *,
    clock_ms: Callable[[], int] = wall_clock_ms,
) -> Services:
    """Open the services as the environment says; raises `ConfigError` for what makes no sense."""
    config.check_live_ready()
    config.stripe_account_id(), config.installation()  # raise now, not at the first webhook
    url = database_url or config.database_url() or DEFAULT_DATABASE
    public = public_url or config.public_url()
    key = config.stripe_secret_key()
    if key is None:
        return Services.open(url, public_url=public, clock_ms=clock_ms)
    base = config.stripe_api_base()
    point_sdk_at(base)
    limit_sdk_timeout(_STRIPE_TIMEOUT_S)
    return Services.open(
        url,
        gateway=StripeGateway(key, api_base=base),
        livemode=config.livemode_expected(),
        charges_allowed=lambda: config.auto_topup_enabled() and money_may_move(),
        purchases_allowed=money_may_move,
        public_url=public,
        topup_wait_s=config.topup_wait_s(),
        clock_ms=clock_ms,
    )


def money_may_move() -> bool:
    """Tell whether Stripe may be asked for money: a live key needs both switches, a test key none.

    Webhooks of money that has come are taken all the same.
    """
    if not config.livemode_expected():
        return True
    return config.topup_allow_live() and not config.topup_dry_run()


def _include_old(app: FastAPI, name: str) -> None:
    """Serve the routes of one of the four modules, where they are installed.

    Stripe's events go to our own inbox, which knows the four modules' purchases too.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return
    app.router.routes.extend(
        route for route in module.router.routes if getattr(route, "path", "") != WEBHOOK_PATH
    )


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _STATUS_CODES.get(error.status_code, "http_error")
    problem = Problem(error.status_code, code, "There is nothing here that answers this.")
    problem.headers.update(error.headers or {})
    if request.url.path.startswith(openai_routes.PREFIX):
        return await openai_errors.response(problem, request)
    return problems.response(problem, request_id(request.scope))


async def _broken(request: Request, error: Exception) -> Response:
    identity = request_id(request.scope)
    log.error("a request broke", exc_info=error, extra={"request_id": identity})
    return problems.response(problems.unexpected(), identity)


_ABOUT: Final = """\
Amounts are decimal strings in USD or CHF, instants are seconds since 1970, ids are opaque.
Send `Authorization: Bearer gh_...`; a key for all practices also needs `X-Practice-Id`.

1. `POST /v1/reservations` before an AI call. Make the call only if the answer is 2xx.
2. `POST /v1/reservations/{id}/settle` after it, with the real cost; `release` if it was not made.

Every change has an idempotency key: after a lost answer, repeat it with the same key and body.
Errors are `application/problem+json` with a stable `code` and a `request_id`.
"""
