"""The laws of `tidy_laws` hold in the whole project, and each of them is able to fail."""

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import tidy_laws as laws
from tests.tidy_laws import Law, Source

SRC = ("src/",)
PROGRAMS = ("src/", "scripts/", "benchmarks/")
EVERYWHERE = ("src/", "scripts/", "benchmarks/", "tests/")

# law -> where it holds
WHERE: dict[Law, tuple[str, ...]] = {
    laws.floats: SRC,
    laws.float_money: SRC,
    laws.environment: SRC,
    laws.sql_drivers: SRC,
    laws.sql: SRC,
    laws.transactions: SRC,
    laws.stripe_calls: SRC,
    laws.purity: SRC,
    laws.prints: SRC,
    laws.file_length: PROGRAMS,
    laws.function_length: EVERYWHERE,
    laws.module_docstrings: PROGRAMS,
    laws.public_functions: SRC,
    laws.signature_blocks: EVERYWHERE,
}

# law -> path and text that break it
BAD: list[tuple[Law, str, str]] = [
    (laws.floats, "services/gate.py", "x = float('1.5')"),
    (laws.floats, "services/gate.py", "def f(cost: float | None) -> int: ..."),
    (laws.floats, "services/gate.py", "def cost_usd() -> 'float': ..."),
    (laws.floats, "services/gate.py", "class A:\n    price: list[float]"),
    (laws.floats, "domain/grants.py", "def f(age_s: float) -> int: ..."),
    (laws.float_money, "services/gate.py", "price_rappen = 0.5"),
    (laws.float_money, "services/gate.py", "f(amount_nano_usd=-1e9)"),
    (laws.float_money, "services/gate.py", "def f(x, *, cost_usd=1.0): ..."),
    (laws.float_money, "services/gate.py", "ok = call.held_nano_usd > 0.0"),
    (laws.float_money, "domain/grants.py", "x = y * 1.5"),
    (laws.float_money, "domain/grants.py", "x = y / 3"),
    (laws.float_money, "domain/grants.py", "x /= 3"),
    (laws.environment, "web/app.py", "import os\nx = os.environ['A']"),
    (laws.environment, "web/app.py", "import os\nx = os.getenv('A')"),
    (laws.environment, "web/app.py", "from os import environ"),
    (laws.environment, "cli.py", "typer.Option(8000, envvar='PORT')"),
    (laws.sql_drivers, "services/gate.py", "def f():\n    import sqlite3"),
    (laws.sql_drivers, "web/app.py", "from psycopg.rows import dict_row"),
    (laws.sql_drivers, "sandbox/app.py", "import sqlite3"),
    (laws.sql, "services/gate.py", "con.execute('SELECT a FROM b')"),
    (laws.sql, "services/gate.py", "x = f'''\n  UPDATE {t} SET a = 1'''"),
    (laws.sql, "payments/webhook.py", "x = 'INSERT OR IGNORE INTO t VALUES (1)'"),
    (laws.sql, "../aza_ai_credit.py", "x = 'DELETE FROM t'"),
    (laws.transactions, "services/gate.py", "con.commit()"),
    (laws.transactions, "../aza_ai_credit.py", "con.rollback()"),
    (laws.transactions, "web/app.py", "con.execute('BEGIN IMMEDIATE')"),
    (laws.transactions, "web/app.py", "con.execute('COMMIT;')"),
    (laws.stripe_calls, "services/topup.py", "import stripe"),
    (laws.stripe_calls, "web/app.py", "from stripe import Webhook"),
    (laws.stripe_calls, "web/app.py", "importlib.import_module('stripe')"),
    (laws.purity, "domain/calls.py", "import time"),
    (laws.purity, "domain/calls.py", "from uuid import uuid4"),
    (laws.purity, "domain/period.py", "from datetime import datetime\nx = datetime.now()"),
    (laws.purity, "domain/period.py", "clock = datetime.utcnow"),
    (laws.purity, "domain/calls.py", "open('x')"),
    (laws.prints, "services/gate.py", "print('x')"),
    (laws.file_length, "services/gate.py", "x = 1\n" * 401),
    (laws.function_length, "services/gate.py", "def f():\n" + "    x = 1\n" * 70),
    (laws.module_docstrings, "services/gate.py", "x = 1"),
    (laws.public_functions, "services/gate.py", "def f() -> int: return 1"),
    (laws.public_functions, "services/gate.py", "def f(x) -> int:\n    'Say.'"),
    (laws.public_functions, "services/gate.py", "class A:\n    def f(self):\n        'Say.'"),
    (laws.signature_blocks, "services/gate.py", "def f():\n    '''Say.\n\n    Args:\n        x'''"),
    (laws.signature_blocks, "services/gate.py", "'''Say.\n\nReturns:\n  x'''"),
    (laws.signature_blocks, "services/gate.py", "def f():\n    '''Say.\n\n    :param x: y'''"),
]

