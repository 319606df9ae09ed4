"""What `verify` reads: the rows of a span of practices, each kind by one question.

Law: a question is bounded by its span, and names no practice outside of it. What can be found wrong
by the database itself (calls whose cost is not what was used) comes back only where it is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from guthaben.domain.calls import Call
from guthaben.domain.grants import Grant
from guthaben.domain.journal import Row, Transfer
from guthaben.store import topups
from guthaben.store.calls import SELECTED as CALL_COLUMNS
from guthaben.store.calls import from_row
from guthaben.store.practices import grant_from_row
from guthaben.store.session import NUMBER_OF, Cursor

T = TypeVar("T")
PAGE_TRANSFERS = 5_000
PAGE_PRACTICES = 5_000
_TRANSFER = ", ".join(Transfer._fields)
_GRANT = ", ".join(Grant._fields)
_IN_SPAN = "practice_no BETWEEN ? AND ?"
_STORED = (
    "SELECT practice_no, practice_id, head, last_seq, held_nano_usd, debt_nano_usd, next_due_ms"
    " FROM credit_practice"
)
_PRACTICES = f"{_STORED} WHERE practice_no > ? ORDER BY practice_no LIMIT ?"
_PRACTICE = f"{_STORED} WHERE practice_no = {NUMBER_OF}"
_PAGE = (
    f"SELECT {_TRANSFER} FROM credit_transfer WHERE practice_no = ? AND seq > ?"
    " ORDER BY seq LIMIT ?"
)
_TRANSFERS = (
    f"SELECT practice_no, {_TRANSFER} FROM credit_transfer WHERE {_IN_SPAN}"
    " ORDER BY practice_no, seq"
)
_GRANTS = (
    f"SELECT practice_no, {_GRANT} FROM credit_grant WHERE {_IN_SPAN}"
    " ORDER BY practice_no, grant_no"
)
_OPEN_CALLS = (
    f"SELECT practice_no, {CALL_COLUMNS} FROM credit_call WHERE {_IN_SPAN} AND status = 1"
    " ORDER BY practice_no, call_no"
)
_TWICE = (
    "SELECT a.practice_no, a.call_no FROM credit_archived_call a JOIN credit_call c"
    " ON c.practice_no = a.practice_no AND c.call_no = a.call_no"
    " WHERE a.practice_no BETWEEN ? AND ?"
)
# One pass over the tables: a join would look every call up.
_WRONG_CALLS = (
    "SELECT practice_no, call_no, SUM(cost) AS cost, SUM(used) AS used, MAX(known) AS known FROM ("
    " SELECT practice_no, call_no, cost_nano_usd AS cost, 0 AS used, 1 AS known FROM credit_call"
    f" WHERE {_IN_SPAN} UNION ALL"
    " SELECT practice_no, call_no, cost_nano_usd, 0, 1 FROM credit_archived_call"
    f" WHERE {_IN_SPAN} UNION ALL"
    " SELECT practice_no, call_no, 0, CASE WHEN target = 9 THEN amount_nano_usd"
    " WHEN source = 9 THEN -amount_nano_usd ELSE 0 END, 0 FROM credit_transfer"
    f" WHERE {_IN_SPAN} AND call_no <> 0) AS both_sides"
    " GROUP BY practice_no, call_no HAVING SUM(cost) <> SUM(used) OR MAX(known) = 0"
    " ORDER BY practice_no, call_no"
)
_EVENTS = (
    "SELECT practice_no, event_no, status, amount_nano_usd + bonus_nano_usd, grant_no,"
    " clawed_back_nano_usd + bonus_clawed_back_nano_usd, parent_event_no"
    f" FROM credit_event WHERE {_IN_SPAN}"
)
# Not as a join: credit events, payments and grants may lie on different nodes.
_PAID = (
    f"SELECT practice_no, event_no, provider, payment_id FROM credit_event WHERE {_IN_SPAN}"
    " AND grant_no <> 0 AND payment_id <> ''"
)
_REGISTERED = (
    f"SELECT provider, ref FROM credit_payment WHERE {_IN_SPAN} AND kind = '{topups.PAYMENT}'"
)


class Span(NamedTuple):
    """Practices by number, both ends included."""

    first_no: int
    last_no: int


class Stored(NamedTuple):
    """What a practice's own row says."""

    practice_no: int
    practice_id: str
    head: bytes
    last_seq: int
    held: int
    debt: int
    next_due_ms: int


class WrongCall(NamedTuple):
    """A call whose cost is not what its transfers used, or which has transfers and no row."""

    call_no: int
    cost: int
    used: int
    is_known: int


