"""PostgreSQL as a database of the store, through psycopg.

Law: the statements are the same as on SQLite; what differs is here and in `postgres_schema`. One
moment of the database is a repeatable read; commits are durable (`synchronous_commit` is on).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import ConnectionPool, PoolTimeout

from guthaben import config
from guthaben.errors import ConfigError, InvalidInput, StoreUnavailable
from guthaben.store import connection, postgres_partitions
from guthaben.store.copying import Table, tables_from
from guthaben.store.postgres_schema import IDENTITIES, go_on
from guthaben.store.session import Cursor, Grown

if TYPE_CHECKING:
    from guthaben.store.postgres_session import PostgresSession

T = TypeVar("T")
READERS = 8
SPREAD_LANES = 8
"""On a cluster a writer waits for nodes, practice by practice; so many wait side by side."""
CONNECT_TIMEOUT_S = 10
_TABLES = """
    SELECT c.relname, a.attname, COALESCE(array_position(i.indkey::int2[], a.attnum) + 1, 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname LIKE 'credit\\_%'
    AND c.relname NOT IN ('credit_reader', 'credit_call_registry', 'credit_two_phase')
    ORDER BY c.relname, a.attnum"""
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
def translated(sql: str) -> str:
    """Write a question of ours for tables that are cut into parts."""
    return said(postgres_partitions.INSTEAD.get(sql, sql))


@lru_cache(maxsize=2048)
def said(sql: str) -> str:
    """Write a question of ours the way psycopg wants it: `%s` for `?`, no index hints, no locks."""
    return _INDEXED_BY.sub("", sql).replace("%", "%%").replace("?", "%s")


class PostgresCursor:
    """Asks the store's questions; see `session.Cursor`."""

    __slots__ = ("_cursor",)
    _said = staticmethod(translated)

    def __init__(self, con: psycopg.Connection[Any]) -> None:
        self._cursor = con.cursor()

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Self:
        """Run one statement."""
        try:
            self._cursor.execute(self._said(sql), parameters)
        except psycopg.DataError as error:
            if "NUL" not in str(error):
                raise
            raise InvalidInput("a text holds a NUL character; leave it out") from error
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Self:
        """Run one statement for every row."""
        self._cursor.executemany(self._said(sql), rows)
        return self

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


def limit_waiting(con: psycopg.Connection[Any]) -> None:
    """Let nobody wait for a stranger's lock longer than on SQLite."""
    con.execute(f"SET lock_timeout = {connection.BUSY_TIMEOUT_MS}".encode())


def name_of(url: str) -> str:
    """Name a database without its password."""
    parts = urlsplit(url)
    host = parts.hostname or "local socket"
    return f"postgresql://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


class PostgresDatabase:
    """One database on a server; see `database.Database`."""

    in_memory = False
    survives_fork = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = name_of(url)
        self._lock = threading.Lock()
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._cursor: type[PostgresCursor] = PostgresCursor
        """How questions are asked: otherwise where the tables lie spread."""

    @property
    def lanes(self) -> int:
        """How many writers work side by side, each for its share of the practices."""
        few, many = config.writer_lanes(), config.writer_lanes(SPREAD_LANES)
        if few != many:
            with connect(self.url) as con:
                return many if postgres_partitions.is_together(con) else few
        return few

    def sees_one_moment(self) -> bool:
        """Tell whether the tables lie on one server."""
        self.read(lambda _cursor: None)
        return self._cursor is PostgresCursor

    def exists(self) -> bool:
        """Tell whether the database holds our tables. Raises `StoreUnavailable`."""
        with connect(self.url) as con:
            found = con.execute("SELECT to_regclass('credit_migration')").fetchone()
        return found != (None,)

    def session(self, now_s: Callable[[], int]) -> PostgresSession:
        """Open a writing connection, migrating the database."""
        from guthaben.store.postgres_session import PostgresSession

        return PostgresSession(self.url, now_s)

    def tables(self, cursor: Cursor) -> list[Table]:
        """List our tables as they are there."""
        return tables_from(cursor, _TABLES)

    def before_copy(self, cursor: Cursor, source: Cursor) -> None:
        """Make the months of the calls that come; their keys go into the registry by themselves."""
        if cursor.execute(postgres_partitions.IS_CUT).fetchone()[0]:
            months = postgres_partitions.months(source)
            cursor.executemany("SELECT credit_add_month(?::date)", months)

    def after_copy(self, cursor: Cursor) -> None:
        """Register the keys of archived calls; let every identity go on behind the highest."""
        if cursor.execute(postgres_partitions.IS_CUT).fetchone()[0]:
            cursor.execute(postgres_partitions.REGISTER_ARCHIVED)
        for table, column in cursor.execute(IDENTITIES).fetchall():
            cursor.execute(go_on(table, column))

    def distribute(self, by: str) -> bool:
        """Spread the tables with Citus; what is open goes on as before, so open it anew."""
        from guthaben.store import postgres_distribute

        if by != "citus":
            raise ConfigError(f"Tables are spread with citus, not {by!r}: nothing was changed.")
        self.close()
        try:
            with connect(self.url) as con:
                return postgres_distribute.distribute(con)
        except psycopg.Error as error:
            raise StoreUnavailable(f"{self.name}: nothing was changed: {error}") from error

    def read(self, question: Callable[[Cursor], T]) -> T:
        """Ask in one repeatable read."""
        try:
            with self._readers().connection() as con:
                con.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                try:
                    return question(self._cursor(con))
                finally:
                    if con.info.transaction_status is not TransactionStatus.UNKNOWN:
                        con.execute("ROLLBACK")
        except (psycopg.Error, PoolTimeout) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def _ready_to_read(self, con: psycopg.Connection[Any]) -> None:
        """Prepare a connection of the readers; find out how the tables lie now."""
        configure(con)
        limit_waiting(con)
        if not postgres_partitions.is_together(con):
            self._cursor = PostgresCursor
            return
        from guthaben.store.postgres_spread import SETTINGS, SpreadReader

        for setting in SETTINGS:
            con.execute(setting.encode())
        self._cursor = SpreadReader

    def _readers(self) -> ConnectionPool[psycopg.Connection[Any]]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.url,
                    min_size=1,
                    max_size=READERS,
                    timeout=CONNECT_TIMEOUT_S,
                    kwargs={"autocommit": True, "application_name": "guthaben reader"},
                    configure=self._ready_to_read,
                    check=ConnectionPool.check_connection,
                    open=True,
                )
            return self._pool

    def back_up(self, target: Path, prepare: Callable[[Cursor], None]) -> None:
        """Leave it to the programs that come with the server."""
        raise ConfigError(
            f"PostgreSQL brings its own: pg_dump --format=custom --file={target} DATABASE; what is"
            " restored from it is noticed when it is opened"
        )

    def grow(self, now_ms: int) -> Grown:
        """Make the partitions of months to come, drop those whose calls are archived.

        Tables that are spread have no months.
        """
        try:
            with connect(self.url) as con:
                if postgres_partitions.is_together(con):
                    return Grown({}, {})
                made = postgres_partitions.add_months(con, now_ms)
                return Grown(made, postgres_partitions.dissolve_months(con, now_ms))
        except psycopg.Error as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def close(self) -> None:
        """Close the readers."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
