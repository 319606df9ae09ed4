"""The wire between the real SDK and the model of Stripe: in process, and as bad as a seed wants it.

Law: the oracle sees every request at the moment it arrives, whatever the caller hears afterwards.
What goes wrong is the model's to do; here it is only chosen. A task may be put aside with
its request not yet sent, or with its answer not yet read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import stripe

from guthaben.sandbox.model import NoAnswer
from guthaben.sandbox.script import CallFault, Script
from guthaben.sandbox.sdk_wire import Said, SdkWire

if TYPE_CHECKING:
    from tests.simulation.world import World

DEADLINE_MS = 10_000
_CANCELS_FAIL_MS = 4 * 86_400_000

# How often which fault is met, among faults. `late` is carried out after its caller has given up.
FAULTS: dict[str, tuple[int, CallFault | None]] = {
    "drop_before": (20, CallFault(fault="drop_before")),
    "commit_then_drop": (30, CallFault(fault="commit_then_drop")),
    "commit_then_500": (8, CallFault(fault="commit_then_500")),
    "commit_then_500_once": (8, CallFault(fault="commit_then_500", saved=False)),
    "error_500": (8, CallFault(fault="error_500")),
    "rate_limit": (8, CallFault(fault="rate_limit")),
    "lock_timeout": (5, CallFault(fault="lock_timeout")),
    "unauthorized": (2, CallFault(fault="unauthorized")),
    "late": (8, CallFault(fault="slow", seconds=45, when="before")),
    "slow": (8, CallFault(fault="slow", seconds=15, when="after")),
}


class Wire(SdkWire):
    """What the SDK speaks through."""

    name = "simulation"

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def carry(
        self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]
    ) -> Said:
        """Carry one request and its answer; raises what a network raises, or `TimeoutError`."""
        headers = {name.lower(): str(value) for name, value in headers.items()}
        world, began_ms = self._world, self._world.clock.ms
        world.yard.point(f"before {method} {path}")
        if method == "GET" and path.startswith("/v1/payment_intents/"):
            world.last_read = path.rpartition("/")[2]
        charges = method == "POST" and path.startswith("/v1/payment_intents")
        fault = self._choose(3 if charges else 1)
        if path.endswith("/cancel") and world.no_cancels and not world.yard.calm:
            # For days nothing is cancelled, then for days all is.
            fault = "error_500" if world.clock.ms // _CANCELS_FAIL_MS % 2 else fault
        if fault not in {"drop_before", "rate_limit", "unauthorized", "error_500"}:
            key = headers.get("idempotency-key", "")
            world.oracle.sending(method, path, body.decode(), key)
        if rule := FAULTS[fault][1] if fault else None:
            world.model.load(Script(calls=(rule,)))
        try:
            answer = world.model.request(method, path, query, body, headers)
        except NoAnswer as lost:
            world.note(f"stripe {method} {path} -> no answer: {fault}")
            world.oracle.arrived(method, path, 0, "")
            world.yard.point(f"after {method} {path}")
            if fault in {"late", "slow"}:
                world.clock.advance_ms(DEADLINE_MS)
                raise TimeoutError from lost
            raise stripe.APIConnectionError("simulated: no answer") from lost
        world.note(f"stripe {method} {path} -> {answer.status} {fault}".rstrip())
        world.oracle.arrived(method, path, answer.status, answer.body)
        world.yard.point(f"after {method} {path}")
        if world.clock.ms - began_ms > DEADLINE_MS:
            world.note(f"stripe {method} {path}: nobody waits for the answer any more")
            raise TimeoutError
        return answer.body, answer.status, answer.headers

    def _choose(self, times: int) -> str:
        """Choose what goes wrong; charges meet more of it, for they have the most to lose."""
        world = self._world
        if world.yard.calm or world.yard.rng.randrange(1000) >= min(800, world.odds.wire * times):
            return ""
        weights = [weight for weight, _fault in FAULTS.values()]
        return world.yard.rng.choices(list(FAULTS), weights)[0]
