"""Licences in any order: each period includes what the whole history says, however it is told.

A history of one subscription is drawn: periods, plan changes, dunning, ends. Its events reach us in
any order, some twice, some days late, some never, and each leads to a question that is answered
with the state at that moment. Between them calls are made. The oracle below knows the history alone
and was written from docs/rules.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from guthaben.payments.subscriptions import SubscriptionFacts, subscription_facts
from guthaben.services.guthaben import Guthaben
from guthaben.services.licence_news import LicenceNews
from guthaben.services.plans import PlanBook
from tests import databases

USD = 1_000_000_000
DAY_S = 86_400
T0_S = 1_767_225_600  # 1 January 2026
LENGTHS = (31, 28, 31, 30, 31)
STARTS = [T0_S + DAY_S * sum(LENGTHS[:n]) for n in range(len(LENGTHS) + 1)]
PLANS = {"small": 10, "middle": 20, "large": 50}
GOOD = ("active", "trialing")


@dataclass(frozen=True)
class State:
    """The subscription from an instant on."""

    at_s: int
    status: str
    plan: str
    start_s: int
    end_s: int

    def payload(self) -> dict[str, Any]:
        """The object as the provider shows it."""
        item = {
            "current_period_start": self.start_s, "current_period_end": self.end_s, "quantity": 1,
            "price": {"lookup_key": self.plan},
        }  # fmt: skip
        ended_at_s = self.at_s if self.status == "canceled" else None
        return {
            "id": "sub_1", "object": "subscription", "status": self.status, "livemode": True,
            "created": T0_S, "customer": "cus_1", "metadata": {"practice_id": "p"},
            "items": {"data": [item], "has_more": False}, "ended_at": ended_at_s,
            "cancel_at": None, "cancel_at_period_end": False,
        }  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[State]:
    """Draw what happened: in each period some changes of plan or status, then perhaps an end."""
    plan, states = draw(st.sampled_from(sorted(PLANS))), []
    for number in range(draw(st.integers(1, 4))):
        start_s, end_s = STARTS[number], STARTS[number + 1]
        # The provider moves the period first and has its invoice paid afterwards.
        states.append(State(start_s, "active", plan, start_s, end_s))
        hours = draw(st.lists(st.integers(1, 24 * 27), max_size=3, unique=True).map(sorted))
        status = "active"
        for hour in hours:
            if status == "active" and draw(st.integers(0, 3)):
                plan = draw(st.sampled_from(sorted(PLANS)))
            else:
                status = "active" if status == "past_due" else "past_due"
            states.append(State(start_s + hour * 3600, status, plan, start_s, end_s))
    if draw(st.booleans()):
        last = states[-1]
        at_s = draw(st.integers(last.at_s + 1, last.end_s - 1))
        states.append(State(at_s, "canceled", plan, last.start_s, last.end_s))
    return states


@dataclass
class Delivery:
    """When an event reaches us; the answer to the question is the state of that moment."""

    at_s: int
    state: State


@st.composite
def deliveries(draw: st.DrawFn, states: list[State]) -> list[Delivery]:
    """Draw when each event arrives: never, once or twice, at once or late."""
    found = []
    for state in states:
        for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
            late_s = draw(st.sampled_from((0, 0, 1, 3600, DAY_S, 4 * DAY_S, 40 * DAY_S)))
            found.append(Delivery(state.at_s + late_s, state))
    return sorted(found, key=lambda d: d.at_s)


class Provider:
    """Answers with the state of the moment."""

    def __init__(self, states: list[State], clock: list[int]) -> None:
        self._states, self._clock = states, clock

    def now(self) -> State:
        return [s for s in self._states if s.at_s <= self._clock[0]][-1]

    def retrieve_subscription(self, subscription_id: str) -> SubscriptionFacts:
        return subscription_facts(self.now().payload())


class Allowance(NamedTuple):
    """One allowance as it is stored."""

    start_s: int
    end_s: int
    amount: int
    provisional: bool


@dataclass
class Oracle:
    """What a reader of the rules expects of each allowance, by the number of its grant."""

    heard: list[State] = field(default_factory=list)
    now: State | None = None
    """What the provider last answered."""
    lent: dict[int, int] = field(default_factory=dict)
    """Allowances that were given while the renewal was late, for the plan known until then."""

    def told(self, said: State, now: State) -> None:
        self.heard += [said, now]
        self.now = now

    def starts(self) -> set[int]:
        return {state.start_s for state in self.heard}

    def includes(self, start_s: int) -> int:
        """The highest plan that was heard of in the period while it was paid for."""
        plans = [
            PLANS[s.plan] * USD for s in self.heard if s.start_s == start_s and s.status in GOOD
        ]
        return max(plans, default=0)

    def expected(self, grant_no: int, start_s: int) -> int:
        lent = self.lent.get(grant_no, 0)
        return max(lent, self.includes(start_s)) if start_s in self.starts() else lent


def allowances(guthaben: Guthaben) -> dict[int, Allowance]:
    """Read the allowances from the grants themselves."""

    def question(cursor: Any) -> dict[int, Allowance]:
        rows = cursor.execute(
            "SELECT grant_no, period_start_s, period_end_s, granted_nano_usd, provisional"
            " FROM credit_grant WHERE kind = 1"
        )
        return {row[0]: Allowance(*row[1:]) for row in rows}

    return guthaben.core.store.read(question)


def opened(clock: list[int], kind: str = databases.SQLITE) -> Guthaben:
    guthaben = Guthaben.open(databases.quick(kind), clock_ms=lambda: clock[0] * 1000)
    for plan, usd in PLANS.items():
        PlanBook(guthaben.core).set(plan, usd * USD)
    return guthaben


@settings(max_examples=120, deadline=None)
@given(data=st.data(), states=histories())
def test_each_period_includes_what_the_history_says(
    data: st.DataObject, states: list[State]
) -> None:
    end = lived_through(databases.SQLITE, data, states)
    assert end.found == end.expected


@settings(max_examples=20, deadline=None)
@given(data=st.data(), states=histories())
def test_it_does_on_postgresql(data: st.DataObject, states: list[State]) -> None:
    end = lived_through(databases.POSTGRESQL, data, states)
    assert end.found == end.expected


class End(NamedTuple):
    """The allowances after a history, by the number of their grants."""

    found: dict[int, int]
    expected: dict[int, int]


def lived_through(kind: str, data: st.DataObject, states: list[State]) -> End:
    """Live through a history, its events in disorder, and compare after each step."""
    clock, oracle = [T0_S], Oracle()
    provider = Provider(states, clock)
    calls = data.draw(st.lists(st.integers(0, 24 * 150), max_size=8))
    plan: list[tuple[int, Delivery | None]] = [(d.at_s, d) for d in data.draw(deliveries(states))]
    plan += [(T0_S + hour * 3600, None) for hour in calls]
    # Whatever was lost, in the end somebody asks.
    final_s = max(STARTS[-1] + 90 * DAY_S, *(at_s for at_s, _ in plan), 0)
    plan.append((final_s, Delivery(final_s, states[-1])))
    with opened(clock, kind) as guthaben:
        news = LicenceNews(guthaben.core.store, provider)  # type: ignore[arg-type]
        for number, (at_s, delivery) in enumerate(sorted(plan, key=lambda p: p[0])):
            clock[0] = at_s
            if delivery is None:
                call(guthaben, oracle, number)
            else:
                news.event("customer.subscription.updated", delivery.state.payload())
                oracle.told(delivery.state, provider.now())
            check(guthaben, oracle)
        never_two_for_one(guthaben, states)
        assert guthaben.verify().ok
        last = allowances(guthaben)
    return End(
        {number: one.amount for number, one in last.items()},
        {number: oracle.expected(number, one.start_s) for number, one in last.items()},
    )


def call(guthaben: Guthaben, oracle: Oracle, number: int) -> None:
    """Make a call of half a dollar; a licence whose renewal is late lends its plan to it."""
    before = allowances(guthaben)
    guthaben.record_usage("p", USD // 2, key=f"call-{number}")
    after = allowances(guthaben)
    for grant_no in after.keys() - before.keys():
        if after[grant_no].start_s in oracle.starts():
            continue
        assert oracle.now is not None
        assert oracle.now.status == "active", "only a licence that is paid for rolls on"
        oracle.lent[grant_no] = PLANS[oracle.now.plan] * USD


def check(guthaben: Guthaben, oracle: Oracle) -> None:
    """Compare every allowance with what is expected, and what may be used now."""
    found = allowances(guthaben)
    for grant_no, allowance in found.items():
        assert allowance.amount == oracle.expected(grant_no, allowance.start_s), allowance
    balance = guthaben.balance("p")
    usable = [a for a in found.values() if a.start_s == balance.period.start_s]
    assert len(usable) <= 1, "a call may use one allowance"
    if oracle.now is None or oracle.now.status == "canceled":
        assert balance.allowance_nano_usd == 0
    elif oracle.now.start_s == balance.period.start_s and not usable:
        assert balance.allowance_nano_usd == oracle.includes(oracle.now.start_s)


def never_two_for_one(guthaben: Guthaben, states: list[State]) -> None:
    """Of the time until the last told period is over, each period had at most one allowance.

    A short period that rolled on may have lent an allowance some days before that end: it reaches
    beyond, stays provisional, and becomes that of the period after.
    """
    end_s = states[-1].end_s
    begun = {state.start_s for state in states}
    until_then = [
        a
        for a in allowances(guthaben).values()
        if a.start_s < end_s and not (a.provisional and a.end_s > end_s)
    ]
    assert len(until_then) <= len(begun), (sorted(until_then), sorted(begun))
