"""Apply hand-made mutants one at a time and see that the tests named for them fail.

A mutant is a small, plausible mistake in code that handles money. It is applied to a copy of the
project, never to the project itself. It counts as killed only if its tests run and fail: a copy
that can't be imported, a test that isn't there and a run that hangs all prove nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants" / "mutants.toml"
PAGE = ROOT / "docs" / "mutants.md"
COPIED = ("src", "tests", "scripts", "pyproject.toml", "Makefile", "README.md")
TIMEOUT_S = 300
LIST_START, LIST_END = "<!-- list: start -->\n", "<!-- list: end -->"


class Mutant(NamedTuple):
    """One mistake: `old` stands exactly once in `file` and becomes `new`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str


class Verdict(StrEnum):
    """What became of a mutant; only KILLED is good."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE: the old text does not stand exactly once in the file"
    BROKEN = "BROKEN: its tests could not run"
    HUNG = "HUNG: its tests did not end"


class Outcome(NamedTuple):
    """A mutant's verdict and what its tests printed."""

    mutant: Mutant
    verdict: Verdict
    seconds: int
    output: str


def load(path: Path = LIST) -> list[Mutant]:
    """Read the list; a wrong or missing field, no tests or a name used twice raises."""
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
    mutants = [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]
    for mutant in mutants:
        if not mutant.tests or not mutant.why or mutant.old == mutant.new:
            raise ValueError(f"{mutant.name}: needs tests, a reason and a change")
    if len({m.name for m in mutants}) != len(mutants):
        raise ValueError("two mutants have the same name")
    return mutants


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Return pytest's exit code (None: it hung) and output for these tests in that tree."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    if (tree / "tests" / "databases.py").exists():
        command += ["--database", "sqlite"]  # a test that says the same of both says it once
    environment = {
        **os.environ,
        # Before any installed copy, and for the processes that tests start as well.
        "PYTHONPATH": os.pathsep.join((str(tree / "src"), str(tree))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis"),
    }
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as sink:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            code: int | None = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            code = None
        sink.seek(0)
        return code, sink.read()


def copy_tree(root: Path, target: Path) -> Path:
    """Copy what tests need and return the copy's root."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


def try_mutant(mutant: Mutant, root: Path = ROOT) -> Outcome:
    """Apply one mutant to a fresh copy and run its tests there."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = copy_tree(root, Path(folder))
        place = tree / mutant.file
        text = place.read_text(encoding="utf-8") if place.is_file() else ""
        if text.count(mutant.old) != 1:
            return Outcome(mutant, Verdict.STALE, 0, "")
        place.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        code, output = run_tests(tree, mutant.tests)
    verdict = {1: Verdict.KILLED, 0: Verdict.SURVIVED, None: Verdict.HUNG}.get(code, Verdict.BROKEN)
    return Outcome(mutant, verdict, round(time.monotonic() - started), output)


def check_unmutated(mutants: Sequence[Mutant], root: Path = ROOT) -> tuple[bool, str]:
    """Say whether all named tests pass where nothing was changed; else no kill means a thing."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with tempfile.TemporaryDirectory(prefix="mutant-none-") as folder:
        code, output = run_tests(copy_tree(root, Path(folder)), tests)
    return code == 0, output


def table(outcomes: Sequence[Outcome]) -> str:
    """Draw one line per mutant."""
    rows = [(o.mutant.name, o.mutant.file, f"{o.seconds} s", o.verdict.value) for o in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {file:<{widths[1]}}  {took:>{widths[2]}}  {verdict}"
        for name, file, took, verdict in rows
    )


def describe(mutants: Sequence[Mutant]) -> str:
    """Write the list as it stands in the documentation."""
    lines = ["| mutant | where | why it would hurt | what notices |", "|---|---|---|---|"]
    for m in mutants:
        tests = "<br>".join(f"`{test.partition('tests/')[2] or test}`" for test in m.tests)
        lines.append(f"| {m.name} | `{m.file.removeprefix('src/')}` | {m.why} | {tests} |")
    return "\n".join(lines) + "\n" if mutants else "The list is empty so far.\n"


def page_with(mutants: Sequence[Mutant], page: str) -> str:
    """Return the page with its list replaced by these mutants."""
    head, start, rest = page.partition(LIST_START)
    _, end, tail = rest.partition(LIST_END)
    if not start or not end:
        raise ValueError("the page has lost the two marks around its list")
    return f"{head}{start}{describe(mutants)}{end}{tail}"


def run_all(mutants: Sequence[Mutant], jobs: int, root: Path = ROOT) -> int:
    """Try every mutant and return 0 if each one was killed."""
    if not mutants:
        print("mutants: the list is empty")
        return 0
    sound, output = check_unmutated(mutants, root)
    if not sound:
        print(f"{output}\nmutants: the tests fail without any mutant; nothing can be said")
        return 1
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda mutant: try_mutant(mutant, root), mutants))
    for bad in (o for o in outcomes if o.verdict is not Verdict.KILLED):
        print(f"--- {bad.mutant.name}\n{bad.output[-3000:]}")
    print(table(outcomes))
    killed = sum(o.verdict is Verdict.KILLED for o in outcomes)
    print(f"mutants: {killed} of {len(outcomes)} killed")
    return 0 if killed == len(outcomes) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants, or rewrite the list in the documentation."""
    parser = argparse.ArgumentParser(description="Run hand-made mutants of the money code.")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only this one (repeatable)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--docs", action="store_true", help="write docs/mutants.md and stop")
    options = parser.parse_args(arguments)
    mutants = load()
    if options.docs:
        PAGE.write_text(page_with(mutants, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    chosen = [m for m in mutants if not options.only or m.name in options.only]
    if options.only and len(chosen) != len(set(options.only)):
        parser.error("no mutant of that name")
    return run_all(chosen, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
