"""Observing: one log line and one measurement per request of our own server.

Law: a line holds what `logs.ALLOWED` names: the route's pattern and not the path, no query, no
header, no body. Watching changes no answer, except that every answer carries its request id.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guthaben.web.metrics import Metrics
from guthaben.web.routing import request_id

log = logging.getLogger("guthaben.web")

_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
_SAFETY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Observing:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, began_s, status = request_id(scope), time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = [*message.get("headers", ())]
                names = {name.lower() for name, _value in sent}
                added = ((b"x-request-id", identity.encode("latin-1")), *_SAFETY)
                message["headers"] = sent + [pair for pair in added if pair[0] not in names]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._note(scope, status, time.perf_counter() - began_s)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        if route in _QUIET and status < 400:
            return
        told: dict[str, Any] = {
            "request_id": request_id(scope),
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
        }
        for name in ("key_id", "practice_id"):
            if f"guthaben.{name}" in scope:
                told[name] = scope[f"guthaben.{name}"]
        log.info("request", extra=told)


def _route(scope: Scope) -> str:
    """Name the pattern of the route, never the path: paths hold ids."""
    return str(getattr(scope.get("route"), "path", None) or "none")
