"""One run: the steps of a plan, then the end, with the oracle watching all the way.

Law: a run is a function of its seed and of the steps that it does. What it finds names the broken
law and the step; its history says everything else.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import NamedTuple

from tests.simulation import outside, practices
from tests.simulation.ending import quiesce
from tests.simulation.furnish import furnish
from tests.simulation.history import Violation
from tests.simulation.plan import ACTIONS, Step, draw, length_ms
from tests.simulation.world import World

_LONG_MS = 10_000
"""No task sleeps through a longer pause: a process that stands still for hours is a dead one."""
_JOBS_AFTER_MS, _JOBS_RUN = 65_000, 0.5
"""In half of the longer pauses the background jobs ran soon; in the others they stood still."""
_MEDDLES = 0.5
"""How often somebody changes something about a practice whose charge is under way."""


class Found(NamedTuple):
    """What a run came to; `law` is empty if nothing was broken."""

    seed: int
    law: str
    detail: str
    step: int
    steps: int
    digest: str
    history: str


def run(seed: int, leaving_out: Collection[int] = ()) -> Found:
    """Do one run; steps whose numbers are left out don't happen."""
    world = World(seed)
    plan = [step for step in draw(seed) if step.number not in leaving_out]
    at, law, detail = -100, "", ""
    with world.alive():
        try:
            furnish(world)
            for step in plan:
                at = step.number
                _do(world, step)
            at = len(plan)
            quiesce(world)
        except Violation as found:
            law, detail = found.law, found.detail
        except Exception as error:
            law, detail = "unexpected error", repr(error)
        if law:
            world.note(f"BROKEN {law}: {detail}")
    return Found(seed, law, detail, at, len(plan), world.history.digest(), world.history.text())


def _do(world: World, step: Step) -> None:
    rng = Random(f"{world.seed}/{step.number}")
    world.yard.rng = rng
    pause_ms = length_ms(step, world.clock.ms)
    world.history.add(f"-- step {step.number}: {step.action}")
    if pause_ms > _LONG_MS:
        world.yard.drain()
    if pause_ms > _JOBS_AFTER_MS and rng.random() < _JOBS_RUN:
        world.clock.advance_ms(_JOBS_AFTER_MS)
        pause_ms -= _JOBS_AFTER_MS
        outside.all_jobs(world, rng)
        world.yard.drain()
    world.clock.advance_ms(pause_ms)
    world.yard.wake(40)
    if rng.random() < _MEDDLES:
        practices.meddle(world, rng)
    ACTIONS[step.action][1](world, rng)
    world.yard.run(step.turns)
    if world.yard.broken is not None:
        raise world.yard.broken
