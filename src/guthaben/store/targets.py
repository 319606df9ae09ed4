"""Rows of whom notices go to: e-mail addresses, what they don't want, and webhook endpoints.

Law: every row belongs to one practice, or with number 0 to the operator, and is found through its
owner only. An address stands in `credit_contact` and nowhere else, so that it can be erased.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor

EVERYTHING = "*"


class ContactRow(NamedTuple):
    """One e-mail address and the language it is written to in."""

    practice_no: int
    contact_id: str
    address: str
    language: str
    created_at_s: int


class EndpointRow(NamedTuple):
    """One webhook endpoint; `kinds` are separated by spaces, `*` means all."""

    practice_no: int
    endpoint_id: str
    url: str
    kinds: str
    created_at_s: int
    disabled_at_s: int = 0
    disabled_reason: str = ""
    failing_since_s: int = 0


_CONTACT = ", ".join(ContactRow._fields)
_ENDPOINT = ", ".join(EndpointRow._fields)
_ONE_ENDPOINT = "practice_no = ? AND endpoint_id = ?"


# ---------------------------------------------------------------- contacts


def add_contact(cursor: Cursor, row: ContactRow) -> str:
    """Store an address, or the new language of a known one; tell its id."""
    cursor.execute(
        f"INSERT INTO credit_contact ({_CONTACT}) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (practice_no, address) DO UPDATE SET language = excluded.language",
        row,
    )
    (contact_id,) = cursor.execute(
        "SELECT contact_id FROM credit_contact WHERE practice_no = ? AND address = ?",
        (row.practice_no, row.address),
    ).fetchone()
    return str(contact_id)


def contacts(cursor: Cursor, practice_no: int) -> list[ContactRow]:
    """Read the addresses of an owner."""
    rows = cursor.execute(
        f"SELECT {_CONTACT} FROM credit_contact WHERE practice_no = ?"
        " ORDER BY created_at_s, contact_id",
        (practice_no,),
    )
    return [ContactRow(*row) for row in rows]


def find_contact(cursor: Cursor, practice_no: int, contact_id: str) -> ContactRow | None:
    """Read one address of an owner."""
    row = cursor.execute(
        f"SELECT {_CONTACT} FROM credit_contact WHERE practice_no = ? AND contact_id = ?",
        (practice_no, contact_id),
    ).fetchone()
    return ContactRow(*row) if row else None


def erase_contact(cursor: Cursor, practice_no: int, contact_id: str) -> bool:
    """Delete an address and what it did not want; tell whether it was there."""
    cursor.execute(
        "DELETE FROM credit_unsubscribed WHERE practice_no = ? AND contact_id = ?",
        (practice_no, contact_id),
    )
    cursor.execute(
        "DELETE FROM credit_contact WHERE practice_no = ? AND contact_id = ?",
        (practice_no, contact_id),
    )
    return cursor.rowcount == 1


def unsubscribe(cursor: Cursor, practice_no: int, contact_id: str, kind: str, now_s: int) -> None:
    """Note that an address does not want a kind, or with `*` nothing that is not contractual."""
    cursor.execute(
        "INSERT INTO credit_unsubscribed (practice_no, contact_id, kind, at_s)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (practice_no, contact_id, kind, now_s),
    )


def subscribe(cursor: Cursor, practice_no: int, contact_id: str) -> None:
    """Let an address have everything again."""
    cursor.execute(
        "DELETE FROM credit_unsubscribed WHERE practice_no = ? AND contact_id = ?",
        (practice_no, contact_id),
    )


def unwanted(cursor: Cursor, practice_no: int, contact_id: str) -> frozenset[str]:
    """Read what an address does not want."""
    rows = cursor.execute(
        "SELECT kind FROM credit_unsubscribed WHERE practice_no = ? AND contact_id = ?",
        (practice_no, contact_id),
    )
    return frozenset(row[0] for row in rows)


# ---------------------------------------------------------------- endpoints


def add_endpoint(cursor: Cursor, row: EndpointRow) -> None:
    """Store a new endpoint."""
    cursor.execute(
        f"INSERT INTO credit_endpoint ({_ENDPOINT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row
    )


def endpoints(cursor: Cursor, practice_no: int) -> list[EndpointRow]:
    """Read the endpoints of an owner."""
    rows = cursor.execute(
        f"SELECT {_ENDPOINT} FROM credit_endpoint WHERE practice_no = ?"
        " ORDER BY created_at_s, endpoint_id",
        (practice_no,),
    )
    return [EndpointRow(*row) for row in rows]


def find_endpoint(cursor: Cursor, practice_no: int, endpoint_id: str) -> EndpointRow | None:
    """Read one endpoint of an owner."""
    row = cursor.execute(
        f"SELECT {_ENDPOINT} FROM credit_endpoint WHERE {_ONE_ENDPOINT}", (practice_no, endpoint_id)
    ).fetchone()
    return EndpointRow(*row) if row else None


def remove_endpoint(cursor: Cursor, practice_no: int, endpoint_id: str) -> bool:
    """Delete an endpoint and its secrets; tell whether it was there."""
    for table in ("credit_endpoint_secret", "credit_endpoint"):
        cursor.execute(f"DELETE FROM {table} WHERE {_ONE_ENDPOINT}", (practice_no, endpoint_id))
    return cursor.rowcount == 1


def switch_endpoint(
    cursor: Cursor, practice_no: int, endpoint_id: str, disabled_at_s: int, reason: str
) -> bool:
    """Disable an endpoint, or with 0 enable it again; tell whether there is one."""
    cursor.execute(
        "UPDATE credit_endpoint SET disabled_at_s = ?, disabled_reason = ?, failing_since_s = 0"
        f" WHERE {_ONE_ENDPOINT}",
        (disabled_at_s, reason, practice_no, endpoint_id),
    )
    return cursor.rowcount == 1


def endpoint_answered(cursor: Cursor, practice_no: int, endpoint_id: str) -> None:
    """Note that an endpoint takes what it is sent."""
    cursor.execute(
        f"UPDATE credit_endpoint SET failing_since_s = 0 WHERE {_ONE_ENDPOINT}"
        " AND failing_since_s > 0",
        (practice_no, endpoint_id),
    )


def endpoint_failed(cursor: Cursor, practice_no: int, endpoint_id: str, now_s: int) -> None:
    """Note since when an endpoint has not taken anything."""
    cursor.execute(
        f"UPDATE credit_endpoint SET failing_since_s = ? WHERE {_ONE_ENDPOINT}"
        " AND failing_since_s = 0",
        (now_s, practice_no, endpoint_id),
    )


def add_secret(cursor: Cursor, practice_no: int, endpoint_id: str, secret: str, now_s: int) -> None:
    """Store a secret of an endpoint; the newest one that has not expired comes first."""
    cursor.execute(
        "INSERT INTO credit_endpoint_secret (practice_no, endpoint_id, secret_no, secret,"
        " created_at_s, expires_at_s) VALUES (?, ?, (SELECT COALESCE(MAX(secret_no), 0) + 1"
        f" FROM credit_endpoint_secret WHERE {_ONE_ENDPOINT}), ?, ?, 0)",
        (practice_no, endpoint_id, practice_no, endpoint_id, secret, now_s),
    )


def expire_secrets(
    cursor: Cursor, practice_no: int, endpoint_id: str, at_s: int, now_s: int
) -> None:
    """Let the secrets there are end at an instant, and forget those that have ended."""
    cursor.execute(
        f"DELETE FROM credit_endpoint_secret WHERE {_ONE_ENDPOINT}"
        " AND expires_at_s > 0 AND expires_at_s <= ?",
        (practice_no, endpoint_id, now_s),
    )
    cursor.execute(
        f"UPDATE credit_endpoint_secret SET expires_at_s = ? WHERE {_ONE_ENDPOINT}"
        " AND expires_at_s = 0",
        (at_s, practice_no, endpoint_id),
    )


def secrets_of(cursor: Cursor, practice_no: int, endpoint_id: str, now_s: int) -> list[str]:
    """Read the secrets that an endpoint may still verify with, the newest first."""
    rows = cursor.execute(
        f"SELECT secret FROM credit_endpoint_secret WHERE {_ONE_ENDPOINT}"
        " AND (expires_at_s = 0 OR expires_at_s > ?) ORDER BY secret_no DESC",
        (practice_no, endpoint_id, now_s),
    )
    return [row[0] for row in rows]
