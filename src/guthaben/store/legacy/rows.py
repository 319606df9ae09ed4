"""Rows as the four modules speak of them: ledger entries, usage, blocked calls, host's licences.

Law: an entry that gives credit goes through the payment registry, one that takes credit through a
command; nothing here writes a balance. `licenses` belongs to the host and is only read.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from typing import Any, NamedTuple

from guthaben.domain.commands import Fulfil, OpenEvent, TakeCredit
from guthaben.domain.topup import PENDING, SUCCEEDED, CreditEvent
from guthaben.errors import InvalidAmount, Refused
from guthaben.store import topups
from guthaben.store.session import Cursor
from guthaben.store.workspace import EventNote, Workspace

USAGE_ROW = 1 << 32
"""A usage row that was never in the old table is numbered practice x this + call."""
BLOCKED_ROW = 1 << 31
LONGEST_STATUS = 100


class LedgerRow(NamedTuple):
    """One entry as the old view shows it, amounts still integers."""

    row_id: int
    event_no: int
    event_type: str
    status: str
    shown_nano_usd: int
    price_rappen: int | None
    session_id: str
    payment_id: str
    license: str
    event_at_s: int
    reason: str
    meta_json: str


class BlockedCall(NamedTuple):
    """A call that the gate refused; it is never counted as used."""

    license: str
    period_start_s: int
    period_end_s: int
    at_s: int
    status: str
    operation_type: str | None = None
    model: str | None = None
    device_id: str | None = None
    reference: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    audio_us: int = 0
    cost_nano_usd: int = 0
    legacy_id: int | None = None


class LicenseRow(NamedTuple):
    """What the host's table says of one licence."""

    subscription_id: str
    practice_id: str | None
    lookup_key: str | None


# ---------------------------------------------------------------- the ledger


def record_entry(
    space: Workspace, practice_id: str, event: CreditEvent, note: EventNote
) -> CreditEvent:
    """Keep one entry with all it means: a succeeded one gives or takes its credit.

    Raises `sqlite3.IntegrityError`, as a unique index would, when its payment was credited before.
    """
    if event.status != SUCCEEDED:
        return _stored(space.apply(practice_id, OpenEvent(event), note).event)
    if event.amount_nano_usd < 0:
        return _take(space, practice_id, event, note)
    opened = space.apply(practice_id, OpenEvent(event._replace(status=PENDING)), note).event
    outcome = space.apply(practice_id, Fulfil(_stored(opened).event_no))
    if not outcome.ok:
        raise _refused(outcome.reason)
    if not outcome.applied:
        raise sqlite3.IntegrityError(
            "UNIQUE constraint failed: a succeeded entry of this payment or session exists"
        )
    return _stored(outcome.event)


def _stored(event: CreditEvent | None) -> CreditEvent:
    if event is None:
        raise sqlite3.InternalError("an entry was not stored")
    return event


def _refused(reason: str) -> Refused:
    return InvalidAmount(reason=reason) if reason == "invalid_amount" else Refused(reason=reason)


def _take(space: Workspace, practice_id: str, event: CreditEvent, note: EventNote) -> CreditEvent:
    """Take credit back; where its purchase is known, count it there, so that nobody takes twice."""
    purchase = _purchase_of(space, practice_id, event)
    if purchase is not None:
        event = event._replace(parent_event_no=purchase.event_no)
    outcome = space.apply(practice_id, TakeCredit(event), note)
    if not outcome.ok:
        raise _refused(outcome.reason)
    if purchase is not None:
        less = purchase._replace(
            clawed_back_nano_usd=purchase.clawed_back_nano_usd - event.amount_nano_usd,
            net_minor=max(0, purchase.net_minor + min(event.price_minor or 0, 0)),
        )
        topups.update_event(space.cursor, space.practice_no(practice_id), less)
    return _stored(outcome.event)


