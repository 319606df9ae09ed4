"""Archiving: which calls may leave, the manifest of the files, and the leaving itself.

Law: a row leaves in the same transaction in which its short form comes, and only if it is, column
by column, what was read back from the file. Only what its caller ended leaves: nothing can be
booked for it any more. Nothing of a practice's balance is in a call's row.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from guthaben.store import calls
from guthaben.store.session import Cursor


class State(IntEnum):
    """How far a file is; the numbers are stored."""

    WRITING = 1
    MOVING = 2
    DONE = 3


class Manifest(NamedTuple):
    """One file of archived calls."""

    archive_no: int
    month: str
    file: str
    state: int
    began_at_s: int
    done_at_s: int = 0
    calls: int = 0
    reserved_nano_usd: int = 0
    cost_nano_usd: int = 0
    file_bytes: int = 0
    sha256: str = ""


class Window(NamedTuple):
    """Which calls may leave: begun in these bounds, ended and of periods that began before others.

    All half-open; the bounds in ms, the rest in s.
    """

    begin_ms: int
    end_ms: int
    ended_before_s: int
    period_before_s: int


class Archived(NamedTuple):
    """The short form of a call, as the archive's check compares it."""

    practice_id: str
    call_no: int
    key: str
    body_hash: int
    status: int
    reserved_nano_usd: int
    cost_nano_usd: int


class Mismatch(Exception):
    """A row is not what the file says; nothing of its page has left."""


Row = tuple[Any, ...]
COLUMNS: Final = ("practice_id", "practice_no", *calls.COLUMNS)
"""What a row of a file has, in order."""
TEXTS: Final = frozenset(
    {"practice_id", "key", "license", "slices", "model", "operation_type", "price_version",
     "user_id", "device_id", "api_key_id", "reference", "tags"}
)  # fmt: skip
PRACTICE_NO, CALL_NO = COLUMNS.index("practice_no"), COLUMNS.index("call_no")
CREATED_AT_MS = COLUMNS.index("created_at_ms")
RESERVED, COST = COLUMNS.index("reserved_nano_usd"), COLUMNS.index("cost_nano_usd")

_MANIFEST = ", ".join(Manifest._fields)
_ROW = f"p.practice_id, c.practice_no, {', '.join(f'c.{name}' for name in calls.COLUMNS)}"
_FROM = "FROM credit_call c JOIN credit_practice p ON p.practice_no = c.practice_no"
_MAY_LEAVE = (
    "c.created_at_ms >= ? AND c.created_at_ms < ? AND c.status IN (2, 3, 5)"
    # Ended by its caller: a settle that comes late books nothing any more. A lease's protocol
    # repeats its answers for ever; what was taken over belongs to the host's own history.
    " AND c.ended_by = 1 AND c.overage_policy = 0 AND c.legacy_id IS NULL"
    " AND c.ended_at_s < ? AND c.period_start_s < ?"
    # Neither of the licence's current period nor of the one before.
    " AND (c.license <> p.license"
    " OR c.period_start_s < 2 * p.period_start_s - p.period_end_s OR c.license = '')"
)
_SHORT = ("practice_no", *calls.ARCHIVED)
_PLACES = tuple(COLUMNS.index(name) for name in _SHORT)
_INSERT = (
    f"INSERT INTO credit_archived_call (archive_no, {', '.join(_SHORT)})"
    f" VALUES ({', '.join('?' * (len(_SHORT) + 1))})"
)


def serves_the_four_modules(cursor: Cursor) -> bool:
    """Tell whether the four modules' views show this database's calls to a host application."""
    return (
        cursor.execute("SELECT 1 FROM credit_meta WHERE name = 'legacy_views'").fetchone()
        is not None
    )


def days_with_calls(cursor: Cursor, window: Window) -> list[int]:
    """Read on which days (since 1970, UTC) calls began that may leave."""
    rows = cursor.execute(
        f"SELECT DISTINCT c.created_at_ms / 86400000 {_FROM} WHERE {_MAY_LEAVE} ORDER BY 1", window
    )
    return [int(row[0]) for row in rows]


def page(cursor: Cursor, window: Window, after: tuple[int, int], limit: int) -> list[Row]:
    """Read the next calls that may leave, in the order of practice and number."""
    return [
        tuple(row)
        for row in cursor.execute(
            f"SELECT {_ROW} {_FROM} WHERE {_MAY_LEAVE}"
            " AND (c.practice_no, c.call_no) > (?, ?) ORDER BY c.practice_no, c.call_no LIMIT ?",
            (*window, *after, limit),
        )
    ]


# ---------------------------------------------------------------- the manifest


def manifests(cursor: Cursor) -> list[Manifest]:
    """Read all files, oldest first."""
    rows = cursor.execute(f"SELECT {_MANIFEST} FROM credit_archive ORDER BY archive_no")
    return [Manifest._make(row) for row in rows]


