"""What the commands on calls do: reserve, settle, release, extend, expire, record usage.

Law: of settle, release and expire exactly one wins; a late settle books only the difference.
Each function takes the practice, the call it speaks of (or none) and the command, and returns the
new state; a refusal is raised and changes nothing. See docs/rules.md.
"""

from __future__ import annotations

from guthaben.domain.applied import Applied
from guthaben.domain.calls import (
    BY_CALLER,
    BY_EXCEPTION,
    BY_EXPIRY,
    BY_NOBODY,
    EXPIRED,
    MAX_LIFETIME_MS,
    NO_USAGE,
    ON_CHARGE,
    ON_KEEP,
    RELEASED,
    RESERVED,
    SETTLED,
    SETTLED_LATE,
    Call,
    Operation,
    Overage,
    Usage,
)
from guthaben.domain.commands import (
    Expire,
    Extend,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    Settle,
    body_hash,
)
from guthaben.domain.draft import USED, Draft, Refusal, require_amount
from guthaben.domain.grants import Grant, take
from guthaben.domain.journal import Code
from guthaben.domain.leases import cover, denial
from guthaben.domain.practice import ACTIVE, CLOSED, FROZEN, Practice, current_period

_RESERVE, _USAGE = int(Operation.RESERVE), int(Operation.USAGE)
_REJECT = int(Overage.REJECT)
SETTLE, _LATE, _USED = int(Code.SETTLE), int(Code.LATE), int(Code.USAGE)


def _unchanged(practice: Practice, call: Call, *, replayed: bool = False) -> Applied:
    """Tell what an earlier command decided."""
    return Applied(practice, call, [], Outcome(True, "", False, replayed, 0, call))


def _replay(practice: Practice, call: Call, command: Reserve | RecordUsage) -> Applied:
    if call.body_hash != body_hash(command):
        raise Refusal("idempotency_conflict")
    return _unchanged(practice, call, replayed=True)


def _require_ttl(ttl_ms: int) -> None:
    if type(ttl_ms) is not int or not 1 <= ttl_ms <= MAX_LIFETIME_MS:
        raise Refusal("invalid_ttl")


def reserve(practice: Practice, call: Call | None, command: Reserve, now_ms: int) -> Applied:
    """Pin credit for one call, or refuse."""
    if call is not None:
        return _replay(practice, call, command)
    amount = command.amount_nano_usd
    require_amount(amount, 0 if command.overage_policy else 1)
    _require_ttl(command.ttl_ms)
    if practice.status != ACTIVE:
        raise Refusal("practice_frozen" if practice.status == FROZEN else "practice_closed")
    now_s = now_ms // 1000
    period = command.period or current_period(practice, now_s)
    draft = Draft(practice, now_s)
    allowance = draft.touch(period)
    if command.overage_policy:
        reason, left = denial(draft, allowance, amount)
        if reason:
            raise Refusal(reason, left)
    slices, missing = take(draft.usable(allowance), amount)
    if missing:
        raise Refusal("insufficient_credit", amount - missing)
    draft.pin(slices)
    call = Call(
        practice.next_call_no, _RESERVE, command.key, body_hash(command), RESERVED, BY_NOBODY,
        now_ms, now_ms + command.ttl_ms, amount, 0, period.license, period.start_s, tuple(slices),
        command.on_expiry, command.on_exception, command.grace_ms, command.overage_policy,
        0, 0, 0, command.usage, command.origin,
    )  # fmt: skip
    draft.next_due_ms = min(draft.next_due_ms, call.due_at_ms)
    draft.next_call_no += 1
    return Applied(draft.finish(), call, draft.transfers, Outcome(True, call=call))


