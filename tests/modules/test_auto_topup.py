"""The automatic top-up: order of its checks, the charge, and what becomes of a lost answer."""

from __future__ import annotations

import itertools
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import stripe

from aza_ai_credit import (
    get_topup_settings,
    has_pending_auto_topup,
    last_successful_auto_topup_ts,
    maybe_run_auto_topup_for_practice,
    process_auto_topup_payment_intent_succeeded,
    sum_auto_topups_chf_this_month,
)
from guthaben.errors import PaymentUnavailable
from guthaben.payments.facts import PaymentFacts, payment_facts
from guthaben.payments.ids import mask_stripe_reference
from tests.modules.host import extra, ledger, metadata, payment, rows, save


def run(con: sqlite3.Connection, percent: float = 0, **more: Any) -> dict[str, Any]:
    return maybe_run_auto_topup_for_practice(
        con, practice_id="prac_top", available_percent=percent, **more
    )


def intent(status: str = "succeeded", payment_id: str = "pi_ok") -> MagicMock:
    answer = MagicMock()
    answer.id, answer.status = payment_id, status
    return answer


@pytest.fixture
def create(live: None) -> Iterator[MagicMock]:
    with patch("stripe.PaymentIntent.create", return_value=intent()) as create:
        yield create


# ---------------------------------------------------------------- the order of the checks


def test_nothing_happens_while_it_is_off_or_credit_is_not_low(con: sqlite3.Connection) -> None:
    assert run(con)["reason"] == "disabled"
    save(con, trigger_below_percent=10)
    assert run(con, 10)["reason"] == "above_trigger"
    assert run(con, 9.99)["reason"] == "dry_run"
    save(con, trigger_below_percent=0)
    assert run(con, 0)["reason"] == "dry_run"
    assert run(con, 0.01)["reason"] == "above_trigger"


def _no_card(con: sqlite3.Connection) -> None:
    save(con, default_payment_method_id=None)


def _limit(con: sqlite3.Connection) -> None:
    save(con, monthly_limit_chf=59.99)
    _cooldown(con)


def _pending(con: sqlite3.Connection) -> None:
    ledger(con, 10.0, event_type="auto_topup_purchase", status="pending")


def _cooldown(con: sqlite3.Connection) -> None:
    ledger(con, 10.0, event_type="auto_topup_purchase", amount_paid_chf=30.0)


@pytest.mark.parametrize(
    ("prepare", "reason", "code"),
    [
        (_no_card, "no_payment_method", "AUTO_TOPUP_NO_PAYMENT_METHOD"),
        (_limit, "auto_topup_monthly_limit_reached", "AUTO_TOPUP_MONTHLY_LIMIT_REACHED"),
        (_pending, "pending_auto_topup", "AUTO_TOPUP_PENDING"),
        (_cooldown, "cooldown_24h", None),
    ],
)
@pytest.mark.parametrize("switches", list(itertools.product("01", "01", "01", ["", "sk_live_x"])))
@pytest.mark.parametrize("dry_run", [None, True, False])
def test_stored_checks_come_before_every_switch(
    con: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[sqlite3.Connection], None],
    reason: str,
    code: str | None,
    switches: tuple[str, str, str, str],
    dry_run: bool | None,
) -> None:
    names = ("AZA_AI_AUTO_TOPUP_ENABLED", "AZA_AI_TOPUP_ALLOW_LIVE", "AZA_AI_TOPUP_DRY_RUN")
    for name, value in zip((*names, "STRIPE_SECRET_KEY"), switches, strict=True):
        monkeypatch.setenv(name, value)
    save(con)
    prepare(con)
    with patch("stripe.PaymentIntent.create") as create:
        told = run(con, dry_run=dry_run)
    create.assert_not_called()
    assert (told["reason"], told["error_code"], told["charged"]) == (reason, code, False)


