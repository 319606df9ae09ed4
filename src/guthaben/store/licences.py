"""Rows of subscriptions as the provider told them, and of those whose practice is in doubt.

Law: storage is dumb: what it all entitles to is decided in `domain.licences`. A subscription
belongs to one practice for ever. What is read for one practice is bounded by its subscriptions that
are not over and by the plans seen in their current periods.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from guthaben.domain.licences import Item, Sighting, Subscription
from guthaben.store.session import Cursor

_PROVIDER = "stripe"


def items_text(items: tuple[Item, ...]) -> str:
    """Write items so that equal ones are equal texts."""
    return json.dumps(sorted(items), separators=(",", ":"))


def _items(written: str) -> tuple[Item, ...]:
    return tuple(Item(*item) for item in json.loads(written))


# ---------------------------------------------------------------- subscriptions


class SubscriptionRow(NamedTuple):
    """A subscription as stored; `items` in the form of `items_text`."""

    practice_no: int
    subscription_id: str
    livemode: bool
    customer_id: str
    status: str
    items: str
    ends_at_s: int
    began_at_s: int
    is_over: bool
    due_at_s: int
    allowance_nano_usd: int
    is_unknown: bool
    version: int
    asked_at_s: int


_SUBSCRIPTION = ", ".join(SubscriptionRow._fields)
_KEYS = ("practice_no", "subscription_id", "livemode")
_CHANGES = ", ".join(
    f"{name} = excluded.{name}" for name in SubscriptionRow._fields if name not in _KEYS
)


def _row(row: tuple[object, ...]) -> SubscriptionRow:
    found = SubscriptionRow(*row)  # type: ignore[arg-type]
    return found._replace(
        livemode=bool(found.livemode),
        is_over=bool(found.is_over),
        is_unknown=bool(found.is_unknown),
    )


def save_subscription(cursor: Cursor, row: SubscriptionRow) -> None:
    """Store a subscription; whose it is and in which mode never changes."""
    cursor.execute(
        f"INSERT INTO credit_subscription (provider, {_SUBSCRIPTION})"
        f" VALUES ('{_PROVIDER}', {', '.join('?' * len(row))})"
        f" ON CONFLICT (practice_no, subscription_id) DO UPDATE SET {_CHANGES}",
        row,
    )


def find_subscription(
    cursor: Cursor, subscription_id: str, livemode: bool | None = None
) -> SubscriptionRow | None:
    """Find a subscription, whosever it is."""
    modes = (0, 1) if livemode is None else (int(livemode),)
    for mode in modes:
        row = cursor.execute(
            f"SELECT {_SUBSCRIPTION} FROM credit_subscription"
            f" WHERE provider = '{_PROVIDER}' AND livemode = ? AND subscription_id = ?",
            (mode, subscription_id),
        ).fetchone()
        if row is not None:
            return _row(row)
    return None


def subscriptions_of(
    cursor: Cursor, practice_no: int, *, over: bool = False
) -> list[SubscriptionRow]:
    """Read a practice's subscriptions: those that are not over, or all of them."""
    where = "" if over else " AND is_over = 0"
    rows = cursor.execute(
        f"SELECT {_SUBSCRIPTION} FROM credit_subscription WHERE practice_no = ?{where}"
        " ORDER BY began_at_s DESC, subscription_id LIMIT 100",
        (practice_no,),
    )
    return [_row(row) for row in rows]


def is_subscription_of(cursor: Cursor, practice_no: int, licence: str) -> bool:
    """Tell whether a practice's licence is one of its subscriptions."""
    return (
        cursor.execute(
            "SELECT 1 FROM credit_subscription WHERE practice_no = ? AND subscription_id = ?",
            (practice_no, licence),
        ).fetchone()
        is not None
    )


