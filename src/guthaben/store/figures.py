"""Figures about the whole database for an operator: totals, what waits, alarms.

Law: they change nothing, and their cost grows with the number of practices, never with history.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from guthaben.store import cases, payment_states, refunds
from guthaben.store import inbox as inbox_rows
from guthaben.store.jobs import JobRow, load_jobs
from guthaben.store.outbox import OutboxFigures, outbox_figures
from guthaben.store.session import Cursor


class Figures(NamedTuple):
    """Totals of one moment; amounts in nano-USD."""

    practices: int
    held_nano_usd: int
    debt_nano_usd: int
    inbox_waiting: int
    attempts_waiting: int
    open_alarms: int
    outbox: OutboxFigures = OutboxFigures(0, 0, 0, 0)
    jobs: tuple[JobRow, ...] = ()
    inbox_dead: int = 0
    inbox_quarantined: int = 0
    open_cases: int = 0
    refunds_waiting: int = 0
    reconcile_remaining: int = 0
    reconcile_ended_at_s: int = 0


def figures(cursor: Cursor) -> Figures:
    """Add up what the whole database holds."""
    practices, held, debt = cursor.execute(
        "SELECT COUNT(*), COALESCE(SUM(held_nano_usd), 0), COALESCE(SUM(debt_nano_usd), 0)"
        " FROM credit_practice"
    ).fetchone()
    (inbox,) = cursor.execute("SELECT COUNT(*) FROM credit_inbox WHERE status = 'new'").fetchone()
    (attempts,) = cursor.execute(
        "SELECT COUNT(*) FROM credit_event WHERE status IN ('pending', 'unknown')"
        " AND event_type = 'auto_topup_purchase'"
    ).fetchone()
    (alarms,) = cursor.execute(
        "SELECT COUNT(*) FROM credit_alarm WHERE cleared_at_s = 0"
    ).fetchone()
    stuck = inbox_rows.depth(cursor)
    run = payment_states.last_run(cursor) or {}
    told, jobs = outbox_figures(cursor), tuple(load_jobs(cursor))
    return Figures(
        practices, held, debt, inbox, attempts, alarms, told, jobs, stuck.get("dead", 0),
        stuck.get("quarantined", 0), cases.open_count(cursor), refunds.waiting_count(cursor),
        run.get("remaining", 0), run.get("ended_at_s", 0),
    )  # fmt: skip


def alarms(cursor: Cursor, practice_id: str | None, limit: int) -> list[dict[str, Any]]:
    """Read alarms that nobody cleared, newest first; of one practice or all."""
    where, values = ("", ()) if practice_id is None else (" AND p.practice_id = ?", (practice_id,))
    rows = cursor.execute(
        "SELECT a.alarm_no, a.code, p.practice_id, a.subject, a.raised_at_s FROM credit_alarm a"
        " LEFT JOIN credit_practice_name p ON p.practice_no = a.practice_no"
        f" WHERE a.cleared_at_s = 0{where} ORDER BY a.alarm_no DESC LIMIT ?",
        (*values, limit),
    )
    names = ("alarm_no", "code", "practice_id", "subject", "raised_at_s")
    return [dict(zip(names, row, strict=True)) for row in rows]
