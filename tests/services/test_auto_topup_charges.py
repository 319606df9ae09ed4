"""Charging a claimed attempt: committed before anything leaves, and every answer has its state.

A lost answer is a state. It is asked for again with the same key for twelve hours, then looked up;
there is never a second attempt while it is open, and never a second charge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pytest

from guthaben.domain.topup import CreditEvent
from guthaben.errors import InsufficientCredit, PaymentUnavailable, StoreUnavailable
from guthaben.payments.gateway import (
    Charged,
    ChargeOrder,
    ChargeResult,
    Declined,
    NeedsCustomer,
    NotSent,
    Processing,
    Unknown,
)
from guthaben.services import auto_topup
from guthaben.services.topups import AutoTopupChange
from guthaben.store.workspace import Workspace
from tests.services.conftest import Build
from tests.services.fakes import Lost, Step
from tests.services.house import CHF_30, PRACTICE, TEN_USD, USD, House

T = TypeVar("T")

HOUR_S = 3_600
PENDING = "pending_auto_topup"


@pytest.fixture
def house(build: Build) -> House:
    made = build(watching=False)
    made.arm()
    return made


def told_by_webhook(house: House, topup_id: str) -> str:
    """Let the provider tell of the success by itself."""
    payment_id = f"pi_of_{topup_id}"
    return house.tell("payment_intent.succeeded", {"id": payment_id, "object": "payment_intent"})


# ---------------------------------------------------------------- intent before effect


def test_the_attempt_is_committed_with_key_and_parameters_before_anything_leaves(
    house: House,
) -> None:
    event = house.claim()
    house.charge(event)
    (asked,) = house.gateway.asked
    (row,) = asked.committed
    assert (row["status"], row["topup_id"]) == ("pending", event.topup_id)
    assert (row["idempotency_key"], row["params"]) == (event.idempotency_key, event.params)
    order: ChargeOrder = asked.argument
    assert order.idempotency_key == row["idempotency_key"]
    assert (order.amount_rappen, order.currency) == (CHF_30, "chf")
    assert (order.customer_id, order.payment_method_id) == ("cus_1", "pm_1")
    assert order.is_retry is False


def test_the_charge_names_our_record_and_nothing_about_persons(house: House) -> None:
    event = house.claim()
    house.charge(event)
    assert house.gateway.charges[0].metadata == {
        "aza_purpose": "ai_auto_topup", "practice_id": PRACTICE, "subscription_id": "",
        "internal_credit_usd": "10.00", "paid_chf": "30.00", "topup_id": event.topup_id,
    }  # fmt: skip


def test_no_transaction_is_open_while_the_provider_is_asked(house: House) -> None:
    house.gateway.then(Lost())
    house.charge(house.claim())  # a charge
    house.clock.wait(60)
    house.charger.resolve_waiting()  # a repetition
    house.clock.wait(25 * HOUR_S)
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    house.gateway.then(Unknown("deadline"))
    house.charge(house.claim())
    house.clock.wait(13 * HOUR_S)
    house.charger.resolve_waiting()  # a look-up
    told_by_webhook(house, house.events()[0]["topup_id"])  # a reading
    assert {"charge_saved_card", "find_payment", "retrieve_payment"} == set(house.gateway.methods())
    assert all(seen.others_could_write for seen in house.gateway.asked)


def test_a_retry_sends_what_was_recorded_even_when_the_settings_changed_since(
    house: House,
) -> None:
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())
    house.save_card(payment_method_id="pm_other")
    house.arm(amount_rappen=9_000, cap_rappen=90_000)
    house.clock.wait(60)
    house.change("UPDATE credit_provider_customer SET payment_method_id = 'pm_other'")
    house.resolve()
    first, again = house.gateway.charges
    assert (again.is_retry, first.is_retry) == (True, False)
    for name in ("amount_rappen", "payment_method_id", "customer_id", "currency", "metadata"):
        assert getattr(again, name) == getattr(first, name)
    assert first.idempotency_key == again.idempotency_key


# ---------------------------------------------------------------- every answer has its state


class Ending(NamedTuple):
    """What an answer to a charge comes to."""

    answer: Step
    status: str
    event_type: str
    reason: str
    charged: bool = False
    paused: str = ""
    alarms: tuple[str, ...] = ()


AUTO, FAILED = "auto_topup_purchase", "failed_auto_topup"
PAUSED = ("auto_topup_paused",)
NOT_SENT = ("charges_not_sent",)
LOST_CARD = Declined("pi_1", "card_declined", "lost_card", None, True)
POOR = Declined("pi_1", "card_declined", "insufficient_funds", None, False)
BARE = Declined(None, "card_declined", None, None, False)

ENDINGS = {
    "charged": Ending(Charged("pi_1"), "succeeded", AUTO, "", True),
    "processing": Ending(Processing("pi_1"), "pending", AUTO, "processing"),
    "needs the customer": Ending(
        NeedsCustomer("pi_1", "requires_action"), "failed", FAILED, "requires_action",
        False, "requires_action", PAUSED,
    ),
    "authentication, without a payment": Ending(
        NeedsCustomer(None, "authentication_required"), "failed", FAILED,
        "authentication_required", False, "authentication_required", PAUSED,
    ),
    "lost card": Ending(LOST_CARD, "failed", FAILED, "lost_card", False, "lost_card", PAUSED),
    "no money": Ending(POOR, "failed", FAILED, "insufficient_funds"),
    "declined, without a word": Ending(
        BARE, "failed", FAILED, "card_declined", False, "card_declined", PAUSED,
    ),
    "unknown": Ending(Unknown("connection"), "unknown", AUTO, "connection"),
    "unknown, with a payment": Ending(
        Unknown("amount_differs", "pi_1"), "unknown", AUTO, "amount_differs",
    ),
    "method gone": Ending(
        NotSent("method_unusable", "resource_missing"), "failed", FAILED,
        "not_sent_method_unusable", False, "not_sent_method_unusable", PAUSED,
    ),
    "our key is wrong": Ending(
        NotSent("auth"), "failed", FAILED, "not_sent_auth", False, "", NOT_SENT,
    ),
    "misconfigured": Ending(
        NotSent("misconfigured"), "failed", FAILED, "not_sent_misconfigured", False, "", NOT_SENT,
    ),
    "malformed": Ending(
        NotSent("invalid_request"), "failed", FAILED, "not_sent_invalid_request", False, "",
        NOT_SENT,
    ),
    "rate limit": Ending(NotSent("rate_limit"), "failed", FAILED, "not_sent_rate_limit"),
    "busy": Ending(NotSent("busy"), "failed", FAILED, "not_sent_busy"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_each_answer_has_its_state_its_pause_and_its_alarm(house: House, ending: Ending) -> None:
    house.gateway.then(ending.answer)
    report = house.charge(house.claim())
    row, settings = house.event(), house.settings_row()
    assert (row["status"], row["event_type"]) == (ending.status, ending.event_type)
    assert row["reason"] == ending.reason
    assert report.charged is ending.charged
    assert report.unknown is (ending.status == "unknown")
    assert report.paused is bool(ending.paused)
    assert report.event.status == ending.status
    assert (settings["enabled"], settings["paused_reason"]) == (not ending.paused, ending.paused)
    assert tuple(house.alarms()) == ending.alarms
    assert house.credit() == (TEN_USD if ending.charged else 0)
    assert house.topups.settings(PRACTICE).paused_reason == ending.paused


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_no_answer_takes_credit_that_was_there(house: House, ending: Ending) -> None:
    house.guthaben.grant(PRACTICE, USD // 2, key="rest")
    house.gateway.then(ending.answer)
    house.charge(house.claim())
    assert house.credit() == USD // 2 + (TEN_USD if ending.charged else 0)


@pytest.mark.parametrize("name", ["rate limit", "busy", "our key is wrong", "malformed"])
def test_what_was_not_sent_leaves_the_gate_in_peace_for_an_hour(build: Build, name: str) -> None:
    house = build(watching=True)
    house.arm()
    house.gateway.then(ENDINGS[name].answer)
    house.charge(house.claim())
    for wait_s, claims in [(1, 0), (3_500, 0), (100, 1)]:
        house.clock.wait(wait_s)
        with pytest.raises(InsufficientCredit):
            house.guthaben.reserve(PRACTICE, USD, key="k")
        assert len(house.claims) == claims


def test_a_card_that_was_declined_is_not_charged_again_until_the_customer_acts(
    house: House,
) -> None:
    house.gateway.then(LOST_CARD)
    house.charge(house.claim())
    for _ in range(3):
        house.clock.wait(40 * 24 * HOUR_S)
        assert house.why_not() == "disabled"
    house.arm()
    assert house.topups.settings(PRACTICE).paused_reason == ""
    house.claim()


@pytest.mark.parametrize("answer", [LOST_CARD, NeedsCustomer("pi_1", "requires_action")])
def test_a_decline_followed_by_a_success_is_credited_once(house: House, answer: Step) -> None:
    house.gateway.then(answer)
    event = house.claim()
    house.charge(event)
    house.gateway.put("pi_1", status="succeeded", amount_received_rappen=CHF_30)
    for _ in range(3):
        house.tell("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})
    row = house.event()
    assert (row["status"], row["event_type"], row["reason"]) == ("succeeded", AUTO, "")
    assert house.credit() == TEN_USD
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30


def test_a_second_word_of_decline_is_not_reported_as_a_charge(house: House) -> None:
    house.gateway.then(LOST_CARD)
    event = house.claim()
    house.charge(event)
    report = house.charge(event, is_retry=True)
    assert (report.charged, report.event.status) == (False, "failed")


# ---------------------------------------------------------------- told from two sides


def test_a_success_told_by_webhook_before_the_answer_is_credited_once(house: House) -> None:
    event = house.claim()
    house.gateway.during = lambda _order: assert_done(told_by_webhook(house, event.topup_id))
    report = house.charge(event)
    assert (report.charged, report.paused) == (True, False)
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)
    assert house.alarms() == []


def assert_done(told: str) -> None:
    """The webhook was applied."""
    assert told == "done:credited"


@pytest.mark.parametrize("answer", [
    LOST_CARD, NeedsCustomer("pi_x", "requires_action"), Unknown("connection"),
    Processing("pi_x"), NotSent("busy"),
], ids=lambda answer: type(answer).__name__)  # fmt: skip
def test_a_success_told_meanwhile_stands_whatever_the_answer_says(
    house: House, answer: ChargeResult
) -> None:
    event = house.claim()

    def pay_and_tell(order: ChargeOrder) -> ChargeResult:
        house.gateway.put(f"pi_of_{event.topup_id}", metadata=dict(order.metadata))
        assert_done(told_by_webhook(house, event.topup_id))
        return answer

    house.gateway.then(pay_and_tell)
    report = house.charge(event)
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)
    assert report.paused is False
    assert house.settings_row()["enabled"] == 1
    assert house.alarms() == []


def test_a_success_told_by_webhook_after_the_answer_is_credited_once(house: House) -> None:
    event = house.claim()
    house.charge(event)
    assert told_by_webhook(house, event.topup_id) == "done:duplicate"
    assert house.credit() == TEN_USD


def test_a_processing_payment_is_credited_when_it_succeeds(house: House) -> None:
    house.gateway.then(Processing("pi_1"))
    house.charge(house.claim())
    house.clock.wait(60)
    assert house.resolve() is False  # still processing
    house.gateway.put("pi_1", status="succeeded", amount_received_rappen=CHF_30)
    house.clock.wait(3 * 24 * HOUR_S)
    assert house.resolve() is True
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)
    assert len(house.gateway.charges) == 1


# ---------------------------------------------------------------- lost answers


def test_a_lost_answer_is_unknown_and_blocks_every_new_attempt(house: House) -> None:
    house.gateway.then(Lost())
    report = house.charge(house.claim())
    assert (report.unknown, report.charged, house.statuses()) == (True, False, ["unknown"])
    for _ in range(5):
        house.clock.wait(24 * HOUR_S)
        assert house.why_not() == PENDING


@pytest.mark.parametrize("age_s", [60, HOUR_S, 12 * HOUR_S])
@pytest.mark.parametrize("made", [True, False], ids=["charge made", "charge not made"])
def test_within_twelve_hours_the_same_key_is_sent_again(
    house: House, age_s: int, made: bool
) -> None:
    house.gateway.then(Lost() if made else Unknown("connection"))
    event = house.claim()
    house.charge(event)
    house.clock.wait(age_s)
    assert house.resolve() is True
    assert house.gateway.methods() == ["charge_saved_card", "charge_saved_card"]
    first, again = house.gateway.charges
    assert (again.is_retry, again.idempotency_key) == (True, first.idempotency_key)
    assert (house.gateway.charged_rappen, house.credit()) == (CHF_30, TEN_USD)
    assert house.statuses() == ["succeeded"]


@pytest.mark.parametrize("made", [True, False], ids=["charge made", "charge not made"])
def test_after_twelve_hours_the_payment_is_looked_up_and_never_sent_again(
    house: House, made: bool
) -> None:
    house.gateway.then(Lost() if made else Unknown("connection"))
    event = house.claim()
    house.charge(event)
    house.clock.wait(12 * HOUR_S + 1)
    assert house.resolve() is True
    assert house.gateway.methods() == ["charge_saved_card", "find_payment"]
    asked = house.gateway.asked[-1].argument
    assert asked == (event.topup_id, "cus_1", event.recorded_at_s)
    assert house.credit() == house.gateway.charged_rappen * TEN_USD // CHF_30
    assert house.credit() == (TEN_USD if made else 0)
    row = house.event()
    assert (row["status"], row["reason"]) == (
        ("succeeded", "") if made else ("failed", "never_arrived")
    )
    assert house.settings_row()["enabled"] == 1  # nobody is to blame


@pytest.mark.parametrize("status", ["requires_payment_method", "canceled", "requires_action", None])
def test_a_payment_that_was_looked_up_and_did_not_succeed_fails_and_pauses(
    house: House, status: str | None
) -> None:
    house.gateway.then(Unknown("server_error", "pi_1"))
    house.charge(house.claim())
    house.gateway.put("pi_1", status=status, amount_received_rappen=0)
    assert house.resolve() is True
    assert (house.statuses(), house.credit()) == (["failed"], 0)
    assert house.settings_row()["enabled"] == 0


@pytest.mark.parametrize("status", ["processing", "requires_capture"])
def test_a_payment_that_was_looked_up_and_is_under_way_stays_open(
    house: House, status: str
) -> None:
    house.gateway.then(Unknown("server_error", "pi_1"))
    house.charge(house.claim())
    house.gateway.put("pi_1", status=status, amount_received_rappen=0)
    assert house.resolve() is False
    assert house.why_not() == PENDING


@pytest.mark.parametrize("facts", [
    {"amount_received_rappen": 100}, {"currency": "eur"}, {"amount_received_rappen": 300_000},
])  # fmt: skip
def test_a_payment_that_was_looked_up_and_contradicts_our_record_is_not_credited(
    house: House, facts: dict[str, Any]
) -> None:
    house.gateway.then(Unknown("amount_differs", "pi_1"))
    event = house.claim()
    house.charge(event)
    house.gateway.put("pi_1", **{"metadata": {"topup_id": event.topup_id}, **facts})
    house.resolve()
    assert house.credit() == 0


def test_a_repetition_that_is_lost_too_stays_unknown(house: House) -> None:
    house.gateway.then(Unknown("connection"), Unknown("deadline"), Unknown("server_error"))
    house.charge(house.claim())
    for _ in range(2):
        house.clock.wait(60)
        assert house.resolve() is False
    assert house.statuses() == ["unknown"]
    assert house.why_not() == PENDING
    house.clock.wait(60)
    assert house.resolve() is True
    assert (house.gateway.charged_rappen, house.credit()) == (CHF_30, TEN_USD)


def test_a_repetition_that_is_declined_fails_and_pauses(house: House) -> None:
    house.gateway.then(Lost(LOST_CARD))
    house.charge(house.claim())
    assert house.resolve() is True
    assert (house.statuses(), house.settings_row()["enabled"]) == (["failed"], 0)


def test_while_the_provider_cannot_be_asked_nothing_is_decided(house: House) -> None:
    house.gateway.then(Lost())
    house.charge(house.claim())
    house.gateway.down = PaymentUnavailable("down")
    house.clock.wait(13 * HOUR_S)
    with pytest.raises(PaymentUnavailable):
        house.resolve()
    assert house.charger.resolve_waiting() == 0
    assert house.statuses() == ["unknown"]
    house.gateway.down = None
    assert house.charger.resolve_waiting() == 1
    assert house.credit() == TEN_USD


def test_a_row_that_a_host_wrote_by_hand_is_left_alone(house: House) -> None:
    house.open_purchase(event_type=AUTO, session_id="")
    house.clock.wait(HOUR_S)
    assert house.charger.resolve_waiting() == 0
    assert (house.gateway.asked, house.statuses()) == ([], ["pending"])


# ---------------------------------------------------------------- the store goes down


@pytest.mark.parametrize("answer", [None, LOST_CARD, Processing("pi_1")],
                         ids=["charged", "declined", "processing"])  # fmt: skip
def test_a_store_that_is_down_after_the_charge_hears_of_it_later_without_a_second_charge(
    house: House, answer: ChargeResult | None
) -> None:
    if answer is not None:
        house.gateway.then(answer)
    event = house.claim()

    def down_after_the_charge(work: Callable[[Workspace], T]) -> T:
        if house.gateway.charges:
            raise StoreUnavailable("the disk is full")
        return house.run(work)

    with pytest.raises(StoreUnavailable):
        auto_topup.charge_claimed(down_after_the_charge, house.gateway, PRACTICE, event)
    assert house.statuses() == ["pending"]
    assert house.why_not() == PENDING
    house.clock.wait(60)
    house.charger.resolve_waiting()
    assert len(house.gateway.payments) == 1
    assert house.credit() == (TEN_USD if answer is None else 0)
    assert house.statuses() == [
        "succeeded" if answer is None else "failed" if answer is LOST_CARD else "pending"
    ]


def test_a_gateway_that_breaks_its_word_leaves_the_attempt_pending(house: House) -> None:
    house.gateway.then(RuntimeError("a bug"))
    event = house.claim()
    with pytest.raises(RuntimeError):
        house.charge(event)
    assert house.statuses() == ["pending"]


# ---------------------------------------------------------------- consent that ended meanwhile


def test_switched_off_before_the_attempt_was_sent_the_card_is_not_charged(house: House) -> None:
    house.claim()  # and the process dies
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    house.clock.wait(60)
    house.charger.resolve_waiting()
    assert house.gateway.charged_rappen == 0


def test_switched_off_after_the_charge_was_made_its_credit_still_comes(house: House) -> None:
    house.gateway.then(Lost())
    house.charge(house.claim())
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    house.clock.wait(13 * HOUR_S)
    house.charger.resolve_waiting()
    assert (house.gateway.charged_rappen, house.credit()) == (CHF_30, TEN_USD)


def test_an_event_that_was_told_in_full_needs_no_parameters(house: House) -> None:
    event = house.claim()
    assert isinstance(event, CreditEvent)
    house.change("UPDATE credit_event SET reason = 'seen'")
    house.charge(event)
    assert house.event()["reason"] == ""
