"""Rows of what the provider said last of a payment, and of runs of the reconciliation.

Law: `looks` grows with every booking of what was read. What was read before such a booking is
stale and must be read again: so the order in which answers arrive decides nothing. Fees are facts
of the provider's balance, in its own currency, and no credit.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor


class Money(NamedTuple):
    """What a payment brought to the provider's balance, in minor units of `currency`."""

    gross_minor: int
    fee_minor: int
    net_minor: int
    currency: str


def looks(cursor: Cursor, payment_id: str) -> int:
    """Tell how often something that was read of a payment was booked."""
    row = cursor.execute(
        "SELECT looks FROM credit_payment_state WHERE provider = 'stripe' AND payment_id = ?",
        (payment_id,),
    ).fetchone()
    return int(row[0]) if row else 0


def note_look(cursor: Cursor, payment_id: str) -> None:
    """Note that what was read of a payment is booked now."""
    cursor.execute(
        "INSERT INTO credit_payment_state (provider, payment_id, looks) VALUES ('stripe', ?, 1)"
        " ON CONFLICT (provider, payment_id) DO UPDATE SET looks = credit_payment_state.looks + 1",
        (payment_id,),
    )


def note_money(cursor: Cursor, payment_id: str, charge_id: str, money: Money) -> None:
    """Keep what the payment brought and what it cost."""
    cursor.execute(
        "INSERT INTO credit_payment_state (provider, payment_id, charge_id, gross_minor, fee_minor,"
        " net_minor, balance_currency) VALUES ('stripe', ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (provider, payment_id) DO UPDATE SET charge_id = excluded.charge_id,"
        " gross_minor = excluded.gross_minor, fee_minor = excluded.fee_minor,"
        " net_minor = excluded.net_minor, balance_currency = excluded.balance_currency",
        (payment_id, charge_id, *money),
    )


def money_of(cursor: Cursor, payment_id: str) -> Money | None:
    """Read what a payment brought, if the provider has told."""
    row = cursor.execute(
        "SELECT gross_minor, fee_minor, net_minor, balance_currency FROM credit_payment_state"
        " WHERE provider = 'stripe' AND payment_id = ? AND gross_minor IS NOT NULL",
        (payment_id,),
    ).fetchone()
    return Money(*row) if row else None


def by_charge(cursor: Cursor, charge_id: str) -> tuple[str, Money | None] | None:
    """Find the payment of ours that a charge belongs to, and what is kept of its money."""
    row = cursor.execute(
        "SELECT payment_id FROM credit_payment_state WHERE charge_id = ? AND charge_id <> ''",
        (charge_id,),
    ).fetchone()
    return None if row is None else (str(row[0]), money_of(cursor, str(row[0])))


def seen_in(cursor: Cursor, run_no: int, payment_id: str) -> bool:
    """Tell whether a run has met a payment already."""
    row = cursor.execute(
        "SELECT 1 FROM credit_payment_state WHERE provider = 'stripe' AND payment_id = ?"
        " AND seen_run_no = ?",
        (payment_id, run_no),
    ).fetchone()
    return row is not None


# ---------------------------------------------------------------- runs of the reconciliation


class OurPayment(NamedTuple):
    """A credited payment on our side; the first three name its place in the walk."""

    recorded_at_s: int
    practice_no: int
    event_no: int
    payment_id: str
    practice_id: str


def begin_run(cursor: Cursor, since_s: int, until_s: int, *, fixes: bool, now_s: int) -> int:
    """Open a run and give its number."""
    row = cursor.execute(
        "INSERT INTO credit_reconcile_run (since_s, until_s, fixes, started_at_s)"
        " VALUES (?, ?, ?, ?) RETURNING run_no",
        (since_s, until_s, int(fixes), now_s),
    ).fetchone()
    return int(row[0])


def end_run(
    cursor: Cursor,
    run_no: int,
    *,
    payments: int,
    differences: int,
    remaining: int,
    now_s: int,
) -> None:
    """Close a run."""
    cursor.execute(
        "UPDATE credit_reconcile_run SET ended_at_s = ?, payments = ?, differences = ?,"
        " remaining = ? WHERE run_no = ?",
        (now_s, payments, differences, remaining, run_no),
    )


