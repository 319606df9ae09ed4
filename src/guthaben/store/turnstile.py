"""A turnstile between processes: SQLite's own lock lets the busiest win, this one lets the next in.

Law: whoever waits at `next` goes before whoever comes later. Take next, take main, drop next.
It is used only while other processes write to the same file, because it costs throughput; it
guards fairness, never correctness, so a process that doesn't use it does no harm.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # pragma: no cover - no POSIX locks on this system
    _HAS_LOCKS = False


class Turnstile:
    """Two lock files beside the database; released by the system when a process dies."""

    def __init__(self, database_path: str) -> None:
        self._paths = (f"{database_path}.next", f"{database_path}.main")
        self._files: tuple[int, int] | None = None

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for this process's turn and keep others out until the block ends."""
        if not _HAS_LOCKS:  # pragma: no cover - no POSIX locks on this system
            yield
            return
        waiting, main = self._open()
        fcntl.flock(waiting, fcntl.LOCK_EX)
        try:
            fcntl.flock(main, fcntl.LOCK_EX)
        finally:
            fcntl.flock(waiting, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(main, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, int]:
        if self._files is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            opened = [os.open(path, flags, 0o600) for path in self._paths]
            self._files = (opened[0], opened[1])
        return self._files

    def close(self) -> None:
        """Close the lock files; they stay on disk, empty."""
        for descriptor in self._files or ():
            os.close(descriptor)
        self._files = None
