"""The workspace: the states that the commands of one transaction read and write.

Law: a command's states are loaded, `apply` decides, what it returns is written; nothing here
decides about credit. It lives inside one open transaction and neither begins nor ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import get_args

from guthaben.domain.applied import Applied
from guthaben.domain.apply import Subject, apply
from guthaben.domain.apply_leases import LeaseSubject
from guthaben.domain.auto_topup import AutoTopup, below_trigger
from guthaben.domain.calls import RESERVED, Call, Operation
from guthaben.domain.commands import (
    OPERATION_OF,
    STEP_OF,
    Adjust,
    CallCommand,
    ClaimTopup,
    CloseEvent,
    Command,
    ConfirmCancelled,
    Expire,
    ExpireGrants,
    Extend,
    Fulfil,
    GrantCredit,
    KeyRecord,
    LeaseAsk,
    LeaseCommand,
    LeaseCommit,
    NetPayment,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    SendAttempt,
    SetLicense,
    Settle,
    Step,
    StepKind,
    body_hash,
)
from guthaben.domain.grants import ALLOWANCE
from guthaben.domain.period import month_of
from guthaben.domain.practice import ACTIVE, NEVER_MS, Practice, balance_of, current_period
from guthaben.domain.shortfall import shortfall_nano_usd
from guthaben.domain.topup import CreditEvent
from guthaben.store import attempts, calls, topups
from guthaben.store.cache import Cache
from guthaben.store.caps import CapCounts
from guthaben.store.loaded import Loaded
from guthaben.store.pending import EventNote, Pending
from guthaben.store.session import Cursor
from guthaben.store.sqlite_preload import FEW, preload_keys

__all__ = ["EventNote", "Workspace"]

_RESERVE = int(Operation.RESERVE)
_ON_EVENTS = (Fulfil, CloseEvent, NetPayment, SendAttempt, ConfirmCancelled)
_ENDINGS = frozenset({Settle, Release, Extend, Expire})
_KEYED = (Reserve, RecordUsage)
_GIVING = (GrantCredit, Adjust)
_ON_CALLS = frozenset(get_args(CallCommand))
_DRY_RUN = int(StepKind.DRY_RUN)
_SWEEPS = frozenset({Reserve, LeaseCommit, LeaseAsk})


def new_topup_id() -> str:
    """Make the public id of a top-up: 96 random bits."""
    return "tu_" + secrets.token_hex(12)


class Workspace:
    """States of one transaction; `apply` commands, then `flush`, then the owner commits."""

    def __init__(self, cursor: Cursor, now_ms: int, cache: Cache | None = None) -> None:
        self.cursor = cursor
        self.now_ms = now_ms
        self.now_s = now_ms // 1000
        self._loaded = Loaded(cursor, cache or Cache())
        self._pending = Pending(self._loaded, self.now_s)
        self._watched: dict[str, int] = {}
        """Practices to look at, and the credit that their refused calls lacked."""
        self._caps = CapCounts(cursor, self._loaded.cache.caps)

    # ---- for jobs

    def practice(self, practice_id: str) -> Practice:
        """Give the practice as it is now in this transaction; one nobody stored has nothing."""
        return self._loaded.practice(practice_id)

    def practice_no(self, practice_id: str) -> int:
        """Give the internal number of a practice, storing the practice if nobody has yet."""
        if self.practice(practice_id).practice_no == 0:
            self._pending.practices.add(practice_id)
            self._pending.write_practices()
        return self.practice(practice_id).practice_no

    def event(self, practice_id: str, event_no: int) -> CreditEvent | None:
        """Give a credit event of the practice as it is now."""
        return self._loaded.event(practice_id, event_no)

    def claim_context(self, practice_id: str) -> AutoTopup:
        """Read what the automatic top-up's decision looks at, in this transaction."""
        self.flush()
        practice = self.practice(practice_id)
        cap_month = month_of(practice.time_zone, self.now_s)
        period = current_period(practice, self.now_s)
        self._loaded.need_allowance(practice_id, period.license, period.start_s)
        found = topups.claim_context(
            self.cursor, practice.practice_no, practice.mode, cap_month, practice.time_zone
        )
        if found is None:
            return topups.default_context(cap_month, practice.time_zone)
        active = practice.status == ACTIVE
        return attempts.with_tries(
            self.cursor, practice.practice_no, found._replace(practice_active=active), self.now_s
        )

    def flush(self) -> None:
        """Write everything that changed; the transaction stays open."""
        self._pending.write()
        self._caps.write()

    def committed(self) -> None:
        """Leave the states to the next transaction of this connection."""
        self._loaded.cache.keep(self._loaded.practices, self._loaded.calls, self.now_s)

    def prepare(self, asked: Sequence[tuple[str, Command]]) -> None:
        """Lock and read together what commands speak of, where that saves round trips."""
        preload = getattr(self.cursor, "preload", None)
        if preload is not None:
            preload(self._loaded, asked, self.now_s)
            self._caps.know(self._loaded.cap_use)
        elif len(asked) >= FEW:
            preload_keys(self._loaded, asked)

    def forget(self) -> None:
        """Keep nothing for the next transaction: a job changed rows behind the states' back."""
        self._loaded.cache.clear()

    # ---- applying

    def apply(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command to one practice and remember what is to be written."""
        if type(command) in _SWEEPS or (type(command) is RecordUsage and command.overage_policy):
            self.sweep(practice_id)
        subject = self._subject(practice_id, command)
        if subject is None and type(command) is Reserve and command.overage_policy:
            if self._loaded.step(self.practice(practice_id), _DRY_RUN, command.key):
                return Outcome(False, "idempotency_conflict", False)
        if isinstance(command, Fulfil) and isinstance(subject, CreditEvent):
            told = self._told_before(practice_id, subject, command)
            if told is not None:
                return told
        applied = apply(self._loaded.practices[practice_id], subject, command, self.now_ms)
        if subject is None and isinstance(applied.subject, Call) and type(command) is Reserve:
            # Nothing of it has been kept, so a refusal here changes nothing.
            call = applied.subject
            rest = self._caps.refused(
                self._loaded.practices[practice_id], call.origin, call.reserved_nano_usd,
                call.created_at_ms,
            )  # fmt: skip
            if rest is not None:
                return Outcome(False, "cap_exceeded", False, available_nano_usd=rest)
        elif type(command) is LeaseAsk:
            applied = applied._replace(outcome=self._within_caps(practice_id, command, applied))
        self._keep(practice_id, subject, command, applied, note)
        return applied.outcome

    def _within_caps(self, practice_id: str, command: LeaseAsk, applied: Applied) -> Outcome:
        """Let a question whether a lease may begin hear of the caps, as beginning it would."""
        outcome = applied.outcome
        if outcome.step is None or outcome.replayed or outcome.step.told:
            return outcome
        rest = self._caps.refused(
            applied.practice, command.origin, command.amount_nano_usd, self.now_ms
        )
        if rest is None:
            return outcome
        told = outcome.step._replace(told="cap_exceeded")
        return outcome._replace(available_nano_usd=rest, step=told)

    def _subject(self, practice_id: str, command: Command) -> Subject:
        practice = self._loaded.practice(practice_id)
        kind = type(command)
        if kind in _ENDINGS:
            return self._ending(practice_id, command.call_no)  # type: ignore[union-attr]
        if isinstance(command, _KEYED):
            call = self._loaded.call_by_key(practice, OPERATION_OF[kind], command.key)
            if call is None:
                period = command.period or current_period(practice, self.now_s)
                self._loaded.need_allowance(
                    practice_id, period.license, period.start_s, period.end_s
                )
            return call
        if isinstance(command, _GIVING):
            return self._known_key(practice_id, command)
        if isinstance(command, LeaseCommand):
            return self._lease(practice_id, command)
        if isinstance(command, _ON_EVENTS):
            return self._event_and_grants(practice_id, command)
        if isinstance(command, ClaimTopup):
            return self.claim_context(practice_id)
        if isinstance(command, SetLicense):
            self._need_license(practice_id, command)
        return None

    def _ending(self, practice_id: str, call_no: int) -> Call | None:
        loaded = self._loaded
        call = loaded.call(practice_id, call_no)
        if call is not None:
            now = current_period(loaded.practices[practice_id], self.now_s)
            same = (now.license, now.start_s) == (call.license, call.period_start_s)
            end_s = now.end_s if same else 0
            loaded.need_allowance(practice_id, call.license, call.period_start_s, end_s)
            loaded.need_grants(practice_id, [piece.grant_no for piece in call.slices])
        return call

    def _lease(self, practice_id: str, command: LeaseCommand) -> LeaseSubject:
        practice = self.practice(practice_id)
        if not isinstance(command, LeaseAsk):
            step = self._loaded.step(practice, STEP_OF[type(command)], command.key)
            return LeaseSubject(self._ending(practice_id, command.call_no), step)
        period = current_period(practice, self.now_s)
        self._loaded.need_allowance(practice_id, period.license, period.start_s)
        step = self._loaded.step(practice, command.operation, command.key)
        is_taken = command.operation == _DRY_RUN and (
            self._loaded.call_by_key(practice, _RESERVE, command.key) is not None
        )
        return LeaseSubject(None, step, is_taken)

    def _known_key(self, practice_id: str, command: GrantCredit | Adjust) -> KeyRecord | None:
        practice = self.practice(practice_id)
        if isinstance(command, GrantCredit) and command.kind == ALLOWANCE:
            period = command.period or current_period(practice, self.now_s)
            self._loaded.need_allowance(practice_id, period.license, period.start_s)
        return self._loaded.money_key(practice, type(command).__name__, command.key)

    def _event_and_grants(
        self,
        practice_id: str,
        command: Fulfil | CloseEvent | NetPayment | SendAttempt | ConfirmCancelled,
    ) -> CreditEvent | None:
        event = self.event(practice_id, command.event_no)
        if event is not None and isinstance(command, NetPayment):
            self._loaded.need_grants(practice_id, [event.grant_no, event.bonus_grant_no])
        return event

    def _need_license(self, practice_id: str, command: SetLicense) -> None:
        practice = self.practice(practice_id)
        if practice.practice_no:
            self._loaded.need_allowance(practice_id, command.license, command.period_start_s)
            self._loaded.need_movable(practice_id, command.license)

    def _told_before(self, practice_id: str, event: CreditEvent, command: Fulfil) -> Outcome | None:
        """Find out whether this payment has been fulfilled, under whichever of its names."""
        refs = [
            (topups.PAYMENT, command.payment_id or event.payment_id),
            (topups.SESSION, command.session_id or event.session_id),
        ]
        self._pending.write_fulfilled()
        for kind, ref in refs:
            owner = topups.find_payment(self.cursor, event.provider, kind, ref) if ref else None
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
        practice, changed, transfers, outcome, _new_event = applied
        if practice is not self._loaded.practices[practice_id]:
            self._loaded.practices[practice_id] = practice
            self._pending.practices.add(practice_id)
        for transfer in transfers:
            self._pending.transfers.append((practice_id, transfer))
        known = subject.call if isinstance(subject, LeaseSubject) else subject
        if isinstance(changed, Call):
            if changed is not known:
                self._keep_call(practice, known if isinstance(known, Call) else None, changed)
                if isinstance(command, _KEYED) and command.told is not None:
                    self._pending.told[practice_id, changed.call_no] = command.told
        elif changed is not None and changed is not known:
            self._keep_event(practice_id, changed, command)
        if outcome.step is not None and outcome.applied:
            self._keep_step(practice_id, outcome.step)
        if type(command) not in _ON_CALLS:
            self._keep_money(practice_id, command, applied, note)
        if practice.auto_topup_armed:
            missing = shortfall_nano_usd(practice, command, outcome)
            self._watched[practice_id] = max(self._watched.get(practice_id, 0), missing)

    def _keep_call(self, practice: Practice, before: Call | None, call: Call) -> None:
        self._caps.note(practice, before, call)
        practice_id = practice.practice_id
        place = (practice_id, call.call_no)
        self._loaded.calls[place] = call
        # A call changes with its practice's row: whoever kept states of it notices.
        self._pending.practices.add(practice_id)
        if before is None:
            self._pending.new_calls.add(place)
            self._loaded.call_keys[practice_id, call.operation, call.key] = call.call_no
        elif place not in self._pending.new_calls:
            self._pending.changed_calls.add(place)

    def _keep_money(
        self, practice_id: str, command: Command, applied: Applied, note: EventNote | None
    ) -> None:
        """Remember a credit event that a command added, and the key of a command on credit."""
        event, event_no = applied.new_event, 0
        if event is not None:
            event_no = event.event_no
            self._loaded.events[practice_id, event_no] = event
            self._pending.new_events[practice_id, event_no] = note
        if isinstance(command, _GIVING) and applied.outcome.applied:
            place = (practice_id, type(command).__name__, command.key)
            record = KeyRecord(body_hash(command), applied.outcome.grant_no, event_no)
            self._loaded.money_keys[place] = self._pending.money_keys[place] = record

    def _keep_step(self, practice_id: str, step: Step) -> None:
        self._loaded.steps[practice_id, step.kind, step.key] = step
        self._pending.steps.append((practice_id, step))
        if self._loaded.practices[practice_id].practice_no == 0:
            self._pending.practices.add(practice_id)

    def _keep_event(self, practice_id: str, event: CreditEvent, command: Command) -> None:
        place = (practice_id, event.event_no)
        self._loaded.events[place] = event
        if place not in self._pending.new_events:
            self._pending.changed_events.add(place)
        if isinstance(command, Fulfil):
            self._pending.fulfilled.append((practice_id, event))

    # ---- sweeping and watching

    def sweep(self, practice_id: str) -> None:
        """Expire what is due of this practice: calls, at most a hundred, then grants."""
        practice = self.practice(practice_id)
        if practice.next_due_ms > self.now_ms or practice.practice_no == 0:
            return
        due = calls.load_due(self.cursor, practice.practice_no, self.now_ms)
        for stored in due:
            call = self._loaded.calls.get((practice_id, stored.call_no), stored)
            if call.status == RESERVED:
                self._loaded.calls.setdefault((practice_id, call.call_no), call)
                self.apply(practice_id, Expire(call.call_no))
        more = len(due) == calls.SWEEP_LIMIT
        self.apply(practice_id, ExpireGrants(0 if more else self._next_due(practice_id)))

    def _next_due(self, practice_id: str) -> int:
        row = self.cursor.execute(
            "SELECT MIN(expires_at_ms + grace_ms) FROM credit_call WHERE practice_no = ?"
            " AND status = 1 AND expires_at_ms + grace_ms > ?",
            (self._loaded.practices[practice_id].practice_no, self.now_ms),
        ).fetchone()
        new = [
            self._loaded.calls[place].due_at_ms
            for place in self._pending.new_calls
            if place[0] == practice_id
        ]
        return min([*new, NEVER_MS if row[0] is None else int(row[0])])

    def watch(self) -> list[tuple[str, Outcome]]:
        """Claim an automatic top-up for every touched practice whose credit is low."""
        claims: list[tuple[str, Outcome]] = []
        for practice_id, missing in self._watched.items():
            practice = self._loaded.practices[practice_id]
            if not practice.auto_topup_armed or practice.auto_topup_next_s > self.now_s:
                continue
            # Everything else that the claim looks at is read only where credit is low.
            period = current_period(practice, self.now_s)
            self._loaded.need_allowance(practice_id, period.license, period.start_s, period.end_s)
            practice = self._loaded.practices[practice_id]
            available = balance_of(practice, period, self.now_s).available_nano_usd
            triggers = self._loaded.triggers(practice)
            if below_trigger(triggers, available, period.allowance_nano_usd, missing > 0):
                claim = ClaimTopup(new_topup_id(), "", missing > 0, missing)
                outcome = self.apply(practice_id, claim)
                if outcome.applied:
                    claims.append((practice_id, outcome))
        self._watched.clear()
        return claims
