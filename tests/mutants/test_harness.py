"""The mutant harness, tried on a toy project: what it calls killed must be killed."""

from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import Mutant, Verdict

GOOD = "def half_up(n: int) -> int:\n    return (n + 1) // 2\n"
TESTS = """
import toy

def test_rounding():
    assert toy.half_up(3) == 2

def test_type():
    assert toy.half_up(4) == 2
"""
ROUNDING = "tests/test_toy.py::test_rounding"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "src" / "toy.py").write_text(GOOD, encoding="utf-8")
    (tmp_path / "tests" / "test_toy.py").write_text(TESTS, encoding="utf-8")
    return tmp_path


def _mutant(new: str, *, old: str = "(n + 1) // 2", tests: tuple[str, ...] = (ROUNDING,)) -> Mutant:
    return Mutant("toy", "src/toy.py", old, new, tests, "because")


@pytest.mark.parametrize(
    ("mutant", "verdict"),
    [
        (_mutant("n // 2"), Verdict.KILLED),
        (_mutant("(1 + n) // 2"), Verdict.SURVIVED),
        (_mutant("n // 2", tests=("tests/test_toy.py::test_type",)), Verdict.SURVIVED),
        (_mutant("n // 2", tests=("tests/test_toy.py::test_of_no_name",)), Verdict.BROKEN),
        (_mutant("(n +"), Verdict.BROKEN),
        (_mutant("n // 2", old="no such text"), Verdict.STALE),
        (_mutant("m", old="n"), Verdict.STALE),
    ],
)
def test_each_verdict(project: Path, mutant: Mutant, verdict: Verdict) -> None:
    assert mutants.try_mutant(mutant, project).verdict is verdict
    assert (project / "src" / "toy.py").read_text(encoding="utf-8") == GOOD


def test_a_hanging_mutant_is_not_killed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "TIMEOUT_S", 3)
    endless = _mutant("next(x for x in iter(int, 1) if x)")
    assert mutants.try_mutant(endless, project).verdict is Verdict.HUNG


def test_a_run_passes_only_if_all_are_killed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, survivor = _mutant("n // 2"), _mutant("(1 + n) // 2")
    assert mutants.run_all([killed], 1, project) == 0
    assert mutants.run_all([killed, survivor], 2, project) == 1
    assert "1 of 2 killed" in capsys.readouterr().out


def test_tests_that_fail_anyway_prove_nothing(project: Path) -> None:
    (project / "src" / "toy.py").write_text(GOOD.replace("+ 1", "+ 0"), encoding="utf-8")
    assert mutants.run_all([_mutant("n", old="(n + 0) // 2")], 1, project) == 1


@pytest.mark.parametrize(
    "change",
    [{"tests": "[]"}, {"why": '""'}, {"new": '"a"'}, {"extra": "1"}],
    ids=["no tests", "no reason", "no change", "unknown field"],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    fields = {"name": '"n"', "file": '"f"', "old": '"a"', "new": '"b"', "tests": '["t"]'}
    fields |= {"why": '"w"', **change}
    path = tmp_path / "mutants.toml"
    path.write_text("[[mutant]]\n" + "\n".join(f"{k} = {v}" for k, v in fields.items()))
    with pytest.raises((ValueError, TypeError)):
        mutants.load(path)


def test_the_page_shows_the_list_as_it_is() -> None:
    page = mutants.PAGE.read_text(encoding="utf-8")
    assert mutants.page_with(mutants.load(), page) == page, "run: python -m scripts.mutants --docs"


def test_every_mutant_still_fits_its_file() -> None:
    for mutant in mutants.load():
        text = (mutants.ROOT / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.name} no longer fits {mutant.file}"
        for test in mutant.tests:
            assert (mutants.ROOT / test.partition("::")[0]).is_file(), f"{mutant.name}: {test}"
