"""How the writer speaks to PostgreSQL: statements wait until an answer is wanted, then go at once.

Law: one flush is one round trip, whatever it holds; it raises the error of the first statement that
failed, and nothing behind that was done. Statements are prepared on the server when they come
again. An interrupt in a flush leaves a connection that must be closed: `is_lost` says so.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult

_INT8, _BYTEA = 20, 17
_MOST_PREPARED: Final = 1000
_TUPLES: Final = pq.ExecStatus.TUPLES_OK
_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_INTEGERS, _TEXTS, _NOTHING = {int}, {str}, {type(None)}


class Statement(NamedTuple):
    """A statement with `$1` places and the types of their values; 0 leaves it to the server."""

    sql: bytes
    types: tuple[int, ...]


class Answer:
    """What one statement gave; its rows are made when they are asked for."""

    __slots__ = ("_result", "_transformer")

    def __init__(self, result: PGresult, transformer: Any) -> None:
        self._result = result
        self._transformer = transformer

    @property
    def rowcount(self) -> int:
        """How many rows it changed or gave."""
        return self._result.command_tuples or 0

    def rows(self) -> list[Any]:
        """Make tuples of integers, texts and bytes."""
        result = self._result
        if result.status != _TUPLES or not result.ntuples:
            return []
        self._transformer.set_pgresult(result)
        found: list[Any] = self._transformer.load_rows(0, result.ntuples, tuple)
        return found


class Wire:
    """Queues the statements of one connection."""

    def __init__(self, con: psycopg.Connection[Any]) -> None:
        self._pg = con.pgconn
        self._transformer = Transformer(con)
        self._queue: list[tuple[Statement, list[bytes | None], bool]] = []
        self._seen: set[Statement] = set()
        self._names: dict[Statement, bytes] = {}
        self._last_name = 0
        self.round_trips = 0
        self.is_lost = False

    def send(self, sql: str, values: Sequence[Any] = (), *, prepare: bool = True) -> int:
        """Queue a statement; tell which answer of the next flush is its.

        Without `prepare` it is planned anew each time.
        """
        typed = [written(value) for value in values]
        statement = Statement(sql.encode(), tuple([oid for oid, _text in typed]))
        self._queue.append((statement, [text for _oid, text in typed], prepare))
        return len(self._queue) - 1

    def drop(self) -> None:
        """Forget what was queued and not sent."""
        self._queue.clear()

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Send a statement with all that is queued; give its rows."""
        place = self.send(sql, values)
        return self.flush()[place].rows()

    def is_gone(self) -> bool:
        """Tell whether the server has ended the connection while nothing was asked."""
        poll = select.poll()
        poll.register(self._pg.socket, select.POLLIN)
        try:
            while poll.poll(0):  # a notice, or its last words, then the end
                self._pg.consume_input()
        except psycopg.Error:
            return True
        return self._pg.status != pq.ConnStatus.OK

    def flush(self) -> list[Answer]:
        """Send what is queued and wait for all answers."""
        if not self._queue:
            return []
        queue, self._queue = self._queue, []
        self.round_trips += 1
        self.is_lost = True  # until all that was sent is answered
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        sent = [self._send(*queued) for queued in queue]
        self._pg.pipeline_sync()
        results, failed = self._receive()
        self._pg.exit_pipeline_mode()
        self._pg.nonblocking = 0
        self.is_lost = False
        if failed is not None:
            for statement, _values, _prepare in queue:  # nobody knows which of these were prepared
                self._names.pop(statement, None)
            raise _error(failed)
        kept = iter(results)
        answers = []
        for is_prepared_now in sent:
            if is_prepared_now:
                next(kept)
            answers.append(Answer(next(kept), self._transformer))
        return answers

    def _send(self, statement: Statement, values: list[bytes | None], prepare: bool) -> bool:
        """Hand a statement to the library; tell whether it goes with its own preparation."""
        name = self._names.get(statement)
        if name is not None:
            self._pg.send_query_prepared(name, values)
            return False
        if not prepare or statement not in self._seen or len(self._names) >= _MOST_PREPARED:
            if len(self._seen) >= _MOST_PREPARED:
                self._seen.clear()
            self._seen.add(statement)
            self._pg.send_query_params(statement.sql, values, param_types=statement.types)
            return False
        self._last_name += 1  # no name is ever used again, whatever became of it
        name = self._names[statement] = b"guthaben_%d" % self._last_name
        self._pg.send_prepare(name, statement.sql, param_types=statement.types)
        self._pg.send_query_prepared(name, values)
        return True

    def _receive(self) -> tuple[list[PGresult], PGresult | None]:
        """Read until everything that was sent is answered; the waiting lets other threads work."""
        pg = self._pg
        results: list[PGresult] = []
        failed: PGresult | None = None
        poll = select.poll()
        poll.register(pg.socket, select.POLLIN | select.POLLOUT)
        waits_to_write = True
        while True:
            if waits_to_write and pg.flush() == 0:
                waits_to_write = False
                poll.modify(pg.socket, select.POLLIN)
            while not pg.is_busy():
                result = pg.get_result()
                if result is None:
                    continue
                if result.status == _SYNC:
                    return results, failed
                if result.status == _FAILED and failed is None:
                    failed = result
                results.append(result)
            poll.poll()
            pg.consume_input()


def written(value: Any) -> tuple[int, bytes | None]:
    """Write a value as PostgreSQL reads it, with its type; booleans are integers here."""
    kind = type(value)
    if kind is int:
        return _INT8, b"%d" % value
    if kind is str:
        return 0, _text(value).encode()
    if value is None:
        return 0, None
    if kind is bool:
        return _INT8, b"1" if value else b"0"
    if kind is bytes:
        return _BYTEA, b"\\x" + value.hex().encode()
    if kind is list:
        return 0, array(value)
    if isinstance(value, int):  # an enumeration
        return _INT8, b"%d" % value
    if isinstance(value, str):
        return 0, _text(value).encode()
    raise TypeError(f"the store writes no {kind.__name__}")


def _text(value: str) -> str:
    if "\x00" in value:
        raise psycopg.DataError("PostgreSQL's texts can't hold NUL")
    return str(value)


def array(values: list[Any]) -> bytes:
    """Write values as an array; what is of one kind, as nearly every column is, all at once."""
    kinds = set(map(type, values))
    if kinds == _INTEGERS:
        return f"{{{str(values)[1:-1]}}}".encode()
    if kinds == _TEXTS:
        together = '","'.join(values)
        if "\\" not in together and together.count('"') == 2 * len(values) - 2:
            return f'{{"{_text(together)}"}}'.encode()
    if kinds == _NOTHING:
        return f"{{{'NULL,' * (len(values) - 1)}NULL}}".encode()
    return f"{{{','.join([_item(value) for value in values])}}}".encode()


def _item(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if isinstance(value, int):
        return str(int(value))
    return '"' + _text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _error(failed: PGresult) -> psycopg.Error:
    state = (failed.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000").decode()
    try:
        kind = errors.lookup(state)
    except KeyError:  # newer than the driver
        kind = psycopg.DatabaseError
    return kind(failed.get_error_message())
