"""A caller's own connection as a store: the same workspace, in the caller's transaction or our own.

Law: the caller's connection is the only one used. Nothing the caller began is committed or rolled
back; what we begin, we commit. See `connection.joined`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from guthaben.store.connection import joined, take_write_lock
from guthaben.store.workspace import Workspace
from guthaben.store.writer import wall_clock_ms

T = TypeVar("T")


class Run(Protocol):
    """Does several commands and statements in one transaction: `Store.run`, or `Adopted.run`."""

    def __call__(self, work: Callable[[Workspace], T]) -> T:
        """Run the work and give what it returns; its exception undoes all of it."""
        ...


class Adopted:
    """A caller's `sqlite3.Connection`, whose schema has been ensured."""

    def __init__(
        self, con: sqlite3.Connection, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self.con = con
        self.clock_ms = clock_ms

    def now_s(self) -> int:
        """Read the clock, in whole seconds since 1970."""
        return self.clock_ms() // 1000

    def run(self, work: Callable[[Workspace], T]) -> T:
        """Do the work in a savepoint of the caller's open transaction, or commit it ourselves."""
        with joined(self.con) as cursor:
            take_write_lock(cursor)
            space = Workspace(cursor, self.clock_ms())
            answer = work(space)
            space.flush()
            return answer

    def read(self, question: Callable[[sqlite3.Cursor], T]) -> T:
        """Ask something that changes nothing, as the caller's transaction sees it."""
        text_factory = self.con.text_factory
        self.con.text_factory = str
        try:
            cursor = self.con.cursor()
            cursor.row_factory = None
            return question(cursor)
        finally:
            self.con.text_factory = text_factory
