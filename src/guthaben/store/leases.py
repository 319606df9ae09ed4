"""Rows of leases: what clients of the Cycles protocol said of their calls, the keys of their steps.

Law: written in the transaction of the call or step they belong to. A page of a list reads a bounded
number of rows, whatever it looks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from guthaben.domain.calls import LEVELS, Call, Operation, Told
from guthaben.domain.commands import Step, StepKind
from guthaben.store import calls
from guthaben.store.session import Cursor

MOST_LOOKED_AT: Final = 2_000
"""How many leases a page looks at before it is given as it is."""

_TOLD = ", ".join(Told._fields)
_STEP = ", ".join(Step._fields)
_INSERT_TOLD = (
    f"INSERT INTO credit_cycles_call (practice_no, call_no, {_TOLD})"
    f" VALUES ({', '.join('?' * (2 + len(Told._fields)))})"
)
_INSERT_STEP = (
    f"INSERT INTO credit_cycles_step (practice_no, {_STEP})"
    f" VALUES ({', '.join('?' * (1 + len(Step._fields)))})"
)
_SELECT_STEP = (
    f"SELECT {_STEP} FROM credit_cycles_step WHERE practice_no = ? AND kind = ? AND key = ?"
)
_SELECT_END = (
    f"SELECT {_STEP} FROM credit_cycles_step WHERE practice_no = ? AND call_no = ?"
    " AND kind IN (2, 3)"
)
_SELECT_LEASE = f"SELECT {_TOLD} FROM credit_cycles_call WHERE practice_no = ? AND call_no = ?"
_RESERVE = int(Operation.RESERVE)


class Lease(NamedTuple):
    """One lease: its call, its client's words, and how it ended if a step of it did that."""

    call: Call
    told: Told
    end: Step | None

    @property
    def finalized_at_ms(self) -> int:
        """When it was committed or released; 0 while it was not."""
        if self.end is not None:
            return self.end.at_ms
        return max(self.call.ended_at_s * 1000, self.call.created_at_ms)

    @property
    def committed_told(self) -> str:
        """What came with its commit."""
        commit = self.end is not None and self.end.kind == StepKind.COMMIT
        return self.end.told if commit and self.end is not None else ""


class LeasePage(NamedTuple):
    """Leases, newest (or oldest) first; `next_no` is where the next page begins, None for none."""

    leases: list[Lease]
    next_no: int | None


def insert_told(cursor: Cursor, rows: Iterable[tuple[int, int, Told]]) -> None:
    """Store what was said of new calls, given with practice and call."""
    cursor.executemany(_INSERT_TOLD, [(number, call_no, *told) for number, call_no, told in rows])


def insert_steps(cursor: Cursor, rows: Iterable[tuple[int, Step]]) -> None:
    """Store the keys of accepted steps."""
    cursor.executemany(_INSERT_STEP, [(number, *step) for number, step in rows])


def load_step(cursor: Cursor, practice_no: int, kind: int, key: str) -> Step | None:
    """Read what is remembered of a key."""
    row = cursor.execute(_SELECT_STEP, (practice_no, kind, key)).fetchone()
    return Step._make(row) if row else None


def load_lease(cursor: Cursor, practice_no: int, call_no: int) -> Lease | None:
    """Read one lease."""
    told = cursor.execute(_SELECT_LEASE, (practice_no, call_no)).fetchone()
    call = calls.load_call(cursor, practice_no, call_no) if told else None
    if call is None or call.operation != _RESERVE:
        return None
    end = cursor.execute(_SELECT_END, (practice_no, call_no)).fetchone()
    return Lease(call, Told._make(told), Step._make(end) if end else None)


def load_lease_by_key(cursor: Cursor, practice_no: int, key: str) -> Lease | None:
    """Read the lease that a key began; `key` is the call's, not the client's."""
    call = calls.load_call_by_key(cursor, practice_no, _RESERVE, key)
    return load_lease(cursor, practice_no, call.call_no) if call is not None else None


def list_numbers(
    cursor: Cursor,
    practice_no: int,
    subject: Mapping[str, str],
    start_no: int | None,
    *,
    ascending: bool,
    open_only: bool,
) -> list[tuple[int, bool]]:
    """Read the numbers of the next leases, at most `MOST_LOOKED_AT`, and whether each fits.

    `subject` holds the wanted ones of `LEVELS`; `start_no` is the first number looked at.
    """
    fits = " AND ".join([f"l.{name} = ?" for name in LEVELS if name in subject]) or "1 = 1"
    wanted = [subject[name] for name in LEVELS if name in subject]
    edge = "" if start_no is None else f" AND l.call_no {'>=' if ascending else '<='} ?"
    opened = (
        " AND l.call_no IN (SELECT call_no FROM credit_call WHERE practice_no = ? AND status = 1)"
    )
    rows = cursor.execute(
        f"SELECT l.call_no, {fits} FROM credit_cycles_call l WHERE l.practice_no = ?"
        f"{opened if open_only else ''}{edge}"
        f" ORDER BY l.call_no {'ASC' if ascending else 'DESC'} LIMIT ?",
        (
            *wanted,
            practice_no,
            *([practice_no] if open_only else []),
            *([] if start_no is None else [start_no]),
            MOST_LOOKED_AT,
        ),
    ).fetchall()
    return [(int(call_no), bool(is_fit)) for call_no, is_fit in rows]
