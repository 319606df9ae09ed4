"""Rows of refunds that an operator asked for.

Law: a row is committed before the provider hears of it, with the key and the amount it will hear.
A key of a request belongs to one request for ever; of a payment, one has no answer at a time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guthaben.store.session import Cursor

PENDING: Final = "pending"
UNKNOWN: Final = "unknown"
SENT: Final = "sent"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

WAITING: Final = frozenset({PENDING, UNKNOWN})


class RefundRow(NamedTuple):
    """One refund that was asked for; `case_no` is 0 unless a quarantined payment goes back."""

    refund_id: str
    practice_no: int
    event_no: int
    case_no: int
    request_key: str
    payment_id: str
    amount_minor: int
    currency: str
    allow_debt: bool
    idempotency_key: str
    status: str
    provider_refund_id: str = ""
    reason: str = ""
    attempts: int = 0
    next_try_at_s: int = 0
    asked_at_s: int = 0
    ended_at_s: int = 0


_COLUMNS = ", ".join(RefundRow._fields)


def _row(found: tuple[object, ...] | None) -> RefundRow | None:
    return None if found is None else RefundRow(*found)._replace(allow_debt=bool(found[8]))  # type: ignore[arg-type]


def insert(cursor: Cursor, row: RefundRow) -> None:
    """Keep a request; raises IntegrityError where another one of the payment has no answer."""
    marks = ", ".join("?" * len(row))
    cursor.execute(
        f"INSERT INTO credit_refund ({_COLUMNS}) VALUES ({marks})",
        tuple(int(value) if isinstance(value, bool) else value for value in row),
    )


def load(cursor: Cursor, refund_id: str) -> RefundRow | None:
    """Read one request."""
    return _row(
        cursor.execute(
            f"SELECT {_COLUMNS} FROM credit_refund WHERE refund_id = ?", (refund_id,)
        ).fetchone()
    )


def by_key(cursor: Cursor, practice_no: int, request_key: str) -> RefundRow | None:
    """Read the request that a key belongs to."""
    return _row(
        cursor.execute(
            f"SELECT {_COLUMNS} FROM credit_refund WHERE practice_no = ? AND request_key = ?",
            (practice_no, request_key),
        ).fetchone()
    )


def in_flight(cursor: Cursor, payment_id: str) -> RefundRow | None:
    """Read the request of a payment that has no answer yet."""
    return _row(
        cursor.execute(
            f"SELECT {_COLUMNS} FROM credit_refund WHERE payment_id = ?"
            " AND status IN ('pending', 'unknown')",
            (payment_id,),
        ).fetchone()
    )


def of_payment(cursor: Cursor, payment_id: str) -> list[RefundRow]:
    """Read all requests of a payment, oldest first."""
    found = cursor.execute(
        f"SELECT {_COLUMNS} FROM credit_refund WHERE payment_id = ?"
        " ORDER BY asked_at_s, refund_id LIMIT 500",
        (payment_id,),
    ).fetchall()
    return [row for one in found if (row := _row(one)) is not None]


def due(cursor: Cursor, now_s: int, limit: int) -> list[RefundRow]:
    """Read requests without an answer that are due to be asked for again."""
    found = cursor.execute(
        f"SELECT {_COLUMNS} FROM credit_refund WHERE status IN ('pending', 'unknown')"
        " AND next_try_at_s <= ? ORDER BY next_try_at_s, refund_id LIMIT ?",
        (now_s, limit),
    ).fetchall()
    return [row for one in found if (row := _row(one)) is not None]


def move(
    cursor: Cursor,
    refund_id: str,
    status: str,
    *,
    from_statuses: frozenset[str],
    provider_refund_id: str = "",
    reason: str = "",
    ended_at_s: int = 0,
) -> bool:
    """Move a request along, if it still stands where it was seen; tell whether this did it."""
    marks = ", ".join("?" * len(from_statuses))
    cursor.execute(
        "UPDATE credit_refund SET status = ?, reason = ?, ended_at_s = ?, provider_refund_id ="
        " CASE ? WHEN '' THEN provider_refund_id ELSE ? END"
        f" WHERE refund_id = ? AND status IN ({marks})",
        (
            status, reason, ended_at_s, provider_refund_id, provider_refund_id, refund_id,
            *sorted(from_statuses),
        ),
    )  # fmt: skip
    return cursor.rowcount == 1


def note_try(cursor: Cursor, refund_id: str, next_try_at_s: int) -> None:
    """Note, before the provider is asked, that it is asked; and when it would be asked again."""
    cursor.execute(
        "UPDATE credit_refund SET attempts = attempts + 1, next_try_at_s = ? WHERE refund_id = ?",
        (next_try_at_s, refund_id),
    )


def waiting_count(cursor: Cursor) -> int:
    """Count requests without an answer."""
    row = cursor.execute(
        "SELECT COUNT(*) FROM credit_refund WHERE status IN ('pending', 'unknown')"
    ).fetchone()
    return int(row[0])