def begin(cursor: Cursor, month: str, now_s: int) -> Manifest | None:
    """Say that a file is going to be written, before it is; None while another one is under way."""
    under_way = "SELECT 1 FROM credit_archive WHERE state <> ? LIMIT 1"
    if cursor.execute(under_way, (State.DONE,)).fetchone() is not None:
        return None
    # Two who begin at once give the same number: the second one is done again, and sees the first.
    (last,) = cursor.execute("SELECT COALESCE(MAX(archive_no), 0) FROM credit_archive").fetchone()
    made = Manifest(last + 1, month, f"calls-{month}-{last + 1:04d}.parquet", State.WRITING, now_s)
    cursor.execute(
        f"INSERT INTO credit_archive ({_MANIFEST}) VALUES ({', '.join('?' * len(made))})", made
    )
    return made


def named_anew(manifest: Manifest) -> Manifest:
    """Give a file that somebody else began another name, so that nobody writes into ours."""
    number = f"{manifest.archive_no:04d}-{secrets.token_hex(4)}"
    return manifest._replace(file=f"calls-{manifest.month}-{number}.parquet")


def change(cursor: Cursor, was: Manifest, now: Manifest) -> bool:
    """Write the next state or name of a file; False if another process was quicker."""
    names = Manifest._fields[2:]
    cursor.execute(
        f"UPDATE credit_archive SET {', '.join(f'{name} = ?' for name in names)}"
        " WHERE archive_no = ? AND state = ? AND file = ?",
        (*now[2:], was.archive_no, was.state, was.file),
    )
    return cursor.rowcount == 1


def give_up(cursor: Cursor, manifest: Manifest) -> None:
    """Forget a file that there was nothing to write into, if it is still ours."""
    cursor.execute(
        "DELETE FROM credit_archive WHERE archive_no = ? AND state = ? AND file = ?",
        (manifest.archive_no, State.WRITING, manifest.file),
    )


# ---------------------------------------------------------------- leaving


def move(cursor: Cursor, archive_no: int, rows: Sequence[Row]) -> int:
    """Let calls leave that a file holds, rows in its order; tell how many had not left before.

    Raises `Mismatch`, and then none has.
    """
    leaving: list[Row] = []
    for _practice_no, group in groupby(rows, itemgetter(PRACTICE_NO)):
        leaving += _still_here(cursor, archive_no, list(group))
    cursor.executemany(_INSERT, [(archive_no, *(row[at] for at in _PLACES)) for row in leaving])
    cursor.executemany(
        "DELETE FROM credit_call WHERE practice_no = ? AND call_no = ? AND created_at_ms = ?"
        " AND status > 1",
        [(row[PRACTICE_NO], row[CALL_NO], row[CREATED_AT_MS]) for row in leaving],
    )
    return len(leaving)


def _still_here(cursor: Cursor, archive_no: int, rows: list[Row]) -> Iterator[Row]:
    """Give the rows of one practice that have not left; they must be what the file says."""
    practice_no, first, last = rows[0][PRACTICE_NO], rows[0][CALL_NO], rows[-1][CALL_NO]
    instants = [row[CREATED_AT_MS] for row in rows]
    found = cursor.execute(
        f"SELECT {_ROW} {_FROM} WHERE c.practice_no = ? AND c.call_no >= ? AND c.call_no <= ?"
        " AND c.created_at_ms >= ? AND c.created_at_ms <= ? AND c.status > 1",
        (practice_no, first, last, min(instants), max(instants)),
    ).fetchall()
    here = {row[CALL_NO]: tuple(row) for row in found}
    numbers = cursor.execute(
        "SELECT call_no FROM credit_archived_call"
        " WHERE practice_no = ? AND call_no >= ? AND call_no <= ? AND archive_no = ?",
        (practice_no, first, last, archive_no),
    ).fetchall()
    gone = {call_no for (call_no,) in numbers}
    for row in rows:
        stored = here.get(row[CALL_NO])
        if stored is None and row[CALL_NO] in gone:
            continue
        if stored != row:
            raise Mismatch(f"call {row[CALL_NO]} of {row[0]} is not what the file says")
        yield row


# ---------------------------------------------------------------- looking


class Kept(NamedTuple):
    """What is kept here of one file's calls."""

    calls: int
    reserved_nano_usd: int
    cost_nano_usd: int


def kept(cursor: Cursor) -> dict[int, Kept]:
    """Add up the short forms of each file's calls."""
    rows = cursor.execute(
        "SELECT archive_no, COUNT(*), SUM(reserved_nano_usd), SUM(cost_nano_usd)"
        " FROM credit_archived_call GROUP BY archive_no"
    )
    return {row[0]: Kept._make(row[1:]) for row in rows}


def each_kept(cursor: Cursor, archive_no: int, limit: int) -> Iterator[Archived]:
    """Read the short forms of one file's calls, in its order, so many at a time."""
    names = ", ".join(f"a.{name}" for name in Archived._fields[1:])
    after = (0, 0)
    while True:
        rows = cursor.execute(
            f"SELECT a.practice_no, p.practice_id, {names} FROM credit_archived_call a"
            " JOIN credit_practice p ON p.practice_no = a.practice_no WHERE a.archive_no = ?"
            " AND (a.practice_no, a.call_no) > (?, ?) ORDER BY a.practice_no, a.call_no LIMIT ?",
            (archive_no, *after, limit),
        ).fetchall()
        yield from (Archived._make(row[1:]) for row in rows)
        if len(rows) < limit:
            return
        after = (rows[-1][0], rows[-1][2])
