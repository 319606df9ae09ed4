"""Background jobs: applying webhooks, expiring what is due, resolving charges without an outcome.

Law: nothing depends on a job being alive: the gate expires what it touches, and what a job did not
finish it finds again. A job that breaks is logged and runs again at its next turn.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from guthaben.web.metrics import Metrics

log = logging.getLogger("guthaben.jobs")


class Job:
    """Some work that runs on a thread of its own, every so many seconds or when it is woken."""

    def __init__(
        self, name: str, every_s: float, work: Callable[[], object], metrics: Metrics
    ) -> None:
        self.name = name
        self._every_s = every_s
        self._work = work
        self._metrics = metrics
        self._news = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first turn is at once."""
        self._stopped = False
        self._news.set()
        self._thread = threading.Thread(target=self._run, name=f"guthaben-{self.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let the next turn be now."""
        self._news.set()

    def ask_to_stop(self) -> None:
        """End after the turn under way."""
        self._stopped = True
        self._news.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, but not longer; a turn that goes on finds the store closed."""
        if self._thread is not None:
            self._thread.join(timeout=timeout_s)
            self._thread = None

    def _run(self) -> None:
        while not self._stopped:
            self._news.wait(self._every_s)
            self._news.clear()
            if not self._stopped:
                self._turn()

    def _turn(self) -> None:
        try:
            self._work()
        except Exception:
            self._metrics.job_failed(self.name)
            log.exception("a background job broke and will run again", extra={"job": self.name})
        else:
            self._metrics.job_ran(self.name)
