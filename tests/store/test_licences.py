"""Rows of licences: read by index, kept as they were, one practice per subscription for ever."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from guthaben.domain.grants import NEVER_S
from guthaben.domain.licences import Item, PlanVersion, Sighting
from guthaben.store import licences, plans
from guthaben.store.licences import SubscriptionRow
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.store.bank import T0_S, Clock, url

ITEMS = (Item("basic", 1, T0_S, T0_S + 1_000),)


def row(practice_no: int, subscription_id: str = "sub_1", **fields: object) -> SubscriptionRow:
    known = SubscriptionRow(
        practice_no, subscription_id, True, "cus_1", "active", licences.items_text(ITEMS), NEVER_S,
        T0_S, False, T0_S + 4_600, 20, False, 1, T0_S,
    )  # fmt: skip
    return known._replace(**fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url(tmp_path / "credit.db"), clock_ms=Clock())


def test_a_subscription_belongs_to_one_practice_for_ever(store: Store) -> None:
    def work(space: Workspace) -> None:
        one, other = space.practice_no("p"), space.practice_no("q")
        licences.save_subscription(space.cursor, row(one))
        licences.save_subscription(space.cursor, row(one, status="unpaid", version=2))
        with pytest.raises(sqlite3.IntegrityError):
            licences.save_subscription(space.cursor, row(other))
        found = licences.find_subscription(space.cursor, "sub_1")
        assert found is not None
        assert (found.practice_no, found.status, found.version) == (one, "unpaid", 2)
        assert licences.find_subscription(space.cursor, "sub_1", livemode=False) is None

    store.run(work)
    store.close()


def test_what_was_seen_is_kept_once_and_given_by_period(store: Store) -> None:
    def work(space: Workspace) -> None:
        made = row(space.practice_no("p"))
        later = Sighting((Item("pro", 1, T0_S + 1_000, T0_S + 2_000),), False)
        assert licences.see(space.cursor, made, Sighting(ITEMS, False), T0_S)
        assert not licences.see(space.cursor, made, Sighting(ITEMS, False), T0_S)
        assert licences.see(space.cursor, made, Sighting(ITEMS, True), T0_S)
        assert licences.see(space.cursor, made, later, T0_S)
        found = licences.seen_since(space.cursor, made.practice_no, "sub_1", T0_S + 1_000)
        assert found == (later,)

    store.run(work)
    store.close()


def test_numbers_of_plans_and_of_what_is_held_only_grow(store: Store) -> None:
    def work(space: Workspace) -> None:
        for number in (1, 2):
            plans.add_plan(space.cursor, PlanVersion(number, "basic", 0, number))
        assert [v.plan_no for v in plans.plan_versions(space.cursor)] == [1, 2]
        first = licences.hold(space.cursor, "sub_1", True, "no_practice", "", T0_S)
        again = licences.hold(space.cursor, "sub_1", True, "practice_mismatch", "", T0_S)
        other = licences.hold(space.cursor, "sub_2", True, "no_practice", "", T0_S)
        assert (first, other.held_no) == (again, 2)
        assert licences.find_held(space.cursor, "2") == other
        assert licences.find_held(space.cursor, "１") is None

    store.run(work)
    store.close()


QUESTIONS = [
    lambda cur: licences.find_subscription(cur, "sub_1"),
    lambda cur: licences.subscriptions_of(cur, 1),
    lambda cur: licences.is_subscription_of(cur, 1, "sub_1"),
    lambda cur: licences.seen_since(cur, 1, "sub_1", T0_S),
    lambda cur: licences.owners_of_customer(cur, "cus_1"),
    lambda cur: licences.customer_of(cur, 1, True),
    lambda cur: licences.overdue(cur, T0_S, T0_S, 20),
    lambda cur: licences.find_held(cur, "sub_1"),
    lambda cur: plans.load_order(cur, "lo_1"),
]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_every_question_is_answered_by_index(tmp_path: Path, number: int) -> None:
    path = tmp_path / "credit.db"
    Store(url(path)).close()
    con = sqlite3.connect(path)
    done: list[str] = []
    con.set_trace_callback(done.append)
    QUESTIONS[number](con.cursor())
    con.set_trace_callback(None)
    assert done
    for statement in done:
        for *_, detail in con.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall():
            # What is held waits for an operator: its few rows may be walked.
            assert "SCAN" not in detail or "held" in detail, f"{detail}: {statement}"
    con.close()
