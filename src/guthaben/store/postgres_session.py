"""The writer's connection to PostgreSQL.

Law: a practice's row is locked before its states are read, in the order of numbers, so writers of
several servers take turns per practice. What was kept from earlier is proven, or read anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from guthaben.errors import OutcomeUnknown, StoreUnavailable
from guthaben.store import postgres_home, postgres_schema
from guthaben.store.postgres import connect, limit_waiting
from guthaben.store.postgres_bulk import Rewriter, column_types
from guthaben.store.postgres_cache import ProvenCache
from guthaben.store.postgres_partitions import is_together
from guthaben.store.postgres_spread import SETTINGS, SpreadCursor
from guthaben.store.postgres_wire import Wire
from guthaben.store.postgres_writing import WritingCursor
from guthaben.store.session import Conflict

_ALONE = contextlib.nullcontext()
CROWDED_S = 0.5
"""How long a writer that met another reads everything anew, instead of proving what it kept."""
_PLANS_ANEW = frozenset(4**power for power in range(2, 12))
"""After so many transactions plans are made anew: those of an empty table know no right index."""
LEAN = (
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
)
_IN_THE_WAY = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
)
_NOT_NOW = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction)
"""Gone, full, shutting down, locked for too long, or a replica: the work itself is not to blame."""


class PostgresSession:
    """Opens a connection and migrates the database; see `session.Session`."""

    def __init__(self, url: str, now_s: Callable[[], int]) -> None:
        self._url = url
        self._now_s = now_s
        self._doubted: str | None = None
        self._rewriter: Rewriter | None = None
        self._cursor: WritingCursor | None = None
        self._crowded_until_s = 0.0
        self._begun = 0
        self._is_spread = False
        self.lacks_a_node = False
        self._wire: Wire | None = None
        self.cache = ProvenCache()
        self.con: psycopg.Connection[Any] | None = None
        self._open()

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Nobody has to wait: the rows' locks do it."""
        return _ALONE

    def begin(self) -> tuple[WritingCursor, bool]:
        """Give a cursor that begins with its first statement and proves what was kept."""
        try:
            if self.con is None or self.con.closed or self._wire is None or self._wire.is_gone():
                self._drop()
                self._open()
            con = self.con
            assert con is not None
            if con.info.transaction_status is not TransactionStatus.IDLE:
                con.execute("ROLLBACK")
            self._begun += 1
            if self._begun in _PLANS_ANEW:
                con.execute("DISCARD PLANS")
        except psycopg.Error as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error
        self.lacks_a_node = False
        self.cache.forget_old()
        assert self._wire is not None
        assert self._rewriter is not None
        trusts = time.monotonic() >= self._crowded_until_s
        kind = SpreadCursor if self._is_spread else WritingCursor
        self._cursor = kind(self._wire, self._rewriter, self.cache, trusts=trusts)
        return self._cursor, not self._is_spread

    def commit(self, write: Callable[[], None]) -> None:
        """Write and commit in one round trip; a connection lost then leaves the outcome unknown."""
        cursor = self._cursor
        assert cursor is not None
        try:
            write()
        except BaseException as error:
            self.roll_back(error)
            raise
        try:
            self.cache.stamp = cursor.end()
            self._doubted = None
        except psycopg.Error as error:
            if self._is_lost():
                self._drop()
                raise OutcomeUnknown(f"no answer to COMMIT: {error}") from error
            self.roll_back(error)
            raise
        except BaseException as error:
            self.roll_back(error)
            raise

    def _is_lost(self) -> bool:
        return self.con is None or self.con.broken or self._wire is None or self._wire.is_lost

    def roll_back(self, error: BaseException) -> None:
        """Undo what was begun; tell what a database's error means."""
        if self._is_lost():
            self._drop()
        elif self.con is not None and self._wire is not None:
            self._wire.drop()
            try:
                if self.con.info.transaction_status is not TransactionStatus.IDLE:
                    self.con.execute("ROLLBACK")
            except psycopg.Error:
                self._drop()
        if isinstance(error, errors.UniqueViolation) and str(error) == self._doubted:
            self._doubted = None  # the same again: it is no race but a mistake
            return
        if isinstance(error, _IN_THE_WAY):
            self._crowded_until_s = time.monotonic() + CROWDED_S
            self._doubted = str(error) if isinstance(error, errors.UniqueViolation) else None
            raise Conflict(str(error)) from error
        if isinstance(error, _NOT_NOW):
            self.lacks_a_node = self._is_spread and self.con is not None
            if not self.lacks_a_node:
                self._drop()
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _open(self) -> None:
        self.con = connect(self._url)
        # What psycopg prepared by itself it would throw away with a ROLLBACK, and ours with it.
        self.con.prepare_threshold = None
        self.cache.leave()  # nobody knows what is behind the name now: a backup, perhaps
        try:
            postgres_schema.migrate(self.con, self._now_s())
            limit_waiting(self.con)
            postgres_home.settle_in(self.con, self._now_s())
            self._is_spread = is_together(self.con)
            for setting in SETTINGS if self._is_spread else LEAN:
                self.con.execute(setting.encode())
            self._rewriter = Rewriter(column_types(self.con))
            self._wire = Wire(self.con)
        except psycopg.Error as error:
            self._drop()
            raise StoreUnavailable(f"cannot prepare the database: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        con, self.con, self._wire = self.con, None, None
        if con is not None:
            with contextlib.suppress(psycopg.Error):
                con.close()
