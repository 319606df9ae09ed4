"""Handles: what `with` does with a call, whichever way its block is left."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from guthaben.errors import (
    CallFinished,
    CallNotFound,
    IdempotencyConflict,
    InsufficientCredit,
    InvalidInput,
    PracticeClosed,
    PracticeFrozen,
    Refused,
    StoreUnavailable,
)
from guthaben.services.guthaben import Guthaben
from guthaben.services.handles import CallHandle
from tests.services.house import OTHER, PRACTICE, USD, Clock, House, in_parallel

LEFT = "left without settle"


@pytest.fixture
def credit(house: House) -> Guthaben:
    """A practice with 10 USD."""
    house.guthaben.grant(PRACTICE, 10 * USD, key="g")
    return house.guthaben


@pytest.fixture
def clock(house: House) -> Clock:
    return house.clock


def reserve(credit: Guthaben, key: str = "k", amount: int = USD, **more: object) -> CallHandle:
    """Hold a dollar."""
    return credit.reserve(PRACTICE, amount, key=key, **more)  # type: ignore[arg-type]


def figures(credit: Guthaben) -> tuple[int, int, int]:
    """Available, held, debt, in whole USD."""
    found = credit.balance(PRACTICE)
    assert (found.available_nano_usd % USD, found.held_nano_usd % USD) == (0, 0)
    return found.available_nano_usd // USD, found.held_nano_usd // USD, found.debt_nano_usd // USD


# ---------------------------------------------------------------- leaving the block


def test_a_block_that_settles_is_charged_its_cost(credit: Guthaben) -> None:
    with reserve(credit, amount=3 * USD) as call:
        assert figures(credit) == (7, 3, 0)
        view = call.settle(2 * USD, model="m", input_tokens=5, output_tokens=7)
    assert (view.status, view.applied, view.total_tokens) == ("settled", True, 12)
    assert (call.status, call.cost_nano_usd, figures(credit)) == ("settled", 2 * USD, (8, 0, 0))


def test_a_block_left_without_settling_releases_with_a_warning(
    credit: Guthaben, caplog: pytest.LogCaptureFixture
) -> None:
    with reserve(credit) as call:
        pass
    assert (call.status, figures(credit)) == ("released", (10, 0, 0))
    assert LEFT in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_block_that_released_is_left_without_a_warning(
    credit: Guthaben, caplog: pytest.LogCaptureFixture
) -> None:
    with reserve(credit) as call:
        assert call.release().status == "released"
    assert caplog.text == ""


EXCEPTIONS = [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit]
WAYS = {"release": ("released", 0), "charge": ("settled", 1), "keep": ("reserved", 0)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_an_exception_does_what_the_reservation_said(
    credit: Guthaben, kind: type[BaseException], way: str
) -> None:
    call = reserve(credit, on_exception=way)
    with pytest.raises(kind), call:
        raise kind
    status, cost = WAYS[way]
    held = int(status == "reserved")
    assert (call.status, figures(credit)) == (status, (10 - cost - held, held, 0))
    assert call.cost_nano_usd == cost * USD


def test_a_generator_that_is_closed_releases_its_call(credit: Guthaben) -> None:
    def stream() -> Iterator[int]:
        with reserve(credit) as call:
            yield 1
            call.settle(USD)

    answer = stream()
    next(answer)
    assert figures(credit) == (9, 1, 0)
    answer.close()  # type: ignore[attr-defined]
    assert figures(credit) == (10, 0, 0)


def settle_and_break(call: CallHandle) -> None:
    """Settle for nothing, then fail."""
    call.settle(0)
    raise ValueError("later")


def close_and_break(credit: Guthaben) -> None:
    """Lose the store, then fail."""
    credit.close()
    raise ValueError("the caller's own")


def test_an_exception_after_settling_changes_nothing(credit: Guthaben) -> None:
    call = reserve(credit, on_exception="charge")
    with pytest.raises(ValueError, match="later"), call:
        settle_and_break(call)
    assert (call.status, figures(credit)) == ("settled", (10, 0, 0))


def test_the_exception_is_what_its_caller_sees_even_when_the_store_is_down(
    credit: Guthaben,
) -> None:
    call = reserve(credit)
    with pytest.raises(ValueError, match="the caller's own"), call:
        close_and_break(credit)


def test_a_store_that_is_down_is_not_hidden_from_a_block_left_in_peace(credit: Guthaben) -> None:
    with pytest.raises(StoreUnavailable), reserve(credit):
        credit.close()


# ---------------------------------------------------------------- entering

ENDS: dict[str, Callable[[CallHandle], object]] = {
    "settled": lambda call: call.settle(USD),
    "released": lambda call: call.release(),
}


@pytest.mark.parametrize("status", ENDS)
def test_entering_the_block_of_an_ended_call_is_refused(credit: Guthaben, status: str) -> None:
    call = reserve(credit)
    ENDS[status](call)
    again = reserve(credit)
    assert (again.replayed, again.status, again.id) == (True, status, call.id)
    with pytest.raises(CallFinished, match=f"already {status}.*new key") as caught, again:
        pytest.fail("the block must not run")
    assert caught.value.status == status


def test_entering_the_block_of_an_expired_call_is_refused(credit: Guthaben, clock: Clock) -> None:
    reserve(credit, ttl_s=1)
    clock.wait(2)
    credit.expire()
    with pytest.raises(CallFinished, match="already expired"), reserve(credit, ttl_s=1):
        pytest.fail("the block must not run")


def test_a_repeated_reservation_is_the_same_call(credit: Guthaben) -> None:
    first, again = reserve(credit), reserve(credit)
    assert (first.replayed, again.replayed, first.id == again.id) == (False, True, True)
    assert figures(credit) == (9, 1, 0)
    again.settle(USD)
    assert first.settle(USD).replayed is True


def test_the_same_key_with_another_body_is_refused(credit: Guthaben) -> None:
    reserve(credit)
    for more in ({"amount": 2 * USD}, {"model": "m"}, {"ttl_s": 5}, {"on_exception": "keep"}):
        with pytest.raises(IdempotencyConflict, match="new key"):
            reserve(credit, **more)


def test_twenty_threads_with_one_key_make_one_hold(credit: Guthaben) -> None:
    found = in_parallel(20, lambda _i: reserve(credit))
    handles = [one for one in found if isinstance(one, CallHandle)]
    assert len({handle.id for handle in handles}) == 1
    assert sorted(handle.replayed for handle in handles) == [False] + [True] * 19
    assert figures(credit) == (9, 1, 0)


# ---------------------------------------------------------------- one end wins


def test_settling_after_a_release_charges_nothing_and_says_so(credit: Guthaben) -> None:
    call = reserve(credit)
    call.release()
    view = call.settle(USD)
    assert (view.applied, view.status, view.cost_nano_usd) == (False, "released", 0)
    assert figures(credit) == (10, 0, 0)


def test_releasing_after_a_settlement_changes_nothing_and_says_so(credit: Guthaben) -> None:
    call = reserve(credit)
    call.settle(USD)
    assert (call.release().applied, call.status, figures(credit)) == (False, "settled", (9, 0, 0))


def test_settling_twice_alike_is_a_replay_and_otherwise_a_refusal(credit: Guthaben) -> None:
    call = reserve(credit, amount=2 * USD)
    call.settle(USD, model="m")
    assert call.settle(USD, model="m").replayed is True
    assert call.settle(USD).replayed is True  # says nothing about the usage
    with pytest.raises(Refused, match="adjustment") as caught:
        call.settle(2 * USD)
    assert (caught.value.reason, figures(credit)) == ("settled_otherwise", (9, 0, 0))


@pytest.mark.parametrize(("on_expiry", "cost"), [("release", 0), ("charge", 2)])
@pytest.mark.parametrize("real", [0, 1, 2, 3])
def test_settling_after_expiry_books_the_difference_once(
    credit: Guthaben, clock: Clock, on_expiry: str, cost: int, real: int
) -> None:
    call = reserve(credit, amount=2 * USD, on_expiry=on_expiry, ttl_s=60)
    clock.wait(61)
    assert credit.expire() == 1
    assert figures(credit) == (10 - cost, 0, 0)
    view = call.settle(real * USD)
    assert (view.status, view.applied, view.cost_nano_usd) == ("settled_late", True, real * USD)
    assert figures(credit) == (10 - real, 0, 0)
    assert call.settle(real * USD).replayed is True
    with pytest.raises(Refused, match="already settled"):
        call.settle((real + 1) * USD)


def test_settling_after_an_exception_books_the_difference(credit: Guthaben) -> None:
    call = reserve(credit, amount=2 * USD)
    with pytest.raises(ValueError, match="x"), call:
        raise ValueError("x")
    assert call.settle(USD).status == "settled_late"
    assert figures(credit) == (9, 0, 0)


def test_settling_in_the_last_moment_and_expiring_have_one_winner(
    house: House, credit: Guthaben
) -> None:
    for number in range(10):
        call = reserve(credit, key=f"k{number}", ttl_s=1)
        house.clock.wait(2)
        found = in_parallel(2, lambda i, call=call: (call.settle(0), credit.expire())[i])  # type: ignore[misc]
        assert not [one for one in found if isinstance(one, BaseException)]
        assert call.settle(0).status in ("settled", "settled_late")
    assert figures(credit) == (10, 0, 0)


def test_extending_gives_time_and_never_takes_it(credit: Guthaben, clock: Clock) -> None:
    call = reserve(credit, ttl_s=60)
    assert call.extend(30).applied is False
    assert call.extend(120).expires_at_s == clock.at_s + 120
    clock.wait(100)
    credit.expire()
    assert credit.call(PRACTICE, call.id).status == "reserved"
    with pytest.raises(Refused, match="24 hours"):
        call.extend(86_400)
    clock.wait(30)
    with pytest.raises(Refused, match="Reserve a new one"):
        call.extend(60)


def test_a_cost_above_the_reservation_takes_what_is_there_then_becomes_debt(
    credit: Guthaben,
) -> None:
    reserve(credit).settle(13 * USD)
    assert figures(credit) == (0, 0, 3)


# ---------------------------------------------------------------- refusals


def test_too_little_credit_tells_how_much_there_is(credit: Guthaben) -> None:
    with pytest.raises(InsufficientCredit, match=r"11\.00 USD requested, 10\.00 USD") as caught:
        reserve(credit, amount=11 * USD)
    assert (caught.value.available_nano_usd, caught.value.requested_nano_usd) == (
        10 * USD, 11 * USD,
    )  # fmt: skip
    credit.grant(PRACTICE, USD, key="more")
    assert reserve(credit, amount=11 * USD).status == "reserved"  # the key was not used up


def test_frozen_and_closed_practices_have_their_own_refusals(credit: Guthaben) -> None:
    open_call = reserve(credit, key="before")
    credit.set_policy(PRACTICE, status="frozen")
    with pytest.raises(PracticeFrozen):
        reserve(credit)
    assert credit.record_usage(PRACTICE, USD, key="u").status == "settled"
    credit.set_policy(PRACTICE, status="closed")
    with pytest.raises(PracticeClosed):
        reserve(credit)
    with pytest.raises(PracticeClosed):
        credit.record_usage(PRACTICE, USD, key="u2")
    assert open_call.settle(USD).status == "settled"  # what is open may end


def test_a_store_that_is_closed_keeps_the_gate_shut(credit: Guthaben) -> None:
    credit.close()
    with pytest.raises(StoreUnavailable, match="same idempotency key"):
        reserve(credit)
    with pytest.raises(StoreUnavailable):
        credit.balance(PRACTICE)
    credit.close()  # twice does no harm


# ---------------------------------------------------------------- names of calls


def test_an_id_opens_its_own_call_for_its_own_practice_only(credit: Guthaben) -> None:
    call = reserve(credit)
    assert credit.call(PRACTICE, call.id).key == "k"
    credit.grant(OTHER, USD, key="g")
    theirs = credit.reserve(OTHER, USD, key="k")
    assert theirs.id != call.id  # the same number of another practice
    for practice_id, call_id in [(OTHER, call.id), (PRACTICE, theirs.id), ("prac_x", call.id)]:
        with pytest.raises(CallNotFound):
            credit.call(practice_id, call_id)


@pytest.mark.parametrize("call_id", [
    "", "call_", "call_1", "call_1_", "1", "call_1_aaaaaaaaaaaaaaaa", "call_0_x", "call_-1_x",
    "call_1_\ud800", "call_\u0661_x", "call_1_ä", "call_" + "9" * 40 + "_x", "call_1_x\n",
    "x" * 9_999,
], ids=lambda text: repr(text)[:30])  # fmt: skip
def test_an_id_that_is_none_is_not_found(credit: Guthaben, call_id: str) -> None:
    reserve(credit)
    with pytest.raises(CallNotFound):
        credit.call(PRACTICE, call_id)


def test_a_foreign_id_answers_as_a_missing_one(credit: Guthaben) -> None:
    call = reserve(credit)
    missing = f"call_99_{call.id.rpartition('_')[2]}"
    told = []
    for practice_id, call_id in [(OTHER, call.id), (PRACTICE, missing)]:
        with pytest.raises(CallNotFound) as caught:
            credit.call(practice_id, call_id)
        told.append(str(caught.value).replace(call_id, "ID"))
    assert told[0] == told[1]


def test_ids_are_unguessable_and_differ_between_databases(credit: Guthaben) -> None:
    calls = [reserve(credit, key=f"k{number}", amount=1) for number in range(50)]
    seals = {call.id.rpartition("_")[2] for call in calls}
    assert len(seals) == 50
    assert {len(seal) for seal in seals} == {20}  # eighty bits
    with Guthaben.open("sqlite://") as other:
        other.grant(PRACTICE, USD, key="g")
        assert other.reserve(PRACTICE, 1, key="k0").id not in {call.id for call in calls}


def test_an_id_stays_the_same_after_the_database_is_opened_again(house: House) -> None:
    house.guthaben.grant(PRACTICE, USD, key="g")
    call = house.guthaben.reserve(PRACTICE, USD, key="k")
    with house.open() as again:
        assert again.call(PRACTICE, call.id).status == "reserved"


def test_a_handle_in_the_log_shows_no_amount_and_no_key(credit: Guthaben) -> None:
    assert repr(reserve(credit, key="secret-key")) == f"<call 1 of {PRACTICE}: reserved>"


# ---------------------------------------------------------------- threads


def test_handles_may_cross_threads(credit: Guthaben) -> None:
    call = reserve(credit)
    thread = threading.Thread(target=lambda: call.settle(USD))
    thread.start()
    thread.join(10)
    assert (call.status, figures(credit)) == ("settled", (9, 0, 0))


def test_sixty_four_callers_never_get_more_than_there_is(credit: Guthaben) -> None:
    def one(index: int) -> None:
        with reserve(credit, key=f"k{index}") as call:
            call.settle(USD)

    found = in_parallel(64, one)
    assert found.count(None) == 10
    assert [type(one) for one in found if one is not None] == [InsufficientCredit] * 54
    assert figures(credit) == (0, 0, 0)


def test_a_reason_is_required_where_a_balance_is_corrected(credit: Guthaben) -> None:
    with pytest.raises(InvalidInput, match="reason must say why"):
        credit.adjust(PRACTICE, USD, key="a", reason=" ")
    assert credit.adjust(PRACTICE, USD, key="a", reason="goodwill").grant_no == 2
    assert credit.adjust(PRACTICE, USD, key="a", reason="goodwill").replayed is True
    assert figures(credit) == (11, 0, 0)
