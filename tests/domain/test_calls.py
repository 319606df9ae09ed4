"""What the commands on calls do, example by example; the rules are in docs/rules.md."""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.domain.apply import apply
from guthaben.domain.calls import (
    BY_CALLER,
    BY_EXCEPTION,
    EXPIRED,
    MAX_LIFETIME_MS,
    ON_CHARGE,
    ON_KEEP,
    ON_RELEASE,
    RELEASED,
    RESERVED,
    SETTLED,
    SETTLED_LATE,
    EndedBy,
    OnEnd,
    Operation,
    Origin,
    Status,
    Usage,
)
from guthaben.domain.commands import (
    Expire,
    Extend,
    GrantCredit,
    RecordUsage,
    Release,
    Reserve,
    SetPolicy,
    Settle,
)
from guthaben.domain.grants import ALLOWANCE, PAID, PROMOTIONAL, Slice
from guthaben.domain.journal import Code
from guthaben.domain.money import MAX_COMMAND_NANO_USD as MOST
from guthaben.domain.practice import CLOSED, FROZEN, Overrun
from tests.domain.desk import BARE, JAN, T0, T0_S, Desk, Flow, refused

LOSS = int(Overrun.OPERATOR_LOSS)


def test_stored_numbers_stay() -> None:
    numbered = [(member.name, int(member)) for kind in (Status, OnEnd, EndedBy) for member in kind]
    assert numbered == [
        ("RESERVED", 1), ("SETTLED", 2), ("RELEASED", 3), ("EXPIRED", 4), ("SETTLED_LATE", 5),
        ("RELEASE", 1), ("CHARGE", 2), ("KEEP", 3),
        ("NOBODY", 0), ("CALLER", 1), ("EXCEPTION", 2), ("EXPIRY", 3),
    ]  # fmt: skip
    assert [int(operation) for operation in Operation] == [1, 2]


# ---- Reserve


@pytest.mark.parametrize("amount", [99, 100, 101])
def test_a_tentative_one_decides_like_any_other(amount: int) -> None:
    command = Reserve("k", amount)
    plain, tentative = Desk(100), Desk(100)
    assert tentative(command._replace(is_tentative=True)) == plain(command)
    assert tentative.figures() == plain.figures()
    again = tentative(command)
    assert again.replayed == (amount <= 100)


def test_reserve_pins_slices_in_burn_down_order_and_moves_nothing() -> None:
    desk = Desk()
    desk.grant(PAID, 100)
    desk.grant(PROMOTIONAL, 30)
    call = desk.reserve(70, usage=Usage("m"), origin=Origin("u"), ttl_ms=5000)
    assert desk.flows == []
    assert call.slices == (Slice(2, 30), Slice(1, 40))
    assert (call.status, call.ended_by, call.reserved_nano_usd) == (RESERVED, 0, 70)
    assert (call.created_at_ms, call.expires_at_ms) == (T0, T0 + 5000)
    assert (call.usage.model, call.origin.user_id) == ("m", "u")
    assert desk.grants() == {1: (60, 40), 2: (0, 30)}
    assert desk.figures() == (60, 70, 0)


@pytest.mark.parametrize(
    ("status", "amount", "ttl_ms", "reason"),
    [
        (1, 0, 1, "invalid_amount"),
        (1, -1, 1, "invalid_amount"),
        (1, MOST + 1, 1, "invalid_amount"),
        (1, True, 1, "invalid_amount"),
        (1, 1.0, 1, "invalid_amount"),
        (1, "1", 1, "invalid_amount"),
        (1, MOST, 1, "insufficient_credit"),
        (1, 0, 0, "invalid_amount"),  # the amount is looked at first
        (1, 1, 0, "invalid_ttl"),
        (1, 1, -1, "invalid_ttl"),
        (1, 1, MAX_LIFETIME_MS + 1, "invalid_ttl"),
        (1, 1, True, "invalid_ttl"),
        (1, 1, 1.5, "invalid_ttl"),
        (FROZEN, 1, 0, "invalid_ttl"),
        (FROZEN, 999, 1, "practice_frozen"),
        (CLOSED, 999, 1, "practice_closed"),
        (1, 101, 1, "insufficient_credit"),
    ],
)
def test_reasons_of_reserve(status: int, amount: Any, ttl_ms: Any, reason: str) -> None:
    desk = Desk(paid=100)
    desk(SetPolicy(status=status))
    assert refused(desk(Reserve("k", amount, ttl_ms))) == reason
    assert desk.figures() == (100, 0, 0)


