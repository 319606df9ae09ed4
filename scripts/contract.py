"""Run the four modules' contract suite in twelve orders and sum up what happened.

The suite lies beside the repository and is run as it stands: never copied, never edited. Each order
is a process of its own with a clean environment, because a test that leaks a variable or a row into
the next one is what orders are there to find. A run that reaches for the network fails.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT.parent / "shared" / "contract" / "test_ai_credit_topup.py"
RANDOM_ORDERS = 10
TIMEOUT_S = 300
FOREIGN_PREFIXES = ("AZA_", "STRIPE_", "GUTHABEN_", "PYTEST_", "COVERAGE_", "COV_CORE_")
RESULT_MARK = "contract-result: "


class Result(NamedTuple):
    """What one order gave; `problems` are the failed tests or the reason why there is no result."""

    order: str
    ran: int
    problems: tuple[str, ...]
    seconds: int
    output: str

    @property
    def ok(self) -> bool:
        """Say whether something ran and nothing went wrong."""
        return self.ran > 0 and not self.problems


def orders(seeds: Sequence[int]) -> list[str]:
    """Name the orders to run: as written, alphabetical, and one per seed."""
    return ["definition", "alphabetical", *(f"random:{seed}" for seed in seeds)]


def absence_reason(suite: Path = SUITE) -> str | None:
    """Say why the suite can't be run here, or None if it can."""
    if suite.is_file():
        return None
    return f"the contract suite is not here: {suite.name} is looked for in ../shared/contract"


def clean_environment() -> dict[str, str]:
    """Copy the environment without anything that could decide a test."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_PREFIXES)}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def run_order(order: str, suite: Path = SUITE) -> Result:
    """Run the whole suite once, in a fresh process and an empty working folder."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", order]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        try:
            done = subprocess.run(
                [*command, "--suite", str(suite)],
                cwd=folder,
                env=clean_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            output, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as late:
            output, code = _text(late.stdout), -1
    return _read_result(order, output, code, round(time.monotonic() - started))


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _read_result(order: str, output: str, code: int, seconds: int) -> Result:
    body, mark, tail = output.rpartition(RESULT_MARK)
    if not mark or code != 0:
        reason = f"no result after {TIMEOUT_S} s" if code == -1 else f"ended with exit code {code}"
        return Result(order, 0, (reason,), seconds, output)
    told = json.loads(tail)
    return Result(order, told["ran"], tuple(told["problems"]), seconds, body)


# ---------------------------------------------------------------- inside one order's process


def _block_network(reached: list[str]) -> None:
    """Refuse every internet connection and remember it, for its error may be swallowed."""

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(details[1], tuple):
            reached.append(f"reached for the network: {details[1][:2]}")
            raise ConnectionRefusedError("no network in the contract suite")

    sys.addaudithook(watch)


def work(order: str, suite: Path) -> int:
    """Run the suite in this process and print the result as the last line."""
    reached: list[str] = []
    _block_network(reached)
    ran, problems = _run_pytest(suite) if order == "definition" else _run_unittest(order, suite)
    print(RESULT_MARK + json.dumps({"ran": ran, "problems": [*problems, *reached]}))
    return 0


def _run_pytest(suite: Path) -> tuple[int, list[str]]:
    import pytest

    class Counter:
        ran = 0
        problems: list[str] = []  # noqa: RUF012 - one run, one object

        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            # Left alone, the methods of a unittest class come in alphabetical order.
            items.sort(key=lambda item: item.location[1] or 0)

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self.ran += report.when == "call" and report.passed
            if report.failed or report.skipped:
                self.problems.append(f"{report.nodeid.split('::')[-1]} ({report.outcome})")

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                self.problems.append(f"not collected: {report.nodeid}")

    counter = Counter()
    # An empty configuration: the suite is to pass for a stranger too, not only with our settings.
    Path("pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    switches = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    places = ["-c", "pytest.ini", "--rootdir", ".", str(suite)]
    pytest.main([*switches, *places], plugins=[counter])
    return counter.ran, counter.problems


def _run_unittest(order: str, suite: Path) -> tuple[int, list[str]]:
    sys.path.insert(0, str(suite.parent))
    tests = list(_flatten(unittest.defaultTestLoader.loadTestsFromName(suite.stem)))
    if order.startswith("random:"):
        random.Random(int(order.partition(":")[2])).shuffle(tests)
    report = io.StringIO()
    outcome = unittest.TextTestRunner(stream=report, verbosity=1).run(unittest.TestSuite(tests))
    print(report.getvalue())
    bad = [*outcome.failures, *outcome.errors, *outcome.skipped]
    problems = [test.id().rpartition(".")[2] for test, _ in bad]
    return outcome.testsRun - len(problems), problems


def _flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from _flatten(part)
        else:
            yield part


# ---------------------------------------------------------------- the table


def summary(results: Sequence[Result]) -> str:
    """Draw the table of all orders."""
    rows = [("order", "passed", "wrong", "seconds", "")]
    for r in results:
        verdict = "ok" if r.ok else "FAILED: " + ", ".join(r.problems[:3])
        rows.append((r.order, str(r.ran), str(len(r.problems)), str(r.seconds), verdict))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{a:<{width}}  {b:>6}  {c:>5}  {d:>7}  {e}" for a, b, c, d, e in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every order, print the table, and return 1 if any of them failed."""
    parser = argparse.ArgumentParser(description="Run the contract suite in twelve orders.")
    parser.add_argument("--seed", type=int, help="first of the ten seeds (default: a new one)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--suite", type=Path, default=SUITE, help="where the suite lies")
    parser.add_argument("--worker", metavar="ORDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options.worker, options.suite)
    if reason := absence_reason(options.suite):
        print(f"contract: SKIPPED, {reason}")
        return 0
    return _run_all(options)


def _run_all(options: argparse.Namespace) -> int:
    first = random.randrange(1, 1_000_000) if options.seed is None else options.seed
    names = orders(range(first, first + RANDOM_ORDERS))
    print(f"contract: {len(names)} orders; the same again: --seed {first}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda order: run_order(order, options.suite), names))
    for failed in (r for r in results if not r.ok):
        print(f"--- {failed.order}\n{failed.output}")
    print(summary(results))
    return 0 if all(r.ok for r in results) and len({r.ran for r in results}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
