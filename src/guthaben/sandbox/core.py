"""Owns the way of an API call: fault, authentication, parameters, idempotency, execution, answer.

Law: a handler, its events and the answer kept under the key are one transaction, committed before
the first byte of the answer leaves. It has no sockets, threads or sleeps: a call is a generator
that yields the seconds it wants to wait, and whoever runs it waits really (`routes`) or by a
virtual clock (`model`). Which path means what is in `table`.
"""

import base64
import re
from collections.abc import Generator, Mapping
from typing import NamedTuple

from guthaben.sandbox import faults
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.form import Params, pairs_of, parse
from guthaben.sandbox.idempotency import Keys, fingerprint
from guthaben.sandbox.ids import new_id
from guthaben.sandbox.listing import expand
from guthaben.sandbox.script import CallFault
from guthaben.sandbox.state import SavedAnswer, State, dump
from guthaben.sandbox.table import Match, match

_API_KEY = re.compile(r"(sk|rk)_test_\w+")


class ApiRequest(NamedTuple):
    """One request as it came over the wire; the names of headers are in lower case."""

    method: str
    path: str
    query: str
    body: bytes
    headers: Mapping[str, str]
    base_url: str


class Call(NamedTuple):
    """One request as far as it is known before it is executed."""

    method: str
    path: str
    request_id: str
    key: str | None
    base_url: str
    fault: CallFault | None

    def has_fault(self, *kinds: str) -> bool:
        """Tell whether the call meets one of these faults."""
        return self.fault is not None and self.fault.fault in kinds


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: str
    original_request_id: str | None = None


class HttpAnswer(NamedTuple):
    """What goes back over the wire."""

    status: int
    body: str
    headers: dict[str, str]


Waits = Generator[float, None, HttpAnswer | None]


class Core:
    """Answers calls of the API on one state."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._keys = Keys(state)

    def serve(self, request: ApiRequest) -> Waits:
        """Answer a call; None cuts the connection. Yields the seconds to wait."""
        call = self._call(request)
        try:
            answer = yield from self._answer(request, call)
        except ApiError as refusal:
            answer = Answer(refusal.status, dump(refusal.body()))
        self._log(call, answer)
        if call.fault and call.has_fault(faults.SLOW) and call.fault.when == "after":
            yield call.fault.seconds
        if call.has_fault(faults.COMMIT_THEN_DROP, faults.DROP_BEFORE):
            return None
        return HttpAnswer(answer.status, answer.body, _headers(request, call, answer))

    def _call(self, request: ApiRequest) -> Call:
        method, path = request.method, request.path
        key = request.headers.get("idempotency-key") if method == "POST" else None
        fault = faults.take(self._state, method, path, key)
        return Call(method, path, new_id("req", 14), key or None, request.base_url, fault)

    def _answer(self, request: ApiRequest, call: Call) -> Generator[float, None, Answer]:
        faults.refuse(call.fault)
        if call.has_fault(faults.DROP_BEFORE):
            return Answer(0, "")
        _authenticate(request.headers.get("authorization", ""))
        found = match(call.method, call.path)
        pairs = pairs_of(request.body if call.method == "POST" else request.query.encode())
        params = parse(pairs)
        if call.key is None:
            return (yield from self._run(call, found, params, ""))
        self._keys.check(call.key)
        print_ = fingerprint(call.method, call.path, pairs)
        saved = self._keys.claim(call.key, print_)
        if saved is not None:
            return Answer(*saved[1:])
        try:
            return (yield from self._run(call, found, params, print_))
        finally:
            self._keys.release(call.key)

    def _run(
        self, call: Call, found: Match, params: Params, print_: str
    ) -> Generator[float, None, Answer]:
        if found.is_slow(self._context(call), params):
            yield self._settings.slow_ms / 1000
        if call.fault and call.has_fault(faults.SLOW) and call.fault.when == "before":
            yield call.fault.seconds
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
            kept = shown if call.fault is None or call.fault.saved else answer
            saved = SavedAnswer(print_, kept.status, kept.body, call.request_id)
            self._state.save_answer(call.key, saved)
        return shown

    def _context(self, call: Call) -> Context:
        return Context(self._state, self._settings, call.base_url, call.request_id, call.key)

    def _log(self, call: Call, answer: Answer) -> None:
        replayed = answer.original_request_id is not None
        fault = call.fault.fault if call.fault else None
        self._state.log_call(call.method, call.path, call.key, answer.status, replayed, fault)


def _authenticate(header: str) -> None:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except ValueError:
            value = ""
    if not value:
        raise ApiError(401, "No API key was given, by Bearer or Basic authentication.")
    if _API_KEY.fullmatch(value) is None:
        raise ApiError(401, "Invalid API key: the sandbox wants sk_test_ and letters.")


def _headers(request: ApiRequest, call: Call, answer: Answer) -> dict[str, str]:
    headers = {"Request-Id": call.request_id}
    if version := request.headers.get("stripe-version"):
        headers["Stripe-Version"] = version
    if answer.original_request_id is not None:
        headers["Idempotent-Replayed"] = "true"
        headers["Original-Request"] = answer.original_request_id
    if call.has_fault("rate_limit"):
        headers["Stripe-Rate-Limited-Reason"] = "global-rate"
    return headers
