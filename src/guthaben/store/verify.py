"""Verify: replay the journal and compare it with everything that is stored.

Law: it believes nothing but the transfers. It reads inside one transaction, so that it sees one
moment of the database, and it changes nothing. Practices are read in groups, so that many small
ones cost few questions, and a large one in pages, so that memory does not grow with history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from guthaben.domain.journal import Account, Replay, replay
from guthaben.store import archive
from guthaben.store.session import Cursor
from guthaben.store.verify_rows import (
    Found,
    Span,
    Stored,
    practice,
    practices,
    read,
    strays,
    transfers,
    transfers_by_practice,
)

GROUP_TRANSFERS = 50_000
GROUP_PRACTICES = 500
WORTH_A_QUESTION = 500
"""From so many transfers on, on average, each practice's are asked for by themselves."""
_MOST_CALLS_NAMED = 20
_ENDS = (-(1 << 62), 1 << 62)


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


def verify(cursor: Cursor, practice_id: str | None, now_s: int) -> Verification:
    """Check one practice or all: chain, balances, holds, calls, purchases."""
    problems: list[Problem] = []
    practice_count = transfer_count = 0
    gaps = _Gaps()
    chosen = practices(cursor) if practice_id is None else practice(cursor, practice_id)
    for group in groups(chosen):
        span = Span(group[0].practice_no, group[-1].practice_no)
        replayed = _replayed(cursor, group, span)
        found = read(cursor, span)
        for stored, said in zip(group, replayed, strict=True):
            practice_count += 1
            transfer_count += said.last_seq
            gaps.until(stored.practice_no)
            texts = _compare(stored, said, found, now_s)
            problems.extend(Problem(stored.practice_id, text) for text in texts)
    if practice_id is None:
        problems.extend(gaps.strays(cursor))
        problems.extend(_archives(cursor))
    return Verification(practice_count, transfer_count, problems)


def groups(practices: Iterable[Stored]) -> Iterator[list[Stored]]:
    """Put practices together that follow each other and are small; a large one stands alone."""
    group: list[Stored] = []
    size = 0
    for stored in practices:
        if group and (size + stored.last_seq > GROUP_TRANSFERS or len(group) == GROUP_PRACTICES):
            yield group
            group, size = [], 0
        group.append(stored)
        size += stored.last_seq
    if group:
        yield group


def _replayed(cursor: Cursor, group: list[Stored], span: Span) -> list[Replay]:
    """Replay every practice of a group, in its order."""
    if sum(stored.last_seq for stored in group) >= len(group) * WORTH_A_QUESTION:
        return [replay(one.practice_id, transfers(cursor, one.practice_no)) for one in group]
    by_practice: dict[int, Replay] = {}
    names = {stored.practice_no: stored.practice_id for stored in group}
    for practice_no, rows in transfers_by_practice(cursor, span):
        if practice_no in names:
            by_practice[practice_no] = replay(names[practice_no], rows)
    return [by_practice.get(one.practice_no) or replay(one.practice_id, ()) for one in group]


def _compare(stored: Stored, said: Replay, found: Found, now_s: int) -> Iterator[str]:
    """Name everything of one practice that is not as its journal says."""
    yield from said.problems
    yield from _chain(stored, said)
    yield from _balances(stored, said, found, now_s)
    yield from _holds(stored, found)
    yield from _calls(stored, found)
    yield from _purchases(stored, said, found)


def _chain(stored: Stored, said: Replay) -> Iterator[str]:
    if said.last_seq != stored.last_seq:
        yield f"the journal ends at transfer {said.last_seq}, stored is {stored.last_seq}"
    elif said.head != stored.head:
        yield f"the head stored beside transfer {stored.last_seq} is not the chain's"


def _balances(stored: Stored, said: Replay, found: Found, now_s: int) -> Iterator[str]:
    if sum(said.accounts.values()):
        yield "the accounts do not sum to zero"
    debt = -said.accounts.get(Account.DEBT, 0)
    if debt != stored.debt:
        yield f"debt: the journal says {debt}, stored is {stored.debt}"
    free_bought = 0
    left = dict(said.grants)
    for grant in found.grants.get(stored.practice_no, ()):
        told = left.pop(grant.grant_no, 0)
        has = grant.free_nano_usd + grant.held_nano_usd
        if told != has:
            yield f"grant {grant.grant_no}: the journal says {told}, stored is {has}"
        if said.granted.get(grant.grant_no) != (grant.kind, grant.granted_nano_usd):
            yield f"grant {grant.grant_no}: its kind or its amount is not as it was granted"
        if grant.kind != Account.ALLOWANCE and grant.expires_at_s > now_s:
            free_bought += grant.free_nano_usd
    for grant_no, told in left.items():
        yield f"grant {grant_no}: the journal says {told}, there is no such grant"
    if stored.debt > 0 and free_bought > 0:
        yield f"debt {stored.debt} stands beside free bought or given credit {free_bought}"


