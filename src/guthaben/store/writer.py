"""The writer: one thread per process and database that folds queued commands into transactions.

Law: a caller is answered only after its command is durable. A refused command disturbs nobody; a
command that breaks is refused alone (`InternalRefused`); a batch that the database fails, fails
all its callers with `StoreUnavailable`; a lost answer to COMMIT is `OutcomeUnknown`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from guthaben.domain.commands import Command, Outcome
from guthaben.errors import GuthabenError, InternalRefused, StoreUnavailable
from guthaben.store import settings
from guthaben.store.forks import process
from guthaben.store.session import Conflict, Session
from guthaben.store.workspace import EventNote, Workspace

log = logging.getLogger("guthaben.writer")

ENOUGH = 512
"""Behind so many no more is gathered for a batch."""
_PAUSE_S = 0.000_1
_PATIENCE = 2
"""Pauses without anybody new until a crowd is complete. They are short beside a commit, and threads
that were just woken want the interpreter that the writer would keep from them."""
_MOST_CONFLICTS = 12
_MOST_APART_S = 3.0


Reply = Callable[[object], None]
"""Takes an outcome, a job's result or an exception for the caller; once, on the writer's thread."""


class Order(NamedTuple):
    """One queued command and where its answer goes."""

    practice_id: str
    command: Command
    reply: Reply
    note: EventNote | None = None


class Job(NamedTuple):
    """Work of several commands and statements in one transaction of its own."""

    work: Callable[[Workspace], Any]
    reply: Reply


class _Stop(NamedTuple):
    reply: Reply


def wall_clock_ms() -> int:
    """Read the one clock of the store, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Writer:
    """Owns the only writing connection of this process to one database."""

    def __init__(
        self,
        session: Session,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        after_batch: Callable[[], None] | None = None,
    ) -> None:
        self._session = session
        self.clock_ms = clock_ms
        self._on_claim = on_claim
        self._may_claim = may_claim
        self._after_batch = after_batch
        self._queue: SimpleQueue[Sequence[Order | Job | _Stop]] = SimpleQueue()
        """What was submitted together lies together."""
        self._gate = threading.Lock()
        """Held while something is queued, so that nothing is queued behind the end."""
        self._work_lock = threading.Lock()
        """Held by whoever works on the connection: the thread, or a caller for its own command."""
        self._last_batch = 1
        self._cache = session.cache
        self._cache_in_doubt = False
        self._pid = process()
        self._closed = False
        self._thread = self._begin_work()

    def _begin_work(self) -> threading.Thread | None:
        """Start the thread; a simulation does the work on its callers' turns instead."""
        thread = threading.Thread(target=self._run, name="guthaben-writer", daemon=True)
        thread.start()
        return thread

    # ---- for callers

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed

    @property
    def has_company(self) -> bool:
        """Whether commands came together last time, so that they may wait for each other."""
        return self._last_batch > 1

    def submit(self, *orders: Order | Job) -> None:
        """Queue commands or jobs; returns at once. Raises `StoreUnavailable` when closed."""
        if self._pid != process():
            raise StoreUnavailable("a forked process must open its own Guthaben")
        with self._gate:
            if self._closed:
                raise StoreUnavailable("this Guthaben is closed; open it again")
            for start in range(0, len(orders), ENOUGH):
                self._queue.put(orders[start : start + ENOUGH])

    def do_now(self, order: Order) -> bool:
        """Do a lone command on its caller's thread, if nobody else is at work; else do nothing.

        It saves two changes of thread. While commands come together, none is done like this, so
        that they are folded.
        """
        if self.has_company or not self._queue.empty() or self._pid != process():
            return False
        if self._work_lock.locked():
            return False
        # Not acquire and try: a signal between the two would leave the lock taken for ever. Whoever
        # loses the race for it waits for one batch.
        with self._work_lock:
            if self._closed:
                return False
            self._commands([order])
        return True

    def close(self) -> None:
        """Finish what is queued, then close the connection. Idempotent."""
        if self._pid != process():
            self._closed = True
            return
        done = threading.Event()
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put([_Stop(lambda _answer: done.set())])
        done.wait()
        if self._thread is not None:
            self._thread.join(timeout=10)

    # ---- the thread

    def _run(self) -> None:
        going = True
        while going:
            batch = self._next_batch()
            try:
                with self._work_lock:
                    self._last_batch = len(batch)
                    going = self._batch(batch)
            except BaseException as error:
                log.critical("the writer broke and stops", exc_info=error)
                self._give_up(batch)
                going = False

    def _batch(self, batch: list[Order | Job | _Stop]) -> bool:
        stop = next((item for item in batch if isinstance(item, _Stop)), None)
        self._work([item for item in batch if not isinstance(item, _Stop)])
        if self._after_batch is not None:
            self._after_batch()
        if stop is None:
            return True
        self._session.close()
        stop.reply(None)
        return False

    def _give_up(self, batch: list[Order | Job | _Stop]) -> None:
        """Let nobody wait for an answer that will not come; who was answered hears nothing more."""
        with self._gate:
            self._closed = True
            with contextlib.suppress(Empty):
                while True:
                    batch.extend(self._queue.get_nowait())
        for item in batch:
            with contextlib.suppress(Exception):
                item.reply(StoreUnavailable("the writer broke; the outcome is not known"))
        if self._after_batch is not None:
            self._after_batch()

    def _next_batch(self) -> list[Order | Job | _Stop]:
        """Take what is queued; a crowd may gather again first, as long as it keeps coming."""
        batch = list(self._queue.get())
        self._take_queued(batch)
        patience = _PATIENCE
        while patience and len(batch) < min(self._last_batch, ENOUGH):
            time.sleep(_PAUSE_S)
            patience = _PATIENCE if self._take_queued(batch) else patience - 1
        return batch

    def _take_queued(self, batch: list[Order | Job | _Stop]) -> bool:
        """Add what is queued to a batch; tell whether anything was."""
        before = len(batch)
        with contextlib.suppress(Empty):
            while len(batch) < ENOUGH:
                batch.extend(self._queue.get_nowait())
        return len(batch) > before

    def _work(self, items: list[Order | Job]) -> None:
        """Keep the order of arrival: commands between two jobs are folded together."""
        orders: list[Order] = []
        for item in items:
            if isinstance(item, Order):
                orders.append(item)
                continue
            if orders:
                self._commands(orders)
                orders = []
            self._job(item)
        if orders:
            self._commands(orders)

    def _commands(self, orders: list[Order]) -> None:
        watching = self._is_watching()
        try:
            answers, claims = self._transaction(lambda space: _fold(space, orders, watching))
        except GuthabenError as error:
            groups = _by_practice(orders)
            if self._session.lacks_a_node and len(groups) > 1:
                self._apart(groups, error)
                return
            for order in orders:
                order.reply(error)
            return
        except Exception as error:  # noqa: BLE001 - one bad command must not fail its neighbours
            self._one_by_one(orders, error)
            return
        # First, so that whoever is refused for lack of credit finds the charge that may bring it.
        self._tell_claims(claims)
        for order, answer in zip(orders, answers, strict=True):
            order.reply(answer)

    def _apart(self, groups: list[list[Order]], error: GuthabenError) -> None:
        """Do what doesn't need the node that is gone, as long as it is quick to say that it is."""
        end_s = time.monotonic() + _MOST_APART_S
        for group in groups:
            if time.monotonic() < end_s:
                self._commands(group)
            else:
                for order in group:
                    order.reply(error)

    def _is_watching(self) -> bool:
        """Ask whether top-ups may be claimed now; in doubt not."""
        try:
            return self._on_claim is not None and self._may_claim()
        except Exception:
            log.exception("nobody knows whether top-ups may be claimed: none is")
            return False

    def _one_by_one(self, orders: list[Order], error: Exception) -> None:
        """Give every command a transaction of its own; the culprit is refused and alarmed."""
        if len(orders) > 1:
            for order in orders:
                self._commands([order])
            return
        culprit = orders[0]
        name = type(culprit.command).__name__
        log.error("command refused by an internal error", exc_info=error)
        with contextlib.suppress(Exception):
            self._transaction(lambda space: _alarm(space, name, type(error).__name__))
        culprit.reply(InternalRefused(f"{name} broke inside ({type(error).__name__})"))

    def _job(self, job: Job) -> None:
        self._cache.clear()
        try:
            answer = self._transaction(job.work)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            job.reply(error)
            return
        finally:
            self._cache.clear()
        job.reply(answer)

    def _tell_claims(self, claims: list[tuple[str, Outcome]]) -> None:
        if self._on_claim is None:
            return
        for practice_id, outcome in claims:
            try:
                self._on_claim(practice_id, outcome)
            except Exception:
                log.exception("a claimed top-up was not passed on; the janitor will take it up")

    # ---- transactions

    def _transaction(self, work: Callable[[Workspace], Any]) -> Any:
        """Do the work and commit it; once more when another server was in the way."""
        told: Conflict | None = None
        for _attempt in range(_MOST_CONFLICTS):
            try:
                return self._attempt(work)
            except Conflict as conflict:
                told = conflict
        raise StoreUnavailable(f"others were in the way again and again: {told}") from told

    def _attempt(self, work: Callable[[Workspace], Any]) -> Any:
        session = self._session
        with session.turn():
            cursor, unchanged = session.begin()
            if self._cache_in_doubt or not unchanged:
                self._cache.clear()
            # Until the states are handed over, an interrupt must not leave old ones behind.
            self._cache_in_doubt = True
            space = Workspace(cursor, self.clock_ms(), self._cache)
            try:
                answer = work(space)
            except BaseException as error:
                session.roll_back(error)
                raise
            session.commit(space.flush)
            space.committed()
            self._cache_in_doubt = False
            return answer


def _by_practice(orders: list[Order]) -> list[list[Order]]:
    """Put orders of one practice together, in their order."""
    groups: dict[str, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.practice_id, []).append(order)
    return list(groups.values())


def _fold(
    space: Workspace, orders: list[Order], watching: bool
) -> tuple[list[object], list[tuple[str, Outcome]]]:
    """Apply queued commands in order, then claim top-ups if there is anybody to charge them."""
    space.prepare([(order.practice_id, order.command) for order in orders])
    answers: list[object] = [
        space.apply(order.practice_id, order.command, order.note) for order in orders
    ]
    return answers, space.watch() if watching else []


def _alarm(space: Workspace, command: str, error: str) -> None:
    settings.raise_alarm(space.cursor, "internal_refused", f"{command}: {error}", space.now_s)
