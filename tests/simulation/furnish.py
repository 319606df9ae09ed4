"""How a run begins: practices that have bought, saved a card and agreed, so that much can happen.

Law: it is done by the same actions as everything else, with the oracle watching and nothing going
wrong. Some runs begin without it.
"""

from __future__ import annotations

from random import Random

from tests.simulation import outside, practices
from tests.simulation.world import World


def furnish(world: World) -> None:
    """Let each practice get its licence, most of them a card, and agree to automatic top-ups."""
    rng = Random(f"{world.seed}/furnish")
    world.yard.rng = rng
    world.yard.calm = True
    world.history.add("-- the beginning: nothing goes wrong")
    for own in world.owns.values():
        if own.allowance:
            practices.tell_license(world, own, world.server(rng))
        for begin in (practices.set_up, practices.top_up):
            if rng.random() < 0.75:
                begin(world, rng, own)
    world.yard.drain()
    for _ in range(sum(len(own.pages) for own in world.owns.values())):
        outside.pay(world, rng)
    outside.deliver_all(world, world.server(rng))
    outside.inbox(world, rng)
    world.yard.drain()
    for own in world.owns.values():
        if rng.random() < 0.8:
            practices.switch_on(world, rng, own)
    world.yard.drain()
    world.yard.calm = False
