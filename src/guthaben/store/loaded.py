"""What a transaction has read: practices, grants, calls and credit events as they are in it now.

Law: a state is read at most once; from then on the transaction's own changes are what it sees.
Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from guthaben.domain.auto_topup import AutoTopup
from guthaben.domain.calls import Call
from guthaben.domain.commands import KeyRecord, Step
from guthaben.domain.grants import Grant
from guthaben.domain.practice import Practice, allowance_grant
from guthaben.domain.topup import CreditEvent
from guthaben.store import calls, leases, practices, topups
from guthaben.store.cache import Cache
from guthaben.store.session import Cursor


class Loaded:
    """States by their names; the workspace puts in what commands changed."""

    def __init__(self, cursor: Cursor, cache: Cache) -> None:
        self.cursor = cursor
        self.cache = cache
        self.practices: dict[str, Practice] = {}
        self.stored_practices: dict[str, Practice] = {}
        self.stored_grants: dict[str, dict[int, Grant]] = {}
        self.calls: dict[tuple[str, int], Call] = {}
        self.call_keys: dict[tuple[str, int, str], int] = {}
        self.events: dict[tuple[str, int], CreditEvent] = {}
        self.money_keys: dict[tuple[str, str, str], KeyRecord] = {}
        self.steps: dict[tuple[str, int, str], Step] = {}
        self.absent_keys: set[tuple[str, int, str]] = set()
        self.absent_steps: set[tuple[str, int, str]] = set()
        self.cap_use: dict[tuple[int, str, str], int] = {}
        """What was used of caps, where it was read beforehand."""
        self._complete_since_s: dict[str, int] = {}

    def put(self, practice: Practice, *, complete_since_s: int) -> None:
        """Take a practice read with every allowance whose period ends later, or may move."""
        self.practices[practice.practice_id] = practice
        self.stored_practices[practice.practice_id] = practice
        self.stored_grants[practice.practice_id] = dict(practice.grants)
        self._complete_since_s[practice.practice_id] = complete_since_s

    def practice(self, practice_id: str) -> Practice:
        """Give the practice as it is now in this transaction; one nobody stored has nothing."""
        found = self.practices.get(practice_id)
        return self._first(practice_id) if found is None else found

    def _first(self, practice_id: str) -> Practice:
        """Take a practice over from an earlier transaction, or read it."""
        found = (
            self.cache.practices.get(practice_id)
            or practices.load_practice(self.cursor, practice_id)
            or practices.stranger(practice_id)
        )
        self.practices[practice_id] = self.stored_practices[practice_id] = found
        self.stored_grants[practice_id] = dict(found.grants)
        return found

    def call(self, practice_id: str, call_no: int) -> Call | None:
        """Give a call of the practice as it is now."""
        known = self.calls.get((practice_id, call_no)) or self.cache.calls.get(
            (practice_id, call_no)
        )
        if known is None:
            practice_no = self.practice(practice_id).practice_no
            known = calls.load_call(self.cursor, practice_no, call_no) if practice_no else None
        return known

    def call_by_key(self, practice: Practice, operation: int, key: str) -> Call | None:
        """Give the call that an idempotency key made."""
        call_no = self.call_keys.get((practice.practice_id, operation, key))
        if call_no is not None:
            return self.calls[practice.practice_id, call_no]
        if practice.practice_no == 0:
            return None
        if (practice.practice_id, operation, key) in self.absent_keys:
            return None
        place = (practice.practice_no, operation, key)
        found = calls.load_call_by_key(self.cursor, *place)
        if found is None and self.has_archived():
            found = calls.load_archived_by_key(self.cursor, *place)
        if found is None:
            return None
        return self.calls.get((practice.practice_id, found.call_no), found)

    def has_archived(self) -> bool:
        """Tell whether a key may be that of an archived call."""
        if self.cache.has_archived is None:
            self.cache.has_archived = calls.has_archived(self.cursor)
        return self.cache.has_archived

    def event(self, practice_id: str, event_no: int) -> CreditEvent | None:
        """Give a credit event of the practice as it is now."""
        known = self.events.get((practice_id, event_no))
        if known is None:
            practice_no = self.practice(practice_id).practice_no
            known = topups.load_event(self.cursor, practice_no, event_no) if practice_no else None
        return known

    def take_in(self, practice_id: str, found: Iterable[Grant]) -> None:
        """Add grants that were loaded later than their practice."""
        practice = self.practices[practice_id]
        fresh = {grant.grant_no: grant for grant in found if grant.grant_no not in practice.grants}
        if fresh:
            self.practices[practice_id] = practice._replace(grants={**practice.grants, **fresh})
            self.stored_grants[practice_id].update(fresh)

    def need_allowance(
        self, practice_id: str, licence: str, period_start_s: int, period_end_s: int = 0
    ) -> None:
        """Have the allowance of a period at hand if there is one; its end need not be known."""
        practice = self.practice(practice_id)
        if practice.practice_no == 0:
            return
        since_s = self._complete_since_s.get(practice_id)
        if since_s is not None and since_s < period_end_s:
            return
        missing = (practice_id, licence, period_start_s)
        if missing in self.cache.no_allowance:
            return
        if allowance_grant(practice.grants, licence, period_start_s) is not None:
            return
        grant = practices.load_allowance(self.cursor, practice.practice_no, licence, period_start_s)
        if grant is not None:
            self.take_in(practice_id, [grant])
            return
        if not self.need_movable(practice_id, licence):
            self.cache.no_allowance.add(missing)

    def need_movable(self, practice_id: str, licence: str) -> bool:
        """Have the allowances at hand whose bounds are guesses, or were; tell if there are any."""
        practice_no = self.practice(practice_id).practice_no
        found = practices.load_movable(self.cursor, practice_no, licence) if practice_no else []
        self.take_in(practice_id, found)
        return bool(found)

    def need_grants(self, practice_id: str, numbers: Iterable[int]) -> None:
        """Have these grants at hand, exhausted or not."""
        practice = self.practice(practice_id)
        absent = [no for no in numbers if no and no not in practice.grants]
        if absent:
            found = practices.load_grants(self.cursor, practice.practice_no, absent)
            self.take_in(practice_id, found)

    def step(self, practice: Practice, kind: int, key: str) -> Step | None:
        """Give what is remembered of the key of a lease's step."""
        place = (practice.practice_id, kind, key)
        known = self.steps.get(place)
        if known is None and practice.practice_no and place not in self.absent_steps:
            known = leases.load_step(self.cursor, practice.practice_no, kind, key)
        return known

    def triggers(self, practice: Practice) -> AutoTopup:
        """Give what decides when credit is low, and nothing else of the automatic top-up."""
        known = self.cache.triggers.get(practice.practice_id)
        if known is None:
            known = topups.load_triggers(self.cursor, practice.practice_no)
            self.cache.triggers[practice.practice_id] = known
        return known

    def money_key(self, practice: Practice, operation: str, key: str) -> KeyRecord | None:
        """Give what is remembered of a money command's key."""
        known = self.money_keys.get((practice.practice_id, operation, key))
        if known is None and practice.practice_no:
            row = self.cursor.execute(
                "SELECT body_hash, grant_no, event_no FROM credit_key"
                " WHERE practice_no = ? AND operation = ? AND key = ?",
                (practice.practice_no, operation, key),
            ).fetchone()
            known = KeyRecord(*row) if row else None
        return known
