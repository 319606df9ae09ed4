"""The cost of a call doesn't grow with history: every statement of the hot path uses an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from guthaben.domain.commands import (
    Expire,
    Extend,
    GrantCredit,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    Settle,
)
from guthaben.domain.grants import PROMOTIONAL
from guthaben.store import queries
from guthaben.store.store import Store
from tests.store.bank import T0_S, Clock, connection, hold, idle_readers, pay, url

# Tables that grow with history; to read one from end to end is what may not happen.
GROWING = ("credit_call", "credit_transfer", "credit_grant", "credit_key", "credit_event",
           "credit_payment", "credit_practice")  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.db"


def executed(store: Store, path: Path, work: Callable[[], object]) -> list[str]:
    """Give each statement that the work made the writer and the readers execute."""
    done: list[str] = []
    writer = store._writers[0]
    writer._cache.clear()  # as after another process's write: everything has to be read
    connection(store).set_trace_callback(done.append)
    for con in idle_readers(store):
        con.set_trace_callback(done.append)
    work()
    connection(store).set_trace_callback(None)
    return [s for s in done if re.match(r"(SELECT|UPDATE|INSERT|DELETE|WITH)\b", s)]


def scans(path: Path, statements: list[str]) -> list[str]:
    """Give the statements whose plan reads a growing table from end to end."""
    con = sqlite3.connect(path)
    found = []
    for statement in statements:
        for *_, detail in con.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall():
            if re.search(rf"\bSCAN (TABLE )?({'|'.join(GROWING)}|[a-z])\b", detail):
                found.append(f"{detail}: {statement[:120]}")
    con.close()
    return found


def test_the_check_itself_can_fail(path: Path) -> None:
    Store(url(path)).close()
    for bad in ("SELECT SUM(cost_nano_usd) FROM credit_call",
                "SELECT SUM(at_s) FROM credit_transfer t",
                "SELECT 1 FROM credit_call WHERE body_hash = 1"):  # fmt: skip
        assert scans(path, [bad]), bad
    assert scans(path, ["SELECT 1 FROM credit_call WHERE practice_no = 1 AND call_no = 2"]) == []


def test_the_hot_path_reads_by_index(path: Path) -> None:
    clock = Clock()
    store = Store(url(path), clock_ms=clock)
    pay(store, "p", 10_000)
    store.execute("p", SetLicense("L", True, T0_S, T0_S + 86_400, 1000))
    for n in range(5):
        store.execute("p", Settle(hold(store, "p", 10, f"k{n}"), 5))
    store.read(lambda cursor: queries.balance(cursor, "p", None, T0_S))  # opens a reader

    def everything() -> None:
        store.execute("p", GrantCredit("promo", PROMOTIONAL, 10, T0_S + 60))
        store.execute("p", Reserve("short", 10, 1000, 2))
        clock.wait(2000)
        store._writers[0]._cache.clear()
        number = hold(store, "p", 10, "a")  # sweeps the short one
        for command in (Extend(number, 3000), Settle(number, 20), Settle(number, 20),
                        Release(number), Expire(number), Reserve("a", 10),
                        RecordUsage("u", 3), Reserve("much", 10**9)):  # fmt: skip
            store._writers[0]._cache.clear()
            store.execute("p", command)
        store.read(lambda cursor: queries.balance(cursor, "p", None, T0_S))
        store.read(lambda cursor: queries.recent_calls(cursor, "p", 1 << 60, 50))

    statements = executed(store, path, everything)
    tables = {name for name in GROWING if any(f" {name}" in s for s in statements)}
    assert {"credit_call", "credit_transfer", "credit_grant", "credit_practice"} <= tables
    assert len(statements) > 40
    assert scans(path, statements) == []
    store.close()


def test_a_longer_history_needs_no_more_statements_and_no_more_steps(path: Path) -> None:
    """The virtual machine's steps for a pair of reserve and settle, with 100 and 3000 calls."""
    store = Store(url(path), clock_ms=Clock())
    pay(store, "p", 10**9)
    con = connection(store)

    def steps(key: str) -> int:
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        store._writers[0]._cache.clear()
        con.set_progress_handler(count, 10)
        store.execute("p", Settle(hold(store, "p", 10, key), 5))
        con.set_progress_handler(None, 0)
        return counted[0]

    def live(upto: int) -> None:
        store.run(
            lambda space: [space.apply("p", RecordUsage(f"{upto}-{n}", 1)) for n in range(upto)]
        )

    live(100)
    short = steps("short")
    live(3000)
    long = steps("long")
    assert short > 10
    assert long <= short * 1.5, (short, long)
    store.close()
