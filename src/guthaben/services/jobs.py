"""Background jobs: one server of a database does them, the others stand by.

Law: who leads is a lease in the database, renewed by a heartbeat and over by the clock; a fence
that grows with each leader keeps one that slept through its lease from writing what it began
before. Nothing depends on a job being alive: what one did not finish, its next turn finds again.
How each job is doing is kept in the database, as of the last heartbeat.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from guthaben.errors import GuthabenError, LeadershipLost
from guthaben.services.notices import OPERATOR, Fact, Notice, tell
from guthaben.store import jobs as rows
from guthaben.store import settings
from guthaben.store.jobs import JobRow, Lease
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.jobs")
T = TypeVar("T")

LEASE_S: Final = 12
BEAT_S: Final = 3
_LONGEST_WAIT_S: Final = 30
"""Nobody sleeps longer without looking at the clock: it may have been set."""
_FIRST_RETRY_S: Final = 30
ALARM_AFTER: Final = 5
"""So many failures in a row raise an alarm."""


class Turn:
    """One turn of a job: whether it may go on, and the fence for what it writes."""

    def __init__(self, runner: Runner, fence: int) -> None:
        self._runner = runner
        self.fence = fence

    def may_go_on(self) -> bool:
        """Tell whether to begin another piece of work: not when we stop, or lead no more."""
        return self._runner.leads(self.fence) and not self._runner.stopping

    def run(self, work: Callable[[Workspace], T]) -> T:
        """Do a transaction that a later leader's word would undo: raises `LeadershipLost` then."""

        def guarded(space: Workspace) -> T:
            self.guard(space)
            return work(space)

        return self._runner.store.run(guarded)

    def guard(self, space: Workspace) -> None:
        """Make sure, in a transaction, that nobody else leads by now; nobody will until it ends."""
        if not rows.lock_fence(space.cursor, self.fence):
            raise LeadershipLost


class Job(NamedTuple):
    """Some work that is done every so many seconds, in turns that may be repeated or cut short.

    What `run` raises is a failed turn; it is tried again, after pauses that grow up to `every_s`.
    """

    name: str
    every_s: int
    run: Callable[[Turn], object]


