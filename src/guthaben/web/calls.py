"""Routes of the gate: reserve, settle, release, extend, record usage, and look at calls.

Law: each is one command on the shared writer, awaited on the loop; nothing here decides about
credit. The practice is the caller's; a foreign call answers as a missing one does.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.domain.calls import RESERVED, EndedBy
from guthaben.domain.commands import Command, Extend, Outcome, Release, Reserve
from guthaben.errors import CallFinished, GuthabenError, Refused
from guthaben.services import checks, requests
from guthaben.services.answers import CallView
from guthaben.web import call_shapes, models, views
from guthaben.web.access import Caller
from guthaben.web.deps import Services
from guthaben.web.problems import invalid
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import Shape
from guthaben.web.strict_json import read_object

KEY_HEADER: Final = "idempotency-key"
_CAUSES: Final = {"caller": int(EndedBy.CALLER), "exception": int(EndedBy.EXCEPTION)}
_KEY_ABOUT: Final = {"Idempotency-Key": "1 to 255 printable characters, unless `key` is sent."}
_ID_ABOUT: Final = {"call_id": "The id that reserving gave."}


class CallRoutes:
    """The endpoints; each reads strictly, does one step and shows the call."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credit = services.credit
        self._core = services.core

    async def reserve(self, request: Request) -> Response:
        """Reserve credit before an AI call.

        Durable when answered: make the call only after a 2xx. The same key and body give the same
        call (200, `replayed`); once that call is over, the answer is 409 `call_finished`. 402 says
        how much is available.
        """
        caller, options, key = await self._keyed(request, call_shapes.RESERVE)
        amount = options.pop("amount_usd")
        command = requests.reserve_command(amount, key, options)  # type: ignore[arg-type]
        outcome = await self._do("reserve", caller, command)
        view = self._view(caller, outcome)
        if outcome.replayed and outcome.call is not None and outcome.call.status != RESERVED:
            raise CallFinished(view.id, view.status)
        return answer(views.call(view), 200 if outcome.replayed else 201)

    async def settle(self, request: Request) -> Response:
        """Settle a call with its real cost.

        Idempotent for the same cost and usage; another cost on a settled call is 409
        `settled_otherwise`. What exceeds the reservation takes what is available; the rest becomes
        debt.
        """
        caller, call_no = await self._named(request)
        options = _usage(call_shapes.SETTLE.read(await read_object(request)))
        cost = options.pop("cost_usd")
        command = requests.settle_command(call_no, cost, options)  # type: ignore[arg-type]
        return await self._step("settle", caller, command)

    async def release(self, request: Request) -> Response:
        """Release a call that was not made.

        On a call that is over nothing happens, and the answer says `applied: false`.
        """
        caller, call_no = await self._named(request)
        options = call_shapes.RELEASE.read(await read_object(request))
        cause = _CAUSES[options.get("cause", "caller")]
        return await self._step("release", caller, Release(call_no, cause))

    async def extend(self, request: Request) -> Response:
        """Give an open call more time.

        Counted from now, at most 24 hours in all; it never shortens.
        """
        caller, call_no = await self._named(request)
        options = call_shapes.EXTEND.read(await read_object(request))
        command = Extend(call_no, checks.ttl_ms_of(options["ttl_s"]))
        return await self._step("extend", caller, command)

    async def usage(self, request: Request) -> Response:
        """Record a call that was made without a reservation.

        What no credit covers becomes debt. Idempotent by key.
        """
        caller, options, key = await self._keyed(request, call_shapes.USAGE)
        cost = options.pop("cost_usd")
        command = requests.usage_command(cost, key, options)  # type: ignore[arg-type]
        outcome = await self._do("usage", caller, command)
        return answer(views.call(self._view(caller, outcome)), 200 if outcome.replayed else 201)

    async def one(self, request: Request) -> Response:
        """Look at one call."""
        caller = await self._services.access.caller(request, "gate", "credit")
        read_query(request, call_shapes.NO_QUERY)
        found = await self._credit.call(caller.practice_id, request.path_params["call_id"])
        return answer(views.call(found))

    async def many(self, request: Request) -> Response:
        """List calls, newest first."""
        caller = await self._services.access.caller(request, "gate", "credit")
        options = read_query(request, call_shapes.CALLS)
        before, limit = options.get("before"), options.get("limit", 50)
        before_no = None if before is None else self._core.call_no(caller.practice_id, before)
        found = await self._credit.calls(caller.practice_id, limit=limit, before_call_no=before_no)
        return answer(views.calls(found, limit))

    # ---- steps

    async def _keyed(self, request: Request, shape: Shape) -> tuple[Caller, dict[str, Any], str]:
        caller = await self._services.access.caller(request, "gate")
        options = _usage(shape.read(await read_object(request)))
        key = _key(request, options.pop("key", None))
        options["api_key_id"] = caller.key_id
        return caller, options, key

    async def _named(self, request: Request) -> tuple[Caller, int]:
        caller = await self._services.access.caller(request, "gate")
        return caller, self._core.call_no(caller.practice_id, request.path_params["call_id"])

    async def _step(self, operation: str, caller: Caller, command: Command) -> Response:
        outcome = await self._do(operation, caller, command)
        return answer(views.call(self._view(caller, outcome)))

    async def _do(self, operation: str, caller: Caller, command: Command) -> Outcome:
        count = self._services.metrics.command
        try:
            if isinstance(command, Reserve):
                outcome = await self._credit.execute_or_wait(caller.practice_id, command)
            else:
                outcome = await self._credit.execute(caller.practice_id, command)
        except GuthabenError as error:
            count(operation, error.reason if isinstance(error, Refused) else error.code)
            raise
        count(operation, "replayed" if outcome.replayed else "ok")
        return outcome

    def _view(self, caller: Caller, outcome: Outcome) -> CallView:
        assert outcome.call is not None
        return self._core.view(
            caller.practice_id, outcome.call, replayed=outcome.replayed, applied=outcome.applied
        )


