"""Caps: whose they are, what counts, what is left, and where days and months begin."""

from datetime import UTC, datetime

import pytest

from guthaben.domain import caps
from guthaben.domain.calls import EXPIRED, RELEASED, RESERVED, SETTLED, Call, Origin
from guthaben.domain.caps import Cap
from guthaben.domain.period import day_bounds, day_of

ZURICH = "Europe/Zurich"


def at_s(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())


def call(status: int, reserved: int, cost: int) -> Call:
    return Call(1, 1, "k", 0, status, 0, 0, 0, reserved, cost, "", 0, ())


def test_a_call_counts_for_its_key_and_its_device() -> None:
    assert caps.subjects_of(Origin()) == []
    named = Origin(user_id="u", device_id="d", api_key_id="k")
    assert caps.subjects_of(named) == ["key:k", "device:d"]


def test_a_cap_of_its_own_stands_before_that_of_every_other() -> None:
    known = {"key:*": Cap("key:*", 1), "key:k": Cap("key:k", 2)}
    origin = Origin(api_key_id="k", device_id="d")
    assert list(caps.capped(known, origin)) == [("key:k", known["key:k"])]
    other = Origin(api_key_id="o")
    assert list(caps.capped(known, other)) == [("key:o", known["key:*"])]
    assert list(caps.capped({}, origin)) == []


def test_an_open_call_counts_with_what_it_holds_then_with_what_it_cost() -> None:
    assert caps.counted(None) == 0
    assert caps.counted(call(RESERVED, 7, 0)) == 7
    assert caps.counted(call(SETTLED, 7, 9)) == 9
    assert caps.counted(call(RELEASED, 7, 0)) == 0
    assert caps.counted(call(EXPIRED, 7, 7)) == 7


@pytest.mark.parametrize(
    ("cap", "used", "left"),
    [
        (Cap("key:k"), (5, 5), None),
        (Cap("key:k", 10), (4, 99), 6),
        (Cap("key:k", None, 10), (4, 9), 1),
        (Cap("key:k", 10, 10), (4, 9), 1),
        (Cap("key:k", 10), (11, 0), 0),
        (Cap("key:k", 0), (0, 0), 0),
    ],
)
def test_what_a_cap_leaves(cap: Cap, used: tuple[int, int], left: int | None) -> None:
    assert caps.left(cap, *used) == left


def test_days_and_months_are_those_of_the_zone() -> None:
    late = at_s("2026-11-30T23:59:59+01:00")
    assert caps.windows(ZURICH, late * 1000 + 999) == ("2026-11-30", "2026-11")
    assert caps.windows(ZURICH, (late + 1) * 1000) == ("2026-12-01", "2026-12")
    assert caps.windows("UTC", (late + 1) * 1000) == ("2026-11-30", "2026-11")


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-21", 24)],
)
def test_a_day_is_as_long_as_the_clock_says(day: str, hours: int) -> None:
    noon = at_s(f"{day}T12:00:00+01:00")
    start_s, end_s = day_bounds(ZURICH, noon)
    assert end_s - start_s == hours * 3600
    assert day_of(ZURICH, start_s) == day_of(ZURICH, end_s - 1) == day
    assert day_of(ZURICH, start_s - 1) < day < day_of(ZURICH, end_s)
    assert day_bounds(ZURICH, start_s) == day_bounds(ZURICH, end_s - 1) == (start_s, end_s)
