"""The ledger: entries, the views in place of the old tables, secrets, history."""

from __future__ import annotations

import json
import sqlite3
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aza_ai_credit import (
    apply_extra_credit_to_snapshot,
    chf_to_internal_usd,
    compute_extra_credit_remaining,
    ensure_ai_credit_schema,
    has_pending_auto_topup,
    last_successful_auto_topup_ts,
    ledger_exists_for_checkout,
    ledger_exists_for_payment_intent,
    list_ledger_for_practice,
    list_user_credit_history,
    mask_stripe_reference,
    sum_auto_topups_chf_this_month,
)
from guthaben.errors import InvalidInput
from guthaben.store.legacy.meta import clean_meta
from tests.modules.host import extra, ledger, rows, use


@pytest.mark.parametrize(
    ("chf", "usd"), [(10, 3.3333), (30, 10.0), (45, 15.0), (50.0, 16.6667), (300, 100.0), (0, 0.0)]
)
def test_thirty_francs_buy_ten_dollars(chf: float, usd: float) -> None:
    assert chf_to_internal_usd(chf) == usd


@pytest.mark.parametrize(
    ("remaining", "extra_usd", "budget", "percent"),
    [(20.0, 10.0, 20.0, 150), (0.0, 10.0, 20.0, 50), (6.0, 20.0, 20.0, 130), (0.0, 0.0, 20.0, 0),
     (1.0, 0.0, 30.0, 3.33), (0.9999, 0.0, 20.0, 4.99), (0.0, 1.0, 0.0, 100), (0.0, 0.0, 0.0, 0)],
)  # fmt: skip
def test_the_percentage_counts_both_and_never_rounds_up(
    remaining: float, extra_usd: float, budget: float, percent: float
) -> None:
    base = {"remaining_usd": remaining, "used_usd": 0.0, "budget_usd": budget}
    snapshot = apply_extra_credit_to_snapshot(
        base, extra_remaining=extra_usd, monthly_budget=budget
    )
    assert snapshot["available_percent"] == percent
    assert type(snapshot["available_percent"]) is type(percent)
    assert base == {"remaining_usd": remaining, "used_usd": 0.0, "budget_usd": budget}


# ---------------------------------------------------------------- entries


def test_an_entry_reads_back_as_it_was_written(con: sqlite3.Connection) -> None:
    number = ledger(
        con,
        6.6667,
        amount_paid_chf=20.0,
        stripe_checkout_session_id="cs_a",
        stripe_payment_intent_id="pi_a",
        customer_email="top@example.test",
        meta={"note": "ok"},
    )
    (row,) = rows(con)
    assert row == {
        "id": number,
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "customer_email": "top@example.test",
        "event_type": "topup_purchase",
        "amount_internal_usd": 6.6667,
        "amount_paid_chf": 20.0,
        "stripe_checkout_session_id": "cs_a",
        "stripe_payment_intent_id": "pi_a",
        "status": "succeeded",
        "meta_json": '{"note": "ok"}',
        "created_at": row["created_at"],
    }
    assert type(row["created_at"]) is int


@given(
    nano=st.integers(-(10**13), 10**13),
    status=st.sampled_from(["succeeded", "pending", "failed"]),
    rappen=st.none() | st.integers(-(10**7), 10**7),
)
def test_amounts_cross_the_edge_unchanged(nano: int, status: str, rappen: int | None) -> None:
    con = sqlite3.connect(":memory:")
    ensure_ai_credit_schema(con)
    usd, chf = nano / 10**9, None if rappen is None else rappen / 100
    ledger(con, usd, amount_paid_chf=chf, status=status)
    (row,) = rows(con)
    assert (row["amount_internal_usd"], row["amount_paid_chf"], row["status"]) == (usd, chf, status)
    assert extra(con) == (max(usd, 0.0) if status == "succeeded" else 0.0)
    con.close()


@given(
    entries=st.lists(
        st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 40 * 10**9)), max_size=12
    )
)
def test_the_burn_down_is_the_sum_over_periods(entries: list[tuple[bool, int, int]]) -> None:
    from tests.modules.host import period

    con = sqlite3.connect(":memory:")
    ensure_ai_credit_schema(con)
    bought, used = 0, dict.fromkeys(range(7), 0)
    for is_purchase, number, nano in entries:
        if is_purchase:
            bought += nano
            ledger(con, nano / 10**9)
        else:
            used[number] += nano
            use(con, nano / 10**9, period(number))
    over = sum(max(0, spent - 20 * 10**9) for spent in used.values())
    assert extra(con) == max(0, bought - over) / 10**9
    con.close()


