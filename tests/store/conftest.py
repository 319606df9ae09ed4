"""A store on a file, with a clock that stands still."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben.store.store import Store
from tests import postgres
from tests.store.bank import Clock, connection, pay, url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.db"


@pytest.fixture
def database(database_kind: str, tmp_path: Path) -> str:
    """The URL of an empty database."""
    # Not a copy of a migrated file: what is told of a file here begins before there is one.
    return url(tmp_path / "credit.db") if database_kind == "sqlite" else postgres.fresh()


@pytest.fixture
def store(database: str, clock: Clock) -> Iterator[Store]:
    opened = Store(database, clock_ms=clock)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for archived calls."""
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def statements(store: Store) -> list[str]:
    """Every statement that the writer's connection executes."""
    done: list[str] = []
    pay(store, "warm", 1)
    connection(store).set_trace_callback(done.append)
    return done
