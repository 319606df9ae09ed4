"""Rows of cases: money that is somewhere and not credited, held for a person; what operators did.

Law: a payment has one case, a case is resolved once. Nothing is deleted; what an operator wrote,
and who it was, stands in a table of its own and may be erased.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from guthaben.store.session import Cursor

OPEN: Final = "open"
CREDITED: Final = "credited"
REFUNDED: Final = "refunded"
DISMISSED: Final = "dismissed"


class Case(NamedTuple):
    """One case; `practice_id` is empty and both numbers are 0 where nobody knows whose it is."""

    case_no: int
    status: str
    reason: str
    practice_id: str
    practice_no: int
    event_no: int
    payment_id: str
    session_id: str
    livemode: bool | None
    amount_minor: int | None
    currency: str
    opened_at_s: int
    resolved_at_s: int
    to_practice_no: int
    to_event_no: int


_SELECT = (
    "SELECT c.case_no, c.status, c.reason, COALESCE(p.practice_id, ''), c.practice_no, c.event_no,"
    " c.payment_id, c.session_id, c.livemode, c.amount_minor, c.currency, c.opened_at_s,"
    " c.resolved_at_s, c.to_practice_no, c.to_event_no FROM credit_case c"
    " LEFT JOIN credit_practice_name p ON p.practice_no = c.practice_no"
)


def _case(row: tuple[Any, ...]) -> Case:
    fields = list(row)
    fields[8] = None if fields[8] is None else bool(fields[8])
    return Case(*fields)


def open_case(
    cursor: Cursor,
    *,
    practice_no: int,
    event_no: int,
    payment_id: str,
    session_id: str,
    livemode: bool | None,
    amount_minor: int | None,
    currency: str,
    reason: str,
    now_s: int,
) -> bool:
    """Open a case; tell whether it is new. The same payment, told again, stays one case."""
    cursor.execute(
        "INSERT INTO credit_case (provider, payment_id, session_id, livemode, practice_no,"
        " event_no, amount_minor, currency, reason, opened_at_s, status) VALUES"
        " ('stripe', ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open') ON CONFLICT DO NOTHING",
        (
            payment_id, session_id, None if livemode is None else int(livemode), practice_no,
            event_no, amount_minor, currency, reason, now_s,
        ),
    )  # fmt: skip
    return cursor.rowcount == 1


def load(cursor: Cursor, case_no: int) -> Case | None:
    """Read one case."""
    row = cursor.execute(f"{_SELECT} WHERE c.case_no = ?", (case_no,)).fetchone()
    return _case(row) if row else None


def hold_still(cursor: Cursor, case_no: int) -> None:
    """Let no other transaction decide about a case until this one ends."""
    cursor.execute("UPDATE credit_case SET status = status WHERE case_no = ?", (case_no,))


def of_payment(cursor: Cursor, payment_id: str) -> Case | None:
    """Read the newest case of a payment."""
    row = cursor.execute(
        f"{_SELECT} WHERE c.payment_id = ? AND c.payment_id <> '' ORDER BY c.case_no DESC LIMIT 1",
        (payment_id,),
    ).fetchone()
    return _case(row) if row else None


def page(
    cursor: Cursor,
    *,
    only_open: bool,
    practice_id: str | None,
    after_case_no: int,
    limit: int,
) -> list[Case]:
    """Read cases in the order of their numbers, of one practice or of all."""
    where, values = "c.case_no > ?", [after_case_no]
    if only_open:
        where += " AND c.status = 'open'"
    if practice_id is not None:
        where += " AND p.practice_id = ?"
    asked: list[Any] = [*values, *([] if practice_id is None else [practice_id]), limit]
    rows = cursor.execute(f"{_SELECT} WHERE {where} ORDER BY c.case_no LIMIT ?", asked).fetchall()
    return [_case(row) for row in rows]


def resolve(
    cursor: Cursor,
    case_no: int,
    status: str,
    now_s: int,
    *,
    to_practice_no: int = 0,
    to_event_no: int = 0,
) -> bool:
    """Resolve an open case; tell whether this did it."""
    cursor.execute(
        "UPDATE credit_case SET status = ?, resolved_at_s = ?, to_practice_no = ?, to_event_no = ?"
        " WHERE case_no = ? AND status = 'open'",
        (status, now_s, to_practice_no, to_event_no, case_no),
    )
    return cursor.rowcount == 1


def reopen(cursor: Cursor, case_no: int) -> None:
    """Open a case again whose money came back."""
    cursor.execute(
        "UPDATE credit_case SET status = 'open', resolved_at_s = 0 WHERE case_no = ?"
        " AND status = 'refunded'",
        (case_no,),
    )


def open_count(cursor: Cursor) -> int:
    """Count what waits for a person."""
    row = cursor.execute("SELECT COUNT(*) FROM credit_case WHERE status = 'open'").fetchone()
    return int(row[0])


# ---------------------------------------------------------------- what operators did


class OperatorNote(NamedTuple):
    """What an operator did; author and reason are None once they were erased."""

    note_no: int
    subject: str
    action: str
    at_s: int
    author: str | None
    reason: str | None


def write_note(
    cursor: Cursor, subject: str, action: str, *, author: str, reason: str, now_s: int
) -> None:
    """Write down what an operator did, and why."""
    cursor.execute(
        "INSERT INTO credit_operator_note (subject, action, at_s, author, reason)"
        " VALUES (?, ?, ?, ?, ?)",
        (subject, action, now_s, author, reason),
    )


def notes(cursor: Cursor, subject: str) -> list[OperatorNote]:
    """Read what operators did to one thing, oldest first."""
    rows = cursor.execute(
        "SELECT note_no, subject, action, at_s, author, reason FROM credit_operator_note"
        " WHERE subject = ? ORDER BY note_no",
        (subject,),
    ).fetchall()
    return [OperatorNote(*row) for row in rows]


def clear_alarm(cursor: Cursor, code: str, subject: str, now_s: int) -> None:
    """Clear an alarm whose cause an operator dealt with."""
    cursor.execute(
        "UPDATE credit_alarm SET cleared_at_s = ? WHERE code = ? AND subject = ?"
        " AND cleared_at_s = 0",
        (now_s, code, subject),
    )
