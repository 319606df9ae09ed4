"""Operators' stops: for one practice or for all, on every server, before the next attempt."""

from __future__ import annotations

import pytest

from guthaben.errors import InsufficientCredit, InvalidInput
from guthaben.payments.gateway import Unknown
from guthaben.services.topup_stops import TopupStops
from guthaben.services.topups import AutoTopupChange
from tests.services.conftest import Build
from tests.services.house import OTHER, PRACTICE, TEN_USD, USD, House

STOPPED = "topups_stopped"
WHY = "the bank called"


@pytest.fixture
def house(build: Build) -> House:
    made = build(watching=False)
    made.arm()
    made.arm(OTHER)
    return made


@pytest.fixture
def stops(house: House) -> TopupStops:
    return TopupStops(house.guthaben)


@pytest.mark.parametrize(("whom", "stopped"), [
    (PRACTICE, {PRACTICE}), (None, {PRACTICE, OTHER}), (OTHER, {OTHER}),
])  # fmt: skip
def test_a_stop_holds_for_whom_it_names(
    house: House, stops: TopupStops, whom: str | None, stopped: set[str]
) -> None:
    assert stops.stop(whom, reason=WHY, actor="op_1") is True
    for practice_id in (PRACTICE, OTHER):
        assert house.topups.settings(practice_id).stopped is (practice_id in stopped)
        if practice_id in stopped:
            assert house.why_not(practice_id) == STOPPED
        else:
            house.claim(practice_id)
    assert stops.resume(whom, actor="op_1") is True
    for practice_id in stopped:
        house.claim(practice_id)


def test_lifting_the_stop_of_all_leaves_the_stop_of_one(house: House, stops: TopupStops) -> None:
    stops.stop(None, reason=WHY)
    stops.stop(PRACTICE, reason=WHY)
    stops.resume(None)
    assert house.why_not() == STOPPED
    house.claim(OTHER)


def test_another_server_obeys_at_once(build: Build, house: House, stops: TopupStops) -> None:
    other = house.open()
    TopupStops(other).stop(None, reason=WHY)
    assert house.why_not() == STOPPED
    other.close()


def test_what_was_claimed_and_not_sent_is_cancelled(house: House, stops: TopupStops) -> None:
    event = house.claim()
    stops.stop(None, reason=WHY)
    report = house.charge(event)
    assert (report.charged, report.reason) == (False, STOPPED)
    assert (house.statuses(), house.event()["reason"]) == (["canceled"], STOPPED)
    assert house.gateway.asked == []
    stops.resume(None)
    house.claim()


def test_an_unknown_attempt_is_looked_up_and_not_sent_again(
    house: House, stops: TopupStops
) -> None:
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())
    stops.stop(PRACTICE, reason=WHY)
    house.clock.wait(3_600)
    assert house.charger.janitor.resolve_once() == 1
    assert house.gateway.methods() == ["charge_saved_card", "find_payment"]
    assert house.statuses() == ["canceled"]


def test_a_refused_call_under_a_stop_claims_nothing(build: Build) -> None:
    house = build(watching=True)
    house.arm()
    TopupStops(house.guthaben).stop(PRACTICE, reason=WHY)
    for number in range(3):
        house.clock.wait(60)
        with pytest.raises(InsufficientCredit):
            house.guthaben.reserve(PRACTICE, USD, key=f"k{number}")
    assert house.claims == []
    assert house.charger.janitor.check_once() == 0


def test_a_stop_is_not_the_customers_switch(house: House, stops: TopupStops) -> None:
    stops.stop(PRACTICE, reason=WHY)
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))
    stops.resume(PRACTICE)
    assert house.why_not() == "disabled"
    stops.stop(PRACTICE, reason=WHY)
    house.arm()  # the customer may agree, and is held back all the same
    assert house.why_not() == STOPPED


def test_twice_is_once_and_the_first_reason_stands(house: House, stops: TopupStops) -> None:
    assert stops.stop(PRACTICE, reason="first", actor="a") is True
    assert stops.stop(PRACTICE, reason="second", actor="b") is False
    found = stops.show(PRACTICE)
    assert found.stop is not None
    assert (found.stop.reason, found.stop.actor, found.stop_of_all) == ("first", "a", None)
    assert (stops.resume(PRACTICE), stops.resume(PRACTICE)) == (True, False)
    actions = [row["action"] for row in house.rows("SELECT action FROM credit_settings_audit")]
    actions = [action for action in actions if action.startswith("topups_")]
    assert actions[-2:] == ["topups_stopped", "topups_resumed"]


@pytest.mark.parametrize("reason", ["", "no", " " * 9, "x" * 1_001])
def test_a_stop_says_why(stops: TopupStops, reason: str) -> None:
    with pytest.raises(InvalidInput):
        stops.stop(None, reason=reason)


def test_a_practice_that_was_never_seen_can_be_stopped_before_it_begins(
    house: House, stops: TopupStops
) -> None:
    assert stops.show("prac_new").would == "disabled"
    stops.stop("prac_new", reason=WHY)
    house.arm("prac_new")
    assert house.why_not("prac_new") == STOPPED


def test_an_operator_sees_what_would_happen_and_what_is_open(
    house: House, stops: TopupStops
) -> None:
    assert stops.show(PRACTICE).would == "charge"
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())
    shown = stops.show(PRACTICE)
    assert (shown.would, shown.tries_of_card, shown.on_decline) == (
        "pending_auto_topup",
        1,
        "retry",
    )
    assert shown.consent is not None
    assert shown.consent.text_version == "2026-11"
    stops.stop(OTHER, reason=WHY)
    found = stops.all()
    assert [(held, stop.reason) for held, stop in found.stopped_practices] == [(OTHER, WHY)]
    assert [(one.practice_id, one.open_rappen) for one in found.open_attempts] == [
        (PRACTICE, 3_000)
    ]
    house.clock.wait(60)
    house.charger.janitor.resolve_once()
    assert stops.all().open_attempts == ()
    assert house.credit() == TEN_USD
