"""Verify: replay the journal and compare it with everything that is stored.

Law: it believes nothing but the transfers. It reads inside one transaction, so that it sees one
moment of the database, and it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from guthaben.domain.calls import RESERVED
from guthaben.domain.grants import Grant
from guthaben.domain.journal import Account, Replay, replay
from guthaben.store import topups
from guthaben.store.calls import SELECTED as CALL_COLUMNS
from guthaben.store.calls import from_row
from guthaben.store.journal import each_transfer
from guthaben.store.practices import grant_from_row
from guthaben.store.session import Cursor


class Problem(NamedTuple):
    """Something that is not as the journal says."""

    practice_id: str
    text: str


class Verification(NamedTuple):
    """The result; `ok` when there is no problem."""

    practices: int
    transfers: int
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether all is as the journal says."""
        return not self.problems


class _Stored(NamedTuple):
    practice_no: int
    practice_id: str
    head: bytes
    last_seq: int
    held: int
    debt: int
    next_due_ms: int


def verify(cursor: Cursor, practice_id: str | None, now_s: int) -> Verification:
    """Check one practice or all: chain, balances, holds, calls, purchases."""
    where, values = ("", ()) if practice_id is None else (" WHERE practice_id = ?", (practice_id,))
    rows = cursor.execute(
        "SELECT practice_no, practice_id, head, last_seq, held_nano_usd, debt_nano_usd, next_due_ms"
        f" FROM credit_practice{where} ORDER BY practice_no",
        values,
    ).fetchall()
    problems: list[Problem] = []
    transfers = 0
    for row in rows:
        stored = _Stored(*row)
        found = replay(stored.practice_id, each_transfer(cursor, stored.practice_no))
        transfers += found.last_seq
        texts = [
            *found.problems,
            *_chain(stored, found),
            *_balances(cursor, stored, found, now_s),
            *_holds(cursor, stored),
            *_calls(cursor, stored.practice_no),
            *_lost_calls(cursor, stored.practice_no),
            *_purchases(cursor, stored.practice_no),
        ]
        problems.extend(Problem(stored.practice_id, text) for text in texts)
    if practice_id is None:
        problems.extend(_strays(cursor))
    return Verification(len(rows), transfers, problems)


def _chain(stored: _Stored, found: Replay) -> Iterable[str]:
    if found.last_seq != stored.last_seq:
        yield f"the journal ends at transfer {found.last_seq}, stored is {stored.last_seq}"
    elif found.head != stored.head:
        yield f"the head stored beside transfer {stored.last_seq} is not the chain's"


def _balances(cursor: Cursor, stored: _Stored, found: Replay, now_s: int) -> Iterable[str]:
    if sum(found.accounts.values()):
        yield "the accounts do not sum to zero"
    debt = -found.accounts.get(Account.DEBT, 0)
    if debt != stored.debt:
        yield f"debt: the journal says {debt}, stored is {stored.debt}"
    columns = ", ".join(Grant._fields)
    rows = cursor.execute(
        f"SELECT {columns} FROM credit_grant WHERE practice_no = ? ORDER BY grant_no",
        (stored.practice_no,),
    ).fetchall()
    free_bought = 0
    left = dict(found.grants)
    for row in rows:
        grant = grant_from_row(row)
        said = left.pop(grant.grant_no, 0)
        has = grant.free_nano_usd + grant.held_nano_usd
        if said != has:
            yield f"grant {grant.grant_no}: the journal says {said}, stored is {has}"
        if found.granted.get(grant.grant_no) != (grant.kind, grant.granted_nano_usd):
            yield f"grant {grant.grant_no}: its kind or its amount is not as it was granted"
        if grant.kind != Account.ALLOWANCE and grant.expires_at_s > now_s:
            free_bought += grant.free_nano_usd
    for grant_no, said in left.items():
        yield f"grant {grant_no}: the journal says {said}, there is no such grant"
    if stored.debt > 0 and free_bought > 0:
        yield f"debt {stored.debt} stands beside free bought or given credit {free_bought}"


def _holds(cursor: Cursor, stored: _Stored) -> Iterable[str]:
    rows = cursor.execute(
        f"SELECT {CALL_COLUMNS} FROM credit_call WHERE practice_no = ? AND status = ?",
        (stored.practice_no, RESERVED),
    ).fetchall()
    pinned: dict[int, int] = {}
    total = 0
    found = [from_row(row) for row in rows]
    for call in found:
        total += call.reserved_nano_usd
        if sum(piece.amount_nano_usd for piece in call.slices) != call.reserved_nano_usd:
            yield f"call {call.call_no}: its slices are not its reservation"
        for grant_no, amount in call.slices:
            pinned[grant_no] = pinned.get(grant_no, 0) + amount
    due = min((call.due_at_ms for call in found), default=stored.next_due_ms)
    if due < stored.next_due_ms:
        yield f"a call is due at {due}, the practice is not looked at before {stored.next_due_ms}"
    if total != stored.held:
        yield f"held: the open calls say {total}, stored is {stored.held}"
    held = dict(
        cursor.execute(
            "SELECT grant_no, held_nano_usd FROM credit_grant"
            " WHERE practice_no = ? AND held_nano_usd <> 0",
            (stored.practice_no,),
        ).fetchall()
    )
    for grant_no in sorted({*held, *pinned}):
        if held.get(grant_no, 0) != pinned.get(grant_no, 0):
            yield (
                f"grant {grant_no}: the open calls hold {pinned.get(grant_no, 0)},"
                f" stored is {held.get(grant_no, 0)}"
            )


