"""A server process: the real services on the run's disk, without threads of its own.

Law: what a thread would do (the writer, the charger, a job) is done in a task of the yard. Nothing
of the engine is replaced but where it waits: its thread, its connection, its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from guthaben.services.reconcile import Reconciler, Report
from guthaben.services.topup_stops import TopupStops

from guthaben.domain.commands import Outcome
from guthaben.errors import GuthabenError, StoreUnavailable
from guthaben.payments.deadline import Deadline
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.auto_topup import Charger
from guthaben.services.guthaben import Guthaben
from guthaben.services.topups import Topups
from guthaben.services.webhooks import Inbox
from guthaben.store import store, writer
from guthaben.store.writer import Job, Order, Writer
from tests.simulation.disk import Connection
from tests.simulation.yard import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

WEBHOOK_SECRET = "whsec_of_the_simulation"
API_KEY = "sk_test_simulation"


class InlineWriter(Writer):
    """The real writer, worked by whoever calls it, one transaction at a time."""

    server: Server

    def _begin_work(self) -> None:
        return None

    def submit(self, order: Order | Job) -> None:
        if self.closed:
            raise StoreUnavailable("this Guthaben is closed; open it again")
        yard = self.server.world.yard
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
        if self._con is not None:
            self._con.close()


class Server:
    """One process: opened on the disk, with everything that needs a payment provider."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.process = Process(name)
        gateway = self._gateway = StripeGateway(API_KEY)
        self.charger = Charger(gateway)
        self.guthaben = Guthaben.open(
            "sqlite://",
            clock_ms=world.clock,
            on_claim=self._claimed,
            may_claim=self.charger.allowed,
        )
        self.stops = TopupStops(self.guthaben)
        self.charger.attach(self.guthaben.core.store)
        self.topups = Topups(self.guthaben, gateway, livemode=False)
        self.inbox = Inbox(
            self.guthaben, gateway, secrets=lambda: (WEBHOOK_SECRET,), livemode_expected=False
        )

    def close(self) -> None:
        """End without finishing anything; the disk keeps what was committed."""
        self.guthaben.core.store._writer.close()

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

    def _claimed(self, practice_id: str, outcome: Outcome) -> None:
        event = outcome.event
        if event is not None:
            self.spawn("charge", lambda: self.charger._charge(practice_id, event), practice_id)

    def reconcile(self, since_s: int) -> Report:
        """Compare with Stripe since an instant, and mend what can be mended."""
        store = self.guthaben.core.store
        return Reconciler(store, self._gateway, self.inbox).run(since_s, fix=True)

    # ---- the jobs of a server, by name

    def jobs(self) -> dict[str, Callable[[], Any]]:
        """Give what runs in the background of a real server."""
        janitor = self.charger.janitor
        return {
            "expire": self.guthaben.expire,
            "inbox": self.inbox.work_once,
            "resolve": janitor.resolve_once,
            "cancel": janitor.cancel_once,
            "check": janitor.check_once,
            "refunds": self.inbox.refunds.resolve_waiting,
        }


def _shown(answer: Any) -> str:
    return "done" if answer is None else str(answer)[:120]


@contextmanager
def seams(opening: Callable[[], tuple[Server, Connection]]) -> Iterator[None]:
    """Put the yard where the engine would wait; `opening` tells which server opens its store."""

    class Opened(InlineWriter):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.server = opening()[0]
            super().__init__(*args, **options)

    with ExitStack() as stack:
        stack.enter_context(patch.object(store, "Writer", Opened))
        stack.enter_context(patch.object(writer, "connect", lambda _location: opening()[1]))
        stack.enter_context(patch.object(Deadline, "run", lambda _self, call: call()))
        yield
