"""Grants: who may be used, and the order in which they burn down."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.grants import (
    ALLOWANCE,
    NEVER_S,
    PAID,
    PROMOTIONAL,
    Grant,
    Slice,
    burn_down,
    take,
)

NOW_S = 1000


def lot(no: int, kind: int, free: int = 10, expires_at_s: int = NEVER_S, **more: object) -> Grant:
    fields = {"license": "L", "period_start_s": 5} if kind == ALLOWANCE else {}
    return Grant(no, kind, free, 0, max(free, 1), expires_at_s, **{**fields, **more})  # type: ignore[arg-type]


def test_the_order() -> None:
    lots = [
        lot(1, PAID),
        lot(2, PAID, expires_at_s=2000),
        lot(3, PROMOTIONAL),
        lot(4, PROMOTIONAL, expires_at_s=3000),
        lot(5, PROMOTIONAL, expires_at_s=3000),
        lot(6, PAID, expires_at_s=1500),
        lot(7, ALLOWANCE),
    ]
    assert [g.grant_no for g in burn_down(lots, NOW_S, 7)] == [7, 4, 5, 3, 6, 2, 1]


@pytest.mark.parametrize(
    ("grant", "usable"),
    [
        (lot(1, PAID), True),
        (lot(1, PAID, free=0), False),
        (lot(1, PAID, expires_at_s=NOW_S + 1), True),
        (lot(1, PAID, expires_at_s=NOW_S), False),
        (lot(1, PROMOTIONAL, expires_at_s=NOW_S - 1), False),
        (lot(1, ALLOWANCE), True),
        (lot(1, ALLOWANCE, expires_at_s=NOW_S - 1), True),  # no clock ends an allowance
        (lot(2, ALLOWANCE), False),  # of another period
        (lot(1, ALLOWANCE, free=0), False),
    ],
)
def test_who_may_be_used(grant: Grant, usable: bool) -> None:
    assert bool(burn_down([grant], NOW_S, 1)) is usable


def test_debt_may_block_the_allowance_and_nothing_else() -> None:
    lots = [lot(1, ALLOWANCE), lot(2, PAID)]
    assert [g.grant_no for g in burn_down(lots, NOW_S)] == [2]


LOTS = st.lists(
    st.builds(
        lot,
        st.just(0),
        st.sampled_from([ALLOWANCE, PROMOTIONAL, PAID]),
        st.integers(0, 30),
        st.sampled_from([NEVER_S, NOW_S - 1, NOW_S, NOW_S + 1, NOW_S + 9]),
    ),
    max_size=9,
).map(lambda found: [grant._replace(grant_no=no) for no, grant in enumerate(found, 1)])


@given(LOTS, st.randoms(use_true_random=False))
def test_the_order_is_total_and_does_not_depend_on_where_they_lie(lots: list, random) -> None:
    own = next((grant.grant_no for grant in lots if grant.kind == ALLOWANCE), 0)
    ordered = burn_down(lots, NOW_S, own)
    shuffled = list(lots)
    random.shuffle(shuffled)
    assert burn_down(shuffled, NOW_S, own) == ordered
    for earlier, later in pairwise(ordered):
        assert earlier.kind <= later.kind
        if earlier.kind == later.kind:
            assert earlier.expires_at_s <= later.expires_at_s
            if earlier.expires_at_s == later.expires_at_s:
                assert earlier.grant_no < later.grant_no
    left_out = [grant for grant in lots if grant not in ordered]
    assert all(
        g.free_nano_usd == 0
        or (g.grant_no != own if g.kind == ALLOWANCE else g.expires_at_s <= NOW_S)
        for g in left_out
    )


@given(LOTS, st.integers(0, 200))
def test_slices_are_cut_from_the_front_and_tell_what_is_missing(lots: list, amount: int) -> None:
    usable = burn_down(lots, NOW_S)
    slices, missing = take(usable, amount)
    assert sum(piece.amount_nano_usd for piece in slices) + missing == amount
    assert missing == max(0, amount - sum(g.free_nano_usd for g in usable))
    assert [piece.grant_no for piece in slices] == [g.grant_no for g in usable[: len(slices)]]
    # All but the last are used up before the next is touched.
    for piece, grant in zip(slices[:-1], usable, strict=False):
        assert piece == Slice(grant.grant_no, grant.free_nano_usd)
    assert all(piece.amount_nano_usd > 0 for piece in slices)
