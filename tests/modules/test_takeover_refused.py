"""What can't be explained in old tables is told, all of it, and nothing is changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import aza_ai_budget as budget
import aza_ai_credit as credit
from guthaben.errors import MigrationNeeded
from tests.modules.host import START, extra, payment
from tests.modules.old import dump, old_entry, old_settings, old_usage

BAD_ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"status": "paid"}, "unknown status 'paid'"),
    ({"usd": None}, "amount_internal_usd is NULL"),
    ({"usd": "ten"}, "amount_internal_usd"),
    ({"usd": 2e9}, "amount_internal_usd"),
    ({"usd": float("inf")}, "amount_internal_usd"),
    ({"amount_paid_chf": "thirty"}, "amount_paid_chf"),
    ({"meta_json": "{"}, "meta_json"),
    ({"meta_json": "[1]"}, "meta_json"),
    ({"created_at": "2023-11-14"}, "created_at"),
    ({"created_at": START * 1000}, "created_at"),
    ({"event_type": ""}, "event_type"),
    ({"practice_id": None, "subscription_id": None}, "practice_id"),
    ({"practice_id": "x" * 201}, "practice_id"),
]


@pytest.mark.parametrize(("changes", "named"), BAD_ENTRIES)
def test_a_bad_entry_is_named_and_changes_nothing(
    old: sqlite3.Connection, changes: dict[str, Any], named: str
) -> None:
    old_entry(old)
    old_entry(old, **changes)
    before = dump(old)
    with pytest.raises(MigrationNeeded) as refused:
        credit.ensure_ai_credit_schema(old)
    assert any(named in problem and "2" in problem for problem in refused.value.problems)
    assert dump(old) == before
    assert not old.in_transaction


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"usd": -0.01}, "negative"),
        ({"usd": None}, "NULL"),
        ({"usd": "much"}, "estimated_cost_usd"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"input_tokens": "three"}, "input_tokens"),
        ({"audio_seconds": -1.0}, "audio_seconds"),
        ({"period_start": None}, "period_start"),
        ({"subscription_id": None}, "subscription_id"),
        ({"status": None}, "status"),
        ({"created_at": None}, "created_at"),
    ],
)
def test_bad_usage_is_named_and_changes_nothing(
    old: sqlite3.Connection, changes: dict[str, Any], named: str
) -> None:
    old_usage(old, **changes)
    before = dump(old)
    with pytest.raises(MigrationNeeded, match=named):
        budget.ensure_ai_budget_schema(old)
    assert dump(old) == before


@pytest.mark.parametrize(
    "changes",
    [{"topup_amount_chf": None}, {"trigger_below_percent": "five"}, {"auto_topup_enabled": 7},
     {"monthly_limit_chf": "lots"}],
)  # fmt: skip
def test_bad_settings_are_named_and_change_nothing(
    old: sqlite3.Connection, changes: dict[str, Any]
) -> None:
    old_settings(old, **changes)
    before = dump(old)
    with pytest.raises(MigrationNeeded, match=next(iter(changes))):
        credit.ensure_ai_credit_schema(old)
    assert dump(old) == before


def test_all_problems_are_told_at_once(old: sqlite3.Connection) -> None:
    old_entry(old, status="paid")
    old_entry(old, None)
    old_usage(old, -1.0)
    old_settings(old, topup_amount_chf=None)
    with pytest.raises(MigrationNeeded) as refused:
        credit.ensure_ai_credit_schema(old)
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize("name", ["stripe_payment_intent_id", "stripe_checkout_session_id"])
def test_a_payment_credited_twice_is_not_swallowed(old: sqlite3.Connection, name: str) -> None:
    old.execute("DROP INDEX ux_pi")
    for place in range(2):
        old_entry(old, created_at=START + place, **{name: "same"})
    with pytest.raises(MigrationNeeded, match="credited by row 1"):
        credit.ensure_ai_credit_schema(old)
    old.execute("UPDATE ai_credit_ledger SET status = 'failed' WHERE id = 2")
    old.commit()
    credit.ensure_ai_credit_schema(old)
    assert extra(old) == 10.0


def test_a_payment_the_engine_credited_is_not_swallowed(old: sqlite3.Connection) -> None:
    old_entry(old, stripe_payment_intent_id="pi_1")
    old.execute("ALTER TABLE ai_credit_ledger RENAME TO away")
    old.commit()
    credit.ensure_ai_credit_schema(old)
    credit.process_topup_payment_intent_succeeded(old, payment_intent=payment())
    old.execute("DROP VIEW ai_credit_ledger")
    old.execute("ALTER TABLE away RENAME TO ai_credit_ledger")
    old.commit()
    with pytest.raises(MigrationNeeded, match="credited by the engine"):
        credit.ensure_ai_credit_schema(old)


def test_two_pending_topups_of_one_practice_are_told(old: sqlite3.Connection) -> None:
    for _ in range(2):
        old_entry(old, event_type="auto_topup_purchase", status="pending")
    with pytest.raises(MigrationNeeded, match="pending beside row 1"):
        credit.ensure_ai_credit_schema(old)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "CREATE TRIGGER mine AFTER INSERT ON ai_credit_ledger BEGIN SELECT 1; END",
            "trigger mine",
        ),
        ("CREATE TABLE notes (entry INTEGER REFERENCES ai_credit_ledger (id))", "foreign key"),
        ("ALTER TABLE ai_credit_ledger RENAME COLUMN status TO state", "no column status"),
    ],
)
def test_what_a_view_can_not_carry_is_told(
    old: sqlite3.Connection, statement: str, named: str
) -> None:
    old_entry(old)
    old.execute(statement)
    before = dump(old)
    with pytest.raises(MigrationNeeded, match=named):
        credit.ensure_ai_credit_schema(old)
    assert dump(old) == before


def test_a_hosts_own_view_of_that_name_is_not_replaced(path: Path) -> None:
    con = sqlite3.connect(path)
    con.execute("CREATE VIEW ai_credit_ledger AS SELECT 1 AS id")
    with pytest.raises(MigrationNeeded, match="Guthaben did not make"):
        credit.ensure_ai_credit_schema(con)
    con.close()
