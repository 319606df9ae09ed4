"""Rows of hosted pages, of consents to keep a card, and of the language of a practice.

Law: storage is dumb: it keeps exactly what it is given. What was ordered is kept no longer than it
is needed to ask again, because addresses stand in it.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.store.session import Cursor


class OpenPage(NamedTuple):
    """A page that is not known to be over; `order_json` is empty once its id is known."""

    practice_no: int
    event_no: int
    practice_id: str
    order_json: str
    looks: int


class CardConsent(NamedTuple):
    """Who agreed to which text that a card is kept."""

    text_version: str
    language: str
    actor: str
    given_at_s: int


def add_page(
    cursor: Cursor, practice_no: int, event_no: int, order_json: str, look_at_s: int
) -> None:
    """Note a page that is about to be asked for."""
    cursor.execute(
        "INSERT INTO credit_checkout (practice_no, event_no, is_open, order_json, next_look_at_s)"
        " VALUES (?, ?, 1, ?, ?)",
        (practice_no, event_no, order_json, look_at_s),
    )


def page_known(cursor: Cursor, practice_no: int, event_no: int) -> None:
    """Forget what was ordered: the page exists, and its id stands on the credit event."""
    cursor.execute(
        "UPDATE credit_checkout SET order_json = '' WHERE practice_no = ? AND event_no = ?",
        (practice_no, event_no),
    )


def page_over(cursor: Cursor, practice_no: int, event_no: int) -> None:
    """Note that nobody can pay on the page any more."""
    cursor.execute(
        "UPDATE credit_checkout SET is_open = 0, order_json = ''"
        " WHERE practice_no = ? AND event_no = ?",
        (practice_no, event_no),
    )


def look_again(cursor: Cursor, practice_no: int, event_no: int, at_s: int) -> bool:
    """Put the next look at a page off; tell whether it is not known to be over."""
    cursor.execute(
        "UPDATE credit_checkout SET next_look_at_s = ?, looks = looks + 1"
        " WHERE practice_no = ? AND event_no = ? AND is_open = 1",
        (at_s, practice_no, event_no),
    )
    return cursor.rowcount == 1


def due_pages(cursor: Cursor, now_s: int, limit: int) -> list[OpenPage]:
    """Read the pages whose time has come, the longest overdue first."""
    rows = cursor.execute(
        "SELECT c.practice_no, c.event_no, p.practice_id, c.order_json, c.looks"
        " FROM credit_checkout c JOIN credit_practice_name p ON p.practice_no = c.practice_no"
        " WHERE c.is_open = 1 AND c.next_look_at_s <= ?"
        " ORDER BY c.next_look_at_s, c.practice_no, c.event_no LIMIT ?",
        (now_s, limit),
    ).fetchall()
    return [OpenPage(*row) for row in rows]


def page_of(cursor: Cursor, practice_no: int, event_no: int) -> OpenPage | None:
    """Read one page, if it is not known to be over."""
    row = cursor.execute(
        "SELECT c.practice_no, c.event_no, p.practice_id, c.order_json, c.looks"
        " FROM credit_checkout c JOIN credit_practice_name p ON p.practice_no = c.practice_no"
        " WHERE c.is_open = 1 AND c.practice_no = ? AND c.event_no = ?",
        (practice_no, event_no),
    ).fetchone()
    return OpenPage(*row) if row else None


def add_card_consent(cursor: Cursor, practice_no: int, event_no: int, consent: CardConsent) -> None:
    """Record that the card of a purchase may be kept."""
    cursor.execute(
        "INSERT INTO credit_card_consent (practice_no, event_no, text_version, language, actor,"
        " given_at_s) VALUES (?, ?, ?, ?, ?, ?)",
        (practice_no, event_no, *consent),
    )


def card_consent(cursor: Cursor, practice_no: int, event_no: int) -> CardConsent | None:
    """Read whether the card of a purchase may be kept."""
    row = cursor.execute(
        "SELECT text_version, language, actor, given_at_s FROM credit_card_consent"
        " WHERE practice_no = ? AND event_no = ?",
        (practice_no, event_no),
    ).fetchone()
    return CardConsent(*row) if row else None


def language_of(cursor: Cursor, practice_id: str) -> str | None:
    """Read the language a practice asked for."""
    row = cursor.execute(
        "SELECT l.language FROM credit_language l JOIN credit_practice_name p"
        " ON p.practice_no = l.practice_no WHERE p.practice_id = ?",
        (practice_id,),
    ).fetchone()
    return str(row[0]) if row else None


def set_language(cursor: Cursor, practice_no: int, language: str, now_s: int) -> None:
    """Keep the language a practice asked for."""
    cursor.execute(
        "INSERT INTO credit_language (practice_no, language, updated_at_s) VALUES (?, ?, ?)"
        " ON CONFLICT (practice_no) DO UPDATE SET language = excluded.language,"
        " updated_at_s = excluded.updated_at_s",
        (practice_no, language, now_s),
    )
