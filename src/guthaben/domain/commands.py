"""The commands: the only ways in which credit changes. Each is a value; `apply` gives it meaning.

Law: a command holds everything that decides about it except the clock. Its body (all but the key)
is hashed, so that a key used again with another body is refused.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from guthaben.domain.calls import (
    DEFAULT_TTL_MS,
    NO_ORIGIN,
    NO_USAGE,
    ON_RELEASE,
    Call,
    EndedBy,
    Operation,
    Origin,
    Told,
    Usage,
)
from guthaben.domain.grants import NEVER_S
from guthaben.domain.period import Period
from guthaben.domain.topup import CreditEvent


class Reserve(NamedTuple):
    """Pin credit for one AI call before it is made."""

    key: str
    amount_nano_usd: int
    ttl_ms: int = DEFAULT_TTL_MS
    on_expiry: int = ON_RELEASE
    on_exception: int = ON_RELEASE
    period: Period | None = None
    usage: Usage = NO_USAGE
    origin: Origin = NO_ORIGIN
    grace_ms: int = 0
    overage_policy: int = 0
    """Not 0: a lease, a call under the rules of the Cycles protocol."""
    told: Told | None = None
    is_tentative: bool = False
    """Its refusal is no lack of credit yet: its caller will ask for less, the last time plainly."""


class RecordUsage(NamedTuple):
    """Meter a call after the fact, without a reservation."""

    key: str
    cost_nano_usd: int
    period: Period | None = None
    usage: Usage = NO_USAGE
    origin: Origin = NO_ORIGIN
    event_at_s: int = 0
    """When it happened, if that is not now; 0 means now."""
    overage_policy: int = 0
    told: Told | None = None


class Settle(NamedTuple):
    """End a call with its real cost."""

    call_no: int
    cost_nano_usd: int
    usage: Usage = NO_USAGE


class Release(NamedTuple):
    """End a call without cost, by its caller or because an exception left it."""

    call_no: int
    cause: int = EndedBy.CALLER.value


class Extend(NamedTuple):
    """Give an open call more time, counted from now."""

    call_no: int
    ttl_ms: int


class LeaseCommit(NamedTuple):
    """End a lease with its real cost, as its overage policy says."""

    key: str
    call_no: int
    cost_nano_usd: int
    usage: Usage = NO_USAGE
    told: str = ""
    """Canonical JSON that is kept beside the commit."""


class LeaseRelease(NamedTuple):
    """End a lease without cost."""

    key: str
    call_no: int
    told: str = ""


class LeaseExtend(NamedTuple):
    """Give a lease more time, counted from where it ends now."""

    key: str
    call_no: int
    by_ms: int
    told: str = ""


class LeaseAsk(NamedTuple):
    """Ask whether an amount could be reserved now; changes no credit, remembers the answer."""

    key: str
    operation: int
    """A `StepKind`: `DECIDE` or `DRY_RUN`."""
    amount_nano_usd: int
    told: str = ""
    """Canonical JSON of everything else that was asked, so that another question is noticed."""
    origin: Origin = NO_ORIGIN
    """Whose caps count; no part of the question's identity."""


class Expire(NamedTuple):
    """End a call whose time is over, as its reservation said."""

    call_no: int


class ExpireGrants(NamedTuple):
    """Book the free rest of expired grants; `next_call_due_ms` is the earliest due open call."""

    next_call_due_ms: int


class GrantCredit(NamedTuple):
    """Give a lot of credit that no payment of ours stands behind."""

    key: str
    kind: int
    amount_nano_usd: int
    expires_at_s: int = NEVER_S
    period: Period | None = None


class Adjust(NamedTuple):
    """Correct a balance by hand, up or down; the operator's reason is stored beside it."""

    key: str
    amount_nano_usd: int
    kind: int


class SetLicense(NamedTuple):
    """Tell the practice's licence: its period and allowance. Naturally idempotent."""

    license: str
    active: bool
    period_start_s: int
    period_end_s: int
    allowance_nano_usd: int
    ends_at_s: int = NEVER_S
    """From then on it is over, whether or not anybody tells; it does not roll on beyond."""


class SetPolicy(NamedTuple):
    """Change how the practice is treated; `None` leaves a setting. Naturally idempotent."""

    status: int | None = None
    overrun: int | None = None
    debt_blocks_allowance: bool | None = None
    time_zone: str | None = None
    overdraft_limit_nano_usd: int | None = None
    auto_topup_armed: bool | None = None
    over_limit: bool | None = None
    """False lets leases begin again although an earlier one used more than there was."""
    mode: int | None = None
    """A `Mode`: which of the cards saved at the provider are its own."""


class OpenEvent(NamedTuple):
    """Record that money is to come or has gone: the first line of every purchase and attempt."""

    event: CreditEvent


class Fulfil(NamedTuple):
    """Turn a succeeded payment into a grant, once for ever."""

    event_no: int
    payment_id: str = ""
    session_id: str = ""
    captured_rappen: int = 0
    livemode: bool | None = None


