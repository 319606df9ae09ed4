"""Hosted pages: their order of checks, what is sent, and our own record where a store is set."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import stripe

from aza_ai_credit import (
    DEFAULT_SETUP_SUCCESS_URL,
    DEFAULT_TOPUP_SUCCESS_URL,
    create_setup_checkout_session,
    create_topup_checkout_session,
    process_topup_checkout_completed,
    process_topup_payment_intent_succeeded,
)
from tests.modules.host import alarms, checkout, extra, metadata, payment, rows, save


def buy(**more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "customer_email": "top@example.test",
        "paid_chf": 30.0,
        "internal_usd": 20.0,
        "success_url": DEFAULT_TOPUP_SUCCESS_URL,
        "cancel_url": "https://aza-medwork.ch",
    }
    return create_topup_checkout_session(**(fields | more))


def set_up() -> dict[str, Any]:
    return create_setup_checkout_session(
        practice_id="prac_top",
        customer_email="top@example.test",
        success_url=DEFAULT_SETUP_SUCCESS_URL,
        cancel_url="https://aza-medwork.ch",
    )


@pytest.fixture
def create(live: None) -> Iterator[MagicMock]:
    page = MagicMock(url="https://checkout.stripe.test/1", id="cs_1")
    with patch("stripe.checkout.Session.create", return_value=page) as create:
        yield create


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", f"sqlite:///{path}")


@pytest.mark.parametrize("make", [buy, set_up])
@pytest.mark.parametrize(
    ("dry_run", "allow_live", "key", "answer"),
    [
        ("1", "1", "sk_live_x", "dry"),
        ("1", "0", "", "dry"),
        ("", "1", "sk_live_x", "dry"),
        ("0", "0", "sk_live_x", "blocked"),
        ("0", "1", "", "blocked"),
        ("0", "1", "sk_live_x", "page"),
    ],
)
def test_a_dry_run_comes_first_and_then_the_switch(
    create: MagicMock,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    dry_run: str,
    allow_live: str,
    key: str,
    answer: str,
) -> None:
    monkeypatch.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "0")
    monkeypatch.setenv("AZA_AI_TOPUP_DRY_RUN", dry_run or "maybe")
    monkeypatch.setenv("AZA_AI_TOPUP_ALLOW_LIVE", allow_live)
    monkeypatch.setenv("STRIPE_SECRET_KEY", key)
    told = make()
    assert "checkout_url" in told
    assert create.called is (answer == "page")
    if answer == "blocked":
        assert (told["ok"], told["error_code"]) == (False, "LIVE_TOPUP_BLOCKED")
        assert told["checkout_url"] is None
    else:
        url = "https://checkout.stripe.test/1" if answer == "page" else None
        assert (told["ok"], told["dry_run"], told["checkout_url"]) == (True, answer == "dry", url)


def test_a_purchase_says_everything_in_its_metadata(create: MagicMock) -> None:
    assert buy(internal_usd=16.6667, paid_chf=50)["ok"]
    sent = create.call_args.kwargs
    assert sent["success_url"] == "https://aza-medwork.ch/succes2"
    assert sent["mode"] == "payment"
    assert sent["line_items"][0]["price_data"]["unit_amount"] == 5_000
    said = metadata(internal_credit_usd="16.6667", paid_chf="50.00")
    assert sent["metadata"] == sent["payment_intent_data"]["metadata"] == said
    assert "setup_future_usage" not in sent["payment_intent_data"]


def test_a_card_is_saved_only_when_asked(create: MagicMock) -> None:
    buy(save_payment_method=True)
    sent = create.call_args.kwargs
    assert sent["payment_intent_data"]["setup_future_usage"] == "off_session"
    assert sent["customer_creation"] == "always"


def test_a_set_up_makes_a_customer_of_its_own(create: MagicMock) -> None:
    assert set_up()["checkout_url"]
    sent = create.call_args.kwargs
    assert sent["success_url"] == "https://aza-medwork.ch/ki-topup-setup-success/"
    assert sent["customer_creation"] == "always"
    assert sent["mode"] == "setup"
    assert sent["metadata"] == {"aza_purpose": "ai_topup_setup", "practice_id": "prac_top"}
    assert "customer" not in sent


def test_the_limit_of_the_automatic_topup_plays_no_part(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    save(con, monthly_limit_chf=0.0)
    assert buy()["ok"]


@pytest.mark.parametrize("bad", [{"paid_chf": 0}, {"paid_chf": -1.0}, {"paid_chf": 0.001}])
def test_no_page_for_no_money(create: MagicMock, bad: dict[str, Any]) -> None:
    told = buy(**bad)
    assert (told["ok"], told["error_code"], told["checkout_url"]) == (False, "INVALID_AMOUNT", None)
    create.assert_not_called()


def test_stripes_trouble_is_an_answer_in_german(create: MagicMock) -> None:
    create.side_effect = stripe.APIConnectionError("sk_live_secret is down")
    told = buy()
    assert (told["ok"], told["error_code"]) == (False, "PAYMENT_OUTCOME_UNKNOWN")
    assert "später" in told["message_user"]
    assert "sk_live" not in str(told)


# ---------------------------------------------------------------- with a store


@pytest.mark.usefixtures("store")
def test_our_own_record_is_committed_before_the_page_is_made(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], create: MagicMock
) -> None:
    seen: list[Any] = []

    def watched(**request: Any) -> MagicMock:
        seen.append((rows(connect(check_same_thread=False)), request))
        return MagicMock(url="https://checkout.stripe.test/1", id="cs_1")

    create.side_effect = watched
    assert buy()["ok"]
    (((before,), request),) = seen
    assert (before["status"], before["amount_internal_usd"]) == ("pending", 20.0)
    assert before["stripe_checkout_session_id"] is None
    assert request["metadata"]["topup_id"].startswith("tu_")
    assert request["idempotency_key"]
    assert rows(con)[0]["stripe_checkout_session_id"] == "cs_1"
    assert extra(con) == 0.0


@pytest.mark.usefixtures("store")
def test_what_we_recorded_decides_and_not_what_an_event_claims(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    buy()
    sent = create.call_args.kwargs["metadata"]
    forged = {**sent, "internal_credit_usd": "2000"}
    told = process_topup_checkout_completed(
        con, session=checkout(metadata=forged, amount_total=3_000, payment_intent="pi_1")
    )
    assert told["credited"]
    assert extra(con) == 20.0
    (row,) = rows(con)
    assert (row["status"], row["stripe_payment_intent_id"]) == ("succeeded", "pi_1")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("changes", "claims", "why"),
    [
        ({"amount_received": 100}, {}, "amount_mismatch"),
        ({"currency": "eur", "amount_received": 3_000}, {}, "currency_mismatch"),
        ({"amount_received": 3_000}, {"practice_id": "prac_other"}, "practice_mismatch"),
    ],
)
def test_what_contradicts_our_record_is_held_back(
    con: sqlite3.Connection,
    create: MagicMock,
    changes: dict[str, Any],
    claims: dict[str, str],
    why: str,
) -> None:
    buy()
    sent = {**create.call_args.kwargs["metadata"], **claims}
    told = process_topup_payment_intent_succeeded(
        con, payment_intent=payment(metadata=sent, **changes)
    )
    assert (told["quarantined"], told["reason"]) == (True, why)
    assert extra(con) == extra(con, "prac_other") == 0.0
    assert [row["status"] for row in rows(con)] == ["quarantined"]
    assert alarms(con) == ["payment_quarantined"]


@pytest.mark.usefixtures("store")
def test_a_page_stripe_refused_is_no_longer_waited_for(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    create.side_effect = stripe.InvalidRequestError("no", "price")
    assert buy()["error_code"] == "PAYMENT_REJECTED"
    (row,) = rows(con)
    assert (row["status"], row["amount_internal_usd"]) == ("canceled", 0.0)


@pytest.mark.usefixtures("store")
def test_a_page_nobody_knows_of_stays_pending(con: sqlite3.Connection, create: MagicMock) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    assert not buy()["ok"]
    assert [row["status"] for row in rows(con)] == ["pending"]


@pytest.mark.usefixtures("create")
def test_a_store_that_is_not_there_makes_no_page(
    monkeypatch: pytest.MonkeyPatch, create: MagicMock, tmp_path: Path
) -> None:
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", f"sqlite:///{tmp_path}/no/such/folder.db")
    assert buy()["error_code"] == "STORE_UNAVAILABLE"
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", "mysql://x")
    assert buy()["error_code"] == "CONFIG_ERROR"
    create.assert_not_called()
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", "sqlite://")
    assert buy()["ok"]


@pytest.mark.parametrize("make", [buy, set_up])
def test_a_named_installation_marks_what_it_sells(
    create: MagicMock, monkeypatch: pytest.MonkeyPatch, make: Callable[[], dict[str, Any]]
) -> None:
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    assert make()["checkout_url"]
    assert create.call_args.kwargs["metadata"]["installation"] == "zurich"


def test_a_payment_of_another_installation_is_credited_there_only(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    theirs, ours = ({**metadata(), "installation": name} for name in ("bern", "zurich"))
    told = process_topup_payment_intent_succeeded(con, payment_intent=payment(metadata=theirs))
    assert (told["handled"], told["credited"], rows(con)) == (False, False, [])
    told = process_topup_payment_intent_succeeded(con, payment_intent=payment(metadata=ours))
    assert told["credited"]
