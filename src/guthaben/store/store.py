"""The store of one database in one process: commands through the writer, questions beside it.

Law: callers wait for durability, never for each other's mistakes. Threads block on a lock of their
own; tasks of one event loop are woken together, once per batch. A fork opens anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from guthaben.domain.commands import Command, Outcome
from guthaben.errors import StoreUnavailable
from guthaben.store.connection import Location, connect, locate
from guthaben.store.workspace import EventNote, Workspace
from guthaben.store.writer import Job, Order, Writer, wall_clock_ms

T = TypeVar("T")
log = logging.getLogger("guthaben.store")

_IDLE_READERS = 8


Abandoned = Callable[[str, Command, object], None]
"""Hears of an answer that nobody waits for any more: practice, command, answer."""


class _Waiter:
    """One blocked thread; cheaper than a `Future`."""

    __slots__ = ("answer", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.answer: Any = None

    def __call__(self, answer: object) -> None:
        self.answer = answer
        self.lock.release()

    def wait(self) -> Any:
        self.lock.acquire()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    practice_id: str
    command: Command
    answer: object


class _Wakeups:
    """Answers for tasks, gathered on the writer's thread and handed over once per batch."""

    def __init__(self, on_abandoned: Abandoned) -> None:
        self._ready: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        self._on_abandoned = on_abandoned

    def reply_to(
        self, future: asyncio.Future[Any], practice_id: str, command: Command
    ) -> Callable[[object], None]:
        """Make the place for one answer."""
        loop = future.get_loop()

        def reply(answer: object) -> None:
            ready = self._ready.setdefault(loop, [])
            ready.append(_Answer(future, practice_id, command, answer))

        return reply

    def hand_over(self) -> None:
        """Wake every loop that has answers."""
        if not self._ready:
            return
        ready, self._ready = self._ready, {}
        for loop, answers in ready.items():
            try:
                loop.call_soon_threadsafe(self._resolve, answers)
            except RuntimeError:  # the loop is closed: nobody waits any more
                for answer in answers:
                    self._abandon(answer)

    def _resolve(self, answers: list[_Answer]) -> None:
        for item in answers:
            if item.future.done():
                self._abandon(item)
            elif isinstance(item.answer, BaseException):
                item.future.set_exception(item.answer)
            else:
                item.future.set_result(item.answer)

    def _abandon(self, item: _Answer) -> None:
        try:
            self._on_abandoned(item.practice_id, item.command, item.answer)
        except Exception:
            log.exception("an abandoned reservation was not released; it will expire")


class _Readers:
    """Idle reading connections, shared by all threads; at most a few stay open."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def take(self) -> sqlite3.Connection:
        """Take an idle connection, or open one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return connect(self._location, read_only=True)

    def give_back(self, con: sqlite3.Connection) -> None:
        """Keep a connection for the next question, or close it."""
        with self._lock:
            if len(self._idle) < _IDLE_READERS:
                self._idle.append(con)
                return
        con.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for con in idle:
            con.close()


class Store:
    """Opens a database; thread-safe; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        on_abandoned: Abandoned | None = None,
    ) -> None:
        self.location: Location = locate(url)
        self.clock_ms = clock_ms
        self._on_claim = on_claim
        self._may_claim = may_claim
        self._on_abandoned = on_abandoned or _nobody
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._readers = _Readers(self.location)
        self._wakeups = _Wakeups(self._on_abandoned)
        self._writer = Writer(
            self.location,
            clock_ms=self.clock_ms,
            on_claim=self._on_claim,
            may_claim=self._may_claim,
            after_batch=self._wakeups.hand_over,
        )

    def _mine(self) -> Writer:
        """Give the writer; in a forked child, one of its own."""
        if self._pid != os.getpid() and not self.location.in_memory:
            with self._lock:
                if self._pid != os.getpid():
                    self._start()
        return self._writer

    # ---- changing

    def execute(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command durably and wait for it; group-committed with whatever else waits."""
        waiter = _Waiter()
        order = Order(practice_id, command, waiter, note)
        writer = self._mine()
        if not writer.do_now(order):
            writer.submit(order)
        outcome: Outcome = waiter.wait()
        return outcome

    def execute_soon(
        self, practice_id: str, command: Command, note: EventNote | None = None
    ) -> asyncio.Future[Outcome]:
        """Apply one command durably; await the outcome on the running event loop."""
        writer = self._mine()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        reply = self._wakeups.reply_to(future, practice_id, command)
        writer.submit(Order(practice_id, command, reply, note))
        return future

    def send(self, practice_id: str, command: Command) -> None:
        """Queue a command whose outcome nobody waits for."""
        self._mine().submit(Order(practice_id, command, lambda _answer: None))

    def run(self, work: Callable[[Workspace], T]) -> T:
        """Do several commands and statements in one transaction of their own, durably."""
        waiter = _Waiter()
        self._mine().submit(Job(work, waiter))
        answer: T = waiter.wait()
        return answer

    # ---- asking

    def read(self, question: Callable[[sqlite3.Cursor], T]) -> T:
        """Ask something of one moment of the database; sees every commit that was answered."""
        if self.location.in_memory:
            return self.run(lambda space: question(space.cursor))
        if self._mine().closed:
            raise StoreUnavailable("this Guthaben is closed; open it again")
        readers = self._readers
        con = readers.take()
        try:
            cursor = con.cursor()
            cursor.execute("BEGIN")
            answer = question(cursor)
            cursor.execute("ROLLBACK")
        except BaseException as error:
            con.close()  # whatever broke, the next question gets a sound connection
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailable(str(error)) from error
            raise
        readers.give_back(con)
        return answer

    def close(self) -> None:
        """Finish what is queued and close. Idempotent."""
        self._writer.close()
        self._readers.close()


def _nobody(_practice_id: str, _command: Command, _answer: object) -> None:
    """Let an abandoned answer go."""
