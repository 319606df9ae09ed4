"""Answers: the immutable values that the Python interface gives back.

Law: amounts are integers of nano-USD; a status is a word. Nothing here can change credit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from guthaben.domain.calls import Call
from guthaben.domain.journal import Account, Code, Transfer
from guthaben.domain.topup import CreditEvent
from guthaben.payments.ids import mask_stripe_reference
from guthaben.services.requests import STATUS_NAMES


@dataclass(frozen=True, slots=True)
class GrantReceipt:
    """What giving or correcting credit did; `grant_no` is 0 where none was made."""

    practice_id: str
    grant_no: int
    replayed: bool


class CallView(NamedTuple):
    """One call as it was when asked; `applied` False: an earlier step had already decided."""

    id: str
    practice_id: str
    key: str
    status: str
    reserved_nano_usd: int
    cost_nano_usd: int
    created_at_s: int
    expires_at_s: int
    ended_at_s: int | None
    model: str
    operation_type: str
    input_tokens: int
    output_tokens: int
    total_tokens: int
    audio_seconds: float
    reference: str
    device_id: str
    replayed: bool = False
    applied: bool = True
    archived: bool = False
    """What it used and where it came from is in a file; `expires_at_s` then says when it began."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of credit: a transfer, in words."""

    seq: int
    at_s: int
    what: str
    source: str
    target: str
    amount_nano_usd: int
    grant_no: int | None
    call_no: int | None
    event_no: int | None
    reverses_seq: int | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A page of changes, newest first; ask for the next page with `before_seq=next_before_seq`."""

    practice_id: str
    entries: tuple[Entry, ...]
    next_before_seq: int | None


@dataclass(frozen=True, slots=True)
class TopupView:
    """One purchase, attempt, refund or adjustment; Stripe's ids are masked."""

    event_no: int
    event_type: str
    status: str
    amount_nano_usd: int
    price_rappen: int | None
    currency: str
    at_s: int
    topup_id: str
    reference: str | None
    session_reference: str | None
    clawed_back_nano_usd: int
    reason: str


def call_view(
    call: Call, call_id: str, practice_id: str, *, replayed: bool = False, applied: bool = True
) -> CallView:
    """Put a call into words."""
    return CallView(
        id=call_id,
        practice_id=practice_id,
        key=call.key,
        status=STATUS_NAMES[call.status],
        reserved_nano_usd=call.reserved_nano_usd,
        cost_nano_usd=call.cost_nano_usd,
        created_at_s=call.created_at_ms // 1000,
        expires_at_s=(call.created_at_ms if call.is_archived else call.expires_at_ms) // 1000,
        ended_at_s=call.ended_at_s or None,
        model=call.usage.model,
        operation_type=call.usage.operation_type,
        input_tokens=call.usage.input_tokens,
        output_tokens=call.usage.output_tokens,
        total_tokens=call.usage.total_tokens,
        audio_seconds=call.usage.audio_us / 1_000_000,
        reference=call.origin.reference,
        device_id=call.origin.device_id,
        replayed=replayed,
        applied=applied,
        archived=call.is_archived,
    )


def entry(transfer: Transfer) -> Entry:
    """Put a transfer into words."""
    return Entry(
        seq=transfer.seq,
        at_s=transfer.at_s,
        what=Code(transfer.code).name.lower(),
        source=Account(transfer.source).name.lower(),
        target=Account(transfer.target).name.lower(),
        amount_nano_usd=transfer.amount_nano_usd,
        grant_no=transfer.grant_no or None,
        call_no=transfer.call_no or None,
        event_no=transfer.event_no or None,
        reverses_seq=transfer.reverses_seq or None,
    )


def topup_view(event: CreditEvent) -> TopupView:
    """Put a credit event into words, with its references masked."""
    return TopupView(
        event_no=event.event_no,
        event_type=event.event_type,
        status=event.status,
        amount_nano_usd=event.amount_nano_usd,
        price_rappen=event.price_minor,
        currency=event.currency,
        at_s=event.event_at_s,
        topup_id=event.topup_id,
        reference=mask_stripe_reference(event.payment_id or None),
        session_reference=mask_stripe_reference(event.session_id or None),
        clawed_back_nano_usd=event.clawed_back_nano_usd + event.bonus_clawed_back_nano_usd,
        reason=event.reason,
    )
