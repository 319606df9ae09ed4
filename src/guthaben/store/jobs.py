"""Rows of background work: who does it, and how each job is doing.

Law: one holder at a time by the servers' clocks, and a fence that grows with each new holder, for
the case that a clock or a pause lies: what an older holder writes later is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor

_LEADER = "leader"
_SKEW_MS = 60_000
"""How far the clocks of two servers may differ."""


class Lease(NamedTuple):
    """Who leads: an opaque holder, where it runs, its fence, and until when it may be believed."""

    holder: str
    place: str
    fence: int
    until_ms: int


class JobRow(NamedTuple):
    """How one job is doing. 0 stands for never; `lag_ms` is how late its last turn began."""

    name: str
    fence: int
    every_s: int
    next_due_ms: int
    started_at_ms: int = 0
    ended_at_ms: int = 0
    succeeded_at_ms: int = 0
    lag_ms: int = 0
    outcome: str = "never"
    error: str = ""
    failures_in_a_row: int = 0
    runs: int = 0
    failures: int = 0


_COLUMNS = ", ".join(JobRow._fields)
_UPSERT = (
    f"INSERT INTO credit_job ({_COLUMNS}) VALUES ({', '.join('?' * len(JobRow._fields))})"
    " ON CONFLICT (name) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in JobRow._fields[1:])
    + " WHERE credit_job.fence <= excluded.fence"
)


def lead(cursor: Cursor, holder: str, place: str, *, now_ms: int, for_ms: int) -> Lease | None:
    """Take the lead or keep it, in one transaction; None while somebody else has it.

    A lease that ends more than a minute later than one taken now would is left from before a clock
    was set back, and counts as over.
    """
    until_ms = now_ms + for_ms
    cursor.execute(
        "INSERT INTO credit_lease (name, holder, place, fence, until_ms) VALUES (?, '', '', 0, 0)"
        " ON CONFLICT DO NOTHING",
        (_LEADER,),
    )
    cursor.execute(
        "UPDATE credit_lease SET fence = CASE WHEN holder = ? THEN fence ELSE fence + 1 END,"
        " holder = ?, place = ?, until_ms = ?"
        " WHERE name = ? AND (holder = ? OR until_ms <= ? OR until_ms > ?)",
        (holder, holder, place, until_ms, _LEADER, holder, now_ms, until_ms + _SKEW_MS),
    )
    found = leader(cursor)
    return found if found is not None and found.holder == holder else None


def resign(cursor: Cursor, holder: str) -> None:
    """Give the lead up, so that nobody has to wait for its end."""
    cursor.execute(
        "UPDATE credit_lease SET holder = '', until_ms = 0 WHERE name = ? AND holder = ?",
        (_LEADER, holder),
    )


def leader(cursor: Cursor) -> Lease | None:
    """Tell who leads, or led last."""
    row = cursor.execute(
        "SELECT holder, place, fence, until_ms FROM credit_lease WHERE name = ?", (_LEADER,)
    ).fetchone()
    return Lease(*row) if row else None


def lock_fence(cursor: Cursor, fence: int) -> bool:
    """Tell whether this fence is still the newest, and keep it so until the transaction ends."""
    cursor.execute(
        "UPDATE credit_lease SET fence = fence WHERE name = ? AND fence = ?", (_LEADER, fence)
    )
    return cursor.rowcount == 1


def load_jobs(cursor: Cursor) -> list[JobRow]:
    """Read how all jobs are doing, in the order of their names."""
    rows = cursor.execute(f"SELECT {_COLUMNS} FROM credit_job ORDER BY name")
    return [JobRow(*row) for row in rows]


def save_job(cursor: Cursor, row: JobRow) -> None:
    """Write how a job is doing, unless a later leader has written since."""
    cursor.execute(_UPSERT, row)