def _purchase_of(space: Workspace, practice_id: str, refund: CreditEvent) -> CreditEvent | None:
    """Find the purchase a refund names, if there is as much left of it."""
    space.flush()
    practice_no = space.practice_no(practice_id)
    for kind, ref in ((topups.PAYMENT, refund.payment_id), (topups.SESSION, refund.session_id)):
        owner = topups.find_payment(space.cursor, "stripe", kind, ref) if ref else None
        if owner is None or owner.practice_no != practice_no:
            continue
        purchase = topups.load_event(space.cursor, practice_no, owner.event_no)
        if purchase is not None and purchase.clawed_back_nano_usd - refund.amount_nano_usd <= (
            purchase.amount_nano_usd
        ):
            return purchase
    return None


def row_id_of(cursor: Cursor, practice_no: int, event_no: int) -> int:
    """Tell an entry's number in the old view."""
    row = cursor.execute(
        "SELECT row_id FROM credit_event WHERE practice_no = ? AND event_no = ?",
        (practice_no, event_no),
    ).fetchone()
    return int(row[0])


def unanswered(
    cursor: Cursor, practice_no: int, event_type: str, status: str
) -> CreditEvent | None:
    """Find the newest attempt of a status whose exact request is known, so that it can be asked."""
    row = cursor.execute(
        "SELECT event_no FROM credit_event WHERE practice_no = ? AND event_type = ? AND status = ?"
        " AND params <> '' AND idempotency_key <> '' ORDER BY event_no DESC LIMIT 1",
        (practice_no, event_type, status),
    ).fetchone()
    return topups.load_event(cursor, practice_no, row[0]) if row else None


def ledger_page(
    cursor: Cursor, practice_id: str, limit: int, before_id: int | None = None
) -> list[LedgerRow]:
    """Read entries of one practice, newest first; the page ends after `limit`."""
    rows = cursor.execute(
        "SELECT e.row_id, e.event_no, e.event_type, e.status, CASE WHEN e.reason <> ''"
        " AND e.status IN ('failed', 'canceled', 'quarantined') THEN 0 ELSE e.amount_nano_usd END,"
        " e.price_minor, e.session_id, e.payment_id, e.license, e.event_at_s, e.reason,"
        " COALESCE(n.meta_json, '{}') FROM credit_event e"
        " LEFT JOIN credit_note n ON n.practice_no = e.practice_no AND n.event_no = e.event_no"
        " WHERE e.practice_no = (SELECT practice_no FROM credit_practice WHERE practice_id = ?)"
        " AND e.event_no < COALESCE((SELECT event_no FROM credit_event b WHERE b.row_id = ?"
        " AND b.practice_no = e.practice_no), ?) ORDER BY e.event_no DESC LIMIT ?",
        (practice_id, before_id, 1 << 62, limit),
    )
    return [LedgerRow(*row) for row in rows.fetchall()]


# ---------------------------------------------------------------- usage


def usage_row_id(cursor: Cursor, practice_no: int, call_no: int) -> int:
    """Tell a call's number in the old view of usage."""
    return practice_no * USAGE_ROW + call_no


def status_tags(status: str) -> str:
    """Write down a usage status other than `success`, where the view finds it."""
    return json.dumps({"usage_status": status[:LONGEST_STATUS]}, ensure_ascii=False)


def set_legacy_ids(cursor: Cursor, rows: list[tuple[int, int, int]]) -> None:
    """Keep the old numbers of calls that were taken over, given as (old id, practice, call)."""
    cursor.executemany(
        "UPDATE credit_call SET legacy_id = ? WHERE practice_no = ? AND call_no = ?", rows
    )


def insert_blocked(cursor: Cursor, practice_no: int, call: BlockedCall) -> int:
    """Keep a refused call beside the usage; tell its number in the old view."""
    columns = ", ".join(BlockedCall._fields)
    cursor.execute(
        f"INSERT INTO credit_blocked_call (practice_no, blocked_no, {columns}) VALUES (?,"
        " (SELECT COALESCE(MAX(blocked_no), 0) + 1 FROM credit_blocked_call"
        f" WHERE practice_no = ?), {', '.join('?' * len(call))})",
        (practice_no, practice_no, *call),
    )
    (blocked_no,) = cursor.execute(
        "SELECT MAX(blocked_no) FROM credit_blocked_call WHERE practice_no = ?", (practice_no,)
    ).fetchone()
    return call.legacy_id or practice_no * USAGE_ROW + BLOCKED_ROW + int(blocked_no)


