"""Where the old modules find their books: on the caller's connection, or in the configured store.

Law: a caller's connection is used as it is; only a database of our own, named by
`GUTHABEN_DATABASE_URL`, is opened here, and closed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from guthaben import config
from guthaben.services import webhooks
from guthaben.services.legacy.plans import monthly_allowance
from guthaben.store.adopted import Adopted
from guthaben.store.connection import connect, joined, locate
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy import schema
from guthaben.store.legacy.rows import LicenseDetail
from guthaben.store.legacy.schema import Connection
from guthaben.store.workspace import Workspace

T = TypeVar("T")


def ensure(con: Connection) -> None:
    """Have schema and old views on a connection, taking over old tables. Idempotent.

    Commits only what it began. Raises `MigrationNeeded`, and then nothing was changed.
    """
    schema.ensure(con, monthly_allowance)


@contextmanager
def configured() -> Iterator[Connection | None]:
    """Open the configured store for a moment; None where none is configured.

    A database in memory counts as none: nobody else would ever see what is written there.
    """
    url = config.database_url()
    location = locate(url) if url else None
    if location is None or location.in_memory:
        yield None
        return
    with closing(connect(location)) as con:
        ensure(con)
        yield con


@contextmanager
def one_transaction(con: Connection) -> Iterator[None]:
    """Let several functions on this connection succeed or fail together."""
    with joined(con):
        yield


class Books(Adopted):
    """A caller's connection as a store, which may also be looked into."""

    def look(self, question: Callable[[Workspace], T]) -> T:
        """Ask something of a workspace that is thrown away; what it is asked must not write."""
        return self.read(lambda cursor: question(Workspace(cursor, self.clock_ms())))


def books(con: Connection) -> Books:
    """Use a caller's connection as a store."""
    return Books(con)


def license_of(con: Connection, practice_id: str) -> LicenseDetail | None:
    """Read the licence of a practice from the host's table."""
    return Books(con).read(lambda cursor: legacy_rows.license_of(cursor, practice_id))


def apply_told(con: Connection, event_type: str, source: Mapping[str, Any]) -> tuple[str, str]:
    """Apply what an event tells of a refund or of a page that was not paid; asks nobody."""
    return Books(con).run(lambda space: webhooks.apply_told(space, event_type, source))
