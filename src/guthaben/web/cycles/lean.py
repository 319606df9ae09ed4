"""Lean routes: a request of the Cycles protocol from its bytes to its answer's, below FastAPI.

Law: every answer, of success or not, carries the request's id and trace id; an error has the
protocol's shape. The routes stand in the router and in the OpenAPI page like all others, but our
own server answers them below FastAPI's stacks and responses: reserving is its hottest work.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from guthaben.errors import GuthabenError
from guthaben.web.cycles.errors import Denial, invalid
from guthaben.web.cycles.reading import decode
from guthaben.web.routing import Endpoint, request_id
from guthaben.web.strict_json import MAX_BODY

log = logging.getLogger("guthaben.web")

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE_ID: Final = re.compile(rb"[0-9a-f]{32}")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_PLAIN: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
)


class Exchange(Request):
    """One request and what is known of it by now."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self.sent: dict[bytes, bytes | None] = {}
        """Headers by name; None for one that was sent twice."""
        for name, value in scope["headers"]:
            self.sent[name] = None if name in self.sent else value
        self.request_id = request_id(scope)
        self.trace_id = self._trace()
        self.tenant = ""
        self.key_id = ""

    def _trace(self) -> str:
        """Give the trace the caller names, else begin one; a malformed name counts as none."""
        parent = _TRACEPARENT.fullmatch(self.sent.get(b"traceparent") or b"")
        if parent is not None and parent[1] != _NO_TRACE and parent[2] != _NO_SPAN:
            return parent[1].decode()
        named = self.sent.get(b"x-cycles-trace-id") or b""
        if _TRACE_ID.fullmatch(named) and named != _NO_TRACE:
            return named.decode()
        return f"{random.getrandbits(128) | 1:032x}"  # a name, no secret

    def header(self, name: bytes) -> str | None:
        """Give a header that was sent once, or None; raises INVALID_REQUEST for one sent twice."""
        value = self.sent.get(name, b"")
        if value is None:
            raise invalid(f"{name.decode()} occurs twice.")
        return value.decode("latin-1") if value else None

    async def read(self) -> dict[str, Any]:
        """Read the body as one JSON object; its key may stand in the header, too."""
        kind = (self.sent.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise invalid("Send JSON, with the header Content-Type: application/json.")
        if (self.sent.get(b"content-encoding") or b"identity").lower() != b"identity":
            raise invalid("Send the body without Content-Encoding.")
        found = decode(await self._bytes())
        key = self.header(b"x-idempotency-key")
        if key is not None and found.get("idempotency_key") != key:
            raise invalid("X-Idempotency-Key and idempotency_key differ.")
        return found

    async def _bytes(self) -> bytes:
        message = await self._receive()
        body: bytes = message.get("body", b"")
        while message["type"] == "http.request" and message.get("more_body"):
            if len(body) > MAX_BODY:
                break
            message = await self._receive()
            body += message.get("body", b"")
        if message["type"] != "http.request":
            raise invalid("The connection ended inside the body.")
        if len(body) > MAX_BODY:
            raise invalid(f"A body has at most {MAX_BODY} bytes. Nothing was changed.")
        return body

    def query(self) -> dict[str, str]:
        """Read the query; what occurs twice counts once, the last time."""
        try:
            found = parse_qsl(self.scope["query_string"].decode(), keep_blank_values=True)
        except ValueError as error:
            raise invalid("The query can't be read.") from error
        return dict(found)


Answer = tuple[int, dict[str, Any]]
Handler = Callable[[Exchange], Awaitable[Answer]]


class LeanRoute(Endpoint):
    """A route whose endpoint is a `Handler`; lean in our own server, correct in a host's app."""

    def __init__(self, path: str, endpoint: Handler, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._serve

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Serve where a host's app has included the router, and makes requests by itself."""
        endpoint: Handler = self.endpoint

        async def handle(request: Request) -> Response:
            exchange = Exchange(request.scope, request.receive)
            status, headers, raw = await _answered(endpoint, exchange)
            made = Response(raw, status)
            made.raw_headers = headers
            return made

        return handle

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, raw = await _answered(self.endpoint, Exchange(scope, receive))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})


async def _answered(
    handler: Handler, exchange: Exchange
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Let a handler answer, and write its answer or what went wrong."""
    try:
        status, body = await handler(exchange)
    except Denial as denial:
        status, body = denial.status, error_body(denial, exchange)
    except GuthabenError as error:
        told = {"request_id": exchange.request_id, "code": error.code}
        log.error("a request failed", extra=told)
        status, body = _broken(exchange)
    except Exception:
        log.exception("a request broke", extra={"request_id": exchange.request_id})
        status, body = _broken(exchange)
    raw = _ENCODER.encode(body).encode()
    headers = [
        *_PLAIN,
        (b"content-length", b"%d" % len(raw)),
        (b"x-request-id", exchange.request_id.encode()),
        (b"x-cycles-trace-id", exchange.trace_id.encode()),
    ]
    if exchange.tenant:
        headers.append((b"x-cycles-tenant", exchange.tenant.encode()))
    return status, headers, raw


def error_body(denial: Denial, exchange: Exchange) -> dict[str, Any]:
    """Write an error as the protocol does."""
    body: dict[str, Any] = {
        "error": denial.code,
        "message": denial.message,
        "request_id": exchange.request_id,
        "trace_id": exchange.trace_id,
    }
    if denial.details:
        body["details"] = dict(denial.details)
    return body


def _broken(exchange: Exchange) -> Answer:
    message = "Something failed here. Repeat the request with the same idempotency key."
    return 500, error_body(Denial("INTERNAL_ERROR", message), exchange)