def see(
    cursor: Cursor,
    row: SubscriptionRow,
    seen: Sighting,
    now_s: int,
) -> bool:
    """Remember what a subscription was seen to have while paid for; tell whether it is new."""
    cursor.execute(
        "INSERT INTO credit_subscription_seen (practice_no, subscription_id, period_start_s, items,"
        " is_trial, seen_at_s) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            row.practice_no, row.subscription_id, max(item.start_s for item in seen.items),
            items_text(seen.items), int(seen.trial), now_s,
        ),
    )  # fmt: skip
    return cursor.rowcount == 1


def seen_since(
    cursor: Cursor, practice_no: int, subscription_id: str, start_s: int
) -> tuple[Sighting, ...]:
    """Read what was seen in a period that begins then, or later."""
    rows = cursor.execute(
        "SELECT items, is_trial FROM credit_subscription_seen WHERE practice_no = ?"
        " AND subscription_id = ? AND period_start_s >= ? ORDER BY period_start_s, items, is_trial",
        (practice_no, subscription_id, start_s),
    )
    return tuple(Sighting(_items(row[0]), bool(row[1])) for row in rows)


def subscription_of(cursor: Cursor, row: SubscriptionRow) -> Subscription:
    """Give a stored subscription with what was seen of its current period, for the domain."""
    items = _items(row.items)
    # An item of a longer period may have been seen since its own beginning.
    earliest_s = min(item.start_s for item in items)
    seen = seen_since(cursor, row.practice_no, row.subscription_id, earliest_s)
    return Subscription(
        row.subscription_id, row.status, items, row.ends_at_s, row.began_at_s,
        row.allowance_nano_usd, seen,
    )  # fmt: skip


def owners_of_customer(cursor: Cursor, customer_id: str) -> set[str]:
    """Tell whose customer this is at the provider: practices that paid as this customer."""
    rows = cursor.execute(
        "SELECT p.practice_id FROM credit_practice_name p WHERE p.practice_no IN"
        " (SELECT practice_no FROM credit_subscription WHERE customer_id = ?"
        " UNION SELECT practice_no FROM credit_provider_customer WHERE customer_id = ?)",
        (customer_id, customer_id),
    )
    return {row[0] for row in rows}


def customer_of(cursor: Cursor, practice_no: int, livemode: bool | None) -> str:
    """Tell as which customer a practice pays; empty when nobody knows yet."""
    saved = "SELECT customer_id FROM credit_provider_customer WHERE customer_id IS NOT NULL"
    told = "SELECT customer_id FROM credit_subscription WHERE customer_id <> ''"
    for question, order in ((saved, "updated_at_s"), (told, "began_at_s")):
        row = cursor.execute(
            f"{question} AND practice_no = ? AND livemode = COALESCE(?, livemode)"
            f" ORDER BY {order} DESC LIMIT 1",
            (practice_no, livemode),
        ).fetchone()
        if row:
            return str(row[0])
    return ""


def overdue(cursor: Cursor, due_before_s: int, asked_before_s: int, limit: int) -> list[str]:
    """Read subscriptions whose news is late and that were not asked for lately."""
    rows = cursor.execute(
        "SELECT subscription_id FROM credit_subscription WHERE is_over = 0 AND due_at_s < ?"
        " AND asked_at_s < ? ORDER BY due_at_s, subscription_id LIMIT ?",
        (due_before_s, asked_before_s, limit),
    )
    return [row[0] for row in rows]


def note_asked(cursor: Cursor, subscription_id: str, now_s: int) -> None:
    """Remember that a subscription was asked for, in vain."""
    cursor.execute(
        "UPDATE credit_subscription SET asked_at_s = ? WHERE subscription_id = ?"
        f" AND provider = '{_PROVIDER}' AND livemode IN (0, 1)",
        (now_s, subscription_id),
    )


