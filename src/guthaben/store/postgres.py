"""PostgreSQL as a database of the store, through psycopg.

Law: the statements are the same as on SQLite; what differs is here and in `postgres_schema`. One
moment of the database is a repeatable read; commits are durable (`synchronous_commit` is on).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import ConnectionPool, PoolTimeout

from guthaben.domain.commands import Command
from guthaben.errors import StoreUnavailable
from guthaben.store.copying import Table, tables_from
from guthaben.store.loaded import Loaded
from guthaben.store.postgres_bulk import Rewriter, document
from guthaben.store.postgres_preload import preload
from guthaben.store.session import LOCK, Cursor

T = TypeVar("T")
READERS = 8
CONNECT_TIMEOUT_S = 10
_FEW = 2
_TABLES = """
    SELECT c.relname, a.attname, COALESCE(array_position(i.indkey::int2[], a.attnum) + 1, 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname LIKE 'credit\\_%' AND c.relname <> 'credit_reader'
    ORDER BY c.relname, a.attnum"""
_IDENTITIES = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND is_identity = 'YES'
    AND table_name LIKE 'credit\\_%'"""
_INDEXED_BY = re.compile(r" INDEXED BY \w+")


class _BoolDumper(Dumper):
    """Booleans are integers in our tables, as they are on SQLite."""

    oid = 20  # int8

    def dump(self, obj: bool) -> Buffer | None:
        return b"1" if obj else b"0"


class _SumLoader(Loader):
    """Sums of bigints are numerics; ours are integers."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


@lru_cache(maxsize=2048)
def translated(sql: str, *, writes: bool) -> str:
    """Write a statement of ours the way psycopg wants it: `%s` for `?`, no index hints."""
    if writes:
        sql = sql.replace(LOCK, "FOR UPDATE")
    return _INDEXED_BY.sub("", sql).replace("%", "%%").replace("?", "%s")


class PostgresCursor:
    """Runs the store's statements; see `session.Cursor`."""

    __slots__ = ("_begun", "_cursor", "_rewriter", "_writes", "con")

    def __init__(
        self, con: psycopg.Connection[Any], *, writes: bool, rewriter: Rewriter | None = None
    ) -> None:
        self.con = con
        self._writes = writes
        self._rewriter = rewriter
        self._cursor = con.cursor()
        self._begun = not writes

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.con.execute("BEGIN")

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Self:
        """Run one statement."""
        self._begin()
        self._cursor.execute(translated(sql, writes=self._writes), parameters)
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Self:
        """Run one statement for all rows at once, or else for every row in one pipeline."""
        every = list(rows)
        self._begin()
        bulk = self._rewriter.bulk(sql) if self._rewriter and len(every) > _FEW else None
        if bulk is not None:
            self._cursor.execute(bulk.sql.encode(), (document(bulk, every),))
            return self
        self._cursor.executemany(translated(sql, writes=self._writes), every)
        return self

    def preload(self, loaded: Loaded, asked: Sequence[tuple[str, Command]], now_s: int) -> None:
        """Lock and read what the commands of a batch speak of."""
        with self.con.pipeline():
            self._begin()
            preload(self.con, loaded, asked, now_s)

    def fetchone(self) -> Any:
        """Give the next row, or None."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """Give all remaining rows."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        """Walk through the rows."""
        return iter(self._cursor)


def configure(con: psycopg.Connection[Any]) -> None:
    """Make a connection speak like the store: integers only, no time limit but our own."""
    con.adapters.register_dumper(bool, _BoolDumper)
    con.adapters.register_dumper(int, Int8Dumper)
    con.adapters.register_loader("numeric", _SumLoader)
    con.prepare_threshold = 2


def connect(url: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode. Raises `StoreUnavailable`."""
    try:
        con = psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="guthaben"
        )
    except psycopg.Error as error:
        raise StoreUnavailable(f"cannot reach {name_of(url)}: {error}") from error
    configure(con)
    return con


def name_of(url: str) -> str:
    """Name a database without its password."""
    parts = urlsplit(url)
    host = parts.hostname or "local socket"
    return f"postgresql://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


class PostgresDatabase:
    """One database on a server; see `database.Database`."""

    in_memory = False
    survives_fork = True
    lanes = 1

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = name_of(url)
        self._lock = threading.Lock()
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None

    def exists(self) -> bool:
        """Leave it to the first connection to tell."""
        return True

    def session(self, now_s: Callable[[], int]) -> Any:
        """Open a writing connection, migrating the database."""
        from guthaben.store.postgres_session import PostgresSession

        return PostgresSession(self.url, now_s)

    def tables(self, cursor: Cursor) -> list[Table]:
        """List our tables as they are there."""
        return tables_from(cursor, _TABLES)

    def after_copy(self, cursor: Cursor) -> None:
        """Let every identity go on behind the highest number."""
        for table, column in cursor.execute(_IDENTITIES).fetchall():
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"
                f" (SELECT COALESCE(MAX({column}), 0) + 1 FROM {table}), false)"
            )

    def read(self, question: Callable[[Cursor], T]) -> T:
        """Ask in one repeatable read."""
        try:
            with self._readers().connection() as con:
                con.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                try:
                    return question(PostgresCursor(con, writes=False))
                finally:
                    if con.info.transaction_status is not TransactionStatus.UNKNOWN:
                        con.execute("ROLLBACK")
        except (psycopg.Error, PoolTimeout) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def _readers(self) -> ConnectionPool[psycopg.Connection[Any]]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.url,
                    min_size=1,
                    max_size=READERS,
                    timeout=CONNECT_TIMEOUT_S,
                    kwargs={"autocommit": True, "application_name": "guthaben reader"},
                    configure=configure,
                    check=ConnectionPool.check_connection,
                    open=True,
                )
            return self._pool

    def close(self) -> None:
        """Close the readers."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
