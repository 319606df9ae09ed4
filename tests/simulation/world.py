"""The world of one run: clock, disk, Stripe, servers, practices, and the oracle that watches.

Law: everything in it follows from the seed. Two worlds of one seed that do the same steps write the
same history, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

import stripe

from guthaben.errors import GuthabenError
from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.model import Model
from guthaben.services.auto_topup import Charger
from tests.simulation.book import Own
from tests.simulation.chance import seeded_entropy
from tests.simulation.clock import Clock, start_s
from tests.simulation.disk import Connection, Disk, Mishap
from tests.simulation.history import History, Violation
from tests.simulation.oracle import Oracle
from tests.simulation.server import WEBHOOK_SECRET, Server, seams
from tests.simulation.wire import Wire
from tests.simulation.yard import Yard

USD = 1_000_000_000
# (licence's allowance per period in USD; 0: none)
_NO_CANCELS = 0.3
_PRACTICES = (("prac_a", 20), ("prac_b", 0), ("prac_c", 5))


@dataclass
class Odds:
    """How often things go wrong in a run, in per mille of the occasions."""

    wire: int
    disk: int
    loss: int
    """Deliveries that nobody will ever repeat."""


class World:
    """One run's world; use it inside `alive`."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"{seed}/world")
        self.seed = seed
        self.clock = Clock(start_s(rng))
        self.history = History()
        self.yard = Yard(self.note)
        self.yard.on_death = self.bury
        self.yard.odds.park = rng.choice((0, 100, 250, 500))
        self.yard.odds.sleep = rng.choice((0, 100, 300))
        self.yard.odds.by_pace = rng.choice((0, 70, 90))
        self.yard.odds.crash = rng.choice((0, 0, 4, 15))
        self.odds = Odds(
            wire=rng.choice((0, 100, 250, 500)),
            disk=rng.choice((0, 0, 10, 40)),
            loss=rng.choice((0, 0, 60)),
        )
        self.disk = Disk()
        self.model = Model(self.clock, seed, secret=WEBHOOK_SECRET)
        self.owns = {name: Own(name, f"lic_{name}", usd * USD) for name, usd in _PRACTICES}
        self.everybody = Own("", "", 0)
        """Stands for all practices where a stop names none."""
        self.wishes: dict[str, tuple[str, int | None]] = {}
        """Refunds that an operator asked for: the payment and the amount, by key."""
        self.last_read = ""
        """The payment that the engine has read last, and perhaps not booked yet."""
        # Of a source of its own: the other decisions of a seed stay what they were.
        self.no_cancels = Random(f"{seed}/cancels").random() < _NO_CANCELS
        """Whether Stripe fails for days to cancel what was refused, which so stays open."""
        self.began_at_s = self.clock.s
        self.commits = 0
        self.servers: dict[str, Server] = {}
        self._connections: dict[str, Connection] = {}
        self._opening: tuple[Server, Connection] | None = None
        self.oracle = Oracle(self)

    # ---- history

    def note(self, line: str) -> None:
        """Write one line of history."""
        task = self.yard.current
        who = f" [{task.process.name} {task.name}]" if task is not None else ""
        self.history.add(f"{self.clock.shown()}{who} {line}")

    # ---- servers

    def server(self, rng: Random) -> Server:
        """Give a server that runs; start one if none does."""
        self.bury()
        if not self.servers:
            self.start("A")
        return self.servers[rng.choice(sorted(self.servers))]

    def start(self, name: str) -> None:
        """Start a server process of that name, unless it runs."""
        self.bury()
        if name in self.servers:
            return
        self.note(f"process {name} starts")
        connection = self.disk.open()
        server = Server.__new__(Server)
        self._opening = (server, connection)
        server.__init__(self, name)  # type: ignore[misc]
        connection.before, connection.after = self._before, self._after
        self.servers[name], self._connections[name] = server, connection

    def bury(self) -> None:
        """Close what dead processes had open: what they had not committed is gone."""
        for name in [n for n, server in self.servers.items() if not server.process.alive]:
            del self.servers[name]
            connection = self._connections.pop(name)
            connection.rollback()
            connection.close()

    def _before(self, sql: str) -> Mishap:
        yard = self.yard
        if yard.current is None or yard.calm:
            return ""
        if sql == "COMMIT":
            yard.point("before COMMIT", may_park=False)
        if yard.rng.randrange(1000) >= self.odds.disk:
            return ""
        mishap: Mishap = "refused"
        if sql == "COMMIT":
            mishap = yard.rng.choice(("lost", "undone"))
        self.note(f"disk: {sql} {mishap}")
        return mishap

    def _after(self, _how: str) -> None:
        self.commits += 1
        task = self.yard.current
        if task is not None:
            task.last_commit = self.commits
        self.watched(self.oracle.committed)

    def watched(self, judge: Any) -> None:
        """Let the oracle judge; what it finds ends the run at the next turn."""
        try:
            judge()
        except Violation as found:
            self.yard.broken = self.yard.broken or found

    # ---- the hand from outside at Stripe

    def at_stripe(self, path: str, **body: Any) -> bool:
        """Do something at Stripe that is none of our requests; tell whether it could be done."""
        try:
            answer = self.model.control(path, body)
        except ApiError as error:
            self.note(f"outside {path} {body} refused: {error}"[:160])
            return False
        self.note(f"outside {path} {body}"[:160])
        self.oracle.truth.update()
        return bool(answer.get("paid", True))

    # ---- life

    @contextmanager
    def alive(self) -> Iterator[World]:
        """Put the seams in, and take them out again."""
        with ExitStack() as stack:
            stack.enter_context(seeded_entropy(f"{self.seed}/entropy"))
            stack.enter_context(seams(self._being_opened, self._serving))
            stack.enter_context(patch.object(stripe, "default_http_client", Wire(self)))
            stack.enter_context(_listening(self))
            try:
                yield self
            finally:
                for server in self.servers.values():
                    server.process.alive = False
                self.yard.calm = True
                self.yard.broken = None
                self.yard.drain()
                self.bury()
                self.disk.close()
                self.model.close()

    def _serving(self, charger: Charger) -> Server:
        running = self.servers.values()
        return next(one for one in running if one.services.payments.charger is charger)

    def _being_opened(self) -> tuple[Server, Connection]:
        assert self._opening is not None
        return self._opening


class _Listener(logging.Handler):
    """Takes an unexpected exception in the engine's log for what it is: a finding."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or isinstance(error, GuthabenError):
            return
        found = Violation("unexpected error", f"{record.getMessage()}: {error!r}")
        self._world.yard.broken = self._world.yard.broken or found


@contextmanager
def _listening(world: World) -> Iterator[None]:
    log = logging.getLogger("guthaben")
    handler = _Listener(world)
    before = (log.propagate, log.level)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate, log.level = before[0], before[1]
