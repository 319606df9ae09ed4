"""Rows of what is told: notices, and their deliveries to single addresses and endpoints.

Law: a notice is written in the transaction of the change that it tells of, once per practice, kind
and key. A delivery is sent by whoever holds its lease, and closed by nobody else. No address stands
here. Practice number 0 stands for the operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from guthaben.store.session import LOCK_FREE, Cursor

FAR_S = 3 * 86_400
"""No try is put off by so much: one that lies further ahead is left from before a clock was set."""


class NoticeRow(NamedTuple):
    """One thing that is told. `facts` is a flat JSON object; `spread_at_s` 0: nobody has it yet."""

    practice_no: int
    kind: str
    key: str
    notice_id: str
    facts: str
    told_at_s: int
    spread_at_s: int = 0


class DeliveryRow(NamedTuple):
    """One notice on its way to one address or endpoint, of a practice or (owner 0) the operator."""

    practice_no: int
    notice_id: str
    channel: str
    target_id: str
    owner_no: int
    status: str
    attempts: int
    next_try_at_s: int
    lease: str = ""
    lease_until_s: int = 0
    reason: str = ""
    created_at_s: int = 0
    done_at_s: int = 0


class Claimed(NamedTuple):
    """A delivery that is ours to send now, with what it says; `practice_id` is empty for none."""

    delivery: DeliveryRow
    notice: NoticeRow
    practice_id: str


class OutboxFigures(NamedTuple):
    """What waits: notices nobody has yet, deliveries, since when, and what was given up."""

    unspread: int
    waiting: int
    oldest_at_s: int
    dead: int


_NOTICE = ", ".join(NoticeRow._fields)
_DELIVERY = ", ".join(DeliveryRow._fields)
_D = ", ".join(f"d.{name}" for name in DeliveryRow._fields)
_N = ", ".join(f"n.{name}" for name in NoticeRow._fields)
_WIDTH = len(DeliveryRow._fields)
_PLACE = "practice_no = ? AND notice_id = ? AND channel = ? AND target_id = ?"
_JOINED = (
    f"SELECT {_D}, {_N}, COALESCE(p.practice_id, '') FROM credit_delivery d"
    " JOIN credit_notice n ON n.notice_id = d.notice_id"
    " LEFT JOIN credit_practice_name p ON p.practice_no = d.practice_no"
)


def add_notice(cursor: Cursor, row: NoticeRow) -> bool:
    """Write a notice; tell whether this was not told before."""
    cursor.execute(
        f"INSERT INTO credit_notice ({_NOTICE}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (practice_no, kind, key) DO NOTHING",
        row,
    )
    return cursor.rowcount == 1


def find_notice(cursor: Cursor, notice_id: str) -> NoticeRow | None:
    """Read one notice by its id."""
    row = cursor.execute(
        f"SELECT {_NOTICE} FROM credit_notice WHERE notice_id = ?", (notice_id,)
    ).fetchone()
    return NoticeRow(*row) if row else None


def told(
    cursor: Cursor, practice_no: int | None, limit: int, kinds: Iterable[str] | None = None
) -> list[tuple[NoticeRow, str]]:
    """Read what one practice (0: the operator) or anybody was told, newest first, with its id."""
    where, values = "1 = 1", list[int | str]()
    if practice_no is not None:
        where += " AND n.practice_no = ?"
        values.append(practice_no)
    if kinds is not None:
        chosen = [*kinds]
        where += f" AND n.kind IN ({', '.join('?' * len(chosen))})"
        values += chosen
    rows = cursor.execute(
        f"SELECT {_N}, COALESCE(p.practice_id, '') FROM credit_notice n"
        f" LEFT JOIN credit_practice_name p ON p.practice_no = n.practice_no WHERE {where}"
        " ORDER BY n.told_at_s DESC, n.notice_id LIMIT ?",
        (*values, limit),
    )
    return [(NoticeRow(*row[:-1]), row[-1]) for row in rows]


def unspread(cursor: Cursor, kinds: Iterable[str], limit: int) -> list[NoticeRow]:
    """Read notices whose deliveries have not been worked out, the oldest first.

    Only of these kinds: what a later version has told waits for a later version.
    """
    chosen = [*kinds]
    rows = cursor.execute(
        f"SELECT {_NOTICE} FROM credit_notice WHERE spread_at_s = 0"
        f" AND kind IN ({', '.join('?' * len(chosen))}) ORDER BY told_at_s LIMIT ?",
        (*chosen, limit),
    )
    return [NoticeRow(*row) for row in rows]


def spread(
    cursor: Cursor, notice: NoticeRow, deliveries: Iterable[DeliveryRow], now_s: int
) -> None:
    """Write the deliveries of a notice; those that exist stay as they are."""
    for row in deliveries:
        add_delivery(cursor, row)
    cursor.execute(
        "UPDATE credit_notice SET spread_at_s = ? WHERE practice_no = ? AND kind = ? AND key = ?",
        (now_s, notice.practice_no, notice.kind, notice.key),
    )


def add_delivery(cursor: Cursor, row: DeliveryRow) -> None:
    """Write a delivery, unless there is one to this target."""
    cursor.execute(
        f"INSERT INTO credit_delivery ({_DELIVERY}) VALUES ({', '.join('?' * _WIDTH)})"
        " ON CONFLICT DO NOTHING",
        row,
    )


_DUE = (
    "d.status = 'waiting' AND (d.next_try_at_s <= ? OR d.next_try_at_s > ?)"
    " AND (d.lease = '' OR d.lease_until_s <= ? OR d.lease_until_s > ?)"
)


def is_due(cursor: Cursor, now_s: int) -> bool:
    """Tell whether there is anything to claim."""
    found = cursor.execute(
        f"SELECT 1 FROM credit_delivery d WHERE {_DUE} LIMIT 1",
        (now_s, now_s + FAR_S, now_s, now_s + FAR_S),
    ).fetchone()
    return found is not None


def claim(cursor: Cursor, lease: str, *, now_s: int, for_s: int, limit: int) -> list[Claimed]:
    """Take due deliveries that nobody is sending; until the lease ends they are ours alone."""
    rows = cursor.execute(
        f"{_JOINED} WHERE {_DUE} ORDER BY d.next_try_at_s, d.created_at_s LIMIT ? {LOCK_FREE}",
        (now_s, now_s + FAR_S, now_s, now_s + FAR_S, limit),
    ).fetchall()
    found = []
    for row in rows:
        mine = DeliveryRow(*row[:_WIDTH])._replace(lease=lease, lease_until_s=now_s + for_s)
        cursor.execute(
            f"UPDATE credit_delivery SET lease = ?, lease_until_s = ? WHERE {_PLACE}",
            (lease, mine.lease_until_s, *mine[:4]),
        )
        found.append(Claimed(mine, NoticeRow(*row[_WIDTH:-1]), row[-1]))
    return found


def close(cursor: Cursor, row: DeliveryRow, status: str, reason: str, now_s: int) -> bool:
    """End a delivery that we hold the lease of; tell whether we still did."""
    cursor.execute(
        "UPDATE credit_delivery SET status = ?, reason = ?, done_at_s = ?, attempts = attempts + 1,"
        f" lease = '' WHERE {_PLACE} AND lease = ? AND status = 'waiting'",
        (status, reason, now_s, *row[:4], row.lease),
    )
    return cursor.rowcount == 1


def put_off(cursor: Cursor, row: DeliveryRow, at_s: int, reason: str, *, counted: bool) -> bool:
    """Let a delivery that we hold the lease of be tried again; tell whether we still held it."""
    cursor.execute(
        "UPDATE credit_delivery SET next_try_at_s = ?, reason = ?, attempts = attempts + ?,"
        f" lease = '' WHERE {_PLACE} AND lease = ? AND status = 'waiting'",
        (at_s, reason, int(counted), *row[:4], row.lease),
    )
    return cursor.rowcount == 1


def drop_waiting(cursor: Cursor, target_id: str, reason: str, now_s: int) -> int:
    """End what waits for a target that takes nothing more; tell how many."""
    cursor.execute(
        "UPDATE credit_delivery SET status = 'dropped', reason = ?, done_at_s = ?, lease = ''"
        " WHERE target_id = ? AND status = 'waiting'",
        (reason, now_s, target_id),
    )
    return cursor.rowcount


def deliveries(cursor: Cursor, notice_id: str) -> list[DeliveryRow]:
    """Read the deliveries of a notice."""
    rows = cursor.execute(
        f"SELECT {_DELIVERY} FROM credit_delivery WHERE notice_id = ? AND practice_no ="
        " (SELECT practice_no FROM credit_notice WHERE notice_id = ?)"
        " ORDER BY channel, target_id",
        (notice_id, notice_id),
    )
    return [DeliveryRow(*row) for row in rows]


def replay(
    cursor: Cursor,
    now_s: int,
    *,
    notice_id: str | None = None,
    target_id: str | None = None,
    since_s: int = 0,
    statuses: Iterable[str] = ("dead", "dropped"),
) -> list[DeliveryRow]:
    """Let ended deliveries be tried again from the beginning, under the same ids; give them."""
    values: list[int | str] = [since_s, *statuses]
    where = f"created_at_s >= ? AND status IN ({', '.join('?' * (len(values) - 1))})"
    for name, value in (("notice_id", notice_id), ("target_id", target_id)):
        if value is not None:
            where += f" AND {name} = ?"
            values.append(value)
    rows = cursor.execute(f"SELECT {_DELIVERY} FROM credit_delivery WHERE {where}", values)
    found = [DeliveryRow(*row) for row in rows.fetchall()]
    cursor.executemany(
        "UPDATE credit_delivery SET status = 'waiting', attempts = 0, next_try_at_s = ?,"
        f" lease = '', reason = 'replayed', done_at_s = 0 WHERE {_PLACE} AND status = ?",
        [(now_s, *row[:4], row.status) for row in found],
    )
    return found


def practice_of(cursor: Cursor, row: NoticeRow) -> str:
    """Tell the id of a notice's practice; empty for the operator's."""
    found = cursor.execute(
        "SELECT practice_id FROM credit_practice_name WHERE practice_no = ?", (row.practice_no,)
    ).fetchone()
    return str(found[0]) if found else ""


def outbox_figures(cursor: Cursor) -> OutboxFigures:
    """Count what waits and what was given up."""
    (new, first) = cursor.execute(
        "SELECT COUNT(*), COALESCE(MIN(told_at_s), 0) FROM credit_notice WHERE spread_at_s = 0"
    ).fetchone()
    (waiting, oldest) = cursor.execute(
        "SELECT COUNT(*), COALESCE(MIN(created_at_s), 0) FROM credit_delivery"
        " WHERE status = 'waiting'"
    ).fetchone()
    (dead,) = cursor.execute(
        "SELECT COUNT(*) FROM credit_delivery WHERE status = 'dead'"
    ).fetchone()
    return OutboxFigures(new, waiting, min(filter(None, (first, oldest)), default=0), dead)
