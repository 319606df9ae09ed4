"""Models of what the API answers about automatic charges; see `models`.

Law: nothing is parsed or made with these; a test compares every answer with its model.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from guthaben.web.models import Chf, Model, TopupModel, Usd


class AutoTopupModel(Model):
    """The automatic top-up and its limits."""

    practice_id: str
    enabled: bool
    card_saved: bool
    amount_chf: Chf
    credit_usd: Usd
    trigger_percent: int
    trigger_below_usd: Usd
    cap_chf: Chf
    cooldown_s: int
    spent_this_month_chf: Chf
    paused_reason: str
    largest_chf: Chf = Field(description="The most one charge may be; 0: `amount_chf`.")
    stopped: bool = Field(description="An operator holds automatic charges back.")
    retry_at_s: int | None = Field(description="After a decline: not before this instant.")


class ConsentTextModel(Model):
    """What the customer agrees to; the version goes into what is asked for then."""

    version: str
    language: str
    text: str


class StopReasonModel(Model):
    """Who stopped automatic charges, and why."""

    reason: str
    actor: str
    at_s: int


class ConsentModel(Model):
    """The consent that stands."""

    source: str
    text_version: str
    language: str
    actor: str
    amount_chf: Chf
    largest_chf: Chf
    cap_chf: Chf
    trigger_percent: int
    trigger_below_usd: Usd
    given_at_s: int


class PracticeTopupsModel(Model):
    """One practice's automatic top-up as an operator sees it."""

    practice_id: str
    enabled: bool
    card_saved: bool
    amount_chf: Chf
    largest_chf: Chf
    cap_chf: Chf
    spent_this_month_chf: Chf
    on_decline: Literal["pause", "retry"]
    paused_reason: str
    would: str = Field(description="What it would do now: `charge`, or why not.")
    retry_at_s: int | None
    tries_of_need: int
    failures_in_row: int
    tries_of_card: int
    stop: StopReasonModel | None
    stop_of_all: StopReasonModel | None
    consent: ConsentModel | None


class StopModel(Model):
    """What is in force now; `changed` False: it was before."""

    practice_id: str | None
    stopped: bool
    changed: bool


class StoppedPracticeModel(Model):
    """A practice whose automatic charges an operator holds back."""

    practice_id: str
    stop: StopReasonModel


class OpenAttemptModel(Model):
    """An automatic charge without an outcome, or a failed one not cancelled yet."""

    practice_id: str
    attempt: TopupModel
    open_chf: Chf


class AllTopupsModel(Model):
    """Automatic charges as a whole."""

    stop: StopReasonModel | None
    stopped_practices: list[StoppedPracticeModel]
    open_attempts: list[OpenAttemptModel]
