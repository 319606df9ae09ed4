"""What the steps of a lease do: commit, release, extend, and the question whether it could begin.

Law: a step's key repeats its answer for ever, whatever has become of the lease since; another body
under the same key is refused. After expiry and grace nothing is booked. The rules of money are in
`leases`; beginning a lease is `Reserve`, an event is `RecordUsage`, both with an overage policy.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.applied import Applied
from guthaben.domain.apply_calls import SETTLE, end_call, merged
from guthaben.domain.calls import (
    BY_CALLER,
    EXPIRED,
    MAX_LIFETIME_MS,
    RELEASED,
    RESERVED,
    SETTLED,
    Call,
    Overage,
)
from guthaben.domain.commands import (
    LeaseAsk,
    LeaseCommand,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    Outcome,
    Step,
    StepKind,
    body_hash,
)
from guthaben.domain.draft import Draft, Refusal, require_amount
from guthaben.domain.leases import cover, denial
from guthaben.domain.practice import ACTIVE, CLOSED, FROZEN, Practice, current_period

_REJECT = int(Overage.REJECT)


class LeaseSubject(NamedTuple):
    """The call a step speaks of, and what is remembered of its key."""

    call: Call | None
    step: Step | None
    is_taken: bool = False
    """The key of a dry run has begun a lease already."""


def _replayed(practice: Practice, subject: LeaseSubject, command: LeaseCommand) -> Applied:
    step = subject.step
    if subject.is_taken or step is None or step.body_hash != body_hash(command):
        raise Refusal("idempotency_conflict")
    outcome = Outcome(True, applied=False, replayed=True, call=subject.call, step=step)
    return Applied(practice, subject.call, [], outcome)


def _open_call(practice: Practice, call: Call | None, now_ms: int, until_ms: int) -> Call:
    """Give the open call of a step; `until_ms` is the first instant at which it comes too late."""
    if call is None:
        raise Refusal("call_not_found")
    if practice.status == CLOSED:
        raise Refusal("practice_closed")
    if call.status == EXPIRED or (call.status == RESERVED and now_ms >= until_ms):
        raise Refusal("lease_expired")
    if call.status != RESERVED:
        raise Refusal("lease_finished")
    return call


def _step(
    command: LeaseCommand, kind: StepKind, now_ms: int, call_no: int, number: int = 0
) -> Step:
    told = command.told if kind == StepKind.COMMIT else ""
    return Step(int(kind), command.key, body_hash(command), call_no, now_ms, number, told)


def commit(practice: Practice, subject: LeaseSubject, command: LeaseCommit, now_ms: int) -> Applied:
    """End a lease with its real cost, as its overage policy says."""
    if subject.step is not None:
        return _replayed(practice, subject, command)
    require_amount(command.cost_nano_usd, 0)
    due_ms = subject.call.due_at_ms if subject.call is not None else 0
    call = _open_call(practice, subject.call, now_ms, due_ms)
    cost, now_s = command.cost_nano_usd, now_ms // 1000
    draft = Draft(practice, now_s)
    draft.call_no = call.call_no
    allowance = draft.allowance_of_call(call)
    first_seq = draft.next_seq if cost else 0
    more = draft.unpin(call.slices, cost, SETTLE)
    if more and call.overage_policy == _REJECT:
        raise Refusal("above_estimate")
    uncovered = cover(draft, allowance, more, call.overage_policy, SETTLE) if more else 0
    draft.note_use(allowance, cost)
    ended = call._replace(
        status=SETTLED,
        ended_by=BY_CALLER,
        cost_nano_usd=cost,
        uncovered_nano_usd=uncovered,
        slices=(),
        ended_at_s=now_s,
        first_seq=first_seq,
        usage=merged(call.usage, command.usage),
    )
    step = _step(command, StepKind.COMMIT, now_ms, call.call_no)
    return Applied(draft.finish(), ended, draft.transfers, Outcome(True, call=ended, step=step))


def release(
    practice: Practice, subject: LeaseSubject, command: LeaseRelease, now_ms: int
) -> Applied:
    """End a lease without cost."""
    if subject.step is not None:
        return _replayed(practice, subject, command)
    due_ms = subject.call.due_at_ms if subject.call is not None else 0
    call = _open_call(practice, subject.call, now_ms, due_ms)
    ended = end_call(practice, call, now_ms, RELEASED, BY_CALLER, 0)
    step = _step(command, StepKind.RELEASE, now_ms, call.call_no)
    return ended._replace(outcome=ended.outcome._replace(step=step))


def extend(practice: Practice, subject: LeaseSubject, command: LeaseExtend, now_ms: int) -> Applied:
    """Give a lease more time from where it ends; at most 24 h after it began."""
    if subject.step is not None:
        return _replayed(practice, subject, command)
    expires_ms = subject.call.expires_at_ms if subject.call is not None else 0
    call = _open_call(practice, subject.call, now_ms, expires_ms + 1)
    until_ms = min(expires_ms + command.by_ms, call.created_at_ms + MAX_LIFETIME_MS)
    if until_ms <= expires_ms:
        raise Refusal("lifetime_exceeded")
    extended = call._replace(expires_at_ms=until_ms)
    step = _step(command, StepKind.EXTEND, now_ms, call.call_no, until_ms)
    return Applied(practice, extended, [], Outcome(True, call=extended, step=step))


def ask(practice: Practice, subject: LeaseSubject, command: LeaseAsk, now_ms: int) -> Applied:
    """Answer whether an amount could be reserved now; the step tells why not."""
    if subject.step is not None or subject.is_taken:
        return _replayed(practice, subject, command)
    require_amount(command.amount_nano_usd, 0)
    reason, left = "practice_closed", 0
    if practice.status == FROZEN:
        reason = "practice_frozen"
    elif practice.status == ACTIVE:
        draft = Draft(practice, now_ms // 1000)
        allowance = draft.touch(current_period(practice, draft.now_s))
        reason, left = denial(draft, allowance, command.amount_nano_usd)
    step = _step(command, StepKind(command.operation), now_ms, 0)._replace(told=reason)
    outcome = Outcome(True, available_nano_usd=left, step=step)
    return Applied(practice, None, [], outcome)
