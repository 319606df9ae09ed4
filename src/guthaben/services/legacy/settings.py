"""The old settings of the automatic top-up: stored as given, switched on by consent only.

Law: the host's own save and the finished set-up record the customer's consent; the customer's own
switch must name the text and the amounts, or rest on a consent that still covers them. One set-up
counts once: told again, or told late, it switches nothing on that was switched off since it began.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from guthaben.domain import auto_topup
from guthaben.domain.auto_topup import Consent
from guthaben.domain.money import float_from_nano_usd, float_from_rappen, nano_usd_for_rappen
from guthaben.errors import InvalidInput
from guthaben.payments.facts import checkout_facts, setup_facts
from guthaben.services.cards import CARD_SAVED, SETUP_COMPLETE, is_older
from guthaben.services.installation import made_elsewhere
from guthaben.services.legacy import ledger as legacy_ledger
from guthaben.services.legacy.payments import Mode
from guthaben.services.topups import PURPOSE_SETUP
from guthaben.store import settings, topups
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.old_rows import whole_percent
from guthaben.store.settings import ConsentRow, TopupSettingsRow
from guthaben.store.workspace import Workspace

__all__ = [
    "Change",
    "Changed",
    "SetUp",
    "TopupSettingsRow",
    "change",
    "checkout_set_up",
    "covers",
    "intent_set_up",
    "load",
    "save",
    "standing",
    "status",
    "whole_percent",
]

HOST, SETUP, PORTAL = "host", "setup_checkout", "portal"
LEAST_RAPPEN = 50
"""Stripe charges no less."""


class Change(NamedTuple):
    """What a customer asks for; without a text version, what was agreed to before must cover it."""

    enabled: bool
    amount_rappen: int | None = None
    cap_rappen: int | None = None
    trigger_percent: int | None = None
    text_version: str = ""
    language: str = "de"
    actor: str = ""


_ERRORS = {
    "AUTO_TOPUP_NO_PAYMENT_METHOD": "Bitte hinterlegen Sie zuerst eine Zahlungsmethode.",
    "AUTO_TOPUP_INVALID_AMOUNT": "Das Monatslimit muss mindestens eine Aufladung erlauben.",
    "AUTO_TOPUP_CONSENT_REQUIRED": "Bitte bestätigen Sie die Bedingungen, den Betrag und das "
    "Monatslimit der automatischen Aufladung.",
}


class Changed(NamedTuple):
    """The settings afterwards, or why nothing was changed."""

    error: str
    row: TopupSettingsRow

    def answer(self, space: Workspace, practice_id: str) -> dict[str, Any]:
        """Say it in the old modules' words; what the customer reads is German."""
        if not self.error:
            return status(space, practice_id)
        return {
            "ok": False,
            "error_code": self.error,
            "message_user": _ERRORS[self.error],
            "auto_topup_enabled": self.row.enabled,
        }


class SetUp(NamedTuple):
    """What a set-up event came to."""

    handled: bool
    reason: str
    practice_id: str = ""
    enabled: bool = False
    duplicate: bool = False

    def answer(self) -> dict[str, Any]:
        """Say it in the old modules' words."""
        return {
            "ok": True,
            "handled": self.handled,
            "duplicate": self.duplicate,
            "auto_topup_enabled": self.enabled,
            "reason": self.reason or None,
            "practice_id": self.practice_id or None,
        }


class _Told(NamedTuple):
    """A set-up event's facts."""

    reference: str
    customer_id: str | None
    payment_method_id: str | None
    complete: bool
    livemode: bool | None
    began_at_s: int | None


def load(space: Workspace, practice_id: str) -> TopupSettingsRow:
    """Read a practice's settings, or the defaults."""
    practice = space.practice(practice_id)
    row = settings.load_settings(space.cursor, practice.practice_no, practice.mode)
    return row or TopupSettingsRow()


def save(space: Workspace, practice_id: str, given: TopupSettingsRow) -> None:
    """Store settings exactly as given; switched on, they are the consent the host vouches for."""
    before = load(space, practice_id)
    row = given._replace(
        trigger_below_nano_usd=before.trigger_below_nano_usd, cooldown_s=before.cooldown_s
    )
    is_off = before.enabled and not row.enabled
    _store(space, practice_id, row, settings.SWITCHED_OFF if is_off else "saved", HOST)
    if row.enabled:
        _agree(space, practice_id, row, HOST)