@pytest.mark.parametrize("amount", [1, 100])
def test_reserve_up_to_the_last_nano(amount: int) -> None:
    desk = Desk(paid=100)
    assert desk.reserve(amount).reserved_nano_usd == amount
    assert desk.figures() == (100 - amount, amount, 0)


def test_a_refusal_tells_what_is_available_and_consumes_no_key() -> None:
    desk = Desk(paid=30)
    told = desk(Reserve("k", 31))
    assert (told.reason, told.available_nano_usd) == ("insufficient_credit", 30)
    desk.grant(PAID, 1)
    assert desk(Reserve("k", 31)).applied


def test_a_key_replays_with_the_calls_present_state() -> None:
    desk = Desk(paid=100)
    first = desk(Reserve("k", 40))
    desk(Settle(1, 10))
    again = desk(Reserve("k", 40))
    assert (again.ok, again.applied, again.replayed) == (True, False, True)
    assert first.call is not None
    assert again.call is not None
    assert (again.call.call_no, again.call.status, again.call.cost_nano_usd) == (1, SETTLED, 10)
    assert desk.figures() == (90, 0, 0)


@pytest.mark.parametrize(
    "change",
    [{"amount_nano_usd": 41}, {"amount_nano_usd": 0}, {"ttl_ms": 1}, {"on_expiry": ON_CHARGE},
     {"on_exception": ON_KEEP}, {"period": JAN}, {"usage": Usage("m")}, {"origin": Origin("u")}],
    ids=str,
)  # fmt: skip
def test_a_key_with_another_body_is_refused(change: dict[str, Any]) -> None:
    desk = Desk(paid=100)
    plain = Reserve("k", 40)
    desk(plain)
    assert refused(desk(plain._replace(**change))) == "idempotency_conflict"
    assert desk.figures() == (60, 40, 0)


def test_keys_of_reserve_and_of_usage_are_apart() -> None:
    desk = Desk(paid=100)
    assert desk(Reserve("k", 40)).applied
    assert desk(RecordUsage("k", 40)).applied
    assert desk(GrantCredit("k", PAID, 1)).applied


# ---- the allowance


def test_the_first_touch_of_a_period_grants_its_allowance_once() -> None:
    desk = Desk()
    assert desk.figures(JAN) == (100, 0, 0)
    assert refused(desk(Reserve("much", 101, period=JAN))) == "insufficient_credit"
    assert desk.grants() == {}
    desk(Reserve("a", 60, period=JAN))
    assert desk.flows == [("included", "allowance", 1, 100)]
    desk(RecordUsage("b", 40, JAN))
    assert desk.flows == [("allowance", "used", 1, 40)]
    assert desk.practice.grants[1].period_used_nano_usd == 40


def test_an_allowance_serves_no_other_period() -> None:
    desk = Desk()
    desk(Reserve("a", 10, period=JAN))
    for other in (BARE._replace(start_s=T0_S + 1), BARE._replace(license="M"), None):
        assert refused(desk(Reserve("b", 1, period=other))) == "insufficient_credit"
    desk.wait(2_000_000)  # long after the period, a call of it may still use it
    assert desk(Reserve("c", 90, period=JAN)).ok


