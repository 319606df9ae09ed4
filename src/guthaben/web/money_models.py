"""Models of what the routes about money that came in answer; for the description only.

Law: as in `models`: they describe, and neither read nor make an answer.
"""

from __future__ import annotations

from typing import Literal

from guthaben.web.models import Model


class LetterModel(Model):
    """One event of the provider's, as it was received."""

    event_id: str
    live: bool
    type: str
    status: Literal["new", "done", "ignored", "quarantined", "dead"]
    reason: str
    attempts: int
    received_at_s: int
    next_try_at_s: int | None
    done_at_s: int | None


class NoteModel(Model):
    """What an operator did; who and why are null once they were erased."""

    action: str
    at_s: int
    author: str | None
    reason: str | None


class LetterNotesModel(LetterModel):
    """One event and what operators did about it."""

    notes: list[NoteModel]


class LettersModel(Model):
    """A page of events."""

    events: list[LetterModel]
    next_after: str | None


class CaseModel(Model):
    """A payment that is held back; practice and event are null where nobody knows whose it is."""

    case_no: int
    status: Literal["open", "credited", "refunded", "dismissed"]
    reason: str
    practice_id: str | None
    event_no: int | None
    payment: str | None
    session: str | None
    live: bool | None
    amount: str | None
    currency: str
    opened_at_s: int
    resolved_at_s: int | None


class CaseNotesModel(CaseModel):
    """One case and what was done about it."""

    notes: list[NoteModel]


class CasesModel(Model):
    """A page of cases."""

    cases: list[CaseModel]
    next_after: int | None


class QuoteModel(Model):
    """What of a payment may go back: all that is left, and the part whose credit is unspent."""

    practice_id: str
    event_no: int
    payment: str | None
    captured_chf: str
    left_chf: str
    waiting_chf: str
    refundable_chf: str
    unspent_chf: str


class RefundModel(Model):
    """A refund that was asked for; `unknown`: its answer was lost and is being found out."""

    refund_id: str
    practice_id: str | None
    payment: str | None
    amount_chf: str
    status: Literal["pending", "unknown", "sent", "succeeded", "failed", "canceled"]
    reason: str
    replayed: bool
