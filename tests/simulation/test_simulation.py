"""The simulation: 300 seeds hold, a seed always tells the same, planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation import planted, table
from tests.simulation.command import hunt, seeds_of
from tests.simulation.plan import draw
from tests.simulation.run import run
from tests.simulation.shrink import shrink

SEEDS = 300
"""How many seeds each `make test` runs."""
PARTS = 4
QUICK = ("no_clawback", "utc_month", "new_key_after_lost_answer", "early_return_on_seen_event")
"""Found within a few seeds; `make simulate-bugs` looks for all."""


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join((str(planted.ROOT / "src"), str(planted.ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=planted.ROOT,
        env={**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "random"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_laws_hold(part: int) -> None:
    size = SEEDS // PARTS
    done = _command(f"{part * size}-{(part + 1) * size - 1}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{size} seeds, 0 broken" in done.stdout


def test_a_seed_always_tells_the_same() -> None:
    for seed in (3, 11):
        first, second = run(seed), run(seed)
        assert first.history == second.history
        assert first.history.count("\n") > 100
        # Another process has other hashes, other addresses and another clock.
        told = _command(str(seed), "--history", "--jobs", "1").stdout
        assert told.startswith(first.history)
    assert run(3).history != run(4).history


def test_a_step_left_out_changes_no_other_steps_decisions() -> None:
    whole, short = (run(5, out).history.splitlines() for out in ((), {99}))
    left_out = whole.index(f"-- step 99: {draw(5)[99].action}")
    assert whole[:left_out] == short[:left_out]
    assert whole[left_out] != short[left_out]


def test_a_broken_run_is_made_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    # An oracle that is too strict stands for a bug: no attempt may ever follow a success.
    monkeypatch.setattr("tests.simulation.attempts._COOLDOWN_S", 10**9)
    found = next(one for seed in range(60) if (one := run(seed)).law == "I-21 cooldown")
    short = shrink(found, 12)
    assert short.law == found.law
    assert short.steps < found.steps
    assert "BROKEN I-21 cooldown" in short.history


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    found = hunt(name, 30)
    assert found.seeds, f"{name} is not found by 30 seeds"


def test_every_planted_bug_fits_its_file() -> None:
    bugs = planted.load()
    assert len(bugs) >= 30
    for bug in bugs.values():
        texts: dict[str, str] = {}
        for edit in bug.edits:
            text = texts.get(edit.file) or (planted.ROOT / edit.file).read_text(encoding="utf-8")
            texts[edit.file] = planted.applied(edit, text)


def test_the_page_lists_every_planted_bug_as_found() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.listed(page) == set(planted.load()), "run: make simulate-bugs"


def test_a_bug_is_planted_before_the_engine_is_imported() -> None:
    with pytest.raises(RuntimeError, match="imported already"):
        planted.plant(next(iter(planted.load().values())))


@pytest.mark.parametrize(("text", "seeds"), [("17", [17]), ("3-5", [3, 4, 5]), ("x3", [0, 1, 2])])
def test_seeds_are_told_as_a_number_a_range_or_a_count(text: str, seeds: list[int]) -> None:
    assert list(seeds_of(text)) == seeds