def test_only_what_succeeded_gives_credit_and_nothing_is_pending_by_default(
    con: sqlite3.Connection,
) -> None:
    from aza_ai_credit import insert_ledger_event

    insert_ledger_event(
        con,
        practice_id="prac_top",
        subscription_id="sub_top",
        customer_email=None,
        event_type="topup_purchase",
        amount_internal_usd=9.0,
    )
    ledger(con, 9.0, status="failed")
    ledger(con, 5.0)
    assert extra(con) == 5.0
    assert [row["status"] for row in rows(con)] == ["pending", "failed", "succeeded"]


def test_a_refund_takes_credit_and_then_makes_debt(con: sqlite3.Connection) -> None:
    ledger(con, 10.0)
    ledger(con, -4.0, event_type="refund", amount_paid_chf=-12.0)
    assert extra(con) == 6.0
    ledger(con, -10.0, event_type="refund")
    assert extra(con) == 0.0
    ledger(con, 5.0)
    assert extra(con) == 1.0
    assert [row["amount_internal_usd"] for row in rows(con)] == [10.0, -4.0, -10.0, 5.0]


def test_a_refund_of_a_known_payment_counts_against_it_once(con: sqlite3.Connection) -> None:
    from guthaben.domain.commands import NetPayment
    from guthaben.store.adopted import Adopted

    ledger(con, 10.0, amount_paid_chf=30.0, stripe_payment_intent_id="pi_r")
    ledger(con, -5.0, event_type="refund", amount_paid_chf=-15.0, stripe_payment_intent_id="pi_r")
    assert extra(con) == 5.0
    # Stripe's own word of the same refund: 15 of 30 CHF are left.
    outcome = Adopted(con).run(lambda space: space.apply("prac_top", NetPayment(1, 1500)))
    assert not outcome.applied
    assert extra(con) == 5.0
    # More than is left of it counts for itself, and nothing is ever given back for it.
    ledger(con, -9.0, event_type="refund", stripe_payment_intent_id="pi_r")
    Adopted(con).run(lambda space: space.apply("prac_top", NetPayment(1, 0)))
    debt = con.execute("SELECT debt_nano_usd FROM credit_practice").fetchone()
    assert (extra(con), debt) == (0.0, (9 * 10**9,))


def test_a_refund_written_by_hand_after_stripes_own_word_is_given_back_by_the_next_look(
    con: sqlite3.Connection,
) -> None:
    """Nobody can tell then whether it is the same refund or another: Stripe's sum decides."""
    from guthaben.domain.commands import NetPayment
    from guthaben.store.adopted import Adopted

    ledger(con, 10.0, amount_paid_chf=30.0, stripe_payment_intent_id="pi_r")
    look = lambda: Adopted(con).run(  # noqa: E731
        lambda space: space.apply("prac_top", NetPayment(1, 1500))
    )
    assert look().applied
    assert extra(con) == 5.0
    ledger(con, -5.0, event_type="refund", amount_paid_chf=-15.0, stripe_payment_intent_id="pi_r")
    assert extra(con) == 0.0  # taken a second time, until the payment is looked at again
    assert look().applied  # as any event about it, and the daily reconciliation, does
    assert extra(con) == 5.0
    assert not look().applied


@pytest.mark.parametrize("name", ["stripe_payment_intent_id", "stripe_checkout_session_id"])
def test_a_payment_is_credited_once_for_ever(con: sqlite3.Connection, name: str) -> None:
    ref = "pi_x" if "payment" in name else "cs_x"
    ledger(con, 10.0, **{name: ref})
    for practice_id in ("prac_top", "prac_other"):
        with pytest.raises(sqlite3.IntegrityError):
            ledger(con, 10.0, practice_id=practice_id, **{name: ref})
    assert extra(con) == 10.0
    assert len(rows(con)) == 1


def test_a_failed_entry_does_not_stand_in_the_way_of_success(con: sqlite3.Connection) -> None:
    ledger(con, 0.0, status="failed", stripe_checkout_session_id="cs_x")
    assert not ledger_exists_for_checkout(con, "cs_x")
    ledger(con, 10.0, stripe_checkout_session_id="cs_x")
    assert ledger_exists_for_checkout(con, "cs_x")
    assert not ledger_exists_for_payment_intent(con, "cs_x")


