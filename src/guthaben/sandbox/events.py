"""Owns the making of events: a snapshot of an object, stored, and its delivery queued.

The faults that are set for deliveries are applied here, when an event is queued; how a delivery
is sent is in `deliveries` and `webhooks`.
"""

from guthaben.sandbox import faults
from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import new_id
from guthaben.sandbox.script import DeliveryFault
from guthaben.sandbox.state import State


def emit(
    ctx: Context, event_type: str, obj: JsonObject, previous: JsonObject | None = None
) -> JsonObject:
    """Store an event about an object as it is now, and queue its delivery."""
    event: JsonObject = {
        "id": new_id("evt"),
        "object": "event",
        "api_version": ctx.api_version,
        "created": ctx.now_s(),
        "data": {"object": obj} | ({"previous_attributes": previous} if previous else {}),
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
    found = faults.take_delivery(state, event["type"])
    if found is None:
        state.add_delivery(event["id"], twist={})
        return
    fault, left = found
    if fault.fault == "lose":
        state.add_delivery(event["id"], twist={}, word="lost")
        return
    for _ in range(fault.copies if fault.fault == "duplicate" else 1):
        state.add_delivery(event["id"], delay_ms=_delay_ms(fault, left), twist=_twist(fault))


def _delay_ms(fault: DeliveryFault, left: int) -> int:
    if fault.fault == "delay":
        return int(fault.delay_s * 1000)
    if fault.fault == "reorder" and fault.times is not None:
        # The fewer are left, the shorter the delay: each event overtakes those before it.
        return int(fault.window_s * 1000 * (left + 1) // fault.times)
    return 0


def _twist(fault: DeliveryFault) -> JsonObject:
    """Return how the delivery's signature shall be wrong."""
    if fault.fault == "stale_signature":
        return {"age_s": fault.age_s}
    return {"bad_signature": True} if fault.fault == "bad_signature" else {}
