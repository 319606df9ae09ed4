"""A claim decides and is committed in one transaction: consent, cap, one in flight, cooldown.

The month is Europe/Zurich's and is fixed when the attempt is claimed.
"""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from guthaben.domain.commands import Outcome, SetPolicy
from guthaben.domain.practice import ACTIVE, CLOSED, FROZEN
from guthaben.errors import InsufficientCredit
from guthaben.payments.gateway import Declined, NotSent, Processing, Unknown
from guthaben.services import auto_topup
from guthaben.services.topups import AutoTopupChange
from tests.services.conftest import Build
from tests.services.house import (
    CHF_30,
    NOON,
    OTHER,
    PRACTICE,
    TEN_USD,
    USD,
    House,
    in_parallel,
)

DAY_S = 86_400
ZURICH = ZoneInfo("Europe/Zurich")
CAP_REACHED = "auto_topup_monthly_limit_reached"
PENDING = "pending_auto_topup"
COOLDOWN = "cooldown_24h"
NUMBERS = itertools.count(1)


@pytest.fixture
def house(build: Build) -> House:
    """A house in which nobody claims but the test."""
    return build(watching=False)


@pytest.fixture
def watched(build: Build) -> House:
    """A house whose gate claims by itself."""
    return build(watching=True)


def zurich(text: str) -> int:
    """The instant of a wall clock in Zurich."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZURICH).timestamp())


def spend(house: House, practice_id: str = PRACTICE) -> None:
    """Use up whatever there is."""
    amount = house.guthaben.balance(practice_id).available_nano_usd
    if amount:
        house.guthaben.record_usage(practice_id, amount, key=f"spend-{next(NUMBERS)}")


def top_up(house: House, practice_id: str = PRACTICE) -> None:
    """Claim, charge, and spend it."""
    report = house.charge(house.claim(practice_id), practice_id)
    assert report.charged
    spend(house, practice_id)


# ---------------------------------------------------------------- what a claim is


def test_a_claim_is_a_pending_credit_event_with_key_and_exact_parameters(house: House) -> None:
    house.arm(amount_rappen=5_000, cap_rappen=20_000)
    event = house.claim()
    row = house.event()
    assert (row["event_type"], row["status"]) == ("auto_topup_purchase", "pending")
    assert (row["price_minor"], row["amount_nano_usd"]) == (5_000, 16_666_700_000)
    assert row["idempotency_key"] == f"guthaben-{event.topup_id}"
    assert json.loads(row["params"]) == {
        "amount_rappen": 5_000, "currency": "chf", "customer_id": "cus_1",
        "payment_method_id": "pm_1", "credit_nano_usd": 16_666_700_000,
        "practice_id": PRACTICE, "license": "",
    }  # fmt: skip
    assert house.gateway.asked == []
    assert house.credit() == 0


def test_the_ids_of_claims_are_unguessable_and_never_repeat(house: House) -> None:
    house.arm()
    seen = set()
    for _ in range(5):
        event = house.claim()
        assert len(event.topup_id) == len("tu_") + 24
        seen.add(event.topup_id)
        house.charge(event)
        spend(house)
        house.clock.wait(DAY_S)
    assert len(seen) == 5


# ---------------------------------------------------------------- why not


def _nothing(_house: House) -> None:
    pass


def _off(house: House) -> None:
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))


def _rich(house: House) -> None:
    house.guthaben.grant(PRACTICE, USD, key="g")


def _status(status: int) -> Any:
    return lambda house: house.store.execute(PRACTICE, SetPolicy(status))


def _sql(sql: str) -> Any:
    return lambda house: house.change(sql)


def _pending(house: House) -> None:
    house.claim()


def _unknown(house: House) -> None:
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())


def _processing(house: House) -> None:
    house.gateway.then(Processing("pi_1"))
    house.charge(house.claim())


REFUSALS: dict[str, tuple[Any, str]] = {
    "switched off": (_off, "disabled"),
    "enough credit": (_rich, "above_trigger"),
    "frozen": (_status(FROZEN), "practice_not_active"),
    "closed": (_status(CLOSED), "practice_not_active"),
    "no card": (
        _sql("UPDATE credit_provider_customer SET payment_method_id = NULL"), "no_payment_method",
    ),
    "no customer": (
        _sql("UPDATE credit_provider_customer SET customer_id = ''"), "no_payment_method",
    ),
    "an attempt is pending": (_pending, PENDING),
    "an attempt is unknown": (_unknown, PENDING),
    "a payment is processing": (_processing, PENDING),
    "just charged": (top_up, COOLDOWN),
    "no consent": (_sql("DELETE FROM credit_consent"), "no_consent"),
    "consent revoked": (_sql("UPDATE credit_consent SET revoked_at_s = 1"), "no_consent"),
    "consent to a smaller amount": (
        _sql("UPDATE credit_consent SET amount_minor = 2999"), "no_consent",
    ),
    "consent to a smaller cap": (
        _sql("UPDATE credit_consent SET cap_minor = 29999"), "no_consent",
    ),
    "cap below one charge": (
        _sql("UPDATE credit_topup_settings SET cap_minor = 2999"), CAP_REACHED,
    ),
    "no credit for it": (
        _sql("UPDATE credit_topup_settings SET credit_nano_usd = 0"), "misconfigured",
    ),
    "no price": (_sql("UPDATE credit_topup_settings SET amount_minor = 0"), "misconfigured"),
    "a negative price": (
        _sql("UPDATE credit_topup_settings SET amount_minor = -3000"), "misconfigured",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_no_claim_is_made(house: House, prepare: Any, reason: str) -> None:
    house.arm()
    prepare(house)
    before = house.events()
    assert house.why_not() == reason
    assert house.events() == before


def test_a_practice_that_never_set_anything_up_is_never_charged(house: House) -> None:
    assert house.why_not() == "disabled"
    house.save_card()
    assert house.why_not() == "disabled"


def test_the_decision_told_beforehand_is_the_one_that_is_made(house: House) -> None:
    def told() -> str:
        return house.run(lambda space: auto_topup.decision(space, PRACTICE, True)).reason.value

    assert told() == "disabled"
    house.arm()
    assert told() == "charge"
    assert house.events() == []  # asking changes nothing
    house.claim()
    assert told() == PENDING
    house.store.execute(PRACTICE, SetPolicy(FROZEN))
    assert told() == "practice_not_active"


def test_switched_off_between_a_decision_and_the_claim_no_claim_is_made(house: House) -> None:
    house.arm()
    assert house.run(lambda space: auto_topup.decision(space, PRACTICE, True)).charges
    _off(house)
    assert house.why_not() == "disabled"


# ---------------------------------------------------------------- one in flight


def test_fifty_threads_that_claim_at_once_get_one_attempt(house: House) -> None:
    house.arm(cap_rappen=2 * CHF_30)
    found = in_parallel(50, lambda _i: auto_topup.claim(house.store.run, PRACTICE))
    reasons = sorted(one.reason for one in found if isinstance(one, Outcome))
    assert reasons == ["", *[PENDING] * 49]
    assert house.statuses() == ["pending"]


def test_threads_of_several_processes_get_one_attempt(house: House) -> None:
    house.arm()
    others = [house.open() for _ in range(3)]
    runs = [house.store.run, *(other.core.store.run for other in others)]
    found = in_parallel(20, lambda i: auto_topup.claim(runs[i % 4], PRACTICE))
    for other in others:
        other.close()
    assert [one.applied for one in found if isinstance(one, Outcome)].count(True) == 1
    assert house.statuses() == ["pending"]


@pytest.mark.parametrize(("cap_rappen", "fits"), [
    (3_000, 1), (5_999, 1), (6_000, 2), (8_999, 2), (9_000, 3),
])  # fmt: skip
def test_a_crowd_that_claims_again_and_again_gets_exactly_what_fits_the_cap(
    house: House, cap_rappen: int, fits: int
) -> None:
    house.arm(cap_rappen=cap_rappen)
    house.change("UPDATE credit_topup_settings SET cooldown_s = 0")
    for _ in range(fits + 2):
        found = in_parallel(10, lambda _i: auto_topup.claim(house.store.run, PRACTICE))
        for one in found:
            if isinstance(one, Outcome) and one.event is not None:
                house.charge(one.event)
        spend(house)
    assert house.gateway.charged_rappen == fits * CHF_30
    assert house.why_not() == CAP_REACHED


def test_the_database_itself_refuses_a_second_attempt_in_flight(house: House) -> None:
    house.arm()
    house.claim()
    names = [*house.rows("SELECT * FROM credit_event")[0]]
    fresh = {"event_no": "99", "row_id": "99", "topup_id": "'tu_x'"}
    copied = ", ".join(fresh.get(name, name) for name in names)
    with pytest.raises(Exception, match=r"(?i)unique"):
        house.change(f"INSERT INTO credit_event SELECT {copied} FROM credit_event")


def test_the_practices_of_one_database_do_not_wait_for_each_other(house: House) -> None:
    house.arm()
    house.arm(OTHER)
    house.claim()
    assert house.claim(OTHER).topup_id != ""


# ---------------------------------------------------------------- the cap


@pytest.mark.parametrize("ending", [
    pytest.param(None, id="pending"),
    pytest.param(Unknown("connection"), id="unknown"),
    pytest.param(Processing("pi_1"), id="processing"),
    pytest.param("charged", id="succeeded"),
])  # fmt: skip
def test_the_cap_counts_an_attempt_that(house: House, ending: Any) -> None:
    house.arm(cap_rappen=CHF_30)
    event = house.claim()
    if ending is not None:
        if ending != "charged":
            house.gateway.then(ending)
        house.charge(event)
        spend(house)
    assert house.why_not() == CAP_REACHED
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30


def test_the_cap_does_not_count_what_was_certainly_not_charged(house: House) -> None:
    house.arm(cap_rappen=CHF_30)
    house.gateway.then(NotSent("busy"))
    house.charge(house.claim())
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 0
    house.clock.wait(3_600)
    house.claim()


def test_the_cap_counts_a_declined_payment_until_its_cancellation_is_confirmed(
    house: House,
) -> None:
    house.arm(cap_rappen=CHF_30)
    house.gateway.then(Declined("pi_1", "card_declined", "insufficient_funds", None, False))
    house.charge(house.claim())
    house.clock.wait(2 * DAY_S)
    assert house.why_not() == CAP_REACHED
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == CHF_30
    assert house.charger.janitor.cancel_once() == 1
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 0
    house.claim()


def test_a_charge_that_ended_in_quarantine_stops_further_charges(house: House) -> None:
    house.arm()
    event = house.claim()
    house.paid(
        event_type="auto_topup_purchase", topup_id=event.topup_id, session_id="",
        price_rappen=2_000,
    )  # fmt: skip
    assert house.statuses() == ["quarantined"]
    house.why_not()


def test_a_refund_does_not_give_the_cap_back(house: House) -> None:
    house.arm(cap_rappen=CHF_30)
    event = house.claim()
    house.charge(event)
    payment_id = house.event()["payment_id"]
    house.gateway.put(payment_id, refunded_rappen=CHF_30)
    about = {"id": "ch_1", "object": "charge", "payment_intent": payment_id}
    assert house.tell("charge.refunded", about) == "done:netted"
    house.clock.wait(2 * DAY_S)
    assert house.why_not() == CAP_REACHED


def test_a_purchase_by_hand_does_not_count(house: House) -> None:
    house.arm(cap_rappen=CHF_30)
    house.open_purchase()
    house.paid()
    spend(house)
    assert house.claim().price_minor == CHF_30, "all of the cap is left"


# ---------------------------------------------------------------- cooldown


def test_the_cooldown_ends_to_the_second(house: House) -> None:
    house.arm()
    top_up(house)
    house.clock.wait(DAY_S - 1)
    assert house.why_not() == COOLDOWN
    house.clock.wait(1)
    house.claim()


# ---------------------------------------------------------------- the month

MONTHS = [
    ("2025-11-30T23:59:59", "2025-11"),
    ("2025-12-01T00:00:00", "2025-12"),
    ("2025-12-31T23:59:59", "2025-12"),
    ("2026-01-01T00:00:00", "2026-01"),
    ("2026-02-28T23:59:59", "2026-02"),
    ("2028-02-29T23:59:59", "2028-02"),
    ("2026-03-29T01:59:59", "2026-03"),  # the last second of winter time
    ("2026-03-29T03:00:00", "2026-03"),
    ("2026-03-31T23:59:59", "2026-03"),  # summer time: 21:59:59 UTC
    ("2026-04-01T00:00:00", "2026-04"),
    ("2026-10-31T23:59:59", "2026-10"),  # winter time again: 22:59:59 UTC
    ("2026-11-01T00:00:00", "2026-11"),
]


@pytest.mark.parametrize(("instant", "month"), MONTHS)
def test_an_attempt_belongs_to_the_month_of_zurich(house: House, instant: str, month: str) -> None:
    house.clock.set(zurich(instant))
    house.arm()
    house.claim()
    row = house.event()
    assert (row["cap_month"], row["cap_zone"]) == (month, "Europe/Zurich")


@pytest.mark.parametrize("last", ["2025-11-30T23:59:59", "2026-03-31T23:59:59"])
def test_the_cap_is_fresh_in_the_first_second_of_a_month_and_not_before(
    house: House, last: str
) -> None:
    house.clock.set(zurich(last) - 2 * DAY_S)
    house.arm(cap_rappen=CHF_30)
    top_up(house)
    house.clock.set(zurich(last))
    assert house.why_not() == CAP_REACHED
    house.clock.wait(1)
    house.claim()


def test_the_month_stays_the_one_of_the_claim_when_the_answer_comes_in_the_next(
    house: House,
) -> None:
    house.clock.set(zurich("2025-11-30T23:59:59"))
    house.arm(cap_rappen=CHF_30)
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())
    house.clock.wait(3_600)
    house.resolve()
    row = house.event()
    assert (row["status"], row["cap_month"]) == ("succeeded", "2025-11")
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 0  # of December


def test_editing_the_time_of_an_event_never_moves_its_month(house: House) -> None:
    house.arm(cap_rappen=CHF_30)
    top_up(house)
    house.change("UPDATE credit_event SET event_at_s = ?", NOON - 60 * DAY_S)
    assert house.why_not() == CAP_REACHED


def test_another_zone_has_other_months(house: House) -> None:
    house.guthaben.set_policy(PRACTICE, time_zone="Pacific/Auckland")
    house.clock.set(zurich("2025-11-30T20:00:00"))  # 1 December in Auckland
    house.arm()
    house.claim()
    assert (house.event()["cap_month"], house.event()["cap_zone"]) == (
        "2025-12", "Pacific/Auckland",
    )  # fmt: skip


# ---------------------------------------------------------------- the gate's watch


def crossing(house: House, calls: int) -> list[Any]:
    """Let many calls run at once, which together cross the trigger."""
    house.guthaben.grant(PRACTICE, calls * USD // 10, key=f"g-{house.clock.ms}")
    stamp = house.clock.ms

    def one(index: int) -> None:
        call = house.guthaben.reserve(PRACTICE, USD // 10, key=f"{stamp}-{index}")
        call.settle(USD // 10)

    return in_parallel(calls, one)


def test_the_watch_claims_once_for_64_calls_that_cross_the_trigger(watched: House) -> None:
    watched.arm()
    assert set(crossing(watched, 64)) == {None}
    assert [practice_id for practice_id, _ in watched.claims] == [PRACTICE]
    assert watched.statuses() == ["pending"]
    assert watched.claims[0][1].event is not None


def test_the_watch_does_not_claim_again_in_the_cooldown(watched: House) -> None:
    watched.arm()
    crossing(watched, 16)
    event = watched.claims[0][1].event
    assert event is not None
    watched.charge(event)
    spend(watched)
    for _ in range(3):
        watched.clock.wait(3_601)
        with pytest.raises(InsufficientCredit):
            watched.guthaben.reserve(PRACTICE, USD, key="too much")
    assert len(watched.claims) == 1
    watched.clock.wait(DAY_S)
    with pytest.raises(InsufficientCredit):
        watched.guthaben.reserve(PRACTICE, USD, key="too much")
    assert len(watched.claims) == 2


def test_a_call_refused_for_lack_of_credit_claims(watched: House) -> None:
    watched.arm(trigger_below_nano_usd=0)
    watched.guthaben.grant(PRACTICE, USD, key="g")
    with pytest.raises(InsufficientCredit):
        watched.guthaben.reserve(PRACTICE, 2 * USD, key="k")
    assert len(watched.claims) == 1


def test_nobody_is_claimed_for_without_a_cause(watched: House) -> None:
    watched.guthaben.grant(PRACTICE, TEN_USD, key="g")
    watched.arm()
    watched.guthaben.reserve(PRACTICE, USD, key="k").settle(USD)
    assert watched.claims == []
    watched.guthaben.record_usage(OTHER, 5 * USD, key="k")  # never set up
    assert watched.claims == []


def test_the_watch_looks_at_the_allowance_by_percentage(watched: House) -> None:
    watched.arm(trigger_percent=50)
    watched.guthaben.set_license(
        PRACTICE, "L", period_start_s=NOON - 1, period_end_s=NOON + DAY_S,
        allowance_nano_usd=TEN_USD,
    )  # fmt: skip
    watched.guthaben.reserve(PRACTICE, 5 * USD, key="half").settle(5 * USD)
    assert watched.claims == []  # exactly half is not below half
    watched.guthaben.reserve(PRACTICE, 1, key="more").settle(1)
    assert len(watched.claims) == 1


def test_where_nobody_listens_nobody_claims(house: House) -> None:
    house.arm()
    crossing(house, 8)
    with pytest.raises(InsufficientCredit):
        house.guthaben.reserve(PRACTICE, USD, key="k")
    assert house.events() == []


def test_a_listener_that_breaks_leaves_the_attempt_pending_and_the_caller_unharmed(
    watched: House,
) -> None:
    watched.arm()
    watched.guthaben.grant(PRACTICE, USD, key="g")

    def broken(_practice_id: str, _outcome: Outcome) -> None:
        raise RuntimeError("the listener broke")

    watched.store._writers[0]._on_claim = broken
    assert watched.guthaben.reserve(PRACTICE, USD, key="k").settle(USD).status == "settled"
    assert watched.statuses() == ["pending"]


def test_a_frozen_practice_is_metered_and_not_claimed_for(watched: House) -> None:
    watched.guthaben.grant(PRACTICE, 2 * USD, key="g")
    watched.arm()
    watched.store.execute(PRACTICE, SetPolicy(FROZEN))
    watched.guthaben.record_usage(PRACTICE, 2 * USD, key="k")
    assert watched.claims == []
    watched.store.execute(PRACTICE, SetPolicy(ACTIVE))
    watched.clock.wait(60)
    watched.guthaben.record_usage(PRACTICE, 1, key="k2")
    assert len(watched.claims) == 1
