"""What the commands on credit do: grants, adjustments, expiry of grants, licences, policies.

Law: there is never a second allowance for one period. A refusal is raised and changes nothing.
Purchases and refunds are in `apply_payments`. See docs/rules.md.
"""

from __future__ import annotations

from guthaben.domain.applied import Applied
from guthaben.domain.commands import (
    Adjust,
    ExpireGrants,
    GrantCredit,
    KeyRecord,
    Outcome,
    SetLicense,
    SetPolicy,
    body_hash,
)
from guthaben.domain.draft import Draft, Refusal, require_amount
from guthaben.domain.grants import (
    ALLOWANCE,
    NEVER_S,
    PAID,
    PROMOTIONAL,
    Grant,
    take,
)
from guthaben.domain.journal import Account, Code
from guthaben.domain.money import MAX_COMMAND_NANO_USD
from guthaben.domain.period import Period
from guthaben.domain.practice import (
    CLOSED,
    Practice,
    allowance_of,
    current_period,
)
from guthaben.domain.topup import (
    ADJUSTMENT,
    SUCCEEDED,
    CreditEvent,
)

CLAWED_BACK, ADJUSTED = int(Account.CLAWED_BACK), int(Account.ADJUSTED)


def _replay(practice: Practice, known: KeyRecord, command: GrantCredit | Adjust) -> Applied:
    if known.body_hash != body_hash(command):
        raise Refusal("idempotency_conflict")
    outcome = Outcome(True, "", False, True, grant_no=known.grant_no)
    return Applied(practice, None, [], outcome)


def finished(draft: Draft, outcome: Outcome, event: CreditEvent | None = None) -> Applied:
    """Close a draft that changed nothing but credit."""
    return Applied(draft.finish(), event, draft.transfers, outcome)


def grant_credit(
    practice: Practice, known: KeyRecord | None, command: GrantCredit, now_s: int
) -> Applied:
    """Give a lot of credit."""
    if known is not None:
        return _replay(practice, known, command)
    require_amount(command.amount_nano_usd, 1)
    if command.expires_at_s <= now_s:
        raise Refusal("already_expired")
    if practice.status == CLOSED:
        raise Refusal("practice_closed")
    draft = Draft(practice, now_s)
    period = None
    if command.kind == ALLOWANCE:
        period = command.period or current_period(practice, now_s)
        if allowance_of(practice.grants, period) is not None:
            raise Refusal("allowance_exists")
        draft.forget_former(period)
    expires_at_s = NEVER_S if period else command.expires_at_s
    grant = draft.add_grant(command.kind, command.amount_nano_usd, expires_at_s, Code.GRANT, period)
    return finished(draft, Outcome(True, grant_no=grant.grant_no))


def adjust(practice: Practice, known: KeyRecord | None, command: Adjust, now_s: int) -> Applied:
    """Correct a balance by hand; the adjustment is a credit event of its own."""
    if known is not None:
        return _replay(practice, known, command)
    amount = command.amount_nano_usd
    require_amount(amount, -MAX_COMMAND_NANO_USD)
    if amount == 0 or (amount > 0 and command.kind not in (PROMOTIONAL, PAID)):
        raise Refusal("invalid_amount")
    if practice.status == CLOSED:
        raise Refusal("practice_closed")
    draft = Draft(practice, now_s)
    draft.event_no = practice.next_event_no
    grant_no = 0
    if amount > 0:
        grant = draft.add_grant(command.kind, amount, NEVER_S, Code.ADJUST, None, Account.ADJUSTED)
        grant_no = grant.grant_no
    else:
        take_back(draft, draft.bought(), -amount, ADJUSTED, Code.ADJUST)
    event = CreditEvent(
        practice.next_event_no, ADJUSTMENT, SUCCEEDED, amount, event_at_s=now_s,
        recorded_at_s=now_s, grant_no=grant_no, provider="",
    )  # fmt: skip
    after = draft.finish(next_event_no=practice.next_event_no + 1)
    outcome = Outcome(True, grant_no=grant_no, event=event)
    return Applied(after, None, draft.transfers, outcome, event)


def take_back(draft: Draft, usable: list[Grant], amount: int, target: int, code: int) -> None:
    """Take free credit; what is missing becomes debt. Pinned credit is never touched."""
    slices, missing = take(usable, amount)
    draft.spend(slices, target, code)
    if missing:
        draft.owe(missing, target, code)


def expire_grants(practice: Practice, command: ExpireGrants, now_s: int) -> Applied:
    """Book the free rest of every expired promotional or paid grant."""
    draft = Draft(practice, now_s)
    next_due_ms = command.next_call_due_ms
    for grant in practice.grants.values():
        if grant.kind == ALLOWANCE or grant.free_nano_usd == 0:
            continue
        if grant.expires_at_s > now_s:
            next_due_ms = min(next_due_ms, grant.expires_at_s * 1000)
            continue
        expired = grant.free_nano_usd
        draft.grants[grant.grant_no] = grant._replace(free_nano_usd=0)
        draft.move(grant.kind, Account.EXPIRED, expired, grant.grant_no, Code.GRANT_EXPIRED)
    draft.next_due_ms = next_due_ms
    return finished(draft, Outcome(True, applied=bool(draft.transfers)))


def set_license(practice: Practice, command: SetLicense, now_s: int) -> Applied:
    """Tell the licence; an upgrade grants the difference at once, a downgrade acts next period."""
    if command.period_end_s <= command.period_start_s:
        raise Refusal("invalid_period")
    if type(command.allowance_nano_usd) is not int or not (
        0 <= command.allowance_nano_usd <= MAX_COMMAND_NANO_USD
    ):
        raise Refusal("invalid_amount")
    draft = Draft(practice, now_s)
    if command.active:
        _align_allowance(draft, command)
    after = draft.finish(
        license=command.license,
        license_active=command.active,
        period_start_s=command.period_start_s,
        period_end_s=command.period_end_s,
        allowance_nano_usd=command.allowance_nano_usd,
        license_ends_at_s=command.ends_at_s,
    )
    outcome = Outcome(True, applied=after != practice)
    return Applied(after, None, draft.transfers, outcome)


def _align_allowance(draft: Draft, command: SetLicense) -> None:
    """Bring the allowance already granted for this period, or provisionally, in line."""
    told = Period(command.license, command.period_start_s, command.period_end_s)
    grant = allowance_of(draft.grants, told)
    if grant is None:
        return
    grant = draft.rebound(grant, told, provisional=False)
    more = command.allowance_nano_usd - grant.granted_nano_usd
    if more > 0:
        draft.move(Account.INCLUDED, ALLOWANCE, more, grant.grant_no, Code.PLAN_CHANGE)
        draft.over_limit = False
    more = max(more, 0)
    draft.grants[grant.grant_no] = grant._replace(
        granted_nano_usd=grant.granted_nano_usd + more,
        free_nano_usd=grant.free_nano_usd + more,
    )


def set_policy(practice: Practice, command: SetPolicy) -> Applied:
    """Change how the practice is treated."""
    changes = {name: value for name, value in command._asdict().items() if value is not None}
    after = practice._replace(**changes)
    return Applied(after, None, [], Outcome(True, applied=after != practice))
