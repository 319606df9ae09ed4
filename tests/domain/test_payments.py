"""Purchases, refunds and claims of an automatic top-up, example by example."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.apply import apply
from guthaben.domain.auto_topup import AutoTopup, Consent
from guthaben.domain.commands import (
    ClaimTopup,
    CloseEvent,
    Fulfil,
    NetPayment,
    OpenEvent,
    RecordUsage,
    SetLicense,
    SetPolicy,
    TakeCredit,
)
from guthaben.domain.grants import PAID, PROMOTIONAL
from guthaben.domain.practice import CLOSED, FROZEN
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    FAILED_AUTO_TOPUP,
    PENDING,
    REFUND,
    SUCCEEDED,
    TOPUP_PURCHASE,
    CreditEvent,
)
from tests.domain.desk import T0_S, Desk, Flow, refused

TEN_USD = 10_000_000_000
BOUGHT = CreditEvent(0, TOPUP_PURCHASE, PENDING, TEN_USD, 3_000, event_at_s=T0_S - 50)


def opened(desk: Desk, **changes: Any) -> int:
    told = desk(OpenEvent(BOUGHT._replace(**changes)))
    assert told.event is not None
    assert desk.flows == []
    return told.event.event_no


def bought(desk: Desk, **changes: Any) -> int:
    number = opened(desk, **changes)
    assert desk(Fulfil(number, f"pi_{number}", f"cs_{number}")).applied
    return number


# ---- Fulfil


def test_a_payment_turns_into_credit_once() -> None:
    desk = Desk()
    number = opened(desk, bonus_nano_usd=5)
    first = desk(Fulfil(number, "pi_1", "cs_1", 3_100, True))
    assert desk.flows == [
        ("purchased", "paid", 1, TEN_USD), ("gifted", "promotional", 2, 5),
    ]  # fmt: skip
    event = desk.events[number]
    assert (event.status, event.payment_id, event.session_id) == (SUCCEEDED, "pi_1", "cs_1")
    assert (event.grant_no, event.bonus_grant_no, event.captured_minor) == (1, 2, 3_100)
    assert (event.livemode, event.event_at_s) == (True, T0_S - 50)
    assert {t.event_no for t in desk.journal} == {number}
    again = desk(Fulfil(number, "pi_2"))
    assert (first.applied, again.ok, again.applied, desk.flows) == (True, True, False, [])
    assert again.event == event


@pytest.mark.parametrize("status", ["pending", "unknown", "failed", "canceled", "quarantined"])
def test_whatever_came_before_a_succeeded_payment_gives_credit(status: str) -> None:
    desk = Desk()
    number = opened(desk, event_type=FAILED_AUTO_TOPUP, reason="card_declined")
    if status != PENDING:
        assert desk(CloseEvent(number, status)).applied
    assert desk(Fulfil(number, "pi_1")).applied
    event = desk.events[number]
    assert (event.event_type, event.reason) == (AUTO_TOPUP_PURCHASE, "")
    assert event.event_at_s == T0_S


def test_the_pause_after_an_automatic_charge_counts_from_its_success() -> None:
    # Found by the simulation: after a week in processing the claim is a week old, its success new.
    desk = Desk()
    number = opened(desk, event_type=AUTO_TOPUP_PURCHASE, sent_at_s=T0_S)
    desk.wait(7 * 86_400_000)
    assert desk(Fulfil(number, "pi_1")).applied
    assert desk.events[number].event_at_s == T0_S + 7 * 86_400
    for told in (opened(desk), opened(desk, event_type=AUTO_TOPUP_PURCHASE)):  # not sent by us
        assert desk(Fulfil(told, f"pi_{told}")).applied
        assert desk.events[told].event_at_s == T0_S - 50


def test_a_closed_practice_gets_what_it_paid_for() -> None:
    desk = Desk()
    number = opened(desk)
    desk(SetPolicy(status=CLOSED))
    assert desk(Fulfil(number)).applied
    assert desk.events[number].captured_minor == 3_000
    assert desk(NetPayment(number, 0)).applied
    assert desk.figures() == (0, 0, 0)


@pytest.mark.parametrize("command", [Fulfil(7), CloseEvent(7, "failed"), NetPayment(7, 0)])
def test_no_such_event(command: Any) -> None:
    assert refused(Desk()(command)) == "event_not_found"


def test_what_takes_credit_can_not_be_fulfilled() -> None:
    desk = Desk()
    assert refused(desk(Fulfil(opened(desk, amount_nano_usd=-5)))) == "cannot_fulfil"
    assert refused(desk(Fulfil(opened(desk, status="paid")))) == "cannot_fulfil"


def test_a_purchase_of_nothing_gives_nothing() -> None:
    desk = Desk()
    number = opened(desk, amount_nano_usd=0, price_minor=None)
    told = desk(Fulfil(number))
    assert (told.applied, told.grant_no, desk.flows) == (True, 0, [])
    assert refused(desk(NetPayment(number, 0))) == "not_fulfilled"  # nothing was captured


def test_paid_credit_repays_debt_first() -> None:
    desk = Desk()
    desk(RecordUsage("u", 40))
    bought(desk)
    assert desk.flows == [("purchased", "paid", 1, TEN_USD), ("paid", "debt", 1, 40)]


# ---- CloseEvent


def test_the_first_answer_stands() -> None:
    desk = Desk()
    number = opened(desk)
    told = desk(CloseEvent(number, "failed", FAILED_AUTO_TOPUP, "pi_1", "cs_1", "declined"))
    assert told.applied
    event = desk.events[number]
    assert (event.status, event.event_type, event.payment_id, event.session_id, event.reason) == (
        "failed", FAILED_AUTO_TOPUP, "pi_1", "cs_1", "declined",
    )  # fmt: skip
    assert desk(CloseEvent(number, "failed", reason="other")).applied is False
    assert desk(CloseEvent(number, "pending")).applied is False
    assert desk.events[number] == event
    desk(Fulfil(number))
    assert desk(CloseEvent(number, "canceled")).applied is False
    assert desk.events[number].status == SUCCEEDED


@pytest.mark.parametrize(
    ("command", "applied"),
    [
        (CloseEvent(1, "unknown"), False),
        (CloseEvent(1, "unknown", payment_id="pi_1"), True),
        (CloseEvent(1, "unknown", session_id="cs_1"), True),
        (CloseEvent(1, "unknown", payment_id="pi_0"), False),
    ],
)
def test_an_event_in_flight_may_learn_its_names(command: CloseEvent, applied: bool) -> None:
    desk = Desk()
    opened(desk, status="unknown", payment_id="pi_0")
    assert desk(command).applied is applied
    assert desk.events[1].payment_id == (command.payment_id or "pi_0")


# ---- NetPayment


@pytest.mark.parametrize(
    ("net", "left"),
    [(3000, TEN_USD), (2999, 9_996_666_666), (1500, 5_000_000_000), (1, 3_333_333), (0, 0),
     (-7, 0), (9999, TEN_USD)],
)  # fmt: skip
def test_what_is_left_of_a_payment(net: int, left: int) -> None:
    desk = Desk()
    number = bought(desk)
    told = desk(NetPayment(number, net))
    assert told.applied is (left < TEN_USD)
    assert desk.figures() == (left, 0, 0)
    assert desk.events[number].clawed_back_nano_usd == TEN_USD - left
    again = desk(NetPayment(number, net))
    assert (again.ok, again.applied, desk.flows) == (True, False, [])


def test_a_clawback_takes_its_own_then_other_paid_credit_then_debt_and_no_holds() -> None:
    desk = Desk()
    number = bought(desk, amount_nano_usd=100)
    desk.grant(PAID, 50)
    desk.grant(PROMOTIONAL, 9)
    desk.reserve(69)  # 9 promotional and 60 of the payment's own 100
    desk(NetPayment(number, 0))
    assert desk.flows == [
        ("paid", "clawed_back", 1, 40), ("paid", "clawed_back", 2, 50),
        ("debt", "clawed_back", 0, 10),
    ]  # fmt: skip
    assert desk.figures() == (0, 69, 10)


def test_a_clawback_takes_the_payments_own_credit_before_older() -> None:
    desk = Desk()
    desk.grant(PAID, 100)
    number = bought(desk, amount_nano_usd=100)
    desk(NetPayment(number, 0))
    assert desk.flows == [("paid", "clawed_back", 2, 100)]


def test_a_won_dispute_brings_the_credit_back() -> None:
    desk = Desk()
    number = bought(desk, amount_nano_usd=100, bonus_nano_usd=10)
    desk(NetPayment(number, 0, "dispute"))
    assert desk.figures() == (0, 0, 0)
    told = desk(NetPayment(number, 3000, "dispute"))
    assert desk.flows == [("clawed_back", "paid", 1, 100), ("clawed_back", "promotional", 2, 10)]
    assert told.amount_nano_usd == 110
    assert desk.figures() == (110, 0, 0)
    assert desk.events[number].clawed_back_nano_usd == 0


def test_a_bonus_goes_in_proportion_from_its_own_grant_then_paid_credit_then_debt() -> None:
    desk = Desk()
    number = bought(desk, amount_nano_usd=100, bonus_nano_usd=10)
    desk(RecordUsage("u", 8))  # of the bonus
    desk(NetPayment(number, 1500))
    assert desk.flows == [
        ("paid", "clawed_back", 1, 50), ("promotional", "clawed_back", 2, 2),
        ("paid", "clawed_back", 1, 3),
    ]  # fmt: skip
    assert desk.figures() == (47, 0, 0)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6))
def test_the_lines_of_the_history_add_up_to_the_money(nets: list[int]) -> None:
    desk = Desk()
    number = bought(desk)
    for net in nets:
        desk(NetPayment(number, net))
    lines = [event for event in desk.events.values() if event.parent_event_no == number]
    assert sum(line.price_minor or 0 for line in lines) == nets[-1] - 3000
    assert sum(line.amount_nano_usd for line in lines) == TEN_USD * nets[-1] // 3000 - TEN_USD
    assert all(line.event_type == REFUND and line.status == SUCCEEDED for line in lines)
    assert {line.payment_id for line in lines} <= {f"pi_{number}"}


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_without_credit_there_is_nothing_to_claw_back(status: str) -> None:
    desk = Desk()
    number = opened(desk, status=status)
    assert refused(desk(NetPayment(number, 0))) == "not_fulfilled"


# ---- TakeCredit


@pytest.mark.parametrize(
    ("amount", "flows"),
    [
        (20, [("paid", "clawed_back", 1, 20)]),
        (80, [("paid", "clawed_back", 1, 70), ("debt", "clawed_back", 0, 10),
              ("promotional", "debt", 2, 10)]),
    ],
)  # fmt: skip
def test_a_refund_without_a_payment_takes_paid_credit(amount: int, flows: list[Flow]) -> None:
    desk = Desk(paid=70)
    desk.grant(PROMOTIONAL, 30)
    told = desk(TakeCredit(CreditEvent(0, REFUND, SUCCEEDED, -amount)))
    assert desk.flows == flows
    assert told.event is not None
    assert desk.events[told.event.event_no].amount_nano_usd == -amount


@pytest.mark.parametrize("amount", [0, 5, -(10**15) - 1])
def test_a_refund_takes_something(amount: int) -> None:
    event = CreditEvent(0, REFUND, SUCCEEDED, amount)
    assert refused(Desk()(TakeCredit(event))) == "invalid_amount"


# ---- ClaimTopup


READY = AutoTopup(
    enabled=True, customer_id="cus_1", payment_method_id="pm_1",
    consent=Consent(1, 3_000, 30_000), cap_month="2023-11", cap_zone="Europe/Zurich",
)  # fmt: skip


def claim(desk: Desk, context: AutoTopup | None, **said: Any) -> Any:
    return apply(desk.practice, context, ClaimTopup("tu_1", **said), desk.now)


def low_desk() -> Desk:
    desk = Desk()
    desk(SetLicense("L", True, T0_S, T0_S + 1000, 100))
    desk(RecordUsage("u", 96))  # 4 % are left
    return desk


def test_a_claim_writes_the_attempt_down_before_anybody_charges() -> None:
    desk = low_desk()
    told = claim(desk, READY)
    event = told.new_event
    assert told.outcome.applied
    assert (event.event_type, event.status) == (AUTO_TOPUP_PURCHASE, PENDING)
    assert (event.amount_nano_usd, event.price_minor, event.currency) == (TEN_USD, 3_000, "chf")
    assert (event.cap_month, event.cap_zone, event.license) == ("2023-11", "Europe/Zurich", "L")
    assert (event.topup_id, event.idempotency_key) == ("tu_1", "guthaben-tu_1")
    assert json.loads(event.params) == {
        "amount_rappen": 3_000, "currency": "chf", "customer_id": "cus_1",
        "payment_method_id": "pm_1", "credit_nano_usd": TEN_USD, "practice_id": "prac_1",
        "license": "L",
    }  # fmt: skip
    assert told.transfers == []
    assert told.practice.next_event_no == desk.practice.next_event_no + 1
    assert told.practice.auto_topup_next_s == T0_S + 30


def test_a_claim_may_name_its_licence() -> None:
    assert claim(low_desk(), READY, license="M").new_event.license == "M"


@pytest.mark.parametrize(
    ("context", "reason", "next_s"),
    [
        (None, "disabled", T0_S + 30),
        (READY._replace(spent_rappen=27_001), "auto_topup_monthly_limit_reached", T0_S + 30),
        (READY._replace(last_success_at_s=T0_S - 86_390), "cooldown_24h", T0_S + 10),
        (READY._replace(last_success_at_s=T0_S), "cooldown_24h", T0_S + 3600),
    ],
)
def test_a_claim_that_charges_nothing_says_why_and_rests(
    context: AutoTopup | None, reason: str, next_s: int
) -> None:
    told = claim(low_desk(), context)
    assert (told.outcome.ok, told.outcome.applied, told.outcome.reason) == (True, False, reason)
    assert told.new_event is None
    assert told.practice.auto_topup_next_s == next_s


def test_above_the_trigger_it_may_be_asked_any_time() -> None:
    desk = Desk()
    desk(SetLicense("L", True, T0_S, T0_S + 1000, 100))
    desk(RecordUsage("u", 95))
    told = claim(desk, READY)
    assert (told.outcome.reason, told.practice.auto_topup_next_s) == ("above_trigger", 0)
    assert claim(desk, READY, shortfall=True).outcome.applied


@pytest.mark.parametrize("status", [FROZEN, CLOSED])
def test_a_practice_that_is_not_active_is_not_charged(status: int) -> None:
    desk = low_desk()
    desk(SetPolicy(status=status))
    assert claim(desk, READY).outcome.reason == "practice_not_active"
