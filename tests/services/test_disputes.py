"""Disputes: opened they withhold the money, lost they keep it, won they give it back.

What the provider says of the dispute now decides, not what an event says, nor their order.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.services.house import CHF_30, PRACTICE, TEN_USD, USD, House, metadata_of, page_of
from tests.services.test_refunds import history, left, refund

KINDS = ["created", "updated", "funds_withdrawn", "funds_reinstated", "closed"]


@pytest.fixture
def bought(house: House) -> House:
    """30 CHF were paid for 10 USD."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    return house


def told(house: House, kind: str, status: str, dispute_id: str = "dp_1", **fields: Any) -> str:
    """Tell of a dispute with the status an event shows; what it really is stays as it was put."""
    about = {
        "id": dispute_id, "object": "dispute", "payment_intent": "pi_1", "charge": "ch_1",
        "amount": CHF_30, "currency": "chf", "status": status, "livemode": True, **fields,
    }  # fmt: skip
    return house.tell(f"charge.dispute.{kind}", about)


def dispute(house: House, kind: str, status: str) -> str:
    """Let a dispute about all the money be in a status, and tell of it."""
    house.gateway.dispute("pi_1", status)
    return told(house, kind, status)


def test_a_dispute_withholds_its_credit_until_it_is_won(bought: House) -> None:
    assert dispute(bought, "created", "needs_response") == "done:netted"
    assert (bought.credit(), bought.alarms()) == (0, ["payment_disputed"])
    assert dispute(bought, "funds_withdrawn", "needs_response") == "done:dispute_known"
    dispute(bought, "updated", "under_review")
    assert bought.credit() == 0
    assert dispute(bought, "closed", "won") == "done:netted"
    dispute(bought, "funds_reinstated", "won")
    assert (bought.credit(), history(bought)) == (TEN_USD, (TEN_USD, CHF_30))
    assert [row["event_type"] for row in bought.events()] == ["topup_purchase"] + ["dispute"] * 2


def test_a_dispute_that_is_lost_keeps_the_credit(bought: House) -> None:
    dispute(bought, "created", "needs_response")
    dispute(bought, "closed", "lost")
    assert (bought.credit(), history(bought)) == (0, (0, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("real", "credit"), [
    ("needs_response", 0), ("under_review", 0), ("lost", 0), ("a_word_of_tomorrow", 0),
    ("won", TEN_USD), ("prevented", TEN_USD), ("warning_needs_response", TEN_USD),
    ("warning_under_review", TEN_USD), ("warning_closed", TEN_USD),
])  # fmt: skip
def test_whatever_an_event_says_the_dispute_itself_decides(
    bought: House, kind: str, real: str, credit: int
) -> None:
    bought.gateway.dispute("pi_1", real)
    for lie in ("won", "lost", "needs_response"):
        told(bought, kind, lie)
        assert bought.credit() == credit


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS[::2])))
@pytest.mark.parametrize("end", ["won", "lost"])
def test_events_in_any_order_come_to_how_it_ended(
    bought: House, order: tuple[str, ...], end: str
) -> None:
    bought.gateway.dispute("pi_1", end)
    for kind in (*order, order[0]):
        told(bought, kind, "needs_response")
    assert bought.credit() == (TEN_USD if end == "won" else 0)


def test_a_dispute_that_is_opened_again_withholds_again(bought: House) -> None:
    for status, credit in [("won", TEN_USD), ("needs_response", 0), ("lost", 0), ("won", TEN_USD)]:
        dispute(bought, "updated", status)
        assert bought.credit() == credit
    assert history(bought) == (TEN_USD, CHF_30)


@pytest.mark.parametrize("kind", ["created", "funds_withdrawn", "closed"])
def test_a_dispute_stops_the_automatic_top_up_until_the_customer_acts(
    bought: House, kind: str
) -> None:
    bought.arm()
    dispute(bought, kind, "lost" if kind == "closed" else "needs_response")
    view = bought.topups.settings(PRACTICE)
    assert (view.enabled, view.paused_reason) == (False, "payment_disputed")
    assert bought.why_not() == "disabled"


def test_an_inquiry_takes_nothing_and_is_heard_of(bought: House) -> None:
    bought.arm()
    dispute(bought, "created", "warning_needs_response")
    assert (bought.credit(), bought.alarms()) == (TEN_USD, ["payment_disputed"])
    assert bought.topups.settings(PRACTICE).enabled is False
    dispute(bought, "closed", "warning_closed")
    assert bought.credit() == TEN_USD


def test_a_dispute_and_a_refund_are_netted_together(bought: House) -> None:
    refund(bought, 1_000)
    dispute(bought, "funds_withdrawn", "needs_response")
    assert bought.credit() == 0
    refund(bought, 2_000)
    assert bought.credit() == 0
    dispute(bought, "funds_reinstated", "won")
    assert bought.credit() == left(2_000)


