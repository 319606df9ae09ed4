"""States that a writer keeps between its batches on PostgreSQL, and what proves them.

Law: a kept state counts only while its practice's row is the same version (`xmin`) as when it was
read or written: everything that belongs to a practice changes together with its row, under its
lock. The proof is made inside the transaction that uses the state, before anything it writes.
"""

from __future__ import annotations

import time

from guthaben.domain.calls import RESERVED, Call
from guthaben.domain.practice import Practice
from guthaben.store.cache import Cache, slim

_MAX_NUMBERS = 200_000
_LONGEST_S = 3600.0
"""Versions of rows repeat after four thousand million transactions; nothing is kept for so long."""


class ProvenCache(Cache):
    """Practices with the version of their rows, and their open calls."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}
        """Internal numbers of practices, which never change."""
        self.stamps: dict[str, str] = {}
        self.complete_since_s: dict[str, int] = {}
        """Practices read with every grant that a command may need; no other is kept."""
        self.stamp = ""
        """The version of every row that the transaction at hand wrote."""
        self._open: dict[str, set[int]] = {}
        self._since_s = time.monotonic()

    def clear(self) -> None:
        """Forget everything but the numbers."""
        super().clear()
        self.stamps.clear()
        self.complete_since_s.clear()
        self.stamp = ""
        self._open.clear()
        self._since_s = time.monotonic()

    def leave(self) -> None:
        """Forget everything: another database may be there."""
        self.clear()
        self.numbers.clear()

    def forget_old(self) -> None:
        """Forget everything that has been kept for too long to be proven."""
        if time.monotonic() - self._since_s > _LONGEST_S:
            self.clear()

    def forget(self, practice_id: str) -> None:
        """Forget one practice, because it is read anew."""
        self.stamps.pop(practice_id, None)
        self.complete_since_s.pop(practice_id, None)
        self.practices.pop(practice_id, None)
        self.caps.pop(practice_id, None)
        self.triggers.pop(practice_id, None)
        for call_no in self._open.pop(practice_id, ()):
            self.calls.pop((practice_id, call_no), None)

    def put_number(self, practice_id: str, practice_no: int) -> None:
        """Remember the number of a practice that the database holds."""
        if len(self.numbers) >= _MAX_NUMBERS:
            self.numbers.clear()
        self.numbers[practice_id] = practice_no

    def keep(
        self, changed: dict[str, Practice], calls: dict[tuple[str, int], Call], now_s: int
    ) -> None:
        """Take over the states of a transaction that was committed."""
        stamp, written = self.stamp, self.written
        for practice_id, practice in changed.items():
            if practice_id not in self.complete_since_s:
                continue
            if practice_id in written:
                if not stamp:
                    self.forget(practice_id)
                    continue
                self.stamps[practice_id] = stamp
                self.put_number(practice_id, practice.practice_no)
            if practice_id in self.stamps:
                self.practices[practice_id] = slim(practice, now_s)
                self.complete_since_s[practice_id] = now_s
        for place, call in calls.items():
            if call.status == RESERVED and place[0] in self.stamps:
                self.calls[place] = call
                self._open.setdefault(place[0], set()).add(place[1])
            elif self.calls.pop(place, None) is not None:
                self._open[place[0]].discard(place[1])
        self.stamp = ""
        self.written.clear()
        self.no_allowance.clear()
        self._stay_within_bounds()
