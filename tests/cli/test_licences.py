"""Licences and plans on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import DONE, REFUSED, SETTINGS, run

Run = Callable[..., Any]
__all__ = ["run"]


@pytest.fixture
def ready(run: Run) -> Run:
    run("migrate")
    return run


def test_plans_are_set_listed_and_removed(ready: Run) -> None:
    made = ready("plans", "set", "basic", "20", "--trial", "2", "--author", "anna", "--json")
    assert made == {"lookup_key": "basic", "allowance_usd": "20.00", "trial_usd": "2.00",
                    "from_s": 0}  # fmt: skip
    assert "in periods from 2030-01-31" in ready("plans", "set", "basic", "30", "--from",
                                                 "2030-01-31").stdout  # fmt: skip
    ready("plans", "set", "basic", "30", "--from", "31.1.2030", code=REFUSED)
    ready("plans", "set", "basic", "-1", code=2)
    assert [p["allowance_usd"] for p in ready("plans", "list", "--json")] == ["20.00"]
    assert len(ready("plans", "list", "--history", "--json")) == 2
    ready("plans", "remove", "basic")
    assert ready("plans", "list", "--json") == []
    assert "removed" in ready("plans", "list", "--history").stdout
    assert "no such plan" in ready("plans", "remove", "basic", code=REFUSED).stderr


def test_a_licence_is_told_by_hand_and_shown(ready: Run) -> None:
    assert "none" in ready("licence", "show", "prac_7").stdout
    told = ready(
        "licence", "set", "prac_7", "basic", "--start", "1793491200", "--end", "1796083200",
        "--allowance", "20", "--json",
    )  # fmt: skip
    assert (told["license"], told["source"], told["allowance_usd"]) == ("basic", "told", "20.00")
    assert ready("license", "show", "prac_7", "--json") == told
    assert "2026-12-01" in ready("licence", "show", "prac_7").stdout
    over = ready(
        "licence", "set", "prac_7", "basic", "--start", "1793491200", "--end", "1796083200",
        "--allowance", "20", "--over", "--json",
    )  # fmt: skip
    assert not over["active"]
    assert ready("licence", "held", "--json") == []


def test_asking_the_provider_needs_its_key(ready: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    for arguments in (("refresh", "prac_7"), ("assign", "prac_7", "1")):
        assert "STRIPE_SECRET_KEY" in ready("licence", *arguments, code=SETTINGS).stderr


def test_no_database_is_made(run: Run, tmp_path: Path) -> None:
    for arguments in (("plans", "list"), ("plans", "set", "a", "1"), ("licence", "show", "p")):
        run(*arguments, code=SETTINGS)
    assert list(tmp_path.iterdir()) == []
    assert run("licence", "--help", code=DONE)
