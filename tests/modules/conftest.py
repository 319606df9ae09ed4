"""A host application's database, and a check of the whole journal after every test."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import aza_ai_budget
import aza_ai_credit
from guthaben.store.verify import verify
from tests.modules.host import create_licenses
from tests.modules.old import LEDGER, SETTINGS, USAGE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.sqlite"


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[..., sqlite3.Connection]]:
    """Open further connections to the same file; all are closed at the end."""
    opened: list[sqlite3.Connection] = []

    def open_one(**options: object) -> sqlite3.Connection:
        con = sqlite3.connect(path, **options)  # type: ignore[call-overload]
        opened.append(con)
        return con

    yield open_one
    for con in opened:
        con.close()


@pytest.fixture
def con(path: Path, connect: Callable[..., sqlite3.Connection]) -> Iterator[sqlite3.Connection]:
    """A connection as a host opens it, with the modules' schema."""
    con = connect()
    create_licenses(con)
    aza_ai_budget.ensure_ai_budget_schema(con)
    aza_ai_credit.ensure_ai_credit_schema(con)
    yield con
    con.rollback()
    check = sqlite3.connect(path)
    found = verify(check.cursor(), None, int(time.time()))
    check.close()
    assert found.ok, found.problems


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    """All switches on: charges would be real."""
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    monkeypatch.setenv("AZA_AI_TOPUP_ALLOW_LIVE", "1")
    monkeypatch.setenv("AZA_AI_TOPUP_DRY_RUN", "0")
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_nobody")


@pytest.fixture
def old(path: Path) -> Iterator[sqlite3.Connection]:
    """A database of the old application, before any of ours ran."""
    con = sqlite3.connect(path)
    create_licenses(con)
    for table in (LEDGER, USAGE, SETTINGS):
        con.execute(table)
    con.execute("CREATE UNIQUE INDEX ux_pi ON ai_credit_ledger (stripe_payment_intent_id)"
                " WHERE status = 'succeeded'")  # fmt: skip
    con.commit()
    yield con
    con.rollback()
    if con.execute("SELECT 1 FROM sqlite_master WHERE name = 'credit_practice'").fetchone():
        found = verify(con.cursor(), None, int(time.time()))
        assert found.ok, found.problems
    con.close()
