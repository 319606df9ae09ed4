"""Rows of the automatic top-up's settings, the provider's customer, consents and their audit.

Law: storage is dumb: it keeps exactly what it is given. Who may change what is decided above.
Consents are only added or revoked, never changed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guthaben.domain.auto_topup import COOLDOWN_S, PAUSE
from guthaben.store import attempts
from guthaben.store.session import Cursor

SWITCHED_OFF: Final = "auto_topup_off"
"""The action of the audit that says that somebody switched the automatic top-up off."""


class TopupSettingsRow(NamedTuple):
    """The automatic top-up of one practice as stored; prices in Rappen, credit in nano-USD."""

    enabled: bool = False
    amount_rappen: int = 3_000
    credit_nano_usd: int = 10_000_000_000
    trigger_percent: int = 5
    trigger_below_nano_usd: int = 0
    cap_rappen: int = 30_000
    cooldown_s: int = COOLDOWN_S
    paused_reason: str = ""
    customer_id: str | None = None
    payment_method_id: str | None = None
    largest_rappen: int = 0
    """The most that one charge may be to close a whole shortfall; 0: no such charges."""
    on_decline: str = PAUSE
    """What a decline that may pass leads to: `pause` at once, or `retry` later."""


class ConsentRow(NamedTuple):
    """What a customer agreed to, when and where."""

    source: str
    text_version: str
    language: str
    actor: str
    amount_rappen: int
    trigger_percent: int
    trigger_below_nano_usd: int
    cap_rappen: int
    given_at_s: int
    largest_rappen: int = 0


class Audited(NamedTuple):
    """When something was written down, and what about it."""

    at_s: int
    detail: str


def load_settings(cursor: Cursor, practice_no: int, mode: int) -> TopupSettingsRow | None:
    """Read the settings, with the saved customer and card."""
    row = cursor.execute(
        "SELECT s.enabled, s.amount_minor, s.credit_nano_usd, s.trigger_percent,"
        " s.trigger_below_nano_usd, s.cap_minor, s.cooldown_s, s.paused_reason, c.customer_id,"
        " c.payment_method_id, s.largest_minor, s.on_decline FROM credit_topup_settings s"
        " LEFT JOIN credit_provider_customer c ON c.practice_no = s.practice_no"
        " AND c.provider = 'stripe' AND c.livemode = ? WHERE s.practice_no = ?",
        (int(mode == 1), practice_no),
    ).fetchone()
    return TopupSettingsRow(bool(row[0]), *row[1:]) if row else None


def save_settings(
    cursor: Cursor, practice_no: int, mode: int, row: TopupSettingsRow, now_s: int
) -> None:
    """Store settings, customer and card exactly as given, and arm or disarm the gate's watch.

    Switched on anew, or with another card, the customer has acted: earlier failures are forgiven.
    """
    before = load_settings(cursor, practice_no, mode) or TopupSettingsRow()
    cursor.execute(
        "INSERT INTO credit_topup_settings (practice_no, enabled, amount_minor, credit_nano_usd,"
        " trigger_percent, trigger_below_nano_usd, cap_minor, cooldown_s, paused_reason,"
        " largest_minor, on_decline, updated_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (practice_no) DO UPDATE SET enabled = excluded.enabled,"
        " amount_minor = excluded.amount_minor, credit_nano_usd = excluded.credit_nano_usd,"
        " trigger_percent = excluded.trigger_percent,"
        " trigger_below_nano_usd = excluded.trigger_below_nano_usd,"
        " cap_minor = excluded.cap_minor, cooldown_s = excluded.cooldown_s,"
        " paused_reason = excluded.paused_reason, largest_minor = excluded.largest_minor,"
        " on_decline = excluded.on_decline, updated_at_s = excluded.updated_at_s",
        (practice_no, *row[:8], row.largest_rappen, row.on_decline, now_s),
    )
    cursor.execute(
        "INSERT INTO credit_provider_customer (practice_no, provider, livemode, customer_id,"
        " payment_method_id, updated_at_s) VALUES (?, 'stripe', ?, ?, ?, ?)"
        " ON CONFLICT (practice_no, provider, livemode) DO UPDATE SET"
        " customer_id = excluded.customer_id, payment_method_id = excluded.payment_method_id,"
        " updated_at_s = excluded.updated_at_s",
        (practice_no, int(mode == 1), row.customer_id, row.payment_method_id, now_s),
    )
    cursor.execute(
        "UPDATE credit_practice SET auto_topup_armed = ?, auto_topup_next_s = 0"
        " WHERE practice_no = ?",
        (row.enabled, practice_no),
    )
    other_card = row.payment_method_id not in (None, before.payment_method_id)
    if other_card or (row.enabled and not before.enabled):
        attempts.forgive(cursor, practice_no)


def pause_auto_topup(cursor: Cursor, practice_no: int, reason: str, now_s: int) -> None:
    """Switch the automatic top-up off until the customer switches it on again, and say why."""
    cursor.execute(
        "UPDATE credit_topup_settings SET enabled = 0, paused_reason = ?, updated_at_s = ?"
        " WHERE practice_no = ?",
        (reason, now_s, practice_no),
    )
    cursor.execute(
        "UPDATE credit_practice SET auto_topup_armed = 0 WHERE practice_no = ?", (practice_no,)
    )


def add_consent(cursor: Cursor, practice_no: int, consent: ConsentRow) -> None:
    """Record a consent; the newest one that is not revoked counts."""
    cursor.execute(
        "INSERT INTO credit_consent (practice_no, consent_no, source, text_version, language,"
        " actor, amount_minor, trigger_percent, trigger_below_nano_usd, cap_minor, given_at_s,"
        " largest_minor)"
        " VALUES (?, (SELECT COALESCE(MAX(consent_no), 0) + 1 FROM credit_consent"
        " WHERE practice_no = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (practice_no, practice_no, *consent),
    )


def standing_consent_row(cursor: Cursor, practice_no: int) -> ConsentRow | None:
    """Read the consent that counts: the newest that was not revoked."""
    row = cursor.execute(
        "SELECT source, text_version, language, actor, amount_minor, trigger_percent,"
        " trigger_below_nano_usd, cap_minor, given_at_s, largest_minor FROM credit_consent"
        " WHERE practice_no = ? AND revoked_at_s = 0 ORDER BY consent_no DESC LIMIT 1",
        (practice_no,),
    ).fetchone()
    return ConsentRow(*row) if row else None


def revoke_consents(cursor: Cursor, practice_no: int, now_s: int) -> None:
    """Let no consent of the practice count any longer."""
    cursor.execute(
        "UPDATE credit_consent SET revoked_at_s = ? WHERE practice_no = ? AND revoked_at_s = 0",
        (now_s, practice_no),
    )


def audit(
    cursor: Cursor, practice_no: int, action: str, actor: str, detail: str, now_s: int
) -> int:
    """Write down a change of settings, outside the ledger; give its number in the practice."""
    row = cursor.execute(
        "INSERT INTO credit_settings_audit (practice_no, audit_no, action, actor, detail, at_s)"
        " VALUES (?, (SELECT COALESCE(MAX(audit_no), 0) + 1 FROM credit_settings_audit"
        " WHERE practice_no = ?), ?, ?, ?, ?) RETURNING audit_no",
        (practice_no, practice_no, action, actor, detail, now_s),
    ).fetchone()
    return int(row[0])


def last_audit(cursor: Cursor, practice_no: int, *actions: str) -> Audited | None:
    """Give what was last written down of such actions of a practice, if anything was."""
    row = cursor.execute(
        "SELECT at_s, detail FROM credit_settings_audit WHERE practice_no = ?"
        f" AND action IN ({', '.join('?' * len(actions))}) ORDER BY audit_no DESC LIMIT 1",
        (practice_no, *actions),
    ).fetchone()
    return Audited(*row) if row else None


def raise_alarm(cursor: Cursor, code: str, subject: str, now_s: int, practice_no: int = 0) -> None:
    """Raise an alarm for the operator, once per open code and subject."""
    cursor.execute(
        "INSERT INTO credit_alarm (practice_no, code, subject, raised_at_s)"
        " SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM credit_alarm"
        " WHERE code = ? AND subject = ? AND practice_no = ? AND cleared_at_s = 0)"
        " ON CONFLICT DO NOTHING",  # another server has raised it in this moment
        (practice_no, code, subject, now_s, code, subject, practice_no),
    )


def clear_alarm(cursor: Cursor, code: str, subject: str, now_s: int) -> bool:
    """Clear an alarm whose cause is gone; tell whether it was open."""
    cursor.execute(
        "UPDATE credit_alarm SET cleared_at_s = ? WHERE code = ? AND subject = ?"
        " AND cleared_at_s = 0",
        (now_s, code, subject),
    )
    return cursor.rowcount > 0
