"""The oracle: judges every commit and every request to Stripe while a run goes on.

Law: independent of the engine. It sees what is committed, what Stripe was asked and did, and what
the practices did and heard; the rules it applies are the invariants of the design, written anew.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.simulation.attempts import Purchases
from tests.simulation.ledger import Ledger
from tests.simulation.truth import Truth

if TYPE_CHECKING:
    from tests.simulation.world import World


class Oracle:
    """Everything that is watched."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.truth = Truth(world.model)
        self.ledger = Ledger(world.disk.looking)
        self.received: set[str] = set()
        """Events whose delivery was answered 200."""
        self.purchases = Purchases(
            world.disk.looking, self.truth, self.ledger, {**world.owns, "": world.everybody}
        )

    def committed(self) -> None:
        """Judge what a commit has left."""
        world = self._world
        self.truth.update()
        self.ledger.look(world.clock.s)
        task = world.yard.current
        self.purchases.refused_call = task is not None and task.name.startswith("reserve")
        self.purchases.look(world.clock.s, world.commits)

    def sending(self, method: str, path: str, body: str, key: str) -> None:
        """Judge a request in the moment before Stripe carries it out."""
        if method == "POST":
            task = self._world.yard.current
            at = task.last_commit if task is not None else self._world.commits
            self.purchases.sending(path, body, key, self._world.clock.s, at)

    def arrived(self, method: str, path: str, status: int, text: str) -> None:
        """Take in what a request did at Stripe."""
        if method != "POST":
            return
        task = self._world.yard.current
        if path == "/v1/checkout/sessions" and status == 200 and task is not None:
            task.page = json.loads(text)["id"]
            self.truth.opened_by.setdefault(task.page, task.practice_id)
        self.truth.update()
        self.charged_once()

    def charged_once(self) -> None:
        """See that no purchase took money twice."""
        self.purchases.charged_once()