class _Desk:
    """One job in this process: how it is doing, and the thread that does it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.row = JobRow(job.name, 0, job.every_s, 0)
        self.written: JobRow | None = None
        self.wanted = False
        self.news = threading.Event()
        self.at_work = threading.Lock()
        self.thread: threading.Thread | None = None

    def is_due(self, now_ms: int) -> bool:
        """Tell whether a turn is due; one that lies too far ahead is due too: a clock was set."""
        ahead_ms = self.row.next_due_ms - now_ms
        return self.wanted or ahead_ms <= 0 or ahead_ms > self.job.every_s * 1000


class Runner:
    """Runs jobs on threads of their own while this process leads; or, with `work_once`, here.

    `on_turn` hears how each turn ended.
    """

    def __init__(
        self,
        store: Store,
        jobs: Sequence[Job],
        *,
        on_turn: Callable[[JobRow], None] = lambda _row: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.stopping = False
        self._desks = {job.name: _Desk(job) for job in jobs}
        assert len(self._desks) == len(jobs), "two jobs have one name"
        self._on_turn = on_turn
        self._monotonic_s = monotonic_s
        self._holder = secrets.token_hex(8)
        self._lease: Lease | None = None
        self._believed_until_s = 0.0
        self._is_worried = False
        self._news = threading.Event()
        self._ends = False
        self._keeper: threading.Thread | None = None

    # ---- leading

    def leads(self, fence: int | None = None) -> bool:
        """Tell whether this process leads, by its last heartbeat; with a fence: since that one."""
        lease = self._lease
        return (
            lease is not None
            and fence in (None, lease.fence)
            and self._monotonic_s() < self._believed_until_s
        )

    def beat(self) -> bool:
        """Take or renew the lease and write how the jobs are doing; tell whether we lead.

        Raises `StoreUnavailable` or `OutcomeUnknown`; the lease then runs out by itself.
        """
        begun_s = self._monotonic_s()
        changed = [desk for desk in self._desks.values() if desk.row != desk.written]
        shown = [desk.row for desk in changed]
        lease, known = self.store.run(lambda space: self._beat_in(space, shown))
        before, self._lease = self._lease, lease
        if lease is None:
            return False
        self._believed_until_s = begun_s + LEASE_S
        if before is None or before.fence != lease.fence:
            self._take_over(lease, known)
        else:
            for desk, row in zip(changed, shown, strict=True):
                desk.written = row
        return True

    def _beat_in(
        self, space: Workspace, shown: list[JobRow]
    ) -> tuple[Lease | None, dict[str, JobRow]]:
        lease = rows.lead(
            space.cursor, self._holder, _place(), now_ms=space.now_ms, for_ms=LEASE_S * 1000
        )
        if lease is None or self._lease is None or lease.fence != self._lease.fence:
            return lease, {row.name: row for row in rows.load_jobs(space.cursor)}
        for row in shown:
            rows.save_job(space.cursor, row)
            if row.failures_in_a_row >= ALARM_AFTER:
                _alarm(space, row)
            elif row.outcome == "ok" and row.failures:
                settings.clear_alarm(space.cursor, "job_failing", row.name, space.now_s)
        return lease, {}

    def _take_over(self, lease: Lease, known: dict[str, JobRow]) -> None:
        """Go on where the last leader stopped; turns it missed are made up for by one."""
        for name, desk in self._desks.items():
            row = known.get(name, desk.row)
            outcome = "failed" if row.outcome == "running" else row.outcome
            error = "interrupted" if row.outcome == "running" else row.error
            desk.row = row._replace(
                fence=lease.fence, every_s=desk.job.every_s, outcome=outcome, error=error
            )
            desk.written = None
            desk.news.set()

    # ---- turns

    def _turn(self, desk: _Desk) -> JobRow | None:
        """Do one turn if it is due and we lead; tell how it went."""
        with desk.at_work:
            lease, now_ms = self._lease, self.store.clock_ms()
            if lease is None or not self.leads() or not desk.is_due(now_ms):
                return None
            desk.wanted = False
            before = desk.row
            lag_ms = max(0, now_ms - before.next_due_ms) if before.next_due_ms else 0
            desk.row = before._replace(
                fence=lease.fence, outcome="running", started_at_ms=now_ms, lag_ms=lag_ms
            )
            error = self._do(desk, Turn(self, lease.fence))
            if self._lease is None or self._lease.fence != lease.fence:
                return None  # what is known of the job is the new leader's to say
            desk.row = _ended(desk.row, self.store.clock_ms(), error)
            if desk.row.outcome != before.outcome:
                self._news.set()  # whoever watches hears of it at once
            self._on_turn(desk.row)
            return desk.row

    def _do(self, desk: _Desk, turn: Turn) -> str:
        """Run the job; give the name of what went wrong, or nothing."""
        try:
            desk.job.run(turn)
        except LeadershipLost:
            log.warning("a turn of %s was given up: another server leads", desk.job.name)
            return LeadershipLost.code
        except Exception as error:
            count = desk.row.failures_in_a_row + 1
            if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ... in a row
                log.exception("a background job broke and will run again: %s", desk.job.name)
            return error.code if isinstance(error, GuthabenError) else type(error).__name__
        return ""

    def work_once(self, *, everything: bool = False) -> list[JobRow] | None:
        """Do what is due, or everything, on this thread, and resign; None if another leads."""
        if not self.beat():
            return None
        self._ends = False
        keeper = threading.Thread(target=self._keep, name="guthaben-leader", daemon=True)
        keeper.start()
        try:
            done = []
            for desk in self._desks.values():
                desk.wanted = everything
                row = self._turn(desk)
                done += [row] if row is not None else []
            return done
        finally:
            self._end_keeping()
            keeper.join()

    def wake(self, name: str) -> None:
        """Let a job's next turn be now, if this process leads."""
        desk = self._desks.get(name)
        if desk is not None:
            desk.wanted = True
            desk.news.set()

    # ---- threads

    def start(self) -> None:
        """Begin: try to lead, and do the jobs while we do."""
        self.stopping = False
        self._ends = False
        self._keeper = threading.Thread(target=self._keep, name="guthaben-leader", daemon=True)
        self._keeper.start()
        for desk in self._desks.values():
            name = f"guthaben-{desk.job.name}"
            desk.thread = threading.Thread(target=self._serve, args=(desk,), name=name, daemon=True)
            desk.thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the turns under way, but wait no longer; then resign. Idempotent.

        A turn that goes on keeps the lease until it runs out, and finds the store closed.
        """
        end_s = time.monotonic() + timeout_s
        self.stopping = True
        for desk in self._desks.values():
            desk.news.set()
        for desk in self._desks.values():
            if desk.thread is not None:
                desk.thread.join(max(0, end_s - time.monotonic()))
        self._end_keeping()
        if self._keeper is not None:
            self._keeper.join(max(0.2, end_s - time.monotonic()))
            self._keeper = None

    def _serve(self, desk: _Desk) -> None:
        while not self.stopping:
            desk.news.wait(self._pause_s(desk))
            desk.news.clear()
            if not self.stopping:
                self._turn(desk)

    def _pause_s(self, desk: _Desk) -> float:
        if not self.leads():
            return BEAT_S
        ahead_ms = desk.row.next_due_ms - self.store.clock_ms()
        return min(max(0, ahead_ms / 1000), _LONGEST_WAIT_S, desk.job.every_s)

    def _has_ended(self) -> bool:
        return self._ends

    def _end_keeping(self) -> None:
        self._ends = True
        self._news.set()

    def _keep(self) -> None:
        while not self._has_ended():
            self._news.clear()
            try:
                self.beat()
                self._is_worried = False
            except GuthabenError as error:
                if not self._is_worried:
                    log.warning("no heartbeat: %s; the background work waits", error.code)
                self._is_worried = True
            except Exception:
                log.exception("the heartbeat broke")
            if not self._has_ended():
                self._news.wait(BEAT_S)
        if not any(desk.thread and desk.thread.is_alive() for desk in self._desks.values()):
            with contextlib.suppress(GuthabenError):
                self._resign()

    def _resign(self) -> None:
        """Write the last word on the jobs, and let the next leader begin at once."""
        if self.leads():
            self.beat()
        self.store.run(lambda space: rows.resign(space.cursor, self._holder))
        self._lease = None


def _ended(row: JobRow, now_ms: int, error: str) -> JobRow:
    """Say how a turn ended, and when the next one is due."""
    failures = row.failures_in_a_row + 1 if error else 0
    pause_s = row.every_s
    if error:
        pause_s = min(pause_s, _FIRST_RETRY_S * 2 ** min(failures - 1, 20))
    return row._replace(
        outcome="failed" if error else "ok",
        error=error,
        ended_at_ms=now_ms,
        succeeded_at_ms=row.succeeded_at_ms if error else now_ms,
        next_due_ms=now_ms + pause_s * 1000,
        failures_in_a_row=failures,
        runs=row.runs + 1,
        failures=row.failures + bool(error),
    )


def _alarm(space: Workspace, row: JobRow) -> None:
    settings.raise_alarm(space.cursor, "job_failing", row.name, space.now_s)
    # The series of failures began after the last success: it is told once.
    key = f"{row.name}:{row.succeeded_at_ms}"
    facts: dict[str, Fact] = {"job": row.name, "failures": row.failures_in_a_row}
    tell(space, OPERATOR, Notice.JOB_FAILING, key, facts)


def _place() -> str:
    """Say where this process runs, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"[:100]


# ---------------------------------------------------------------- looking


class JobState(NamedTuple):
    """How one job is doing; `overdue_s` is how late its next turn is, if that is too late."""

    row: JobRow
    overdue_s: int

    @property
    def is_well(self) -> bool:
        """Whether nobody needs to look."""
        return self.overdue_s == 0 and self.row.failures_in_a_row < ALARM_AFTER


def judge(row: JobRow, now_ms: int) -> JobState:
    """Tell whether a job is late: by a minute or its own interval, whichever is longer."""
    began_ms = row.started_at_ms if row.outcome == "running" else row.next_due_ms
    late_s = (now_ms - began_ms) // 1000
    return JobState(row, late_s if late_s > max(60, row.every_s) and row.next_due_ms else 0)


def job_states(store: Store) -> tuple[Lease | None, list[JobState]]:
    """Tell who leads, and how all jobs are doing."""
    now_ms = store.clock_ms()
    lease, found = store.read(lambda cur: (rows.leader(cur), rows.load_jobs(cur)))
    alive = lease if lease is not None and lease.holder and lease.until_ms > now_ms else None
    return alive, [judge(row, now_ms) for row in found]
