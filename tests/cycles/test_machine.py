"""Any sequence of requests: the server answers what the oracle says, and repeats it for ever.

Each request is repeated at random later: the same key and body must give the same answer, whatever
has happened since, but for `remaining_ttl_ms`, which is of the moment; another body is refused.
"""

import asyncio
import json
from collections import Counter
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests import databases
from tests.conftest import SOAK_FACTOR
from tests.cycles.conftest import BEGIN_MS, TENANT, Server, planned, told, usd
from tests.cycles.oracle import Answer, Oracle

AMOUNTS = st.one_of(st.integers(0, 60), st.sampled_from([0, 1, 5, 10, 20, 100]))
ABOVE = st.sampled_from([-1_000, -1, 0, 1, 7, 30, 90])
POLICIES = st.sampled_from([None, "REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"])
STEPS_MS = st.sampled_from([1, 499, 500, 999, 1_000, 1_001, 1_500, 60_000])
TTLS = st.sampled_from([1_000, 1_500, 2_000, 86_399_000, 86_400_000])
GRACES = st.sampled_from([0, 1, 500])


class CyclesMachine(RuleBasedStateMachine):
    """One tenant, its budget, and a client that forgets nothing."""

    kind: ClassVar[str] = databases.SQLITE
    seen: ClassVar[Counter[str]] = Counter()
    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server = Server(databases.quick(self.kind))
        self.client = self.server.client()
        self.oracle = Oracle(now_ms=BEGIN_MS)
        self.ids: dict[str, str] = {}
        self.accepted: list[tuple[str, dict[str, Any], httpx.Response, str]] = []
        self.number = 0

    def teardown(self) -> None:
        self.loop.run_until_complete(self.server.close())
        self.loop.close()

    # ---- how requests are made

    def key(self) -> str:
        self.number += 1
        return f"key-{self.number}"

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.loop.run_until_complete(self.client.post(path, json=body))

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.loop.run_until_complete(self.client.get(path, params=query))

    def step(
        self, path: str, body: dict[str, Any], expected: Answer, name: str = ""
    ) -> httpx.Response:
        """Make a request, compare, and remember what was accepted."""
        answer = self.post(path, body)
        self.compare(answer, expected)
        kind = path.rpartition("/")[2]
        self.seen[f"{kind} {expected.body.get('error', answer.status_code)}"] += 1
        if answer.is_success:
            self.accepted.append((path, body, answer, name))
        return answer

    def compare(self, answer: httpx.Response, expected: Answer) -> None:
        body = answer.json()
        assert answer.status_code == expected.status, (answer.status_code, body, expected)
        for field, value in expected.body.items():
            assert body.get(field) == value, (field, body, expected)
        extra = {"charged", "released", "reason_code", "finalized_at_ms", "committed"}
        assert not (extra & set(body)) - set(expected.body), (body, expected)

    def lead(self, name: str, answer: httpx.Response) -> int:
        """Say what must remain of the life that an answer gave."""
        found = self.oracle.reservations[name]
        active = found.status == "ACTIVE"
        return max(0, answer.json()["expires_at_ms"] - self.oracle.now_ms) if active else 0

    # ---- what may happen

    @initialize(credit=st.sampled_from([60, 300, 1_000]), limit=st.sampled_from([0, 100]))
    def begin(self, credit: int, limit: int) -> None:
        if credit:
            self.server.fund(credit)
            self.oracle.fund(credit)
        self.set_limit(limit)

    @rule(limit=st.sampled_from([0, 5, 100]))
    def set_limit(self, limit: int) -> None:
        self.server.policy(overdraft_limit_nano_usd=limit * 10)
        self.oracle.limit = limit
        self.reserve(1, None, 1_000, 0)

    @rule(frozen=st.sampled_from([False, False, False, True]))
    def freeze(self, frozen: bool) -> None:
        self.server.policy(status="frozen" if frozen else "active")
        self.oracle.is_frozen = frozen

    @rule(microcents=st.integers(1, 100))
    def fund(self, microcents: int) -> None:
        self.oracle.tick()
        self.get("/v1/balances", tenant=TENANT)
        self.server.fund(microcents)
        self.oracle.fund(microcents)

    @rule(milliseconds=STEPS_MS)
    def wait(self, milliseconds: int) -> None:
        self.oracle.now_ms += milliseconds
        self.server.clock.now_ms = self.oracle.now_ms

    @rule(name=names, part=st.sampled_from(["expires", "due"]), later=st.sampled_from([0, 1]))
    def outlive(self, name: str, part: str, later: int) -> None:
        """Let time pass to the last instant of a reservation, or to the one after."""
        found = self.oracle.reservations[name]
        end = found.expires_ms + (found.grace_ms if part == "due" else 0)
        self.wait(max(0, end + later - self.oracle.now_ms))

    @rule(above=st.sampled_from([0, 1, 50]))
    def owe(self, above: int) -> None:
        """Use more than there is, up to the limit of debt and beyond it."""
        self.oracle.tick()
        self.event(max(0, self.oracle.remaining), None)
        more = max(0, self.oracle.limit - self.oracle.debt + above)
        self.event(more, "ALLOW_WITH_OVERDRAFT")
        self.decide(1)

    @rule(target=names, estimate=AMOUNTS, policy=POLICIES, ttl=TTLS, grace=GRACES)
    def reserve(self, estimate: int, policy: str | None, ttl: int, grace: int) -> Any:
        options: dict[str, Any] = {"ttl_ms": ttl, "grace_period_ms": grace}
        if policy is not None:
            options["overage_policy"] = policy
        body = planned(self.key(), estimate, **options)
        name = body["idempotency_key"]
        answer = self.step("/v1/reservations", body, self.oracle.reserve(name, body), name)
        if not answer.is_success:
            return multiple()
        self.ids[name] = answer.json()["reservation_id"]
        assert answer.json()["remaining_ttl_ms"] == ttl
        return name

    @rule(target=names, estimate=st.integers(0, 30), policy=POLICIES)
    def reserve_little(self, estimate: int, policy: str | None) -> Any:
        """Reserve, so that there is mostly something to go on with."""
        if self.oracle.is_frozen:
            self.freeze(False)
        if self.oracle.is_over_limit or self.oracle.remaining < estimate:
            self.fund(100)
        return self.reserve(estimate, policy, 86_399_000, 500)

    @rule(estimate=AMOUNTS)
    def dry_run(self, estimate: int) -> None:
        body = planned(self.key(), estimate, dry_run=True)
        answer = self.step("/v1/reservations", body, self.oracle.reserve("", body))
        assert not {"reservation_id", "expires_at_ms", "remaining_ttl_ms"} & set(answer.json())
        assert answer.json()["affected_scopes"] == ["tenant:acme", "tenant:acme/agent:bot"]

    @rule(estimate=AMOUNTS)
    def decide(self, estimate: int) -> None:
        body = planned(self.key(), estimate)
        self.step("/v1/decide", body, self.oracle.decide(body))

    @rule(name=names, above=ABOVE)
    def commit(self, name: str, above: int) -> None:
        if above == 90 and self.oracle.limit:
            above += max(0, self.oracle.remaining) + self.oracle.limit
        actual = max(0, self.oracle.reservations[name].estimate + above)
        body = {"idempotency_key": self.key(), "actual": usd(actual)}
        expected = self.oracle.commit(name, body)
        self.step(f"/v1/reservations/{self.ids[name]}/commit", body, expected, name)

    @rule(name=names)
    def release(self, name: str) -> None:
        expected = self.oracle.release(name)
        path = f"/v1/reservations/{self.ids[name]}/release"
        self.step(path, {"idempotency_key": self.key()}, expected, name)

    @rule(name=names, by=st.sampled_from([1, 500, 2_000, 86_400_000]))
    def extend(self, name: str, by: int) -> None:
        body = {"idempotency_key": self.key(), "extend_by_ms": by}
        expected = self.oracle.extend(name, body)
        answer = self.step(f"/v1/reservations/{self.ids[name]}/extend", body, expected, name)
        if answer.is_success:
            assert answer.json()["remaining_ttl_ms"] == self.lead(name, answer)

    @rule(name=names)
    def extend_to_the_end(self, name: str) -> None:
        for by in (500, 86_400_000, 1):
            self.extend(name, by)

    @rule(actual=AMOUNTS, policy=POLICIES)
    def event(self, actual: int, policy: str | None) -> None:
        options = {} if policy is None else {"overage_policy": policy}
        body = told(self.key(), actual, **options)
        self.step("/v1/events", body, self.oracle.event(body))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send again what was accepted: the same answer, and nothing happens."""
        if not self.accepted:
            return
        self.oracle.tick()
        path, body, first, name = data.draw(st.sampled_from(self.accepted))
        again = self.post(path, body)
        assert again.status_code == first.status_code, again.text
        now, then = again.json(), first.json()
        if "remaining_ttl_ms" in then:
            assert now.pop("remaining_ttl_ms") == self.lead(name, first)
            then.pop("remaining_ttl_ms")
        assert json.dumps(now) == json.dumps(then)
        self.seen["repeated"] += 1

    @rule(data=st.data())
    def reuse(self, data: st.DataObject) -> None:
        """Use a key again for something else: refused, and nothing happens."""
        if not self.accepted:
            return
        path, body, _first, _name = data.draw(st.sampled_from(self.accepted))
        other = {**body, "metadata": {"other": True}}
        if path.endswith("/release"):
            other = {**body, "reason": "another"}
        answer = self.post(path, other)
        assert (answer.status_code, answer.json()["error"]) == (409, "IDEMPOTENCY_MISMATCH")
        if path == "/v1/reservations":
            answer = self.post(path, {**body, "dry_run": not body.get("dry_run", False)})
            assert answer.json()["error"] == "IDEMPOTENCY_MISMATCH"
        self.seen["reused"] += 1

    @rule(name=names)
    def look(self, name: str) -> None:
        expected = self.oracle.get(name)
        self.compare(self.get(f"/v1/reservations/{self.ids[name]}"), expected)
        self.seen[f"get {expected.body.get('status', 'EXPIRED')}"] += 1

    @rule(status=st.sampled_from(["ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"]))
    def list_all(self, status: str) -> None:
        self.oracle.tick()
        found = self.get("/v1/reservations", status=status, limit=200).json()["reservations"]
        expected = {
            self.ids[name]: r.status
            for name, r in self.oracle.reservations.items()
            if r.status == status
        }
        assert {row["reservation_id"]: row["status"] for row in found} == expected

    @invariant()
    def balance_is_as_predicted(self) -> None:
        expected = self.oracle.balance()
        (found,) = self.get("/v1/balances", tenant=TENANT).json()["balances"]
        assert {name: found[name] for name in expected} == expected


WANTED = {
    "reservations 200", "reservations BUDGET_EXCEEDED", "reservations OVERDRAFT_LIMIT_EXCEEDED",
    "reservations DEBT_OUTSTANDING", "reservations BUDGET_FROZEN", "decide 200", "commit 200",
    "commit BUDGET_EXCEEDED", "commit OVERDRAFT_LIMIT_EXCEEDED", "commit RESERVATION_EXPIRED",
    "commit RESERVATION_FINALIZED", "release 200", "release RESERVATION_EXPIRED",
    "release RESERVATION_FINALIZED", "extend 200", "extend RESERVATION_EXPIRED",
    "extend RESERVATION_FINALIZED", "extend MAX_EXTENSIONS_EXCEEDED", "events 201",
    "events BUDGET_EXCEEDED", "events OVERDRAFT_LIMIT_EXCEEDED", "repeated", "reused",
    "get EXPIRED", "get COMMITTED", "get RELEASED", "get ACTIVE",
}  # fmt: skip


class CyclesOnPostgresql(CyclesMachine):
    """The same on the other database."""

    kind = databases.POSTGRESQL
    seen: ClassVar[Counter[str]] = Counter()


@pytest.mark.parametrize("way", [CyclesMachine, CyclesOnPostgresql])
def test_every_kind_of_answer_is_compared_with_the_oracle(way: type[CyclesMachine]) -> None:
    """A walk by hand through the same machine, so that no answer is left to chance."""
    way.seen.clear()
    machine = way()
    try:
        _walk(machine)
    finally:
        machine.teardown()
    missing = WANTED - {"repeated", "reused"} - set(way.seen)
    assert not missing, missing


def _walk(machine: CyclesMachine) -> None:
    machine.begin(300, 0)
    for policy in ("REJECT", "ALLOW_IF_AVAILABLE"):
        name = machine.reserve(10, policy, 86_399_000, 500)
        for step in (machine.look, machine.extend_to_the_end):
            step(name)
        machine.commit(name, 1)
        machine.commit(name, -1)
        machine.look(name)
        machine.commit(name, 0)
        machine.release(name)
        machine.extend(name, 500)
    name = machine.reserve(10, None, 1_000, 500)
    machine.release(name)
    machine.look(name)
    name = machine.reserve(10, None, 1_000, 500)
    machine.outlive(name, "expires", 1)
    machine.extend(name, 500)
    machine.outlive(name, "due", 1)
    for step in (machine.look, machine.release):
        step(name)
    machine.commit(name, 0)
    machine.reserve(1_000, None, 1_000, 0)
    machine.event(1_000, "REJECT")
    machine.freeze(True)
    machine.reserve(1, None, 1_000, 0)
    machine.freeze(False)
    machine.set_limit(100)
    name = machine.reserve(10, "ALLOW_WITH_OVERDRAFT", 60_000, 0)
    for above in (500, 90):
        machine.commit(name, above)
    machine.commit(name, -1)
    machine.owe(1)
    machine.owe(0)
    machine.decide(1)
    machine.set_limit(5)
    machine.set_limit(0)
    machine.fund(100)
    machine.event(1_000, "ALLOW_IF_AVAILABLE")
    machine.reserve(1, None, 1_000, 0)
    machine.balance_is_as_predicted()


def seen_by(way: type[CyclesMachine], examples: int) -> Counter[str]:
    """Make any sequences of requests; count which kinds of answers were compared."""
    way.seen.clear()
    run_state_machine_as_test(
        way,
        settings=settings(
            max_examples=examples * SOAK_FACTOR, stateful_step_count=40,
            derandomize=SOAK_FACTOR == 1,
        ),
    )  # fmt: skip
    return way.seen


@pytest.mark.soak
def test_any_sequence_of_requests_is_answered_as_the_protocol_says() -> None:
    seen = seen_by(CyclesMachine, 50)
    assert len(WANTED & set(seen)) >= 20, WANTED - set(seen)
    assert seen["repeated"] > 20
    assert seen["reused"] > 20


@pytest.mark.soak
def test_they_are_answered_so_on_postgresql() -> None:
    seen = seen_by(CyclesOnPostgresql, 12)
    assert len(WANTED & set(seen)) >= 12, WANTED - set(seen)
    assert seen["repeated"] > 5
    assert seen["reused"] > 5
