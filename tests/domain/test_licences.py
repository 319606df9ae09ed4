"""What a subscription entitles to: dated plans, the highest of a period, the one that leads."""

from __future__ import annotations

import pytest

from guthaben.domain.commands import SetLicense
from guthaben.domain.grants import NEVER_S
from guthaben.domain.journal import genesis
from guthaben.domain.licences import (
    Item,
    Plans,
    PlanVersion,
    Sighting,
    Standing,
    Subscription,
    Term,
    leading,
    never_ends,
    period_allowance,
    standing,
)
from guthaben.domain.money import MAX_COMMAND_NANO_USD
from guthaben.domain.practice import Practice, current_period

T, END = 1_000, 2_000


def item(key: str = "basic", quantity: int = 1, start_s: int = T, end_s: int = END) -> Item:
    return Item(key, quantity, start_s, end_s)


def plans(*more: PlanVersion) -> Plans:
    """Basic 20, or 5 in a trial; pro 50."""
    return Plans([PlanVersion(1, "basic", 0, 20, 5), PlanVersion(2, "pro", 0, 50), *more])


def subscription(status: str = "active", *items: Item, **fields: object) -> Subscription:
    known = Subscription("sub_1", status, items or (item(),), NEVER_S, 7, 0)
    return known._replace(**fields)  # type: ignore[arg-type]


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("start_s", "allowance"), [(0, 20), (99, 20), (100, 30), (199, 30), (200, None), (300, 40)]
)
def test_what_counts_is_what_was_set_for_the_periods_beginning(
    start_s: int, allowance: int | None
) -> None:
    dated = Plans(
        [
            PlanVersion(4, "a", 300, 40),
            PlanVersion(1, "a", 50, 20),
            PlanVersion(2, "a", 100, 30),
            PlanVersion(3, "a", 200, 30, removed=True),
        ]
    )
    found = dated.version("a", start_s)
    assert (found.allowance_nano_usd if found else None) == allowance
    assert dated.version("b", start_s) is None


def test_of_two_with_one_date_the_later_entry_counts_also_before_it() -> None:
    dated = Plans([PlanVersion(2, "a", 50, 25), PlanVersion(1, "a", 50, 20)])
    assert [dated.version("a", at).plan_no for at in (0, 50)] == [2, 2]  # type: ignore[union-attr]
    gone = Plans([PlanVersion(1, "a", 50, 20, removed=True)])
    assert gone.version("a", 0) is None
    assert gone.current(60) == []
    assert [version.lookup_key for version in plans().current(0)] == ["basic", "pro"]


@pytest.mark.parametrize(
    ("items", "trial", "expected"),
    [
        ((item(),), False, Term(T, END, 20)),
        ((item(),), True, Term(T, END, 5)),
        ((item("pro"),), True, Term(T, END, 50)),
        ((item(quantity=3),), False, Term(T, END, 60)),
        ((item(), item("pro")), False, Term(T, END, 70)),
        ((item(), item("other", 9)), False, Term(T, END, 20)),
        ((item("other"),), False, Term(T, END, None)),
        ((item(), item("other", start_s=1_500)), False, Term(T, END, 20)),
        ((item(), item("pro", start_s=1_500)), False, Term(1_500, END, 50)),
        ((item(quantity=0),), False, Term(T, END, 0)),
        ((item(quantity=10**15),), False, Term(T, END, MAX_COMMAND_NANO_USD)),
    ],
)
def test_what_items_include(items: tuple[Item, ...], trial: bool, expected: Term) -> None:
    assert plans().term(items, trial=trial) == expected
    assert plans().knows(items) == (expected.allowance_nano_usd is not None)


def test_a_period_includes_the_highest_that_was_seen_in_it() -> None:
    seen = [
        Sighting((item(),), False),
        Sighting((item("pro"),), False),
        Sighting((item("pro", 9, start_s=500),), False),
        Sighting((item("other"),), False),
    ]
    assert period_allowance(seen, plans(), T) == 50
    assert period_allowance(reversed(seen), plans(), T) == 50
    assert period_allowance(seen, plans(), 500) == 450
    assert period_allowance(seen, plans(), 501) == 0


# ---------------------------------------------------------------- standing


@pytest.mark.parametrize(
    ("status", "active", "ends_at_s"),
    [
        ("active", True, NEVER_S), ("trialing", True, NEVER_S), ("past_due", True, END),
        ("unpaid", False, NEVER_S), ("paused", False, NEVER_S), ("incomplete", False, NEVER_S),
        ("incomplete_expired", False, NEVER_S), ("canceled", False, NEVER_S),
    ],
)  # fmt: skip
def test_statuses(status: str, active: bool, ends_at_s: int) -> None:
    found = standing(subscription(status), plans(), 1_500)
    assert (found.active, found.ends_at_s) == (active, ends_at_s)


def test_an_end_ends_it() -> None:
    for now_s, active in ((1_799, True), (1_800, False)):
        found = standing(subscription(ends_at_s=1_800), plans(), now_s)
        assert found.active is active
    past_due = subscription("past_due", ends_at_s=1_800)
    assert standing(past_due, plans(), 0).ends_at_s == 1_800


def test_this_period_and_the_next() -> None:
    seen = (Sighting((item("pro"),), False), Sighting((item(),), False))
    found = standing(subscription(sightings=seen), plans(), 1_500)
    assert (found.period_nano_usd, found.next_nano_usd, found.known) == (50, 20, True)
    trial = subscription("trialing", sightings=(Sighting((item(),), True),))
    found = standing(trial, plans(), 1_500)
    assert (found.period_nano_usd, found.next_nano_usd) == (5, 20)


def test_an_unknown_plan_keeps_what_was_known() -> None:
    unknown = subscription("active", item("other"), allowance_nano_usd=20)
    found = standing(unknown, plans(), 1_500)
    assert (found.period_nano_usd, found.next_nano_usd, found.known) == (20, 20, False)
    assert (found.start_s, found.end_s, found.plans) == (T, END, "other")
    assert standing(subscription("active", item("")), plans(), 0).plans == "(none)"


def test_the_highest_leads_then_the_one_begun_first() -> None:
    def made(name: str, active: bool, this: int, following: int, began_at_s: int) -> Standing:
        return Standing(
            name, "active", active, T, END, NEVER_S, this, following, True, began_at_s, ""
        )

    over = made("over", False, 99, 99, 1)
    low, first = made("low", True, 20, 20, 1), made("first", True, 50, 50, 2)
    second, rising = made("second", True, 50, 50, 3), made("rising", True, 50, 60, 4)
    assert leading([over]) is None
    assert leading([]) is None
    assert leading([over, low, second, first]) is first
    assert leading([first, rising]) is rising
    assert never_ends(None) == NEVER_S
    assert never_ends(5) == 5


# ---------------------------------------------------------------- the practice


def test_a_licence_that_is_to_end_does_not_roll_on() -> None:
    practice = Practice(
        1, "p", genesis("p"), license="L", license_active=True, period_start_s=T, period_end_s=END,
        allowance_nano_usd=20, license_ends_at_s=2_500,
    )  # fmt: skip
    assert current_period(practice, 1_999)[:3] == ("L", T, END)
    assert current_period(practice, 2_499)[:3] == ("L", END, END + 1_000)
    assert current_period(practice, 2_500).license == ""
    assert SetLicense("L", True, T, END, 20).ends_at_s == NEVER_S
