"""Rows of calls: the hold while it is open, the usage event afterwards.

Law: a call costs one row; a shorter one for ever once its own has left for the archive. Empty texts
are stored as NULL, which takes no room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from guthaben.domain.calls import (
    ARCHIVED_EXPIRY,
    BY_CALLER,
    NO_ORIGIN,
    NO_USAGE,
    SETTLED_LATE,
    Call,
    Origin,
    Usage,
)
from guthaben.domain.grants import Slice
from guthaben.store.session import Cursor

CORE = Call._fields[:-2]
COLUMNS = (*CORE, *Usage._fields, *Origin._fields)
_N_CORE = len(CORE)
_N_USAGE = len(Usage._fields)
_SLICES = CORE.index("slices")
SELECTED = ", ".join(COLUMNS)

_SELECT_BY_NO = f"SELECT {SELECTED} FROM credit_call WHERE practice_no = ? AND call_no = ?"
SELECT_BY_KEY = (
    f"SELECT {SELECTED} FROM credit_call WHERE practice_no = ? AND operation = ? AND key = ?"
)
SELECT_NO_BY_KEY = (
    "SELECT call_no FROM credit_call WHERE practice_no = ? AND operation = ? AND key = ?"
)
"""Half the price of a whole row that is not there, and nearly every key is new."""
ARCHIVED = (
    "call_no", "operation", "key", "body_hash", "status", "created_at_ms", "ended_at_s",
    "reserved_nano_usd", "cost_nano_usd", "first_seq",
)  # fmt: skip
"""What is still known here of a call whose row has left."""
_SELECT_ARCHIVED = f"SELECT {', '.join(ARCHIVED)} FROM credit_archived_call WHERE practice_no = ?"
SELECT_ARCHIVED_BY_KEY = f"{_SELECT_ARCHIVED} AND operation = ? AND key = ?"
SELECT_ARCHIVED_PAGE = f"{_SELECT_ARCHIVED} AND call_no < ? ORDER BY call_no DESC LIMIT ?"
_SELECT_DUE = (
    f"SELECT {SELECTED} FROM credit_call WHERE practice_no = ? AND status = 1"
    " AND expires_at_ms + grace_ms <= ? ORDER BY expires_at_ms + grace_ms, call_no LIMIT ?"
)
_SELECT_NEXT_DUE = (
    "SELECT MIN(expires_at_ms + grace_ms) FROM credit_call WHERE practice_no = ? AND status = 1"
)
_INSERT = (
    f"INSERT INTO credit_call (practice_no, {SELECTED})"
    f" VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
)
_INSERT_BARE = (
    f"INSERT INTO credit_call (practice_no, {', '.join((*CORE, *Usage._fields))})"
    f" VALUES ({', '.join('?' * (len(CORE) + 1))}, NULL, NULL, 0, 0, 0, 0, NULL)"
)
"""What nearly every reservation is: usage comes with its end, and nobody told an origin."""
_CHANGING = (
    "status", "ended_by", "expires_at_ms", "cost_nano_usd", "slices", "ended_at_s", "first_seq",
    "uncovered_nano_usd",    *Usage._fields,
)  # fmt: skip
_UPDATE = (
    f"UPDATE credit_call SET {', '.join(f'{name} = ?' for name in _CHANGING)}"
    " WHERE practice_no = ? AND call_no = ?"
)
_UPDATE_OPEN = f"{_UPDATE} AND status < 2"
"""What was open until now: where a database keeps open calls apart, it looks nowhere else."""
SWEEP_LIMIT = 100


def from_row(row: tuple[Any, ...]) -> Call:
    """Make a call of the columns in `COLUMNS`."""
    core = list(row[:_N_CORE])
    core[_SLICES] = _parse(core[_SLICES])
    model, operation_type, *counts, version = row[_N_CORE : _N_CORE + _N_USAGE]
    usage = Usage._make((model or "", operation_type or "", *counts, version or ""))
    origin = Origin._make(text or "" for text in row[_N_CORE + _N_USAGE :])
    return Call._make((*core, usage, origin))


def _parse(slices: str) -> tuple[Slice, ...]:
    if not slices:
        return ()
    pairs = (piece.split(":") for piece in slices.split(","))
    return tuple(Slice(int(grant_no), int(amount)) for grant_no, amount in pairs)


def _write(slices: tuple[Slice, ...]) -> str:
    return ",".join([f"{grant_no}:{amount}" for grant_no, amount in slices])


def _usage_row(usage: Usage) -> tuple[Any, ...]:
    model, operation_type, ins, outs, total, audio_us, version = usage
    return (model or None, operation_type or None, ins, outs, total, audio_us, version or None)


def insert_calls(cursor: Cursor, rows: Iterable[tuple[int, Call]]) -> None:
    """Store new calls, given with their practice's number."""
    bare: list[tuple[Any, ...]] = []
    full: list[tuple[Any, ...]] = []
    for practice_no, call in rows:
        core = (practice_no, *call[:_SLICES], _write(call.slices), *call[_SLICES + 1 : _N_CORE])
        if call.usage == NO_USAGE and call.origin == NO_ORIGIN:
            bare.append(core)
        else:
            texts = [text or None for text in call.origin]
            full.append((*core, *_usage_row(call.usage), *texts))
    if bare:
        cursor.executemany(_INSERT_BARE, bare)
    if full:
        cursor.executemany(_INSERT, full)


