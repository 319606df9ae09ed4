"""Low credit is told once per crossing, and again only after new credit or a new period."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.services.jobs import Job, Runner
from guthaben.services.low_balance import LowBalanceWatch, bucket, judge
from guthaben.services.notices import Notice
from guthaben.store import low_watch
from guthaben.store.low_watch import Level, Standing
from tests.services.house import OTHER, PRACTICE, USD, House

DAY_S = 86_400


class Looking:
    """A house whose practices are looked at."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.number = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was seen, as another server would."""
        self.watch = LowBalanceWatch(self.house.store)
        self.runner = Runner(self.house.store, [Job("low_balance", 30, self.watch.look)])

    def look(self) -> list[str]:
        """Look, and tell what all have been told so far."""
        done = self.runner.work_once(everything=True)
        assert done is not None
        assert [row.error for row in done] == [""]
        rows = self.house.rows("SELECT kind FROM credit_notice ORDER BY told_at_s, kind")
        return [row["kind"] for row in rows]

    def use(self, usd: str, practice_id: str = PRACTICE) -> list[str]:
        """Use credit, then look."""
        self.number += 1
        self.house.clock.wait(1)
        nano = int(float(usd) * USD)
        self.house.guthaben.record_usage(practice_id, nano, key=str(self.number))
        return self.look()

    def give(self, usd: int, practice_id: str = PRACTICE) -> None:
        """Give credit."""
        self.number += 1
        self.house.guthaben.grant(practice_id, usd * USD, key=str(self.number))

    def license(self, usd: int = 100) -> None:
        """Give the practice a licence from now on."""
        now_s = self.house.clock.at_s
        self.house.guthaben.set_license(
            PRACTICE, "basic", period_start_s=now_s - DAY_S, period_end_s=now_s + 29 * DAY_S,
            allowance_nano_usd=usd * USD,
        )  # fmt: skip


@pytest.fixture
def looking(house: House) -> Looking:
    return Looking(house)


def test_each_threshold_of_the_allowance_is_told_once(looking: Looking) -> None:
    looking.license()
    assert looking.use("80") == []
    assert looking.use("0.01") == ["low_balance_20"]
    assert looking.use("10") == ["low_balance_20"]
    assert looking.use("5") == ["low_balance_20", "low_balance_5"]
    assert looking.use("3.5")[-1] == "low_balance_5"
    assert looking.use("0.9") == ["low_balance_20", "low_balance_5", "empty"]
    assert looking.use("50") == ["low_balance_20", "low_balance_5", "empty"]
    (told,) = looking.house.rows("SELECT facts FROM credit_notice WHERE kind = 'low_balance_20'")
    assert told["facts"] == '{"available_nano_usd":19990000000,"of_nano_usd":100000000000}'


def test_without_an_allowance_the_last_credit_counts(looking: Looking) -> None:
    looking.give(10)
    assert looking.use("7.9") == []
    assert looking.use("0.2") == ["low_balance_20"]
    looking.give(100)
    assert looking.use("81") == ["low_balance_20"]
    assert looking.use("1.5") == ["low_balance_20"] * 2, "19.40 of the last 100 are left"


def test_of_several_passed_at_once_the_lowest_is_told(looking: Looking) -> None:
    looking.license()
    assert looking.use("97") == ["low_balance_5"]


def test_new_credit_arms_only_what_it_rises_above(looking: Looking) -> None:
    looking.license()
    assert looking.use("97") == ["low_balance_5"]
    looking.give(7)  # 10 of 100: above 5, below 20
    assert looking.look() == ["low_balance_5"]
    assert looking.use("6") == ["low_balance_5"] * 2
    looking.give(90)
    assert looking.look() == ["low_balance_5"] * 2
    assert looking.use("80") == ["low_balance_5", "low_balance_5", "low_balance_20"]


def test_credit_that_merely_comes_back_tells_nothing_again(looking: Looking) -> None:
    looking.give(100)
    with looking.house.guthaben.reserve(PRACTICE, 90 * USD, key="r") as call:
        assert looking.look() == [], "what is only held may come back"
        call.release()
    assert looking.use("95.5") == ["low_balance_5"]
    looking.number += 1
    looking.house.guthaben.adjust(PRACTICE, -1 * USD, key="less", reason="a correction")
    assert looking.look() == ["low_balance_5"]


