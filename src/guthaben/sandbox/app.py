"""Owns the composition of the sandbox: state, API, pages, control, and its two background loops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from guthaben.sandbox import passing
from guthaben.sandbox.away_pages import AwayPages
from guthaben.sandbox.checkout_pages import Pages
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.control import Control
from guthaben.sandbox.retries import LIVE_PAUSES_MS, doubling
from guthaben.sandbox.routes import RAW_SEND, Api
from guthaben.sandbox.state import State
from guthaben.sandbox.webhooks import Postman

_TIME_PAUSE_S = 1


class Sandbox(Starlette):
    """The application; remembers the server's own `send`, so that a fault can cut a connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        scope[RAW_SEND] = send
        await super().__call__(scope, receive, send)


def create_app(
    state_path: str | Path,
    *,
    webhook_url: str | None,
    webhook_secret: str,
    public_url: str | None = None,
    slow_ms: int = 3000,
    retry_base_ms: int | None = 500,
    retry_cap_ms: int = 60_000,
    max_attempts: int = 16,
    receiver_timeout_s: int = 10,
) -> Sandbox:
    """Build the sandbox on its state file; `webhook_secret` may be several, split by commas.

    Failed deliveries are tried again after pauses that double from `retry_base_ms`; with None
    as in live mode, over three days.
    """
    settings = Settings(
        webhook_url=webhook_url,
        webhook_secrets=tuple(webhook_secret.split(",")),
        public_url=public_url.rstrip("/") if public_url else None,
        slow_ms=slow_ms,
        retry_pauses_ms=(
            LIVE_PAUSES_MS
            if retry_base_ms is None
            else doubling(retry_base_ms, retry_cap_ms, max_attempts)
        ),
        receiver_timeout_s=receiver_timeout_s,
    )
    state = State(state_path)
    postman = Postman(state, settings)
    api = Api(state, settings, postman)
    routes = [
        Route("/v1/{rest:path}", api.serve, methods=["GET", "POST", "DELETE"]),
        *Pages(state, settings, postman).routes(),
        *AwayPages(state, settings, postman).routes(),
        *Control(state, settings, postman).routes(),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loops = [
            asyncio.create_task(postman.run()),
            asyncio.create_task(_let_time_pass(state, settings, postman)),
        ]
        yield
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        postman.close()
        state.close()

    return Sandbox(routes=routes, lifespan=lifespan)


async def _let_time_pass(state: State, settings: Settings, postman: Postman) -> None:
    while True:
        await asyncio.sleep(_TIME_PAUSE_S)
        if passing.is_due(state):
            with state.transaction():
                passing.run(Context(state, settings, settings.public_url or ""))
            postman.wake()