def test_debt_blocks_the_allowance_by_setting_only() -> None:
    desk = Desk()
    desk(RecordUsage("u", 5))
    desk.grant(ALLOWANCE, 100, period=JAN)
    assert desk(Reserve("a", 30, period=JAN)).ok
    desk(SetPolicy(debt_blocks_allowance=True))
    told = desk(Reserve("b", 30, period=JAN))
    assert (refused(told), told.available_nano_usd) == ("insufficient_credit", 0)
    assert desk.figures(JAN) == (0, 30, 5)


# ---- Settle


@pytest.mark.parametrize(
    ("cost", "flows", "figures"),
    [
        (0, [], (100, 0, 0)),
        (30, [("promotional", "used", 2, 30)], (70, 0, 0)),
        (31, [("promotional", "used", 2, 30), ("paid", "used", 1, 1)], (69, 0, 0)),
        (40, [("promotional", "used", 2, 30), ("paid", "used", 1, 10)], (60, 0, 0)),
        (41, [("promotional", "used", 2, 30), ("paid", "used", 1, 10), ("paid", "used", 1, 1)],
         (59, 0, 0)),
        (100, [("promotional", "used", 2, 30), ("paid", "used", 1, 10), ("paid", "used", 1, 60)],
         (0, 0, 0)),
        (105, [("promotional", "used", 2, 30), ("paid", "used", 1, 10), ("paid", "used", 1, 60),
               ("debt", "used", 0, 5)], (0, 0, 5)),
    ],
)  # fmt: skip
def test_settle(cost: int, flows: list[Flow], figures: tuple[int, int, int]) -> None:
    desk = Desk(paid=70)
    desk.grant(PROMOTIONAL, 30)
    desk.reserve(40)
    told = desk(Settle(1, cost, Usage("m", input_tokens=7)))
    assert told.applied
    assert told.call is not None
    assert (told.call.status, told.call.cost_nano_usd, told.call.slices) == (SETTLED, cost, ())
    assert (told.call.ended_by, told.call.ended_at_s) == (BY_CALLER, T0_S)
    assert told.call.usage == Usage("m", input_tokens=7)
    assert desk.flows == flows
    assert desk.figures() == figures


def test_an_overrun_may_be_the_operators_loss() -> None:
    desk = Desk(paid=10)
    desk(SetPolicy(overrun=LOSS))
    desk.reserve(10)
    desk(Settle(1, 25))
    assert desk.flows == [("paid", "used", 1, 10), ("operator_loss", "used", 0, 15)]
    assert desk.figures() == (0, 0, 0)


def test_an_overrun_spares_what_other_calls_hold() -> None:
    desk = Desk(paid=100)
    desk.reserve(10)
    other = desk.reserve(80)
    desk(Settle(1, 50))
    assert desk.flows == [
        ("paid", "used", 1, 10), ("paid", "used", 1, 10), ("debt", "used", 0, 30),
    ]  # fmt: skip
    assert desk.figures() == (0, 80, 30)
    assert desk.calls[other.call_no].slices == (Slice(1, 80),)


def test_an_overrun_takes_the_allowance_of_the_calls_own_period() -> None:
    desk = Desk(paid=50)
    desk(Reserve("a", 60, period=JAN))
    desk(Settle(1, 120))
    assert desk.flows == [
        ("allowance", "used", 2, 60), ("allowance", "used", 2, 40), ("paid", "used", 1, 20),
    ]  # fmt: skip
    assert desk.practice.grants[2].period_used_nano_usd == 120


def test_what_a_settle_frees_repays_debt() -> None:
    desk = Desk(paid=50)
    desk.reserve(50)
    desk(RecordUsage("u", 20))
    assert desk.figures() == (0, 50, 20)
    desk(Settle(1, 10))
    assert desk.flows == [("paid", "used", 1, 10), ("paid", "debt", 1, 20)]
    assert desk.figures() == (20, 0, 0)


