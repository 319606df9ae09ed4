"""The automatic top-up's charger: threads that charge what was claimed, and who waits for them.

Law: it takes over an attempt that is committed, and never keeps whoever claimed it waiting. What
it could not finish stays pending and is found again by the janitor. At most ten seconds per
charge, without repetition: that is the gateway's law.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final

from guthaben.domain.commands import Outcome
from guthaben.domain.topup import CreditEvent
from guthaben.errors import GuthabenError, PaymentError
from guthaben.payments.gateway import PaymentGateway
from guthaben.services.charging import (
    PURPOSE,
    ChargeReport,
    charge_claimed,
    claim,
    decision,
    store_result,
    withdraw_unsent,
)
from guthaben.services.janitor import (
    ALARM_AFTER_S,
    RETRY_SAME_KEY_S,
    SETTLED_FOR_S,
    Janitor,
    close_payment,
    resolve,
)
from guthaben.store.store import Store
from guthaben.store.topups import Located
from guthaben.store.workspace import new_topup_id

__all__ = [
    "ALARM_AFTER_S",
    "PURPOSE",
    "RETRY_SAME_KEY_S",
    "ChargeReport",
    "Charger",
    "Janitor",
    "charge_claimed",
    "claim",
    "close_payment",
    "decision",
    "new_topup_id",
    "resolve",
    "store_result",
]

log = logging.getLogger("guthaben.auto_topup")

_THREADS = 4
"""So that one slow charge does not keep other practices waiting."""
_MOST_TOLD: Final = 10_000


class Charger:
    """Charges claimed attempts on threads of its own; `janitor` finds what they left undone.

    Give its `claimed`, `allowed` and `under_way` to `Guthaben.open`, `attach` the store, then
    `start` it. Without a start, `janitor` charges on the caller's thread.
    """

    def __init__(
        self,
        gateway: PaymentGateway,
        *,
        allowed: Callable[[], bool] = lambda: True,
        threads: int = _THREADS,
    ) -> None:
        self.allowed = allowed
        self._gateway = gateway
        self._queue: SimpleQueue[tuple[str, CreditEvent] | None] = SimpleQueue()
        self._stopping = False
        self._store: Store | None = None
        self._number = threads
        self._threads: list[threading.Thread] = []
        self._waited_for: dict[str, Future[bool]] = {}
        self._lock = threading.Lock()

    def attach(self, store: Store) -> None:
        """Tell which store the attempts are in."""
        self._store = store

    @property
    def janitor(self) -> Janitor:
        """The jobs that find what was left undone; needs a store."""
        assert self._store is not None, "attach a store first"
        return Janitor(self._store, self._gateway, self._charge_low, allowed=self.allowed)

    def claimed(self, practice_id: str, outcome: Outcome) -> None:
        """Take over a claimed attempt; called by the store, returns at once."""
        if outcome.event is None:
            return
        waited_for: Future[bool] = Future()
        waited_for.set_running_or_notify_cancel()  # whoever stops waiting cancels it for nobody
        with self._lock:
            self._waited_for[practice_id] = waited_for
        self._queue.put((practice_id, outcome.event))

    def under_way(self, practice_id: str) -> Future[bool] | None:
        """Give what tells whether a practice's charge, under way or the last, brought credit."""
        with self._lock:
            return self._waited_for.get(practice_id)

    def start(self) -> None:
        """Begin charging."""
        self._stopping = False
        names = [f"guthaben-charger-{number}" for number in range(self._number)]
        self._threads = [
            threading.Thread(target=self._run, name=name, daemon=True) for name in names
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the charges under way; what is queued stays pending and is resolved later."""
        threads, self._threads = self._threads, []
        if not threads:
            return
        self._stopping = True
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join(timeout=15)
        with self._lock:
            left, self._waited_for = self._waited_for, {}
        for future in left.values():
            if not future.done():
                future.set_result(False)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopping:
            practice_id, event = item
            came = False
            try:
                came = self._charge(practice_id, event)
            except GuthabenError:
                log.exception("an attempt keeps no outcome; it will be resolved later")
            except Exception:
                log.exception("charging broke; the attempt will be resolved later")
            self._tell(practice_id, came)

    def _tell(self, practice_id: str, came: bool) -> None:
        with self._lock:
            future = self._waited_for.get(practice_id)
            # Credit that came is told until the next charge: a charge may be quicker than whoever
            # was refused, and asks for it only then. They try once more, which costs little.
            if not came or len(self._waited_for) > _MOST_TOLD:
                self._waited_for.pop(practice_id, None)
        if future is not None and not future.done():
            future.set_result(came)

    def _charge(self, practice_id: str, claimed: CreditEvent) -> bool:
        """Charge one attempt; tell whether credit came."""
        store = self._store
        if store is None or store.now_s() - claimed.recorded_at_s > SETTLED_FOR_S:
            return False  # too old to be sure that nobody else sends it: the janitor's work
        if not self.allowed():
            store.run(lambda space: withdraw_unsent(space, practice_id, claimed, "not_allowed"))
            return False
        report = charge_claimed(store.run, self._gateway, practice_id, claimed)
        log.info("automatic top-up: charged=%s reason=%s", report.charged, report.reason)
        if report.event.open_minor:
            self._close(store, practice_id, report.event)
        return report.charged

    def _close(self, store: Store, practice_id: str, event: CreditEvent) -> None:
        """Cancel a declined payment at once, so that the customer can't pay it and a new one."""
        try:
            close_payment(store.run, self._gateway, Located(0, practice_id, event))
        except PaymentError as error:
            log.warning("a declined payment is not cancelled yet: %s", error.code)

    def _charge_low(self, practice_id: str, outcome: Outcome) -> None:
        """Charge what the janitor claimed: on our threads, or here where none was started."""
        if self._threads:
            self.claimed(practice_id, outcome)
        elif outcome.event is not None:
            self._charge(practice_id, outcome.event)

    def resolve_waiting(self, most: int = 500) -> int:
        """Resolve attempts without an outcome, the oldest first; tell how many have one now."""
        return 0 if self._store is None else self.janitor.resolve_once(most=most)
