"""Old plain tables are taken over once, exactly, or not at all."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import aza_ai_budget as budget
import aza_ai_credit as credit
from guthaben import Guthaben
from guthaben.store.verify import verify
from tests.modules.host import (
    START,
    create_licenses,
    extra,
    ledger,
    license_row,
    payment,
    period,
    rows,
    usage_rows,
    use,
)
from tests.modules.old import (
    LEDGER,
    USAGE,
    dump,
    old_entry,
    old_settings,
    old_usage,
    tables,
)

# ---------------------------------------------------------------- what can be explained


def test_every_row_comes_back_through_the_view_as_it_was(old: sqlite3.Connection) -> None:
    old_entry(old, 6.6667, stripe_payment_intent_id="pi_1", customer_email="a@b.ch",
              meta_json='{"note": "kept"}')  # fmt: skip
    old_entry(old, 0.0, status="failed", stripe_checkout_session_id="cs_2", created_at=START + 5)
    old.execute("UPDATE sqlite_sequence SET seq = 40 WHERE name = 'ai_credit_ledger'")
    old_entry(old, -2.5, event_type="refund", amount_paid_chf=-7.5, created_at=START + 9)
    old_entry(old, 20.0, event_type="auto_topup_purchase", status="pending", amount_paid_chf=None)
    old_usage(old, 1.35e-05)
    old_usage(old, 0.1, status="blocked_limit")
    old_usage(old, 0.5, status="error", created_at=START - 100)
    before_ledger, before_usage = rows(old), usage_rows(old)
    credit.ensure_ai_credit_schema(old)
    assert rows(old) == before_ledger
    for was, now in zip(before_usage, usage_rows(old), strict=True):
        assert was == {name: now[name] for name in was}
    assert [row["id"] for row in rows(old)] == [1, 2, 41, 42]
    assert ledger(old, 1.0) == 43


def test_balances_are_what_the_old_arithmetic_says(old: sqlite3.Connection) -> None:
    for number, used in enumerate([25.0, 12.0, 23.0]):
        for _ in range(4):
            old_usage(old, used / 4, number)
    old_entry(old, 30.0)
    old_entry(old, -4.0, event_type="refund")
    old_entry(old, 99.0, status="failed")
    old_entry(old, 99.0, status="pending")
    budget.ensure_ai_budget_schema(old)
    assert extra(old) == 30.0 - 4.0 - 5.0 - 3.0
    for number, left in enumerate([0.0, 8.0, 0.0]):
        snapshot = budget.compute_budget_snapshot(old, period(number))
        assert (snapshot["remaining_usd"], snapshot["used_usd"]) == (
            left,
            [25.0, 12.0, 23.0][number],
        )
    use(old, 1.0, period(1))
    assert budget.compute_budget_snapshot(old, period(1))["remaining_usd"] == 7.0


@given(
    entries=st.lists(st.integers(-(10**10), 4 * 10**10), max_size=6),
    used=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4 * 10**10)), max_size=10),
)
def test_any_history_is_taken_over_exactly(entries: list[int], used: list[tuple[int, int]]) -> None:
    con = sqlite3.connect(":memory:")
    create_licenses(con)
    con.execute(LEDGER)
    con.execute(USAGE)
    for place, nano in enumerate(entries):
        old_entry(con, nano / 10**9, created_at=START + 7 * place)
    for place, (number, nano) in enumerate(used):
        old_usage(con, nano / 10**9, number, created_at=START + 5 * place)
    before = rows(con), [row["estimated_cost_usd"] for row in usage_rows(con)]
    credit.ensure_ai_credit_schema(con)
    assert (rows(con), [row["estimated_cost_usd"] for row in usage_rows(con)]) == before
    per_period = [sum(nano for n, nano in used if n == number) for number in range(4)]
    over = sum(max(0, spent - 20 * 10**9) for spent in per_period)
    assert extra(con) == max(0, sum(entries) - over) / 10**9
    assert verify(con.cursor(), None, int(time.time())).ok
    con.close()


def test_old_payments_are_never_credited_again(old: sqlite3.Connection) -> None:
    old_entry(old, stripe_payment_intent_id="pi_1")
    old_entry(old, stripe_checkout_session_id="cs_1", created_at=START + 1)
    credit.ensure_ai_credit_schema(old)
    told = credit.process_topup_payment_intent_succeeded(old, payment_intent=payment())
    assert told["duplicate"]
    assert credit.ledger_exists_for_checkout(old, "cs_1")
    assert extra(old) == 20.0


def test_cap_and_cooldown_know_the_old_topups(old: sqlite3.Connection) -> None:
    now = int(time.time())
    old_entry(old, event_type="auto_topup_purchase", created_at=now - 60)
    old_entry(old, event_type="auto_topup_purchase", created_at=START, amount_paid_chf=99.0)
    credit.ensure_ai_credit_schema(old)
    assert credit.sum_auto_topups_chf_this_month(old, "prac_top") == 30.0
    assert credit.last_successful_auto_topup_ts(old, "prac_top") == now - 60


def test_a_row_without_a_practice_is_its_licences_and_else_its_subscriptions(
    old: sqlite3.Connection,
) -> None:
    old_entry(old, 1.0, practice_id=None)
    old_usage(old, 21.0, practice_id=None)
    old_entry(old, 5.0, practice_id="", subscription_id="sub_unknown")
    credit.ensure_ai_credit_schema(old)
    assert {row["practice_id"] for row in rows(old)} == {"prac_top", "sub_unknown"}
    assert budget.compute_budget_snapshot(old, license_row())["used_usd"] == 21.0
    assert extra(old) == 0.0
    assert extra(old, "sub_unknown") == 5.0


def test_settings_are_found_by_their_columns(old: sqlite3.Connection) -> None:
    old_settings(old)
    old_settings(old, practice_id="prac_other", auto_topup_enabled=0, stripe_customer_id=None)
    credit.ensure_ai_credit_schema(old)
    settings = credit.get_topup_settings(old, "prac_top")
    assert settings.auto_topup_enabled
    assert (settings.topup_amount_chf, settings.internal_credit_usd) == (45.5, 15.1667)
    assert (settings.trigger_below_percent, settings.monthly_limit_chf) == (8, 200.0)
    assert settings.default_payment_method_id == "pm_old"
    assert not credit.get_topup_settings(old, "prac_other").auto_topup_enabled
    told = credit.maybe_run_auto_topup_for_practice(
        old, practice_id="prac_top", available_percent=0
    )
    assert told["reason"] == "dry_run"  # the consent given to the old application still stands
    assert "before_guthaben_ai_topup_prefs" in tables(old)


def test_secrets_in_old_meta_are_not_taken_over(old: sqlite3.Connection) -> None:
    old_entry(old, meta_json='{"api_secret_key": "x", "note": "n"}')
    credit.ensure_ai_credit_schema(old)
    assert json.loads(rows(old)[0]["meta_json"]) == {"note": "n"}


# ---------------------------------------------------------------- once, and nothing lost


def test_the_old_tables_are_kept_aside_and_empty_ones_replaced(old: sqlite3.Connection) -> None:
    old_entry(old)
    credit.ensure_ai_credit_schema(old)
    assert "before_guthaben_ai_credit_ledger" in tables(old)
    assert not {name for name in tables(old) if "usage" in name or "prefs" in name}
    kept = old.execute("SELECT COUNT(*) FROM before_guthaben_ai_credit_ledger").fetchone()
    assert kept == (1,)


def test_it_happens_once(old: sqlite3.Connection) -> None:
    old_entry(old)
    old_usage(old)
    for _ in range(3):
        credit.ensure_ai_credit_schema(old)
        budget.ensure_ai_budget_schema(old)
    assert len(rows(old)) == len(usage_rows(old)) == 1
    assert extra(old) == 10.0


def test_the_hosts_own_views_read_the_new_ones(old: sqlite3.Connection) -> None:
    old_entry(old)
    old.execute("CREATE VIEW report AS SELECT SUM(amount_internal_usd) AS s FROM ai_credit_ledger")
    old.commit()
    credit.ensure_ai_credit_schema(old)
    ledger(old, 5.0)
    assert old.execute("SELECT s FROM report").fetchone() == (15.0,)
    assert old.execute("PRAGMA legacy_alter_table").fetchone() == (0,)


def test_inside_a_callers_transaction_it_is_the_callers_to_undo(old: sqlite3.Connection) -> None:
    old_entry(old)
    old_usage(old)
    old_settings(old)
    before = dump(old)
    old.execute("UPDATE licenses SET updated_at = 7")
    credit.ensure_ai_credit_schema(old)
    assert old.in_transaction
    assert extra(old) == 10.0
    old.rollback()
    assert dump(old) == before
    credit.ensure_ai_credit_schema(old)
    assert extra(old) == 10.0


def test_beside_an_engine_in_use_the_old_numbers_are_kept(
    old: sqlite3.Connection, path: Path
) -> None:
    with Guthaben.open(f"sqlite:///{path}") as guthaben:
        for key in ("a", "b"):
            guthaben.adjust("prac_top", 10**9, key=key, reason="welcome")
    old_entry(old, 10.0)
    old_entry(old, 5.0)
    credit.ensure_ai_credit_schema(old)
    assert [(row["id"], row["amount_internal_usd"]) for row in rows(old)] == [
        (1, 10.0),
        (2, 5.0),
        (3, 1.0),
        (4, 1.0),
    ]
    assert extra(old) == 17.0


def test_an_earlier_view_of_ours_is_renewed(old: sqlite3.Connection) -> None:
    credit.ensure_ai_credit_schema(old)
    ledger(old, 3.0)
    old.execute("UPDATE credit_meta SET value = 'older' WHERE name = 'legacy_views'")
    old.execute("DROP VIEW ai_usage_events")
    old.commit()
    credit.ensure_ai_credit_schema(old)
    assert extra(old) == 3.0
    assert usage_rows(old) == []


def test_many_rows_are_taken_over_in_batches(old: sqlite3.Connection) -> None:
    for place in range(1_201):
        old.execute(
            "INSERT INTO ai_usage_events (subscription_id, practice_id, period_start, period_end,"
            " estimated_cost_usd, status, created_at) VALUES ('sub_top', 'prac_top', ?, ?, 0.01,"
            " 'success', ?)",
            (START, START + 5, START + place),
        )
    old.commit()
    budget.ensure_ai_budget_schema(old)
    assert budget.compute_budget_snapshot(old, license_row())["used_usd"] == 12.01
    assert [row["id"] for row in usage_rows(old)] == list(range(1, 1_202))