@pytest.mark.parametrize("cost", [-1, MOST + 1, True, 1.0, None])
def test_a_wrong_cost_is_refused_before_anything_else(cost: Any) -> None:
    desk = Desk(paid=10)
    desk.reserve(10)
    assert refused(desk(Settle(1, cost))) == "invalid_amount"
    assert refused(desk(Settle(77, cost))) == "invalid_amount"


@pytest.mark.parametrize("command", [Settle(7, 1), Release(7), Extend(7, 1), Expire(7)])
def test_no_such_call(command: Any) -> None:
    assert refused(Desk()(command)) == "call_not_found"


@pytest.mark.parametrize(
    ("cost", "usage", "answer"),
    [
        (10, Usage("m"), "replayed"),
        (10, Usage(), "replayed"),  # nothing said is nothing else
        (11, Usage("m"), "settled_otherwise"),
        (10, Usage("n"), "settled_otherwise"),
        (10, Usage("m", input_tokens=1), "settled_otherwise"),
    ],
)
def test_settle_again(cost: int, usage: Usage, answer: str) -> None:
    desk = Desk(paid=100)
    desk.reserve(40)
    desk(Settle(1, 10, Usage("m")))
    told = desk(Settle(1, cost, usage))
    assert answer == ("replayed" if told.replayed else told.reason)
    assert not told.applied
    assert desk.flows == []
    assert desk.figures() == (90, 0, 0)


def test_what_settling_tells_completes_what_reserving_knew() -> None:
    desk = Desk(paid=100)
    desk.reserve(40, usage=Usage("m", "chat", 5))
    told = desk(Settle(1, 10, Usage(model="n", output_tokens=9)))
    assert told.call is not None
    assert told.call.usage == Usage("n", "chat", 5, 9)


def test_settle_after_its_time_but_before_expiry_is_in_time() -> None:
    desk = Desk(paid=100)
    desk.reserve(40, ttl_ms=1000)
    desk.wait(999_999)
    told = desk(Settle(1, 10))
    assert told.call is not None
    assert told.call.status == SETTLED


def test_settle_after_the_callers_release_does_nothing() -> None:
    desk = Desk(paid=100)
    desk.reserve(40)
    desk(Release(1))
    told = desk(Settle(1, 10))
    assert told.call is not None
    assert (told.ok, told.applied, told.replayed, told.call.status) == (
        True, False, False, RELEASED,
    )  # fmt: skip
    assert desk.figures() == (100, 0, 0)


# ---- late


@pytest.mark.parametrize(
    ("on_expiry", "cost", "flows", "figures"),
    [
        (ON_RELEASE, 0, [], (100, 0, 0)),
        (ON_RELEASE, 25, [("promotional", "used", 2, 25)], (75, 0, 0)),
        (ON_RELEASE, 110, [("promotional", "used", 2, 30), ("paid", "used", 1, 70),
                           ("debt", "used", 0, 10)], (0, 0, 10)),
        (ON_CHARGE, 40, [], (60, 0, 0)),
        (ON_CHARGE, 45, [("paid", "used", 1, 5)], (55, 0, 0)),
        (ON_CHARGE, 35, [("used", "paid", 1, 5)], (65, 0, 0)),
        (ON_CHARGE, 10, [("used", "paid", 1, 10), ("used", "promotional", 2, 20)], (90, 0, 0)),
        (ON_CHARGE, 0, [("used", "paid", 1, 10), ("used", "promotional", 2, 30)], (100, 0, 0)),
    ],
)  # fmt: skip
def test_a_late_settle_books_the_difference_once(
    on_expiry: int, cost: int, flows: list[Flow], figures: tuple[int, int, int]
) -> None:
    desk = Desk(paid=70)
    desk.grant(PROMOTIONAL, 30)
    desk.reserve(40, ttl_ms=1000, on_expiry=on_expiry)
    desk.wait(1000)
    assert desk(Expire(1)).applied
    told = desk(Settle(1, cost))
    assert told.call is not None
    assert (told.applied, told.call.status, told.call.cost_nano_usd) == (True, SETTLED_LATE, cost)
    assert desk.flows == flows
    assert desk.figures() == figures
    assert desk(Settle(1, cost)).replayed
    assert refused(desk(Settle(1, cost + 1))) == "settled_otherwise"
    assert desk.figures() == figures


