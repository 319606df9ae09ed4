"""Looks at the committed ledger after every commit, through a connection of the oracle's own.

Law: it believes its own copy of every transfer it has seen, adds up by itself, and imports nothing
of the engine: what it looks for is written out in docs/rules.md.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.simulation.history import Violation

# The accounts as stored: three kinds of credit, debt, and where credit comes from and goes to.
ALLOWANCE, PROMOTIONAL, PAID, DEBT = 1, 2, 3, 4
INCLUDED, GIFTED, PURCHASED, ADJUSTED, USED, EXPIRED, CLAWED_BACK, LOSS = 5, 6, 7, 8, 9, 10, 11, 12
_CREDIT = (ALLOWANCE, PROMOTIONAL, PAID)


@dataclass
class Books:
    """One practice's ledger, added up by the oracle."""

    last_seq: int = 0
    accounts: Counter[int] = field(default_factory=Counter)
    grants: Counter[int] = field(default_factory=Counter)
    used: Counter[int] = field(default_factory=Counter)
    """What was used, by call."""
    bought: dict[int, int] = field(default_factory=dict)
    """What was bought, by credit event."""
    clawed: Counter[int] = field(default_factory=Counter)
    """What was clawed back and not given again, by credit event."""


class Ledger:
    """All practices' books."""

    def __init__(self, looking: sqlite3.Connection) -> None:
        self._cursor = looking.cursor()
        self.books: defaultdict[int, Books] = defaultdict(Books)
        self.names: dict[int, str] = {}

    def look(self, now_s: int) -> None:
        """Check everything that a commit may have changed."""
        rows = self._cursor.execute(
            "SELECT practice_no, practice_id, held_nano_usd, debt_nano_usd, last_seq"
            " FROM credit_practice"
        ).fetchall()
        for number, name, held, debt, last_seq in rows:
            self.names[number] = name
            books = self.books[number]
            if last_seq != books.last_seq:
                self._read(number, books)
            if last_seq != books.last_seq:
                raise Violation("I-2 append-only", f"{name}: {last_seq} is not {books.last_seq}")
            self._balance(number, name, held, debt, now_s)

    def _read(self, number: int, books: Books) -> None:
        rows = self._cursor.execute(
            "SELECT seq, source, target, amount_nano_usd, grant_no, call_no, event_no"
            " FROM credit_transfer WHERE practice_no = ? AND seq > ? ORDER BY seq",
            (number, books.last_seq),
        ).fetchall()
        for seq, source, target, amount, grant_no, call_no, event_no in rows:
            if seq != books.last_seq + 1 or amount <= 0 or source == target:
                raise Violation("I-1 conservation", f"transfer {seq} of practice {number}")
            books.last_seq = seq
            books.accounts[source] -= amount
            books.accounts[target] += amount
            books.grants[grant_no] += amount * ((target in _CREDIT) - (source in _CREDIT))
            books.used[call_no] += amount * ((target == USED) - (source == USED))
            books.clawed[event_no] += amount * ((target == CLAWED_BACK) - (source == CLAWED_BACK))
            if source == PURCHASED:
                if event_no in books.bought:
                    raise Violation("I-14 credited once", f"credit event {event_no} twice")
                books.bought[event_no] = amount

    def _balance(self, number: int, name: str, held: int, debt: int, now_s: int) -> None:
        books = self.books[number]
        bought_free = held_in_grants = 0
        for grant_no, kind, free, pinned, expires_at_s in self._cursor.execute(
            "SELECT grant_no, kind, free_nano_usd, held_nano_usd, expires_at_s"
            " FROM credit_grant WHERE practice_no = ?",
            (number,),
        ):
            if free < 0 or pinned < 0:
                raise Violation("I-7 nothing below zero", f"{name}: grant {grant_no}")
            if free + pinned != books.grants[grant_no]:
                told = books.grants[grant_no]
                raise Violation("I-3 replay", f"{name}: grant {grant_no}: {free + pinned}, {told}")
            held_in_grants += pinned
            if kind != ALLOWANCE and expires_at_s > now_s:
                bought_free += free
        open_calls = self._cursor.execute(
            "SELECT COALESCE(SUM(reserved_nano_usd), 0) FROM credit_call"
            " WHERE practice_no = ? AND status = 1",
            (number,),
        ).fetchone()[0]
        if not held == held_in_grants == open_calls:
            raise Violation("I-8 holds", f"{name}: {held}, {held_in_grants}, {open_calls}")
        if debt != -books.accounts[DEBT] or debt < 0:
            raise Violation("I-3 replay", f"{name}: debt {debt}, {-books.accounts[DEBT]}")
        if debt and bought_free:
            raise Violation("debt is repaid first", f"{name}: {debt} beside {bought_free}")
