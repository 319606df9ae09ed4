"""Caps: set, list and remove what a key or a device of a practice may use; ask for its limits.

Law: money is capped by the store, in the transaction that reserves. Limits of requests are only
told here; who counts them decides. Another process notices a changed limit within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from guthaben.domain.calls import Origin
from guthaben.domain.caps import EVERY, Cap, Caps, capped, left, windows
from guthaben.domain.money import MAX_COMMAND_NANO_USD, is_amount
from guthaben.errors import InvalidAmount, InvalidInput
from guthaben.services.checks import checked_text, practice_id_of
from guthaben.store import caps as rows
from guthaben.store import queries
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

NOTICE_S: Final = 2
MOST_CAPS: Final = 1_000
_MOST_REMEMBERED: Final = 5_000
_MOST_REQUESTS: Final = 1_000_000
_LONGEST: Final = 210


@dataclass(frozen=True, slots=True)
class CapView:
    """A cap and what is left of it; None where it caps no money."""

    subject: str
    day_nano_usd: int | None
    month_nano_usd: int | None
    per_minute: int
    at_once: int
    left_nano_usd: int | None


class _Known(NamedTuple):
    caps: Caps
    until_s: float


class CapBook:
    """The caps of one database; thread-safe."""

    def __init__(self, store: Store, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._known: dict[str, _Known] = {}

    def set(self, practice_id: str, cap: Cap) -> None:
        """Set a cap, durably; it counts what this day and month used before. Idempotent.

        Raises `InvalidInput`, `InvalidAmount`.
        """
        practice_id_of(practice_id)
        _check(cap)

        def work(space: Workspace) -> None:
            number = space.practice_no(practice_id)
            known = rows.load(space.cursor, number)
            if cap.subject not in known and len(known) >= MOST_CAPS:
                raise InvalidInput(f"a practice has at most {MOST_CAPS} caps", field="subject")
            rows.put(space.cursor, number, cap, space.now_s)
            rows.recount(space.cursor, space.practice(practice_id), cap.subject, space.now_s)

        self._store.run(work)
        self._known.pop(practice_id, None)

    def remove(self, practice_id: str, subject: str) -> bool:
        """Take a cap away, durably; tell whether there was one. Idempotent."""
        practice_id_of(practice_id)
        found = self._store.run(
            lambda space: rows.remove(space.cursor, space.practice_no(practice_id), subject)
        )
        self._known.pop(practice_id, None)
        return found

    def knows(self, practice_id: str) -> bool:
        """Tell whether `limited` answers without asking the store."""
        known = self._known.get(practice_id)
        return known is not None and known.until_s >= self._clock_s()

    def limited(self, practice_id: str, key_id: str, device_id: str) -> list[tuple[str, Cap]]:
        """Give the subjects of a request that have limits; asks the store every few seconds."""
        known = self._known.get(practice_id)
        if known is None or known.until_s < self._clock_s():
            known = self._asked(practice_id)
        if not known.caps:
            return []
        origin = Origin(api_key_id=key_id, device_id=device_id)
        return [
            (f"{practice_id} {subject}", cap)
            for subject, cap in capped(known.caps, origin)
            if cap.per_minute or cap.at_once
        ]

    def _asked(self, practice_id: str) -> _Known:
        def question(cursor: Cursor) -> Caps:
            now_s = self._store.now_s()
            practice, _ = queries.practice_with(cursor, practice_id, None, now_s)
            return rows.load(cursor, practice.practice_no)

        if len(self._known) > _MOST_REMEMBERED:
            self._known.clear()
        found = _Known(self._store.read(question), self._clock_s() + NOTICE_S)
        self._known[practice_id] = found
        return found

    def list(self, practice_id: str) -> list[CapView]:
        """List the caps of a practice with what is left of them, by subject."""
        practice_id_of(practice_id)

        def question(cursor: Cursor) -> list[CapView]:
            now_s = self._store.now_s()
            practice, _ = queries.practice_with(cursor, practice_id, None, now_s)
            day, month = windows(practice.time_zone, now_s * 1000)
            found = []
            for subject, cap in sorted(rows.load(cursor, practice.practice_no).items()):
                place = (cursor, practice.practice_no, subject)
                rest = left(cap, rows.used(*place, day), rows.used(*place, month))
                every = subject.endswith(f":{EVERY}")
                found.append(CapView(*cap, None if every else rest))
            return found

        return self._store.read(question)


def _check(cap: Cap) -> None:
    kind, _, name = cap.subject.partition(":")
    if kind not in ("key", "device") or not name:
        raise InvalidInput("subject is key:<id>, device:<id>, key:* or device:*", field="subject")
    checked_text("subject", cap.subject, _LONGEST)
    for amount in (cap.day_nano_usd, cap.month_nano_usd):
        if amount is not None and not is_amount(amount, 0):
            raise InvalidAmount(f"a cap is from 0 to {MAX_COMMAND_NANO_USD} nano-USD")
    for number in (cap.per_minute, cap.at_once):
        if type(number) is not int or not 0 <= number <= _MOST_REQUESTS:
            raise InvalidInput(f"a limit of requests is from 0 to {_MOST_REQUESTS}")