def test_a_give_back_names_the_transfers_it_reverses() -> None:
    desk = Desk(paid=70)
    desk.grant(PROMOTIONAL, 30)
    desk.reserve(40, ttl_ms=1000, on_expiry=ON_CHARGE)
    desk.wait(1000)
    desk(Expire(1))
    charged = {t.seq: t for t in desk.journal[-2:]}
    desk(Settle(1, 10))
    back = desk.journal[-2:]
    for transfer in back:
        reversed_one = charged[transfer.reverses_seq]
        assert (transfer.source, transfer.target) == (reversed_one.target, reversed_one.source)
        assert (transfer.grant_no, transfer.call_no) == (reversed_one.grant_no, 1)
        assert (transfer.code, reversed_one.code) == (Code.LATE, Code.EXPIRY_CHARGE)
    assert {t.reverses_seq for t in back} == set(charged)


def test_a_give_back_to_an_expired_grant_expires() -> None:
    desk = Desk()
    desk.grant(PROMOTIONAL, 40, T0_S + 5)
    desk.reserve(40, ttl_ms=1000, on_expiry=ON_CHARGE)
    desk.wait(1000)
    desk(Expire(1))
    desk.wait(9000)
    desk(Settle(1, 15))
    assert desk.flows == [("used", "promotional", 1, 25), ("promotional", "expired", 1, 25)]
    assert desk.figures() == (0, 0, 0)


def test_a_give_back_repays_debt() -> None:
    desk = Desk(paid=40)
    desk.reserve(40, on_exception=ON_CHARGE)
    desk(Release(1, BY_EXCEPTION))
    desk(RecordUsage("u", 10))
    desk(Settle(1, 25))
    assert desk.flows == [("used", "paid", 1, 15), ("paid", "debt", 1, 10)]
    assert desk.figures() == (5, 0, 0)


def test_usage_that_came_before_the_allowance_may_be_given_back() -> None:
    desk = Desk(paid=100)
    desk(Reserve("k", 40, 1000, ON_CHARGE, ON_RELEASE, BARE))
    desk.wait(1000)
    desk(Expire(1))
    desk.grant(ALLOWANCE, 50, period=BARE)
    assert desk(Settle(1, 10)).applied
    assert desk.practice.grants[2].period_used_nano_usd == 0
    assert desk.figures(BARE) == (140, 0, 0)


@pytest.mark.parametrize(
    ("on_exception", "status", "charged"),
    [(ON_RELEASE, RELEASED, 0), (ON_CHARGE, SETTLED, 40), (ON_KEEP, RESERVED, 0)],
)
def test_an_exception_does_what_was_fixed_when_reserving(
    on_exception: int, status: int, charged: int
) -> None:
    desk = Desk(paid=100)
    desk.reserve(40, on_exception=on_exception)
    told = desk(Release(1, BY_EXCEPTION))
    assert told.call is not None
    assert (told.call.status, told.call.cost_nano_usd) == (status, charged)
    assert told.applied is (on_exception != ON_KEEP)
    held = 40 if on_exception == ON_KEEP else 0
    assert desk.figures() == (100 - charged - held, held, 0)
    settled = desk(Settle(1, 15))
    assert settled.call is not None
    late = SETTLED if on_exception == ON_KEEP else SETTLED_LATE
    assert (settled.applied, settled.call.status) == (True, late)
    assert desk.figures() == (85, 0, 0)


