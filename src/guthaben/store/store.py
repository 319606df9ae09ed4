"""The store of one database in one process: commands through the writer, questions beside it.

Law: callers wait for durability, never for each other's mistakes. Threads block on a lock of their
own; tasks of one event loop ask and are answered together (`tasks`). A fork opens anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from guthaben.domain.commands import Command, Outcome
from guthaben.errors import MigrationNeeded, StoreUnavailable
from guthaben.store import restored
from guthaben.store.copying import Copied, are_alike, copy
from guthaben.store.database import open_database
from guthaben.store.forks import process
from guthaben.store.session import Cursor, Grown
from guthaben.store.tasks import Abandoned, Tasks
from guthaben.store.verify import Problem, Verification, verify
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


class Store:
    """Opens a database; thread-safe; close it."""

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        on_abandoned: Abandoned | None = None,
    ) -> None:
        self.url = url
        self.clock_ms = clock_ms
        self._on_claim = on_claim
        self._may_claim = may_claim
        self._on_abandoned = on_abandoned or _nobody
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._pid = process()
        self._database = open_database(self.url)
        self._tasks = [Tasks(self._on_abandoned) for _lane in range(self._database.lanes)]
        self._writers = [self._writer_of_a_lane(tasks) for tasks in self._tasks]

    def now_s(self) -> int:
        """Read the store's clock, in whole seconds since 1970."""
        return self.clock_ms() // 1000

    @property
    def name(self) -> str:
        """What to call the database in messages."""
        return self._database.name

    def _writer_of_a_lane(self, tasks: Tasks) -> Writer:
        return Writer(
            self._database.session(self.now_s),
            clock_ms=self.clock_ms,
            on_claim=self._on_claim,
            may_claim=self._may_claim,
            after_batch=tasks.wake,
        )

    def _lane(self, practice_id: str) -> int:
        """Tell which writer is a practice's, so that its commands keep their order."""
        lanes = len(self._mine())
        return 0 if lanes == 1 else _share(practice_id, lanes)

    def _mine(self) -> list[Writer]:
        if self._pid != process() and self._database.survives_fork:
            with self._lock:
                if self._pid != process():
                    self._start()
        return self._writers

    def distribute(self, by: str) -> bool:
        """Spread the tables over the nodes of a cluster; tell whether that was still to do.

        Raises `ConfigError`, with nothing changed, where that can't be.
        """
        return self._database.distribute(by)

    # ---- changing

    def execute(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command durably and wait for it; group-committed with whatever else waits."""
        waiter = _Waiter()
        order = Order(practice_id, command, waiter, note)
        lane = self._lane(practice_id)
        writer = self._writers[lane]
        if not writer.do_now(order):
            writer.submit(order)
        outcome: Outcome = waiter.wait()
        return outcome

    def execute_soon(
        self, practice_id: str, command: Command, note: EventNote | None = None
    ) -> asyncio.Future[Outcome]:
        """Apply one command durably; await the outcome on the running event loop."""
        lane = self._lane(practice_id)
        return self._tasks[lane].ask(self._writers[lane], practice_id, command, note)

    def send(self, practice_id: str, command: Command) -> None:
        """Queue a command whose outcome nobody waits for, behind what tasks asked before."""
        lane = self._lane(practice_id)
        self._tasks[lane].hand_in(self._writers[lane])
        self._writers[lane].submit(Order(practice_id, command, lambda _answer: None))

    def run(self, work: Callable[[Workspace], T], practice_id: str = "") -> T:
        """Do several commands and statements in one transaction of their own, durably.

        Of one practice in its own lane, of several or none in the first: where another lane or
        server is in the way, the database sees it and the work is done again.
        """
        waiter = _Waiter()
        lane = self._lane(practice_id) if practice_id else 0
        self._mine()[lane].submit(Job(work, waiter))
        answer: T = waiter.wait()
        return answer

    # ---- asking

    def read(self, question: Callable[[Cursor], T]) -> T:
        """Ask something of one moment of the database; sees every commit that was answered."""
        if self._database.in_memory:
            return self.run(lambda space: question(space.cursor))
        if self._mine()[0].closed:
            raise StoreUnavailable("this Guthaben is closed; open it again")
        return self._database.read(question)

    def copy_from(self, source: Store, name: str = "") -> Copied:
        """Copy everything that another database holds into this one, in one transaction.

        Idempotent by the source's secret, or by `name`. Raises `MigrationNeeded` with what stands
        in the way, `StoreUnavailable`.
        """

        def work(space: Workspace, cursor: Cursor) -> Copied:
            there, here = source._database.tables(cursor), self._database.tables(space.cursor)
            if not are_alike(there, here):
                raise MigrationNeeded(["the two databases have different schemas: migrate both"])
            self._database.before_copy(space.cursor, cursor)
            copied = copy(cursor, space, there, name)
            self._database.after_copy(space.cursor)
            return copied

        return source.read(lambda cursor: self.run(lambda space: work(space, cursor)))

    def verify(self, practice_id: str | None = None) -> Verification:
        """Check one practice or all against the journal.

        Where a read sees several moments, what seems wrong is looked at again while nobody writes.
        """
        now_s = self.now_s()
        found = self.read(lambda cursor: verify(cursor, practice_id, now_s))
        if found.ok or self._database.sees_one_moment():
            return found
        again = self.read(lambda cursor: verify(cursor, practice_id, now_s))
        return again._replace(problems=list(self._confirmed(again.problems, found.problems)))

    def _confirmed(self, problems: list[Problem], before: list[Problem]) -> Iterator[Problem]:
        """Keep what is still wrong of a practice while its lock is ours; else what was twice."""
        now_s = self.now_s()

        def locked(space: Workspace, practice_id: str) -> list[Problem]:
            space.practice(practice_id)
            return verify(space.cursor, practice_id, now_s).problems

        for practice_id in sorted({problem.practice_id for problem in problems}):
            if practice_id:
                yield from self.run(partial(locked, practice_id=practice_id), practice_id)
            else:
                yield from (one for one in problems if not one.practice_id and one in before)

    def back_up(self, target: Path) -> None:
        """Copy a running SQLite database into a new file, which is marked as a copy.

        Raises `ConfigError` on PostgreSQL, `InvalidInput` if the file exists, `StoreUnavailable`.
        """
        self._database.back_up(target, lambda cur: restored.mark(cur, self.now_s()))

    def grow(self) -> Grown:
        """Make room for the months to come, and give back that of archived ones.

        Idempotent; beside the gate. Raises `StoreUnavailable`.
        """
        return self._database.grow(self.clock_ms())

    def close(self) -> None:
        """Finish what is queued and close. Idempotent."""
        # The readers first: SQLite tidies its log up when the writer is the last to go.
        self._database.close()
        for tasks, writer in zip(self._tasks, self._writers, strict=True):
            tasks.hand_in(writer)
            writer.close()


def _share(practice_id: str, lanes: int) -> int:
    """Spread practices over lanes, the same way in every process."""
    return crc32(practice_id.encode("utf-8", "surrogatepass")) % lanes


def _nobody(_practice_id: str, _command: Command, _answer: object) -> None:
    """Let an abandoned answer go."""
