"""What a transaction has still to write, and the writing of it, in bulk.

Law: everything that a command changed is written, once, in an order that the constraints accept;
the transaction itself is somebody else's.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.calls import Told
from guthaben.domain.commands import KeyRecord, Step
from guthaben.domain.grants import ALLOWANCE, Grant
from guthaben.domain.journal import Transfer
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent
from guthaben.store import attempts, calls, journal, leases, practices, topups
from guthaben.store.loaded import Loaded

Place = tuple[str, int]
"""A practice's id and the number of one of its calls or credit events."""


class EventNote(NamedTuple):
    """What goes with a new credit event but must be erasable, and the old row's number if any."""

    customer_email: str | None = None
    author: str | None = None
    note: str | None = None
    meta_json: str | None = None
    row_id: int | None = None


class Pending:
    """Names of changed states; the states themselves are in `Loaded`."""

    def __init__(self, loaded: Loaded, now_s: int) -> None:
        self._loaded = loaded
        self._cursor = loaded.cursor
        self._now_s = now_s
        self.practices: set[str] = set()
        self.new_calls: set[Place] = set()
        self.changed_calls: set[Place] = set()
        self.transfers: list[tuple[str, Transfer]] = []
        self.new_events: dict[Place, EventNote | None] = {}
        self.changed_events: set[Place] = set()
        self.money_keys: dict[tuple[str, str, str], KeyRecord] = {}
        self.fulfilled: list[tuple[str, CreditEvent]] = []
        self.told: dict[Place, Told] = {}
        self.steps: list[tuple[str, Step]] = []

    def write(self) -> None:
        """Write all that changed; afterwards nothing is pending."""
        self.write_practices()
        self._write_calls()
        if self.told or self.steps:
            self._write_leases()
        if self.transfers:
            rows = [(self._number(name), transfer) for name, transfer in self.transfers]
            journal.insert_transfers(self._cursor, rows)
            self.transfers.clear()
        if self.new_events or self.changed_events:
            self._write_events()
        if self.fulfilled:
            self.write_fulfilled()
        if self.money_keys:
            self._write_keys()

    def _number(self, practice_id: str) -> int:
        return self._loaded.practices[practice_id].practice_no

    def write_practices(self) -> None:
        """Write practices and their grants; a new practice gets its number."""
        if not self.practices:
            return
        known: list[Practice] = []
        counted: list[Practice] = []
        grants: list[tuple[int, Grant]] = []
        used: list[tuple[int, Grant]] = []
        # New ones in one order, so that two servers who store the same never wait in a circle.
        loaded = self._loaded
        for practice_id in sorted(self.practices):
            practice = loaded.practices[practice_id]
            if practice.practice_no == 0:
                number = practices.insert_practice(self._cursor, practice)
                practice = practice._replace(practice_no=number)
                loaded.practices[practice_id] = practice
            else:
                before = loaded.stored_practices.get(practice_id)
                lean = practices.differs_in_counters_only(before, practice)
                (counted if lean else known).append(practice)
            loaded.stored_practices[practice_id] = practice
            stored = loaded.stored_grants[practice_id]
            for grant_no, grant in practice.grants.items():
                was = stored.get(grant_no)
                if was is not grant:
                    lean = practices.differs_in_amounts_only(was, grant)
                    (used if lean else grants).append((practice.practice_no, grant))
                    stored[grant_no] = grant
                    if grant.kind == ALLOWANCE:
                        place = (practice_id, grant.license, grant.period_start_s)
                        loaded.cache.no_allowance.discard(place)
        loaded.cache.written.update(self.practices)
        if counted:
            practices.update_counters(self._cursor, counted)
        if known:
            practices.update_practices(self._cursor, known)
        if grants:
            practices.upsert_grants(self._cursor, grants)
        if used:
            practices.update_grants(self._cursor, used)
        self.practices.clear()

    def _write_calls(self) -> None:
        states = self._loaded.calls
        if self.new_calls:
            rows = [(self._number(place[0]), states[place]) for place in sorted(self.new_calls)]
            calls.insert_calls(self._cursor, rows)
            self.new_calls.clear()
        if self.changed_calls:
            rows = [(self._number(place[0]), states[place]) for place in self.changed_calls]
            calls.update_calls(self._cursor, rows)
            self.changed_calls.clear()

    def _write_leases(self) -> None:
        told = [(self._number(name), no, told) for (name, no), told in self.told.items()]
        leases.insert_told(self._cursor, told)
        steps = [(self._number(practice_id), step) for practice_id, step in self.steps]
        leases.insert_steps(self._cursor, steps)
        self.told.clear()
        self.steps.clear()

    def _write_events(self) -> None:
        states = self._loaded.events
        for place, note in self.new_events.items():
            event, number = states[place], self._number(place[0])
            topups.insert_event(self._cursor, number, event, note.row_id if note else None)
            if note is not None and any(note[:4]):
                texts = dict(zip(EventNote._fields[:4], note[:4], strict=True))
                topups.put_note(self._cursor, number, event.event_no, **texts)
            if event.need_no == event.event_no:
                attempts.begin_need(self._cursor, number, event.need_no)
        for place in self.changed_events:
            topups.update_event(self._cursor, self._number(place[0]), states[place])
        self.new_events.clear()
        self.changed_events.clear()

    def write_fulfilled(self) -> None:
        """Register the payments of fulfilled purchases, so that a second telling finds them."""
        self.write_practices()
        for practice_id, event in self.fulfilled:
            number = self._number(practice_id)
            topups.register_payments(self._cursor, number, event, self._now_s)
            attempts.end_need(self._cursor, number, event.event_no if event.method_id else 0)
        self.fulfilled.clear()

    def _write_keys(self) -> None:
        self._cursor.executemany(
            "INSERT INTO credit_key (practice_no, operation, key, body_hash, grant_no, event_no,"
            " at_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (self._number(practice_id), operation, key, *record, self._now_s)
                for (practice_id, operation, key), record in self.money_keys.items()
            ],
        )
        self.money_keys.clear()