def test_an_exceptions_charge_settled_at_the_same_cost_is_late_too() -> None:
    desk = Desk(paid=100)
    desk.reserve(40, on_exception=ON_CHARGE)
    desk(Release(1, BY_EXCEPTION))
    told = desk(Settle(1, 40))
    assert told.call is not None
    assert (told.applied, told.call.status, desk.flows) == (True, SETTLED_LATE, [])


# ---- Release, Extend, Expire


@pytest.mark.parametrize(
    "end", [Settle(1, 5), Release(1), Release(1, BY_EXCEPTION), Expire(1)], ids=str
)
@pytest.mark.parametrize("again", [Release(1), Release(1, BY_EXCEPTION), Expire(1)], ids=str)
def test_of_settle_release_and_expire_one_wins(end: Any, again: Any) -> None:
    desk = Desk(paid=100)
    desk.reserve(40, ttl_ms=1000)
    desk.wait(1000)
    winner = desk(end)
    figures = desk.figures()
    loser = desk(again)
    assert (winner.applied, loser.ok, loser.applied) == (True, True, False)
    assert loser.call == winner.call
    assert (desk.flows, desk.figures()) == ([], figures)


def test_a_slice_freed_on_an_expired_grant_expires_at_once() -> None:
    desk = Desk(paid=10)
    desk.grant(PROMOTIONAL, 30, T0_S + 5)
    desk.reserve(35)
    desk.wait(5000)
    desk(Release(1))
    assert desk.flows == [("promotional", "expired", 2, 30)]
    assert desk.grants() == {1: (10, 0), 2: (0, 0)}


@pytest.mark.parametrize(
    ("after_ms", "ttl_ms", "reason", "expires_after_ms"),
    [
        (0, 0, "invalid_ttl", 1000),
        (0, MAX_LIFETIME_MS + 1, "invalid_ttl", 1000),
        (0, True, "invalid_ttl", 1000),
        (0, 500, "", 1000),  # never shortened
        (0, 1000, "", 1000),
        (0, 1001, "", 1001),
        (999, 2000, "", 2999),
        (1000, 2000, "call_over", 1000),
        (0, MAX_LIFETIME_MS, "", MAX_LIFETIME_MS),
        (1, MAX_LIFETIME_MS, "lifetime_exceeded", 1000),
        (1, MAX_LIFETIME_MS - 1, "", MAX_LIFETIME_MS),
    ],
)
def test_extend(after_ms: int, ttl_ms: Any, reason: str, expires_after_ms: int) -> None:
    desk = Desk(paid=100)
    desk.reserve(40, ttl_ms=1000)
    desk.wait(after_ms)
    told = desk(Extend(1, ttl_ms))
    assert (told.ok, told.reason) == (not reason, reason)
    assert desk.calls[1].expires_at_ms == T0 + expires_after_ms
    assert desk.flows == []


def test_a_call_in_its_grace_can_still_be_extended() -> None:
    desk = Desk(paid=100)
    desk.reserve(40, ttl_ms=1000, grace_ms=300)
    desk.wait(1299)
    assert desk(Extend(1, 1)).ok
    desk.wait(301)
    assert refused(desk(Extend(1, 1))) == "call_over"


def test_extend_checks_the_time_before_the_call() -> None:
    assert refused(Desk()(Extend(7, 0))) == "invalid_ttl"


def test_an_ended_call_can_not_be_extended() -> None:
    desk = Desk(paid=100)
    desk.reserve(40)
    desk(Settle(1, 1))
    assert refused(desk(Extend(1, 5000))) == "call_over"


@pytest.mark.parametrize("grace_ms", [0, 300])
@pytest.mark.parametrize(("on_expiry", "cost"), [(ON_RELEASE, 0), (ON_CHARGE, 40)])
def test_expire_and_its_grace(grace_ms: int, on_expiry: int, cost: int) -> None:
    desk = Desk(paid=100)
    desk.reserve(40, ttl_ms=1000, on_expiry=on_expiry, grace_ms=grace_ms)
    desk.wait(1000 + grace_ms - 1)
    assert refused(desk(Expire(1))) == "not_due"
    desk.wait(1)
    told = desk(Expire(1))
    assert told.applied
    assert told.call is not None
    assert (told.call.status, told.call.cost_nano_usd) == (EXPIRED, cost)
    assert desk.figures() == (100 - cost, 0, 0)


