"""Rows around automatic attempts: counters, needs, payments left open, who is due, stops.

Law: the counters are read from the credit events themselves, in the transaction that claims; the
settings only hold where the need at hand began and when to try again. Bounded by indices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from guthaben.domain.auto_topup import CARD_WINDOW_S, AutoTopup
from guthaben.store.session import Cursor
from guthaben.store.topups import SELECTED, Located, event_from_row

EVERYBODY = 0
"""Stands for all practices where a stop names one."""


def with_tries(cursor: Cursor, practice_no: int, context: AutoTopup, now_s: int) -> AutoTopup:
    """Add to what a claim looks at: stops, back-off, tries and failures, what is still open."""
    row = cursor.execute(
        "SELECT largest_minor, on_decline, need_no, retry_at_s, since_event_no"
        " FROM credit_topup_settings WHERE practice_no = ?",
        (practice_no,),
    ).fetchone()
    largest, on_decline, need_no, retry_at_s, since = row or (0, context.on_decline, 0, 0, 0)
    return context._replace(
        largest_rappen=largest,
        on_decline=on_decline,
        need_no=need_no,
        retry_at_s=retry_at_s,
        stopped=is_stopped(cursor, practice_no),
        spent_rappen=context.spent_rappen + open_rappen(cursor, practice_no, context.cap_month),
        tries_of_need=tries_of_need(cursor, practice_no, need_no) if need_no else 0,
        failures_in_row=failures_since(cursor, practice_no, since),
        tries_of_card=tries_of_card(cursor, practice_no, context.payment_method_id, now_s),
    )


def open_rappen(cursor: Cursor, practice_no: int, cap_month: str) -> int:
    """Add up what failed attempts of a month could still take at the provider."""
    return _number(
        cursor,
        "SELECT COALESCE(SUM(open_minor), 0) FROM credit_event"
        " WHERE practice_no = ? AND open_minor > 0 AND cap_month = ?",
        (practice_no, cap_month),
    )


def tries_of_need(cursor: Cursor, practice_no: int, need_no: int) -> int:
    """Count the attempts of a need that may have reached the card."""
    return _number(
        cursor,
        "SELECT COUNT(*) FROM credit_event WHERE practice_no = ? AND need_no = ? AND need_no <> 0"
        " AND verdict <> 'unsent' AND status <> 'canceled'",
        (practice_no, need_no),
    )


def failures_since(cursor: Cursor, practice_no: int, since_event_no: int) -> int:
    """Count the declined attempts after an event."""
    return _number(
        cursor,
        "SELECT COUNT(*) FROM credit_event WHERE practice_no = ? AND event_no > ?"
        " AND verdict IN ('never', 'soon', 'later')",
        (practice_no, since_event_no),
    )


def tries_of_card(cursor: Cursor, practice_no: int, method_id: str, now_s: int) -> int:
    """Count the attempts on a card without success within the window."""
    if not method_id:
        return 0
    return _number(
        cursor,
        "SELECT COUNT(*) FROM credit_event WHERE practice_no = ? AND method_id = ?"
        " AND method_id <> '' AND recorded_at_s > ? AND verdict <> 'unsent'"
        " AND status NOT IN ('succeeded', 'canceled')",
        (practice_no, method_id, now_s - CARD_WINDOW_S),
    )


def begin_need(cursor: Cursor, practice_no: int, need_no: int) -> None:
    """Note that a need began with this attempt."""
    cursor.execute(
        "UPDATE credit_topup_settings SET need_no = ? WHERE practice_no = ?",
        (need_no, practice_no),
    )


def end_need(cursor: Cursor, practice_no: int, card_paid_event_no: int) -> None:
    """Note that credit came; if the saved card paid it, its failures and its wait are over."""
    cursor.execute(
        "UPDATE credit_topup_settings SET need_no = 0,"
        " retry_at_s = CASE WHEN ? > 0 THEN 0 ELSE retry_at_s END,"
        " since_event_no = CASE WHEN since_event_no < ? THEN ? ELSE since_event_no END"
        " WHERE practice_no = ?",
        (card_paid_event_no, card_paid_event_no, card_paid_event_no, practice_no),
    )


def forgive(cursor: Cursor, practice_no: int) -> None:
    """Begin anew after the customer acted: failures so far count no longer, nor does the wait."""
    cursor.execute(
        "UPDATE credit_topup_settings SET need_no = 0, retry_at_s = 0, since_event_no ="
        " (SELECT COALESCE(MAX(event_no), 0) FROM credit_event WHERE practice_no = ?)"
        " WHERE practice_no = ?",
        (practice_no, practice_no),
    )


def retry_at(cursor: Cursor, practice_no: int, at_s: int) -> None:
    """Let no attempt be made before an instant."""
    cursor.execute(
        "UPDATE credit_topup_settings SET retry_at_s = ? WHERE practice_no = ?",
        (at_s, practice_no),
    )


class Due(NamedTuple):
    """A practice to look at, and where the next page begins."""

    practice_no: int
    practice_id: str


def due_practices(cursor: Cursor, now_s: int, after_no: int, limit: int) -> list[Due]:
    """Read practices whose automatic top-up is on and may be looked at again."""
    rows = cursor.execute(
        "SELECT practice_no, practice_id FROM credit_practice WHERE auto_topup_armed = 1"
        " AND auto_topup_next_s <= ? AND practice_no > ? ORDER BY practice_no LIMIT ?",
        (now_s, after_no, limit),
    ).fetchall()
    return [Due(*row) for row in rows]


def open_payments(cursor: Cursor, after: tuple[int, int], limit: int) -> list[Located]:
    """Read failed attempts whose payment the provider has not cancelled, a page at a time."""
    fields = ", ".join(f"e.{name}" for name in SELECTED.split(", "))
    rows = cursor.execute(
        f"SELECT p.practice_no, p.practice_id, {fields} FROM credit_event e"
        " JOIN credit_practice_name p ON p.practice_no = e.practice_no"
        " WHERE e.open_minor > 0 AND (e.practice_no, e.event_no) > (?, ?)"
        " ORDER BY e.practice_no, e.event_no LIMIT ?",
        (*after, limit),
    ).fetchall()
    return [Located(row[0], row[1], event_from_row(row[2:])) for row in rows]


def left_open(cursor: Cursor, practice_no: int) -> list[Located]:
    """Read the failed attempts of one practice that its customer could still complete."""
    rows = cursor.execute(
        f"SELECT {SELECTED} FROM credit_event WHERE practice_no = ? AND open_minor > 0"
        " ORDER BY event_no",
        (practice_no,),
    ).fetchall()
    return [Located(practice_no, "", event_from_row(row)) for row in rows]


# ---------------------------------------------------------------- stops


class Stop(NamedTuple):
    """An operator's stop of automatic charges."""

    reason: str
    actor: str
    at_s: int


