"""The writer's connection to PostgreSQL.

Law: a practice's row is locked before its states are read, in the order of ids, so writers of
several servers take turns per practice. What was kept from an earlier batch is never trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from guthaben.errors import OutcomeUnknown, StoreUnavailable
from guthaben.store import postgres_schema
from guthaben.store.postgres import PostgresCursor, connect
from guthaben.store.postgres_bulk import Rewriter, column_types
from guthaben.store.session import Conflict

_ALONE = contextlib.nullcontext()
_IN_THE_WAY = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
    errors.LockNotAvailable,
)


class PostgresSession:
    """Opens a connection and migrates the database; see `session.Session`."""

    def __init__(self, url: str, now_s: Callable[[], int]) -> None:
        self._url = url
        self._now_s = now_s
        self._doubted: str | None = None
        self._rewriter: Rewriter | None = None
        self.con: psycopg.Connection[Any] | None = None
        self._open()

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Nobody has to wait: the rows' locks do it."""
        return _ALONE

    def begin(self) -> tuple[PostgresCursor, bool]:
        """Give a cursor that begins with its first statement; nothing kept is to be trusted."""
        try:
            if self.con is None or self.con.closed:
                self._open()
            con = self.con
            assert con is not None
            if con.info.transaction_status is not TransactionStatus.IDLE:
                con.execute("ROLLBACK")
        except psycopg.Error as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error
        return PostgresCursor(con, writes=True, rewriter=self._rewriter), False

    def commit(self, write: Callable[[], None]) -> None:
        """Write and commit in one round trip; a connection lost then leaves the outcome unknown."""
        con = self.con
        assert con is not None
        try:
            with con.pipeline():
                write()
                if con.info.transaction_status is not TransactionStatus.IDLE:
                    con.execute("COMMIT")
        except psycopg.Error as error:
            if con.broken:
                self._drop()
                raise OutcomeUnknown(f"the answer to COMMIT was lost: {error}") from error
            self.roll_back(error)
            raise
        except BaseException as error:
            self.roll_back(error)
            raise

    def roll_back(self, error: BaseException) -> None:
        """Undo what was begun; tell what a database's error means."""
        con = self.con
        try:
            if con is not None:
                con.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()
        if isinstance(error, errors.UniqueViolation) and str(error) == self._doubted:
            self._doubted = None  # the same again: it is no race but a mistake
            return
        if isinstance(error, _IN_THE_WAY):
            self._doubted = str(error) if isinstance(error, errors.UniqueViolation) else None
            raise Conflict(str(error)) from error
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            self._drop()
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _open(self) -> None:
        self.con = connect(self._url)
        try:
            postgres_schema.migrate(self.con, self._now_s())
            self._rewriter = Rewriter(column_types(self.con))
        except psycopg.Error as error:
            self._drop()
            raise StoreUnavailable(f"cannot prepare the database: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        con, self.con = self.con, None
        if con is not None:
            with contextlib.suppress(psycopg.Error):
                con.close()
