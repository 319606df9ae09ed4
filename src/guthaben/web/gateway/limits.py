"""Limits of requests: how many a minute, and how many at once, for a key or a device.

Law: they protect the server and its provider, not money, so they are counted in this process alone
and forgotten with it; money has caps, which the store counts. Who has no limit costs nothing here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from guthaben.domain.caps import Cap
from guthaben.web.problems import Problem

_WINDOW_S: Final = 60
_MOST_SUBJECTS: Final = 10_000


Ask = Callable[[str, str, str], list[tuple[str, Cap]]]
"""Tells the subjects of a request, practice, key and device, that have limits."""


class Limits:
    """Counts the requests of one process; for its event loop alone."""

    def __init__(self, ask: Ask, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock_s = clock_s
        self._began_s: dict[str, deque[float]] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def enter(self, practice_id: str, key_id: str, device_id: str) -> Iterator[None]:
        """Let a request in for the length of a block. Raises `Problem`."""
        found = self._ask(practice_id, key_id, device_id)
        for subject, limit in found:
            self._check(subject, limit)
        now_s = self._clock_s()
        for subject, limit in found:
            if limit.per_minute:
                self._began_s.setdefault(subject, deque()).append(now_s)
            self._running[subject] = self._running.get(subject, 0) + 1
        try:
            yield
        finally:
            for subject, _ in found:
                self._running[subject] -= 1
                if not self._running[subject]:
                    del self._running[subject]

    def _check(self, subject: str, limit: Cap) -> None:
        if limit.at_once and self._running.get(subject, 0) >= limit.at_once:
            raise _refused("too_many_at_once", 1)
        if not limit.per_minute:
            return
        if len(self._began_s) > _MOST_SUBJECTS:
            self._began_s.clear()
        began, now_s = self._began_s.setdefault(subject, deque()), self._clock_s()
        while began and began[0] <= now_s - _WINDOW_S:
            began.popleft()
        if len(began) >= limit.per_minute:
            raise _refused("rate_limit_exceeded", max(1, int(began[0] + _WINDOW_S - now_s) + 1))


def _refused(code: str, seconds: int) -> Problem:
    headers = {"Retry-After": str(seconds)}
    return Problem(429, code, "Too many requests.", headers=headers, seconds=seconds)