def record_usage(
    practice: Practice, call: Call | None, command: RecordUsage, now_ms: int
) -> Applied:
    """Meter a call that was made without a reservation."""
    if call is not None:
        return _replay(practice, call, command)
    cost = command.cost_nano_usd
    require_amount(cost, 0)
    if practice.status == CLOSED:
        raise Refusal("practice_closed")
    now_s = now_ms // 1000
    period = command.period or current_period(practice, now_s)
    draft = Draft(practice, now_s)
    allowance = draft.touch(period)
    draft.call_no = practice.next_call_no
    first_seq = draft.next_seq if cost else 0
    uncovered = 0
    if command.overage_policy:
        uncovered = cover(draft, allowance, cost, command.overage_policy, _USED)
    else:
        draft.charge(allowance, cost, _USED)
    draft.note_use(allowance, cost)
    at_ms = command.event_at_s * 1000 or now_ms
    call = Call(
        practice.next_call_no, _USAGE, command.key, body_hash(command), SETTLED, BY_CALLER,
        at_ms, at_ms, 0, cost, period.license, period.start_s, (), ended_at_s=now_s,
        first_seq=first_seq, uncovered_nano_usd=uncovered, overage_policy=command.overage_policy,
        usage=command.usage, origin=command.origin,
    )  # fmt: skip
    draft.next_call_no += 1
    return Applied(draft.finish(), call, draft.transfers, Outcome(True, call=call))


