"""The oracle is pinned by examples worked by hand from docs/rules.md, and by a random walk.

An example that disagrees with the engine is a bug of one of the two, or a gap in the rules.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.oracle import Oracle, Period, Prediction, month_around, summed

T0 = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
T0_S = T0 // 1000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOVEMBER = (1_698_793_200, 1_701_385_200)  # Zurich, UTC+1 at both ends
JAN: Period = ("L", T0_S, T0_S + 1000, 100)  # a period with an allowance of 100
BARE: Period = ("L", T0_S, T0_S + 1000, None)


def with_credit(**grants: int) -> Oracle:
    """A practice with one grant per keyword, numbered in that order: paid=100, promotional=50."""
    oracle = Oracle()
    for kind, amount in grants.items():
        granted = oracle.grant_credit(T0, f"given-{kind}", kind, amount)
        assert granted["ok"]
    return oracle


def refused(prediction: Prediction) -> str:
    assert not prediction["ok"]
    assert not prediction["applied"]
    assert not prediction["replayed"]
    assert prediction["flows"] == []
    return prediction["reason"]


def ended(prediction: Prediction) -> tuple[bool, bool, str | None, int | None]:
    assert prediction["ok"]
    assert prediction["reason"] == ""
    return (
        prediction["applied"],
        prediction["replayed"],
        prediction["status"],
        prediction["cost"],
    )


def figures(oracle: Oracle, now_ms: int = T0) -> tuple[int, int, int]:
    return oracle.available(None, now_ms), oracle.held(), oracle.debt()


# -- Periods ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now_s", "zone", "start_s", "end_s"),
    [
        (T0_S, "Europe/Zurich", *NOVEMBER),
        (NOVEMBER[0], "Europe/Zurich", *NOVEMBER),
        (NOVEMBER[1] - 1, "Europe/Zurich", *NOVEMBER),
        (NOVEMBER[1], "Europe/Zurich", NOVEMBER[1], 1_704_063_600),
        # March 2024 loses an hour: 31 days less 3600 s.
        (1_710_000_000, "Europe/Zurich", 1_709_247_600, 1_709_247_600 + 31 * 86_400 - 3600),
        # October 2024 gains one.
        (1_729_000_000, "Europe/Zurich", 1_727_733_600, 1_727_733_600 + 31 * 86_400 + 3600),
        (T0_S, "UTC", 1_698_796_800, 1_701_388_800),
        (T0_S, "Asia/Kathmandu", 1_698_796_800 - 20_700, 1_701_388_800 - 20_700),
    ],
)
def test_calendar_month(now_s: int, zone: str, start_s: int, end_s: int) -> None:
    assert month_around(now_s, zone) == (start_s, end_s)
    assert Oracle(zone=zone).current_period(now_s * 1000) == ("", start_s, end_s, None)


@pytest.mark.parametrize(
    ("now_s", "start_s", "end_s"),
    [
        (999, 1000, 1100),
        (1000, 1000, 1100),
        (1099, 1000, 1100),
        (1100, 1100, 1200),
        (1101, 1100, 1200),
        (1350, 1300, 1400),
        (1400, 1400, 1500),
    ],
)
def test_licence_rolls_on_by_its_own_length(now_s: int, start_s: int, end_s: int) -> None:
    oracle = Oracle()
    oracle.set_license(0, "L", "active", 1000, 1100, 70)
    assert oracle.current_period(now_s * 1000 + 999) == ("L", start_s, end_s, 70)


def test_inactive_licence_leaves_the_calendar_month() -> None:
    oracle = Oracle()
    oracle.set_license(T0, "L", "canceled", T0_S, T0_S + 1000, 70)
    assert oracle.current_period(T0) == ("", *NOVEMBER, None)
    oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 70)
    oracle.remove_license(T0)
    assert oracle.current_period(T0) == ("", *NOVEMBER, None)


def test_allowance_comes_with_the_first_accepted_command_and_once() -> None:
    oracle = Oracle()
    oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 100)
    assert oracle.available(None, T0) == 100
    assert oracle.grants == []
    too_much = oracle.reserve(T0, "a", 101)
    assert refused(too_much) == "insufficient_credit"
    assert too_much["available"] == 100
    assert oracle.grants == []
    first = oracle.reserve(T0, "a", 60)
    assert first["flows"] == [("included", "allowance", 1, 100)]
    assert first["available"] == 40
    assert oracle.reserve(T0, "b", 40)["flows"] == []
    assert oracle.totals() == {"allowance": 100, "included": -100}


def test_allowance_serves_its_own_period_whenever_a_call_comes() -> None:
    oracle = Oracle()
    oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 100)
    assert oracle.reserve(T0, "a", 60)["available"] == 40
    later = T0 + 1_500_000
    assert oracle.available(None, later) == 100  # the next period's own
    late = oracle.record_usage(later, "u", 30, JAN)
    assert late["flows"] == [("allowance", "used", 1, 30)]
    assert late["available"] == 10
    other_licence = oracle.record_usage(later, "v", 5, ("M", T0_S, T0_S + 1000, None))
    assert other_licence["flows"] == [("debt", "used", 0, 5)]


def test_period_without_a_positive_allowance_grants_none() -> None:
    oracle = Oracle()
    assert oracle.record_usage(T0, "u", 0, BARE)["flows"] == []
    assert oracle.record_usage(T0, "v", 0, ("L", 5, 9, 0))["flows"] == []
    assert oracle.grants == []
    assert oracle.record_usage(T0, "w", 0, JAN)["flows"] == [("included", "allowance", 1, 100)]


# -- Eligible credit and its order --------------------------------------------------------------


def test_burn_down_order() -> None:
    oracle = Oracle()
    soon, late = T0_S + 500, T0_S + 900
    lots: list[tuple[str, int | None]] = [
        ("paid", None),  # 1: seventh
        ("paid", late),  # 2: sixth
        ("promotional", None),  # 3: fourth
        ("promotional", late),  # 4: second
        ("promotional", late),  # 5: third, younger than 4
        ("paid", soon),  # 6: fifth
    ]
    for number, (kind, expires_at_s) in enumerate(lots, start=1):
        oracle.grant_credit(T0, f"g{number}", kind, number, expires_at_s)
    oracle.grant_credit(T0, "a", "allowance", 7, None, JAN)  # 7: first
    call = oracle.reserve(T0, "c", 28, period=JAN)["call"]
    assert call == 1
    assert oracle.calls[0]["slices"] == [(7, 7), (4, 4), (5, 5), (3, 3), (6, 6), (2, 2), (1, 1)]
    settled = oracle.settle(T0, 1, 17)
    assert settled["flows"] == [
        ("allowance", "used", 7, 7),
        ("promotional", "used", 4, 4),
        ("promotional", "used", 5, 5),
        ("promotional", "used", 3, 1),
    ]
    # Free again: 2 of grant 3, 6 of grant 6, 2 of grant 2, 1 of grant 1.
    assert [oracle.free(n) for n in range(1, 8)] == [1, 2, 2, 0, 0, 6, 0]


@pytest.mark.parametrize(("after_ms", "available"), [(0, 15), (9_999, 15), (10_000, 10)])
def test_expired_credit_is_not_eligible(after_ms: int, available: int) -> None:
    oracle = with_credit(paid=10)
    oracle.grant_credit(T0, "p", "promotional", 5, T0_S + 10)
    assert oracle.available(None, T0 + after_ms) == available


@pytest.mark.parametrize(
    ("blocks", "reason", "available"), [(False, "", 70), (True, "insufficient_credit", 0)]
)
def test_debt_blocks_the_allowance_only_by_setting(
    blocks: bool, reason: str, available: int
) -> None:
    oracle = Oracle(debt_blocks_allowance=blocks)
    oracle.record_usage(T0, "u", 5)
    oracle.grant_credit(T0, "a", "allowance", 100, None, JAN)
    reserved = oracle.reserve(T0, "c", 30, period=JAN)
    assert reserved["reason"] == reason
    assert reserved["available"] == available
    assert oracle.debt() == 5


def test_debt_blocks_an_allowance_to_come_too() -> None:
    oracle = Oracle(debt_blocks_allowance=True)
    oracle.record_usage(T0, "u", 5)
    assert oracle.available(JAN, T0) == 0
    used = oracle.record_usage(T0, "v", 1, JAN)
    assert used["flows"] == [("included", "allowance", 1, 100), ("debt", "used", 0, 1)]
    assert used["available"] == 0
    assert oracle.grant_credit(T0, "p", "paid", 6)["flows"][-1] == ("paid", "debt", 2, 6)
    assert oracle.available(JAN, T0) == 100


# -- Debt is repaid -----------------------------------------------------------------------------


def test_debt_is_repaid_by_promotional_then_paid_and_not_by_allowance() -> None:
    oracle = Oracle()
    oracle.record_usage(T0, "u", 100)
    allowance = oracle.grant_credit(T0, "a", "allowance", 40)
    assert allowance["flows"] == [("included", "allowance", 1, 40)]
    promotional = oracle.grant_credit(T0, "b", "promotional", 30)
    assert promotional["flows"] == [
        ("gifted", "promotional", 2, 30),
        ("promotional", "debt", 2, 30),
    ]
    paid = oracle.grant_credit(T0, "c", "paid", 90)
    assert paid["flows"] == [("purchased", "paid", 3, 90), ("paid", "debt", 3, 70)]
    assert figures(oracle) == (60, 0, 0)  # 40 of the allowance, 20 paid
    assert oracle.totals()["debt"] == 0


def test_a_slice_that_becomes_free_repays_debt_in_the_same_command() -> None:
    oracle = with_credit(paid=50)
    oracle.reserve(T0, "c", 50)
    oracle.record_usage(T0, "u", 20)
    assert figures(oracle) == (0, 50, 20)
    settled = oracle.settle(T0, 1, 10)
    assert settled["flows"] == [("paid", "used", 1, 10), ("paid", "debt", 1, 20)]
    assert figures(oracle) == (20, 0, 0)


# -- Reserve ------------------------------------------------------------------------------------


def test_reserve_pins_without_a_transfer() -> None:
    oracle = with_credit(paid=100, promotional=30)
    reserved = oracle.reserve(T0, "c", 70)
    assert ended(reserved) == (True, False, "reserved", None)
    assert reserved["flows"] == []
    assert reserved["available"] == 60
    assert oracle.calls[0]["slices"] == [(2, 30), (1, 40)]
    assert oracle.calls[0]["expires_at_ms"] == T0 + 900_000
    assert (oracle.free(1), oracle.held_of(1)) == (60, 40)
    assert (oracle.free(2), oracle.held_of(2)) == (0, 30)
    assert figures(oracle) == (60, 70, 0)


@pytest.mark.parametrize(
    ("status", "amount", "ttl_ms", "reason"),
    [
        ("active", 0, 1, "invalid_amount"),
        ("active", -1, 1, "invalid_amount"),
        ("active", 10**15 + 1, 1, "invalid_amount"),
        ("active", 10**15, 1, "insufficient_credit"),
        ("active", 0, 0, "invalid_amount"),
        ("active", 1, 0, "invalid_ttl"),
        ("active", 1, 86_400_001, "invalid_ttl"),
        ("active", 101, 86_400_000, "insufficient_credit"),
        ("frozen", 1, 0, "invalid_ttl"),
        ("frozen", 101, 1, "practice_frozen"),
        ("frozen", 1, 1, "practice_frozen"),
        ("closed", 1, 1, "practice_closed"),
        ("closed", 101, 1, "practice_closed"),
        ("active", 100, 86_400_000, ""),
        ("active", 1, 1, ""),
    ],
)
def test_reasons_of_reserve_in_their_order(
    status: str, amount: int, ttl_ms: int, reason: str
) -> None:
    oracle = with_credit(paid=100)
    oracle.status = status
    reserved = oracle.reserve(T0, "c", amount, ttl_ms)
    assert reserved["reason"] == reason
    assert reserved["ok"] == (reason == "")
    if not reserved["ok"]:
        expected = 100 if reason == "insufficient_credit" else None
        assert reserved["available"] == expected


def test_same_key_replays_with_the_present_state() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 70)
    assert ended(oracle.reserve(T0 + 5, "c", 70)) == (False, True, "reserved", None)
    oracle.settle(T0 + 6, 1, 20)
    oracle.close(T0 + 7)
    assert ended(oracle.reserve(T0 + 8, "c", 70)) == (False, True, "settled", 20)
    assert figures(oracle) == (80, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        {"amount": 71},
        {"amount": 0},
        {"ttl_ms": 1},
        {"on_expiry": "charge"},
        {"on_exception": "keep"},
        {"period": BARE},
    ],
)
def test_same_key_with_another_body_is_refused(body: dict[str, Any]) -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 70)
    assert refused(oracle.reserve(T0, "c", **{"amount": 70, **body})) == "idempotency_conflict"


def test_a_refusal_consumes_no_key() -> None:
    oracle = with_credit(paid=10)
    assert refused(oracle.reserve(T0, "c", 11)) == "insufficient_credit"
    oracle.grant_credit(T0, "more", "paid", 1)
    assert ended(oracle.reserve(T0, "c", 11)) == (True, False, "reserved", None)


def test_keys_of_the_operations_are_apart() -> None:
    oracle = Oracle()
    assert oracle.grant_credit(T0, "k", "paid", 10)["applied"]
    assert oracle.reserve(T0, "k", 3)["applied"]
    assert oracle.record_usage(T0, "k", 4)["applied"]
    assert oracle.adjust(T0, "k", -1)["applied"]
    assert figures(oracle) == (2, 3, 0)


# -- Settle -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost", "flows", "after"),
    [
        (0, [], (130, 0, 0)),
        (30, [("promotional", "used", 2, 30)], (100, 0, 0)),
        (31, [("promotional", "used", 2, 30), ("paid", "used", 1, 1)], (99, 0, 0)),
        (70, [("promotional", "used", 2, 30), ("paid", "used", 1, 40)], (60, 0, 0)),
        (130, [("promotional", "used", 2, 30), ("paid", "used", 1, 100)], (0, 0, 0)),
        (
            150,
            [("promotional", "used", 2, 30), ("paid", "used", 1, 100), ("debt", "used", 0, 20)],
            (0, 0, 20),
        ),
    ],
)
def test_settle_table(
    cost: int, flows: list[tuple[str, str, int, int]], after: tuple[int, int, int]
) -> None:
    oracle = with_credit(paid=100, promotional=30)
    oracle.reserve(T0, "c", 70)
    settled = oracle.settle(T0, 1, cost)
    assert ended(settled) == (True, False, "settled", cost)
    assert summed(settled["flows"]) == summed(flows)
    assert settled["available"] == after[0]
    assert figures(oracle) == after


def test_overrun_takes_the_calls_own_period_and_spares_other_holds() -> None:
    oracle = with_credit(paid=40)
    oracle.grant_credit(T0, "a", "allowance", 100, None, JAN)
    oracle.reserve(T0, "a", 10, period=JAN)
    oracle.reserve(T0, "b", 30)  # from the paid grant, pinned
    settled = oracle.settle(T0, 1, 120)
    assert settled["flows"] == [
        ("allowance", "used", 2, 10),
        ("allowance", "used", 2, 90),
        ("paid", "used", 1, 10),
        ("debt", "used", 0, 10),
    ]
    assert figures(oracle) == (0, 30, 10)


def test_overrun_as_the_operators_loss() -> None:
    oracle = with_credit(paid=40)
    oracle.set_policy(T0, "operator_loss", debt_blocks_allowance=False)
    oracle.reserve(T0, "c", 40)
    settled = oracle.settle(T0, 1, 55)
    assert settled["flows"] == [("paid", "used", 1, 40), ("operator_loss", "used", 0, 15)]
    assert figures(oracle) == (0, 0, 0)
    assert oracle.totals()["operator_loss"] == -15


@pytest.mark.parametrize("cost", [-1, 10**15 + 1])
def test_settle_refuses_an_invalid_cost_before_anything_else(cost: int) -> None:
    assert refused(Oracle().settle(T0, 7, cost)) == "invalid_amount"


@pytest.mark.parametrize("number", [0, 1, -1])
def test_no_such_call(number: int) -> None:
    oracle = Oracle()
    assert refused(oracle.settle(T0, number, 1)) == "call_not_found"
    assert refused(oracle.release(T0, number)) == "call_not_found"
    assert refused(oracle.extend(T0, number, 1)) == "call_not_found"
    assert refused(oracle.expire(T0, number)) == "call_not_found"


def test_settle_twice() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 50)
    oracle.settle(T0, 1, 20, "12 tokens")
    assert ended(oracle.settle(T0, 1, 20, "12 tokens")) == (False, True, "settled", 20)
    assert refused(oracle.settle(T0, 1, 21, "12 tokens")) == "settled_otherwise"
    assert refused(oracle.settle(T0, 1, 20, "13 tokens")) == "settled_otherwise"
    assert figures(oracle) == (80, 0, 0)


def test_settle_after_its_time_but_before_expiry() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 50, 1000)
    assert ended(oracle.settle(T0 + DAY, 1, 20)) == (True, False, "settled", 20)


def test_settle_after_the_callers_release_does_nothing() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 50)
    oracle.release(T0, 1)
    assert ended(oracle.settle(T0, 1, 20)) == (False, False, "released", 0)
    assert figures(oracle) == (100, 0, 0)


# -- Late settle --------------------------------------------------------------------------------


def expired_call(oracle: Oracle, amount: int, on_expiry: str) -> int:
    oracle.reserve(T0, "c", amount, 1000, on_expiry)
    assert oracle.expire(T0 + 1000, 1)["status"] == "expired"
    return T0 + 1000


@pytest.mark.parametrize(
    ("on_expiry", "cost", "flows", "after"),
    [
        ("release", 0, {}, (130, 0, 0)),
        ("release", 50, {("promotional", "used", 2): 30, ("paid", "used", 1): 20}, (80, 0, 0)),
        (
            "release",
            131,
            {("promotional", "used", 2): 30, ("paid", "used", 1): 100, ("debt", "used", 0): 1},
            (0, 0, 1),
        ),
        # Charged 30 promotional and 40 paid; given back from the last slice, the paid one.
        ("charge", 70, {}, (60, 0, 0)),
        ("charge", 45, {("used", "paid", 1): 25}, (85, 0, 0)),
        ("charge", 30, {("used", "paid", 1): 40}, (100, 0, 0)),
        ("charge", 29, {("used", "paid", 1): 40, ("used", "promotional", 2): 1}, (101, 0, 0)),
        ("charge", 80, {("paid", "used", 1): 10}, (50, 0, 0)),
    ],
)
def test_late_settle_books_the_difference(
    on_expiry: str,
    cost: int,
    flows: dict[tuple[str, str, int], int],
    after: tuple[int, int, int],
) -> None:
    oracle = with_credit(paid=100, promotional=30)
    now = expired_call(oracle, 70, on_expiry)
    late = oracle.settle(now, 1, cost, "u")
    assert ended(late) == (True, False, "settled_late", cost)
    assert summed(late["flows"]) == flows
    assert figures(oracle, now) == after
    assert ended(oracle.settle(now, 1, cost, "u")) == (False, True, "settled_late", cost)
    assert refused(oracle.settle(now, 1, cost + 1, "u")) == "settled_otherwise"


def test_a_give_back_names_the_transfer_it_reverses() -> None:
    oracle = with_credit(paid=100, promotional=30)
    now = expired_call(oracle, 70, "charge")
    oracle.settle(now, 1, 20)
    back = [(m.seq, m.reverses, m.grant_no, m.amount) for m in oracle.moves if m.reverses]
    # Transfers 1 and 2 granted, 3 used the promotional slice, 4 the paid one.
    assert back == [(5, 4, 1, 40), (6, 3, 2, 10)]


def test_a_give_back_repays_debt() -> None:
    oracle = with_credit(paid=50)
    now = expired_call(oracle, 50, "charge")
    oracle.record_usage(now, "u", 30)
    assert oracle.settle(now, 1, 10)["flows"] == [("used", "paid", 1, 40), ("paid", "debt", 1, 30)]
    assert figures(oracle, now) == (10, 0, 0)


def test_a_give_back_to_an_expired_grant_expires() -> None:
    oracle = Oracle()
    oracle.grant_credit(T0, "g", "promotional", 50, T0_S + 10)
    expired_call(oracle, 50, "charge")
    late = oracle.settle(T0 + 10_000, 1, 20)
    assert late["flows"] == [("used", "promotional", 1, 30), ("promotional", "expired", 1, 30)]


@pytest.mark.parametrize(
    ("on_exception", "status", "charged", "cost", "flow"),
    [
        ("release", "released", 0, 15, [("paid", "used", 1, 15)]),
        ("release", "released", 0, 0, []),
        ("charge", "settled", 40, 15, [("used", "paid", 1, 25)]),
        ("charge", "settled", 40, 40, []),
        ("charge", "settled", 40, 55, [("paid", "used", 1, 15)]),
    ],
)
def test_settle_after_an_exception_is_late(
    on_exception: str, status: str, charged: int, cost: int, flow: list[tuple[str, str, int, int]]
) -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 40, on_exception=on_exception)
    assert ended(oracle.release(T0, 1, "exception")) == (True, False, status, charged)
    late = oracle.settle(T0, 1, cost)
    assert ended(late) == (True, False, "settled_late", cost)
    assert late["flows"] == flow
    assert figures(oracle) == (100 - cost, 0, 0)
    assert refused(oracle.settle(T0, 1, cost + 1)) == "settled_otherwise"


# -- Release, Extend, Expire --------------------------------------------------------------------


def test_release_by_the_caller() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 40, on_exception="charge")
    released = oracle.release(T0 + DAY, 1)
    assert ended(released) == (True, False, "released", 0)
    assert released["flows"] == []
    assert released["available"] == 100
    assert ended(oracle.release(T0, 1)) == (False, False, "released", 0)
    assert ended(oracle.release(T0, 1, "exception")) == (False, False, "released", 0)


def test_release_by_an_exception_keeps_or_charges_as_fixed_before() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "keep", 40, on_exception="keep")
    oracle.reserve(T0, "charge", 30, on_exception="charge")
    assert ended(oracle.release(T0, 1, "exception")) == (False, False, "reserved", None)
    charged = oracle.release(T0, 2, "exception")
    assert ended(charged) == (True, False, "settled", 30)
    assert charged["flows"] == [("paid", "used", 1, 30)]
    assert figures(oracle) == (30, 40, 0)
    assert ended(oracle.settle(T0, 1, 41)) == (True, False, "settled", 41)


def test_release_of_a_settled_call_tells_the_winner() -> None:
    oracle = with_credit(paid=100)
    oracle.reserve(T0, "c", 40)
    oracle.settle(T0, 1, 7)
    assert ended(oracle.release(T0, 1)) == (False, False, "settled", 7)
    assert ended(oracle.expire(T0 + DAY, 1)) == (False, False, "settled", 7)


@pytest.mark.parametrize(
    ("after_ms", "ttl_ms", "reason", "expires_after_ms"),
    [
        (0, 0, "invalid_ttl", 10_000),
        (0, DAY + 1, "invalid_ttl", 10_000),
        (0, DAY, "", DAY),
        (1, DAY, "lifetime_exceeded", 10_000),
        (1, DAY - 1, "", DAY),
        (5000, 4999, "", 10_000),
        (5000, 5001, "", 10_001),
        (9999, 20_000, "", 29_999),
        (10_000, 20_000, "", 30_000),  # within the grace of 500 ms
        (10_499, 20_000, "", 30_499),
        (10_500, 20_000, "call_over", 10_000),
        (10_500, 0, "invalid_ttl", 10_000),
        (10_500, DAY, "call_over", 10_000),
    ],
)
def test_extend_table(after_ms: int, ttl_ms: int, reason: str, expires_after_ms: int) -> None:
    oracle = Oracle(grace_ms=500)
    oracle.grant_credit(T0, "g", "paid", 10)
    oracle.reserve(T0, "c", 10, 10_000)
    extended = oracle.extend(T0 + after_ms, 1, ttl_ms)
    assert extended["reason"] == reason
    assert oracle.calls[0]["expires_at_ms"] == T0 + expires_after_ms


def test_extend_of_an_ended_call() -> None:
    oracle = with_credit(paid=10)
    oracle.reserve(T0, "c", 10)
    oracle.release(T0, 1)
    assert refused(oracle.extend(T0, 1, 1000)) == "call_over"


@pytest.mark.parametrize("grace_ms", [0, 500])
@pytest.mark.parametrize(("on_expiry", "cost"), [("release", 0), ("charge", 40)])
def test_expire(grace_ms: int, on_expiry: str, cost: int) -> None:
    oracle = Oracle(grace_ms=grace_ms)
    oracle.grant_credit(T0, "g", "paid", 100)
    oracle.reserve(T0, "c", 40, 1000, on_expiry)
    assert refused(oracle.expire(T0 + 999 + grace_ms, 1)) == "not_due"
    over = oracle.expire(T0 + 1000 + grace_ms, 1)
    assert ended(over) == (True, False, "expired", cost)
    assert summed(over["flows"]) == ({("paid", "used", 1): 40} if cost else {})
    assert figures(oracle) == (100 - cost, 0, 0)
    assert ended(oracle.expire(T0, 1)) == (False, False, "expired", cost)
    assert ended(oracle.release(T0, 1)) == (False, False, "expired", cost)


# -- RecordUsage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cost", "reason"),
    [
        ("active", -1, "invalid_amount"),
        ("closed", 10**15 + 1, "invalid_amount"),
        ("closed", 1, "practice_closed"),
        ("frozen", 1, ""),
        ("active", 0, ""),
        ("active", 10**15, ""),
    ],
)
def test_reasons_of_record_usage(status: str, cost: int, reason: str) -> None:
    oracle = with_credit(paid=100)
    oracle.status = status
    assert oracle.record_usage(T0, "u", cost)["reason"] == reason


def test_record_usage_goes_down_to_debt_and_replays() -> None:
    oracle = with_credit(paid=20, promotional=30)
    oracle.reserve(T0, "c", 35)
    used = oracle.record_usage(T0, "u", 18, None, "x")
    assert ended(used) == (True, False, "settled", 18)
    assert used["call"] == 2
    assert used["flows"] == [("paid", "used", 1, 15), ("debt", "used", 0, 3)]
    assert ended(oracle.record_usage(T0, "u", 18, None, "x")) == (False, True, "settled", 18)
    assert refused(oracle.record_usage(T0, "u", 18, None, "y")) == "idempotency_conflict"
    assert refused(oracle.record_usage(T0, "u", -1, None, "x")) == "idempotency_conflict"
    assert ended(oracle.settle(T0, 2, 18, "x")) == (False, True, "settled", 18)
    assert refused(oracle.settle(T0, 2, 17, "x")) == "settled_otherwise"
    assert figures(oracle) == (0, 35, 3)


# -- Expiry of credit ---------------------------------------------------------------------------


def test_expiry_spares_pinned_slices_until_their_call_ends() -> None:
    oracle = with_credit(paid=10)
    oracle.grant_credit(T0, "p", "promotional", 50, T0_S + 10)
    oracle.reserve(T0, "c", 30)
    now = T0 + 10_000
    assert oracle.available(None, now) == 10
    gone = oracle.expire_grants(now)
    assert gone["flows"] == [("promotional", "expired", 2, 20)]
    assert (oracle.free(2), oracle.held_of(2)) == (0, 30)
    assert not oracle.expire_grants(now)["applied"]
    settled = oracle.settle(now, 1, 12)
    assert settled["flows"] == [("promotional", "used", 2, 12), ("promotional", "expired", 2, 18)]
    assert figures(oracle, now) == (10, 0, 0)


def test_only_the_freed_slice_expires_at_once() -> None:
    oracle = Oracle()
    oracle.grant_credit(T0, "p", "promotional", 50, T0_S + 10)
    oracle.reserve(T0, "c", 30)
    released = oracle.release(T0 + 10_000, 1)
    assert released["flows"] == [("promotional", "expired", 1, 30)]
    assert oracle.free(1) == 20
    assert oracle.expire_grants(T0 + 10_000)["flows"] == [("promotional", "expired", 1, 20)]


def test_expire_grants_leaves_what_is_not_due() -> None:
    oracle = with_credit(paid=10)
    oracle.grant_credit(T0, "a", "allowance", 20, T0_S + 10, JAN)
    oracle.grant_credit(T0, "p", "paid", 30, T0_S + 10)
    assert not oracle.expire_grants(T0 + 9_999)["applied"]
    assert oracle.expire_grants(T0 + 10_000)["flows"] == [("paid", "expired", 3, 30)]


def test_debt_that_arises_beside_expired_credit_is_not_repaid_by_it() -> None:
    oracle = Oracle()
    oracle.grant_credit(T0, "p", "promotional", 50, T0_S + 10)
    used = oracle.record_usage(T0 + 10_000, "u", 5)
    assert used["flows"] == [("debt", "used", 0, 5)]
    assert oracle.expire_grants(T0 + 10_000)["flows"] == [("promotional", "expired", 1, 50)]
    assert oracle.debt() == 5


# -- GrantCredit, Adjust ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "amount", "expires_at_s", "reason"),
    [
        ("active", "paid", 0, None, "invalid_amount"),
        ("active", "paid", 10**15 + 1, None, "invalid_amount"),
        ("closed", "paid", 0, T0_S, "invalid_amount"),
        ("closed", "paid", 1, T0_S, "already_expired"),
        ("active", "paid", 1, T0_S - 1, "already_expired"),
        ("active", "paid", 1, T0_S, "already_expired"),
        ("closed", "paid", 1, T0_S + 1, "practice_closed"),
        ("closed", "allowance", 1, None, "practice_closed"),
        ("active", "allowance", 1, None, "allowance_exists"),
        ("active", "paid", 1, T0_S + 1, ""),
        ("active", "promotional", 10**15, None, ""),
        ("frozen", "promotional", 1, None, ""),
    ],
)
def test_reasons_of_grant_credit(
    status: str, kind: str, amount: int, expires_at_s: int | None, reason: str
) -> None:
    oracle = with_credit(allowance=5)
    oracle.status = status
    assert oracle.grant_credit(T0 + 999, "g", kind, amount, expires_at_s)["reason"] == reason


def test_grant_credit_replays_for_ever() -> None:
    oracle = Oracle()
    first = oracle.grant_credit(T0, "g", "paid", 5, T0_S + 1)
    assert first["flows"] == [("purchased", "paid", 1, 5)]
    again = oracle.grant_credit(T0 + 400 * DAY, "g", "paid", 5, T0_S + 1)
    assert ended(again) == (False, True, None, None)
    assert refused(oracle.grant_credit(T0, "g", "paid", 6, T0_S + 1)) == "idempotency_conflict"


def test_an_allowance_belongs_to_the_named_or_the_current_period() -> None:
    oracle = with_credit(allowance=5)
    assert oracle.available(None, T0) == 5
    assert oracle.available(JAN, T0) == 100
    assert oracle.available(None, NOVEMBER[1] * 1000) == 0
    assert oracle.grant_credit(T0, "a", "allowance", 7, None, JAN)["ok"]
    assert oracle.available(JAN, T0) == 7  # there is one now: the period's 100 never come


@pytest.mark.parametrize(
    ("status", "amount", "reason"),
    [
        ("active", 0, "invalid_amount"),
        ("closed", 10**15 + 1, "invalid_amount"),
        ("active", -(10**15) - 1, "invalid_amount"),
        ("closed", 1, "practice_closed"),
        ("frozen", 1, ""),
        ("active", -(10**15), ""),
        ("active", 10**15, ""),
    ],
)
def test_reasons_of_adjust(status: str, amount: int, reason: str) -> None:
    oracle = with_credit(paid=100)
    oracle.status = status
    assert oracle.adjust(T0, "a", amount)["reason"] == reason


def test_adjust_down_takes_free_credit_then_debt_even_if_losses_are_the_operators() -> None:
    oracle = with_credit(paid=20, promotional=30, allowance=9)
    oracle.set_policy(T0, "operator_loss", debt_blocks_allowance=False)
    oracle.reserve(T0, "c", 19)  # the allowance, and 10 promotional
    down = oracle.adjust(T0, "a", -45, "paid")
    assert down["flows"] == [
        ("promotional", "adjusted", 2, 20),
        ("paid", "adjusted", 1, 20),
        ("debt", "adjusted", 0, 5),
    ]
    assert figures(oracle) == (0, 19, 5)
    up = oracle.adjust(T0, "b", 8, "paid")
    assert up["flows"] == [("adjusted", "paid", 4, 8), ("paid", "debt", 4, 5)]
    assert oracle.totals()["adjusted"] == 37


def test_adjust_replays() -> None:
    oracle = with_credit(paid=20)
    oracle.adjust(T0, "a", -5)
    assert ended(oracle.adjust(T0, "a", -5)) == (False, True, None, None)
    assert refused(oracle.adjust(T0, "a", -6)) == "idempotency_conflict"
    assert refused(oracle.adjust(T0, "a", -5, "paid")) == "idempotency_conflict"
    assert figures(oracle) == (15, 0, 0)


# -- Fulfil, NetPayment -------------------------------------------------------------------------


def test_fulfil_once_even_for_a_closed_practice() -> None:
    oracle = Oracle()
    oracle.record_usage(T0, "u", 30)
    oracle.close(T0)
    paid = oracle.fulfil(T0, "pi", 100, 3000, bonus=20)
    assert paid["flows"] == [
        ("purchased", "paid", 1, 100),
        ("gifted", "promotional", 2, 20),
        ("promotional", "debt", 2, 20),
        ("paid", "debt", 1, 10),
    ]
    again = oracle.fulfil(T0 + 400 * DAY, "pi", 100, 3000, bonus=20)
    assert ended(again) == (False, False, None, None)
    assert figures(oracle) == (90, 0, 0)


@pytest.mark.parametrize(
    ("net", "clawed"),
    # Of 1000 for 300 Rappen: floor(1000 x net / 300) stays.
    [(300, 0), (301, 0), (299, 4), (200, 334), (100, 667), (1, 997), (0, 1000), (-5, 1000)],
)
def test_clawback_arithmetic(net: int, clawed: int) -> None:
    oracle = Oracle()
    oracle.fulfil(T0, "pi", 1000, 300)
    netted = oracle.net_payment(T0, "pi", net)
    assert netted["applied"] == (clawed > 0)
    assert summed(netted["flows"]) == ({("paid", "clawed_back", 1): clawed} if clawed else {})
    assert figures(oracle) == (1000 - clawed, 0, 0)
    assert not oracle.net_payment(T0, "pi", net)["applied"]


def test_clawback_order_own_grant_other_paid_debt_never_holds() -> None:
    oracle = with_credit(paid=25)
    oracle.fulfil(T0, "pi", 100, 100)
    oracle.grant_credit(T0, "late", "paid", 10, T0_S + 1000)
    oracle.reserve(T0, "c", 80)  # 10 of grant 3, 25 of grant 1, 45 of grant 2
    oracle.grant_credit(T0, "more", "paid", 15)
    netted = oracle.net_payment(T0, "pi", 20)
    assert netted["flows"] == [
        ("paid", "clawed_back", 2, 55),
        ("paid", "clawed_back", 4, 15),
        ("debt", "clawed_back", 0, 10),
    ]
    assert figures(oracle) == (0, 80, 10)
    # Won back: it goes to the payment's own grant and repays the debt.
    back = oracle.net_payment(T0, "pi", 100)
    assert back["flows"] == [("clawed_back", "paid", 2, 80), ("paid", "debt", 2, 10)]
    assert oracle.totals()["clawed_back"] == 0
    assert figures(oracle) == (70, 80, 0)


def test_debt_from_a_clawback_is_repaid_by_promotional_credit() -> None:
    oracle = Oracle()
    oracle.fulfil(T0, "pi", 100, 100)
    oracle.record_usage(T0, "u", 90)
    oracle.grant_credit(T0, "p", "promotional", 40)
    netted = oracle.net_payment(T0, "pi", 0)
    assert netted["flows"] == [
        ("paid", "clawed_back", 1, 10),
        ("debt", "clawed_back", 0, 90),
        ("promotional", "debt", 2, 40),
    ]
    assert figures(oracle) == (0, 0, 50)


def test_a_bonus_is_clawed_back_in_proportion_by_itself() -> None:
    oracle = Oracle()
    oracle.fulfil(T0, "pi", 100, 300, bonus=10)
    half = oracle.net_payment(T0, "pi", 150)
    assert half["flows"] == [
        ("paid", "clawed_back", 1, 50),
        ("promotional", "clawed_back", 2, 5),
    ]
    oracle.record_usage(T0, "u", 4)  # from the bonus: 1 is left
    zero = oracle.net_payment(T0, "pi", 0)
    assert zero["flows"] == [
        ("paid", "clawed_back", 1, 50),
        ("promotional", "clawed_back", 2, 1),
        ("debt", "clawed_back", 0, 4),
    ]
    assert oracle.clawback_of(("pi", "bonus")) == (10, 10, 2)


def test_net_payment_of_what_was_never_granted_is_refused() -> None:
    assert refused(Oracle().net_payment(T0, "pi", 0)) == "not_fulfilled"


def test_a_refund_without_a_payment_takes_free_paid_credit_then_debt() -> None:
    oracle = with_credit(promotional=10, paid=40)
    oracle.reserve(T0, "c", 35)  # pins the 10 and 25 of the 40
    assert oracle.take_credit(T0, 20)["flows"] == [
        ("paid", "clawed_back", 2, 15),
        ("debt", "clawed_back", 0, 5),
    ]
    assert refused(oracle.take_credit(T0, 0)) == "invalid_amount"


# -- Licences -----------------------------------------------------------------------------------


def test_an_upgrade_grants_the_difference_at_once_and_a_downgrade_waits() -> None:
    oracle = Oracle()
    oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 100)
    oracle.reserve(T0, "c", 60)
    upgrade = oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 130)
    assert upgrade["flows"] == [("included", "allowance", 1, 30)]
    assert oracle.available(None, T0) == 70
    assert oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 50)["flows"] == []
    assert oracle.available(None, T0) == 70
    # Up again, to no more than was granted: nothing is added.
    assert oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 130)["flows"] == []
    assert oracle.available(None, T0 + 1_000_000) == 130


@pytest.mark.parametrize(
    ("start_s", "end_s", "provisional_is_it"),
    [(1000, 2000, True), (1010, 2040, True), (900, 1001, True), (1999, 9000, True),
     (2000, 3000, False), (900, 1000, False)],
)  # fmt: skip
def test_a_provisional_allowance_takes_the_told_bounds(
    start_s: int, end_s: int, provisional_is_it: bool
) -> None:
    oracle = Oracle()
    oracle.set_license(T0, "L", "active", T0_S, T0_S + 1000, 100)
    late = T0 + 1_500_000  # nobody told of the period that began at 1000
    oracle.record_usage(late, "u", 10)
    assert oracle.grants[0]["provisional"]
    oracle.set_license(late, "L", "active", T0_S + start_s, T0_S + end_s, 100)
    told: Period = ("L", T0_S + start_s, T0_S + end_s, 100)
    assert oracle.available(told, late) == (90 if provisional_is_it else 100)
    assert oracle.grants[0]["provisional"] is not provisional_is_it


@pytest.mark.parametrize(
    ("end_s", "allowance", "reason"),
    [(T0_S, 5, "invalid_period"), (T0_S + 1, -1, "invalid_amount"),
     (T0_S + 1, 10**15 + 1, "invalid_amount"), (T0_S + 1, 10**15, "")],
)  # fmt: skip
def test_reasons_of_set_license(end_s: int, allowance: int, reason: str) -> None:
    told = Oracle().set_license(T0, "L", "active", T0_S, end_s, allowance)
    assert told["reason"] == reason


# -- Status, sweep, limits ----------------------------------------------------------------------


def test_freeze_unfreeze_close() -> None:
    oracle = with_credit(paid=10)
    oracle.reserve(T0, "c", 10)
    assert oracle.freeze(T0)["applied"]
    assert not oracle.freeze(T0)["applied"]
    assert oracle.extend(T0, 1, DAY)["ok"]
    assert oracle.unfreeze(T0)["applied"]
    assert not oracle.unfreeze(T0)["applied"]
    assert oracle.close(T0)["applied"]
    assert not oracle.unfreeze(T0)["applied"]
    assert not oracle.freeze(T0)["applied"]
    assert ended(oracle.settle(T0, 1, 12)) == (True, False, "settled", 12)
    assert oracle.status == "closed"


def test_sweep_expires_calls_in_order_then_credit() -> None:
    oracle = Oracle()
    oracle.grant_credit(T0, "g", "promotional", 60, T0_S + 10)
    oracle.reserve(T0, "a", 10, 3000, "charge")
    oracle.reserve(T0, "b", 20, 2000)
    oracle.reserve(T0, "c", 5, 2000, "charge")
    oracle.reserve(T0, "d", 15, DAY)
    assert oracle.due(T0 + 1999) == []
    assert oracle.due(T0 + 2000) == [2, 3]
    now = T0 + 10_000
    assert oracle.due(now) == [2, 3, 1]
    assert oracle.sweep(now)["flows"] == [
        ("promotional", "expired", 1, 20),
        ("promotional", "used", 1, 5),
        ("promotional", "used", 1, 10),
        ("promotional", "expired", 1, 10),
    ]
    assert [call["status"] for call in oracle.calls] == ["expired"] * 3 + ["reserved"]
    swept = oracle.fingerprint()
    assert not oracle.sweep(now)["applied"]
    assert oracle.fingerprint() == swept


def test_reserve_and_balance_sweep_first() -> None:
    oracle = with_credit(paid=50)
    oracle.reserve(T0, "a", 50, 1000)
    assert refused(oracle.reserve(T0 + 999, "b", 1)) == "insufficient_credit"
    assert refused(oracle.reserve(T0 + 1000, "b", 51)) == "insufficient_credit"
    assert oracle.calls[0]["status"] == "expired"  # although the reservation was refused
    assert oracle.reserve(T0 + 1000, "b", 50, 1000)["ok"]
    assert oracle.balance(None, T0 + 1999) == 0
    assert oracle.balance(None, T0 + 2000) == 50
    assert ended(oracle.reserve(T0 + 2000, "b", 50, 1000)) == (False, True, "expired", 0)


def test_sweep_takes_at_most_a_hundred() -> None:
    oracle = with_credit(paid=102)
    for number in range(102):
        # The last one is due first; of the others the highest number stays.
        ttl_ms = 500 if number == 101 else 1000
        oracle.reserve(T0, f"c{number}", 1, ttl_ms)
    oracle.sweep(T0 + 1000)
    assert oracle.due(T0 + 1000) == [100, 101]
    assert oracle.held() == 2


@pytest.mark.parametrize(("more", "reason"), [(15, ""), (16, "balance_limit")])
def test_limit_of_credit_and_of_debt(more: int, reason: str) -> None:
    oracle = Oracle(limit=100)
    oracle.grant_credit(T0, "g", "paid", 85)
    oracle.reserve(T0, "c", 50)
    assert oracle.grant_credit(T0, "more", "promotional", more)["reason"] == reason
    indebted = Oracle(limit=100)
    indebted.record_usage(T0, "u", 85)
    assert indebted.record_usage(T0, "v", more)["reason"] == reason
    assert indebted.debt() == 85 + (more if not reason else 0)


def test_limit_refuses_a_settle_and_leaves_the_call_open() -> None:
    oracle = Oracle(limit=100)
    oracle.grant_credit(T0, "g", "paid", 10)
    oracle.reserve(T0, "c", 10)
    assert refused(oracle.settle(T0, 1, 111)) == "balance_limit"
    assert figures(oracle) == (0, 10, 0)
    assert oracle.settle(T0, 1, 110)["ok"]
    assert figures(oracle) == (0, 0, 100)


def test_flows_are_kept_per_command() -> None:
    oracle = with_credit(paid=10)
    oracle.reserve(T0, "c", 4)
    oracle.settle(T0, 1, 3)
    oracle.settle(T0, 1, 9)
    assert oracle.flows() == [
        ("grant_credit", [("purchased", "paid", 1, 10)]),
        ("reserve", []),
        ("settle", [("paid", "used", 1, 3)]),
    ]
    assert oracle.totals() == {"purchased": -10, "paid": 7, "used": 3}


# -- A random walk ------------------------------------------------------------------------------

AMOUNTS = st.integers(min_value=0, max_value=60)
KEYS = st.sampled_from("abcdefghijkl")
CALLS = st.integers(min_value=0, max_value=4)  # counted back from the newest
PERIODS = st.sampled_from([None, None, JAN, BARE, ("M", T0_S, T0_S + 60, 40)])
TTLS = st.sampled_from([0, 1, 500, 5000, 5000, MINUTE, DAY])
EXPIRIES = st.sampled_from([None, 0, 3, 60, 7200])  # seconds from now
JUMPS = st.sampled_from([0, 0, 0, 0, 1, 499, 1000, 5000, 30_000, HOUR, DAY, 31 * DAY])
PAYMENTS = st.sampled_from(["pi_1", "pi_2"])
BOUGHT = st.sampled_from(["paid", "promotional"])

RESERVE = st.tuples(
    st.just("reserve"),
    KEYS,
    AMOUNTS,
    TTLS,
    st.sampled_from(["release", "charge"]),
    st.sampled_from(["release", "charge", "keep"]),
    PERIODS,
)
SETTLE = st.tuples(st.just("settle"), CALLS, AMOUNTS)
RELEASE = st.tuples(st.just("release"), CALLS, st.sampled_from(["caller", "exception"]))
EXTEND = st.tuples(st.just("extend"), CALLS, TTLS)
EXPIRE = st.tuples(st.just("expire"), CALLS)
RECORD = st.tuples(st.just("record_usage"), KEYS, AMOUNTS, PERIODS)
GRANT = st.tuples(
    st.just("grant_credit"),
    KEYS,
    st.sampled_from(["paid", "promotional", "allowance"]),
    AMOUNTS,
    EXPIRIES,
    PERIODS,
)
ADJUST = st.tuples(st.just("adjust"), KEYS, st.integers(min_value=-60, max_value=60), BOUGHT)
FULFIL = st.tuples(
    st.just("fulfil"),
    PAYMENTS,
    st.integers(min_value=1, max_value=60),
    st.just(30),
    st.integers(min_value=0, max_value=9),
)
NET = st.tuples(st.just("net_payment"), PAYMENTS, st.integers(min_value=-1, max_value=31))
POLICY = st.tuples(st.just("set_policy"), st.sampled_from(["debt", "operator_loss"]), st.booleans())
LICENCE = st.tuples(
    st.just("set_license"),
    st.just("L"),
    st.sampled_from(["active", "canceled"]),
    st.just(T0_S),
    st.sampled_from([T0_S + 60, T0_S + 86_400]),
    st.sampled_from([0, 50]),
)
ALONE = st.tuples(
    st.sampled_from(["sweep", "expire_grants", "freeze", "unfreeze", "unfreeze", "remove_license"])
)
COMMANDS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    *[RESERVE, RESERVE, RESERVE, SETTLE, SETTLE, SETTLE, RELEASE, RELEASE, EXPIRE, EXTEND],
    *[RECORD, GRANT, GRANT, ADJUST, FULFIL, NET, NET, POLICY, LICENCE, ALONE],
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.tuples(JUMPS, COMMANDS), min_size=20, max_size=40),
    grace_ms=st.sampled_from([0, 500]),
    closes_after=st.integers(min_value=20, max_value=80),
)
def test_invariants_hold_on_a_random_walk(
    steps: list[tuple[int, tuple[Any, ...]]], grace_ms: int, closes_after: int
) -> None:
    oracle = Oracle(grace_ms=grace_ms, limit=250)
    now = T0
    oracle.fulfil(now, "pi_0", 50, 30)
    oracle.grant_credit(now, "first", "promotional", 50, now // 1000 + 3600)
    for number, (jump, (name, *arguments)) in enumerate(steps):
        now += jump
        if number == closes_after:
            oracle.close(now)
        before, count = oracle.fingerprint(), len(oracle.moves)
        told: Prediction = getattr(oracle, name)(now, *concrete(oracle, name, arguments, now))
        assert_consistent(oracle, told, now)
        if not told["applied"] and name != "reserve":
            assert oracle.fingerprint() == before
        booked = [move[2:6] for move in oracle.moves[count:]]
        # A reservation's own flows come after those of the sweep before it.
        assert booked[len(booked) - len(told["flows"]) :] == told["flows"]
        assert name == "reserve" or len(booked) == len(told["flows"])


def concrete(oracle: Oracle, name: str, arguments: list[Any], now: int) -> list[Any]:
    """Turn what was drawn relative to the state into call numbers and instants."""
    if name in ("settle", "release", "extend", "expire"):
        return [len(oracle.calls) - arguments[0], *arguments[1:]]
    if name == "grant_credit" and arguments[3] is not None:
        return [*arguments[:3], now // 1000 + arguments[3], *arguments[4:]]
    return arguments


def assert_consistent(oracle: Oracle, told: Prediction, now: int) -> None:
    assert told["ok"] == (told["reason"] == "")
    assert not (told["applied"] and told["replayed"])
    assert told["ok"] or not (told["applied"] or told["replayed"] or told["flows"])
    assert oracle.available(None, now) >= 0
    assert oracle.held() == sum(oracle.held_of(grant["no"]) for grant in oracle.grants)
    assert 0 <= oracle.debt() <= oracle.limit
    if oracle.debt():
        lots = [g for g in oracle.grants if g["kind"] != "allowance"]
        usable = [g["no"] for g in lots if (g["expires_at_s"] or now) > now // 1000]
        assert [oracle.free(grant_no) for grant_no in usable] == [0] * len(usable)
    totals = oracle.totals()
    assert sum(totals.values()) == 0
    assert oracle.credit() == sum(totals.get(k, 0) for k in ("allowance", "promotional", "paid"))
    assert oracle.credit() <= oracle.limit
    assert -totals.get("debt", 0) == oracle.debt()
    assert totals.get("used", 0) == sum(call["cost"] or 0 for call in oracle.calls)