class CloseEvent(NamedTuple):
    """Move a purchase or attempt that gave no credit to another status."""

    event_no: int
    status: str
    event_type: str = ""
    payment_id: str = ""
    session_id: str = ""
    reason: str = ""
    verdict: str = ""
    open_minor: int = 0
    """What the payment may still take at the provider, until it is cancelled there."""


class NetPayment(NamedTuple):
    """Bring the credit of one payment in line with the money that is left of it."""

    event_no: int
    net_rappen: int
    event_type: str = "refund"


class TakeCredit(NamedTuple):
    """Take back credit for a refund that names no payment of ours (the four modules' raw rows)."""

    event: CreditEvent


class ClaimTopup(NamedTuple):
    """Claim one automatic charge of the saved card: decide and record the attempt in one step."""

    topup_id: str
    """A fresh random id; the charge's idempotency key is made of it."""
    license: str = ""
    shortfall: bool = False
    """True when a call was refused for lack of credit."""
    missing_nano_usd: int = 0
    """How much credit the refused call lacked, debt included."""


class SendAttempt(NamedTuple):
    """Mark a claimed attempt as leaving us now: once, so that two never send it first."""

    event_no: int
    livemode: bool


class ConfirmCancelled(NamedTuple):
    """Note that the payment of a failed attempt can't take money any more."""

    event_no: int


LeaseCommand = LeaseCommit | LeaseRelease | LeaseExtend | LeaseAsk
CallCommand = Reserve | RecordUsage | Settle | Release | Extend | Expire | LeaseCommand
KeyedCommand = Reserve | RecordUsage | GrantCredit | Adjust | LeaseCommand
CreditCommand = (
    ExpireGrants
    | GrantCredit
    | Adjust
    | SetLicense
    | SetPolicy
    | OpenEvent
    | Fulfil
    | CloseEvent
    | NetPayment
    | TakeCredit
    | ClaimTopup
    | SendAttempt
    | ConfirmCancelled
)
Command = CallCommand | CreditCommand


class KeyRecord(NamedTuple):
    """What the store remembers of a money command's key, for ever."""

    body_hash: int
    grant_no: int
    event_no: int


class StepKind(IntEnum):
    """Which request of the Cycles protocol a key belongs to; the numbers are stored."""

    DRY_RUN = 1
    COMMIT = 2
    RELEASE = 3
    EXTEND = 4
    DECIDE = 5


OPERATION_OF: Final = {Reserve: int(Operation.RESERVE), RecordUsage: int(Operation.USAGE)}
"""Under which operation the key of a command that makes a call is kept."""
STEP_OF: Final = {
    LeaseCommit: int(StepKind.COMMIT),
    LeaseRelease: int(StepKind.RELEASE),
    LeaseExtend: int(StepKind.EXTEND),
}
"""Under which kind of step the key of a command on a lease is kept."""


class Step(NamedTuple):
    """What is remembered of one accepted step of a lease, so that its key repeats its answer."""

    kind: int
    key: str
    body_hash: int
    call_no: int
    at_ms: int
    number: int = 0
    """Of an extension: the expiry it gave."""
    told: str = ""
    """Of a commit: what came with it. Of a question: the reason of its refusal, or nothing."""


class Outcome(NamedTuple):
    """What a command did. `ok` False is a refusal: nothing changed, `reason` says why.

    `applied` False with `ok` True: an earlier command had already decided, and this tells how.
    """

    ok: bool
    reason: str = ""
    applied: bool = True
    replayed: bool = False
    available_nano_usd: int = 0
    call: Call | None = None
    grant_no: int = 0
    event: CreditEvent | None = None
    amount_nano_usd: int = 0
    step: Step | None = None


def body_hash(command: KeyedCommand) -> int:
    """Hash a command without key and clock to a signed 64-bit integer.

    Trailing fields that hold their default are left out, so that a field added at the end later
    does not change the hash of what was stored before. Who asks is no part of it: a lost answer is
    asked for again, though the API key was exchanged for a newer one in between. Nor is whether a
    refusal would be the last.
    """
    kind = type(command)
    defaults = _defaults(kind)
    needed = len(command) - len(defaults)
    # Most callers leave all that they may leave: asked at once, and not field by field.
    said = command[1:needed] if command[needed:] == defaults else _said(command)
    digest = sha256(repr((kind.__name__, *said)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _said(command: KeyedCommand) -> tuple[object, ...]:
    """Give what a command says besides its key and what is no part of its identity."""
    if type(command) is Reserve and command.is_tentative:
        command = command._replace(is_tentative=False)
    if isinstance(command, Reserve | RecordUsage | LeaseAsk) and command.origin.api_key_id:
        command = command._replace(origin=command.origin._replace(api_key_id=""))
    end = len(command)
    for default in reversed(_defaults(type(command))):
        if command[end - 1] != default:
            break
        end -= 1
    return command[1:end]


def _defaults(kind: type[KeyedCommand]) -> tuple[object, ...]:
    """List the defaults of a kind's last fields, in their order."""
    return tuple(kind._field_defaults.values())
