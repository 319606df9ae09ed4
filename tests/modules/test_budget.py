"""aza_ai_budget: periods, burn-down, the snapshot and the gate."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

import aza_ai_credit
from aza_ai_budget import (
    budget_gate_blocked_payload_or_none,
    check_allows_openai_call,
    compute_budget_snapshot,
)
from guthaben import Guthaben, errors
from tests.modules.host import extra, ledger, license_row, period, rows, save, usage_rows, use

LIMIT_REACHED = "AUTO_TOPUP_MONTHLY_LIMIT_REACHED"


def gate(con: sqlite3.Connection, **lic: Any) -> dict[str, Any] | None:
    return budget_gate_blocked_payload_or_none(
        con,
        license_row(**lic),
        device_id="dev-1",
        request_id="req-1",
        operation_type="chat",
        model="gpt-4o-mini",
    )


def test_a_fresh_licence_has_its_budget(con: sqlite3.Connection) -> None:
    snapshot = compute_budget_snapshot(con, license_row())
    assert snapshot["budget_usd"] == snapshot["remaining_usd"] == 20.0
    assert (snapshot["used_usd"], snapshot["extra_credit_remaining_usd"]) == (0.0, 0.0)
    assert snapshot["available_percent"] == 100
    assert type(snapshot["available_percent"]) is int


def test_the_snapshot_only_reads(con: sqlite3.Connection) -> None:
    before = con.total_changes
    compute_budget_snapshot(con, license_row())
    check_allows_openai_call(con, license_row())
    assert con.total_changes == before
    assert con.execute("SELECT COUNT(*) FROM credit_practice").fetchone() == (0,)


def test_usage_burns_the_month_first_and_then_what_was_bought(con: sqlite3.Connection) -> None:
    ledger(con, 10.0)
    use(con, 15.0)
    assert extra(con) == 10.0
    use(con, 8.0)
    snapshot = compute_budget_snapshot(con, license_row())
    assert (snapshot["remaining_usd"], snapshot["used_usd"]) == (0.0, 23.0)
    assert snapshot["extra_credit_remaining_usd"] == extra(con) == 7.0
    assert snapshot["available_percent"] == 35


def test_the_overuse_of_each_period_is_paid_by_extra_credit_once(con: sqlite3.Connection) -> None:
    # 20 per period: 5 over in the first, nothing in the second, 3 over in the third.
    ledger(con, 30.0)
    for number, used in enumerate([25.0, 12.0, 23.0]):
        use(con, used, period(number))
    assert extra(con) == 30.0 - 5.0 - 3.0
    for number, left in enumerate([0.0, 8.0, 0.0]):
        assert compute_budget_snapshot(con, period(number))["remaining_usd"] == left


def test_an_old_period_stays_usable_and_late_usage_counts_where_it_belongs(
    con: sqlite3.Connection,
) -> None:
    use(con, 4.0, period(1))
    use(con, 3.0, period(0))
    assert compute_budget_snapshot(con, period(0))["used_usd"] == 3.0
    assert compute_budget_snapshot(con, period(1))["used_usd"] == 4.0
    allowed, _ = check_allows_openai_call(con, period(0))
    assert allowed


def test_usage_beyond_everything_is_owed_and_repaid_by_the_next_purchase(
    con: sqlite3.Connection,
) -> None:
    use(con, 27.5)
    assert extra(con) == 0.0
    assert compute_budget_snapshot(con, license_row())["debt_usd"] == 7.5
    ledger(con, 10.0)
    assert extra(con) == 2.5


def test_credit_is_the_practices_and_usage_the_subscriptions(con: sqlite3.Connection) -> None:
    ledger(con, 5.0)
    use(con, 20.0)
    other = license_row(practice_id="prac_other", subscription_id="sub_other")
    snapshot = compute_budget_snapshot(con, other)
    assert (snapshot["remaining_usd"], snapshot["extra_credit_remaining_usd"]) == (20.0, 0.0)
    second = license_row(subscription_id="sub_second")
    assert compute_budget_snapshot(con, second)["remaining_usd"] == 20.0
    assert compute_budget_snapshot(con, second)["extra_credit_remaining_usd"] == 5.0


@pytest.mark.parametrize("practice_id", [None, ""])
def test_without_a_practice_the_subscription_owns_the_credit(
    con: sqlite3.Connection, practice_id: str | None
) -> None:
    lic = license_row(practice_id=practice_id)
    ledger(con, 5.0, practice_id=practice_id)
    use(con, 21.0, lic)
    assert compute_budget_snapshot(con, lic)["extra_credit_remaining_usd"] == 4.0
    assert usage_rows(con)[0]["practice_id"] == "sub_top"
    assert gate(con, practice_id=practice_id) is None


def test_every_report_is_a_row_even_with_the_same_request_id(con: sqlite3.Connection) -> None:
    first, second = use(con, 1.0, request_id="same"), use(con, 1.0, request_id="same")
    assert first != second
    assert [row["id"] for row in usage_rows(con)] == [first, second]
    assert compute_budget_snapshot(con, license_row())["used_usd"] == 2.0


def test_a_usage_row_reads_back_as_it_was_told(con: sqlite3.Connection) -> None:
    number = use(
        con,
        0.000123,
        device_id="dev-7",
        audio_seconds=1.5,
        total_tokens=9,
        model="whisper-1",
        operation_type="transcribe",
        status="error",
    )
    (row,) = usage_rows(con)
    lic = license_row()
    assert row == {
        "id": number,
        "subscription_id": "sub_top",
        "practice_id": "prac_top",
        "device_id": "dev-7",
        "period_start": lic.period_start,
        "period_end": lic.period_end,
        "operation_type": "transcribe",
        "model": "whisper-1",
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 9,
        "audio_seconds": 1.5,
        "estimated_cost_usd": 0.000123,
        "request_id": "r1",
        "status": "error",
        "created_at": row["created_at"],
    }


def test_blocked_rows_are_shown_and_never_counted(con: sqlite3.Connection) -> None:
    number = use(con, 19.0, status="blocked_budget")
    assert [(row["id"], row["status"]) for row in usage_rows(con)] == [(number, "blocked_budget")]
    assert compute_budget_snapshot(con, license_row())["used_usd"] == 0.0


@pytest.mark.parametrize("cost", [-0.01, float("nan"), float("inf"), 2_000_000.0])
def test_a_cost_that_is_none_is_refused(con: sqlite3.Connection, cost: float) -> None:
    with pytest.raises(ValueError):
        use(con, cost)
    assert usage_rows(con) == []


def test_a_cost_below_a_nano_does_not_vanish(con: sqlite3.Connection) -> None:
    use(con, 1e-12)
    assert compute_budget_snapshot(con, license_row())["used_usd"] == 1e-9


def test_plans_come_from_one_table_and_a_setting(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compute_budget_snapshot(con, license_row(lookup_key="never_heard"))["budget_usd"] == 20.0
    monkeypatch.setenv("GUTHABEN_MONTHLY_BUDGETS_USD", '{"aza_pro": "50.5", "*": "1"}')
    assert compute_budget_snapshot(con, license_row(lookup_key="aza_pro"))["budget_usd"] == 50.5
    assert compute_budget_snapshot(con, license_row(lookup_key=None))["budget_usd"] == 1.0
    assert compute_budget_snapshot(con, license_row())["budget_usd"] == 20.0
    monkeypatch.setenv("GUTHABEN_MONTHLY_BUDGETS_USD", '{"aza_pro": "fifty"}')
    with pytest.raises(errors.ConfigError):
        compute_budget_snapshot(con, license_row(lookup_key="aza_pro"))


def test_an_upgrade_counts_at_once_and_a_downgrade_next_period(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_MONTHLY_BUDGETS_USD", '{"pro": "50", "mini": "5"}')
    use(con, 18.0)
    pro = license_row(lookup_key="pro")
    assert compute_budget_snapshot(con, pro)["remaining_usd"] == 32.0
    use(con, 10.0, pro)
    assert compute_budget_snapshot(con, pro)["remaining_usd"] == 22.0
    assert compute_budget_snapshot(con, pro)["debt_usd"] == 0.0
    assert compute_budget_snapshot(con, license_row(lookup_key="mini"))["budget_usd"] == 50.0
    assert compute_budget_snapshot(con, period(1, lookup_key="mini"))["budget_usd"] == 5.0


@pytest.mark.parametrize("status", ["canceled", "unpaid", "incomplete_expired", "Canceled"])
def test_a_licence_that_is_over_includes_nothing(con: sqlite3.Connection, status: str) -> None:
    use(con, 1.0)
    lic = license_row(status=status)
    assert compute_budget_snapshot(con, lic)["remaining_usd"] == 0.0
    assert check_allows_openai_call(con, lic)[0] is False
    ledger(con, 2.0)
    assert check_allows_openai_call(con, lic)[0] is True


def test_the_engine_hears_of_the_licence_and_never_goes_back(
    con: sqlite3.Connection, path: Any
) -> None:
    use(con, 1.0, period(1))
    use(con, 1.0, period(0))
    told = con.execute(
        "SELECT license, period_start_s, allowance_nano_usd, license_active FROM credit_practice"
    ).fetchone()
    assert told == ("sub_top", period(1).period_start, 20 * 10**9, 1)
    with Guthaben.open(f"sqlite:///{path}") as guthaben:
        guthaben.set_license(
            "prac_top",
            "host-plan",
            period_start_s=1,
            period_end_s=2,
            allowance_nano_usd=5,
        )
    use(con, 1.0, period(2))
    assert con.execute("SELECT license FROM credit_practice").fetchone() == ("host-plan",)


def test_a_frozen_practice_is_blocked_and_still_metered(con: sqlite3.Connection, path: Any) -> None:
    use(con, 1.0)
    with Guthaben.open(f"sqlite:///{path}") as guthaben:
        guthaben.set_policy("prac_top", status="frozen")
    blocked = gate(con)
    assert blocked is not None
    assert blocked["error_code"] == "AI_PRACTICE_NOT_ACTIVE"
    use(con, 1.0)
    assert compute_budget_snapshot(con, license_row())["used_usd"] == 2.0


def test_holds_of_the_engine_count_and_are_given_back_when_they_are_over(
    con: sqlite3.Connection, path: Any
) -> None:
    from guthaben import Period

    lic = license_row()
    stretch = Period("sub_top", lic.period_start, lic.period_end, 20 * 10**9)
    with Guthaben.open(f"sqlite:///{path}") as guthaben:
        guthaben.reserve("prac_top", 20 * 10**9, key="hold", ttl_s=0.001, period=stretch)
    assert compute_budget_snapshot(con, lic)["remaining_usd"] == 0.0
    assert check_allows_openai_call(con, lic)[0] is True
    assert compute_budget_snapshot(con, lic)["remaining_usd"] == 20.0


def test_the_engines_calls_are_usage_once_they_cost_something(
    con: sqlite3.Connection, path: Any
) -> None:
    ledger(con, 10.0)
    with Guthaben.open(f"sqlite:///{path}") as guthaben:
        guthaben.reserve("prac_top", 10**9, key="open")
        guthaben.reserve("prac_top", 10**9, key="released").release()
        guthaben.reserve("prac_top", 10**9, key="settled").settle(10**8, model="gpt")
    assert [(row["estimated_cost_usd"], row["status"]) for row in usage_rows(con)] == [
        (0.1, "success")
    ]


# ---------------------------------------------------------------- the gate


def test_the_gate_lets_pass_what_has_credit(con: sqlite3.Connection) -> None:
    assert gate(con) is None
    assert usage_rows(con) == []


def test_the_gate_says_no_in_german_and_keeps_the_refusal(con: sqlite3.Connection) -> None:
    use(con, 20.0)
    blocked = gate(con)
    assert blocked is not None
    assert blocked["error_code"] == "AI_BUDGET_EXHAUSTED"
    assert "Guthaben" in blocked["message_user"]
    kept = usage_rows(con)[-1]
    assert (kept["status"], kept["device_id"], kept["request_id"]) == ("blocked", "dev-1", "req-1")
    assert kept["estimated_cost_usd"] == 0.0
    assert compute_budget_snapshot(con, license_row())["used_usd"] == 20.0


def test_without_the_switch_the_gate_tops_nothing_up(con: sqlite3.Connection) -> None:
    use(con, 20.0)
    with patch("aza_ai_credit.maybe_run_auto_topup_for_practice") as topup:
        assert gate(con) is not None
    topup.assert_not_called()


def test_the_gate_asks_for_a_topup_whatever_is_stored_and_looks_again(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    use(con, 20.0)

    def topped_up(*_: Any, **__: Any) -> dict[str, Any]:
        ledger(con, 10.0, event_type="auto_topup_purchase", stripe_payment_intent_id="pi_gate")
        return {"ok": True, "charged": True}

    with patch("aza_ai_credit.maybe_run_auto_topup_for_practice", side_effect=topped_up) as topup:
        assert gate(con) is None
    assert topup.call_args.kwargs == {
        "practice_id": "prac_top",
        "available_percent": 0,
        "subscription_id": "sub_top",
    }


def test_the_gate_stays_shut_when_the_topup_breaks(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    use(con, 20.0)
    broken = errors.StoreUnavailable("locked")
    with patch("aza_ai_credit.maybe_run_auto_topup_for_practice", side_effect=broken):
        blocked = gate(con)
    assert blocked is not None
    assert blocked["error_code"] == "AI_BUDGET_EXHAUSTED"


@pytest.mark.parametrize(
    ("told", "code", "word"),
    [
        ({"reason": "auto_topup_monthly_limit_reached"}, LIMIT_REACHED, "manuell"),
        ({"error_code": LIMIT_REACHED}, LIMIT_REACHED, "manuell"),
        ({"reason": "pending_auto_topup"}, "AUTO_TOPUP_PENDING", "verarbeitet"),
        ({"reason": "card_declined", "paused": True}, "AUTO_TOPUP_PAUSED", "manuell"),
        ({"reason": "disabled"}, "AI_BUDGET_EXHAUSTED", "aufgebraucht"),
    ],
)  # fmt: skip
def test_the_gate_says_what_became_of_the_topup(
    con: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, Any],
    code: str,
    word: str,
) -> None:
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    use(con, 20.0)
    with patch("aza_ai_credit.maybe_run_auto_topup_for_practice", return_value=told):
        blocked = gate(con)
    assert blocked is not None
    assert blocked["error_code"] == code
    assert word in blocked["message_user"].lower()


def test_the_limit_is_told_through_the_real_topup(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    use(con, 40.0)
    save(con, monthly_limit_chf=60.0)
    for number in range(2):
        ledger(
            con,
            10.0,
            event_type="auto_topup_purchase",
            amount_paid_chf=30.0,
            stripe_payment_intent_id=f"pi_cap_{number}",
        )
    blocked = gate(con)
    assert blocked is not None
    assert blocked["error_code"] == "AUTO_TOPUP_MONTHLY_LIMIT_REACHED"
    assert extra(con) == 0.0


def test_the_cost_of_looking_does_not_grow_with_history(con: sqlite3.Connection) -> None:
    def steps(ask: Callable[[], object]) -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        con.set_progress_handler(tick, 1)
        ask()
        con.set_progress_handler(None, 1)
        return count

    for number in range(3):
        use(con, 1.0, period(number))
        ledger(con, 1.0)
    few = steps(lambda: compute_budget_snapshot(con, period(2)))
    for number in range(60):
        use(con, 0.1, period(number % 6))
        ledger(con, 1.0)
        use(con, 21.0, period(6 + number))
    many = steps(lambda: compute_budget_snapshot(con, period(2)))
    assert many <= few * 1.5 + 50
    assert len(rows(con)) == 63
    assert (
        aza_ai_credit.list_user_credit_history(con, practice_id="prac_top", limit=5)[0]["id"] == 63
    )
