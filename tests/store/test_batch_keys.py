"""The keys of a batch: looked up together; what they made before is what they give again."""

from __future__ import annotations

import sqlite3

import pytest

from guthaben.domain.commands import Command, RecordUsage, Reserve, Settle
from guthaben.store.sqlite_preload import _statement
from guthaben.store.store import Store
from tests.store.bank import free, held, pay, problems, together


def test_old_keys_in_a_batch_give_their_calls_again(store: Store) -> None:
    for practice in "abc":
        pay(store, practice, 1000)
    asked: list[tuple[str, Command]] = [
        (practice, Reserve(f"key-{n}", n + 1)) for n in range(5) for practice in "abc"
    ]
    asked += [(practice, RecordUsage("key-0", 7)) for practice in "abc"]
    first = together(store, asked)
    assert all(answer.applied for answer in first)
    store.execute("a", Settle(1, 1))
    mixed: list[tuple[str, Command]] = [*asked, ("d", Reserve("key-0", 1)), ("a", Reserve("n", 1))]
    again = together(store, [*mixed, ("a", Reserve("n", 1)), ("a", Reserve("key-1", 9))])
    assert all(answer.replayed and not answer.applied for answer in again[: len(asked)])
    assert [a.call.call_no for a in again[: len(asked)]] == [a.call.call_no for a in first]
    assert again[0].call.cost_nano_usd == 1, "as the call is now, not as it was"
    new, twice, other = again[len(asked) + 1 :]
    assert (new.applied, twice.replayed, other.reason) == (True, True, "idempotency_conflict")
    assert (free(store, "b"), held(store, "b")) == (1000 - 15 - 7, 15)
    assert problems(store) == []


@pytest.mark.sqlite
def test_a_batch_asks_for_all_its_keys_at_once(store: Store, statements: list[str]) -> None:
    pay(store, "p", 10_000)
    statements.clear()
    together(store, [("p", Reserve(f"key-{n}", 1)) for n in range(100)])
    asked = [done for done in statements if "SELECT" in done and "credit_call_key" in done]
    assert len(asked) == 2, "100 keys, 64 at a time"


@pytest.mark.sqlite
@pytest.mark.parametrize("size", [1, 4, 64])
def test_each_key_is_found_by_its_index(store: Store, size: int) -> None:
    con = sqlite3.connect(store.url.removeprefix("sqlite:///"))
    rows = con.execute(f"EXPLAIN QUERY PLAN {_statement(size)}", (1, 1, "k") * size).fetchall()
    con.close()
    plan = [row[3] for row in rows]
    assert not any(step.startswith("SCAN credit_call") for step in plan)
    index = "SEARCH credit_call USING INDEX credit_call_key"
    assert any(
        step.startswith(f"{index} (key=? AND practice_no=? AND operation=?)") for step in plan
    )