@pytest.mark.parametrize("ref", [None, "", MagicMock()])
def test_nothing_has_no_entry(con: sqlite3.Connection, ref: Any) -> None:
    ledger(con, 1.0)
    assert not ledger_exists_for_checkout(con, ref)
    assert not ledger_exists_for_payment_intent(con, ref)


def test_at_most_one_automatic_topup_is_pending(con: sqlite3.Connection) -> None:
    ledger(con, 10.0, event_type="auto_topup_purchase", status="pending")
    assert has_pending_auto_topup(con, "prac_top")
    assert not has_pending_auto_topup(con, "prac_other")
    with pytest.raises(sqlite3.IntegrityError):
        ledger(con, 10.0, event_type="auto_topup_purchase", status="pending")
    ledger(con, 10.0, event_type="auto_topup_purchase", status="succeeded")
    assert len(rows(con)) == 2


@pytest.mark.parametrize(
    "bad",
    [{"status": "paid"}, {"event_type": ""}, {"amount_internal_usd": float("nan")},
     {"amount_internal_usd": True}, {"amount_paid_chf": float("inf")},
     {"practice_id": None, "subscription_id": None}, {"practice_id": "x" * 201}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(con: sqlite3.Connection, bad: dict[str, Any]) -> None:
    amount = bad.pop("amount_internal_usd", 1.0)
    with pytest.raises(ValueError):
        ledger(con, amount, **bad)
    assert rows(con) == []


# ---------------------------------------------------------------- the views


def test_only_created_at_may_be_edited(con: sqlite3.Connection) -> None:
    ledger(con, 10.0, stripe_payment_intent_id="pi_a", event_type="auto_topup_purchase")
    before = sum_auto_topups_chf_this_month(con, "prac_top")
    con.execute(
        "UPDATE ai_credit_ledger SET created_at = ? WHERE stripe_payment_intent_id = 'pi_a'",
        (1_600_000_000,),
    )
    con.commit()
    assert rows(con)[0]["created_at"] == 1_600_000_000
    assert last_successful_auto_topup_ts(con, "prac_top") == 1_600_000_000
    # The month of the cap was fixed when it happened; an edit does not move it.
    assert sum_auto_topups_chf_this_month(con, "prac_top") == before
    for when in ("'yesterday'", "1.5", "NULL", "-1"):
        with pytest.raises(sqlite3.DatabaseError, match="created_at"):
            con.execute(f"UPDATE ai_credit_ledger SET created_at = {when}")
    con.rollback()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("INSERT INTO ai_credit_ledger (event_type) VALUES ('x')", "insert_ledger_event"),
        ("UPDATE ai_credit_ledger SET status = 'succeeded'", "insert_ledger_event"),
        ("UPDATE ai_credit_ledger SET amount_internal_usd = 99.0", "insert_ledger_event"),
        ("UPDATE ai_credit_ledger SET created_at = 5, practice_id = 'x'", "insert_ledger_event"),
        ("DELETE FROM ai_credit_ledger", "insert_ledger_event"),
        ("INSERT INTO ai_usage_events (model) VALUES ('x')", "insert_usage_event"),
        ("UPDATE ai_usage_events SET estimated_cost_usd = 0", "insert_usage_event"),
        ("DELETE FROM ai_usage_events", "adjust"),
    ],
)
def test_every_other_raw_write_is_refused_by_name(
    con: sqlite3.Connection, statement: str, named: str
) -> None:
    ledger(con, 10.0)
    use(con, 1.0)
    before = rows(con)
    with pytest.raises(sqlite3.DatabaseError, match=named):
        con.execute(statement)
    con.rollback()
    assert rows(con) == before


def test_the_old_columns_are_there(con: sqlite3.Connection) -> None:
    columns = {row[1] for row in con.execute("PRAGMA table_info(ai_credit_ledger)")}
    assert columns == {
        "id", "practice_id", "subscription_id", "customer_email", "event_type",
        "amount_internal_usd", "amount_paid_chf", "stripe_checkout_session_id",
        "stripe_payment_intent_id", "status", "meta_json", "created_at",
    }  # fmt: skip
    usage = {row[1] for row in con.execute("PRAGMA table_info(ai_usage_events)")}
    assert {"estimated_cost_usd", "subscription_id", "period_start", "status"} <= usage