def test_two_disputes_of_one_payment_add_up(bought: House) -> None:
    for number, amount in [(1, 1_000), (2, 500)]:
        bought.gateway.dispute(
            "pi_1", "needs_response", dispute_id=f"dp_{number}", amount_rappen=amount
        )
        told(bought, "funds_withdrawn", "needs_response", f"dp_{number}")
    assert bought.credit() == left(1_500)


@pytest.mark.parametrize(("amount", "currency"), [(999_999, "chf"), (10, "usd"), (1, None)])
def test_a_dispute_never_takes_more_than_was_paid(
    bought: House, amount: int, currency: str | None
) -> None:
    bought.gateway.dispute("pi_1", "lost", amount_rappen=amount, currency=currency)
    told(bought, "closed", "lost")
    assert bought.figures() == (0, 0, 0)


def test_a_dispute_of_a_payment_that_does_not_tell_its_refunds_is_asked_again(
    bought: House,
) -> None:
    refund(bought, 1_000)
    bought.gateway.put("pi_1", refunded_rappen=None)
    assert dispute(bought, "funds_withdrawn", "needs_response") == "new:invalid_input"
    bought.gateway.put("pi_1", refunded_rappen=1_000)
    bought.clock.wait(5)
    bought.inbox.work_once()
    assert bought.credit() == 0


def test_a_dispute_of_no_payment_of_ours_is_ignored(house: House) -> None:
    house.gateway.disputes["dp_1"] = house.gateway.dispute("pi_other", "lost")
    house.gateway.put("pi_other", metadata={"shop": "another"})
    assert told(house, "closed", "lost", payment_intent="pi_other") == "ignored:not_ours"


def test_a_dispute_that_names_its_payment_only_when_it_is_read(bought: House) -> None:
    bought.gateway.dispute("pi_1", "lost")
    assert told(bought, "closed", "lost", payment_intent=None) == "done:netted"
    assert bought.credit() == 0


def test_a_dispute_of_a_charge_without_a_payment_is_ignored(house: House) -> None:
    house.gateway.disputes["dp_1"] = house.gateway.dispute(None, "lost")  # type: ignore[arg-type]
    assert told(house, "closed", "lost", payment_intent=None) == "ignored:no_payment"


def test_a_dispute_told_before_its_purchase_tells_of_the_payment_too(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert dispute(house, "created", "needs_response") == "done:credited"
    assert (house.credit(), house.alarms()) == (0, ["payment_disputed"])
    dispute(house, "closed", "won")
    assert house.credit() == TEN_USD


def test_spent_credit_that_is_disputed_becomes_debt_and_is_forgiven_when_won(
    bought: House,
) -> None:
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    dispute(bought, "created", "needs_response")
    assert bought.figures() == (0, 0, 8 * USD)
    dispute(bought, "closed", "won")
    assert bought.figures() == (2 * USD, 0, 0)


def test_a_running_call_keeps_what_it_holds_when_its_credit_is_disputed(bought: House) -> None:
    call = bought.guthaben.reserve(PRACTICE, 4 * USD, key="running")
    dispute(bought, "created", "needs_response")
    assert bought.figures() == (0, 4 * USD, 4 * USD)
    call.settle(3 * USD)
    assert bought.figures() == (0, 0, 3 * USD)


# ---------------------------------------------------------------- warnings of fraud


def warning(house: House, payment_id: str | None = "pi_1", actionable: bool = True) -> str:
    """Tell of a card issuer's early warning."""
    about = {
        "id": "issfr_1", "object": "radar.early_fraud_warning", "payment_intent": payment_id,
        "charge": "ch_1", "fraud_type": "made_with_stolen_card", "actionable": actionable,
        "livemode": True,
    }  # fmt: skip
    kind = "radar.early_fraud_warning.created"
    return house.tell(kind, about)


def test_a_warning_of_fraud_is_kept_alarmed_and_pauses(bought: House) -> None:
    bought.arm()
    for actionable in (True, False):
        assert warning(bought, actionable=actionable) == "done:warned"
    (row,) = bought.rows("SELECT * FROM credit_fraud_warning")
    assert (row["fraud_type"], row["actionable"], row["event_no"]) == (
        "made_with_stolen_card", 0, 1,
    )  # fmt: skip
    assert bought.alarms() == ["fraud_warning"]
    assert bought.topups.settings(PRACTICE).paused_reason == "fraud_warning"
    assert bought.credit() == TEN_USD  # it is a warning: no money has moved


def test_a_warning_about_a_foreign_payment_is_ignored(house: House) -> None:
    house.gateway.put("pi_1", metadata={})
    assert warning(house) == "ignored:not_ours"
    assert warning(house, None) == "ignored:no_payment"
    assert (house.alarms(), house.rows("SELECT * FROM credit_fraud_warning")) == ([], [])
