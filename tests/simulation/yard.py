"""The yard: tasks that take turns, one at a time, as the seed says.

Law: a task runs alone until it comes to a point (before and after a transaction, before and after a
request to Stripe). There it may be put aside, so that others overtake it, or its process may die.
Nothing runs at the same time, so a seed always gives the same order. Tasks are greenlets: the real
services run in them unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet


class Crash(BaseException):
    """The process died here; nothing of it may do anything more."""


@dataclass(eq=False)
class Process:
    """One server process: dies as a whole, and takes its tasks with it."""

    name: str
    alive: bool = True


@dataclass(eq=False)
class Task:
    """One piece of work under way in a process."""

    name: str
    process: Process
    practice_id: str = ""
    pace: float = 0
    """Drawn when it is spawned: a slow task is overtaken by everybody, again and again."""
    asleep: bool = False
    """It waits for a later step: a slow network, a busy machine."""
    page: str = ""
    """The hosted page at Stripe that it has made."""
    last_commit: int = 0
    """The number of the newest commit when this task's last transaction ended."""
    run: greenlet = field(default_factory=lambda: getcurrent())


@dataclass
class Odds:
    """How often things happen at a point, in per mille."""

    park: int = 250
    crash: int = 0
    sleep: int = 300
    """How often whoever begins or is put aside sleeps through the step."""
    by_pace: int = 0
    """How often, in per cent, the fastest task goes on, and not just any."""


class Yard:
    """Holds the tasks and decides whose turn it is."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.rng = Random(0)
        self.odds = Odds()
        self.calm = False
        """In calm, nobody is put aside and nothing dies: the end of a run."""
        self.tasks: list[Task] = []
        self.broken: BaseException | None = None
        self.on_death: Callable[[], None] = lambda: None
        """Called when the tasks of a dead process have ended."""
        self._note = note
        self._hub = getcurrent()
        self._current: Task | None = None
        self._number = 0

    @property
    def current(self) -> Task | None:
        """The task that runs now; none while the run itself works."""
        return self._current

    def spawn(
        self, name: str, process: Process, work: Callable[[], Any], *, practice_id: str = ""
    ) -> Task:
        """Put work into the yard; it begins when its turn comes."""
        self._number += 1
        task = Task(f"{name}#{self._number}", process, practice_id, self.rng.random())

        def body() -> None:
            try:
                if process.alive:
                    work()
            except Crash:
                pass
            except BaseException as error:
                self.broken = self.broken or error

        task.asleep = self._falls_asleep()
        task.run = greenlet(body, self._hub)
        self.tasks.append(task)
        return task

    def run(self, turns: int) -> None:
        """Give so many turns, each to the fastest task or to one that the seed chooses."""
        while turns > 0 and (awake := [task for task in self.tasks if not task.asleep]):
            turns -= 1
            if self.rng.randrange(100) < self.odds.by_pace:
                self._resume(max(awake, key=lambda task: task.pace))
            else:
                self._resume(self.rng.choice(awake))

    def wake(self, per_cent: int = 100) -> None:
        """Let those who sleep go on, all or some of them."""
        for task in self.tasks:
            task.asleep = task.asleep and self.rng.randrange(100) >= per_cent

    def drain(self) -> None:
        """Let every task end."""
        while self.tasks:
            self.wake()
            self.run(1)

    def _falls_asleep(self) -> bool:
        return not self.calm and self.rng.randrange(1000) < self.odds.sleep

    def _resume(self, task: Task) -> None:
        self._switch_to(task)
        if not task.process.alive:
            for orphan in [t for t in self.tasks if not t.process.alive]:
                self._switch_to(orphan)  # it finds its process dead, and ends
            self.on_death()
        if self.broken is not None:
            raise self.broken

    def _switch_to(self, task: Task) -> None:
        self._current = task
        try:
            task.run.switch()
        finally:
            self._current = None
        if task.run.dead:
            self.tasks.remove(task)

    # ---- called by tasks

    def point(self, what: str, *, may_park: bool = True) -> None:
        """Come to a point: go on, wait for another turn, or die with the process."""
        task = self._current
        if task is None or getcurrent() is self._hub:
            return
        if not task.process.alive:
            raise Crash
        if self.calm:
            return
        draw = self.rng.randrange(1000)
        if draw < self.odds.crash:
            self.kill(task.process, what)
            raise Crash
        if may_park and draw < self.odds.crash + self.odds.park and len(self.tasks) > 1:
            task.asleep = self._falls_asleep()
            self._hub.switch()
            if not task.process.alive:
                raise Crash

    def kill(self, process: Process, where: str) -> None:
        """Let a process die; its tasks end at their next turn without doing anything more."""
        self._note(f"process {process.name} dies: {where}")
        process.alive = False
