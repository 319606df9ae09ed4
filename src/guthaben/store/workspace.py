"""The workspace: the states that the commands of one transaction read and write.

Law: a command's states are loaded, `apply` decides, what it returns is written; nothing here
decides about credit. It lives inside one open transaction and neither begins nor ends it.
What earlier transactions left in the cache is used only while the database proves it current.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from guthaben.domain.apply import Applied, Subject, apply
from guthaben.domain.auto_topup import AutoTopup, below_trigger
from guthaben.domain.calls import RESERVED, Call, Operation
from guthaben.domain.commands import (
    Adjust,
    ClaimTopup,
    CloseEvent,
    Command,
    Expire,
    ExpireGrants,
    Extend,
    Fulfil,
    GrantCredit,
    KeyRecord,
    NetPayment,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    Settle,
    body_hash,
)
from guthaben.domain.grants import ALLOWANCE, Grant
from guthaben.domain.journal import Transfer
from guthaben.domain.period import month_of
from guthaben.domain.practice import (
    NEVER_MS,
    Practice,
    allowance_grant,
    balance_of,
    current_period,
)
from guthaben.domain.topup import CreditEvent
from guthaben.store import calls, journal, practices, topups

_RESERVE, _USAGE = int(Operation.RESERVE), int(Operation.USAGE)
_MAX_CACHED = 20_000


class EventNote(NamedTuple):
    """What goes with a new credit event but must be erasable, and the old row's number if any."""

    customer_email: str | None = None
    author: str | None = None
    note: str | None = None
    meta_json: str | None = None
    row_id: int | None = None


class Cache:
    """States left by committed transactions of one connection; `clear` when anybody else wrote."""

    def __init__(self) -> None:
        self.practices: dict[str, Practice] = {}
        self.calls: dict[tuple[str, int], Call] = {}
        self.no_allowance: set[tuple[str, str, int]] = set()

    def clear(self) -> None:
        """Forget everything."""
        self.practices.clear()
        self.calls.clear()
        self.no_allowance.clear()

    def trim(self) -> None:
        """Stay within bounds; forgetting is always safe."""
        if len(self.practices) > _MAX_CACHED or len(self.calls) > _MAX_CACHED:
            self.clear()