def update_calls(cursor: Cursor, rows: Iterable[tuple[int, Call]]) -> None:
    """Store what changed on known calls."""
    was_open: list[tuple[Any, ...]] = []
    was_over: list[tuple[Any, ...]] = []
    for practice_no, call in rows:
        (was_over if call.status == SETTLED_LATE else was_open).append(
            (
                call.status, call.ended_by, call.expires_at_ms, call.cost_nano_usd,
                _write(call.slices), call.ended_at_s, call.first_seq, call.uncovered_nano_usd,
                *_usage_row(call.usage),
                practice_no, call.call_no,
            )
        )  # fmt: skip
    if was_open:
        cursor.executemany(_UPDATE_OPEN, was_open)
    if was_over:
        cursor.executemany(_UPDATE, was_over)


def load_call(cursor: Cursor, practice_no: int, call_no: int) -> Call | None:
    """Read one call by its number, archived or not."""
    row = cursor.execute(_SELECT_BY_NO, (practice_no, call_no)).fetchone()
    return from_row(row) if row else load_archived(cursor, practice_no, call_no)


def load_archived(cursor: Cursor, practice_no: int, call_no: int) -> Call | None:
    """Read what is left of an archived call."""
    row = cursor.execute(f"{_SELECT_ARCHIVED} AND call_no = ?", (practice_no, call_no)).fetchone()
    return archived_from_row(row) if row else None


def load_archived_by_key(cursor: Cursor, practice_no: int, operation: int, key: str) -> Call | None:
    """Read what is left of the archived call that an idempotency key made."""
    row = cursor.execute(SELECT_ARCHIVED_BY_KEY, (practice_no, operation, key)).fetchone()
    return archived_from_row(row) if row else None


def archived_from_row(row: tuple[Any, ...]) -> Call:
    """Make a call of the columns in `ARCHIVED`: only what its caller ended is ever archived."""
    left = dict(zip(ARCHIVED, row, strict=True))
    return Call(
        **left, ended_by=BY_CALLER, expires_at_ms=ARCHIVED_EXPIRY,
        license="", period_start_s=0, slices=(),
    )  # fmt: skip


def has_archived(cursor: Cursor) -> bool:
    """Tell whether any call was ever archived here."""
    return cursor.execute("SELECT 1 FROM credit_archive LIMIT 1").fetchone() is not None


def load_call_by_key(cursor: Cursor, practice_no: int, operation: int, key: str) -> Call | None:
    """Read the call that an idempotency key made, unless it is archived."""
    if cursor.execute(SELECT_NO_BY_KEY, (practice_no, operation, key)).fetchone() is None:
        return None
    row = cursor.execute(SELECT_BY_KEY, (practice_no, operation, key)).fetchone()
    return from_row(row) if row else None


def load_due(cursor: Cursor, practice_no: int, now_ms: int) -> list[Call]:
    """Read the practice's due open calls, the first hundred in the order of their due time."""
    rows = cursor.execute(_SELECT_DUE, (practice_no, now_ms, SWEEP_LIMIT)).fetchall()
    return [from_row(row) for row in rows]


def next_due_ms(cursor: Cursor, practice_no: int) -> int | None:
    """Tell when the practice's next open call falls due."""
    row = cursor.execute(_SELECT_NEXT_DUE, (practice_no,)).fetchone()
    return int(row[0]) if row[0] is not None else None
