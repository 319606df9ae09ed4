"""Owns the making of events: a snapshot of an object, stored, and its delivery queued.

The faults that are set for deliveries are applied here, when an event is queued; how a delivery
is sent is in `webhooks`.
"""

from typing import Any

from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import new_id
from guthaben.sandbox.state import State

FAULTS = "delivery_faults"
KINDS = ("duplicate", "reorder", "drop", "delay", "stale_signature", "bad_signature")
_DEFAULT_REORDER_MS = 600
_STALE_S = 301


def emit(ctx: Context, event_type: str, obj: JsonObject) -> JsonObject:
    """Store an event about an object as it is now, and queue its delivery."""
    event: JsonObject = {
        "id": new_id("evt"),
        "object": "event",
        "api_version": ctx.api_version,
        "created": ctx.now_s(),
        "data": {"object": obj},
        "livemode": False,
        "pending_webhooks": 1 if ctx.settings.webhook_url else 0,
        "request": {"id": ctx.request_id, "idempotency_key": ctx.idempotency_key},
        "type": event_type,
    }
    ctx.state.put(event)
    if ctx.settings.webhook_url:
        _queue(ctx.state, event)
    return event


def _queue(state: State, event: JsonObject) -> None:
    fault = take_fault(state, event["type"])
    kind = fault.get("kind")
    if kind == "drop":
        state.add_delivery(event["id"], twist={}, word="dropped")
        return
    copies = int(fault.get("times", 2)) if kind == "duplicate" else 1
    for _ in range(copies):
        state.add_delivery(event["id"], delay_ms=_delay_ms(fault), twist=_twist(fault))


def _delay_ms(fault: JsonObject) -> int:
    if fault.get("kind") == "delay":
        return int(fault.get("seconds", 1) * 1000)
    if fault.get("kind") == "reorder":
        return int(fault["share_ms"])
    return 0


def _twist(fault: JsonObject) -> JsonObject:
    """Return how the delivery's signature shall be wrong."""
    if fault.get("kind") == "stale_signature":
        return {"age_s": int(fault.get("seconds", _STALE_S))}
    return {"bad_signature": True} if fault.get("kind") == "bad_signature" else {}


def take_fault(state: State, event_type: str) -> JsonObject:
    """Return the first fault that concerns this event, and use it up by one; else nothing."""
    faults: list[dict[str, Any]] = state.setting(FAULTS, [])
    for fault in faults:
        if fault.get("types") and event_type not in fault["types"]:
            continue
        taken = dict(fault)
        left = fault.get("next")
        if fault["kind"] == "reorder":
            taken["share_ms"] = _share_ms(fault)
        if left is not None:
            fault["next"] = left - 1
        state.set_setting(FAULTS, [f for f in faults if f.get("next") != 0])
        return taken
    return {}


def _share_ms(fault: JsonObject) -> int:
    """Return the delay that lets the n-th of the reordered events overtake those before it."""
    window_ms = int(fault.get("seconds", 0) * 1000) or _DEFAULT_REORDER_MS
    count = fault.setdefault("of", fault["next"])
    return int(window_ms * fault["next"] // count)
