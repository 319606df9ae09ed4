"""Owns the way of an API call: fault, authentication, parameters, idempotency, execution, answer.

Law: a handler, its events and the answer kept under the key are one transaction, committed before
the first byte of the answer leaves. Which path means what is in `table`.
"""

import asyncio
import base64
import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from guthaben.sandbox import faults
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.form import Params, pairs_of, parse
from guthaben.sandbox.idempotency import Keys, fingerprint
from guthaben.sandbox.ids import new_id
from guthaben.sandbox.listing import expand
from guthaben.sandbox.state import SavedAnswer, State, dump
from guthaben.sandbox.table import Match, match
from guthaben.sandbox.webhooks import Postman

RAW_SEND = "guthaben.sandbox.raw_send"
_API_KEY = re.compile(r"(sk|rk)_test_\w+")
_MAX_BODY = 1_000_000


class Call(NamedTuple):
    """One request as far as it is known before it is executed."""

    method: str
    path: str
    request_id: str
    key: str | None
    base_url: str
    fault: JsonObject | None

    def has_fault(self, kind: str) -> bool:
        """Tell whether the call meets this fault."""
        return self.fault is not None and self.fault["kind"] == kind


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: str
    original_request_id: str | None = None


class Api:
    """Serves everything under /v1."""

    def __init__(self, state: State, settings: Settings, postman: Postman) -> None:
        self._state = state
        self._settings = settings
        self._postman = postman
        self._keys = Keys(state)

    async def serve(self, request: Request) -> Response:
        """Answer one API call."""
        call = self._call(request)
        try:
            answer = await self._answer(request, call)
        except ApiError as refusal:
            answer = Answer(refusal.status, dump(refusal.body()))
        self._log(call, answer)
        self._postman.wake()
        if call.has_fault(faults.SLOW) and call.fault and call.fault.get("when") == "after":
            await asyncio.sleep(call.fault["seconds"])
        if call.has_fault(faults.COMMIT_THEN_DROP) or call.has_fault(faults.DROP):
            await drop_connection(request)
        return _response(call, answer, request.headers.get("stripe-version"))

    def _call(self, request: Request) -> Call:
        method, path = request.method, request.url.path
        base_url = self._settings.public_url or str(request.base_url).rstrip("/")
        key = request.headers.get("idempotency-key") if method == "POST" else None
        fault = faults.take(self._state, method, path)
        return Call(method, path, new_id("req", 14), key or None, base_url, fault)

    async def _answer(self, request: Request, call: Call) -> Answer:
        faults.refuse(call.fault)
        if call.has_fault(faults.DROP):
            return Answer(0, "")
        _authenticate(request)
        found = match(call.method, call.path)
        pairs = await _pairs(request)
        params = parse(pairs)
        if call.key is None:
            return await self._run(call, found, params, "")
        self._keys.check(call.key)
        print_ = fingerprint(call.method, call.path, pairs)
        saved = self._keys.claim(call.key, print_)
        if saved is not None:
            return Answer(*saved[1:])
        try:
            return await self._run(call, found, params, print_)
        finally:
            self._keys.release(call.key)

    async def _run(self, call: Call, found: Match, params: Params, print_: str) -> Answer:
        context = self._context(call)
        if found.is_slow(context, params):
            await asyncio.sleep(self._settings.slow_ms / 1000)
        if call.has_fault(faults.SLOW) and call.fault and call.fault.get("when") != "after":
            await asyncio.sleep(call.fault["seconds"])
        try:
            with self._state.transaction():
                return self._execute(call, found, params, print_)
        except ApiError as refusal:
            if refusal.executed and call.key is not None:
                body = dump(refusal.body())
                kept = SavedAnswer(print_, refusal.status, body, call.request_id)
                self._state.save_answer(call.key, kept)
            raise

    def _execute(self, call: Call, found: Match, params: Params, print_: str) -> Answer:
        context = self._context(call)
        body = expand(context, found.handle(context, params), params)
        answer = Answer(402 if "error" in body else 200, dump(body))
        shown = answer
        if call.has_fault(faults.COMMIT_THEN_500):
            shown = Answer(500, dump(faults.failure_after_commit()))
        if call.key is not None:
            kept = shown if call.fault is None or call.fault.get("saved", True) else answer
            saved = SavedAnswer(print_, kept.status, kept.body, call.request_id)
            self._state.save_answer(call.key, saved)
        return shown

    def _context(self, call: Call) -> Context:
        return Context(self._state, self._settings, call.base_url, call.request_id, call.key)

    def _log(self, call: Call, answer: Answer) -> None:
        replayed = answer.original_request_id is not None
        fault = call.fault["kind"] if call.fault else None
        self._state.log_call(call.method, call.path, call.key, answer.status, replayed, fault)


def _authenticate(request: Request) -> None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except ValueError:
            value = ""
    if not value:
        raise ApiError(401, "No API key was given, by Bearer or Basic authentication.")
    if _API_KEY.fullmatch(value) is None:
        raise ApiError(401, "Invalid API key: the sandbox wants sk_test_ and letters.")


async def _pairs(request: Request) -> list[tuple[str, str]]:
    if request.method != "POST":
        return pairs_of(request.url.query.encode())
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise ApiError(413, "The request's body is too large.")
    return pairs_of(bytes(body))


def _response(call: Call, answer: Answer, version: str | None) -> Response:
    headers = {"Request-Id": call.request_id}
    if version:
        headers["Stripe-Version"] = version
    if answer.original_request_id is not None:
        headers["Idempotent-Replayed"] = "true"
        headers["Original-Request"] = answer.original_request_id
    return Response(answer.body, answer.status or 500, headers, "application/json")


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
