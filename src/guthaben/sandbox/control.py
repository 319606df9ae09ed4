"""Owns the control API under /_control: its addresses, and the way of one call.

JSON in, JSON out, no authentication: it answers callers on the same machine only. What the actions
do is in `control_actions`; `GET /_control` lists them.
"""

import json
import re
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from guthaben.sandbox import control_actions as act
from guthaben.sandbox import subscription_control
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.state import State
from guthaben.sandbox.webhooks import Postman

Action = Callable[..., JsonObject]

ACTIONS: Final[tuple[tuple[str, str, Action], ...]] = (
    ("POST", "/faults", act.load_script),
    ("POST", "/faults/calls", act.add_call_fault),
    ("POST", "/faults/deliveries", act.add_delivery_fault),
    ("GET", "/faults/schema", act.show_schema),
    ("GET", "/faults", act.show_faults),
    ("DELETE", "/faults", act.clear_faults),
    ("POST", "/deliveries", act.set_deliveries),
    ("GET", "/deliveries", act.show_deliveries),
    ("POST", "/deliveries/pause", act.pause_deliveries),
    ("POST", "/deliveries/resume", act.resume_deliveries),
    ("POST", "/events", act.send_event),
    ("POST", "/events/{id}/redeliver", act.redeliver),
    ("POST", "/checkout/{id}/pay", act.pay_session),
    ("POST", "/checkout/{id}/decline", act.decline_session),
    ("POST", "/checkout/{id}/expire", act.expire_session),
    ("POST", "/payment_intents/{id}/settle", act.settle_intent),
    ("POST", "/payment_intents/{id}/come_back", act.come_back),
    ("POST", "/setup_intents/{id}/settle", act.settle_setup),
    ("POST", "/payment_methods/{id}/outcome", act.order_outcome),
    ("POST", "/payment_methods/{id}/revoke", act.revoke_mandate),
    ("POST", "/charges/{id}/refund", act.refund_charge),
    ("POST", "/charges/{id}/dispute", act.dispute_charge),
    ("POST", "/charges/{id}/fraud_warning", act.warn_of_fraud),
    ("POST", "/refunds/{id}/settle", act.settle_refund),
    ("POST", "/refunds/order", act.order_refunds),
    ("POST", "/disputes/{id}/move", act.move_dispute),
    ("POST", "/disputes/{id}/close", act.close_dispute),
    ("POST", "/fees", act.set_fees),
    ("POST", "/subscriptions/{id}/pay", subscription_control.pay),
    ("POST", "/subscriptions/{id}/give_up", subscription_control.give_up),
    ("POST", "/subscriptions/{id}/pause", subscription_control.pause),
    ("POST", "/clock", act.advance_clock),
    ("GET", "/clock", act.show_clock),
    ("GET", "/counters", act.show_counters),
    ("GET", "/objects/{id}", act.show_objects),
    ("GET", "/calls", act.show_calls),
    ("POST", "/reset", act.reset),
)
_PATTERNS: Final = tuple(
    (method, re.compile(path.replace("{id}", "([^/]+)")), action)
    for method, path, action in ACTIONS
)
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "testclient"})


def perform(context: Context, action: Action, body: JsonObject, ids: tuple[str, ...]) -> JsonObject:
    """Do one action in one transaction."""
    with context.state.transaction():
        return action(context, body, *ids)


def action_at(method: str, path: str) -> tuple[Action, tuple[str, ...]]:
    """Return the action at an address under /_control, and the ids in it."""
    for known, pattern, action in _PATTERNS:
        found = pattern.fullmatch(path)
        if found and known == method:
            return action, found.groups()
    raise ApiError(404, f"There is no {method} {path[:200]} under /_control.")


class Control:
    """Serves everything under /_control."""

    def __init__(self, state: State, settings: Settings, postman: Postman) -> None:
        self._state = state
        self._settings = settings
        self._postman = postman

    def routes(self) -> list[Route]:
        """Return the control API's addresses."""
        listed = Route("/_control", self._list, methods=["GET"])
        actions = [
            Route(f"/_control{path}", self._endpoint(action), methods=[method])
            for method, path, action in ACTIONS
        ]
        return [listed, *actions]

    async def _list(self, request: Request) -> Response:
        return JSONResponse(
            [
                {"method": method, "path": f"/_control{path}", "does": action.__doc__}
                for method, path, action in ACTIONS
            ]
        )

    def _endpoint(self, action: Action) -> Callable[[Request], object]:
        async def endpoint(request: Request) -> Response:
            return await self._serve(request, action)

        return endpoint

    async def _serve(self, request: Request, action: Action) -> Response:
        try:
            body = await _body(request)
            base_url = self._settings.public_url or str(request.base_url).rstrip("/")
            context = Context(self._state, self._settings, base_url)
            answer = perform(context, action, body, tuple(request.path_params.values()))
        except ApiError as refusal:
            return JSONResponse(refusal.body(), refusal.status)
        self._postman.wake()
        return JSONResponse(answer)


async def _body(request: Request) -> JsonObject:
    if request.client is None or request.client.host not in _LOCAL:
        raise ApiError(403, "The control API answers callers on the same machine only.")
    raw = await request.body()
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except ValueError as bad:
        raise ApiError(400, "The body is no JSON.") from bad
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object.")
    return body