class Event(NamedTuple):
    """What a credit event says of the credit that it moved."""

    event_no: int
    status: str
    amount: int
    grant_no: int
    clawed_back: int
    parent_event_no: int


class Found(NamedTuple):
    """The rows of a span, by practice."""

    grants: dict[int, list[Grant]]
    open_calls: dict[int, list[Call]]
    wrong_calls: dict[int, list[WrongCall]]
    events: dict[int, list[Event]]
    unregistered: dict[int, set[int]]
    """Credit events whose payment is not in the registry."""
    orphans: dict[int, list[int]]
    """Credit events whose grant is missing or another's."""
    twice: dict[int, list[int]]
    """Calls that are archived and here as well."""


def read(cursor: Cursor, span: Span) -> Found:
    """Read all but the transfers themselves."""
    twice = _by_practice(cursor, _TWICE, span)
    grants = _made(_by_practice(cursor, _GRANTS, span), grant_from_row)
    events = _made(_by_practice(cursor, _EVENTS, span), Event._make)
    return Found(
        grants,
        _made(_by_practice(cursor, _OPEN_CALLS, span), from_row),
        _made(_by_practice(cursor, _WRONG_CALLS, (*span, *span, *span)), WrongCall._make),
        events,
        _unregistered(cursor, span),
        {number: _orphans(some, grants.get(number, [])) for number, some in events.items()},
        {practice_no: [row[0] for row in rows] for practice_no, rows in twice.items()},
    )


def _unregistered(cursor: Cursor, span: Span) -> dict[int, set[int]]:
    """Find booked credit events whose payment is registered nowhere, for whichever practice."""
    paid = cursor.execute(_PAID, span).fetchall()
    known = {tuple(row) for row in cursor.execute(_REGISTERED, span).fetchall()} if paid else set()
    found: dict[int, set[int]] = defaultdict(set)
    for practice_no, event_no, provider, ref in paid:
        if (provider, ref) in known:
            continue
        if topups.find_payment(cursor, provider, topups.PAYMENT, ref) is None:
            found[practice_no].add(event_no)
    return found


def _orphans(events: list[Event], grants: list[Grant]) -> list[int]:
    """Find a practice's credit events whose grant is missing or another's."""
    made = {(grant.grant_no, grant.event_no) for grant in grants}
    return [
        event.event_no
        for event in events
        if event.grant_no and (event.grant_no, event.event_no) not in made
    ]


def transfers(cursor: Cursor, practice_no: int) -> Iterator[Row]:
    """Read all transfers of one practice, page by page."""
    last_seq = -(1 << 62)
    while True:
        page = cursor.execute(_PAGE, (practice_no, last_seq, PAGE_TRANSFERS)).fetchall()
        yield from page
        if len(page) < PAGE_TRANSFERS:
            return
        last_seq = page[-1][0]


def transfers_by_practice(cursor: Cursor, span: Span) -> Iterator[tuple[int, Iterator[Row]]]:
    """Read all transfers of a span of small practices; each practice's before the next one's."""
    rows = cursor.execute(_TRANSFERS, span)
    for practice_no, group in groupby(rows, itemgetter(0)):
        yield practice_no, (row[1:] for row in group)


def practices(cursor: Cursor) -> Iterator[Stored]:
    """Read the rows of all practices in the order of their numbers, page by page."""
    last_no = -(1 << 62)
    while True:
        page = cursor.execute(_PRACTICES, (last_no, PAGE_PRACTICES)).fetchall()
        yield from map(Stored._make, page)
        if len(page) < PAGE_PRACTICES:
            return
        last_no = page[-1][0]


def practice(cursor: Cursor, practice_id: str) -> list[Stored]:
    """Read the row of one practice, if there is one."""
    return [Stored._make(row) for row in cursor.execute(_PRACTICE, (practice_id,)).fetchall()]


def strays(cursor: Cursor, span: Span) -> Iterator[tuple[str, int]]:
    """Count, by table, the rows of a span in which there is no practice."""
    for table in ("credit_transfer", "credit_call", "credit_grant", "credit_event",
                  "credit_archived_call"):  # fmt: skip
        row = cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE {_IN_SPAN}", span).fetchone()
        if row[0]:
            yield table, int(row[0])


def _by_practice(
    cursor: Cursor, sql: str, values: tuple[int, ...]
) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for practice_no, *row in cursor.execute(sql, values).fetchall():
        found[practice_no].append(tuple(row))
    return found


def _made(
    rows: dict[int, list[tuple[Any, ...]]], make: Callable[[tuple[Any, ...]], T]
) -> dict[int, list[T]]:
    return {practice_no: [make(row) for row in some] for practice_no, some in rows.items()}
