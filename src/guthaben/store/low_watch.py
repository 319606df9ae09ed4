"""Rows of the watch for low credit: how low each practice was told to be.

Law: a practice's row is bounded state and changes only when something is told or credit comes; what
changed since the last look is found without reading any history.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.practice import balance_of
from guthaben.store import queries
from guthaben.store.session import Cursor


class Touched(NamedTuple):
    """A practice, and how many transfers it has had."""

    practice_no: int
    practice_id: str
    last_seq: int


class Level(NamedTuple):
    """How low a practice was told to be, in per cent, and against which credit."""

    level: int
    basis: str
    crossings: int


class Standing(NamedTuple):
    """What a practice has left, and of how much; `basis` names the credit it is compared with."""

    remaining_nano_usd: int
    of_nano_usd: int
    debt_nano_usd: int
    basis: str


def page(cursor: Cursor, after_no: int, limit: int) -> list[Touched]:
    """Read practices by number."""
    rows = cursor.execute(
        "SELECT practice_no, practice_id, last_seq FROM credit_practice WHERE practice_no > ?"
        " ORDER BY practice_no LIMIT ?",
        (after_no, limit),
    )
    return [Touched(*row) for row in rows]


def standing(cursor: Cursor, touched: Touched, now_s: int) -> Standing:
    """Compute what a practice has left of its period's allowance, or of the last credit it got.

    What open calls hold counts as left: it may come back.
    """
    practice, period = queries.practice_with(cursor, touched.practice_id, None, now_s)
    balance = balance_of(practice, period, now_s)
    row = cursor.execute(
        "SELECT grant_no, granted_nano_usd FROM credit_grant WHERE practice_no = ? AND kind <> 1"
        " ORDER BY grant_no DESC LIMIT 1",
        (touched.practice_no,),
    ).fetchone()
    newest_no, newest_nano_usd = row or (0, 0)
    return Standing(
        balance.available_nano_usd + practice.held_nano_usd,
        period.allowance_nano_usd or newest_nano_usd,
        practice.debt_nano_usd,
        f"{period.license}:{period.start_s if period.allowance_nano_usd else 0}:{newest_no}",
    )


def load_level(cursor: Cursor, practice_no: int) -> Level | None:
    """Read how low a practice was told to be."""
    row = cursor.execute(
        "SELECT level, basis, crossings FROM credit_low_watch WHERE practice_no = ?", (practice_no,)
    ).fetchone()
    return Level(*row) if row else None


def save_level(cursor: Cursor, practice_no: int, level: Level) -> None:
    """Write how low a practice was told to be."""
    cursor.execute(
        "INSERT INTO credit_low_watch (practice_no, level, basis, crossings) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (practice_no) DO UPDATE SET level = excluded.level, basis = excluded.basis,"
        " crossings = excluded.crossings",
        (practice_no, *level),
    )