def settle(practice: Practice, call: Call | None, command: Settle, now_ms: int) -> Applied:
    """End a call with its real cost, also when that comes late."""
    require_amount(command.cost_nano_usd, 0)
    if call is None:
        raise Refusal("call_not_found")
    usage = merged(call.usage, command.usage)
    if call.status == RESERVED:
        return end_call(practice, call, now_ms, SETTLED, BY_CALLER, command.cost_nano_usd, usage)
    if call.status in (SETTLED, SETTLED_LATE) and call.ended_by == BY_CALLER:
        same_usage = call.is_archived or call.usage == usage
        if call.cost_nano_usd == command.cost_nano_usd and same_usage:
            return _unchanged(practice, call, replayed=True)
        raise Refusal("settled_otherwise")
    if call.status == RELEASED and call.ended_by == BY_CALLER:
        return _unchanged(practice, call)
    return _settle_late(practice, call, command.cost_nano_usd, usage, now_ms // 1000)


def merged(known: Usage, told: Usage) -> Usage:
    """Let what settling tells win over what reserving knew."""
    if NO_USAGE in (known, told):
        return known if told == NO_USAGE else told
    return Usage._make(new or old for old, new in zip(known, told, strict=True))


_CODE_OF_END = {
    BY_CALLER: SETTLE,
    BY_EXCEPTION: int(Code.EXCEPTION_CHARGE),
    BY_EXPIRY: int(Code.EXPIRY_CHARGE),
}


def end_call(
    practice: Practice,
    call: Call,
    now_ms: int,
    status: int,
    ended_by: int,
    cost: int,
    usage: Usage | None = None,
) -> Applied:
    """End an open call: unpin, use `cost`, free the rest."""
    now_s = now_ms // 1000
    draft = Draft(practice, now_s)
    draft.call_no = call.call_no
    code = _CODE_OF_END[ended_by]
    first_seq = draft.next_seq if cost else 0
    missing, uncovered = draft.unpin(call.slices, cost, code), 0
    if cost:
        allowance = draft.allowance_of_call(call)
        if missing:
            uncovered = _charge_more(draft, call, allowance, missing, code)
        draft.note_use(allowance, cost)
    corrigible = cost > 0 and ended_by != BY_CALLER
    ended = call._replace(
        status=status,
        ended_by=ended_by,
        cost_nano_usd=cost,
        slices=call.slices if corrigible else (),
        ended_at_s=now_s,
        first_seq=first_seq,
        usage=call.usage if usage is None else usage,
        uncovered_nano_usd=uncovered,
    )
    return Applied(draft.finish(), ended, draft.transfers, Outcome(True, call=ended))


def _charge_more(draft: Draft, call: Call, allowance: Grant | None, amount: int, code: int) -> int:
    """Charge what no reservation covers; tell what of it a lease leaves to the operator."""
    if not call.overage_policy:
        draft.charge(allowance, amount, code)
        return 0
    if call.overage_policy == _REJECT and code == SETTLE:
        raise Refusal("above_estimate")
    return cover(draft, allowance, amount, call.overage_policy, code)


def _settle_late(practice: Practice, call: Call, cost: int, usage: Usage, now_s: int) -> Applied:
    """Book the difference between the real cost and what the end of the call charged."""
    draft = Draft(practice, now_s)
    draft.call_no = call.call_no
    difference = cost - call.cost_nano_usd
    uncovered = call.uncovered_nano_usd
    if call.overage_policy == _REJECT and cost > call.reserved_nano_usd:
        raise Refusal("above_estimate")
    first_seq = call.first_seq or (draft.next_seq if difference > 0 else 0)
    allowance = draft.allowance_of_call(call)
    if difference > 0:
        uncovered = _charge_more(draft, call, allowance, difference, _LATE)
    elif difference < 0:
        _give_back(draft, call, -difference)
    draft.note_use(allowance, difference)
    late = call._replace(
        status=SETTLED_LATE,
        ended_by=BY_CALLER,
        cost_nano_usd=cost,
        slices=(),
        ended_at_s=now_s,
        first_seq=first_seq,
        usage=usage,
        uncovered_nano_usd=uncovered,
    )
    return Applied(draft.finish(), late, draft.transfers, Outcome(True, call=late))


def _give_back(draft: Draft, call: Call, amount: int) -> None:
    """Return charged credit to its grants, last slice first, naming the transfers it reverses."""
    for index in range(len(call.slices) - 1, -1, -1):
        if amount == 0:
            return
        grant_no, charged = call.slices[index]
        part = min(charged, amount)
        amount -= part
        kind = draft.grants[grant_no].kind
        draft.move(USED, kind, part, grant_no, _LATE, call.first_seq + index)
        draft.free(grant_no, part)


def release(practice: Practice, call: Call | None, command: Release, now_ms: int) -> Applied:
    """End a call without cost; after an exception, as its reservation said."""
    if call is None:
        raise Refusal("call_not_found")
    if call.status != RESERVED:
        return _unchanged(practice, call)
    if command.cause != BY_EXCEPTION:
        return end_call(practice, call, now_ms, RELEASED, BY_CALLER, 0)
    if call.on_exception == ON_KEEP:
        return _unchanged(practice, call)
    if call.on_exception == ON_CHARGE:
        return end_call(practice, call, now_ms, SETTLED, BY_EXCEPTION, call.reserved_nano_usd)
    return end_call(practice, call, now_ms, RELEASED, BY_EXCEPTION, 0)


def extend(practice: Practice, call: Call | None, command: Extend, now_ms: int) -> Applied:
    """Give an open call more time, never less, and never more than 24 h in all."""
    _require_ttl(command.ttl_ms)
    if call is None:
        raise Refusal("call_not_found")
    if call.status != RESERVED or now_ms >= call.due_at_ms:
        raise Refusal("call_over")
    until_ms = now_ms + command.ttl_ms
    if until_ms > call.created_at_ms + MAX_LIFETIME_MS:
        raise Refusal("lifetime_exceeded")
    if until_ms <= call.expires_at_ms:
        return _unchanged(practice, call)
    extended = call._replace(expires_at_ms=until_ms)
    return Applied(practice, extended, [], Outcome(True, call=extended))


def expire(practice: Practice, call: Call | None, command: Expire, now_ms: int) -> Applied:
    """End a call whose time is over, as its reservation said."""
    if call is None:
        raise Refusal("call_not_found")
    if call.status != RESERVED:
        return _unchanged(practice, call)
    if now_ms < call.due_at_ms:
        raise Refusal("not_due")
    cost = call.reserved_nano_usd if call.on_expiry == ON_CHARGE else 0
    return end_call(practice, call, now_ms, EXPIRED, BY_EXPIRY, cost)