def last_run(cursor: Cursor) -> dict[str, int] | None:
    """Read the newest run that came to its end."""
    names = ("run_no", "since_s", "until_s", "fixes", "started_at_s", "ended_at_s", "payments",
             "differences", "remaining")  # fmt: skip
    row = cursor.execute(
        f"SELECT {', '.join(names)} FROM credit_reconcile_run WHERE ended_at_s > 0"
        " ORDER BY run_no DESC LIMIT 1"
    ).fetchone()
    return dict(zip(names, row, strict=True)) if row else None


def mark_seen(cursor: Cursor, run_no: int, payment_id: str, now_s: int) -> None:
    """Note that a run has met a payment of ours at the provider."""
    cursor.execute(
        "INSERT INTO credit_payment_state (provider, payment_id, seen_run_no, seen_at_s)"
        " VALUES ('stripe', ?, ?, ?) ON CONFLICT (provider, payment_id) DO UPDATE SET"
        " seen_run_no = excluded.seen_run_no, seen_at_s = excluded.seen_at_s",
        (payment_id, run_no, now_s),
    )


def unseen(
    cursor: Cursor,
    run_no: int,
    since_s: int,
    until_s: int,
    after: tuple[int, int, int],
    limit: int,
) -> list[OurPayment]:
    """Read one page of credited payments recorded in `[since, until)` that a run has not met."""
    rows = cursor.execute(
        "SELECT e.recorded_at_s, e.practice_no, e.event_no, e.payment_id, p.practice_id"
        " FROM credit_event e JOIN credit_practice_name p ON p.practice_no = e.practice_no"
        " WHERE e.status = 'succeeded' AND e.payment_id <> '' AND e.parent_event_no = 0"
        " AND e.event_type IN ('topup_purchase', 'auto_topup_purchase')"
        " AND e.recorded_at_s >= ? AND e.recorded_at_s < ?"
        " AND (e.recorded_at_s, e.practice_no, e.event_no) > (?, ?, ?)"
        " AND NOT EXISTS (SELECT 1 FROM credit_payment_state s WHERE s.provider = e.provider"
        " AND s.payment_id = e.payment_id AND s.seen_run_no = ?)"
        " ORDER BY e.recorded_at_s, e.practice_no, e.event_no LIMIT ?",
        (since_s, until_s, *after, run_no, limit),
    ).fetchall()
    return [OurPayment(*row) for row in rows]


def totals(cursor: Cursor, run_no: int) -> list[Money]:
    """Add up what the payments that a run has met brought, per currency of the balance."""
    rows = cursor.execute(
        "SELECT SUM(gross_minor), SUM(fee_minor), SUM(net_minor), balance_currency"
        " FROM credit_payment_state WHERE seen_run_no = ? AND gross_minor IS NOT NULL"
        " GROUP BY balance_currency ORDER BY balance_currency",
        (run_no,),
    ).fetchall()
    return [Money(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in rows]


class Stuck(NamedTuple):
    """A purchase by hand without an outcome."""

    recorded_at_s: int
    practice_no: int
    event_no: int
    session_id: str
    topup_id: str
    practice_id: str


def stuck_purchases(
    cursor: Cursor, recorded_before_s: int, after: tuple[int, int, int], limit: int
) -> list[Stuck]:
    """Read one page of purchases by hand that have a page and no outcome, the oldest first."""
    rows = cursor.execute(
        "SELECT e.recorded_at_s, e.practice_no, e.event_no, e.session_id, e.topup_id,"
        " p.practice_id FROM credit_event e"
        " JOIN credit_practice_name p ON p.practice_no = e.practice_no"
        " WHERE e.status IN ('pending', 'unknown') AND e.recorded_at_s <= ?"
        " AND e.event_type = 'topup_purchase' AND e.session_id <> ''"
        " AND (e.recorded_at_s, e.practice_no, e.event_no) > (?, ?, ?)"
        " ORDER BY e.recorded_at_s, e.practice_no, e.event_no LIMIT ?",
        (recorded_before_s, *after, limit),
    ).fetchall()
    return [Stuck(*row) for row in rows]