# ---------------------------------------------------------------- consents


def has_consent(cursor: Cursor, practice_no: int, source: str, actor: str) -> bool:
    """Tell whether this source and actor gave a consent before, revoked or not."""
    row = cursor.execute(
        "SELECT 1 FROM credit_consent WHERE practice_no = ? AND source = ? AND actor = ? LIMIT 1",
        (practice_no, source, actor),
    ).fetchone()
    return row is not None


def last_consent_by(cursor: Cursor, practice_no: int, source: str) -> str:
    """Tell who gave the newest consent of this source, revoked or not; empty where none is."""
    row = cursor.execute(
        "SELECT actor FROM credit_consent WHERE practice_no = ? AND source = ?"
        " ORDER BY consent_no DESC LIMIT 1",
        (practice_no, source),
    ).fetchone()
    return str(row[0]) if row else ""


# ---------------------------------------------------------------- the host's licences


def license_columns(cursor: Cursor) -> set[str]:
    """Tell the columns of the host's table, none where there is no such table."""
    return {row[1] for row in cursor.execute("PRAGMA table_info(licenses)")}


def all_licenses(cursor: Cursor) -> dict[str, LicenseRow]:
    """Read every licence by its subscription."""
    wanted = {"subscription_id", "practice_id", "lookup_key"}
    if not wanted <= license_columns(cursor):
        return {}
    rows = cursor.execute("SELECT subscription_id, practice_id, lookup_key FROM licenses")
    return {row[0]: LicenseRow(*map(_text, row)) for row in rows if row[0]}


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


class LicenseDetail(NamedTuple):
    """The licence of a practice as the host's table has it."""

    subscription_id: str
    customer_email: str | None
    customer_id: str | None
    practice_id: str | None
    lookup_key: str | None
    status: str | None
    period_start_s: int
    period_end_s: int


def license_of(cursor: Cursor, practice_id: str) -> LicenseDetail | None:
    """Read the licence of a practice, or of the subscription of that name; an active one first."""
    wanted = {
        "subscription_id", "customer_email", "customer_id", "practice_id", "lookup_key", "status",
        "current_period_start", "current_period_end",
    }  # fmt: skip
    if not wanted <= license_columns(cursor):
        return None
    row = cursor.execute(
        "SELECT subscription_id, customer_email, customer_id, practice_id, lookup_key, status,"
        " current_period_start, current_period_end FROM licenses WHERE practice_id = ?"
        " OR (subscription_id = ? AND COALESCE(practice_id, '') = '')"
        " ORDER BY status IN ('active', 'trialing') DESC, current_period_end DESC LIMIT 1",
        (practice_id, practice_id),
    ).fetchone()
    if row is None or type(row[6]) is not int or type(row[7]) is not int:
        return None
    return LicenseDetail._make((str(row[0]), *map(_text, row[1:6]), row[6], row[7]))


def hosts_license(cursor: Cursor, practice_id: str) -> LicenseDetail | None:
    """Read the licence that a host keeps beside our tables; only a host's SQLite file has one."""
    return license_of(cursor, practice_id) if isinstance(cursor, sqlite3.Cursor) else None


def license_by_key(cursor: Cursor, license_key: str) -> LicenseRow | None:
    """Find whose licence key this is; one that several practices share belongs to nobody."""
    wanted = {"subscription_id", "practice_id", "lookup_key", "license_key"}
    if not license_key or not wanted <= license_columns(cursor):
        return None
    rows = cursor.execute(
        "SELECT subscription_id, practice_id, lookup_key, license_key FROM licenses"
        " WHERE license_key = ? LIMIT 100",
        (license_key,),
    ).fetchall()
    found = [
        LicenseRow(*map(_text, row[:3]))
        for row in rows
        if isinstance(row[3], str) and hmac.compare_digest(row[3].encode(), license_key.encode())
    ]
    owners = {row.practice_id or row.subscription_id for row in found}
    return found[0] if len(owners) == 1 else None
