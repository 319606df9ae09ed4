"""The store of one database in one process: commands through the writer, questions beside it.

Law: callers wait for durability, never for each other's mistakes. Threads block on a lock of their
own; tasks of one event loop are woken together, once per batch. A fork opens anew.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from guthaben.domain.commands import Command, Outcome
from guthaben.store.connection import Location, connect, locate
from guthaben.store.workspace import EventNote, Workspace
from guthaben.store.writer import Job, Order, Writer, wall_clock_ms

T = TypeVar("T")


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


class _Wakeups:
    """Answers for tasks, gathered on the writer's thread and handed over once per batch."""

    def __init__(self, on_abandoned: Callable[[str, object], None]) -> None:
        self._ready: dict[
            asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], str, object]]
        ] = {}
        self._on_abandoned = on_abandoned

    def reply_to(self, future: asyncio.Future[Any], practice_id: str) -> Callable[[object], None]:
        """Make the place for one answer."""
        loop = future.get_loop()

        def reply(answer: object) -> None:
            self._ready.setdefault(loop, []).append((future, practice_id, answer))

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
                for _future, practice_id, answer in answers:
                    self._on_abandoned(practice_id, answer)

    def _resolve(self, answers: list[tuple[asyncio.Future[Any], str, object]]) -> None:
        for future, practice_id, answer in answers:
            if future.done():
                self._on_abandoned(practice_id, answer)
            elif isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class Store:
    """Opens a database; thread-safe; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        on_abandoned: Callable[[str, object], None] | None = None,
    ) -> None:
        self.location: Location = locate(url)
        self.clock_ms = clock_ms
        self._on_claim = on_claim
        self._on_abandoned = on_abandoned or (lambda _practice_id, _answer: None)
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._wakeups = _Wakeups(self._on_abandoned)
        self._writer = Writer(
            self.location,
            clock_ms=self.clock_ms,
            on_claim=self._on_claim,
            after_batch=self._wakeups.hand_over,
        )

    def _mine(self) -> Writer:
        """Give the writer; in a forked child, one of its own."""
        if self._pid != os.getpid() and not self.location.in_memory:
            with self._lock:
                if self._pid != os.getpid():
                    self._readers = threading.local()
                    self._opened = []
                    self._start()
        return self._writer

    # ---- changing

    def execute(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command durably and wait for it; group-committed with whatever else waits."""
        waiter = _Waiter()
        self._mine().submit(Order(practice_id, command, waiter, note))
        outcome: Outcome = waiter.wait()
        return outcome

    def execute_soon(
        self, practice_id: str, command: Command, note: EventNote | None = None
    ) -> Awaitable[Outcome]:
        """Apply one command durably; await the outcome on the running event loop."""
        writer = self._mine()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        writer.submit(
            Order(practice_id, command, self._wakeups.reply_to(future, practice_id), note)
        )
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
        self._mine()
        con: sqlite3.Connection | None = getattr(self._readers, "con", None)
        if con is None:
            con = connect(self.location, read_only=True)
            self._readers.con = con
            self._opened.append(con)
        cursor = con.cursor()
        cursor.execute("BEGIN")
        try:
            return question(cursor)
        finally:
            cursor.execute("ROLLBACK")

    def close(self) -> None:
        """Finish what is queued and close. Idempotent."""
        self._writer.close()
        for con in self._opened:
            con.close()
        self._opened = []