# ---------------------------------------------------------------- secrets


def test_meta_keeps_what_is_harmless_and_nothing_secret(con: sqlite3.Connection) -> None:
    meta = {
        "note": "ok, ask anna@praxis.ch or pm_1abcDEF",
        "api_secret_key": "x",
        "default_payment_method_id": "pm_x",
        "customer_email": "a@b.ch",
        "apiKey": "x",
        "accessToken": "x",
        "card_last4": "4242",
        "total_tokens": 12,
        "paid_chf": "30",
        "nested": {"password": "x", "n": 1, "list": ["sk_live_abc", 2, {"key": "v", "k": None}]},
        "number": "4242 4242 4242 4242",
        "stripe": MagicMock(),
        "nan": float("nan"),
        "ratio": 0.5,
        3: "no name",
    }
    ledger(con, 1.0, meta=meta)
    kept = json.loads(rows(con)[0]["meta_json"])
    assert kept == {
        "note": "ok, ask [removed] or [removed]",
        "total_tokens": 12,
        "paid_chf": "30",
        "nested": {"n": 1, "list": [2, {"k": None}]},
        "ratio": 0.5,
    }


@pytest.mark.parametrize("meta", [None, {}, {"token": "x"}, MagicMock(), "text", ["list"]])
def test_meta_is_always_an_object(con: sqlite3.Connection, meta: Any) -> None:
    ledger(con, 1.0, meta=meta)
    assert json.loads(rows(con)[0]["meta_json"]) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_whatever_meta_is_what_is_kept_is_json(meta: dict[str, Any]) -> None:
    written = clean_meta(meta)
    assert written is None or isinstance(json.loads(written), dict)


def test_an_address_is_kept_apart_where_it_can_be_erased(con: sqlite3.Connection) -> None:
    ledger(con, 1.0, customer_email="anna@praxis.test")
    con.execute("UPDATE credit_note SET customer_email = NULL")
    assert rows(con)[0]["customer_email"] is None
    assert "anna@praxis.test" not in "\n".join(con.iterdump())


# ---------------------------------------------------------------- history


def test_history_is_the_practices_own_newest_first_and_masked(con: sqlite3.Connection) -> None:
    ledger(con, 6.6667, amount_paid_chf=20.0, stripe_payment_intent_id="pi_1234567890abcdef")
    ledger(con, 0.0, status="failed", amount_paid_chf=30.0)
    ledger(con, -2.0, event_type="refund", amount_paid_chf=-6.0)
    ledger(con, 3.0, practice_id="prac_other", stripe_payment_intent_id="pi_other_secret")
    items = list_user_credit_history(con, practice_id="prac_top")
    assert [item["amount_internal_usd"] for item in items] == [-2.0, 0.0, 6.6667]
    assert items[2]["stripe_payment_reference"] == mask_stripe_reference("pi_1234567890abcdef")
    assert items[1]["stripe_payment_reference"] is None
    assert "abcdef" not in json.dumps(items)
    assert "other" not in json.dumps(items)


def test_history_is_paged(con: sqlite3.Connection) -> None:
    for _ in range(7):
        ledger(con, 1.0)
        ledger(con, 1.0, practice_id="prac_other")
    first = list_user_credit_history(con, practice_id="prac_top", limit=4)
    rest = list_user_credit_history(con, practice_id="prac_top", before_id=first[-1]["id"])
    ids = [item["id"] for item in first + rest]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == len(set(ids)) == 7
    foreign = list_user_credit_history(con, practice_id="prac_top", before_id=2)
    assert len(foreign) == 7  # another practice's number is no place in this one's history


def test_the_administration_sees_more_and_still_masked(con: sqlite3.Connection) -> None:
    ledger(con, 1.0, stripe_checkout_session_id="cs_test_1234567890", meta={"note": "n"})
    (entry,) = list_ledger_for_practice(con, "prac_top")
    assert entry["checkout_session_masked"] == mask_stripe_reference("cs_test_1234567890")
    assert entry["subscription_id"] == "sub_top"
    assert "1234567890" not in json.dumps(entry)


def test_extra_credit_of_nobody_is_nothing(con: sqlite3.Connection) -> None:
    assert extra(con, "prac_nobody") == 0.0
    with pytest.raises(InvalidInput):
        compute_extra_credit_remaining(
            con, practice_id=None, subscription_id="", monthly_budget_usd=20.0
        )
