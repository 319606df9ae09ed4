"""The old ledger on the engine: entries written and read, and what the automatic top-up counts.

Law: a succeeded entry gives or takes its credit once; anything else is a note. What a host tells
beside the amounts is cleaned of secrets, and an address goes where it can be erased.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from guthaben.domain.money import float_from_nano_usd, float_from_rappen
from guthaben.domain.period import month_of
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, MOVES, SUCCEEDED, CreditEvent
from guthaben.errors import InvalidInput
from guthaben.payments.ids import mask_stripe_reference
from guthaben.store import practices, topups
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.meta import clean_meta
from guthaben.store.legacy.rows import LedgerRow
from guthaben.store.session import Cursor
from guthaben.store.workspace import EventNote, Workspace

MOST_LISTED = 500


class Entry(NamedTuple):
    """One entry to be written; prices in Rappen, credit in nano-USD."""

    practice_id: str
    license: str
    event_type: str
    amount_nano_usd: int
    price_rappen: int | None
    session_id: str
    payment_id: str
    status: str
    customer_email: str | None
    meta: object


def write(space: Workspace, entry: Entry) -> int:
    """Keep an entry with all it means for the credit; tell its number.

    Raises `sqlite3.IntegrityError` when its payment or session was credited before, or when a
    second automatic top-up would be pending; `InvalidInput` for an unknown status.
    """
    if entry.status not in MOVES:
        raise InvalidInput(f"status must be one of {', '.join(sorted(MOVES))}", field="status")
    if not entry.event_type:
        raise InvalidInput("event_type must not be empty", field="event_type")
    zone = space.practice(entry.practice_id).time_zone
    automatic = entry.event_type == AUTO_TOPUP_PURCHASE
    event = CreditEvent(
        0, entry.event_type, entry.status, entry.amount_nano_usd, entry.price_rappen, "chf",
        entry.license, space.now_s, space.now_s, month_of(zone, space.now_s) if automatic else "",
        zone if automatic else "", payment_id=entry.payment_id, session_id=entry.session_id,
    )  # fmt: skip
    note = EventNote(entry.customer_email, meta_json=clean_meta(entry.meta))
    stored = legacy_rows.record_entry(space, entry.practice_id, event, note)
    space.flush()
    number = space.practice_no(entry.practice_id)
    return legacy_rows.row_id_of(space.cursor, number, stored.event_no)


def page(
    cursor: Cursor, practice_id: str, limit: int, before_id: int | None = None
) -> list[LedgerRow]:
    """Read entries of one practice, newest first, at most 500."""
    return legacy_rows.ledger_page(cursor, practice_id, max(0, min(limit, MOST_LISTED)), before_id)


def is_credited(cursor: Cursor, kind: str, ref: object) -> bool:
    """Tell whether a payment or session was turned into credit, under this name."""
    if not isinstance(ref, str) or not ref:
        return False
    return topups.find_payment(cursor, "stripe", kind, ref) is not None


def spent_this_month(cursor: Cursor, practice_id: str, now_s: int) -> int:
    """Add up this month's succeeded automatic purchases in Rappen; the month is the practice's."""
    practice = practices.load_practice(cursor, practice_id)
    if practice is None:
        return 0
    month = month_of(practice.time_zone, now_s)
    return topups.spent_rappen(cursor, practice.practice_no, month, (SUCCEEDED,))


def last_success_at_s(cursor: Cursor, practice_id: str) -> int | None:
    """Tell when the newest automatic purchase succeeded."""
    practice = practices.load_practice(cursor, practice_id)
    return topups.last_success_at_s(cursor, practice.practice_no) if practice else None


def in_flight(cursor: Cursor, practice_id: str) -> bool:
    """Tell whether an automatic purchase has no outcome yet."""
    practice = practices.load_practice(cursor, practice_id)
    return topups.in_flight(cursor, practice.practice_no) if practice else False


# ---------------------------------------------------------------- in the old modules' words


def history_row(row: LedgerRow) -> dict[str, Any]:
    """Say an entry as its practice sees it, the payment masked."""
    price = row.price_rappen
    return {
        "id": row.row_id,
        "created_at": row.event_at_s,
        "event_type": row.event_type,
        "status": row.status,
        "amount_internal_usd": float_from_nano_usd(row.shown_nano_usd),
        "amount_paid_chf": None if price is None else float_from_rappen(price),
        "stripe_payment_reference": mask_stripe_reference(row.payment_id),
    }


def admin_row(row: LedgerRow, practice_id: str) -> dict[str, Any]:
    """Say an entry as the administration sees it: more of it, and masked all the same."""
    return {
        **history_row(row),
        "practice_id": practice_id,
        "subscription_id": row.license or None,
        "checkout_session_masked": mask_stripe_reference(row.session_id),
        "payment_intent_masked": mask_stripe_reference(row.payment_id),
        "reason": row.reason or None,
        "meta_json": row.meta_json,
    }
