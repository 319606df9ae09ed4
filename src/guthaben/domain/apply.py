"""The one way in: `apply(practice, subject, command, now_ms)` -> what is true afterwards.

Law: pure. No clock, no I/O, no randomness; a refusal returns the practice it was given and an
outcome with a stable reason. The store loads the states, calls this and writes what it returns.
"""

from __future__ import annotations

from typing import assert_never, cast

from guthaben.domain import (
    apply_calls,
    apply_credit,
    apply_leases,
    apply_payments,
    apply_topups,
)
from guthaben.domain.applied import Applied
from guthaben.domain.apply_leases import LeaseSubject
from guthaben.domain.auto_topup import AutoTopup
from guthaben.domain.calls import Call
from guthaben.domain.commands import (
    Adjust,
    ClaimTopup,
    CloseEvent,
    Command,
    ConfirmCancelled,
    CreditCommand,
    Expire,
    ExpireGrants,
    Extend,
    Fulfil,
    GrantCredit,
    KeyRecord,
    LeaseAsk,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    NetPayment,
    OpenEvent,
    RecordUsage,
    Release,
    Reserve,
    SendAttempt,
    SetLicense,
    SetPolicy,
    Settle,
    TakeCredit,
)
from guthaben.domain.draft import Refusal
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent

Subject = Call | CreditEvent | KeyRecord | LeaseSubject | AutoTopup | None
"""What a command speaks of besides the practice: a call, a credit event, an earlier use of its key,
a lease with what is remembered of the key of its step, or the automatic top-up's context."""


_CALL_HANDLERS = {
    Reserve: apply_calls.reserve,
    Settle: apply_calls.settle,
    Release: apply_calls.release,
    Extend: apply_calls.extend,
    Expire: apply_calls.expire,
    RecordUsage: apply_calls.record_usage,
    LeaseCommit: apply_leases.commit,
    LeaseRelease: apply_leases.release,
    LeaseExtend: apply_leases.extend,
    LeaseAsk: apply_leases.ask,
}


def apply(practice: Practice, subject: Subject, command: Command, now_ms: int) -> Applied:
    """Apply one command to one practice at the instant `now_ms` and tell what is true then."""
    try:
        handler = _CALL_HANDLERS.get(type(command))
        if handler is not None:
            return handler(practice, subject, command, now_ms)  # type: ignore[operator,no-any-return]
        return _apply_credit(practice, subject, cast(CreditCommand, command), now_ms // 1000)
    except Refusal as refusal:
        return Applied(practice, None, [], refusal.outcome)


def _apply_credit(
    practice: Practice, subject: Subject, command: CreditCommand, now_s: int
) -> Applied:
    event = subject if isinstance(subject, CreditEvent) else None
    known = subject if isinstance(subject, KeyRecord) else None
    match command:
        case GrantCredit():
            return apply_credit.grant_credit(practice, known, command, now_s)
        case Adjust():
            return apply_credit.adjust(practice, known, command, now_s)
        case ExpireGrants():
            return apply_credit.expire_grants(practice, command, now_s)
        case SetLicense():
            return apply_credit.set_license(practice, command, now_s)
        case SetPolicy():
            return apply_credit.set_policy(practice, command)
        case OpenEvent():
            return apply_payments.open_event(practice, command)
        case Fulfil():
            return apply_payments.fulfil(practice, event, command, now_s)
        case CloseEvent():
            return apply_payments.close_event(practice, event, command)
        case NetPayment():
            return apply_payments.net_payment(practice, event, command, now_s)
        case TakeCredit():
            return apply_payments.take_credit(practice, command, now_s)
        case ClaimTopup() | SendAttempt() | ConfirmCancelled():
            context = subject if isinstance(subject, AutoTopup) else AutoTopup()
            return apply_topups.apply_attempt(practice, context, event, command, now_s)
    assert_never(command)
