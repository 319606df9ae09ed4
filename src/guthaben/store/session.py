"""What the writer needs of a database: a connection on which it begins and ends transactions.

Law: `commit` either makes everything durable, or raises `StoreUnavailable` when surely nothing
happened, or `OutcomeUnknown` when nobody can tell. `Conflict` means that nothing happened and that
the same work may be done again at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from guthaben.store.cache import Cache

LOCK = "/* FOR UPDATE */"
"""Ends a question whose row a writer locks where the database locks rows; elsewhere a comment."""


LOCK_FREE = "/* FOR UPDATE OF d SKIP LOCKED */"
"""Ends a question after rows called `d` that nobody else holds: what one server takes, another
passes by. Where there is one writer it is a comment."""

NUMBER = "SELECT practice_no FROM credit_practice_name WHERE practice_id = ?"
"""A practice's number by its name."""

NUMBER_OF = f"({NUMBER})"
"""The same, as a part of a question; where practices are spread over nodes
it is looked up first, because the number says which node to ask."""

NEXT_ROW_ID = "(SELECT COALESCE(MAX(row_id), 0) + 1 FROM credit_event)"
"""The next number of a credit event as people see it; from a sequence where several may write."""


class Grown(NamedTuple):
    """What was done for the months, by name: how many calls moved with it."""

    made: dict[str, int]
    dissolved: dict[str, int]


class Conflict(Exception):
    """Another server was in the way (deadlock, lost race); what was begun is undone."""


class Cursor(Protocol):
    """What statements run through; rows are plain tuples, placeholders are question marks."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Self:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Self:
        """Run one statement for every row."""
        ...

    def fetchone(self) -> Any:
        """Give the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Give all remaining rows."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Walk through the rows."""
        ...


class Session(Protocol):
    """The one writing connection of a writer; opened when needed, opened anew after a failure."""

    @property
    def cache(self) -> Cache:
        """States kept between transactions of this connection."""
        ...

    @property
    def lacks_a_node(self) -> bool:
        """Whether what failed last needed a part of a cluster that is gone; others may go on."""
        ...

    def turn(self) -> AbstractContextManager[object]:
        """Wait for this process's turn, where processes take turns."""
        ...

    def begin(self) -> tuple[Cursor, bool]:
        """Begin a transaction; tell whether nobody else has written since our last commit.

        Raises `StoreUnavailable`.
        """
        ...

    def commit(self, write: Callable[[], None]) -> None:
        """Let `write` write what is left, then make all of it durable.

        Raises `StoreUnavailable`, `OutcomeUnknown` or `Conflict`; or what `write` raised, when all
        is undone.
        """
        ...

    def roll_back(self, error: BaseException) -> None:
        """Undo it; raise `StoreUnavailable` or `Conflict` if that is what the error means."""
        ...

    def close(self) -> None:
        """Close the connection for good."""
        ...
