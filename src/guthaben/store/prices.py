"""Rows of prices: sheets, each stored once by its hash, and the versions made of two of them.

Law: sheets and versions are only added (triggers refuse the rest). The newest version counts.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor


class PriceVersionRow(NamedTuple):
    """One version of all prices as stored."""

    version_no: int
    version: str
    hash: str
    imported_hash: str
    own_hash: str
    change: str
    author: str
    created_at_s: int


_SELECT = (
    "SELECT version_no, version, hash, imported_hash, own_hash, change, author, created_at_s"
    " FROM credit_price_version"
)


def newest_version_no(cursor: Cursor) -> int:
    """Read the number of the version that counts, 0 without one."""
    row = cursor.execute("SELECT COALESCE(MAX(version_no), 0) FROM credit_price_version").fetchone()
    return int(row[0])


def newest_version(cursor: Cursor) -> PriceVersionRow | None:
    """Read the version that counts."""
    row = cursor.execute(f"{_SELECT} ORDER BY version_no DESC LIMIT 1").fetchone()
    return PriceVersionRow(*row) if row else None


def find_version(cursor: Cursor, version: str) -> PriceVersionRow | None:
    """Read a version by its name; of several with one name, all are equal."""
    row = cursor.execute(
        f"{_SELECT} WHERE version = ? ORDER BY version_no DESC LIMIT 1", (version,)
    ).fetchone()
    return PriceVersionRow(*row) if row else None


def list_versions(cursor: Cursor, limit: int) -> list[PriceVersionRow]:
    """Read versions, newest first."""
    rows = cursor.execute(f"{_SELECT} ORDER BY version_no DESC LIMIT ?", (limit,))
    return [PriceVersionRow(*row) for row in rows]


def insert_version(cursor: Cursor, row: PriceVersionRow) -> None:
    """Store a version whose sheets are stored already."""
    cursor.execute(
        "INSERT INTO credit_price_version (version_no, version, hash, imported_hash, own_hash,"
        " change, author, created_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def keep_sheet(cursor: Cursor, sheet_hash: str, source: str, body: str, now_s: int) -> None:
    """Store a sheet, if it isn't there yet."""
    if read_sheet(cursor, sheet_hash) is None:
        cursor.execute(
            "INSERT INTO credit_price_sheet (hash, source, body, added_at_s) VALUES (?, ?, ?, ?)",
            (sheet_hash, source, body, now_s),
        )


def read_sheet(cursor: Cursor, sheet_hash: str) -> str | None:
    """Read a sheet by its hash."""
    row = cursor.execute(
        "SELECT body FROM credit_price_sheet WHERE hash = ?", (sheet_hash,)
    ).fetchone()
    return str(row[0]) if row else None
