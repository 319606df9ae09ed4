"""One house per test; when it closes, the journal must explain every balance."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guthaben.services.guthaben import Guthaben
from guthaben.store.store import Store
from tests import databases, postgres
from tests.meanwhile import Meanwhile
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import Clock, House

Build = Callable[..., House]

# What survives a power cut is tested elsewhere; here a disk only costs time.
MEMORY = Path("/dev/shm")


@pytest.fixture
def build(database_kind: str) -> Iterator[Build]:
    """Build a house; several in one test stand apart."""
    built: list[House] = []
    base = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as folder:

        def make(**options: Any) -> House:
            made = House(databases.made(database_kind, Path(folder), len(built)), **options)
            built.append(made)
            return made

        yield make
        for house in built:
            house.close()


@pytest.fixture
def house(build: Build) -> House:
    """One house whose gate claims by itself."""
    return build()


# ---- two servers on one PostgreSQL


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def both(clock: Clock) -> Iterator[tuple[Guthaben, Guthaben]]:
    url = postgres.fresh()
    with Guthaben.open(url, clock_ms=clock) as here, Guthaben.open(url, clock_ms=clock) as there:
        yield here, there


@pytest.fixture
def servers(both: tuple[Guthaben, Guthaben]) -> tuple[Store, Store]:
    here, there = both
    return here.core.store, there.core.store


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway(Elsewhere())


@pytest.fixture
def meanwhile(servers: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(servers[0].url, monkeypatch)