def page_of_owners(cursor: Cursor, after_no: int, limit: int) -> list[tuple[int, str]]:
    """Read practices that have a subscription, in the order of their numbers."""
    rows = cursor.execute(
        "SELECT DISTINCT s.practice_no, p.practice_id FROM credit_subscription s"
        " JOIN credit_practice_name p ON p.practice_no = s.practice_no"
        " WHERE s.practice_no > ? AND s.is_over = 0 ORDER BY s.practice_no LIMIT ?",
        (after_no, limit),
    )
    return [(int(row[0]), row[1]) for row in rows]


# ---------------------------------------------------------------- held back


class HeldRow(NamedTuple):
    """A subscription whose practice is in doubt."""

    held_no: int
    livemode: bool
    subscription_id: str
    reason: str
    named: str
    held_at_s: int
    resolved_at_s: int


_HELD = ", ".join(HeldRow._fields)


def hold(
    cursor: Cursor,
    subscription_id: str,
    livemode: bool,
    reason: str,
    named: str,
    now_s: int,
) -> HeldRow:
    """Hold a subscription back, once; tell its number and why."""
    cursor.execute(
        f"INSERT INTO credit_subscription_held (provider, livemode, subscription_id, reason,"
        f" named, held_at_s) VALUES ('{_PROVIDER}', ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (int(livemode), subscription_id, reason, named, now_s),
    )
    found = find_held(cursor, subscription_id)
    assert found is not None
    return found


def find_held(cursor: Cursor, name: str) -> HeldRow | None:
    """Find a held subscription by its own id or by the number it got here."""
    column, value = ("held_no", int(name)) if _is_number(name) else ("subscription_id", name)
    row = cursor.execute(
        f"SELECT {_HELD} FROM credit_subscription_held WHERE {column} = ?", (value,)
    ).fetchone()
    return HeldRow(row[0], bool(row[1]), *row[2:]) if row else None


def _is_number(name: object) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 19


def held(cursor: Cursor, limit: int) -> list[HeldRow]:
    """Read subscriptions that wait for an operator, newest first."""
    rows = cursor.execute(
        f"SELECT {_HELD} FROM credit_subscription_held WHERE resolved_at_s = 0"
        " ORDER BY held_no DESC LIMIT ?",
        (limit,),
    )
    return [HeldRow(row[0], bool(row[1]), *row[2:]) for row in rows]


def resolve_held(cursor: Cursor, subscription_id: str, now_s: int) -> None:
    """Remember that an operator has said whose subscription it is."""
    cursor.execute(
        "UPDATE credit_subscription_held SET resolved_at_s = ? WHERE subscription_id = ?"
        " AND resolved_at_s = 0",
        (now_s, subscription_id),
    )


def clear_alarm(cursor: Cursor, code: str, subject: str, now_s: int, practice_no: int = 0) -> None:
    """Clear an alarm whose cause is gone."""
    cursor.execute(
        "UPDATE credit_alarm SET cleared_at_s = ? WHERE code = ? AND subject = ?"
        " AND practice_no = ? AND cleared_at_s = 0",
        (now_s, code, subject, practice_no),
    )


class LicenceFigures(NamedTuple):
    """Subscriptions that are not over by status, and what waits for somebody."""

    by_status: dict[str, int]
    unknown_plan: int
    overdue: int
    held: int


def figures(cursor: Cursor, now_s: int) -> LicenceFigures:
    """Count subscriptions; the cost grows with their number, never with history."""
    rows = cursor.execute(
        "SELECT status, COUNT(*), SUM(is_unknown), SUM(CASE WHEN due_at_s < ? THEN 1 ELSE 0 END)"
        " FROM credit_subscription WHERE is_over = 0 GROUP BY status",
        (now_s,),
    ).fetchall()
    (waiting,) = cursor.execute(
        "SELECT COUNT(*) FROM credit_subscription_held WHERE resolved_at_s = 0"
    ).fetchone()
    return LicenceFigures(
        {row[0]: int(row[1]) for row in rows},
        sum(int(row[2]) for row in rows),
        sum(int(row[3]) for row in rows),
        int(waiting),
    )
