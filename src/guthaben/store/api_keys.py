"""Rows of API keys: their hashes, what they may do, and whose they are.

Law: a key itself is never stored, only its sha256. Keys are added or revoked, never changed, and
none is ever deleted. `practice_no` 0 means every practice.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor


class ApiKeyRow(NamedTuple):
    """One key as stored, with number and id of its practice; 0 and None: every practice."""

    key_id: str
    hash: bytes
    practice_no: int
    practice_id: str | None
    scopes: str
    name: str
    created_at_s: int
    revoked_at_s: int


_SELECT = (
    "SELECT k.key_id, k.hash, k.practice_no, p.practice_id, k.scopes, k.name, k.created_at_s,"
    " k.revoked_at_s FROM credit_api_key k"
    " LEFT JOIN credit_practice_name p ON p.practice_no = k.practice_no"
)


def insert_key(cursor: Cursor, row: ApiKeyRow) -> None:
    """Store a new key; its id and its hash are unique."""
    cursor.execute(
        "INSERT INTO credit_api_key (key_id, hash, practice_no, scopes, name, created_at_s)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (row.key_id, row.hash, row.practice_no, row.scopes, row.name, row.created_at_s),
    )


def find_key(cursor: Cursor, key_id: str) -> ApiKeyRow | None:
    """Read one key by its id, revoked ones too."""
    row = cursor.execute(f"{_SELECT} WHERE k.key_id = ?", (key_id,)).fetchone()
    return ApiKeyRow(*row) if row else None


def list_keys(cursor: Cursor, practice_id: str | None, limit: int) -> list[ApiKeyRow]:
    """Read keys, newest first; of one practice or all."""
    where, values = (
        ("", ()) if practice_id is None else (" WHERE p.practice_id = ?", (practice_id,))
    )
    rows = cursor.execute(
        f"{_SELECT}{where} ORDER BY k.created_at_s DESC, k.key_id LIMIT ?", (*values, limit)
    )
    return [ApiKeyRow(*row) for row in rows]


def revoke_key(cursor: Cursor, key_id: str, now_s: int) -> bool:
    """Mark a key as revoked; tell whether it was valid until now."""
    cursor.execute(
        "UPDATE credit_api_key SET revoked_at_s = ? WHERE key_id = ? AND revoked_at_s = 0",
        (now_s, key_id),
    )
    return cursor.rowcount == 1
