"""The largest refund that leaves nobody owing, and what a dispute withholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.commands import NetPayment, RecordUsage
from guthaben.domain.refunding import most_without_debt
from guthaben.domain.topup import DISPUTE_CLOSED, withheld_minor
from tests.domain.desk import T0_S, Desk
from tests.domain.test_payments import bought

USD = 1_000_000_000


@pytest.mark.parametrize(
    ("used", "held", "most", "rappen"),
    [
        (0, 0, 3_000, 3_000),
        (4 * USD, 0, 3_000, 1_800),  # 6 of 10 USD are left: 18 of 30 CHF
        (4 * USD, USD, 3_000, 1_500),  # what a call holds stays with it
        (10 * USD, 0, 3_000, 0),
        (USD, 0, 500, 500),  # no more than was asked about
        (0, 0, 0, 0),
        (0, 0, -5, 0),
    ],
)
def test_the_largest_refund_that_unspent_credit_covers(
    used: int, held: int, most: int, rappen: int
) -> None:
    desk = Desk()
    number = bought(desk)
    desk(RecordUsage("u", used))
    if held:
        desk.reserve(held)
    assert most_without_debt(desk.practice, desk.events[number], most, T0_S) == rappen


@given(used=st.integers(0, 10 * USD), gift=st.integers(0, 3 * USD))
def test_one_rappen_more_would_be_owed(used: int, gift: int) -> None:
    desk = Desk(paid=gift)
    number = bought(desk)
    desk(RecordUsage("u", used))
    rappen = most_without_debt(desk.practice, desk.events[number], 3_000, T0_S)
    assert desk(NetPayment(number, 3_000 - rappen)).ok
    assert desk.figures()[2] == 0
    if rappen < 3_000:
        assert desk(NetPayment(number, 3_000 - rappen - 1)).ok
        assert desk.figures()[2] > 0


@pytest.mark.parametrize(
    ("status", "withheld"),
    [
        ("needs_response", 70), ("under_review", 70), ("lost", 70), ("never_seen", 70),
        ("won", 0), ("prevented", 0), ("warning_needs_response", 0), ("warning_closed", 0),
    ],
)  # fmt: skip
def test_what_a_dispute_withholds(status: str, withheld: int) -> None:
    assert withheld_minor(status, 70) == withheld
    assert withheld_minor(status, -70) == 0


def test_a_closed_dispute_is_one_that_no_longer_moves() -> None:
    assert {"won", "lost", "prevented", "warning_closed"} == DISPUTE_CLOSED