def change(space: Workspace, practice_id: str, asked: Change) -> Changed:
    """Switch the automatic top-up on or off for its customer; the saved card stays as it is."""
    row = load(space, practice_id)
    if not asked.enabled:
        off = row._replace(enabled=False)
        # Also where it is off already: a set-up that is still to be told must hear of it.
        _store(space, practice_id, off, settings.SWITCHED_OFF, asked.actor)
        return Changed("", off)
    if not (row.customer_id and row.payment_method_id):
        return Changed("AUTO_TOPUP_NO_PAYMENT_METHOD", row)
    wanted = _wanted(row, asked)
    if wanted.amount_rappen < LEAST_RAPPEN or wanted.cap_rappen < wanted.amount_rappen:
        return Changed("AUTO_TOPUP_INVALID_AMOUNT", row)
    if asked.text_version:
        if asked.amount_rappen is None or asked.cap_rappen is None:
            return Changed("AUTO_TOPUP_CONSENT_REQUIRED", row)
        words = (asked.text_version, asked.language, asked.actor)
        _agree(space, practice_id, wanted, PORTAL, *words)
    elif not covers(standing(space, practice_id), wanted):
        return Changed("AUTO_TOPUP_CONSENT_REQUIRED", row)
    _store(space, practice_id, wanted, "auto_topup_on", asked.actor)
    return Changed("", wanted)


def _wanted(row: TopupSettingsRow, asked: Change) -> TopupSettingsRow:
    amount = row.amount_rappen if asked.amount_rappen is None else asked.amount_rappen
    credit = row.credit_nano_usd
    if amount != row.amount_rappen:
        credit = nano_usd_for_rappen(amount)
    return row._replace(
        enabled=True,
        amount_rappen=amount,
        credit_nano_usd=credit,
        cap_rappen=row.cap_rappen if asked.cap_rappen is None else asked.cap_rappen,
        trigger_percent=(
            row.trigger_percent if asked.trigger_percent is None else asked.trigger_percent
        ),
        paused_reason="",
    )


def status(space: Workspace, practice_id: str) -> dict[str, Any]:
    """Say the settings as their customer may see them: no id of card or customer."""
    row = load(space, practice_id)
    spent = legacy_ledger.spent_this_month(space.cursor, practice_id, space.now_s)
    return {
        "ok": True,
        "auto_topup_enabled": row.enabled,
        "payment_method_configured": bool(row.customer_id and row.payment_method_id),
        "topup_amount_chf": float_from_rappen(row.amount_rappen),
        "internal_credit_usd": float_from_nano_usd(row.credit_nano_usd),
        "trigger_below_percent": row.trigger_percent,
        "monthly_limit_chf": float_from_rappen(row.cap_rappen),
        "spent_this_month_chf": float_from_rappen(spent),
        "paused_reason": row.paused_reason or None,
    }


# ---------------------------------------------------------------- a finished set-up


def checkout_set_up(space: Workspace, session: object, expected: Mode) -> SetUp:
    """Keep what a set-up page saved; with card and customer it switches the top-up on."""
    try:
        facts = checkout_facts(session)
    except InvalidInput:
        return SetUp(False, "no_session_id")
    told = _Told(
        facts.setup_id or facts.session_id,
        facts.customer_id,
        facts.setup_payment_method_id,
        facts.status in (None, "complete"),
        facts.livemode,
        facts.created_at_s,
    )
    return _set_up(space, dict(facts.metadata), told, expected)


def intent_set_up(space: Workspace, setup_intent: object, expected: Mode) -> SetUp:
    """Keep the card of a set-up that succeeded; with its customer it switches the top-up on."""
    try:
        facts = setup_facts(setup_intent)
    except InvalidInput:
        return SetUp(False, "no_setup_id")
    told = _Told(
        facts.setup_id,
        facts.customer_id,
        facts.payment_method_id,
        facts.status in (None, "succeeded"),
        facts.livemode,
        facts.created_at_s,
    )
    return _set_up(space, dict(facts.metadata), told, expected)


