"""Leases in the domain: every branch of what begins, ends and extends them, and who pays."""

from typing import Any

import pytest

from guthaben.domain.apply import apply
from guthaben.domain.apply_leases import LeaseSubject
from guthaben.domain.calls import MAX_LIFETIME_MS, Call, Origin, Overage, Status
from guthaben.domain.commands import (
    Command,
    Expire,
    GrantCredit,
    LeaseAsk,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    Outcome,
    RecordUsage,
    Reserve,
    SetLicense,
    SetPolicy,
    Settle,
    Step,
    StepKind,
    body_hash,
)
from guthaben.domain.grants import PROMOTIONAL
from guthaben.domain.journal import Account, genesis
from guthaben.domain.leases import practice_over_limit
from guthaben.domain.practice import CLOSED, FROZEN, Practice

T0 = 1_790_000_000_000
REJECT, IF_AVAILABLE, OVERDRAFT = (int(policy) for policy in list(Overage)[1:])


KINDS: dict[type, StepKind] = {
    LeaseCommit: StepKind.COMMIT,
    LeaseRelease: StepKind.RELEASE,
    LeaseExtend: StepKind.EXTEND,
}


class Bank:
    """A practice and its calls, one command after the other."""

    def __init__(self, credit: int = 1_000, limit: int = 0) -> None:
        self.practice = Practice(1, "p", genesis("p"), overdraft_limit_nano_usd=limit)
        self.calls: dict[int, Call] = {}
        self.steps: dict[tuple[int, str], Step] = {}
        self.moves: list[tuple[int, int, int]] = []
        self.now_ms = T0
        self.number = 0
        if credit:
            self.do(GrantCredit("g", PROMOTIONAL, credit))

    def do(self, command: Command, **subject: Any) -> Outcome:
        applied = apply(self.practice, self._subject(command, subject), command, self.now_ms)
        self.practice = applied.practice
        self.moves = [(t.source, t.target, t.amount_nano_usd) for t in applied.transfers]
        if isinstance(applied.subject, Call):
            self.calls[applied.subject.call_no] = applied.subject
        step = applied.outcome.step
        if step is not None and applied.outcome.applied:
            self.steps[step.kind, step.key] = step
        return applied.outcome

    def _subject(self, command: Command, given: dict[str, Any]) -> Any:
        if isinstance(command, LeaseAsk):
            return LeaseSubject(None, self.steps.get((command.operation, command.key)), **given)
        if isinstance(command, LeaseCommit | LeaseRelease | LeaseExtend):
            step = self.steps.get((int(KINDS[type(command)]), command.key))
            return LeaseSubject(self.calls.get(command.call_no), step)
        return given.get("call")

    def lease(self, amount: int, policy: int = IF_AVAILABLE, **options: Any) -> Outcome:
        self.number += 1
        key = f"k{self.number}"
        return self.do(Reserve(key, amount, overage_policy=policy, **{"ttl_ms": 1_000, **options}))

    def commit(self, cost: int, key: str = "c", call_no: int = 1) -> Outcome:
        return self.do(LeaseCommit(key, call_no, cost))


def test_a_lease_may_be_for_nothing_and_a_call_of_ours_may_not() -> None:
    bank = Bank(0)
    assert bank.lease(0).ok
    assert bank.do(Reserve("own", 0)).reason == "invalid_amount"