def _calls(cursor: Cursor, practice_no: int) -> Iterable[str]:
    """Every call's cost is what its transfers say was used for it."""
    rows = cursor.execute(
        "SELECT c.call_no, c.cost_nano_usd, COALESCE(t.used, 0) FROM credit_call c"
        " LEFT JOIN (SELECT call_no, SUM(CASE WHEN target = 9 THEN amount_nano_usd"
        " WHEN source = 9 THEN -amount_nano_usd ELSE 0 END) AS used FROM credit_transfer"
        " WHERE practice_no = ? AND call_no <> 0 GROUP BY call_no) t ON t.call_no = c.call_no"
        " WHERE c.practice_no = ? AND c.cost_nano_usd <> COALESCE(t.used, 0) LIMIT 20",
        (practice_no, practice_no),
    ).fetchall()
    for call_no, cost, used in rows:
        yield f"call {call_no}: the journal says {used} was used, stored is {cost}"


def _lost_calls(cursor: Cursor, practice_no: int) -> Iterable[str]:
    """Every transfer of a call has its call."""
    rows = cursor.execute(
        "SELECT DISTINCT t.call_no FROM credit_transfer t"
        " WHERE t.practice_no = ? AND t.call_no <> 0 AND NOT EXISTS ("
        " SELECT 1 FROM credit_call c WHERE c.practice_no = t.practice_no"
        " AND c.call_no = t.call_no) LIMIT 20",
        (practice_no,),
    ).fetchall()
    for (call_no,) in rows:
        yield f"call {call_no}: the journal speaks of it, there is no such call"


def _purchases(cursor: Cursor, practice_no: int) -> Iterable[str]:
    """Every credit event that moved credit says what the journal says, and the other way round."""
    moved = dict(
        cursor.execute(
            "SELECT event_no, SUM(CASE WHEN source IN (6, 7, 8, 11) THEN amount_nano_usd"
            " WHEN target IN (8, 11) THEN -amount_nano_usd ELSE 0 END) FROM credit_transfer"
            " WHERE practice_no = ? AND event_no <> 0 GROUP BY event_no",
            (practice_no,),
        ).fetchall()
    )
    rows = cursor.execute(
        "SELECT event_no, status, amount_nano_usd + bonus_nano_usd, grant_no,"
        " clawed_back_nano_usd + bonus_clawed_back_nano_usd, provider, payment_id,"
        " parent_event_no FROM credit_event WHERE practice_no = ?",
        (practice_no,),
    ).fetchall()
    told = {row[0]: 0 for row in rows}
    for _event_no, _status, amount, _grant, _clawed, _provider, _payment, parent_no in rows:
        if parent_no:
            told[parent_no] = told.get(parent_no, 0) - amount
    for event_no, status, amount, grant_no, clawed, provider, payment_id, _parent in rows:
        said = moved.pop(event_no, None)
        if (said is not None or grant_no) and (status != "succeeded" or said != amount):
            yield f"credit event {event_no}: the journal says {said}, stored is {status} {amount}"
        if clawed != told[event_no]:
            yield (
                f"credit event {event_no}: {clawed} was clawed back, its refunds say"
                f" {told[event_no]}"
            )
        if grant_no and payment_id and not _registered(cursor, provider, payment_id):
            yield f"credit event {event_no}: its payment is not in the registry"
    orphans = cursor.execute(
        "SELECT e.event_no FROM credit_event e WHERE e.practice_no = ? AND e.grant_no <> 0"
        " AND NOT EXISTS (SELECT 1 FROM credit_grant g WHERE g.practice_no = e.practice_no"
        " AND g.grant_no = e.grant_no AND g.event_no = e.event_no)",
        (practice_no,),
    ).fetchall()
    for (event_no,) in orphans:
        yield f"credit event {event_no}: its grant is missing or another's"
    for event_no in moved:
        yield f"credit event {event_no}: the journal speaks of it, there is no such event"


def _registered(cursor: Cursor, provider: str, payment_id: str) -> bool:
    return topups.find_payment(cursor, provider, topups.PAYMENT, payment_id) is not None


def _strays(cursor: Cursor) -> Iterable[Problem]:
    """Rows whose practice does not exist."""
    for table in ("credit_transfer", "credit_call", "credit_grant", "credit_event"):
        row = cursor.execute(
            f"SELECT COUNT(*) FROM {table} WHERE practice_no NOT IN"
            " (SELECT practice_no FROM credit_practice)"
        ).fetchone()
        if row[0]:
            yield Problem("", f"{row[0]} rows of {table} belong to no practice")