def is_stopped(cursor: Cursor, practice_no: int) -> bool:
    """Tell whether an operator holds back this practice, or all."""
    return (
        cursor.execute(
            "SELECT 1 FROM credit_topup_stop WHERE practice_no IN (?, ?) LIMIT 1",
            (EVERYBODY, practice_no),
        ).fetchone()
        is not None
    )


def find_stop(cursor: Cursor, practice_no: int) -> Stop | None:
    """Read the stop of one practice, or with `EVERYBODY` that of all."""
    row = cursor.execute(
        "SELECT reason, actor, at_s FROM credit_topup_stop WHERE practice_no = ?", (practice_no,)
    ).fetchone()
    return Stop(*row) if row else None


def put_stop(cursor: Cursor, practice_no: int, stop: Stop) -> bool:
    """Stop a practice, or all; tell whether it is new. The first reason stands.

    One that another server is lifting in this moment is waited for, so that this one stands.
    """
    cursor.execute(
        "INSERT INTO credit_topup_stop (practice_no, reason, actor, at_s) VALUES (?, ?, ?, ?)"
        # Changes nothing, but locks the row that is there.
        " ON CONFLICT (practice_no) DO UPDATE SET at_s = excluded.at_s"
        " WHERE credit_topup_stop.practice_no < 0",
        (practice_no, *stop),
    )
    return cursor.rowcount == 1


def lift_stop(cursor: Cursor, practice_no: int) -> bool:
    """Lift a stop; tell whether there was one. What was put off is looked at again."""
    cursor.execute("DELETE FROM credit_topup_stop WHERE practice_no = ?", (practice_no,))
    return cursor.rowcount == 1


def stopped_practices(cursor: Cursor, limit: int) -> list[tuple[str, Stop]]:
    """List the practices that an operator holds back."""
    rows = cursor.execute(
        "SELECT p.practice_id, s.reason, s.actor, s.at_s FROM credit_topup_stop s"
        " JOIN credit_practice_name p ON p.practice_no = s.practice_no"
        " ORDER BY p.practice_id LIMIT ?",
        (limit,),
    ).fetchall()
    return [(str(row[0]), Stop(*row[1:])) for row in rows]


def _number(cursor: Cursor, sql: str, values: tuple[Any, ...]) -> int:
    return int(cursor.execute(sql, values).fetchone()[0])
