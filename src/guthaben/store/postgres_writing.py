"""The cursor of a writer on PostgreSQL: its statements go together when an answer is wanted.

Law: the transaction begins with its first statement, and what was taken from the cache is proven
before anything else is done. Nothing is sent twice; `end` sends COMMIT with all that is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final, Self

import psycopg

from guthaben.domain.commands import Command
from guthaben.errors import InvalidInput
from guthaben.store import postgres_partitions
from guthaben.store.loaded import Loaded
from guthaben.store.postgres_bulk import Rewriter, columns_of
from guthaben.store.postgres_cache import ProvenCache
from guthaben.store.postgres_preload import Key, from_cache, preload, prove, prove_absent
from guthaben.store.postgres_wire import Answer, Wire
from guthaben.store.session import LOCK, LOCK_FREE, NEXT_ROW_ID

_FEW: Final = 2
_MOST_QUEUED: Final = 500
_INDEXED_BY = re.compile(r" INDEXED BY \w+")
_WORDS: Final = (
    (LOCK, "FOR UPDATE"),
    (LOCK_FREE, "FOR UPDATE OF d SKIP LOCKED"),
    (NEXT_ROW_ID, "nextval(pg_get_serial_sequence('credit_event', 'row_id'))"),
)
_STAMP: Final = "SELECT pg_current_xact_id_if_assigned()::xid::text"
"""The version that this transaction gave to all rows it wrote."""


@lru_cache(maxsize=2048)
def numbered(sql: str) -> str:
    """Write a statement of ours PostgreSQL's way: `$1` for `?`, locks, no index hints."""
    number = count(1)
    said = _INDEXED_BY.sub("", sql)
    for words, ours in _WORDS:
        said = said.replace(words, ours)
    return re.sub(r"\?", lambda _mark: f"${next(number)}", said)


@lru_cache(maxsize=2048)
def in_parts(sql: str) -> str:
    """Write a statement for tables that are cut into parts."""
    return numbered(postgres_partitions.INSTEAD.get(sql, sql))


class WritingCursor:
    """Runs the statements of one transaction; see `session.Cursor`."""

    _said = staticmethod(in_parts)

    def __init__(self, wire: Wire, rewriter: Rewriter, cache: ProvenCache, *, trusts: bool) -> None:
        self._wire = wire
        self._rewriter = rewriter
        self._cache = cache
        self._trusts = trusts
        self._loaded: Loaded | None = None
        self._new_keys: list[Key] = []
        self._begun = self._is_batch = False
        self._place = 0
        self._answer: Answer | None = None
        self._rows: Iterator[Any] | None = None

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        self._wire.send("BEGIN")
        if self._loaded is not None:
            prove(self._wire, self._loaded, self._cache)

    def preload(self, loaded: Loaded, asked: Sequence[tuple[str, Command]], now_s: int) -> None:
        """Have at hand what the commands of a batch speak of: kept and to be proven, or read."""
        self._is_batch = True
        keys = from_cache(loaded, self._cache, asked) if self._trusts else None
        if keys is None:
            self._begin()
            preload(self._wire, loaded, self._cache, asked, now_s)
        else:
            self._loaded, self._new_keys = loaded, keys

    def end(self) -> str:
        """Send all that is left and COMMIT; tell the version of the rows that were written."""
        if self._loaded is not None:
            self._begin()
            refused = [key for key in self._new_keys if key not in self._loaded.call_keys]
            if refused:
                prove_absent(self._wire, self._cache, refused)
        if not self._begun:
            return ""
        stamp = self._wire.send(_STAMP) if self._cache.written else None
        self._wire.send("COMMIT")
        answers = self._wire.flush()
        return "" if stamp is None else answers[stamp].rows()[0][0] or ""

    # ---- statements

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Self:
        """Queue one statement."""
        self._begin()
        try:
            self._send(self._said(sql), parameters)
        except psycopg.DataError as error:
            if self._is_batch or "NUL" not in str(error):
                raise  # only the culprit may hear of it; the writer sees to that
            raise InvalidInput("a text holds a NUL character; leave it out") from error
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Self:
        """Queue one statement for all rows at once, or else one for every row."""
        every = list(rows)
        self._begin()
        bulk = self._rewriter.bulk(sql) if len(every) > _FEW else None
        if bulk is not None:
            self._send(bulk.sql, columns_of(every), prepare=not bulk.is_planned_anew)
            return self
        for row in every:
            self._send(self._said(sql), row)
        return self

    def _send(self, sql: str, values: Sequence[Any], *, prepare: bool = True) -> None:
        self._place = self._wire.send(sql, values, prepare=prepare)
        self._answer = self._rows = None
        if self._place >= _MOST_QUEUED:
            self._told()

    def _told(self) -> Answer:
        if self._answer is None:
            self._answer = self._wire.flush()[self._place]
        return self._answer

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._told().rowcount

    def fetchone(self) -> Any:
        """Give the next row, or None."""
        return next(iter(self), None)

    def fetchall(self) -> list[Any]:
        """Give all remaining rows."""
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        """Walk through the rows."""
        if self._rows is None:
            self._rows = iter(self._told().rows())
        return self._rows
