"""Rows of disputes and of warnings of fraud.

Law: a row says what the provider said last; what a dispute withholds of its payment is one number,
and their sum is what the equation of the payment subtracts.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor
from guthaben.store.topups import Registered


class DisputeRow(NamedTuple):
    """A dispute as it was read last; amounts in minor units of the payment's currency."""

    dispute_id: str
    status: str
    reason: str
    amount_minor: int
    withdrawn_minor: int
    opened_at_s: int


def known(cursor: Cursor, owner: Registered) -> dict[str, DisputeRow]:
    """Read the disputes of a payment, by their ids."""
    rows = cursor.execute(
        "SELECT dispute_id, status, reason, amount_minor, withdrawn_minor, opened_at_s"
        " FROM credit_dispute WHERE practice_no = ? AND event_no = ?",
        tuple(owner),
    ).fetchall()
    return {row[0]: DisputeRow(*row) for row in rows}


def note(
    cursor: Cursor, owner: Registered, row: DisputeRow, *, is_closed: bool, now_s: int
) -> None:
    """Keep a dispute as it was read just now."""
    cursor.execute(
        "INSERT INTO credit_dispute (provider, dispute_id, practice_no, event_no, withdrawn_minor,"
        " is_closed, told_at_s, status, amount_minor, reason, opened_at_s)"
        " VALUES ('stripe', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (provider, dispute_id) DO UPDATE SET"
        " withdrawn_minor = excluded.withdrawn_minor, is_closed = excluded.is_closed,"
        " told_at_s = excluded.told_at_s, status = excluded.status,"
        " amount_minor = excluded.amount_minor, reason = excluded.reason",
        (
            row.dispute_id, *owner, row.withdrawn_minor, int(is_closed), now_s, row.status,
            row.amount_minor, row.reason, row.opened_at_s,
        ),
    )  # fmt: skip


def withdrawn_minor(cursor: Cursor, owner: Registered) -> int:
    """Tell what all disputes of a payment withhold, in minor units."""
    row = cursor.execute(
        "SELECT COALESCE(SUM(withdrawn_minor), 0) FROM credit_dispute"
        " WHERE practice_no = ? AND event_no = ?",
        tuple(owner),
    ).fetchone()
    return int(row[0])


def open_payments(cursor: Cursor) -> list[str]:
    """Read the payments whose disputes are not closed, as far as we know; there are few."""
    rows = cursor.execute(
        "SELECT DISTINCT e.payment_id FROM credit_dispute d JOIN credit_event e"
        " ON e.practice_no = d.practice_no AND e.event_no = d.event_no"
        " WHERE d.is_closed = 0 AND e.payment_id <> '' ORDER BY e.payment_id"
    ).fetchall()
    return [row[0] for row in rows]


def note_warning(
    cursor: Cursor,
    warning_id: str,
    payment_id: str,
    owner: Registered,
    *,
    fraud_type: str,
    actionable: bool,
    now_s: int,
) -> None:
    """Keep a warning of fraud; what is told again replaces what was known."""
    cursor.execute(
        "INSERT INTO credit_fraud_warning (provider, warning_id, payment_id, practice_no, event_no,"
        " fraud_type, actionable, told_at_s) VALUES ('stripe', ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (provider, warning_id) DO UPDATE SET actionable = excluded.actionable,"
        " fraud_type = excluded.fraud_type, told_at_s = excluded.told_at_s",
        (warning_id, payment_id, *owner, fraud_type, int(actionable), now_s),
    )
