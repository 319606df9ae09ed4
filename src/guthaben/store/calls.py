"""Rows of calls: the hold while it is open, the usage event afterwards.

Law: a call costs one row for ever. Empty texts are stored as NULL, which takes no room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from guthaben.domain.calls import NO_ORIGIN, NO_USAGE, Call, Origin, Usage
from guthaben.domain.grants import Slice
from guthaben.store.session import Cursor

CORE = Call._fields[:-2]
COLUMNS = (*CORE, *Usage._fields, *Origin._fields)
_N_CORE = len(CORE)
_N_USAGE = len(Usage._fields)
_SLICES = CORE.index("slices")
SELECTED = ", ".join(COLUMNS)

_SELECT_BY_NO = f"SELECT {SELECTED} FROM credit_call WHERE practice_no = ? AND call_no = ?"
_SELECT_BY_KEY = (
    f"SELECT {SELECTED} FROM credit_call WHERE practice_no = ? AND operation = ? AND key = ?"
)
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
    cursor.executemany(
        _UPDATE,
        [
            (
                call.status, call.ended_by, call.expires_at_ms, call.cost_nano_usd,
                _write(call.slices), call.ended_at_s, call.first_seq, call.uncovered_nano_usd,
                *_usage_row(call.usage),
                practice_no, call.call_no,
            )
            for practice_no, call in rows
        ],
    )  # fmt: skip


def load_call(cursor: Cursor, practice_no: int, call_no: int) -> Call | None:
    """Read one call by its number."""
    row = cursor.execute(_SELECT_BY_NO, (practice_no, call_no)).fetchone()
    return from_row(row) if row else None


def load_call_by_key(cursor: Cursor, practice_no: int, operation: int, key: str) -> Call | None:
    """Read the call that an idempotency key made."""
    row = cursor.execute(_SELECT_BY_KEY, (practice_no, operation, key)).fetchone()
    return from_row(row) if row else None


def load_due(cursor: Cursor, practice_no: int, now_ms: int) -> list[Call]:
    """Read the practice's due open calls, the first hundred in the order of their due time."""
    rows = cursor.execute(_SELECT_DUE, (practice_no, now_ms, SWEEP_LIMIT)).fetchall()
    return [from_row(row) for row in rows]


def next_due_ms(cursor: Cursor, practice_no: int) -> int | None:
    """Tell when the practice's next open call falls due."""
    row = cursor.execute(_SELECT_NEXT_DUE, (practice_no,)).fetchone()
    return int(row[0]) if row[0] is not None else None
