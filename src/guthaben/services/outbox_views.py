"""The outbox as people see it: what was told, how its deliveries stand, and sending again.

Law: no address is shown, only the ids of contacts and endpoints. Sending again keeps the ids, so
that a receiver can tell what it has had.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from guthaben.services.notices import Audience, Notice
from guthaben.store import outbox, practices, settings
from guthaben.store.outbox import DeliveryRow, NoticeRow
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

_PRACTICE_KINDS = tuple(
    kind.value for kind in Notice if kind.about.audience is not Audience.OPERATOR
)


class ToldView(NamedTuple):
    """One notice, and how many of its deliveries stand how."""

    notice_id: str
    practice_id: str
    kind: str
    key: str
    told_at_s: int
    deliveries: dict[str, int]


def told_lately(
    store: Store, practice_id: str | None, limit: int, *, for_practice: bool = False
) -> list[ToldView]:
    """List what was told of one practice ("": of none) or of anybody, newest first.

    `for_practice`: only what the practice itself is told, and only its own deliveries.
    """

    def read(cursor: Cursor) -> list[ToldView]:
        number = None
        if practice_id is not None:
            number = practices.number_of(cursor, practice_id) if practice_id else 0
            if number is None:
                return []
        found = outbox.told(cursor, number, limit, _PRACTICE_KINDS if for_practice else None)
        return [_view(cursor, row, name, for_practice) for row, name in found]

    return store.read(read)


def _view(cursor: Cursor, row: NoticeRow, practice_id: str, own: bool) -> ToldView:
    stand = Counter(
        delivery.status
        for delivery in outbox.deliveries(cursor, row.notice_id)
        if delivery.owner_no or not own
    )
    if not row.spread_at_s:
        stand["new"] += 1
    return ToldView(
        row.notice_id, practice_id, row.kind, row.key, row.told_at_s, dict(sorted(stand.items()))
    )


def one_told(store: Store, notice_id: str) -> tuple[NoticeRow, str, list[DeliveryRow]] | None:
    """Read one notice with its practice's id and its deliveries."""

    def read(cursor: Cursor) -> tuple[NoticeRow, str, list[DeliveryRow]] | None:
        row = outbox.find_notice(cursor, notice_id)
        if row is None:
            return None
        name = outbox.practice_of(cursor, row)
        return row, name, outbox.deliveries(cursor, notice_id)

    return store.read(read)


def replay_ended(
    store: Store,
    *,
    notice_id: str | None = None,
    target_id: str | None = None,
    since_s: int = 0,
    delivered: bool = False,
) -> int:
    """Let ended deliveries be sent again; alarms about them are cleared. Tell how many."""
    statuses = ("dead", "dropped", "delivered") if delivered else ("dead", "dropped")

    def again(space: Workspace) -> int:
        chosen = outbox.replay(
            space.cursor, space.now_s, notice_id=notice_id, target_id=target_id, since_s=since_s,
            statuses=statuses,
        )  # fmt: skip
        for row in chosen:
            subject = f"{row.notice_id}:{row.target_id}"
            settings.clear_alarm(space.cursor, "delivery_dead", subject, space.now_s)
        return len(chosen)

    return store.run(again)
