"""Stripe's events: one payment, however often and under whichever name it is told, credits once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
import stripe

from aza_ai_credit import (
    ledger_exists_for_checkout,
    ledger_exists_for_payment_intent,
    process_auto_topup_payment_intent_succeeded,
    process_topup_checkout_completed,
    process_topup_payment_intent_succeeded,
)
from guthaben.errors import ConfigError
from tests.modules.host import alarms, checkout, extra, ledger, metadata, payment, rows


def paid(con: sqlite3.Connection, **changes: Any) -> dict[str, Any]:
    return process_topup_checkout_completed(con, session=checkout(**changes))


def succeeded(con: sqlite3.Connection, **changes: Any) -> dict[str, Any]:
    return process_topup_payment_intent_succeeded(con, payment_intent=payment(**changes))


def automatic(con: sqlite3.Connection, **changes: Any) -> dict[str, Any]:
    return process_auto_topup_payment_intent_succeeded(
        con, payment_intent=payment("ai_auto_topup", **changes)
    )


def test_a_paid_checkout_is_credited_once_with_what_its_metadata_says(
    con: sqlite3.Connection,
) -> None:
    first, second = paid(con), paid(con)
    assert (first["handled"], first["credited"], first["duplicate"]) == (True, True, False)
    assert (second["credited"], second["duplicate"]) == (False, True)
    (row,) = rows(con)
    assert first["ledger_id"] == row["id"]
    assert (row["status"], row["amount_internal_usd"], row["amount_paid_chf"]) == (
        "succeeded",
        20.0,
        30.0,
    )
    assert extra(con) == 20.0


def test_one_purchase_with_two_events_is_credited_once(con: sqlite3.Connection) -> None:
    assert paid(con, payment_intent="pi_1")["credited"]
    assert succeeded(con)["duplicate"]
    (row,) = rows(con)
    assert row["stripe_checkout_session_id"] == "cs_1"
    assert row["stripe_payment_intent_id"] == "pi_1"


def test_and_in_the_other_order_too(con: sqlite3.Connection) -> None:
    assert succeeded(con)["credited"]
    assert paid(con, payment_intent="pi_1")["duplicate"]
    (row,) = rows(con)
    assert (row["stripe_checkout_session_id"], row["stripe_payment_intent_id"]) == ("cs_1", "pi_1")
    assert ledger_exists_for_checkout(con, "cs_1")
    assert ledger_exists_for_payment_intent(con, "pi_1")
    assert extra(con) == 20.0


def test_both_names_are_known_afterwards(con: sqlite3.Connection) -> None:
    paid(con, payment_intent={"id": "pi_1"})
    assert ledger_exists_for_payment_intent(con, "pi_1")
    with pytest.raises(sqlite3.IntegrityError):
        ledger(con, 20.0, stripe_payment_intent_id="pi_1")


def test_an_unpaid_checkout_leaves_one_failed_entry_and_may_be_paid_later(
    con: sqlite3.Connection,
) -> None:
    for _ in range(3):
        told = paid(con, payment_status="unpaid")
        assert (told["handled"], told["credited"]) == (True, False)
    (row,) = rows(con)
    assert (row["status"], row["amount_internal_usd"]) == ("failed", 0.0)
    assert type(row["amount_internal_usd"]) is float
    assert paid(con)["credited"]
    assert extra(con) == 20.0
    assert paid(con, payment_status="unpaid")["credited"] is False
    assert [row["status"] for row in rows(con)].count("succeeded") == 1
    assert len(rows(con)) <= 2


def test_a_failed_automatic_topup_that_succeeds_after_all_is_credited(
    con: sqlite3.Connection,
) -> None:
    ledger(
        con, 10.0, event_type="failed_auto_topup", status="failed", stripe_payment_intent_id="pi_1"
    )
    assert automatic(con, metadata=metadata("ai_auto_topup", internal_credit_usd="10"))["credited"]
    assert extra(con) == 10.0
    kinds = {(row["event_type"], row["status"]) for row in rows(con)}
    assert ("auto_topup_purchase", "succeeded") in kinds


def test_an_automatic_payment_is_credited_once(con: sqlite3.Connection) -> None:
    assert automatic(con)["credited"]
    assert automatic(con)["duplicate"]
    assert [row["event_type"] for row in rows(con)] == ["auto_topup_purchase"]


@pytest.mark.parametrize("credit", ["16.6667", "16.666666666666666", " 20 ", "2e1"])
def test_credit_is_frozen_as_the_metadata_says(con: sqlite3.Connection, credit: str) -> None:
    assert paid(con, metadata=metadata(internal_credit_usd=credit))["credited"]
    assert extra(con) == round(float(credit), 9)


@pytest.mark.parametrize(
    "changes",
    [{"metadata": metadata("something_else")}, {"metadata": metadata(practice_id="")},
     {"metadata": None}, {"metadata": {}}, {"id": None}, {"id": "xx_1"}],
)  # fmt: skip
def test_what_is_not_ours_is_left_alone(con: sqlite3.Connection, changes: dict[str, Any]) -> None:
    assert paid(con, **changes)["handled"] is False
    assert succeeded(con, **changes)["handled"] is False
    assert rows(con) == []


def test_a_purpose_is_not_taken_for_another(con: sqlite3.Connection) -> None:
    assert automatic(con, metadata=metadata("ai_topup"))["handled"] is False
    assert succeeded(con, metadata=metadata("ai_auto_topup"))["handled"] is False


@pytest.mark.parametrize("status", ["processing", "requires_action", "canceled"])
def test_a_payment_that_has_not_succeeded_is_not_credited(
    con: sqlite3.Connection, status: str
) -> None:
    told = succeeded(con, status=status)
    assert (told["handled"], told["credited"], told["reason"]) == (True, False, f"payment_{status}")
    assert rows(con) == []
    assert succeeded(con, status="succeeded")["credited"]


# ---------------------------------------------------------------- quarantine


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"amount_total": 2_999}, "amount_mismatch"), ({"amount_total": 3_001}, "amount_mismatch"),
     ({"currency": "eur"}, "currency_mismatch"),
     ({"metadata": metadata(internal_credit_usd="")}, "credit_not_stated"),
     ({"metadata": metadata(internal_credit_usd="-5")}, "credit_not_stated"),
     ({"metadata": metadata(internal_credit_usd="NaN")}, "credit_not_stated"),
     ({"metadata": metadata(internal_credit_usd="9" * 30)}, "credit_not_stated")],
)  # fmt: skip
def test_what_contradicts_is_held_back_once_and_alarms(
    con: sqlite3.Connection, changes: dict[str, Any], why: str
) -> None:
    for _ in range(2):
        told = paid(con, payment_intent="pi_1", **changes)
        assert (told["handled"], told["credited"], told["quarantined"]) == (True, False, True)
        assert told["reason"] == why
    # The sibling event of the same payment does not let it out.
    sibling = {name: value for name, value in changes.items() if name != "amount_total"}
    assert succeeded(con, **sibling)["credited"] is False
    (row,) = rows(con)
    assert (row["status"], row["amount_internal_usd"]) == ("quarantined", 0.0)
    assert extra(con) == 0.0
    assert alarms(con) == ["payment_quarantined"]


@pytest.mark.usefixtures("live")
def test_a_test_payment_does_not_credit_a_live_practice(con: sqlite3.Connection) -> None:
    told = paid(con, livemode=False)
    assert (told["quarantined"], told["reason"]) == (True, "livemode_mismatch")
    assert paid(con, id="cs_2", livemode=True)["credited"]


def test_a_key_of_unknown_kind_matters_only_where_a_mode_is_told(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "dummy")
    assert paid(con)["credited"]
    with pytest.raises(ConfigError):
        paid(con, id="cs_2", livemode=True)
    assert len(rows(con)) == 1


def test_what_agrees_is_credited(con: sqlite3.Connection) -> None:
    assert paid(con, amount_total=3_000, currency="CHF")["credited"]
    assert succeeded(con, id="pi_2", amount=3_000, amount_received=3_000, currency="chf")[
        "credited"
    ]
    told = succeeded(con, id="pi_3", amount=3_000, amount_received=1_000, currency="chf")
    assert told["quarantined"]


def test_a_hosts_own_pending_row_is_fulfilled_by_its_payment(con: sqlite3.Connection) -> None:
    for number, price in enumerate([30.0, None]):
        ref = f"pi_{number}"
        ledger(con, 10.0, status="pending", amount_paid_chf=price, stripe_payment_intent_id=ref)
        told = succeeded(con, id=ref, amount_received=3_000, currency="chf")
        assert told["credited"], told
    assert [row["amount_internal_usd"] for row in rows(con)] == [10.0, 10.0]
    assert extra(con) == 20.0


def test_an_old_rate_is_no_contradiction(con: sqlite3.Connection) -> None:
    assert paid(con, metadata=metadata(internal_credit_usd="20", paid_chf="30"))["credited"]
    assert extra(con) == 20.0


def test_without_a_stated_price_the_payments_own_counts(con: sqlite3.Connection) -> None:
    stated = metadata()
    del stated["paid_chf"]
    assert paid(con, metadata=stated, amount_total=4_500)["credited"]
    assert rows(con)[0]["amount_paid_chf"] == 45.0


# ---------------------------------------------------------------- shapes


def test_stripes_own_objects_are_read(con: sqlite3.Connection) -> None:
    session = stripe.checkout.Session.construct_from(checkout(payment_intent="pi_1"), "sk_test_x")
    assert process_topup_checkout_completed(con, session=session)["credited"]
    intent = stripe.PaymentIntent.construct_from(payment(), "sk_test_x")
    assert process_topup_payment_intent_succeeded(con, payment_intent=intent)["duplicate"]


def test_a_mock_is_read_by_attribute_and_never_stored(con: sqlite3.Connection) -> None:
    intent = MagicMock()
    intent.id, intent.status, intent.metadata = "pi_mock", "succeeded", metadata()
    assert process_topup_payment_intent_succeeded(con, payment_intent=intent)["credited"]
    session = MagicMock()
    session.id, session.payment_status, session.metadata = "cs_mock", "paid", metadata()
    assert process_topup_checkout_completed(con, session=session)["credited"]
    assert extra(con) == 40.0


@pytest.mark.parametrize("source", [None, {}, [], "cs_1", MagicMock(), 7])
def test_anything_else_is_not_ours(con: sqlite3.Connection, source: Any) -> None:
    assert process_topup_checkout_completed(con, session=source)["handled"] is False
    told = process_auto_topup_payment_intent_succeeded(con, payment_intent=source)
    assert told["handled"] is False


def test_metadata_leaves_no_address_in_meta(con: sqlite3.Connection) -> None:
    paid(con, metadata=metadata(contact="anna@praxis.ch", api_key="sk_live_x"))
    assert "anna" not in rows(con)[0]["meta_json"]
    assert "sk_live" not in rows(con)[0]["meta_json"]


# ---------------------------------------------------------------- races


def test_two_threads_with_the_same_event_credit_once(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection]
) -> None:
    told: list[dict[str, Any]] = []
    start = threading.Barrier(4)

    def deliver(process: Callable[[sqlite3.Connection], dict[str, Any]]) -> None:
        own = connect(check_same_thread=False, timeout=20)
        start.wait()
        told.append(process(own))

    def by_session(own: sqlite3.Connection) -> dict[str, Any]:
        return paid(own, payment_intent="pi_1")

    threads = [
        threading.Thread(target=deliver, args=(process,))
        for process in (by_session, succeeded, by_session, succeeded)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["credited"] for answer in told) == [False, False, False, True]
    assert sum(answer["duplicate"] for answer in told) == 3
    assert extra(con) == 20.0
    assert len(rows(con)) == 1