# law -> path and text that only look like an offence
GOOD: list[tuple[Law, str, str]] = [
    (laws.floats, "services/gate.py", "'''float(x): float'''  # float(x)"),
    (laws.floats, "store/writer.py", "def f(timeout_s: float) -> int: ..."),
    (laws.floats, "domain/money.py", "x = float(1)"),
    (laws.floats, "../aza_ai_credit.py", "def f(x: float) -> float: ..."),
    (laws.float_money, "store/writer.py", "poll_s = 0.05"),
    (laws.float_money, "services/gate.py", "x = Path('a') / 'b'"),
    (laws.float_money, "domain/grants.py", "x = y // 3"),
    (laws.environment, "config.py", "import os\nx = os.environ"),
    (laws.environment, "web/app.py", "jinja.environ = 1"),
    (laws.sql_drivers, "store/connection.py", "import sqlite3"),
    (laws.sql, "services/gate.py", "'''SELECT a FROM b'''\nx = 'Select a practice from the list'"),
    (laws.sql, "../aza_ai_budget.py", "x = 'SELECT a FROM licenses'"),
    (laws.sql, "web/app.py", "x = 'CREATED'; y = 'UPDATE'"),
    (laws.transactions, "store/writer.py", "con.commit()"),
    (laws.transactions, "services/gate.py", "x = 'COMMIT had no answer'"),
    (laws.stripe_calls, "payments/stripe_gateway.py", "import stripe"),
    (laws.stripe_calls, "services/topup.py", "import stripe_routes_of_others"),
    (
        laws.purity,
        "domain/period.py",
        "from datetime import datetime, time\nfrom typing import Any",
    ),
    (laws.purity, "services/gate.py", "import time"),
    (laws.prints, "cli.py", "print('x')"),
    (laws.prints, "web/app.py", "console.print('x')"),
    (laws.file_length, "services/gate.py", "x = 1\n" * 400),
    (laws.function_length, "services/gate.py", "def f():\n" + "    x = 1\n" * 69),
    (laws.public_functions, "services/gate.py", "def _f(x): return x"),
    (laws.public_functions, "services/gate.py", "def f() -> int:\n    'Say.'\n    def g(): ..."),
    (laws.signature_blocks, "services/gate.py", "'''Returns: one thing.'''"),
]


@cache
def sources() -> tuple[Source, ...]:
    paths = [p for p in laws.project_files() if p.suffix == ".py"]
    return tuple(laws.parse(_name(p), p.read_text(encoding="utf-8")) for p in paths)


@cache
def texts() -> tuple[tuple[str, str], ...]:
    found = []
    for path in laws.project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((_name(path), content.decode("utf-8")))
    return tuple(found)


def _name(path: Path) -> str:
    return path.relative_to(laws.ROOT).as_posix()


def _source(place: str, text: str) -> Source:
    path = os.path.normpath(f"src/guthaben/{place}")
    return laws.parse(Path(path).as_posix(), text)


def _law_name(value: object) -> str:
    return getattr(value, "__name__", "") if callable(value) else ""


@pytest.mark.parametrize("law", WHERE, ids=_law_name)
def test_law(law: Law) -> None:
    offences = [offence for s in sources() if s.path.startswith(WHERE[law]) for offence in law(s)]
    assert not offences, "\n".join([str(law.__doc__), *offences])


@pytest.mark.parametrize(("law", "place", "text"), BAD, ids=_law_name)
def test_law_can_fail(law: Law, place: str, text: str) -> None:
    assert list(law(_source(place, text)))


@pytest.mark.parametrize(("law", "place", "text"), GOOD, ids=_law_name)
def test_law_knows_what_is_no_offence(law: Law, place: str, text: str) -> None:
    assert not list(law(_source(place, text)))


def test_every_law_was_seen_failing() -> None:
    assert {law for law, _, _ in BAD} == set(WHERE)


def test_the_project_is_looked_at() -> None:
    assert "tests/test_tidy.py" in {s.path for s in sources()}
    assert "pyproject.toml" in {path for path, _ in texts()}


# The words are put together here, so that this file does not contain them.
WORDS: dict[Callable[[str, str], Iterator[str]], tuple[str, ...]] = {
    laws.left_over: tuple(
        "".join(halves) for halves in [("# TO", "DO x"), ("FIX", "ME"), ("XX", "X")]
    ),
    laws.foreign_words: tuple(
        "/".join(parts)
        for parts in [("cd ", "work", "a"), ("", "root", ".cache"), ("", "home", "me", "x")]
    ),
}


@pytest.mark.parametrize("law", WORDS, ids=_law_name)
def test_words(law: Callable[[str, str], Iterator[str]]) -> None:
    offences = [offence for path, text in texts() for offence in law(path, text)]
    assert not offences, "\n".join([str(law.__doc__), *offences])


@pytest.mark.parametrize("law", WORDS, ids=_law_name)
def test_words_can_be_found(law: Callable[[str, str], Iterator[str]]) -> None:
    assert all(list(law("a.md", text)) for text in WORDS[law])
    assert not list(law("a.md", "homework/exercises and mktemp XXXXXX, at home"))


def test_the_continuous_run_and_the_readme_name_commands_that_exist() -> None:
    root = laws.ROOT
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    readme = root / "README.md"
    named = set(re.findall(r"^make ([a-z-]+)", readme.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "test"} <= named <= targets
    assert "make test" in (root / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(root / ".ci" / "run", os.X_OK)
