"""PostgreSQL whose tables are spread over the nodes of a cluster: what is said otherwise there.

Law: a statement of the hot path names one practice by its number, so one node answers it. Nothing
is kept between transactions: a row's version says nothing across nodes. A COMMIT that fails leaves
the outcome unknown, because a node may have done its share. Tables that are laid together on one
server are spoken to in the same way, so all of this is tested without a cluster, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Self

import psycopg

from guthaben.domain.commands import Command
from guthaben.errors import OutcomeUnknown
from guthaben.store import connection
from guthaben.store.loaded import Loaded
from guthaben.store.postgres import PostgresCursor, said
from guthaben.store.postgres_bulk import INSERT, Bulk, columns_of
from guthaben.store.postgres_distribute import LOCAL, PLAN, PRACTICE
from guthaben.store.postgres_spread_preload import preload, wait_for
from guthaben.store.postgres_writing import WritingCursor, numbered
from guthaben.store.session import NUMBER, NUMBER_OF

SETTINGS: Final = (
    # One connection per node and transaction: one snapshot there, and one share of a commit.
    "SET citus.max_adaptive_executor_pool_size = 1",
    "SET citus.multi_shard_modify_mode = 'sequential'",
    # What is SET LOCAL holds on the nodes as well.
    "SET citus.propagate_set_commands = 'local'",
)
"""For every connection; a server without Citus takes them as names that nobody asks for."""
_PATIENCE: Final = f"SET LOCAL lock_timeout = {connection.BUSY_TIMEOUT_MS}"
_IS_THERE: Final = "SELECT 1 FROM credit_practice WHERE practice_no = ?"
NOBODY: Final = 0
"""The number that no practice has."""
_FEW: Final = 2
_CHUNK: Final = 16
"""So many rows of one practice go into one INSERT: always as many, so that it is prepared."""


@lru_cache(maxsize=2048)
def by_number(sql: str) -> tuple[str, tuple[int, ...]]:
    """Write a question with numbers where it looks names up; tell which of its values are names."""
    pieces = sql.split(NUMBER_OF)
    places: list[int] = []
    marks = 0
    for piece in pieces[:-1]:
        marks += piece.count("?")
        places.append(marks)
        marks += 1
    return "?".join(pieces), tuple(places)


def with_numbers(
    number_of: Callable[[str], int], sql: str, values: Sequence[Any]
) -> tuple[str, Sequence[Any]]:
    """Put numbers in the place of the names in a question."""
    text, places = by_number(sql)
    if not places:
        return sql, values
    found = list(values)
    for place in places:
        found[place] = number_of(values[place])
    return text, found


class SpreadReader(PostgresCursor):
    """Asks the store's questions, each of the nodes that know; see `session.Cursor`."""

    __slots__ = ()
    _said = staticmethod(said)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Self:
        """Run one statement, after looking up the numbers of the practices that it names."""
        super().execute(*with_numbers(self._number_of, sql, parameters))
        return self

    def _number_of(self, name: str) -> int:
        row = super().execute(NUMBER, (name,)).fetchone()
        return row[0] if row else NOBODY


class SpreadCursor(WritingCursor):
    """Runs the statements of one transaction; see `session.Cursor`."""

    _said = staticmethod(numbered)

    def _begin(self) -> None:
        if not self._begun:
            super()._begin()
            self._wire.send(_PATIENCE)

    def preload(self, loaded: Loaded, asked: Sequence[tuple[str, Command]], now_s: int) -> None:
        """Lock and read what the commands of a batch speak of."""
        self._is_batch = True
        self._begin()
        preload(self._wire, loaded, self._cache, asked, now_s)

    def end(self) -> str:
        """Send all that is left, then COMMIT; raise `OutcomeUnknown` if that fails."""
        if self._begun:
            self._wire.flush()
            self._wire.send("COMMIT")
            try:
                self._wire.flush()
            except psycopg.Error as error:
                raise OutcomeUnknown(f"nobody knows what became of COMMIT: {error}") from error
        return ""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Self:
        """Queue one statement, after looking up the numbers of the practices that it names."""
        super().execute(*with_numbers(self._number_of, sql, parameters))
        return self

    def _number_of(self, name: str) -> int:
        known = self._cache.numbers.get(name)
        if known is not None:
            return known
        row = super().execute(NUMBER, (name,)).fetchone()
        if row is None:
            return NOBODY
        number = int(row[0])
        if super().execute(_IS_THERE, row).fetchone() is None:
            wait_for(self._wire, self._cache, {name: number})
        return number

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Self:
        """Queue as few statements as there are practices, or else one for every row."""
        every = list(rows)
        bulk = self._rewriter.bulk(sql) if len(every) > _FEW else None
        if bulk is None or PRACTICE not in bulk.columns or PLAN.get(bulk.table) != PRACTICE:
            whole = bulk is not None and PLAN.get(bulk.table, LOCAL) == LOCAL
            return super().executemany(sql, every) if whole else self._each(sql, every)
        self._begin()
        place = bulk.columns.index(PRACTICE)
        groups: dict[int, list[Sequence[Any]]] = {}
        for row in every:
            groups.setdefault(row[place], []).append(row)
        for number, group in groups.items():
            self._of_one_practice(sql, bulk, number, group)
        return self

    def _of_one_practice(
        self, sql: str, bulk: Bulk, number: int, rows: list[Sequence[Any]]
    ) -> None:
        if len(rows) <= _FEW:
            self._each(sql, rows)
        elif INSERT.fullmatch(sql) is None:
            text = f"{bulk.sql} AND t.{PRACTICE} = ${len(bulk.columns) + 1}"
            self._send(text, [*columns_of(rows), number])
        else:
            while len(rows) >= _CHUNK:
                together, rows = rows[:_CHUNK], rows[_CHUNK:]
                self._send(chunk_of(sql), [value for row in together for value in row])
            self._each(sql, rows)

    def _each(self, sql: str, rows: Iterable[Sequence[Any]]) -> Self:
        self._begin()
        for row in rows:
            self._send(numbered(sql), row)
        return self


@lru_cache(maxsize=256)
def chunk_of(sql: str) -> str:
    """Write an INSERT of one row for a chunk of them."""
    found = INSERT.fullmatch(sql)
    assert found is not None
    values = ", ".join([f"({found['values']})"] * _CHUNK)
    return numbered(
        f"INSERT INTO {found['table']} ({found['columns']}) VALUES {values}{found['rest']}"
    )
