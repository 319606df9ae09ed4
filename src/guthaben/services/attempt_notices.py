"""What the customer and the operator are told about automatic charges: one function per occasion.

Law: told in the transaction that stores what happened, so that nothing is told which is undone and
nothing is undone which was told. No id of card, customer or payment is part of what is told.
"""

from __future__ import annotations

from guthaben.domain.auto_topup import CARD_TRIED_TOO_OFTEN, THREE_FAILURES
from guthaben.domain.topup import CreditEvent
from guthaben.services import telling
from guthaben.services.notices import Fact, Notice, tell
from guthaben.store import settings
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace

_GAVE_UP = frozenset({THREE_FAILURES, CARD_TRIED_TOO_OFTEN})


def after_pause(space: Workspace, practice_id: str, event: CreditEvent, reason: str) -> None:
    """Tell that the automatic top-up was switched off, and why."""
    if reason in _GAVE_UP:
        switched_off(space, practice_id, event, reason)
    else:
        paused(space, practice_id, event, reason)


def paused(space: Workspace, practice_id: str, event: CreditEvent, reason: str) -> None:
    """Tell that a charge failed in a way that only the customer can mend."""
    _alarm(space, practice_id, "auto_topup_paused")
    telling.paused(space, practice_id, event, reason)


def switched_off(space: Workspace, practice_id: str, event: CreditEvent, reason: str) -> None:
    """Tell that it was switched off after too many failures."""
    _alarm(space, practice_id, "auto_topup_switched_off")
    tell(space, practice_id, Notice.AUTO_TOPUP_SWITCHED_OFF, _key(event), {"reason": reason})


def put_off(space: Workspace, practice_id: str, event: CreditEvent) -> None:
    """Tell that the bank declined a charge which is tried again later."""
    facts: dict[str, Fact] = {"price_rappen": event.price_minor or 0, "reason": event.reason}
    tell(space, practice_id, Notice.TOPUP_FAILED, _key(event), facts)


def unresolved(space: Workspace, practice_id: str, event: CreditEvent, code: str) -> None:
    """Tell the operator that an attempt has no outcome where it should have one."""
    subject = f"{practice_id}:{event.event_no}"
    settings.raise_alarm(
        space.cursor, code, subject, space.now_s, space.practice(practice_id).practice_no
    )
    telling.unresolved(space, practice_id, event)


def consent_changed(
    space: Workspace, practice_id: str, row: TopupSettingsRow, audit_no: int
) -> None:
    """Tell what the automatic top-up may do from now on, so that a stranger's change is noticed.

    Each change, by its number in the audit: two may be made in one millisecond.
    """
    facts = {
        "enabled": int(row.enabled),
        "price_rappen": row.amount_rappen,
        "trigger_percent": row.trigger_percent,
        "trigger_below_nano_usd": row.trigger_below_nano_usd,
        "cap_rappen": row.cap_rappen,
    }
    tell(space, practice_id, Notice.CONSENT_CHANGED, f"change:{audit_no}", facts)


def _key(event: CreditEvent) -> str:
    return f"event:{event.event_no}"


def _alarm(space: Workspace, practice_id: str, code: str) -> None:
    number = space.practice(practice_id).practice_no
    settings.raise_alarm(space.cursor, code, practice_id, space.now_s, number)