def _set_up(space: Workspace, metadata: dict[str, str], told: _Told, expected: Mode) -> SetUp:
    practice_id = metadata.get("practice_id", "")
    if metadata.get("aza_purpose") != PURPOSE_SETUP or not 1 <= len(practice_id) <= 200:
        return SetUp(False, "not_ours")
    if made_elsewhere(metadata):  # its practices may be called like ours
        return SetUp(False, "other_installation")
    row = load(space, practice_id)
    if told.livemode is not None and expected() not in (None, told.livemode):
        settings.raise_alarm(
            space.cursor, "setup_livemode_mismatch", practice_id, space.now_s,
            space.practice(practice_id).practice_no,
        )  # fmt: skip
        return SetUp(True, "livemode_mismatch", practice_id, row.enabled)
    if not told.complete:
        return SetUp(True, "setup_not_complete", practice_id, row.enabled)
    practice_no = space.practice_no(practice_id)
    if legacy_rows.has_consent(space.cursor, practice_no, SETUP, told.reference):
        return SetUp(True, "duplicate", practice_id, row.enabled, True)
    if _tells_nothing_new(row, told):
        return SetUp(True, "card_awaited", practice_id, row.enabled)
    merged = _merged(row, told)
    other = told.payment_method_id != row.payment_method_id
    if other and is_older(space, practice_no, told.began_at_s):
        return SetUp(True, "older_card", practice_id, row.enabled)
    if _is_off_since(space, practice_no, row, told):
        _store(space, practice_id, merged, CARD_SAVED, SETUP, given_at_s=told.began_at_s)
        return SetUp(True, "switched_off_since", practice_id)
    if not (merged.customer_id and merged.payment_method_id):
        _store(space, practice_id, merged._replace(enabled=False), "setup_incomplete", SETUP)
        return SetUp(True, "AUTO_TOPUP_SETUP_INCOMPLETE", practice_id)
    merged = merged._replace(enabled=True, paused_reason="")
    _store(space, practice_id, merged, SETUP_COMPLETE, SETUP, given_at_s=told.began_at_s)
    _agree(space, practice_id, merged, SETUP, SETUP, actor=told.reference)
    return SetUp(True, "", practice_id, True)


def _tells_nothing_new(row: TopupSettingsRow, told: _Told) -> bool:
    """Tell whether this is a page that names no card, where its customer has one.

    The set-up of that page names the new card: counted now, it would be taken for told again.
    """
    has_card = bool(row.customer_id and row.payment_method_id)
    same = told.customer_id in (None, row.customer_id)
    return told.payment_method_id is None and has_card and same


def _is_off_since(space: Workspace, practice_no: int, row: TopupSettingsRow, told: _Told) -> bool:
    """Tell whether the top-up was switched off after this set-up began, and is off still.

    A set-up that doesn't say when it began is taken for that of the last page that named none.
    """
    if row.enabled:
        return False
    off = settings.last_audit(space.cursor, practice_no, settings.SWITCHED_OFF)
    if off is None:
        return False
    if told.began_at_s is not None:
        return off.at_s >= told.began_at_s
    last_page = legacy_rows.last_consent_by(space.cursor, practice_no, SETUP)
    return last_page.startswith("cs_")


def _merged(row: TopupSettingsRow, told: _Told) -> TopupSettingsRow:
    """Add the half that is told to the half that is known; another customer has other cards."""
    same = told.customer_id is None or row.customer_id in (None, told.customer_id)
    known = row.payment_method_id if same else None
    return row._replace(
        customer_id=told.customer_id or row.customer_id,
        payment_method_id=told.payment_method_id or known,
    )


# ---------------------------------------------------------------- rows


def _store(
    space: Workspace,
    practice_id: str,
    row: TopupSettingsRow,
    action: str,
    actor: str,
    given_at_s: int | None = None,
) -> None:
    number = space.practice_no(practice_id)
    mode = space.practice(practice_id).mode
    settings.save_settings(space.cursor, number, mode, row, space.now_s)
    detail = json.dumps(
        {
            "enabled": row.enabled,
            "amount_rappen": row.amount_rappen,
            "cap_rappen": row.cap_rappen,
            "trigger_percent": row.trigger_percent,
            "card": bool(row.payment_method_id),
            "given_at_s": given_at_s,
        }
    )
    settings.audit(space.cursor, number, action, actor, detail, space.now_s)


def _agree(
    space: Workspace,
    practice_id: str,
    row: TopupSettingsRow,
    source: str,
    text_version: str = "",
    language: str = "",
    actor: str = "",
) -> None:
    """Record a consent to exactly these settings, unless it is the one that stands."""
    consent = ConsentRow(
        source, text_version, language, actor, row.amount_rappen, row.trigger_percent,
        row.trigger_below_nano_usd, row.cap_rappen, space.now_s, row.largest_rappen,
    )  # fmt: skip
    number = space.practice_no(practice_id)
    known = settings.standing_consent_row(space.cursor, number)
    if known is None or known._replace(given_at_s=space.now_s) != consent:
        settings.add_consent(space.cursor, number, consent)


def standing(space: Workspace, practice_id: str) -> Consent | None:
    """Read the consent that counts now."""
    return topups.standing_consent(space.cursor, space.practice(practice_id).practice_no)


def covers(consent: Consent | None, row: TopupSettingsRow) -> bool:
    """Tell whether a consent covers the amounts and the cap of these settings."""
    return auto_topup.covers(consent, row.amount_rappen, row.cap_rappen, row.largest_rappen)