def test_a_lease_needs_what_remains_after_debt() -> None:
    bank = Bank(100, limit=1_000)
    bank.do(RecordUsage("u", 150))
    assert bank.practice.debt_nano_usd == 50
    bank.do(SetLicense("l", True, T0 // 1000 - 1, T0 // 1000 + 1_000, 80))
    assert bank.lease(31).reason == "insufficient_credit"
    assert bank.lease(31).available_nano_usd == 30
    assert bank.lease(30).ok
    assert bank.do(Reserve("own", 50)).ok, "our own calls may use the whole allowance"


def test_debt_blocks_without_a_limit_and_beyond_it() -> None:
    bank = Bank(0)
    bank.do(RecordUsage("u", 150))
    assert bank.lease(0).reason == "debt_outstanding"
    bank.do(SetPolicy(overdraft_limit_nano_usd=150))
    assert not practice_over_limit(bank.practice)
    assert bank.lease(0).reason == "insufficient_credit"
    bank.do(SetPolicy(overdraft_limit_nano_usd=149))
    assert practice_over_limit(bank.practice)
    assert bank.lease(0).reason == "over_limit"


@pytest.mark.parametrize(
    ("status", "reason"), [(FROZEN, "practice_frozen"), (CLOSED, "practice_closed")]
)
def test_frozen_and_closed(status: int, reason: str) -> None:
    bank = Bank()
    bank.lease(10)
    bank.do(SetPolicy(status=status))
    assert bank.lease(1).reason == reason
    asked = bank.do(LeaseAsk("a", int(StepKind.DECIDE), 1))
    assert asked.step is not None
    assert (asked.ok, asked.step.told) == (True, reason)
    assert bank.commit(5).ok == (status == FROZEN)


@pytest.mark.parametrize(
    ("policy", "limit", "cost", "charged", "debt"),
    [
        (REJECT, 0, 400, 400, 0),
        (REJECT, 0, 500, 500, 0),
        (REJECT, 0, 501, "above_estimate", 0),
        (IF_AVAILABLE, 0, 1_000, 1_000, 0),
        (IF_AVAILABLE, 0, 5_000, 1_000, 0),
        (OVERDRAFT, 0, 5_000, 1_000, 0),
        (OVERDRAFT, 600, 1_000, 1_000, 0),
        (OVERDRAFT, 600, 1_100, 1_100, 100),
        (OVERDRAFT, 600, 1_101, "overdraft_limit", 0),
    ],
)  # fmt: skip
def test_who_pays_what_a_lease_uses(
    policy: int, limit: int, cost: int, charged: int | str, debt: int
) -> None:
    bank = Bank(1_000, limit)
    bank.lease(500, policy)
    outcome = bank.commit(cost)
    if isinstance(charged, str):
        assert outcome.reason == charged
        assert bank.calls[1].status == Status.RESERVED
        assert bank.moves == []
        assert bank.practice.held_nano_usd == 500
        return
    call = bank.calls[1]
    assert (call.cost_nano_usd, call.charged_nano_usd) == (cost, charged)
    assert bank.practice.debt_nano_usd == debt
    lost = sum(amount for source, _t, amount in bank.moves if source == Account.OPERATOR_LOSS)
    assert lost == cost - charged
    assert bank.practice.over_limit == (lost > 0)
    assert sum(amount for _s, target, amount in bank.moves if target == Account.USED) == cost
    assert call.first_seq > 0


def test_what_is_charged_is_whole_microcents() -> None:
    bank = Bank(1_009)
    bank.lease(500)
    bank.commit(2_000)
    assert bank.calls[1].charged_nano_usd == 1_000
    assert bank.do(RecordUsage("e", 10, overage_policy=IF_AVAILABLE)).call is not None
    assert bank.calls[2].uncovered_nano_usd == 10


@pytest.mark.parametrize(("policy", "limit", "expected"), [
    (REJECT, 0, "insufficient_credit"), (OVERDRAFT, 1_999, "overdraft_limit"),
    (OVERDRAFT, 2_000, 2_000), (OVERDRAFT, 0, 1_000), (IF_AVAILABLE, 0, 1_000),
])  # fmt: skip
def test_events(policy: int, limit: int, expected: int | str) -> None:
    bank = Bank(1_000, limit)
    outcome = bank.do(RecordUsage("e", 2_000, overage_policy=policy))
    if isinstance(expected, str):
        assert outcome.reason == expected
    else:
        assert bank.calls[1].charged_nano_usd == expected


def test_an_allowance_may_cover_an_overdraft_so_that_no_debt_is_made() -> None:
    bank = Bank(100, limit=1_000)
    bank.do(RecordUsage("u", 150))
    bank.do(SetLicense("l", True, T0 // 1000 - 1, T0 // 1000 + 1_000, 80))
    assert bank.do(RecordUsage("e", 40, overage_policy=OVERDRAFT)).ok
    assert bank.practice.debt_nano_usd == 50


@pytest.mark.parametrize("cure", ["grant", "upgrade", "operator", "period"])
def test_new_credit_lets_leases_begin_again(cure: str) -> None:
    bank = Bank(0)
    start = T0 // 1000
    bank.do(SetLicense("l", True, start, start + 100, 10))
    bank.do(RecordUsage("e", 100, overage_policy=IF_AVAILABLE))
    assert bank.lease(0).reason == "over_limit"
    match cure:
        case "grant":
            bank.do(GrantCredit("more", PROMOTIONAL, 1))
        case "upgrade":
            bank.do(SetLicense("l", True, start, start + 100, 11))
        case "operator":
            bank.do(SetPolicy(over_limit=False))
        case _:
            bank.now_ms += 100_000
    assert bank.lease(0).ok


@pytest.mark.parametrize("kind", ["commit", "release", "extend"])
def test_a_step_once_and_for_ever(kind: str) -> None:
    bank = Bank()
    bank.lease(500)
    steps: dict[str, LeaseCommit | LeaseRelease | LeaseExtend] = {
        "commit": LeaseCommit("s", 1, 400),
        "release": LeaseRelease("s", 1),
        "extend": LeaseExtend("s", 1, 700),
    }
    first = bank.do(steps[kind])
    assert (first.ok, first.applied) == (True, True)
    before = bank.practice
    bank.now_ms += 50_000
    again = bank.do(steps[kind])
    assert (again.ok, again.applied, again.replayed) == (True, False, True)
    assert again.step == first.step
    assert bank.practice is before
    other = steps[kind]._replace(told='{"x":1}')
    assert bank.do(other).reason == "idempotency_conflict"


@pytest.mark.parametrize("kind", ["commit", "release", "extend"])
def test_when_a_step_comes_too_late(kind: str) -> None:
    edge = 1_000 if kind == "extend" else 1_500
    for late, expected in ((0, ""), (1, "lease_expired")):
        bank = Bank()
        bank.lease(500, grace_ms=501)
        bank.now_ms += edge + late
        step: dict[str, Command] = {
            "commit": LeaseCommit("s", 1, 400),
            "release": LeaseRelease("s", 1),
            "extend": LeaseExtend("s", 1, 700),
        }
        assert bank.do(step[kind]).reason == expected


@pytest.mark.parametrize(
    "command", [LeaseCommit("s", 9, 1), LeaseRelease("s", 9), LeaseExtend("s", 9, 1)]
)
def test_a_step_of_nothing(command: Command) -> None:
    assert Bank().do(command).reason == "call_not_found"


def test_a_step_of_a_finished_or_expired_lease() -> None:
    bank = Bank()
    bank.lease(100)
    bank.commit(0)
    assert bank.calls[1].first_seq == 0
    assert bank.do(LeaseRelease("r", 1)).reason == "lease_finished"
    bank.calls[1] = bank.calls[1]._replace(status=int(Status.EXPIRED))
    assert bank.do(LeaseExtend("x", 1, 1)).reason == "lease_expired"
    assert bank.commit(-1, "bad").reason == "invalid_amount"


def test_a_lease_lives_a_day_at_most() -> None:
    bank = Bank()
    bank.lease(1)
    outcome = bank.do(LeaseExtend("a", 1, MAX_LIFETIME_MS))
    assert outcome.step is not None
    assert outcome.step.number == T0 + MAX_LIFETIME_MS
    assert bank.do(LeaseExtend("b", 1, 1)).reason == "lifetime_exceeded"


def test_questions_are_remembered_and_hold_nothing() -> None:
    bank = Bank(100)
    for amount, expected in ((100, ""), (101, "insufficient_credit")):
        asked = LeaseAsk(f"q{amount}", int(StepKind.DECIDE), amount)
        before = bank.practice
        outcome = bank.do(asked)
        assert outcome.step is not None
        assert (outcome.ok, outcome.step.told) == (True, expected)
        assert bank.practice is before
        bank.do(GrantCredit(f"g{amount}", PROMOTIONAL, 1_000))
        again = bank.do(asked)
        assert again.replayed
        assert again.step == outcome.step
        bank.do(RecordUsage(f"u{amount}", 1_000))
    dry = LeaseAsk("dry", int(StepKind.DRY_RUN), 1)
    assert bank.do(dry, is_taken=True).reason == "idempotency_conflict"
    assert bank.do(LeaseAsk("q", 5, -1)).reason == "invalid_amount"


@pytest.mark.parametrize("policy", [int(Overage.ENGINE), REJECT])
@pytest.mark.parametrize("kind", [Reserve, RecordUsage])
def test_which_key_of_a_practice_asks_is_no_part_of_what_is_asked(
    kind: type[Reserve] | type[RecordUsage], policy: int
) -> None:
    one, two = (Origin(api_key_id=name, device_id="d") for name in "ab")
    asked = kind("k", 1, overage_policy=policy, origin=one)
    assert body_hash(asked) == body_hash(asked._replace(origin=two))
    assert body_hash(asked) != body_hash(asked._replace(origin=Origin()))


# ---------------------------------------------------------------- settled by our own API


def settled(bank: Bank, cost: int) -> Outcome:
    return bank.do(Settle(1, cost), call=bank.calls[1])


@pytest.mark.parametrize("policy", [REJECT, IF_AVAILABLE, OVERDRAFT])
@pytest.mark.parametrize("cost", [0, 600, 601, 1_000, 1_300])
def test_a_settle_treats_a_lease_as_its_commit_does(policy: int, cost: int) -> None:
    ours, theirs = Bank(limit=500), Bank(limit=500)
    for bank in (ours, theirs):
        assert bank.lease(600, policy).ok
    told, expected = settled(ours, cost), theirs.commit(cost)
    assert (told.ok, told.reason) == (expected.ok, expected.reason)
    assert ours.calls == theirs.calls
    assert ours.moves == theirs.moves
    assert ours.practice == theirs.practice


@pytest.mark.parametrize(
    ("policy", "cost", "reason"),
    [(REJECT, 600, ""), (REJECT, 601, "above_estimate"), (IF_AVAILABLE, 1_300, ""),
     (OVERDRAFT, 1_300, "")],
)  # fmt: skip
def test_a_late_settle_of_a_lease_obeys_its_policy(policy: int, cost: int, reason: str) -> None:
    bank = Bank(limit=1_500)
    bank.lease(600, policy)
    bank.now_ms += 2_000
    assert bank.do(Expire(1), call=bank.calls[1]).ok
    told = settled(bank, cost)
    assert (told.ok, told.reason) == (not reason, reason)
    debt, uncovered = bank.practice.debt_nano_usd, bank.calls[1].uncovered_nano_usd
    assert debt == (300 if policy == OVERDRAFT else 0)
    assert uncovered == (300 if policy == IF_AVAILABLE else 0)
    assert bank.practice.over_limit == (policy == IF_AVAILABLE)
