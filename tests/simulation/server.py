"""A server process: the real services on the run's disk, without threads of its own.

Law: what a thread would do (the writer, the charger, a job) is done in a task of the yard. Nothing
of the engine is replaced but where it waits: its thread, its connection, its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from guthaben.domain.commands import Outcome
from guthaben.errors import GuthabenError, StoreUnavailable
from guthaben.payments.deadline import Deadline
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.auto_topup import Charger
from guthaben.services.reconcile import Reconciler, Report
from guthaben.store import sqlite_session, store
from guthaben.store.writer import Job, Order, Writer
from guthaben.web.deps import Services
from tests.simulation.disk import Connection
from tests.simulation.yard import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

WEBHOOK_SECRET = "whsec_of_the_simulation"
API_KEY = "sk_test_simulation"
_SLOW_CHARGES = 0.4
"""How many of the claimed charges wait for a later step, as behind others in a queue."""
_ELSEWHERE = frozenset({"reconcile", "outbox"})
"""Jobs that a run starts in a way of its own, or that speak to others than Stripe."""


class InlineWriter(Writer):
    """The real writer, worked by whoever calls it, one transaction at a time."""

    server: Server

    def _begin_work(self) -> None:
        return None

    def submit(self, *orders: Order | Job) -> None:
        yard = self.server.world.yard
        for order in orders:
            if self.closed:
                raise StoreUnavailable("this Guthaben is closed; open it again")
            yard.point("before a transaction")
            self._work([order])
            if self._after_batch is not None:
                self._after_batch()
            yard.point("after a transaction")

    def do_now(self, order: Order) -> bool:
        self.submit(order)
        return True

    def close(self) -> None:
        self._closed = True
        self._session.close()


class Server:
    """One process: everything that a real server opens, on the run's disk."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.process = Process(name)
        self.services = Services.open(
            "sqlite://",
            gateway=StripeGateway(API_KEY),
            webhook_secrets=lambda: (WEBHOOK_SECRET,),
            livemode=False,
            charges_allowed=lambda: True,
            clock_ms=world.clock,
        )
        self.guthaben = self.services.guthaben
        self.topups = self.services.payments.topups
        self.inbox = self.services.payments.inbox
        self.refunds = self.inbox.refunds
        self.stops = self.services.stops
        turn: Any = _Turn(self.guthaben.core.store)
        jobs = [desk.job for desk in self.services.runner._desks.values()]
        self._jobs = {
            job.name: partial(job.run, turn) for job in jobs if job.name not in _ELSEWHERE
        }

    def spawn(self, name: str, work: Callable[[], Any], practice_id: str = "") -> None:
        """Put work of this process into the yard; what it refuses is noted."""

        def noted() -> None:
            try:
                answer = work()
            except GuthabenError as error:
                self.world.note(f"{name}: {error.code} {getattr(error, 'reason', '')}".rstrip())
            else:
                self.world.note(f"{name}: {_shown(answer)}")

        self.world.yard.spawn(name, self.process, noted, practice_id=practice_id)

    def claimed(self, practice_id: str, outcome: Outcome) -> None:
        """Charge what was claimed, in a task of its own, as the charger's threads would."""
        event, charger = outcome.event, self.services.payments.charger
        if event is not None:
            self.spawn("charge", lambda: charger._charge(practice_id, event), practice_id)
            yard = self.world.yard
            yard.tasks[-1].asleep = not yard.calm and yard.rng.random() < _SLOW_CHARGES

    def reconcile(self, since_s: int) -> Report:
        """Compare with Stripe since an instant, and mend what can be mended."""
        payments = self.services.payments
        store = self.guthaben.core.store
        return Reconciler(store, payments.gateway, payments.inbox).run(since_s, fix=True)

    def jobs(self) -> dict[str, Callable[[], Any]]:
        """Give what runs in the background of a real server."""
        return dict(self._jobs)


class _Turn:
    """A turn that goes on: which server leads is tested with the jobs themselves."""

    fence = 0

    def __init__(self, store: store.Store) -> None:
        self.run = store.run

    def may_go_on(self) -> bool:
        return True

    def guard(self, _space: Any) -> None:
        return None


def _shown(answer: Any) -> str:
    return "done" if answer is None else str(answer)[:120]


@contextmanager
def seams(
    opening: Callable[[], tuple[Server, Connection]], serving: Callable[[Charger], Server]
) -> Iterator[None]:
    """Put the yard where the engine would wait.

    `opening` tells which server opens its store now, `serving` whose a charger is.
    """

    class Opened(InlineWriter):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.server = opening()[0]
            super().__init__(*args, **options)

    def claimed(charger: Charger, practice_id: str, outcome: Outcome) -> None:
        serving(charger).claimed(practice_id, outcome)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Charger, "claimed", claimed))
        stack.enter_context(patch.object(store, "Writer", Opened))
        stack.enter_context(
            patch.object(sqlite_session, "connect", lambda *_args, **_options: opening()[1])
        )
        stack.enter_context(patch.object(Deadline, "run", lambda _self, call: call()))
        yield