@pytest.mark.parametrize(
    ("switches", "dry_run", "reason"),
    [
        ("111", None, "dry_run"),  # enabled, live, but a dry run
        ("010", False, "dry_run"),  # not enabled: simulated, whatever the argument says
        ("110", True, "dry_run"),
        ("000", False, "dry_run"),
        ("100", False, "live_topup_blocked"),
    ],
)
def test_the_switches_in_their_order(
    con: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    switches: str,
    dry_run: bool | None,
    reason: str,
) -> None:
    names = ("AZA_AI_AUTO_TOPUP_ENABLED", "AZA_AI_TOPUP_ALLOW_LIVE", "AZA_AI_TOPUP_DRY_RUN")
    for name, value in zip(names, switches, strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_x")
    save(con)
    with patch("stripe.PaymentIntent.create") as create:
        told = run(con, dry_run=dry_run)
    create.assert_not_called()
    assert told["reason"] == reason
    assert told["dry_run"] is (reason == "dry_run")
    assert told["error_code"] == ("LIVE_TOPUP_BLOCKED" if reason == "live_topup_blocked" else None)
    assert rows(con) == []


@pytest.mark.usefixtures("create")
def test_without_a_key_nothing_is_charged(
    con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(con)
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    assert run(con)["reason"] == "live_topup_blocked"


# ---------------------------------------------------------------- the charge


def test_the_attempt_is_committed_before_stripe_hears_of_it(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], create: MagicMock
) -> None:
    seen: list[tuple[Any, ...]] = []

    def watched(**request: Any) -> MagicMock:
        other = connect(check_same_thread=False)
        row = other.execute("SELECT status, idempotency_key, params FROM credit_event").fetchone()
        seen.append((*row, request, con.in_transaction))
        return intent()

    create.side_effect = watched
    save(con)
    told = run(con, dry_run=False, subscription_id="sub_top")
    assert told["charged"]
    ((status, key, params, request, open_transaction),) = seen
    assert status == "pending"
    assert not open_transaction
    assert request["idempotency_key"] == key != ""
    assert (request["amount"], request["currency"]) == (3_000, "chf")
    assert (request["customer"], request["payment_method"]) == ("cus_top", "pm_top")
    assert request["off_session"] is request["confirm"] is True
    assert '"amount_rappen":3000' in params
    said = request["metadata"]
    assert {name: said[name] for name in metadata()} == {
        "aza_purpose": "ai_auto_topup",
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "internal_credit_usd": "10.00",
        "paid_chf": "30.00",
    }


def test_a_charge_credits_what_the_settings_say_and_its_webhook_nothing_more(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    save(con, internal_credit_usd=20.0)
    assert run(con)["charged"]
    (row,) = rows(con)
    assert (row["status"], row["amount_internal_usd"], row["amount_paid_chf"]) == (
        "succeeded",
        20.0,
        30.0,
    )
    assert row["stripe_payment_intent_id"] == "pi_ok"
    sent = create.call_args.kwargs["metadata"]
    webhook = payment("ai_auto_topup", id="pi_ok", metadata=sent, amount_received=3_000)
    told = process_auto_topup_payment_intent_succeeded(con, payment_intent=webhook)
    assert told["duplicate"]
    assert extra(con) == 20.0
    assert sum_auto_topups_chf_this_month(con, "prac_top") == 30.0
    assert last_successful_auto_topup_ts(con, "prac_top") is not None
    assert run(con)["reason"] == "cooldown_24h"
    assert create.call_count == 1


@pytest.mark.parametrize("status", ["requires_action", "requires_payment_method", "canceled"])
def test_a_charge_that_fails_pauses_and_may_still_succeed_later(
    con: sqlite3.Connection, create: MagicMock, status: str
) -> None:
    create.return_value = intent(status, "pi_fail")
    save(con)
    told = run(con)
    assert (told["charged"], told["paused"], told["ok"]) == (False, True, False)
    settings = get_topup_settings(con, "prac_top")
    assert not settings.auto_topup_enabled
    assert settings.default_payment_method_id == "pm_top"
    (row,) = rows(con)
    assert (row["event_type"], row["status"], row["amount_internal_usd"]) == (
        "failed_auto_topup",
        "failed",
        0.0,
    )
    assert not has_pending_auto_topup(con, "prac_top")
    assert run(con)["reason"] == "disabled"
    sent = create.call_args.kwargs["metadata"]
    webhook = payment("ai_auto_topup", id="pi_fail", metadata=sent, amount_received=3_000)
    assert process_auto_topup_payment_intent_succeeded(con, payment_intent=webhook)["credited"]
    (row,) = rows(con)
    assert (row["event_type"], row["status"], row["amount_internal_usd"]) == (
        "auto_topup_purchase",
        "succeeded",
        10.0,
    )


def test_a_declined_card_pauses(con: sqlite3.Connection, create: MagicMock) -> None:
    create.side_effect = stripe.CardError("declined", "card", "card_declined")
    save(con)
    assert run(con)["paused"]
    assert [row["event_type"] for row in rows(con)] == ["failed_auto_topup"]


def test_a_charge_in_process_stays_pending(con: sqlite3.Connection, create: MagicMock) -> None:
    create.return_value = intent("processing", "pi_slow")
    save(con)
    told = run(con)
    assert (told["reason"], told["charged"], told["paused"]) == (
        "pending_auto_topup",
        False,
        False,
    )
    assert rows(con)[0]["status"] == "pending"
    assert run(con)["reason"] == "pending_auto_topup"
    assert create.call_count == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    told = run(con)
    assert (told["reason"], told["charged"]) == ("pending_auto_topup", False)
    assert rows(con)[0]["status"] == "unknown"
    assert has_pending_auto_topup(con, "prac_top")
    first = create.call_args.kwargs
    # Changed settings change nothing: the very same request is repeated.
    save(con, topup_amount_chf=99.0)
    create.side_effect = None
    assert run(con)["charged"]
    again = create.call_args.kwargs
    assert again == first
    assert len(rows(con)) == 1
    assert extra(con) == 10.0


@pytest.mark.parametrize(
    "refused",
    [stripe.AuthenticationError("no"), stripe.InvalidRequestError("no", "amount"),
     stripe.RateLimitError("slow down")],
)  # fmt: skip
def test_a_refused_repetition_says_nothing_about_the_first_try(
    con: sqlite3.Connection, create: MagicMock, refused: Exception
) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    run(con)
    create.side_effect = refused
    told = run(con)
    assert create.call_count == 2, "it was asked again"
    assert (told["reason"], told["paused"]) == ("pending_auto_topup", False)
    assert [row["status"] for row in rows(con)] == ["unknown"]
    assert get_topup_settings(con, "prac_top").auto_topup_enabled


def test_an_old_lost_answer_is_not_repeated(con: sqlite3.Connection, create: MagicMock) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    run(con)
    con.execute("UPDATE credit_event SET recorded_at_s = recorded_at_s - 50000")
    con.commit()
    assert run(con)["reason"] == "pending_auto_topup"
    assert create.call_count == 1


def test_a_lost_answer_is_not_repeated_in_a_dry_run_or_an_open_transaction(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    run(con)
    assert run(con, dry_run=True)["reason"] == "pending_auto_topup"
    con.execute("BEGIN")
    assert run(con)["reason"] == "caller_transaction_open"
    con.rollback()
    assert create.call_count == 1


LOWERED = "UPDATE credit_consent SET amount_minor = 2999"
REVOKED = "UPDATE credit_consent SET revoked_at_s = 1"


@pytest.mark.parametrize("change", [LOWERED, REVOKED])
@pytest.mark.parametrize("arrived", [False, True])
def test_what_is_not_wanted_any_more_is_looked_up_and_never_sent_again(
    con: sqlite3.Connection, create: MagicMock, change: str, arrived: bool
) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    run(con)
    con.execute(change)
    con.execute("UPDATE credit_event SET sent_at_s = sent_at_s - 1000")  # it is not on its way
    con.commit()
    (event_id,) = con.execute("SELECT topup_id FROM credit_event").fetchone()
    found = _facts(event_id) if arrived else None
    looked = "guthaben.payments.stripe_gateway.StripeGateway.find_payment"
    with patch(looked, return_value=found) as find:
        told = run(con)
    assert find.call_count == 1
    assert create.call_count == 1
    assert (told["charged"], told["reason"]) == (
        (True, "charged") if arrived else (False, "no_consent")
    )
    assert rows(con)[0]["status"] == ("succeeded" if arrived else "canceled")
    assert extra(con) == (10.0 if arrived else 0.0)


def test_a_look_up_without_an_answer_leaves_it_open(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    create.side_effect = stripe.APIConnectionError("gone")
    save(con)
    run(con)
    con.execute(LOWERED)
    con.commit()
    looked = "guthaben.payments.stripe_gateway.StripeGateway.find_payment"
    with patch(looked, side_effect=PaymentUnavailable("not now")):
        assert run(con)["reason"] == "pending_auto_topup"
    assert rows(con)[0]["status"] == "unknown"
    assert create.call_count == 1


def _facts(topup_id: str) -> PaymentFacts:
    return payment_facts(
        payment(
            "ai_auto_topup", id="pi_ok", status="succeeded", amount=3000, amount_received=3000,
            currency="chf", metadata=metadata("ai_auto_topup", topup_id=topup_id),
        )
    )  # fmt: skip


def test_inside_an_open_transaction_nothing_is_charged(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    save(con)
    con.execute("UPDATE licenses SET updated_at = 1")
    assert con.in_transaction
    told = run(con)
    assert (told["reason"], told["charged"]) == ("caller_transaction_open", False)
    assert con.in_transaction
    create.assert_not_called()
    con.rollback()
    assert rows(con) == []
    assert run(con)["charged"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit came with Python 3.12")
def test_a_connection_that_is_always_in_a_transaction_charges_nothing(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], create: MagicMock
) -> None:
    save(con)
    always = connect(autocommit=False)
    told = run(always)
    assert (told["reason"], told["charged"]) == ("caller_transaction_open", False)
    create.assert_not_called()
    always.rollback()
    assert run(connect(autocommit=True))["charged"]


def test_the_cap_counts_what_is_pending_and_never_what_was_bought_by_hand(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    save(con, monthly_limit_chf=60.0)
    ledger(con, 66.6667, amount_paid_chf=200.0)
    assert sum_auto_topups_chf_this_month(con, "prac_top") == 0.0
    create.return_value = intent("processing", "pi_slow")
    run(con)
    ledger(con, 10.0, event_type="auto_topup_purchase", amount_paid_chf=30.0)
    assert sum_auto_topups_chf_this_month(con, "prac_top") == 30.0
    assert run(con)["reason"] == "auto_topup_monthly_limit_reached"


def test_threads_that_all_see_low_credit_charge_once(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], create: MagicMock
) -> None:
    save(con)
    told: list[dict[str, Any]] = []
    start = threading.Barrier(4)

    def one() -> None:
        own = connect(check_same_thread=False, timeout=20)
        start.wait()
        told.append(run(own))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer["charged"] for answer in told) == create.call_count == 1
    assert extra(con) == 10.0


def test_a_practice_is_topped_up_with_its_own_card_only(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    save(con, practice_id="prac_other", stripe_customer_id="cus_other")
    assert run(con)["reason"] == "disabled"
    create.assert_not_called()


def test_no_id_is_told(con: sqlite3.Connection, create: MagicMock) -> None:
    save(con)
    told = str(run(con))
    assert "pm_" not in told
    assert "cus_" not in told
    assert mask_stripe_reference("pi_ok") is not None


# ---------------------------------------------------------------- through the gate


def test_the_gate_charges_and_lets_the_call_pass(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    from tests.modules.host import use
    from tests.modules.test_budget import gate

    save(con)
    use(con, 20.0)
    assert gate(con) is None
    create.assert_called_once()


def test_the_gate_inside_a_transaction_refuses_and_keeps_it_open(
    con: sqlite3.Connection, create: MagicMock
) -> None:
    from tests.modules.host import use
    from tests.modules.test_budget import gate

    save(con)
    use(con, 20.0)
    con.execute("BEGIN")
    blocked = gate(con)
    assert blocked is not None
    assert blocked["reason"] == "caller_transaction_open"
    assert con.in_transaction
    con.rollback()
    create.assert_not_called()