def _usage(options: dict[str, Any]) -> dict[str, Any]:
    audio_ms = options.pop("audio_ms", None)
    if audio_ms is not None:
        options["audio_seconds"] = audio_ms / 1000
    return options


def _key(request: Request, in_body: str | None) -> str:
    """Find the idempotency key in the header or the body; both may be sent if they are equal."""
    sent = request.headers.getlist(KEY_HEADER)
    if len(sent) > 1:
        raise invalid("Idempotency-Key occurs twice.", field="key")
    if not sent:
        if in_body is None:
            raise invalid("Send an Idempotency-Key header, or key in the body.", field="key")
        return in_body
    if in_body is not None and in_body != sent[0]:
        raise invalid("Idempotency-Key and key differ; send one of them.", field="key")
    return str(call_shapes.RESERVE.fields["key"].read("Idempotency-Key", sent[0]))


def router(services: Services) -> APIRouter:
    """Make the routes of the gate."""
    routes, api, call = CallRoutes(services), new_router("gate"), models.CallModel
    made = {201: call, 200: call}
    add(
        api, "POST", "/v1/reservations", routes.reserve,
        body=call_shapes.RESERVE, answers=made, headers=_KEY_ABOUT, refusals=(402, 429),
    )  # fmt: skip
    add(
        api, "GET", "/v1/reservations/{call_id}", routes.one,
        answers={200: call}, path_parameters=_ID_ABOUT,
    )  # fmt: skip
    steps = (
        ("settle", routes.settle, call_shapes.SETTLE),
        ("release", routes.release, call_shapes.RELEASE),
        ("extend", routes.extend, call_shapes.EXTEND),
    )
    for name, endpoint, shape in steps:
        add(
            api, "POST", f"/v1/reservations/{{call_id}}/{name}", endpoint,
            body=shape, answers={200: call}, path_parameters=_ID_ABOUT,
        )  # fmt: skip
    add(
        api, "POST", "/v1/usage", routes.usage,
        body=call_shapes.USAGE, answers=made, headers=_KEY_ABOUT,
    )  # fmt: skip
    add(
        api, "GET", "/v1/calls", routes.many,
        query=call_shapes.CALLS, answers={200: models.CallsModel},
    )  # fmt: skip
    return api
