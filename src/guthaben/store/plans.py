"""Rows of plans, and of licences that somebody began to buy.

Law: what was set about a plan is kept for ever; a change is a new row. An order is committed before
the provider is asked for its page. Nothing here decides what a plan is worth to a period.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.licences import PlanVersion
from guthaben.store.session import Cursor

_PLAN = "plan_no, lookup_key, from_s, allowance_nano_usd, trial_nano_usd, is_removed, author, at_s"


def plan_versions(cursor: Cursor) -> list[PlanVersion]:
    """Read everything that was ever set about plans."""
    rows = cursor.execute(f"SELECT {_PLAN} FROM credit_plan ORDER BY plan_no")
    return [PlanVersion(*row)._replace(removed=bool(row[5])) for row in rows]


def add_plan(cursor: Cursor, version: PlanVersion) -> None:
    """Store what a plan includes from a date on, under the number after the last one known.

    Where another server has taken the number, the unique key has the transaction done anew.
    """
    cursor.execute(
        f"INSERT INTO credit_plan ({_PLAN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            version.plan_no, version.lookup_key, version.from_s, version.allowance_nano_usd,
            version.trial_nano_usd, int(version.removed), version.author, version.at_s,
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- licences being bought


class OrderRow(NamedTuple):
    """A licence that somebody began to buy."""

    practice_no: int
    order_id: str
    lookup_key: str
    quantity: int
    status: str
    reason: str
    livemode: bool | None
    customer_id: str
    session_id: str
    subscription_id: str
    created_at_s: int


def add_order(cursor: Cursor, row: OrderRow) -> None:
    """Store our own record of a purchase."""
    cursor.execute(
        f"INSERT INTO credit_license_order ({', '.join(OrderRow._fields)})"
        f" VALUES ({', '.join('?' * len(row))})",
        row,
    )


def load_order(cursor: Cursor, order_id: str) -> OrderRow | None:
    """Find a purchase by our own id."""
    row = cursor.execute(
        f"SELECT {', '.join(OrderRow._fields)} FROM credit_license_order WHERE order_id = ?",
        (order_id,),
    ).fetchone()
    if row is None:
        return None
    found = OrderRow(*row)
    return found._replace(livemode=None if row[6] is None else bool(row[6]))


def note_session(cursor: Cursor, order_id: str, session_id: str) -> None:
    """Remember the page of a purchase."""
    cursor.execute(
        "UPDATE credit_license_order SET session_id = ? WHERE order_id = ?", (session_id, order_id)
    )


def complete_order(cursor: Cursor, practice_no: int, order_id: str, subscription_id: str) -> None:
    """Remember what subscription a purchase became; the first one stays."""
    cursor.execute(
        "UPDATE credit_license_order SET status = 'complete', reason = '', subscription_id = ?"
        " WHERE practice_no = ? AND order_id = ? AND subscription_id = ''",
        (subscription_id, practice_no, order_id),
    )


def cancel_order(cursor: Cursor, order_id: str, reason: str) -> bool:
    """Close a purchase that came to nothing; one that succeeded stays as it is."""
    cursor.execute(
        "UPDATE credit_license_order SET status = 'canceled', reason = ?"
        " WHERE order_id = ? AND status = 'pending'",
        (reason, order_id),
    )
    return cursor.rowcount == 1