# ---- RecordUsage


def test_usage_goes_down_to_debt_and_counts_for_its_period() -> None:
    desk = Desk(paid=20)
    told = desk(RecordUsage("u", 150, JAN, Usage("m"), event_at_s=T0_S - 60))
    assert desk.flows == [
        ("included", "allowance", 2, 100), ("allowance", "used", 2, 100), ("paid", "used", 1, 20),
        ("debt", "used", 0, 30),
    ]  # fmt: skip
    assert told.call is not None
    assert (told.call.status, told.call.cost_nano_usd) == (SETTLED, 150)
    assert told.call.created_at_ms == (T0_S - 60) * 1000
    assert desk.practice.grants[2].period_used_nano_usd == 150
    assert desk.figures(JAN) == (0, 0, 30)


@pytest.mark.parametrize(
    ("status", "cost", "reason"),
    [(1, -1, "invalid_amount"), (1, MOST + 1, "invalid_amount"), (CLOSED, -1, "invalid_amount"),
     (CLOSED, 1, "practice_closed"), (FROZEN, 1, ""), (1, 0, "")],
)  # fmt: skip
def test_reasons_of_usage(status: int, cost: int, reason: str) -> None:
    desk = Desk(paid=10)
    desk(SetPolicy(status=status))
    told = desk(RecordUsage("u", cost))
    assert (told.ok, told.reason) == (not reason, reason)


def test_usage_replays_and_conflicts() -> None:
    desk = Desk(paid=10)
    desk(RecordUsage("u", 3))
    assert desk(RecordUsage("u", 3)).replayed
    assert refused(desk(RecordUsage("u", 4))) == "idempotency_conflict"
    assert desk.figures() == (7, 0, 0)


def test_usage_without_a_cost_moves_nothing() -> None:
    desk = Desk()
    told = desk(RecordUsage("u", 0))
    assert told.call is not None
    assert (told.applied, told.call.first_seq, desk.flows) == (True, 0, [])


# ---- limits


def test_no_debt_grows_beyond_the_limit() -> None:
    desk = Desk()
    beyond = desk.practice._replace(debt_nano_usd=4 * 10**18)
    told = apply(beyond, None, RecordUsage("u", 1), T0)
    assert refused(told.outcome) == "balance_limit"
    assert told.practice is beyond
    assert apply(beyond, None, RecordUsage("u", 0), T0).outcome.ok


def test_the_next_instant_at_which_something_is_due() -> None:
    desk = Desk(paid=100)
    desk.reserve(10, ttl_ms=5000, grace_ms=7)
    assert desk.practice.next_due_ms == T0 + 5007
    desk.reserve(10, ttl_ms=2900)
    assert desk.practice.next_due_ms == T0 + 2900
    desk.grant(PROMOTIONAL, 5, T0_S + 10)
    assert desk.practice.next_due_ms == T0 + 2900
    desk.grant(PROMOTIONAL, 5, T0_S + 1)
    assert desk.practice.next_due_ms == (T0_S + 1) * 1000


def test_a_slice_freed_on_a_grant_with_an_end_is_due_at_that_end() -> None:
    desk = Desk(paid=100)
    desk.grant(PROMOTIONAL, 50, T0_S + 10)
    desk.reserve(50)  # pins all of the promotional credit
    desk.reserve(1, ttl_ms=1000)
    desk.wait(5000)
    desk.sweep(desk.now)  # with no free credit left, only the call is waited for
    assert desk.practice.next_due_ms == T0 + 900_000
    desk(Release(1))
    assert desk.practice.next_due_ms == (T0_S + 10) * 1000
