"""Services: everything the routes need, opened together, started and stopped together.

Law: one store per process and database; the sync and the async interface share it. Questions to
the payment provider run on threads of their own, so that a slow provider delays no gate.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from guthaben import config
from guthaben.payments.gateway import PaymentGateway
from guthaben.services.api_keys import ApiKeys
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.auto_topup import Charger
from guthaben.services.caps import CapBook
from guthaben.services.closing import PageCloser
from guthaben.services.delivery import Dispatcher
from guthaben.services.guthaben import Guthaben
from guthaben.services.jobs import Runner
from guthaben.services.letters import Letters
from guthaben.services.licences import Licences
from guthaben.services.portal import Portal
from guthaben.services.quarantine import Quarantine
from guthaben.services.targets import Targets
from guthaben.services.topup_stops import TopupStops
from guthaben.services.topups import Topups
from guthaben.services.webhooks import Inbox
from guthaben.store.writer import wall_clock_ms
from guthaben.web import background
from guthaben.web.access import Access
from guthaben.web.gateway.limits import Limits
from guthaben.web.metrics import Metrics
from guthaben.web.problems import not_configured

T = TypeVar("T")

_SLOW_THREADS = 8
_STOP_S = 2


@dataclass(frozen=True, slots=True)
class Payments:
    """What there is only with a payment provider."""

    topups: Topups
    inbox: Inbox
    charger: Charger
    closer: PageCloser
    licences: Licences
    quarantine: Quarantine
    gateway: PaymentGateway


class Services:
    """Opened on one database; use `async with`, in the lifespan of the app that mounts the routes.

    Without a gateway nothing can be bought, and everything else works.
    """

    def __init__(
        self,
        guthaben: Guthaben,
        payments: Payments | None,
        *,
        purchases_allowed: Callable[[], bool] = lambda: True,
        public_url: str | None = None,
        livemode: bool | None = None,
    ) -> None:
        self.is_test_mode = livemode is False
        self.guthaben = guthaben
        self.purchases_allowed = purchases_allowed
        self.core = guthaben.core
        self.credit = AsyncGuthaben(guthaben.core)
        self.stops = TopupStops(guthaben)
        self.keys = ApiKeys(guthaben.core.store)
        self.letters = Letters(guthaben.core.store)
        self.access = Access(self.keys)
        self.portal = Portal(guthaben)
        self.caps = CapBook(guthaben.core.store)
        self.limits = Limits(self.caps.limited)
        self.metrics = Metrics()
        self.public_url = public_url
        self.running = False
        self._at_end: list[Callable[[], Awaitable[None]]] = []
        self._payments = payments
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, "guthaben-slow")
        store = guthaben.core.store
        self.targets = Targets(store)
        self.dispatcher = Dispatcher(store, public_url=public_url)
        jobs = background.jobs(guthaben, payments, self.dispatcher)
        self.runner = Runner(store, jobs, on_turn=self.metrics.job_ended)

    @classmethod
    def open(
        cls,
        database_url: str,
        *,
        gateway: PaymentGateway | None = None,
        webhook_secrets: Callable[[], tuple[str, ...]] = config.stripe_webhook_secrets,
        livemode: bool | None = None,
        charges_allowed: Callable[[], bool] = config.auto_topup_enabled,
        purchases_allowed: Callable[[], bool] = lambda: True,
        public_url: str | None = None,
        topup_wait_s: float = 0,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> Self:
        """Open or migrate the database; blocks meanwhile. Raises as `Guthaben.open` does.

        `livemode` says which webhooks are taken, real ones or tests; `charges_allowed` is asked
        before each automatic charge, `purchases_allowed` before each purchase by hand.
        `topup_wait_s` is how long a call that lacks credit waits for the charge under way.
        """
        if gateway is None:
            guthaben = Guthaben.open(database_url, clock_ms=clock_ms)
            return cls(guthaben, None, public_url=public_url)
        charger = Charger(gateway, allowed=charges_allowed)
        guthaben = Guthaben.open(
            database_url,
            clock_ms=clock_ms,
            on_claim=charger.claimed,
            may_claim=charger.allowed,
            under_way=charger.under_way,
            topup_wait_s=topup_wait_s,
        )
        charger.attach(guthaben.core.store)
        store = guthaben.core.store
        inbox = Inbox(guthaben, gateway, secrets=webhook_secrets, livemode_expected=livemode)
        payments = Payments(
            Topups(guthaben, gateway, livemode=livemode),
            inbox,
            charger,
            PageCloser(guthaben.core.store, gateway),
            Licences(guthaben, gateway, livemode=livemode),
            Quarantine(store, gateway, inbox.settler, inbox.refunds),
            gateway,
        )
        return cls(
            guthaben,
            payments,
            purchases_allowed=purchases_allowed,
            public_url=public_url,
            livemode=livemode,
        )

    @property
    def payments(self) -> Payments:
        """Give what needs a payment provider; without one, answer that there is none."""
        if self._payments is None:
            raise not_configured()
        return self._payments

    @property
    def has_payments(self) -> bool:
        """Tell whether there is a payment provider."""
        return self._payments is not None

    @property
    def sells(self) -> bool:
        """Tell whether credit can be bought here and now."""
        return self._payments is not None and self.purchases_allowed()

    def on_stop(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something at the end, on the event loop, before the database is closed."""
        self._at_end.append(work)

    def news_in_inbox(self) -> None:
        """Let the inbox be worked at once, if this server leads; else the leader looks soon."""
        self.runner.wake(background.INBOX)

    async def slowly(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        """Do something that may take seconds on a thread set aside for that."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._slow, lambda: work(*args, **options))

    # ---- life

    def start(self) -> None:
        """Start the background jobs."""
        if self._payments is not None:
            self._payments.charger.start()
        self.runner.start()
        self.running = True

    def stop(self) -> None:
        """Stop the background jobs, finish what is queued, close the database. Idempotent."""
        self.running = False
        charges_end = self._stop_charging()
        end_s = time.monotonic() + _STOP_S
        self.runner.stop(_STOP_S)
        charges_end.join(max(0, end_s - time.monotonic()))
        self._slow.shutdown(wait=False, cancel_futures=True)
        self.guthaben.close()

    def _stop_charging(self) -> threading.Thread:
        """Stop the charger on the side: a charge under way may take longer than we wait.

        What it can't store any more stays pending, and is resolved after the next start.
        """
        stop = self._payments.charger.stop if self._payments is not None else _nothing
        thread = threading.Thread(target=stop, name="guthaben-stop-charger", daemon=True)
        thread.start()
        return thread

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for work in self._at_end:
            await work()
        await asyncio.to_thread(self.stop)


def _nothing() -> None:
    """Stop nothing."""