def _holds(stored: Stored, found: Found) -> Iterator[str]:
    """Name where held credit is not what the open calls pin."""
    open_calls = found.open_calls.get(stored.practice_no, [])
    pinned: dict[int, int] = {}
    total = 0
    for call in open_calls:
        total += call.reserved_nano_usd
        if sum(piece.amount_nano_usd for piece in call.slices) != call.reserved_nano_usd:
            yield f"call {call.call_no}: its slices are not its reservation"
        for grant_no, amount in call.slices:
            pinned[grant_no] = pinned.get(grant_no, 0) + amount
    due = min((call.due_at_ms for call in open_calls), default=stored.next_due_ms)
    if due < stored.next_due_ms:
        yield f"a call is due at {due}, the practice is not looked at before {stored.next_due_ms}"
    if total != stored.held:
        yield f"held: the open calls say {total}, stored is {stored.held}"
    held = {
        grant.grant_no: grant.held_nano_usd
        for grant in found.grants.get(stored.practice_no, ())
        if grant.held_nano_usd
    }
    for grant_no in sorted({*held, *pinned}):
        if held.get(grant_no, 0) != pinned.get(grant_no, 0):
            yield (
                f"grant {grant_no}: the open calls hold {pinned.get(grant_no, 0)},"
                f" stored is {held.get(grant_no, 0)}"
            )


def _calls(stored: Stored, found: Found) -> Iterator[str]:
    """Every call's cost is what was used for it, and every transfer of a call has its call."""
    for wrong in found.wrong_calls.get(stored.practice_no, [])[:_MOST_CALLS_NAMED]:
        if wrong.is_known:
            yield (
                f"call {wrong.call_no}: the journal says {wrong.used} was used,"
                f" stored is {wrong.cost}"
            )
        else:
            yield f"call {wrong.call_no}: the journal speaks of it, there is no such call"
    for call_no in found.twice.get(stored.practice_no, ()):
        yield f"call {call_no}: it is archived and here as well"


def _archives(cursor: Cursor) -> Iterator[Problem]:
    """What is kept of the calls of each file adds up to what its manifest says."""
    kept = archive.kept(cursor)
    for told in archive.manifests(cursor):
        found = kept.pop(told.archive_no, archive.Kept(0, 0, 0))
        whole = archive.Kept(told.calls, told.reserved_nano_usd, told.cost_nano_usd)
        if found != whole if told.state == archive.State.DONE else found.calls > whole.calls:
            yield Problem(
                "", f"{told.file}: its manifest says {_said(whole)}, kept are {_said(found)}"
            )
    for archive_no, found in kept.items():
        yield Problem("", f"{found.calls} calls are archived in file {archive_no}, there is none")


def _said(of: archive.Kept) -> str:
    return f"{of.calls} calls of {of.cost_nano_usd} (reserved {of.reserved_nano_usd})"


def _purchases(stored: Stored, said: Replay, found: Found) -> Iterator[str]:
    """Every credit event that moved credit says what the journal says, and the other way round."""
    number = stored.practice_no
    moved = dict(said.moved)
    events = found.events.get(number, [])
    unregistered = found.unregistered.get(number, set())
    told = {event.event_no: 0 for event in events}
    for event in events:
        if event.parent_event_no:
            told[event.parent_event_no] = told.get(event.parent_event_no, 0) - event.amount
    for event in events:
        name = f"credit event {event.event_no}"
        change = moved.pop(event.event_no, None)
        is_booked = change is not None or event.grant_no != 0
        if is_booked and (event.status != "succeeded" or change != event.amount):
            yield f"{name}: the journal says {change}, stored is {event.status} {event.amount}"
        if event.clawed_back != told[event.event_no]:
            yield (
                f"{name}: {event.clawed_back} was clawed back, its refunds say"
                f" {told[event.event_no]}"
            )
        if event.event_no in unregistered:
            yield f"{name}: its payment is not in the registry"
    for event_no in found.orphans.get(number, ()):
        yield f"credit event {event_no}: its grant is missing or another's"
    for event_no in moved:
        yield f"credit event {event_no}: the journal speaks of it, there is no such event"


class _Gaps:
    """The numbers between the practices: rows there belong to no practice."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._next_no = _ENDS[0]

    def until(self, practice_no: int) -> None:
        """Note that a practice has this number, the lowest that was not noted yet."""
        if self._next_no < practice_no:
            self._spans.append(Span(self._next_no, practice_no - 1))
        self._next_no = practice_no + 1

    def strays(self, cursor: Cursor) -> Iterator[Problem]:
        """Name the tables that have rows in between."""
        counts: Counter[str] = Counter()
        for span in (*self._spans, Span(self._next_no, _ENDS[1])):
            counts.update(dict(strays(cursor, span)))
        for table, count in counts.items():
            yield Problem("", f"{count} rows of {table} belong to no practice")
