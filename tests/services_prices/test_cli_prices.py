"""The commands about prices: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from guthaben.cli import prices
from guthaben.services.guthaben import Guthaben


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'credit.db'}"
    Guthaben.open(made).close()
    return made


def run(url: str, *arguments: str, code: int = 0) -> str:
    app = typer.Typer()
    prices.register(app)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["prices", *arguments, "--db", url])
    assert result.exit_code == code, result.output
    return result.output


def told(url: str, *arguments: str) -> Any:
    return json.loads(run(url, *arguments, "--json"))


def test_import_show_diff_and_set(url: str) -> None:
    assert "no prices yet" in run(url, "show")
    assert len(told(url, "diff")) > 5000
    assert "more: --json" in run(url, "diff")
    taken = told(url, "import", "--author", "anna")
    assert taken["version"]["new"]
    assert taken["changed"] > 5000
    assert "nothing changed" in run(url, "import")
    assert run(url, "diff").startswith("0 prices differ")
    shown = told(url, "show", "gpt-4o-mini-2024-07-18")
    assert (shown["provider"], shown["model"]) == ("openai", "gpt-4o-mini")
    assert {"price": "input_mtok", "usd": "0.15"} in shown["prices"]
    assert "5 above 272000" in run(url, "show", "gpt-5.4")
    run(url, "set", "gpt-4o-mini", "input_mtok=1", "cache_read_mtok=none", "--from", "2026-01-01")
    run(url, "set", "gpt-4o-mini", "input_mtok=2", "--when", "processing=batch", "--alias", "mini")
    own = told(url, "show", "mini")["prices"][-3:]
    assert own == [
        {"price": "own input_mtok processing=batch", "usd": "2"},
        {"price": "own cache_read_mtok from 2026-01-01", "usd": "none"},
        {"price": "own input_mtok from 2026-01-01", "usd": "1"},
    ]
    first = taken["version"]["version"]
    assert len(told(url, "diff", first)) == 3
    assert len(told(url, "diff", first, first)) == 0
    assert "cache_read_mtok" in run(url, "diff", first)
    assert told(url, "show", "gpt-4o-mini", "--version", f"{first}/openai/x") == shown
    run(url, "set", "mini", "--unset")
    assert told(url, "show", "gpt-4o-mini")["prices"] == shown["prices"]


def test_margins_and_models_of_ones_own(url: str) -> None:
    made = told(url, "set", "--plan", "pro", "--factor", "5/4", "--fixed", "0.000001")
    assert made["change"] == "margin of pro: times 5/4 plus 1000 nano-USD"
    assert "nothing changed" in run(
        url, "set", "--plan", "pro", "--factor", "5/4", "--fixed", "0.000001"
    )
    run(url, "set", "llama", "input_mtok=1", "--provider", "house")
    assert told(url, "show", "llama")["provider"] == "house"
    assert [version["change"][:6] for version in told(url, "show")] == ["set ho", "margin"]
    assert "margin of pro" in run(url, "show")


@pytest.mark.parametrize(
    "arguments",
    [
        ["set"],
        ["set", "gpt-4o", "--plan", "pro"],
        ["set", "gpt-4o", "input_mtok"],
        ["set", "llama", "input_mtok=1"],
        ["set", "llama", "input_mtok=-1", "--provider", "house"],
        ["set", "--plan", "pro", "--factor", "x"],
        ["set", "--plan", "pro", "--fixed", "x"],
        ["set", "llama", "--provider", "house", "--unset"],
        ["show", "--version", "v", "gpt-4o"],
        ["diff", "v"],
    ],
)
def test_refusals(url: str, arguments: list[str]) -> None:
    assert "guthaben:" in run(url, *arguments, code=1)


def test_without_prices_a_setting_is_missing(url: str) -> None:
    assert "guthaben prices import" in run(url, "show", "gpt-4o", code=4)
