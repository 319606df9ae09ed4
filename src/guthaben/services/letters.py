"""The inbox as an operator sees it: what waits, what died, what is none of ours.

Law: nothing is deleted. An event of the wrong mode or account is never applied, whoever asks; what
an operator did, and why, is written beside it.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from guthaben.errors import Refused
from guthaben.services.checks import MAX_TEXT, checked_text, reason_of
from guthaben.store import cases, inbox
from guthaben.store.cases import OperatorNote
from guthaben.store.inbox import LetterRow
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

WAITING: Final = ("new",)
STUCK: Final = ("dead", "quarantined")
ALL: Final = ("new", "dead", "quarantined", "done", "ignored")
_NEVER: Final = frozenset({"wrong_livemode", "wrong_account"})


class LetterView(NamedTuple):
    """One event with what was done about it."""

    row: LetterRow
    notes: list[OperatorNote]


class Letters:
    """The stored events of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def page(
        self,
        statuses: tuple[str, ...] = STUCK,
        after: tuple[int, str] = (-1, ""),
        limit: int = 50,
    ) -> list[LetterRow]:
        """Read events of some statuses in the order of their arrival."""
        return self._store.read(lambda cur: inbox.page(cur, statuses, after, limit))

    def show(self, event_id: str) -> LetterView:
        """Read one event; raises `Refused` (`event_not_found`)."""

        def question(cursor: Cursor) -> LetterView:
            row = _one(cursor, event_id)
            return LetterView(row, cases.notes(cursor, _subject(row)))

        return self._store.read(question)

    def payload(self, event_id: str) -> dict[str, Any]:
        """Read the event itself, with all that it says of a customer; later `event_erased`."""
        raw = self._store.read(lambda cur: inbox.payload_of(cur, _one(cur, event_id)))
        if not raw:
            text = "Its content was erased some time after it was applied; the provider has it."
            raise Refused(text, reason="event_erased")
        found: dict[str, Any] = json.loads(raw)
        return found

    def retry(self, event_id: str, reason: str, author: str = "") -> LetterRow:
        """Let an event be applied anew, at once; one that is done stays done."""
        return self._change(event_id, "retry", reason, author)

    def discard(self, event_id: str, reason: str, author: str = "") -> LetterRow:
        """Close an event that shall never be applied. It is kept."""
        return self._change(event_id, "discard", reason, author)

    def _change(self, event_id: str, action: str, reason: str, author: str) -> LetterRow:
        reason_of(reason)
        checked_text("author", author, MAX_TEXT)

        def work(space: Workspace) -> LetterRow:
            row = _one(space.cursor, event_id)
            if _apply(space, row, action):
                cases.write_note(
                    space.cursor, _subject(row), action, author=author, reason=reason,
                    now_s=space.now_s,
                )  # fmt: skip
                cases.clear_alarm(space.cursor, "webhook_dead", row.event_id, space.now_s)
            return _one(space.cursor, event_id)

        return self._store.run(work)


def _apply(space: Workspace, row: LetterRow, action: str) -> bool:
    if action == "discard":
        return inbox.discard(space.cursor, row, space.now_s)
    if row.reason in _NEVER:
        raise Refused(
            "This event is of another mode or account: it is never applied.",
            reason="event_not_for_us",
        )
    return inbox.reopen(space.cursor, row) or inbox.hasten(space.cursor, row)


def _one(cursor: Cursor, event_id: str) -> LetterRow:
    checked_text("event_id", event_id, 255)
    found = inbox.find(cursor, event_id)
    if not found:
        raise Refused("There is no such event.", reason="event_not_found")
    return found[-1]


def _subject(row: LetterRow) -> str:
    return f"inbox:{int(row.livemode)}:{row.event_id}"


__all__ = ["ALL", "STUCK", "WAITING", "LetterView", "Letters"]
