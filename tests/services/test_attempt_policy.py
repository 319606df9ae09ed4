"""What declines lead to: later attempts of their own, pauses, cancelled payments, and who is told.

Every attempt has its own claim and key. What the customer could still pay counts toward the cap.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from guthaben.domain.commands import ClaimTopup, Outcome
from guthaben.errors import InsufficientCredit, PaymentOutcomeUnknown, PaymentUnavailable, Refused
from guthaben.payments.gateway import Declined, NeedsCustomer, NotSent, Unknown
from guthaben.services.auto_topup import Charger
from guthaben.services.topups import AutoTopupChange
from guthaben.store import settings
from tests.services.conftest import Build
from tests.services.fakes import Lost
from tests.services.house import CHF_30, OTHER, PRACTICE, TEN_USD, USD, House, in_parallel

HOUR_S, DAY_S = 3_600, 86_400
POOR = Declined("pi_poor", "card_declined", "insufficient_funds", None, False)
TROUBLE = Declined("pi_trouble", "processing_error", None, None, False)
LOST_CARD = Declined("pi_lost", "card_declined", "lost_card", None, True)
WAITING = "waiting_to_retry"
PAGES: Any = {"success_url": "https://app.example/ok", "cancel_url": "https://app.example/no"}


@pytest.fixture
def house(build: Build) -> House:
    made = build(watching=False)
    made.arm()
    return made


def poor(number: int) -> Declined:
    """A decline for lack of money, with a payment of its own."""
    return POOR.__class__(f"pi_{number}", "card_declined", "insufficient_funds", None, False)


def fail(house: House, answer: Any) -> None:
    """Claim and be declined."""
    house.gateway.then(answer)
    house.charge(house.claim())


def told(house: House) -> list[tuple[str, dict[str, Any]]]:
    """The notices, oldest first."""
    rows = house.rows("SELECT kind, facts FROM credit_notice ORDER BY told_at_s, kind")
    return [(row["kind"], json.loads(row["facts"])) for row in rows]


# ---------------------------------------------------------------- later attempts


def test_short_of_money_it_is_tried_again_after_a_day_then_three_then_off(house: House) -> None:
    for number, pause_s in [(1, DAY_S), (2, 3 * DAY_S)]:
        fail(house, poor(number))
        assert house.settings_row()["enabled"] == 1
        house.clock.wait(pause_s - 1)
        assert house.why_not() == WAITING
        house.clock.wait(1)
    fail(house, poor(3))
    view = house.topups.settings(PRACTICE)
    assert (view.enabled, view.paused_reason) == (False, "three_failures")
    keys = {row["idempotency_key"] for row in house.events()}
    assert len(keys) == len(house.gateway.charges) == 3
    assert {row["need_no"] for row in house.events()} == {1}
    assert [row["verdict"] for row in house.events()] == ["later"] * 3
    assert house.alarms() == ["auto_topup_switched_off"]


def test_trouble_of_the_bank_is_tried_again_within_hours(house: House) -> None:
    fail(house, TROUBLE)
    assert house.topups.settings(PRACTICE).retry_at_s == house.clock.at_s + HOUR_S
    house.clock.wait(HOUR_S)
    house.charge(house.claim())
    assert house.statuses() == ["failed", "succeeded"]
    assert (house.credit(), house.settings_row()["need_no"]) == (TEN_USD, 0)


def test_a_success_begins_a_new_need_and_forgives(house: House) -> None:
    for number in (1, 2):
        fail(house, poor(number))
        house.clock.wait(3 * DAY_S)
    house.charge(house.claim())
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    house.clock.wait(DAY_S)
    fail(house, poor(4))
    assert house.settings_row()["enabled"] == 1  # the first failure of another need
    assert [row["need_no"] for row in house.events()] == [1, 1, 1, 4]


def test_a_purchase_by_hand_ends_the_need_but_not_the_row_of_failures(house: House) -> None:
    for number in (1, 2):
        fail(house, poor(number))
        house.clock.wait(3 * DAY_S)
    house.open_purchase("tu_by_hand")
    house.paid(topup_id="tu_by_hand", payment_id="pi_by_hand")
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    fail(house, poor(3))
    assert house.events()[-1]["need_no"] == house.events()[-1]["event_no"]
    assert house.topups.settings(PRACTICE).paused_reason == "three_failures"


def test_a_purchase_by_hand_does_not_shorten_a_cards_wait(house: House) -> None:
    # Found by the simulation: the card was charged again a minute after its bank could not answer.
    fail(house, TROUBLE)
    house.open_purchase("tu_by_hand")
    house.paid(topup_id="tu_by_hand")
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    assert house.why_not() == WAITING
    house.clock.wait(HOUR_S)
    house.charge(house.claim())
    assert house.topups.settings(PRACTICE).retry_at_s == 0


@pytest.mark.parametrize("act", ["switch on", "new card"])
def test_the_customers_act_forgives(house: House, act: str) -> None:
    for number in (1, 2):
        fail(house, poor(number))
        house.clock.wait(3 * DAY_S)
    if act == "new card":
        house.save_card(payment_method_id="pm_2")
    else:
        house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
        house.arm()
    fail(house, poor(3))
    assert house.settings_row()["enabled"] == 1


def test_the_same_settings_again_forgive_nothing(house: House) -> None:
    fail(house, POOR)
    house.arm()
    house.save_card()
    assert house.why_not() == WAITING


def test_what_never_reached_the_card_says_nothing_about_it(house: House) -> None:
    for _ in range(5):
        fail(house, NotSent("rate_limit"))
        house.clock.wait(HOUR_S)
    view = house.topups.settings(PRACTICE)
    assert (view.enabled, view.spent_this_month_rappen) == (True, 0)
    fail(house, POOR)
    assert house.settings_row()["enabled"] == 1


def test_a_card_is_tried_fifteen_times_in_thirty_days_and_no_more(house: House) -> None:
    for number in range(15):
        house.arm()
        fail(house, poor(number))
        house.charger.janitor.cancel_once()
        house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    assert len(house.gateway.charges) == 15
    house.arm()
    assert house.why_not() == "card_exhausted"
    house.save_card(payment_method_id="pm_2")
    house.claim()  # another card is another count
    house.change("DELETE FROM credit_event WHERE status = 'pending'")
    house.save_card()
    house.clock.wait(30 * DAY_S)
    house.claim()


def test_the_fifteenth_decline_of_a_card_switches_off(house: House) -> None:
    for number in range(15):
        house.arm()
        fail(house, poor(number))
        house.charger.janitor.cancel_once()
        if number < 14:
            house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    assert house.topups.settings(PRACTICE).paused_reason == "card_tried_too_often"


def test_an_unknown_attempt_is_never_superseded(house: House) -> None:
    fail(house, poor(1))
    house.clock.wait(DAY_S)
    fail(house, Unknown("connection"))
    for _ in range(4):
        house.clock.wait(3 * DAY_S)
        assert house.why_not() == "pending_auto_topup"


def test_who_set_it_up_by_the_four_modules_is_paused_at_the_first_decline(house: House) -> None:
    house.change("UPDATE credit_topup_settings SET on_decline = 'pause'")
    fail(house, POOR)
    assert house.topups.settings(PRACTICE).paused_reason == "insufficient_funds"


# ---------------------------------------------------------------- payments left open


@pytest.mark.parametrize("answer", [POOR, LOST_CARD, NeedsCustomer("pi_3", "requires_action")])
def test_a_declined_payment_is_cancelled_and_then_counts_no_longer(
    house: House, answer: Any
) -> None:
    fail(house, answer)
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30
    assert house.charger.janitor.cancel_once() == 1
    assert house.gateway.payments[answer.payment_id].status == "canceled"
    assert (house.statuses(), house.event()["open_minor"]) == (["failed"], 0)
    assert house.charger.janitor.cancel_once() == 0


def test_the_charger_cancels_a_declined_payment_at_once(house: House) -> None:
    house.gateway.then(POOR)
    house.charger._charge(PRACTICE, house.claim())
    assert house.gateway.methods() == ["charge_saved_card", "cancel_payment"]
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 0


def test_a_payment_that_the_customer_completed_first_is_credited_once(house: House) -> None:
    fail(house, POOR)
    house.gateway.put("pi_poor", status="succeeded", amount_received_rappen=CHF_30)
    assert house.charger.janitor.cancel_once() == 1
    assert house.credit() == TEN_USD
    assert house.charger.janitor.cancel_once() == 0
    house.tell("payment_intent.succeeded", {"id": "pi_poor", "object": "payment_intent"})
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30


def test_a_cancellation_whose_answer_is_lost_is_confirmed_later(house: House) -> None:
    fail(house, POOR)
    house.gateway.down = PaymentOutcomeUnknown("lost")
    assert house.charger.janitor.cancel_once() == 0
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30
    house.gateway.down = None
    house.gateway.put("pi_poor", status="canceled")  # it had arrived
    assert house.charger.janitor.cancel_once() == 1


def test_a_payment_whose_name_was_not_told_is_looked_for(house: House) -> None:
    fail(house, Declined(None, "card_declined", "insufficient_funds", None, False))
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30
    assert house.charger.janitor.cancel_once() == 1  # there is none
    assert house.gateway.methods()[-1] == "find_payment"


def test_a_payment_that_is_being_processed_stays_counted(house: House) -> None:
    fail(house, POOR)
    house.gateway.put("pi_poor", status="processing")
    assert house.charger.janitor.cancel_once() == 0
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30


def test_what_can_not_be_cancelled_for_a_day_raises_an_alarm(house: House) -> None:
    fail(house, POOR)
    house.gateway.down = PaymentUnavailable("down")
    house.clock.wait(DAY_S + 1)
    for _ in range(2):
        assert house.charger.janitor.cancel_once() == 0
    assert house.alarms() == ["payment_left_open"]


def test_a_cancelled_payment_is_nothing_to_cancel(house: House) -> None:
    fail(house, Declined("pi_1", "canceled", None, None, True))
    assert house.event()["open_minor"] == 0


# ---------------------------------------------------------------- a page instead


def test_instead_of_a_declined_charge_a_page_is_offered_and_the_old_payment_cancelled(
    house: House,
) -> None:
    fail(house, NeedsCustomer("pi_3", "requires_action"))
    start = house.topups.start_replacement(PRACTICE, **PAGES)
    assert house.gateway.methods()[-2:] == ["cancel_payment", "create_checkout"]
    order = house.gateway.asked[-1].argument
    assert (order.amount_rappen, order.save_payment_method) == (CHF_30, True)
    assert house.topups.one(PRACTICE, start.topup_id).status == "pending"
    assert house.topups.settings(PRACTICE).enabled is False  # a purchase switches nothing on


@pytest.mark.parametrize(("status", "reason"), [
    ("succeeded", "paid_meanwhile"), ("processing", "payment_under_way"),
])  # fmt: skip
def test_no_page_is_made_beside_a_payment_that_may_take_money(
    house: House, status: str, reason: str
) -> None:
    fail(house, NeedsCustomer("pi_3", "requires_action"))
    house.gateway.put("pi_3", status=status, amount_received_rappen=CHF_30)
    with pytest.raises(Refused) as refused:
        house.topups.start_replacement(PRACTICE, **PAGES)
    assert refused.value.reason == reason
    assert "create_checkout" not in house.gateway.methods()


# ---------------------------------------------------------------- sent once


def test_an_attempt_carries_its_mode_and_when_it_was_sent(build: Build) -> None:
    for livemode in (True, False):
        house = build(watching=False, livemode=livemode)
        house.arm()
        house.charge(house.claim())
        row = house.event()
        assert (row["livemode"], row["sent_at_s"]) == (int(livemode), house.clock.at_s)


def test_of_many_who_charge_one_attempt_one_sends_it_first(house: House) -> None:
    event = house.claim()
    reports = in_parallel(8, lambda _i: house.charge(event))
    assert [one for one in reports if isinstance(one, BaseException)] == []
    assert len(house.gateway.charges) == 1
    assert house.credit() == TEN_USD


def test_another_card_since_the_claim_ends_the_attempt_unsent(house: House) -> None:
    event = house.claim()
    house.save_card(payment_method_id="pm_2")
    report = house.charge(event)
    assert (report.charged, report.reason) == (False, "card_changed")
    assert (house.statuses(), house.gateway.asked) == (["canceled"], [])
    house.claim()


def test_a_cap_lowered_since_the_claim_ends_the_attempt_unsent(house: House) -> None:
    house.charge(house.claim())
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    house.clock.wait(DAY_S)
    event = house.claim()
    house.topups.change_settings(PRACTICE, AutoTopupChange(True, CHF_30, 5, USD, CHF_30))
    assert house.charge(event).reason == "auto_topup_monthly_limit_reached"
    assert len(house.gateway.charges) == 1


def test_what_was_never_sent_is_sent_by_the_janitor_for_the_first_time_or_not_at_all(
    house: House,
) -> None:
    house.claim()
    house.clock.wait(60)
    house.charger.janitor.resolve_once()
    assert [one.is_retry for one in house.gateway.charges] == [False]
    house.guthaben.record_usage(PRACTICE, TEN_USD, key="u")
    house.clock.wait(DAY_S)
    house.claim()
    house.clock.wait(13 * HOUR_S)
    house.charger.janitor.resolve_once()
    assert house.statuses() == ["succeeded", "canceled"]
    assert house.events()[-1]["reason"] == "never_sent"


def test_switched_off_an_unknown_attempt_is_looked_up_and_given_time_to_arrive(
    house: House,
) -> None:
    fail(house, Unknown("connection"))
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    house.clock.wait(60)
    assert house.charger.janitor.resolve_once() == 0  # it may still arrive
    house.clock.wait(15 * 60)
    assert house.charger.janitor.resolve_once() == 1
    assert house.gateway.methods() == ["charge_saved_card", "find_payment", "find_payment"]
    assert (house.statuses(), house.event()["reason"]) == (["canceled"], "switched_off")


# ---------------------------------------------------------------- the background check


def test_the_check_finds_what_no_command_is_going_to_see(house: House) -> None:
    house.arm(OTHER)
    fail(house, TROUBLE)
    janitor = house.charger.janitor
    assert janitor.check_once() == 1  # the other practice
    assert house.statuses(OTHER) == ["succeeded"]
    house.clock.wait(HOUR_S)
    assert (janitor.check_once(), house.statuses()) == (1, ["failed", "succeeded"])
    assert janitor.check_once() == 0


def test_the_check_leaves_alone_what_has_enough(house: House) -> None:
    house.guthaben.grant(PRACTICE, 2 * USD, key="enough")
    assert house.charger.janitor.check_once() == 0
    assert house.events() == []


def test_all_jobs_at_once(house: House) -> None:
    house.arm(OTHER)
    fail(house, Lost())
    house.gateway.then(POOR)
    house.charge(house.claim(OTHER), OTHER)
    house.clock.wait(60)
    assert house.charger.janitor.work_once() == {"resolved": 1, "cancelled": 1, "claimed": 0}


def test_where_charges_are_not_allowed_the_check_claims_nothing(house: House) -> None:
    charger = Charger(house.gateway, allowed=lambda: False)
    charger.attach(house.store)
    assert charger.janitor.work_once() == {"resolved": 0, "cancelled": 0, "claimed": 0}
    assert house.events() == []


# ---------------------------------------------------------------- one charge, whole shortfall


@pytest.mark.parametrize(("usd", "rappen"), [(15, 4_500), (30, 9_000), (31, CHF_30)])
def test_a_refused_call_is_made_possible_by_one_charge(build: Build, usd: int, rappen: int) -> None:
    house = build(watching=True)
    house.arm(largest_rappen=9_000)
    with pytest.raises(InsufficientCredit):
        house.guthaben.reserve(PRACTICE, usd * USD, key="k")
    ((_practice, outcome),) = house.claims
    assert outcome.event is not None
    report = house.charge(outcome.event)
    assert (report.charged, house.gateway.charged_rappen) == (True, rappen)
    if rappen != CHF_30:
        house.guthaben.reserve(PRACTICE, usd * USD, key="k")


def test_a_shortfall_counts_what_is_there_and_what_is_owed(build: Build) -> None:
    house = build(watching=True)
    house.save_card()
    house.guthaben.record_usage(PRACTICE, 2 * USD, key="debt")
    house.arm(largest_rappen=9_000)
    with pytest.raises(InsufficientCredit):
        house.guthaben.reserve(PRACTICE, 12 * USD, key="k")
    ((_practice, outcome),) = house.claims
    assert outcome.event is not None
    house.charge(outcome.event)
    assert house.gateway.charged_rappen == 4_200  # 12 for the call, 2 for the debt
    house.guthaben.reserve(PRACTICE, 12 * USD, key="k")


def test_without_the_option_a_charge_is_the_ordinary_one(house: House) -> None:
    command = ClaimTopup("tu_1", "", True, 90 * USD)
    outcome: Outcome = house.run(lambda space: space.apply(PRACTICE, command))
    assert outcome.event is not None
    assert outcome.event.price_minor == CHF_30


def test_the_largest_charge_needs_a_consent_of_its_own(house: House) -> None:
    with pytest.raises(Refused) as refused:
        house.topups.change_settings(
            PRACTICE, AutoTopupChange(True, trigger_below_nano_usd=USD, largest_rappen=6_000)
        )
    assert refused.value.reason == "consent_required"
    house.arm(largest_rappen=6_000)
    (row,) = house.rows("SELECT * FROM credit_consent WHERE revoked_at_s = 0")
    assert row["largest_minor"] == 6_000
    lower = AutoTopupChange(True, trigger_below_nano_usd=USD, largest_rappen=5_000)
    assert house.topups.change_settings(PRACTICE, lower).largest_rappen == 5_000


def test_a_larger_charge_without_consent_is_not_made(house: House) -> None:
    house.change("UPDATE credit_topup_settings SET largest_minor = 9000")
    assert house.why_not() == "no_consent"


# ---------------------------------------------------------------- who is told


def test_the_customer_is_told_what_a_decline_leads_to(house: House) -> None:
    fail(house, poor(1))
    house.clock.wait(DAY_S)
    fail(house, LOST_CARD)
    house.arm()
    fail(house, NeedsCustomer("pi_9", "requires_action"))
    notices = [one for one in told(house) if one[0] != "consent_changed"]
    assert sorted(notices, key=str) == sorted([
        ("topup_failed", {"price_rappen": CHF_30, "reason": "insufficient_funds"}),
        ("auto_topup_paused", {"reason": "lost_card"}),
        ("authentication_needed", {"price_rappen": CHF_30}),
    ], key=str)  # fmt: skip


def test_after_three_failures_the_customer_is_told_that_it_is_off(house: House) -> None:
    for number in (1, 2, 3):
        fail(house, poor(number))
        house.clock.wait(3 * DAY_S)
    assert ("auto_topup_switched_off", {"reason": "three_failures"}) in told(house)


def test_an_attempt_without_an_outcome_for_a_day_is_told_to_the_operator_once(
    house: House,
) -> None:
    fail(house, Lost())
    house.gateway.down = PaymentUnavailable("down")
    house.clock.wait(DAY_S + 1)
    for _ in range(3):
        house.charger.janitor.resolve_once()
    assert [one for one in told(house) if one[0] == "attempt_unresolved"] == [
        ("attempt_unresolved", {"event_no": 1})
    ]


def test_each_change_of_the_settings_is_told(house: House) -> None:
    house.clock.wait(1)
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    assert [(kind, facts["enabled"]) for kind, facts in told(house)] == [
        ("consent_changed", 1), ("consent_changed", 0),
    ]  # fmt: skip


def test_a_card_saved_again_by_its_own_customer_is_no_act(house: House) -> None:
    fail(house, POOR)

    def again(space: Any) -> None:
        number, mode = space.practice_no(PRACTICE), space.practice(PRACTICE).mode
        row = settings.load_settings(space.cursor, number, mode)
        assert row is not None
        settings.save_settings(space.cursor, number, mode, row, space.now_s)

    house.run(again)
    assert house.why_not() == WAITING