def test_a_new_period_arms_all(looking: Looking) -> None:
    looking.license()
    assert looking.use("97") == ["low_balance_5"]
    looking.house.clock.wait(30 * DAY_S)
    assert looking.use("1") == ["low_balance_5"]
    assert looking.use("95") == ["low_balance_5"] * 2


def test_another_server_tells_nothing_again(looking: Looking) -> None:
    looking.license()
    assert looking.use("97") == ["low_balance_5"]
    looking.restart()
    assert looking.look() == ["low_balance_5"]


def test_practices_are_looked_at_apart(looking: Looking) -> None:
    looking.give(10)
    looking.give(10, OTHER)
    assert looking.use("9.6") == ["low_balance_5"]
    rows = looking.house.rows(
        "SELECT practice_id FROM credit_notice JOIN credit_practice USING (practice_no)"
    )
    assert rows == [{"practice_id": PRACTICE}]


def test_only_what_changed_is_looked_at(looking: Looking, monkeypatch: Any) -> None:
    looking.give(10)
    looking.give(10, OTHER)
    looking.look()
    seen: list[str] = []
    whole = low_watch.standing

    def noted(cursor: Any, touched: low_watch.Touched, now_s: int) -> Standing:
        seen.append(touched.practice_id)
        return whole(cursor, touched, now_s)

    monkeypatch.setattr(low_watch, "standing", noted)
    looking.look()
    assert seen == []
    looking.use("1", OTHER)
    assert seen == [OTHER]


def test_many_practices_that_are_well_cost_no_write(looking: Looking) -> None:
    for number in range(20):
        looking.give(10, f"prac_{number}")
    looking.look()
    assert looking.house.rows("SELECT * FROM credit_low_watch") == []
    for number in range(20):
        looking.number += 1
        looking.house.guthaben.record_usage(f"prac_{number}", 9 * USD, key=str(number))
    assert looking.look() == ["low_balance_20"] * 20
    looking.give(100, "prac_3")
    looking.look()
    levels = looking.house.rows(
        "SELECT level, COUNT(*) AS n FROM credit_low_watch GROUP BY level ORDER BY level"
    )
    assert [(row["level"], row["n"]) for row in levels] == [(20, 19), (100, 1)]


def test_a_practice_without_any_credit_is_told_nothing(looking: Looking) -> None:
    assert looking.use("1") == []


AMOUNTS = st.integers(-(10**12), 10**12)


@given(st.lists(st.tuples(AMOUNTS, st.sampled_from("ab"), st.integers(0, 10**12)), max_size=30))
def test_levels_only_rise_with_new_credit_and_each_fall_is_told_once(steps: Any) -> None:
    known: Level | None = None
    basis_before = None
    told: list[Notice] = []
    for remaining, basis, of in steps:
        standing = Standing(remaining, of, 0, basis)
        level, notice = judge(known, standing)
        reached, _ = bucket(standing)
        assert level.level <= 100
        assert (notice is not None) == (
            (known is None and reached < 100)
            or (known is not None and level.level < known.level)
            or (known is not None and level.crossings > known.crossings)
        )
        if known is not None and basis == basis_before:
            assert level.level <= known.level, "nothing is armed without new credit"
        if basis != basis_before:
            told = []
        if notice is not None:
            assert notice not in told
            told.append(notice)
        assert judge(level, standing) == (level, None), "looking twice tells nothing"
        known, basis_before = level, basis


@pytest.mark.parametrize(
    ("remaining", "of", "wanted"),
    [(20, 100, None), (19, 100, Notice.LOW_BALANCE_20), (5, 100, Notice.LOW_BALANCE_20),
     (4, 100, Notice.LOW_BALANCE_5), (1, 100, Notice.LOW_BALANCE_5), (0, 100, Notice.EMPTY),
     (-7, 100, Notice.EMPTY), (9, 1_000, Notice.EMPTY), (10, 1_000, Notice.LOW_BALANCE_5),
     (0, 0, None), (10**15, 1, None)],
)  # fmt: skip
def test_thresholds_are_whole_per_cents_rounded_down(
    remaining: int, of: int, wanted: Notice | None
) -> None:
    assert bucket(Standing(remaining, of, 0, "a"))[1] == wanted
