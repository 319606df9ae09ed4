"""`guthaben maintain` and `guthaben verify --archive`: what cron and people see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from guthaben.store.store import Store
from tests.cli.test_cli import REFUSED, SETTINGS, Run, ready, run
from tests.store.bank import Clock
from tests.store.history import lived

__all__ = ["ready", "run"]


@pytest.fixture
def later(tmp_path: Path) -> Callable[[], None]:
    """Fill the database of this folder as if it were 2023."""

    def fill() -> None:
        clock = Clock()
        store = Store(f"sqlite:///{tmp_path}/guthaben.db", clock_ms=clock)
        lived(store, clock, 30)
        store.close()

    return fill


def test_maintain_archives_and_verify_checks_the_files(
    ready: Run, later: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later()
    monkeypatch.setenv("GUTHABEN_ARCHIVE_AFTER_DAYS", "60")
    folder = tmp_path / "archive"
    folder.mkdir()
    assert ready("maintain", "--json")["archived"] == []
    told = ready("maintain", "--archive-to", "archive", "--json")
    assert [one["month"] for one in told["archived"]] == ["2023-11", "2023-12"]
    assert {path.name for path in folder.iterdir()} == {one["file"] for one in told["archived"]}
    assert "all is as the journal says" in ready("verify", "--archive", "archive").stdout
    assert ready("maintain", "--archive-to", "archive", "--json")["archived"] == []
    path = folder / told["archived"][0]["file"]
    path.write_bytes(path.read_bytes()[:-1])
    result = ready("verify", "--archive", "archive", code=REFUSED)
    assert f"{path.name} is not the file that was written" in result.stdout
    assert "all is as the journal says" in ready("verify").stdout
    path.unlink()
    assert "can't be read" in ready("verify", "--archive", "archive", code=REFUSED).stdout


def test_what_stands_in_the_way_is_one_line_and_exit_code_4(
    ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no folder" in ready("maintain", "--archive-to", "none", code=SETTINGS).stderr
    monkeypatch.setenv("GUTHABEN_ARCHIVE_AFTER_DAYS", "3")
    assert "35 to 36500" in ready("maintain", code=SETTINGS).stderr


def test_a_misspelt_database_is_not_made(run: Run) -> None:
    assert "guthaben migrate" in run("maintain", code=SETTINGS).stderr


def test_the_server_makes_months_as_a_job(ready: Run) -> None:
    done = ready("work", "--once", "--json")
    assert {"job": "months", "outcome": "ok", "error": ""} in done["ran"]
