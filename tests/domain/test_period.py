"""Periods: a licence's own, rolled on by its own length, and calendar months in a time zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.period import DEFAULT_TIME_ZONE, month_bounds, month_of, rolled, zone

HOUR, DAY = 3_600, 86_400


def at(text: str, time_zone: str = DEFAULT_TIME_ZONE) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(time_zone)).timestamp())


@pytest.mark.parametrize(
    ("month", "end", "seconds"),
    [
        ("2024-02-01", "2024-03-01", 29 * DAY),
        ("2023-02-01", "2023-03-01", 28 * DAY),
        ("2024-03-01", "2024-04-01", 31 * DAY - HOUR),  # summer time begins
        ("2024-10-01", "2024-11-01", 31 * DAY + HOUR),  # and ends
        ("2024-12-01", "2025-01-01", 31 * DAY),
    ],
)
def test_month_bounds_in_zurich(month: str, end: str, seconds: int) -> None:
    start_s, end_s = at(month), at(end)
    assert end_s - start_s == seconds
    for inside in (start_s, start_s + 1, (start_s + end_s) // 2, end_s - 1):
        assert month_bounds(DEFAULT_TIME_ZONE, inside) == (start_s, end_s)
    assert month_bounds(DEFAULT_TIME_ZONE, start_s - 1)[1] == start_s
    assert month_bounds(DEFAULT_TIME_ZONE, end_s)[0] == end_s


@pytest.mark.parametrize(
    ("instant", "zurich", "utc"),
    [
        ("2026-10-31T23:59:59", "2026-10", "2026-10"),
        ("2026-11-01T00:00:00", "2026-11", "2026-10"),  # 23:00 UTC on the day before
        ("2026-08-01T01:59:59", "2026-08", "2026-07"),
        ("2026-08-01T02:00:00", "2026-08", "2026-08"),
        ("2026-12-31T23:59:59", "2026-12", "2026-12"),
        ("2027-01-01T00:59:59", "2027-01", "2026-12"),
    ],
)
def test_the_month_is_zurichs(instant: str, zurich: str, utc: str) -> None:
    assert month_of(DEFAULT_TIME_ZONE, at(instant)) == zurich
    assert month_of("UTC", at(instant)) == utc


@given(
    st.integers(0, 4_000_000_000),
    st.sampled_from(["Europe/Zurich", "UTC", "America/St_Johns", "Asia/Kathmandu", "Asia/Amman"]),
)
def test_a_month_contains_its_instants_and_nothing_else(at_s: int, time_zone: str) -> None:
    start_s, end_s = month_bounds(time_zone, at_s)
    assert start_s <= at_s < end_s
    name = month_of(time_zone, at_s)
    assert month_of(time_zone, start_s) == name == month_of(time_zone, end_s - 1)
    assert month_of(time_zone, start_s - 1) != name != month_of(time_zone, end_s)


def test_zones_are_remembered_apart() -> None:
    instant = at("2026-11-01T00:30:00")
    assert month_bounds("UTC", instant) != month_bounds(DEFAULT_TIME_ZONE, instant)
    assert month_bounds("UTC", instant)[1] == at("2026-11-01", "UTC")


def test_an_unknown_zone_is_no_zone() -> None:
    for name in ("Europe/Zug", "", "../etc/passwd"):
        with pytest.raises(ValueError, match=r"time zone|normalized|absolute|key"):
            zone(name)


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (0, (1000, 1100, False)),  # a period to come stays as it is
        (1000, (1000, 1100, False)),
        (1099, (1000, 1100, False)),
        (1100, (1100, 1200, True)),
        (1199, (1100, 1200, True)),
        (1200, (1200, 1300, True)),
        (999_950, (999_900, 1_000_000, True)),
    ],
)
def test_rolling_by_its_own_length(now_s: int, expected: tuple[int, int, bool]) -> None:
    assert rolled(1000, 1100, now_s) == expected


def test_a_period_without_length_does_not_roll() -> None:
    assert rolled(1000, 1000, 5000) == (1000, 1000, False)
    assert rolled(1000, 900, 5000) == (1000, 900, False)


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(0, 2 * 10**9))
def test_a_rolled_period_contains_now_and_keeps_its_length(
    start: int, length: int, now: int
) -> None:
    start_s, end_s, provisional = rolled(start, start + length, now)
    assert end_s - start_s == length
    assert (start_s - start) % length == 0
    assert provisional == (start_s != start)
    assert now < end_s
    assert start_s <= max(now, start)
