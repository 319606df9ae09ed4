"""What another server does in the middle of what this one does, on one PostgreSQL.

The other's work runs on a thread of its own until it is done, or until it waits for a lock of ours:
then ours goes on. So each test has one order of events, and nobody sleeps.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

_WAITING = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)
_A_LOOK_S = 0.002
_PATIENCE_S = 30


class Meanwhile:
    """Begins the other server's work; `end` waits for it and raises what it raised."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch) -> None:
        self._url = url
        self._patch = patch
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.answers: list[Any] = []

    def begin(self, work: Callable[[], Any]) -> None:
        """Let it come as far as it can."""
        thread = threading.Thread(target=self._do, args=(work,))
        self._threads.append(thread)
        thread.start()
        with psycopg.connect(self._url, autocommit=True) as con:
            end_s = time.monotonic() + _PATIENCE_S
            while thread.is_alive() and con.execute(_WAITING).fetchone() == (0,):
                assert time.monotonic() < end_s, "it neither ends nor waits for a lock of ours"
                thread.join(_A_LOOK_S)

    def _do(self, work: Callable[[], Any]) -> None:
        try:
            self.answers.append(work())
        except BaseException as error:
            self._errors.append(error)

    def end(self) -> None:
        """Wait for all that was begun."""
        for thread in self._threads:
            thread.join()
        for error in self._errors:
            raise error

    def at(self, place: Any, name: str, work: Callable[[], Any], *, nth: int = 1) -> None:
        """Begin it once, when a function has just answered somebody for the nth time."""
        function, calls = getattr(place, name), itertools.count(1)

        def interrupted(*args: Any, **named: Any) -> Any:
            answer = function(*args, **named)
            if next(calls) == nth:
                self.begin(work)
            return answer

        self._patch.setattr(place, name, interrupted)
