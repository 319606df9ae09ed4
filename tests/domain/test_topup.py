"""Credit events: which status may follow which, and what may stay of a refunded payment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain import topup
from guthaben.domain.topup import credit_target, may_move

STATUSES = ("pending", "unknown", "succeeded", "failed", "canceled", "quarantined")
ALLOWED = {
    "pending": {"unknown", "succeeded", "failed", "canceled", "quarantined"},
    "unknown": {"pending", "succeeded", "failed", "canceled", "quarantined"},
    "failed": {"succeeded", "canceled", "quarantined"},
    "canceled": {"succeeded", "quarantined"},
    "quarantined": {"succeeded", "canceled"},
    "succeeded": set(),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("target", STATUSES)
def test_moves(status: str, target: str) -> None:
    assert may_move(status, target) is (target in ALLOWED[status])


def test_an_unknown_word_moves_nowhere() -> None:
    assert not may_move("paid", "succeeded")
    assert not may_move("pending", "paid")


def test_every_status_but_success_may_still_succeed_and_success_is_final() -> None:
    assert set(topup.MOVES) == set(STATUSES)
    assert all(may_move(status, "succeeded") for status in STATUSES if status != "succeeded")
    assert sorted(topup.IN_FLIGHT) == ["pending", "unknown"]


@pytest.mark.parametrize(
    ("granted", "net", "captured", "stays"),
    [
        (10_000_000_000, 3000, 3000, 10_000_000_000),
        (10_000_000_000, 0, 3000, 0),
        (10_000_000_000, 1500, 3000, 5_000_000_000),
        (10_000_000_000, 2999, 3000, 9_996_666_666),  # floor
        (10, 1, 3, 3),
        (10, 2, 3, 6),
        (10, -5, 3, 0),  # more was given back than came
        (10, 99, 3, 10),
        (1, 2, 3, 0),
    ],
)
def test_what_may_stay(granted: int, net: int, captured: int, stays: int) -> None:
    assert credit_target(granted, net, captured) == stays


@given(st.integers(0, 10**15), st.integers(1, 10**7), st.integers(-(10**7), 2 * 10**7))
def test_what_stays_never_exceeds_its_share(granted: int, captured: int, net: int) -> None:
    stays = credit_target(granted, net, captured)
    share = min(max(net, 0), captured)
    assert 0 <= stays <= granted
    assert 0 <= granted * share - stays * captured < captured


@given(st.integers(1, 10**12), st.integers(1, 10**5), st.data())
def test_refunds_in_any_parts_and_order_come_to_the_same(
    granted: int, captured: int, data: st.DataObject
) -> None:
    parts = data.draw(st.lists(st.integers(0, captured), max_size=6))
    for order in (parts, data.draw(st.permutations(parts))):
        net, booked = captured, granted
        for part in order:
            net -= part
            booked += credit_target(granted, net, captured) - booked
        assert booked == credit_target(granted, captured - sum(parts), captured)
