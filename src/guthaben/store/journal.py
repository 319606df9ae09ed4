"""Rows of transfers. They are only ever inserted; the database refuses anything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guthaben.domain.journal import Transfer
from guthaben.store.session import Cursor

_COLUMNS = ", ".join(Transfer._fields)
_INSERT = (
    f"INSERT INTO credit_transfer (practice_no, {_COLUMNS})"
    f" VALUES ({', '.join('?' * (len(Transfer._fields) + 1))})"
)
_SELECT_ALL = f"SELECT {_COLUMNS} FROM credit_transfer WHERE practice_no = ? ORDER BY seq"
_SELECT_NEWEST = (
    f"SELECT {_COLUMNS} FROM credit_transfer WHERE practice_no = ? AND seq < ?"
    " ORDER BY seq DESC LIMIT ?"
)


def insert_transfers(cursor: Cursor, rows: Iterable[tuple[int, Transfer]]) -> None:
    """Append transfers, given with their practice's number, in order of `seq`."""
    cursor.executemany(_INSERT, [(practice_no, *transfer) for practice_no, transfer in rows])


def each_transfer(cursor: Cursor, practice_no: int) -> Iterator[Transfer]:
    """Read all transfers of a practice, oldest first."""
    return map(Transfer._make, cursor.execute(_SELECT_ALL, (practice_no,)))


def newest_transfers(
    cursor: Cursor, practice_no: int, before_seq: int, limit: int
) -> list[Transfer]:
    """Read transfers before a sequence number, newest first: one page of a statement."""
    rows = cursor.execute(_SELECT_NEWEST, (practice_no, before_seq, limit))
    return [Transfer._make(row) for row in rows]
