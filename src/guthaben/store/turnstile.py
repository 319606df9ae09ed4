"""A turnstile between processes: SQLite's own lock lets the busiest win, this one lets the next in.

Law: whoever waits at `next` goes before whoever comes later. Take next, take main, drop next.
It guards fairness, never correctness: whoever can't pass in time goes on without it, so a process
that was stopped at the gate can't stop the others. A process that has met nobody passes without
it for a moment, because its threads pay for every system call with a change of turn.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # pragma: no cover - no POSIX locks on this system
    _HAS_LOCKS = False

PATIENCE_S = 5.0
ALONE_S = 0.05
"""How long a process that met nobody goes on without asking: the most that another waits for it."""
CROWDED_S = 5.0
_SHORTEST_S, _LONGEST_S = 0.0001, 0.002


def pauses_s() -> Iterator[float]:
    """Say how long to wait between one question and the next: ever longer, and never long."""
    pause_s = _SHORTEST_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_S)


class Turnstile:
    """Two lock files beside the database; released by the system when a process dies."""

    def __init__(self, database_path: str, patience_s: float = PATIENCE_S) -> None:
        self._paths = (f"{database_path}.next", f"{database_path}.main")
        self._patience_s = patience_s
        self._files: tuple[int, int] | None = None
        self._alone_until_s = 0.0
        self._crowded_until_s = 0.0

    def met(self) -> None:
        """Notice that another process writes to this database: use the turnstile for a while."""
        self._crowded_until_s = time.monotonic() + CROWDED_S
        self._alone_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether nobody else has been met lately, so that there is nobody to wait for."""
        return time.monotonic() < self._alone_until_s

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for this process's turn and keep others out until the block ends."""
        now_s = time.monotonic()
        if not _HAS_LOCKS or now_s < self._alone_until_s:
            yield
            return
        if now_s > self._crowded_until_s:
            self._alone_until_s = now_s + ALONE_S
        waiting, main = self._open()
        until_s = now_s + self._patience_s
        if not self._lock(waiting, until_s):
            yield
            return
        try:
            mine = self._lock(main, until_s)
        finally:
            fcntl.flock(waiting, fcntl.LOCK_UN)
        try:
            yield
        finally:
            if mine:
                fcntl.flock(main, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int]:
        if self._files is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            opened = [os.open(path, flags, 0o600) for path in self._paths]
            self._files = (opened[0], opened[1])
        return self._files

    def _lock(self, descriptor: int, until_s: float) -> bool:
        """Take a lock before an instant, asking ever less often; a blocking wait can't give up.

        Only a refusal shows that somebody else is there: time passes for other reasons too.
        """
        pauses = pauses_s()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.met()
                if time.monotonic() >= until_s:
                    return False
                time.sleep(next(pauses))
            else:
                return True

    def close(self) -> None:
        """Close the lock files; they stay on disk, empty."""
        for descriptor in self._files or ():
            os.close(descriptor)
        self._files = None
