"""Owns the HTTP side of /v1: reading the request, real waiting, and cutting a connection.

What a call does is in `core`; this module only carries it over a socket.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from guthaben.sandbox.context import Settings
from guthaben.sandbox.core import ApiRequest, Core, HttpAnswer
from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.state import State, dump
from guthaben.sandbox.webhooks import Postman

RAW_SEND = "guthaben.sandbox.raw_send"
_MAX_BODY = 1_000_000


class Api:
    """Serves everything under /v1."""

    def __init__(self, state: State, settings: Settings, postman: Postman) -> None:
        self._settings = settings
        self._postman = postman
        self._core = Core(state, settings)

    async def serve(self, request: Request) -> Response:
        """Answer one API call."""
        try:
            body = await _body(request)
        except ApiError as refusal:
            return Response(dump(refusal.body()), refusal.status, media_type="application/json")
        answer = await self._wait(self._read(request, body))
        if answer is None:
            await drop_connection(request)
            return Response(status_code=500)
        return Response(answer.body, answer.status, answer.headers, "application/json")

    def _read(self, request: Request, body: bytes) -> ApiRequest:
        base_url = self._settings.public_url or str(request.base_url).rstrip("/")
        path, query = request.url.path, request.url.query
        return ApiRequest(request.method, path, query, body, request.headers, base_url)

    async def _wait(self, request: ApiRequest) -> HttpAnswer | None:
        steps = self._core.serve(request)
        try:
            while True:
                seconds = next(steps)
                self._postman.wake()  # what has been committed is not held up by the answer
                await asyncio.sleep(seconds)
        except StopIteration as end:
            answer: HttpAnswer | None = end.value
            return answer
        finally:
            steps.close()
            self._postman.wake()


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise ApiError(413, "The request's body is too large.")
    return bytes(body)


async def drop_connection(request: Request) -> None:
    """Cut the TCP connection without a byte of answer; works under uvicorn only."""
    raw_send = request.scope.get(RAW_SEND)
    transport = getattr(getattr(raw_send, "__self__", None), "transport", None)
    abort = getattr(transport, "abort", None)  # uvloop's transports are no asyncio.Transport
    if abort is None:
        raise RuntimeError("Only a server whose transport is known can drop a connection.")
    abort()
    for _ in range(3):  # lets the server notice, so that it discards the answer that follows
        await asyncio.sleep(0)
