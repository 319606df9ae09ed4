"""Four servers on one database under attack: a few seconds here, as long as asked in a soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.databases import Database
from tests.faults.attack import attack

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.soak
def test_four_servers_on_one_database_withstand_the_attack(
    database: Database, tmp_path: Path, soak_factor: int
) -> None:
    found = attack(tmp_path, database, 4 if soak_factor == 1 else 60)
    assert found["problems"] == 0
    answers = found["answers"]
    assert answers["hot settle 200"] > 20, found
    assert answers["tight reserve 402"] > 0, found
    assert sum(n for what, n in answers.items() if what.startswith("race ended")) > 2, found
