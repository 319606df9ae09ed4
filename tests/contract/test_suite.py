"""The four modules' contract suite, in the order it is written, alphabetically and shuffled."""

from pathlib import Path

import pytest

from scripts import contract

SEEDS = range(1, contract.RANDOM_ORDERS + 1)

TOY = """
import os, socket, unittest

class TestToy(unittest.TestCase):
    def test_b_leaks(self):
        os.environ["AZA_LEAK"] = "1"

    def test_a_is_hurt_by_the_leak(self):
        self.assertNotIn("AZA_LEAK", os.environ)
"""


@pytest.mark.skipif(contract.absence_reason() is not None, reason=str(contract.absence_reason()))
@pytest.mark.parametrize("order", contract.orders(SEEDS))
def test_the_contract_suite_passes(order: str) -> None:
    result = contract.run_order(order)
    print(result.output)
    assert result.ok, ", ".join(result.problems)


def _toy(folder: Path, text: str) -> Path:
    path = folder / "test_toy_contract.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_order_that_breaks_a_test_is_told(tmp_path: Path) -> None:
    toy = _toy(tmp_path, TOY)
    assert contract.run_order("alphabetical", toy).ok
    written = contract.run_order("definition", toy)
    assert written.problems == ("test_a_is_hurt_by_the_leak (failed)",)
    shuffled = {contract.run_order(f"random:{seed}", toy).ok for seed in range(6)}
    assert shuffled == {True, False}


def test_the_environment_of_the_caller_stays_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZA_LEAK", "1")
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_nobody")
    assert contract.run_order("alphabetical", _toy(tmp_path, TOY)).ok


def test_a_run_that_reaches_for_the_network_fails(tmp_path: Path) -> None:
    reach = """
    def test_c_swallows_what_it_did(self):
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except OSError:
            pass
"""
    result = contract.run_order("alphabetical", _toy(tmp_path, TOY + reach))
    assert [problem.partition(":")[0] for problem in result.problems] == ["reached for the network"]


def test_a_suite_without_tests_or_with_a_broken_import_fails(tmp_path: Path) -> None:
    assert not contract.run_order("alphabetical", _toy(tmp_path, "import unittest\n")).ok
    for order in ("definition", "alphabetical", "random:1"):
        result = contract.run_order(order, _toy(tmp_path, "import nothing_of_that_name\n"))
        assert not result.ok


def test_an_absent_suite_is_skipped_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contract.main(["--suite", str(tmp_path / "nothing.py")]) == 0
    assert "SKIPPED" in capsys.readouterr().out
