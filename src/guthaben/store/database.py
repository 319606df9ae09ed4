"""Which database a URL names, and what the store needs of it.

Law: everything that differs between databases is behind these three: a session to write through, a
way to ask, and how many writers there may be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from guthaben.errors import ConfigError
from guthaben.store.connection import locate
from guthaben.store.copying import Table
from guthaben.store.session import Cursor, Grown, Session
from guthaben.store.sqlite_database import SqliteDatabase

T = TypeVar("T")
_POSTGRES = ("postgresql://", "postgres://")


class Database(Protocol):
    """One database of one process."""

    name: str
    """What to call it in messages: no password is in it."""
    in_memory: bool
    """Whether all that is asked must go through the writing connection."""
    survives_fork: bool
    """Whether a forked child may open it anew."""

    @property
    def lanes(self) -> int:
        """How many writers work side by side, each for its share of the practices."""
        ...

    def sees_one_moment(self) -> bool:
        """Tell whether a read sees all tables at one moment; on a cluster each node has its own."""
        ...

    def exists(self) -> bool:
        """Tell whether there is anything, without creating it."""
        ...

    def session(self, now_s: Callable[[], int]) -> Session:
        """Open a writing connection; the first one migrates."""
        ...

    def tables(self, cursor: Cursor) -> list[Table]:
        """List our tables as they are there."""
        ...

    def before_copy(self, cursor: Cursor, source: Cursor) -> None:
        """Make room for what is going to be copied."""
        ...

    def after_copy(self, cursor: Cursor) -> None:
        """Let numbers that the database gives out go on behind those that were copied."""
        ...

    def distribute(self, by: str) -> bool:
        """Spread the tables over the nodes of a cluster; tell whether that was still to do.

        Raises `ConfigError`, with nothing changed, where that can't be.
        """
        ...

    def read(self, question: Callable[[Cursor], T]) -> T:
        """Ask something of one moment. Raises `StoreUnavailable`."""
        ...

    def back_up(self, target: Path, prepare: Callable[[Cursor], None]) -> None:
        """Copy everything into a file while it is being used. Raises `ConfigError` where others do.

        Raises `StoreUnavailable`, and `InvalidInput` if there is such a file.
        """
        ...

    def grow(self, now_ms: int) -> Grown:
        """Make room for the months to come, and give back that of archived ones."""
        ...

    def close(self) -> None:
        """Close what is idle."""
        ...


def open_database(url: str) -> Database:
    """Choose by the URL: `sqlite:///credit.db`, `sqlite://` (memory), `postgresql://...`."""
    if url.startswith(_POSTGRES):
        try:
            from guthaben.store.postgres import PostgresDatabase
        except ImportError as error:
            raise ConfigError(
                "PostgreSQL needs its driver: pip install 'guthaben[postgresql]'"
            ) from error
        return PostgresDatabase(url)
    return SqliteDatabase(locate(url))
