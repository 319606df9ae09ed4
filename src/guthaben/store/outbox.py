"""Rows of what is told: notices.

Law: a notice is written in the transaction of the change that it tells of, once per practice, kind
and key. Who gets it is worked out later; no address stands here. Practice number 0: the operator.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class NoticeRow(NamedTuple):
    """One thing that is told. `facts` is a flat JSON object; `spread_at_s` 0: nobody has it yet."""

    practice_no: int
    kind: str
    key: str
    notice_id: str
    facts: str
    told_at_s: int
    spread_at_s: int = 0


_NOTICE = ", ".join(NoticeRow._fields)


def add_notice(cursor: sqlite3.Cursor, row: NoticeRow) -> bool:
    """Write a notice; tell whether this was not told before."""
    cursor.execute(
        f"INSERT INTO credit_notice ({_NOTICE}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (practice_no, kind, key) DO NOTHING",
        row,
    )
    return cursor.rowcount == 1


def find_notice(cursor: sqlite3.Cursor, notice_id: str) -> NoticeRow | None:
    """Read one notice by its id."""
    row = cursor.execute(
        f"SELECT {_NOTICE} FROM credit_notice WHERE notice_id = ?", (notice_id,)
    ).fetchone()
    return NoticeRow(*row) if row else None


def told(cursor: sqlite3.Cursor, practice_no: int, limit: int) -> list[NoticeRow]:
    """Read what a practice, or with 0 the operator, was told, newest first."""
    rows = cursor.execute(
        f"SELECT {_NOTICE} FROM credit_notice WHERE practice_no = ?"
        " ORDER BY told_at_s DESC, notice_id LIMIT ?",
        (practice_no, limit),
    )
    return [NoticeRow(*row) for row in rows]
