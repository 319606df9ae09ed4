"""A store on a file, with a clock that stands still."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben.store.store import Store
from tests.store.bank import Clock, url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store(url(path), clock_ms=clock)
    yield opened
    opened.close()
