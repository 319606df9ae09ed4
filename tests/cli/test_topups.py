"""`guthaben topups`: list, show, stop, resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guthaben import Guthaben
from guthaben.cli.app import app
from guthaben.services.auto_topup import claim
from guthaben.services.topups import AutoTopupChange, Topups
from guthaben.store import settings
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    with Guthaben.open("sqlite:///guthaben.db") as credit:
        _switch_on(credit)

    def command(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["topups", *arguments])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return json.loads(result.stdout) if "--json" in arguments and code == 0 else result

    return command


def _switch_on(credit: Guthaben) -> None:
    def save(space: Workspace) -> None:
        number, mode = space.practice_no("prac_7"), space.practice("prac_7").mode
        row = TopupSettingsRow(customer_id="cus_1", payment_method_id="pm_1")
        settings.save_settings(space.cursor, number, mode, row, space.now_s)

    credit.core.store.run(save)
    change = AutoTopupChange(True, 3_000, 5, 10**9, 9_000, "2026-11", "de", "user_1")
    Topups(credit, gateway=None).change_settings("prac_7", change)  # type: ignore[arg-type]


def test_everything_is_stopped_and_let_go_on(run: Run) -> None:
    stopped = run("stop", "--all", "--reason", "double charges", "--by", "eva", "--json")
    assert stopped == {"practice_id": None, "stopped": True, "changed": True}
    shown = run("list", "--json")
    assert (shown["stop"]["reason"], shown["stop"]["actor"]) == ("double charges", "eva")
    assert run("show", "prac_7", "--json")["would"] == "topups_stopped"
    assert "All stopped: since" in run("list").stdout
    assert "were already stopped" in run("stop", "--all", "--reason", "again").stdout
    assert "are not stopped" in run("resume", "--all").stdout
    assert run("show", "prac_7", "--json")["would"] == "charge"


def test_one_practice_is_stopped_and_shown(run: Run) -> None:
    assert "of prac_7 are stopped" in run("stop", "prac_7", "--reason", "card misused").stdout
    text = run("show", "prac_7").stdout
    assert "by nobody named: card misused" in text
    assert "2026-11 de, 30.00 CHF, at most 90.00 CHF a month" in text
    assert "prac_7 stopped: since" in run("list").stdout
    assert run("resume", "prac_7", "--json")["changed"] is True
    assert run("resume", "prac_7", "--json")["changed"] is False


@pytest.mark.parametrize("arguments", [(), ("prac_7", "--all")])
@pytest.mark.parametrize("name", ["stop", "resume"])
def test_one_or_all_must_be_said(run: Run, name: str, arguments: tuple[str, ...]) -> None:
    assert "name a practice, or --all" in run(name, *arguments, code=2).stderr


def test_a_stop_needs_a_reason(run: Run) -> None:
    assert "reason must say why" in run("stop", "--all", code=1).stderr
    assert run("list", "--json")["stop"] is None


def test_charges_without_an_end_are_listed(run: Run) -> None:
    assert "Every automatic charge has its end." in run("list").stdout
    with Guthaben.open("sqlite:///guthaben.db") as credit:
        assert claim(credit.core.store.run, "prac_7").applied
    (one,) = run("list", "--json")["open_attempts"]
    assert (one["practice_id"], one["open_chf"], one["attempt"]["status"]) == (
        "prac_7", "30.00", "pending",
    )  # fmt: skip
    assert "auto_topup_purchase" in run("list").stdout
    history = run("list", "prac_7", "--json")
    assert [row["status"] for row in history["topups"]] == ["pending"]
    assert "30.00" in run("list", "prac_7").stdout
