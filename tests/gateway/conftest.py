"""A gateway over real sockets for the tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.served import Served


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a gateway with settings of one's own."""
    running: list[Served] = []

    def make(**settings: Any) -> Served:
        running.append(Served(tmp_path, settings))
        return running[-1]

    yield make
    for served in running:
        served.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """Serve a gateway to a practice that has credit."""
    made = serve()
    made.give()
    return made
