"""The automatic top-up's settings, and the consent without which it is never on.

Law: only an explicit consent switches it on, and covers amount, cap, trigger and the largest single
charge; raising one of them asks again, lowering does not. Switching off needs nothing. Runs inside
the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guthaben.domain.auto_topup import RETRY, covers
from guthaben.domain.money import nano_usd_for_rappen
from guthaben.errors import InvalidInput, Refused
from guthaben.services import attempt_notices
from guthaben.services.checks import MAX_TEXT, checked_text
from guthaben.services.consent_texts import LANGUAGES
from guthaben.store import settings, topups
from guthaben.store.settings import ConsentRow, TopupSettingsRow
from guthaben.store.workspace import Workspace

LEAST_RAPPEN = 1_000
MOST_RAPPEN = 500_000
MOST_CAP_RAPPEN = 5_000_000


@dataclass(frozen=True, slots=True)
class AutoTopupView:
    """The automatic top-up as its customer may see it; no id of card or customer."""

    practice_id: str
    enabled: bool
    card_saved: bool
    amount_rappen: int
    credit_nano_usd: int
    trigger_percent: int
    trigger_below_nano_usd: int
    cap_rappen: int
    cooldown_s: int
    spent_this_month_rappen: int
    """Also what failed charges may still take until the provider has cancelled them."""
    paused_reason: str
    largest_rappen: int = 0
    stopped: bool = False
    """An operator holds automatic charges back, here or everywhere."""
    retry_at_s: int = 0


@dataclass(frozen=True, slots=True)
class AutoTopupChange:
    """What a customer asks for; switching on or raising an amount needs the consent fields.

    `largest_rappen` above the amount lets one charge close a whole shortfall up to that size.
    """

    enabled: bool
    amount_rappen: int = 3_000
    trigger_percent: int = 5
    trigger_below_nano_usd: int = 0
    cap_rappen: int = 30_000
    consent_text_version: str = ""
    language: str = "de"
    actor: str = ""
    largest_rappen: int = 0


def settings_of(space: Workspace, practice_id: str) -> tuple[TopupSettingsRow, bool]:
    """Read the settings, or the defaults; tell whether any are stored."""
    practice = space.practice(practice_id)
    row = settings.load_settings(space.cursor, practice.practice_no, practice.mode)
    return row or TopupSettingsRow(), row is not None


def view(space: Workspace, practice_id: str) -> AutoTopupView:
    """Tell the settings as their customer may see them, and what the month has spent."""
    row, _stored = settings_of(space, practice_id)
    context = space.claim_context(practice_id)
    return AutoTopupView(
        practice_id=practice_id,
        enabled=row.enabled,
        card_saved=bool(row.customer_id and row.payment_method_id),
        amount_rappen=row.amount_rappen,
        credit_nano_usd=row.credit_nano_usd,
        trigger_percent=row.trigger_percent,
        trigger_below_nano_usd=row.trigger_below_nano_usd,
        cap_rappen=row.cap_rappen,
        cooldown_s=row.cooldown_s,
        spent_this_month_rappen=context.spent_rappen,
        paused_reason=row.paused_reason,
        largest_rappen=row.largest_rappen,
        stopped=context.stopped,
        retry_at_s=context.retry_at_s if context.retry_at_s > space.now_s else 0,
    )


def check(change: AutoTopupChange) -> None:
    """Raise `InvalidInput` for a change that makes no sense, naming the field."""
    numbers: dict[str, tuple[Any, int, int]] = {
        "amount_rappen": (change.amount_rappen, LEAST_RAPPEN, MOST_RAPPEN),
        "cap_rappen": (change.cap_rappen, LEAST_RAPPEN, MOST_CAP_RAPPEN),
        "trigger_percent": (change.trigger_percent, 1, 100),
        "trigger_below_nano_usd": (change.trigger_below_nano_usd, 0, 10**15),
        "largest_rappen": (change.largest_rappen, 0, MOST_RAPPEN),
    }
    for name, (value, least, most) in numbers.items():
        if type(value) is not int or not least <= value <= most:
            raise InvalidInput(f"{name} must be an integer from {least} to {most}", field=name)
    if change.cap_rappen < change.amount_rappen:
        raise InvalidInput("the monthly cap must allow at least one top-up", field="cap_rappen")
    if change.largest_rappen and not (
        change.amount_rappen <= change.largest_rappen <= change.cap_rappen
    ):
        raise InvalidInput(
            "the largest charge must lie between the amount and the monthly cap, or be 0",
            field="largest_rappen",
        )
    if change.language not in LANGUAGES:
        raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
    if type(change.enabled) is not bool:
        raise InvalidInput("enabled is true or false", field="enabled")
    for name in ("consent_text_version", "actor"):
        checked_text(name, getattr(change, name), MAX_TEXT)


def change_settings(space: Workspace, practice_id: str, change: AutoTopupChange) -> AutoTopupView:
    """Store a change with the consent it needs; refuses `no_payment_method`, `consent_required`."""
    practice_no = space.practice_no(practice_id)
    space.flush()
    row, _stored = settings_of(space, practice_id)
    if change.enabled:
        if not (row.customer_id and row.payment_method_id):
            raise Refused("Save a card first.", reason="no_payment_method")
        _consent(space, practice_no, row, change)
    row = row._replace(
        enabled=change.enabled,
        amount_rappen=change.amount_rappen,
        credit_nano_usd=nano_usd_for_rappen(change.amount_rappen),
        trigger_percent=change.trigger_percent,
        trigger_below_nano_usd=change.trigger_below_nano_usd,
        cap_rappen=change.cap_rappen,
        paused_reason="" if change.enabled else row.paused_reason,
        largest_rappen=change.largest_rappen,
        on_decline=RETRY,
    )
    mode = space.practice(practice_id).mode
    settings.save_settings(space.cursor, practice_no, mode, row, space.now_s)
    action = "auto_topup_on" if change.enabled else settings.SWITCHED_OFF
    detail = f"amount {row.amount_rappen}, cap {row.cap_rappen}, trigger {row.trigger_percent} %"
    audit_no = settings.audit(space.cursor, practice_no, action, change.actor, detail, space.now_s)
    attempt_notices.consent_changed(space, practice_id, row, audit_no)
    return view(space, practice_id)


def _asks_more(row: TopupSettingsRow, change: AutoTopupChange) -> bool:
    """Tell whether a change may lead to more or earlier charges than the settings in force."""
    return (
        change.amount_rappen > row.amount_rappen
        or change.cap_rappen > row.cap_rappen
        or change.trigger_percent > row.trigger_percent
        or change.trigger_below_nano_usd > row.trigger_below_nano_usd
        or change.largest_rappen > row.largest_rappen
    )


def _consent(
    space: Workspace, practice_no: int, row: TopupSettingsRow, change: AutoTopupChange
) -> None:
    """Record the consent given with this change, or find one that covers it."""
    if change.consent_text_version:
        consent = ConsentRow(
            "portal", change.consent_text_version, change.language, change.actor,
            change.amount_rappen, change.trigger_percent, change.trigger_below_nano_usd,
            change.cap_rappen, space.now_s, change.largest_rappen,
        )  # fmt: skip
        settings.revoke_consents(space.cursor, practice_no, space.now_s)
        settings.add_consent(space.cursor, practice_no, consent)
        return
    known = topups.standing_consent(space.cursor, practice_no)
    if (
        not row.enabled
        or _asks_more(row, change)
        or not covers(known, change.amount_rappen, change.cap_rappen, change.largest_rappen)
    ):
        raise Refused(
            "The customer must agree to the text, the amount and the monthly cap.",
            reason="consent_required",
        )
