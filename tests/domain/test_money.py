"""Money: integers everywhere, floats only over one edge, and every rounding by its name."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain import money
from guthaben.domain.money import MAX_COMMAND_NANO_USD as MOST


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0.0, 0),
        (-0.0, 0),
        (6.6667, 6_666_700_000),
        (0.1 + 0.2, 300_000_000),
        (1e-12, 1),  # a cost never vanishes
        (5e-324, 1),
        (4e-10, 1),
        (5e-10, 1),
        (1.5e-9, 2),  # half to even
        (2.5e-9, 2),
        (3.5e-9, 4),
        (-1e-12, 0),
        (-1.5e-9, -2),
        (-2.5e-9, -2),
        (1e-9, 1),
        (10, 10_000_000_000),
        (1_000_000.0, MOST),
        (-1_000_000.0, -MOST),
        (Decimal("0.1"), 100_000_000),
        (Decimal("2.50000000000000000000000000001e-9"), 3),  # beyond the half, however little
    ],
)
def test_usd_over_the_edge(usd: float, nano: int) -> None:
    assert money.nano_usd_from_float(usd) == nano


@pytest.mark.parametrize(
    "bad",
    [float("nan"), float("inf"), float("-inf"), True, False, None, "1", b"1", 1j, [1],
     Decimal("NaN"), Decimal("Infinity")],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(
    "convert", [money.nano_usd_from_float, money.rappen_from_float, money.micros_from_float]
)
def test_what_is_no_number_stays_outside(convert: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match="not a"):
        convert(bad)


@pytest.mark.parametrize("huge", [1_000_000.01, 1e300, 10**40, -1e300, 1.7976931348623157e308])
def test_more_than_a_command_may_move_stays_outside(huge: float) -> None:
    with pytest.raises(ValueError, match="beyond"):
        money.nano_usd_from_float(huge)


def test_more_rappen_than_anybody_has_stay_outside() -> None:
    assert money.rappen_from_float(1e13) == MOST
    for huge in (1e13 + 0.01, -1e300):
        with pytest.raises(ValueError, match="beyond"):
            money.rappen_from_float(huge)


def test_the_hosts_decimal_context_decides_nothing() -> None:
    with localcontext() as context:
        context.prec = 3
        assert money.nano_usd_from_float(6.66671) == 6_666_710_000
        assert money.rappen_from_float(12345.67) == 1_234_567
        assert money.micros_from_float(12.345678) == 12_345_678


def test_a_subclass_of_float_may_write_itself_as_it_likes() -> None:
    class Verbose(float):
        def __repr__(self) -> str:
            return f"verbose({float(self)})"

    assert money.nano_usd_from_float(Verbose(1.5)) == 1_500_000_000


@given(st.integers(-MOST, MOST))
def test_what_leaves_over_the_edge_comes_back(nano: int) -> None:
    assert money.nano_usd_from_float(money.float_from_nano_usd(nano)) == nano


def test_a_float_leaves_as_people_write_it() -> None:
    assert money.float_from_nano_usd(6_666_700_000) == 6.6667  # times 1e-9 it would not be
    assert money.float_from_nano_usd(3_333_300_000) == 3.3333
    assert money.float_from_rappen(4_990) == 49.9


@pytest.mark.parametrize(
    ("chf", "rappen"),
    [(30, 3_000), (49.9, 4_990), (0.005, 0), (0.015, 2), (0.025, 2), (-0.015, -2), (1e-9, 0)],
)
def test_chf_over_the_edge(chf: float, rappen: int) -> None:
    assert money.rappen_from_float(chf) == rappen


@pytest.mark.parametrize(
    ("seconds", "micros"), [(0, 0), (1.5, 1_500_000), (5e-7, 0), (1.5e-6, 2), (1e9, MOST)]
)
def test_seconds_over_the_edge(seconds: float, micros: int) -> None:
    assert money.micros_from_float(seconds) == micros


@pytest.mark.parametrize("seconds", [-1, -1e-12, 1e9 + 1, 1e300])
def test_seconds_out_of_range(seconds: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        money.micros_from_float(seconds)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("-0.00", 0),
        ("10", 10_000_000_000),
        ("10.00", 10_000_000_000),
        ("0.000000001", 1),
        ("-6.6667", -6_666_700_000),
        ("007", 7_000_000_000),
        ("4000000000.00", money.MAX_BALANCE_NANO_USD),
    ],
)
def test_parse_usd(text: str, nano: int) -> None:
    assert money.parse_usd(text) == nano


@pytest.mark.parametrize(
    "bad",
    ["", " 1", "1 ", "1\n", "+1", "--1", "1e3", "1E3", ".5", "5.", "1.0000000001", "1,5", "1_000",
     "1'000", "NaN", "Infinity", "0x10", "١", "１", "1.５", "²", "-", "12345678901", "1.2.3",
     "\u22121", "1\x00"],
)  # fmt: skip
def test_parse_is_strict(bad: str) -> None:
    with pytest.raises(ValueError, match="not a decimal amount with at most 9 decimals"):
        money.parse_usd(bad)
    with pytest.raises(ValueError, match="not a decimal amount with at most 2 decimals"):
        money.parse_chf(bad)


def test_parse_chf_knows_two_decimals() -> None:
    assert money.parse_chf("49.9") == 4_990
    assert money.parse_chf("-0.05") == -5
    with pytest.raises(ValueError, match="at most 2"):
        money.parse_chf("0.005")


@given(st.integers(-money.MAX_BALANCE_NANO_USD, money.MAX_BALANCE_NANO_USD))
def test_format_and_parse_are_inverse(nano: int) -> None:
    text = money.format_usd(nano)
    assert money.parse_usd(text) == nano
    assert len(text.partition(".")[2]) >= 2


@pytest.mark.parametrize(
    ("nano", "text"),
    [(10**10, "10.00"), (1, "0.000000001"), (-1, "-0.000000001"), (1_500_000_000, "1.50"),
     (6_666_700_000, "6.6667"), (0, "0.00")],
)  # fmt: skip
def test_format_usd(nano: int, text: str) -> None:
    assert money.format_usd(nano) == text


@given(st.integers(-(10**11), 10**11))
def test_format_chf_and_parse_are_inverse(rappen: int) -> None:
    assert money.parse_chf(money.format_chf(rappen)) == rappen


@pytest.mark.parametrize(
    ("chf", "usd"),
    [(10, "3.3333"), (20, "6.6667"), (30, "10.00"), (45, "15.00"), (50, "16.6667"),
     (100, "33.3333"), (300, "100.00"), (0, "0.00")],
)  # fmt: skip
def test_what_a_price_buys(chf: int, usd: str) -> None:
    assert money.format_usd(money.nano_usd_for_rappen(chf * 100)) == usd


@given(st.integers(0, 10**9))
def test_what_a_price_buys_is_within_half_of_the_fourth_decimal(rappen: int) -> None:
    exact = Fraction(rappen * 10_000_000, 3)
    bought = money.nano_usd_for_rappen(rappen)
    assert bought % 100_000 == 0
    assert abs(bought - exact) <= 50_000


@given(
    st.one_of(st.integers(-(10**20), 10**20), st.integers(-20, 20)),
    st.one_of(st.integers(-(10**9), 10**9), st.sampled_from([-4, -2, 2, 4, 10])).filter(bool),
)
def test_half_even_is_what_fractions_say(numerator: int, denominator: int) -> None:
    assert money.div_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_up_is_never_too_little_and_less_than_one_too_much(a: int, b: int) -> None:
    assert 0 <= money.div_up(a, b) * b - a < b


@pytest.mark.parametrize(
    ("value", "is_one"),
    [(1, True), (MOST, True), (0, False), (MOST + 1, False), (True, False), (1.0, False),
     ("1", False), (None, False)],
)  # fmt: skip
def test_an_amount_is_a_true_integer(value: object, is_one: bool) -> None:
    assert money.is_amount(value, 1) is is_one
