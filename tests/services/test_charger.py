"""The charger: a thread that charges what was claimed, and resolves what has no outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from guthaben.domain.commands import Outcome
from guthaben.errors import InsufficientCredit
from guthaben.payments.gateway import ChargeOrder, Processing, Unknown
from guthaben.services.auto_topup import Charger
from guthaben.services.guthaben import Guthaben
from guthaben.services.topups import AutoTopupChange
from tests.services.conftest import Build
from tests.services.fakes import Lost
from tests.services.house import CHF_30, OTHER, PRACTICE, TEN_USD, House, in_parallel

DAY_S = 86_400


@pytest.fixture
def house(build: Build) -> House:
    made = build(watching=False)
    made.arm()
    return made


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Charges wait for this; it is set at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def hand_over(house: House, practice_id: str = PRACTICE) -> None:
    """Claim, and tell the charger as the writer does."""
    event = house.claim(practice_id)
    house.charger.claimed(practice_id, Outcome(True, event=event))


def test_what_is_claimed_is_charged_on_a_thread_of_its_own(house: House) -> None:
    names: list[str] = []
    house.gateway.during = lambda _order: names.append(threading.current_thread().name)
    house.charger.start()
    hand_over(house)
    until(lambda: house.statuses() == ["succeeded"])
    assert names[0].startswith("guthaben-charger-")
    assert house.credit() == TEN_USD


def test_telling_it_of_a_claim_returns_at_once(house: House, hold: threading.Event) -> None:
    house.gateway.during = lambda _order: wait_for(hold)
    house.charger.start()
    hand_over(house)
    house.charger.claimed(OTHER, Outcome(True))  # a claim without an event is none
    assert house.statuses() == ["pending"]  # the charge waits, and nobody waited for it
    hold.set()


def wait_for(hold: threading.Event) -> None:
    """Wait, but not for ever."""
    hold.wait(60)


def test_a_claim_made_before_the_start_waits_for_it(house: House) -> None:
    hand_over(house)
    time.sleep(0.05)
    assert house.gateway.charges == []
    house.charger.start()
    until(lambda: house.statuses() == ["succeeded"])


def test_it_can_be_stopped_and_started_again(house: House) -> None:
    for practice_id in (PRACTICE, OTHER):
        house.arm(practice_id)
        house.charger.start()
        hand_over(house, practice_id)
        until(lambda practice_id=practice_id: house.statuses(practice_id) == ["succeeded"])  # type: ignore[misc]
        house.charger.stop()
    house.charger.stop()  # twice does no harm
    assert [house.statuses(practice_id) for practice_id in (PRACTICE, OTHER)] == [["succeeded"]] * 2


def test_stopping_finishes_the_charge_under_way(house: House, hold: threading.Event) -> None:
    under_way = threading.Event()

    def slow(_order: ChargeOrder) -> None:
        under_way.set()
        wait_for(hold)

    house.gateway.during = slow
    house.charger.start()
    hand_over(house)
    assert under_way.wait(10)
    threading.Timer(0.1, hold.set).start()
    house.charger.stop()
    assert house.statuses() == ["succeeded"]


def test_stopping_leaves_what_is_queued_pending(house: House, hold: threading.Event) -> None:
    under_way = threading.Event()

    def slow(_order: ChargeOrder) -> None:
        under_way.set()
        wait_for(hold)

    house.gateway.during = slow
    charger = Charger(house.gateway, threads=1)
    charger.attach(house.store)
    charger.start()
    for practice_id in (PRACTICE, OTHER, "prac_3"):
        house.arm(practice_id)
        charger.claimed(practice_id, Outcome(True, event=house.claim(practice_id)))
    assert under_way.wait(10)
    threading.Timer(0.1, hold.set).start()
    charger.stop()
    assert len(house.gateway.charges) == 1
    assert house.statuses("prac_3") == ["pending"]


def test_a_charge_that_breaks_does_not_end_the_thread(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.arm(OTHER)
    house.gateway.then(RuntimeError("a bug"))
    house.charger.start()
    hand_over(house)
    until(lambda: "charging broke" in caplog.text)
    hand_over(house, OTHER)
    until(lambda: house.statuses(OTHER) == ["succeeded"])
    assert house.statuses() == ["pending"]
    house.clock.wait(60)
    assert house.charger.resolve_waiting() == 1
    assert house.credit() == TEN_USD


# ---------------------------------------------------------------- the global stop


def test_the_global_stop_charges_and_resolves_nothing(house: House) -> None:
    charger = Charger(house.gateway, allowed=lambda: False)
    charger.attach(house.store)
    event = house.claim()
    charger.start()
    charger.claimed(PRACTICE, Outcome(True, event=event))
    time.sleep(0.05)
    charger.stop()
    house.clock.wait(3_600)
    assert charger.resolve_waiting() == 0
    assert house.gateway.asked == []
    assert house.credit() == 0


def test_what_the_global_stop_kept_back_is_closed_and_never_charged_later(house: House) -> None:
    allowed = [False]
    charger = Charger(house.gateway, allowed=lambda: allowed[0])
    charger.attach(house.store)
    charger.start()
    charger.claimed(PRACTICE, Outcome(True, event=house.claim()))
    until(lambda: house.statuses() == ["canceled"])
    charger.stop()
    allowed[0] = True
    house.clock.wait(3_600)
    assert charger.resolve_waiting() == 0
    assert house.gateway.asked == []
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 0


def test_while_charges_are_not_allowed_the_gate_claims_nothing(build: Build) -> None:
    house = build(watching=False)
    house.arm()
    allowed = [False]
    claims: list[str] = []
    credit = Guthaben.open(
        house.database.url,
        clock_ms=house.clock,
        on_claim=lambda practice_id, _outcome: claims.append(practice_id),
        may_claim=lambda: allowed[0],
    )
    for wanted in ([], [PRACTICE]):
        with pytest.raises(InsufficientCredit):
            credit.reserve(PRACTICE, 1, key="k")
        assert claims == wanted
        allowed[0] = True
    credit.close()


def test_a_question_about_permission_that_breaks_means_no_and_harms_nobody(build: Build) -> None:
    house = build(watching=False)
    house.arm()

    def broken() -> bool:
        raise RuntimeError("the setting can't be read")

    credit = Guthaben.open(
        house.database.url, clock_ms=house.clock, on_claim=lambda *_claim: None,
        may_claim=broken,
    )  # fmt: skip
    for number in range(3):
        with pytest.raises(InsufficientCredit):
            credit.reserve(PRACTICE, 1, key=f"k{number}")
    credit.close()
    assert house.events() == []


@pytest.mark.parametrize("prepare", [
    pytest.param(lambda house: switch_off(house), id="switched off"),
    pytest.param(lambda house: house.guthaben.set_policy(PRACTICE, status="frozen"), id="frozen"),
    pytest.param(lambda house: house.guthaben.set_policy(PRACTICE, status="closed"), id="closed"),
    pytest.param(
        lambda house: house.change("UPDATE credit_consent SET revoked_at_s = 1"), id="withdrawn"
    ),
])  # fmt: skip
def test_what_is_not_wanted_any_more_when_its_turn_comes_is_not_charged(
    house: House, prepare: Callable[[House], object]
) -> None:
    hand_over(house)
    prepare(house)
    house.charger.start()
    until(lambda: house.statuses() == ["canceled"])
    house.charger.stop()
    assert house.gateway.asked == []


def switch_off(house: House) -> None:
    """As the customer does."""
    house.topups.change_settings(PRACTICE, AutoTopupChange(enabled=False))


def test_an_attempt_that_waited_too_long_is_left_to_be_resolved(house: House) -> None:
    hand_over(house)
    house.clock.wait(61)
    house.charger.start()
    time.sleep(0.05)
    house.charger.stop()
    assert (house.gateway.asked, house.statuses()) == ([], ["pending"])
    assert house.charger.resolve_waiting() == 1
    assert house.gateway.charges[0].is_retry is False  # it was certainly never sent


def test_the_global_stop_is_asked_before_each_charge(house: House) -> None:
    answers = iter([True, False])
    charger = Charger(house.gateway, allowed=lambda: next(answers))
    charger.attach(house.store)
    house.arm(OTHER)
    for practice_id in (PRACTICE, OTHER):
        charger.claimed(practice_id, Outcome(True, event=house.claim(practice_id)))
    charger.start()
    until(lambda: house.statuses() == ["succeeded"])
    charger.stop()
    assert len(house.gateway.charges) == 1


def test_a_charger_without_a_store_does_nothing(house: House) -> None:
    charger = Charger(house.gateway)
    assert charger.resolve_waiting() == 0
    charger._charge(PRACTICE, house.claim())
    assert house.gateway.asked == []


# ---------------------------------------------------------------- resolving


def test_an_attempt_of_the_last_minute_is_left_to_the_thread_that_charges_it(
    house: House,
) -> None:
    house.claim()
    house.clock.wait(59)
    assert house.charger.resolve_waiting() == 0
    assert house.gateway.asked == []
    house.clock.wait(1)
    assert house.charger.resolve_waiting() == 1


def test_all_open_attempts_are_resolved_the_oldest_first(house: House) -> None:
    order = []
    for number in range(5):
        practice_id = f"prac_{number}"
        house.arm(practice_id)
        house.gateway.then(Lost() if number % 2 else Unknown("connection"))
        house.charge(house.claim(practice_id), practice_id)
        order.append(house.events(practice_id)[0]["topup_id"])
        house.clock.wait(1)
    house.clock.wait(60)
    assert house.charger.resolve_waiting() == 5
    assert [one.metadata["topup_id"] for one in house.gateway.charges[5:]] == order
    assert house.gateway.charged_rappen == 5 * CHF_30
    assert house.charger.resolve_waiting() == 0


def test_two_that_resolve_at_once_charge_once(house: House) -> None:
    house.gateway.then(Unknown("connection"))
    house.charge(house.claim())
    house.clock.wait(60)
    found = in_parallel(4, lambda _i: house.charger.resolve_waiting())
    assert not [one for one in found if isinstance(one, BaseException)]
    assert (house.gateway.charged_rappen, house.credit()) == (CHF_30, TEN_USD)


def test_an_attempt_without_an_outcome_for_a_day_raises_an_alarm_once(house: House) -> None:
    house.gateway.then(Processing("pi_1"))
    house.charge(house.claim())
    house.clock.wait(DAY_S)
    house.charger.resolve_waiting()
    assert house.alarms() == []
    for _ in range(3):
        house.clock.wait(1)
        house.charger.resolve_waiting()
    assert house.alarms() == ["attempt_without_outcome"]


def test_one_broken_attempt_does_not_keep_the_others_from_being_resolved(house: House) -> None:
    house.claim()
    house.change("UPDATE credit_event SET params = '{'")
    house.clock.wait(1)
    house.arm(OTHER)
    house.claim(OTHER)
    house.clock.wait(60)
    house.charger.resolve_waiting()
    assert house.statuses(OTHER) == ["succeeded"]


def test_attempts_that_cannot_be_resolved_do_not_starve_the_others(house: House) -> None:
    for number in range(25):
        house.open_purchase(
            f"tu_{number}", practice_id=f"host_{number}", event_type="auto_topup_purchase",
            session_id="",
        )  # fmt: skip
    house.clock.wait(1)
    house.claim()
    house.clock.wait(60)
    for _ in range(3):
        house.charger.resolve_waiting()
    assert house.statuses() == ["succeeded"]


def test_an_attempt_that_another_server_is_sending_is_not_withdrawn(house: House) -> None:
    here = Charger(house.gateway, allowed=lambda: False)
    here.attach(house.store)
    seen: list[tuple[list[str], str]] = []

    def meanwhile(_order: ChargeOrder) -> None:
        here.start()
        here.claimed(PRACTICE, Outcome(True, event=event))
        waited_for = here.under_way(PRACTICE)
        assert waited_for is not None
        assert not waited_for.result(timeout=10)
        seen.append((house.statuses(), house.why_not()))

    event = house.claim()
    house.gateway.during = meanwhile
    house.charge(event)
    here.stop()
    assert seen == [(["pending"], "pending_auto_topup")]
    assert house.statuses() == ["succeeded"]
