"""Grants, adjustments, expiry, licences, policies and balances, example by example."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from guthaben.domain.apply import apply
from guthaben.domain.commands import (
    Adjust,
    ExpireGrants,
    GrantCredit,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    SetPolicy,
    Settle,
)
from guthaben.domain.grants import ALLOWANCE, NEVER_S, PAID, PROMOTIONAL, Grant
from guthaben.domain.journal import genesis
from guthaben.domain.money import MAX_COMMAND_NANO_USD as MOST
from guthaben.domain.period import Period
from guthaben.domain.practice import (
    CLOSED,
    FROZEN,
    NEVER_MS,
    Mode,
    Overrun,
    Practice,
    PracticeStatus,
    balance_of,
    current_period,
)
from tests.domain.desk import BARE, JAN, T0, T0_S, Desk, Flow, refused


def test_stored_numbers_stay() -> None:
    assert [int(x) for kind in (Mode, PracticeStatus, Overrun) for x in kind] == [
        1, 2, 1, 2, 3, 1, 2,
    ]  # fmt: skip


# ---- GrantCredit


@pytest.mark.parametrize(
    ("kind", "flow"),
    [
        (PAID, ("purchased", "paid", 1, 5)),
        (PROMOTIONAL, ("gifted", "promotional", 1, 5)),
        (ALLOWANCE, ("included", "allowance", 1, 5)),
    ],
)
def test_where_credit_comes_from(kind: int, flow: Flow) -> None:
    desk = Desk()
    desk.grant(kind, 5)
    assert desk.flows == [flow]
    assert desk.figures() == (5, 0, 0)


@pytest.mark.parametrize(
    ("status", "amount", "expires_in_s", "reason"),
    [
        (1, 1, None, ""),
        (1, MOST, None, ""),
        (1, 0, None, "invalid_amount"),
        (1, -1, None, "invalid_amount"),
        (1, MOST + 1, None, "invalid_amount"),
        (1, True, None, "invalid_amount"),
        (1, 0, 0, "invalid_amount"),
        (1, 5, 0, "already_expired"),
        (1, 5, -1, "already_expired"),
        (1, 5, 1, ""),
        (CLOSED, 5, 0, "already_expired"),
        (CLOSED, 5, None, "practice_closed"),
        (FROZEN, 5, None, ""),
    ],
)
def test_reasons_of_grant(status: int, amount: Any, expires_in_s: int | None, reason: str) -> None:
    desk = Desk()
    desk(SetPolicy(status=status))
    ends_s = NEVER_S if expires_in_s is None else T0_S + expires_in_s
    told = desk(GrantCredit("k", PAID, amount, ends_s))
    assert (told.ok, told.reason) == (not reason, reason)
    assert bool(desk.flows) is told.ok


def test_a_grant_replays_and_conflicts() -> None:
    desk = Desk()
    first = desk(GrantCredit("k", PAID, 5))
    again = desk(GrantCredit("k", PAID, 5))
    assert (again.replayed, again.applied, again.grant_no) == (True, False, first.grant_no)
    assert refused(desk(GrantCredit("k", PAID, 6))) == "idempotency_conflict"
    assert refused(desk(GrantCredit("k", PROMOTIONAL, 5))) == "idempotency_conflict"
    assert desk.figures() == (5, 0, 0)


def test_there_is_never_a_second_allowance_for_one_period() -> None:
    desk = Desk()
    desk.grant(ALLOWANCE, 40, period=JAN)  # by hand, before the period's first touch
    assert refused(desk(GrantCredit("k", ALLOWANCE, 5, period=JAN))) == "allowance_exists"
    desk(Reserve("r", 40, period=JAN))
    assert desk.flows == []
    assert refused(desk(Reserve("s", 1, period=JAN))) == "insufficient_credit"
    desk.grant(ALLOWANCE, 5)  # the current period is another one: the calendar month
    assert desk.practice.grants[2].license == ""


def test_an_allowance_has_no_end_of_its_own() -> None:
    desk = Desk()
    desk.grant(ALLOWANCE, 40, T0_S + 1, period=JAN)
    assert desk.practice.grants[1].expires_at_s == NEVER_S
    desk.wait(10_000)
    assert desk(ExpireGrants(NEVER_MS)).applied is False


def test_bought_and_given_credit_repays_debt_first() -> None:
    desk = Desk()
    desk(RecordUsage("u", 100))
    desk.grant(ALLOWANCE, 40)
    assert desk.flows == [("included", "allowance", 1, 40)]  # an allowance repays nothing
    desk.grant(PROMOTIONAL, 30)
    assert desk.flows == [("gifted", "promotional", 2, 30), ("promotional", "debt", 2, 30)]
    desk.grant(PAID, 90)
    assert desk.flows == [("purchased", "paid", 3, 90), ("paid", "debt", 3, 70)]
    assert desk.figures() == (60, 0, 0)


def test_no_sum_of_credit_grows_beyond_the_limit() -> None:
    full = Grant(1, PAID, 4 * 10**18 - MOST, 0, 4 * 10**18 - MOST)
    practice = Practice(1, "p", genesis("p"), next_grant_no=2, grants={1: full})
    assert apply(practice, None, GrantCredit("k", PAID, MOST), T0).outcome.ok
    held = full._replace(held_nano_usd=1)
    told = apply(practice._replace(grants={1: held}), None, GrantCredit("k", PAID, MOST), T0)
    assert refused(told.outcome) == "balance_limit"
    assert told.transfers == []


def test_the_numbers_of_transfers_have_no_gap() -> None:
    desk = Desk()
    for amount in (5, 77, 1, 77):
        desk.grant(PAID, amount)
    assert [transfer.seq for transfer in desk.journal] == [1, 2, 3, 4]


# ---- Adjust


@pytest.mark.parametrize(
    ("amount", "kind", "flows", "figures"),
    [
        (5, PAID, [("adjusted", "paid", 3, 5)], (105, 0, 0)),
        (5, PROMOTIONAL, [("adjusted", "promotional", 3, 5)], (105, 0, 0)),
        (-20, PAID, [("promotional", "adjusted", 2, 20)], (80, 0, 0)),
        (-20, 0, [("promotional", "adjusted", 2, 20)], (80, 0, 0)),
        (-110, PAID, [("promotional", "adjusted", 2, 30), ("paid", "adjusted", 1, 70),
                      ("debt", "adjusted", 0, 10)], (0, 0, 10)),
    ],
)  # fmt: skip
def test_adjust(amount: int, kind: int, flows: list[Flow], figures: tuple[int, int, int]) -> None:
    desk = Desk(paid=70)
    desk.grant(PROMOTIONAL, 30)
    told = desk(Adjust("a", amount, kind))
    assert told.ok, told.reason
    assert desk.flows == flows
    assert desk.figures() == figures
    assert told.event is not None
    assert (told.event.event_type, told.event.amount_nano_usd) == ("adjustment", amount)
    assert told.grant_no == (3 if amount > 0 else 0)
    assert desk(Adjust("a", amount, kind)).replayed
    assert refused(desk(Adjust("a", amount + 1, kind))) == "idempotency_conflict"
    assert desk.figures() == figures


def test_an_adjustment_downwards_spares_the_allowance_and_what_is_held() -> None:
    desk = Desk(paid=70)
    desk.grant(ALLOWANCE, 50)
    desk(Reserve("r", 60))  # 50 of the allowance and 10 paid
    desk(Adjust("a", -100, PAID))
    assert desk.flows == [("paid", "adjusted", 1, 60), ("debt", "adjusted", 0, 40)]
    assert desk.figures() == (0, 60, 40)


@pytest.mark.parametrize(
    ("status", "amount", "kind", "reason"),
    [
        (1, 0, PAID, "invalid_amount"),
        (1, MOST + 1, PAID, "invalid_amount"),
        (1, -MOST - 1, PAID, "invalid_amount"),
        (1, True, PAID, "invalid_amount"),
        (1, 5, ALLOWANCE, "invalid_amount"),
        (CLOSED, 0, PAID, "invalid_amount"),
        (CLOSED, 5, PAID, "practice_closed"),
        (FROZEN, -5, PAID, ""),
        (1, MOST, PAID, ""),
        (1, -MOST, PAID, ""),
    ],
)
def test_reasons_of_adjust(status: int, amount: Any, kind: int, reason: str) -> None:
    desk = Desk()
    desk(SetPolicy(status=status))
    told = desk(Adjust("a", amount, kind))
    assert (told.ok, told.reason) == (not reason, reason)


# ---- ExpireGrants


def test_only_the_free_part_of_what_is_over_expires() -> None:
    desk = Desk(paid=10)
    desk.grant(PROMOTIONAL, 30, T0_S + 5)
    desk.grant(PAID, 7, T0_S + 6)
    desk.reserve(20)  # pins 20 of the 30
    desk.wait(5000)
    assert desk(ExpireGrants(NEVER_MS)).applied
    assert desk.flows == [("promotional", "expired", 2, 10)]
    assert desk.practice.next_due_ms == (T0_S + 6) * 1000
    assert desk(ExpireGrants(NEVER_MS)).applied is False
    desk(Release(1))
    assert desk.flows == [("promotional", "expired", 2, 20)]
    assert desk.figures() == (17, 0, 0)


@pytest.mark.parametrize(("at_ms", "flows"), [(4999, 0), (5000, 1)])
def test_a_grant_is_over_with_its_last_second(at_ms: int, flows: int) -> None:
    desk = Desk()
    desk.grant(PAID, 30, T0_S + 5)
    desk.wait(at_ms)
    desk(ExpireGrants(NEVER_MS))
    assert len(desk.flows) == flows
    assert desk.figures()[0] == (0 if flows else 30)


def test_expired_credit_that_nobody_booked_yet_is_not_available_and_repays_nothing() -> None:
    desk = Desk()
    desk.grant(PAID, 30, T0_S + 5)
    desk.wait(5000)
    desk(RecordUsage("u", 10))
    assert desk.flows == [("debt", "used", 0, 10)]
    assert desk.figures() == (0, 0, 10)


# ---- licences


LICENSE = SetLicense("L", True, T0_S, T0_S + 1000, 100)


def test_a_licence_decides_the_current_period() -> None:
    desk = Desk()
    november = current_period(desk.practice, T0_S)
    assert (november.license, november.allowance_nano_usd) == ("", 0)
    desk(LICENSE)
    assert current_period(desk.practice, T0_S) == Period("L", T0_S, T0_S + 1000, 100)
    assert current_period(desk.practice, T0_S + 2500) == Period(
        "L", T0_S + 2000, T0_S + 3000, 100, True
    )
    desk(LICENSE._replace(active=False))
    assert current_period(desk.practice, T0_S) == november


def test_telling_the_same_licence_again_does_nothing() -> None:
    desk = Desk()
    assert desk(LICENSE).applied
    desk.reserve(10)
    assert desk(LICENSE).applied is False
    assert desk.flows == []


@pytest.mark.parametrize(
    ("allowances", "flows", "available"),
    [
        ([130], [("included", "allowance", 1, 30)], 120),
        ([100], [], 90),
        ([50], [], 90),  # a downgrade acts in the next period
        ([50, 100], [], 90),  # back to what was granted: nothing is added
        ([50, 101], [("included", "allowance", 1, 1)], 91),
        ([130, 130], [("included", "allowance", 1, 30)], 120),
        ([130, 100, 130], [("included", "allowance", 1, 30)], 120),
    ],
)
def test_an_upgrade_grants_the_difference_once(
    allowances: list[int], flows: list[Flow], available: int
) -> None:
    desk = Desk()
    desk(LICENSE)
    desk.reserve(10)
    moved = []
    for allowance in allowances:
        desk(LICENSE._replace(allowance_nano_usd=allowance))
        moved += desk.flows
    assert moved == flows
    assert desk.figures() == (available, 10, 0)
    assert desk.practice.grants[1].granted_nano_usd == max(100, *allowances)


def test_before_the_first_touch_only_the_last_word_counts() -> None:
    desk = Desk()
    desk(LICENSE)
    desk(LICENSE._replace(allowance_nano_usd=30))
    assert desk.figures() == (30, 0, 0)
    assert desk.grants() == {}


@pytest.mark.parametrize(
    ("shift_s", "same"), [(0, True), (10, True), (-10, True), (999, True), (1000, False)]
)
def test_a_period_that_rolled_on_takes_the_told_bounds(shift_s: int, same: bool) -> None:
    desk = Desk()
    desk(LICENSE)
    desk.wait(1_500_000)
    desk.reserve(10)  # in the period that begins at 1000, of which nobody has told
    assert desk.practice.grants[1].provisional
    start_s = T0_S + 1000 + shift_s
    desk(SetLicense("L", True, start_s, start_s + 1000, 100))
    assert desk.flows == []
    grant = desk.practice.grants[1]
    assert (grant.period_start_s, grant.provisional) == (
        (start_s, False) if same else (T0_S + 1000, True)
    )
    desk.now = (start_s + 1) * 1000
    assert desk.figures()[0] == (90 if same else 100)


def late_desk(reserved: int = 60) -> tuple[Desk, Period]:
    """A practice whose licence rolled on, with an open call, and the period as it was guessed."""
    desk = Desk()
    desk(LICENSE)
    desk.wait(1_500_000)
    desk.reserve(reserved)
    guessed = current_period(desk.practice, desk.now // 1000)
    assert guessed.provisional
    return desk, guessed._replace(provisional=False)


def test_bounds_that_were_guessed_mean_the_told_period_for_ever() -> None:
    desk, guessed = late_desk()
    told = SetLicense("L", True, guessed.start_s + 10, guessed.end_s + 10, 100)
    desk(told)
    assert desk(Reserve("old bounds", 30, period=guessed)).ok
    assert desk(RecordUsage("old bounds", 10, guessed)).ok
    assert desk(GrantCredit("a", ALLOWANCE, 5, period=guessed)).reason == "allowance_exists"
    assert len(desk.grants()) == 1
    assert desk.figures()[0] == 0
    # The open call's overrun finds what is left of it, and its use is counted there.
    desk(Release(2))
    desk(Settle(1, 90))
    assert desk.figures() == (0, 0, 0)
    assert desk.practice.grants[1].period_used_nano_usd == 100


def test_a_told_period_that_another_event_corrects_keeps_one_allowance() -> None:
    desk, guessed = late_desk()
    for start_s, end_s in [(10, 10), (0, 0), (10, 40)]:
        desk(SetLicense("L", True, guessed.start_s + start_s, guessed.end_s + end_s, 100))
        assert desk.figures()[0] == 40
    assert len(desk.grants()) == 1
    assert desk.practice.grants[1].former_starts == (guessed.start_s,)


def test_naming_other_bounds_moves_a_guess_and_leaves_it_to_be_told() -> None:
    desk, guessed = late_desk()
    named = Period("L", guessed.start_s + 30, guessed.end_s + 30, 100)
    available = balance_of(desk.practice, named, desk.now // 1000).available_nano_usd
    assert available == 40
    assert desk(Reserve("named", 41, period=named)).reason == "insufficient_credit"
    assert desk.practice.grants[1].period_start_s == guessed.start_s  # a refusal changes nothing
    assert desk(Reserve("named", 40, period=named)).ok
    grant = desk.practice.grants[1]
    assert (grant.period_start_s, grant.provisional) == (named.start_s, True)
    assert grant.former_starts == (guessed.start_s,)


def test_a_beginning_that_a_new_period_has_means_that_period_only() -> None:
    desk, guessed = late_desk()
    start_s = guessed.start_s
    desk(SetLicense("L", True, start_s + 500, start_s + 1500, 100))
    before = Period("L", start_s, start_s + 500, 70)  # ends where the told one begins
    assert desk(Reserve("before", 70, period=before)).ok
    assert [grant.granted_nano_usd for grant in desk.practice.grants.values()] == [100, 70]
    assert desk.practice.grants[1].former_starts == ()
    earlier = Period("L", start_s - 5, start_s, 7)
    assert desk(GrantCredit("b", ALLOWANCE, 7, period=earlier)).ok
    assert balance_of(desk.practice, earlier, desk.now // 1000).available_nano_usd == 7


def test_a_former_beginning_alone_gives_no_right_to_an_allowance() -> None:
    desk, guessed = late_desk()
    start_s = guessed.start_s
    desk(SetLicense("L", True, start_s + 500, start_s + 1500, 100))
    before = Period("L", start_s, start_s + 500)  # names no allowance, and overlaps none
    assert balance_of(desk.practice, before, desk.now // 1000).available_nano_usd == 0
    assert desk(Reserve("before", 1, period=before)).reason == "insufficient_credit"


def test_of_several_guesses_the_oldest_takes_the_told_bounds_in_whatever_order_they_lie() -> None:
    guesses = [
        Grant(no, ALLOWANCE, 50, 0, 50, NEVER_S, "L", T0_S + 100 * no, T0_S + 100 * no + 100, True)
        for no in (1, 2, 3)
    ]
    told = SetLicense("L", True, T0_S, T0_S + 1000, 50)
    for order in permutations(guesses):
        practice = Practice(1, "p", genesis("p"), grants={g.grant_no: g for g in order})
        after = apply(practice, None, told, T0).practice
        assert [no for no, g in sorted(after.grants.items()) if not g.provisional] == [1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"period_end_s": T0_S}, "invalid_period"),
        ({"period_end_s": T0_S - 1}, "invalid_period"),
        ({"allowance_nano_usd": -1}, "invalid_amount"),
        ({"allowance_nano_usd": MOST + 1}, "invalid_amount"),
        ({"allowance_nano_usd": True}, "invalid_amount"),
    ],
)
def test_reasons_of_set_license(change: dict[str, Any], reason: str) -> None:
    assert refused(Desk()(LICENSE._replace(**change))) == reason


def test_a_licence_that_ended_grants_nothing() -> None:
    desk = Desk()
    desk(LICENSE)
    desk.reserve(10)
    desk(LICENSE._replace(active=False, allowance_nano_usd=500))
    assert desk.flows == []
    assert desk.grants() == {1: (90, 10)}


# ---- policies and balances


def test_a_policy_leaves_what_it_does_not_name() -> None:
    desk = Desk()
    told = desk(SetPolicy(status=FROZEN, overrun=2, time_zone="UTC", auto_topup_armed=True))
    assert told.applied
    assert desk(SetPolicy(status=FROZEN)).applied is False
    desk(SetPolicy(debt_blocks_allowance=True, overdraft_limit_nano_usd=7))
    practice = desk.practice
    assert (practice.status, practice.overrun, practice.time_zone) == (FROZEN, 2, "UTC")
    assert (practice.auto_topup_armed, practice.debt_blocks_allowance) == (True, True)
    assert practice.overdraft_limit_nano_usd == 7


def test_a_closed_practice_ends_what_is_open_and_starts_nothing() -> None:
    desk = Desk(paid=50)
    desk.reserve(10)
    desk(SetPolicy(status=CLOSED))
    assert refused(desk(Reserve("k", 1))) == "practice_closed"
    assert refused(desk(RecordUsage("k", 1))) == "practice_closed"
    assert refused(desk(GrantCredit("k", PAID, 1))) == "practice_closed"
    assert refused(desk(Adjust("k", 1, PAID))) == "practice_closed"
    assert desk(Release(1)).applied
    # What was accepted before is still told.
    assert desk(GrantCredit("paid", PAID, 50)).replayed


@pytest.mark.parametrize(
    ("period", "blocked", "available", "allowance", "credit"),
    [
        (BARE, False, 70, 0, 70),
        (JAN, False, 170, 100, 70),  # an allowance to come counts
        (JAN, True, 170, 100, 70),  # without debt nothing is blocked
    ],
)
def test_a_balance(
    period: Period, blocked: bool, available: int, allowance: int, credit: int
) -> None:
    desk = Desk(paid=70)
    desk(SetPolicy(debt_blocks_allowance=blocked))
    told = desk.balance(period, T0)
    assert (told.available_nano_usd, told.allowance_nano_usd, told.credit_nano_usd) == (
        available, allowance, credit,
    )  # fmt: skip
    assert (told.practice_id, told.period) == ("prac_1", period)


def test_debt_and_the_allowance_in_a_balance() -> None:
    desk = Desk()
    desk(RecordUsage("u", 5))
    assert desk.figures(JAN) == (100, 0, 5)
    desk(SetPolicy(debt_blocks_allowance=True))
    assert desk.figures(JAN) == (0, 0, 5)
    desk.grant(PAID, 5)
    assert desk.figures(JAN) == (100, 0, 0)