class Workspace:
    """States of one transaction; `apply` commands, then `flush`, then the owner commits."""

    def __init__(self, cursor: sqlite3.Cursor, now_ms: int, cache: Cache | None = None) -> None:
        self.cursor = cursor
        self.now_ms = now_ms
        self.now_s = now_ms // 1000
        self.cache = cache or Cache()
        self._practices: dict[str, Practice] = {}
        self._stored_grants: dict[str, dict[int, Grant]] = {}
        self._dirty: set[str] = set()
        self._calls: dict[tuple[str, int], Call] = {}
        self._keys: dict[tuple[str, int, str], int] = {}
        self._new_calls: set[tuple[str, int]] = set()
        self._changed_calls: set[tuple[str, int]] = set()
        self._transfers: list[tuple[str, Transfer]] = []
        self._events: dict[tuple[str, int], CreditEvent] = {}
        self._new_events: dict[tuple[str, int], EventNote | None] = {}
        self._changed_events: set[tuple[str, int]] = set()
        self._money_keys: dict[tuple[str, str, str], KeyRecord] = {}
        self._fulfilled: list[tuple[str, CreditEvent]] = []
        self._watched: dict[str, bool] = {}

    # ---- loading

    def practice(self, practice_id: str) -> Practice:
        """Give the practice as it is now in this transaction; one nobody stored has nothing."""
        found = self._practices.get(practice_id)
        if found is None:
            found = self.cache.practices.get(practice_id)
            if found is None:
                found = practices.load_practice(self.cursor, practice_id)
                if found is None:
                    found = practices.stranger(practice_id)
            self._practices[practice_id] = found
            self._stored_grants[practice_id] = dict(found.grants)
        return found

    def practice_no(self, practice_id: str) -> int:
        """Give the internal number of a practice, storing the practice if nobody has yet."""
        practice = self.practice(practice_id)
        if practice.practice_no == 0:
            self._dirty.add(practice_id)
            self._store_practices()
        return self._practices[practice_id].practice_no

    def call(self, practice_id: str, call_no: int) -> Call | None:
        """Give a call of the practice as it is now."""
        known = self._calls.get((practice_id, call_no)) or self.cache.calls.get(
            (practice_id, call_no)
        )
        if known is None:
            practice_no = self.practice(practice_id).practice_no
            known = calls.load_call(self.cursor, practice_no, call_no) if practice_no else None
        return known

    def _call_by_key(self, practice: Practice, operation: int, key: str) -> Call | None:
        call_no = self._keys.get((practice.practice_id, operation, key))
        if call_no is not None:
            return self._calls[practice.practice_id, call_no]
        if practice.practice_no == 0:
            return None
        found = calls.load_call_by_key(self.cursor, practice.practice_no, operation, key)
        if found is None:
            return None
        return self._calls.get((practice.practice_id, found.call_no), found)

    def event(self, practice_id: str, event_no: int) -> CreditEvent | None:
        """Give a credit event of the practice as it is now."""
        known = self._events.get((practice_id, event_no))
        if known is None:
            practice_no = self.practice(practice_id).practice_no
            known = topups.load_event(self.cursor, practice_no, event_no) if practice_no else None
        return known

    def _take_in(self, practice_id: str, found: Iterable[Grant]) -> None:
        """Add grants that were loaded later than their practice."""
        practice = self._practices[practice_id]
        fresh = {grant.grant_no: grant for grant in found if grant.grant_no not in practice.grants}
        if fresh:
            self._practices[practice_id] = practice._replace(grants={**practice.grants, **fresh})
            self._stored_grants[practice_id].update(fresh)

    def need_allowance(self, practice_id: str, licence: str, period_start_s: int) -> None:
        """Have the allowance of a period at hand if there is one."""
        practice = self.practice(practice_id)
        if practice.practice_no == 0:
            return
        missing = (practice_id, licence, period_start_s)
        if missing in self.cache.no_allowance:
            return
        if allowance_grant(practice.grants, licence, period_start_s) is not None:
            return
        grant = practices.load_allowance(self.cursor, practice.practice_no, licence, period_start_s)
        if grant is None:
            self.cache.no_allowance.add(missing)
        else:
            self._take_in(practice_id, [grant])

    def need_grants(self, practice_id: str, numbers: Iterable[int]) -> None:
        """Have these grants at hand, exhausted or not."""
        practice = self.practice(practice_id)
        absent = [no for no in numbers if no and no not in practice.grants]
        if absent:
            found = practices.load_grants(self.cursor, practice.practice_no, absent)
            self._take_in(practice_id, found)

    # ---- applying

    def apply(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command to one practice and remember what is to be written."""
        if type(command) is Reserve:
            self.sweep(practice_id)
        subject = self._subject(practice_id, command)
        if isinstance(command, Fulfil) and isinstance(subject, CreditEvent):
            told = self._told_before(practice_id, subject, command)
            if told is not None:
                return told
        applied = apply(self._practices[practice_id], subject, command, self.now_ms)
        self._keep(practice_id, subject, command, applied, note)
        return applied.outcome

    def _subject(self, practice_id: str, command: Command) -> Subject:
        practice = self.practice(practice_id)
        kind = type(command)
        if kind is Settle or kind is Release or kind is Extend or kind is Expire:
            return self._ending(practice_id, command.call_no)  # type: ignore[union-attr]
        if isinstance(command, Reserve | RecordUsage):
            operation = _RESERVE if kind is Reserve else _USAGE
            call = self._call_by_key(practice, operation, command.key)
            if call is None:
                period = command.period or current_period(practice, self.now_s)
                self.need_allowance(practice_id, period.license, period.start_s)
            return call
        if isinstance(command, GrantCredit | Adjust):
            return self._known_key(practice_id, command)
        if isinstance(command, Fulfil | CloseEvent | NetPayment):
            return self._event_and_grants(practice_id, command)
        if isinstance(command, ClaimTopup):
            return self.claim_context(practice_id)
        if isinstance(command, SetLicense):
            self._need_license(practice_id, command)
        return None

    def _ending(self, practice_id: str, call_no: int) -> Call | None:
        call = self.call(practice_id, call_no)
        if call is not None:
            self.need_allowance(practice_id, call.license, call.period_start_s)
            self.need_grants(practice_id, [piece.grant_no for piece in call.slices])
        return call

    def _known_key(self, practice_id: str, command: GrantCredit | Adjust) -> KeyRecord | None:
        practice = self.practice(practice_id)
        if isinstance(command, GrantCredit) and command.kind == ALLOWANCE:
            period = command.period or current_period(practice, self.now_s)
            self.need_allowance(practice_id, period.license, period.start_s)
        operation = type(command).__name__
        known = self._money_keys.get((practice_id, operation, command.key))
        if known is None and practice.practice_no:
            row = self.cursor.execute(
                "SELECT body_hash, grant_no, event_no FROM credit_key"
                " WHERE practice_no = ? AND operation = ? AND key = ?",
                (practice.practice_no, operation, command.key),
            ).fetchone()
            known = KeyRecord(*row) if row else None
        return known

    def _event_and_grants(
        self, practice_id: str, command: Fulfil | CloseEvent | NetPayment
    ) -> CreditEvent | None:
        event = self.event(practice_id, command.event_no)
        if event is not None and isinstance(command, NetPayment):
            self.need_grants(practice_id, [event.grant_no, event.bonus_grant_no])
        return event

    def _need_license(self, practice_id: str, command: SetLicense) -> None:
        practice = self.practice(practice_id)
        if practice.practice_no:
            self.need_allowance(practice_id, command.license, command.period_start_s)
            found = practices.load_provisional(self.cursor, practice.practice_no, command.license)
            self._take_in(practice_id, found)

    def claim_context(self, practice_id: str) -> AutoTopup:
        """Read what the automatic top-up's decision looks at, in this transaction."""
        practice = self.practice(practice_id)
        cap_month = month_of(practice.time_zone, self.now_s)
        self.flush()
        period = current_period(practice, self.now_s)
        self.need_allowance(practice_id, period.license, period.start_s)
        return topups.claim_context(
            self.cursor, practice.practice_no, practice.mode, cap_month, practice.time_zone
        ) or topups.default_context(cap_month, practice.time_zone)

    def _told_before(self, practice_id: str, event: CreditEvent, command: Fulfil) -> Outcome | None:
        """Find out whether this payment has been fulfilled, under whichever of its names."""
        refs = [
            (topups.PAYMENT, command.payment_id or event.payment_id),
            (topups.SESSION, command.session_id or event.session_id),
        ]
        self._register_fulfilled()
        for kind, ref in refs:
            if not ref:
                continue
            owner = topups.find_payment(self.cursor, event.provider, kind, ref)
            if owner is not None:
                topups.register_alias(self.cursor, event, owner, refs, self.now_s)
                return Outcome(True, "duplicate", False, event=event)
        return None

    def _keep(
        self,
        practice_id: str,
        subject: Subject,
        command: Command,
        applied: Applied,
        note: EventNote | None,
    ) -> None:
        """Remember what one applied command changed."""
        if applied.practice is not self._practices[practice_id]:
            self._practices[practice_id] = applied.practice
            self._dirty.add(practice_id)
        for transfer in applied.transfers:
            self._transfers.append((practice_id, transfer))
        changed = applied.subject
        if changed is not None and changed is not subject:
            if isinstance(changed, Call):
                self._keep_call(practice_id, changed, new=subject is None)
            else:
                self._keep_event(practice_id, changed, command)
        if applied.new_event is not None:
            self._events[practice_id, applied.new_event.event_no] = applied.new_event
            self._new_events[practice_id, applied.new_event.event_no] = note
        if isinstance(command, GrantCredit | Adjust) and applied.outcome.applied:
            event_no = applied.new_event.event_no if applied.new_event else 0
            self._money_keys[practice_id, type(command).__name__, command.key] = KeyRecord(
                body_hash(command), applied.outcome.grant_no, event_no
            )
        if applied.practice.auto_topup_armed:
            refused = applied.outcome.reason == "insufficient_credit"
            self._watched[practice_id] = self._watched.get(practice_id, False) or refused

    def _keep_call(self, practice_id: str, call: Call, *, new: bool) -> None:
        place = (practice_id, call.call_no)
        self._calls[place] = call
        if new:
            self._new_calls.add(place)
            self._keys[practice_id, call.operation, call.key] = call.call_no
        elif place not in self._new_calls:
            self._changed_calls.add(place)

    def _keep_event(self, practice_id: str, event: CreditEvent, command: Command) -> None:
        place = (practice_id, event.event_no)
        self._events[place] = event
        if place not in self._new_events:
            self._changed_events.add(place)
        if isinstance(command, Fulfil):
            self._fulfilled.append((practice_id, event))

    # ---- sweeping and watching

    def sweep(self, practice_id: str) -> None:
        """Expire what is due of this practice: calls, at most a hundred, then grants."""
        practice = self.practice(practice_id)
        if practice.next_due_ms > self.now_ms or practice.practice_no == 0:
            return
        due = calls.load_due(self.cursor, practice.practice_no, self.now_ms)
        for stored in due:
            call = self._calls.get((practice_id, stored.call_no), stored)
            if call.status == RESERVED:
                self._calls.setdefault((practice_id, call.call_no), call)
                self.apply(practice_id, Expire(call.call_no))
        more = len(due) == calls.SWEEP_LIMIT
        self.apply(practice_id, ExpireGrants(self.now_ms if more else self._next_due(practice_id)))

    def _next_due(self, practice_id: str) -> int:
        row = self.cursor.execute(
            "SELECT MIN(expires_at_ms + grace_ms) FROM credit_call WHERE practice_no = ?"
            " AND status = 1 AND expires_at_ms + grace_ms > ?",
            (self._practices[practice_id].practice_no, self.now_ms),
        ).fetchone()
        new = [self._calls[place].due_at_ms for place in self._new_calls if place[0] == practice_id]
        return min([*new, NEVER_MS if row[0] is None else int(row[0])])

    def watch(self) -> list[tuple[str, Outcome]]:
        """Claim an automatic top-up for every touched practice whose credit is low."""
        claims: list[tuple[str, Outcome]] = []
        for practice_id, shortfall in self._watched.items():
            practice = self._practices[practice_id]
            if not practice.auto_topup_armed or practice.auto_topup_next_s > self.now_s:
                continue
            context = self.claim_context(practice_id)
            practice = self._practices[practice_id]
            period = current_period(practice, self.now_s)
            available = balance_of(practice, period, self.now_s).available_nano_usd
            if below_trigger(context, available, period.allowance_nano_usd, shortfall):
                claim = ClaimTopup("tu_" + secrets.token_hex(12), shortfall=shortfall)
                outcome = self.apply(practice_id, claim)
                if outcome.applied:
                    claims.append((practice_id, outcome))
        self._watched.clear()
        return claims

    # ---- writing

    def flush(self) -> None:
        """Write everything that changed; the transaction stays open."""
        self._store_practices()
        number = {practice_id: p.practice_no for practice_id, p in self._practices.items()}
        if self._new_calls:
            rows = [(number[place[0]], self._calls[place]) for place in sorted(self._new_calls)]
            calls.insert_calls(self.cursor, rows)
        if self._changed_calls:
            rows = [(number[place[0]], self._calls[place]) for place in self._changed_calls]
            calls.update_calls(self.cursor, rows)
        if self._transfers:
            moved = [(number[practice_id], transfer) for practice_id, transfer in self._transfers]
            journal.insert_transfers(self.cursor, moved)
        if self._new_events or self._changed_events:
            self._store_events(number)
        self._register_fulfilled()
        if self._money_keys:
            self._store_keys(number)
        self._new_calls.clear()
        self._changed_calls.clear()
        self._transfers.clear()

    def _store_practices(self) -> None:
        known, grants = [], []
        for practice_id in self._dirty:
            practice = self._practices[practice_id]
            if practice.practice_no == 0:
                number = practices.insert_practice(self.cursor, practice)
                practice = practice._replace(practice_no=number)
                self._practices[practice_id] = practice
            else:
                known.append(practice)
            stored = self._stored_grants[practice_id]
            for grant_no, grant in practice.grants.items():
                if stored.get(grant_no) is not grant:
                    grants.append((practice.practice_no, grant))
                    stored[grant_no] = grant
                    if grant.kind == ALLOWANCE:
                        self.cache.no_allowance.discard(
                            (practice_id, grant.license, grant.period_start_s)
                        )
        if known:
            practices.update_practices(self.cursor, known)
        if grants:
            practices.upsert_grants(self.cursor, grants)
        self._dirty.clear()

    def _store_events(self, number: dict[str, int]) -> None:
        for place, note in self._new_events.items():
            event = self._events[place]
            practice_no = number[place[0]]
            topups.insert_event(self.cursor, practice_no, event, note.row_id if note else None)
            if note is not None and any(note[:4]):
                topups.put_note(self.cursor, practice_no, event.event_no, **_texts(note))
        for place in self._changed_events:
            topups.update_event(self.cursor, number[place[0]], self._events[place])
        self._new_events.clear()
        self._changed_events.clear()

    def _register_fulfilled(self) -> None:
        for practice_id, event in self._fulfilled:
            topups.register_payments(self.cursor, self.practice_no(practice_id), event, self.now_s)
        self._fulfilled.clear()

    def _store_keys(self, number: dict[str, int]) -> None:
        self.cursor.executemany(
            "INSERT INTO credit_key (practice_no, operation, key, body_hash, grant_no, event_no,"
            " at_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (number[practice_id], operation, key, *record, self.now_s)
                for (practice_id, operation, key), record in self._money_keys.items()
            ],
        )
        self._money_keys.clear()

    def committed(self) -> None:
        """Leave the states to the next transaction of this connection."""
        cache = self.cache
        for practice_id, practice in self._practices.items():
            if practice.practice_no:
                cache.practices[practice_id] = _slim(practice, self.now_s)
        for place, call in self._calls.items():
            if call.status == RESERVED:
                cache.calls[place] = call
            else:
                cache.calls.pop(place, None)
        cache.trim()


def _texts(note: EventNote) -> dict[str, str | None]:
    return {name: getattr(note, name) for name in EventNote._fields[:4]}


def _slim(practice: Practice, now_s: int) -> Practice:
    """Drop grants that no later command needs unless it names them."""
    spent = [no for no, grant in practice.grants.items() if practices.is_spent(grant)]
    old = [
        no
        for no, grant in practice.grants.items()
        if grant.kind == ALLOWANCE and grant.held_nano_usd == 0 and grant.period_end_s <= now_s
    ]
    if not spent and not old:
        return practice
    kept = {no: g for no, g in practice.grants.items() if no not in spent and no not in old}
    return practice._replace(grants=kept)
