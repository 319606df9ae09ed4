"""Whatever fails, whoever leads: what was told reaches every subscriber, and nobody else.

Servers come and go, clocks jump, receivers fail, answers are lost and processes end between sending
and noting. When the faults stop, everything told has arrived at least once everywhere it should.
"""

from __future__ import annotations

import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guthaben.channels.results import Again, Result, Sent
from guthaben.config import MailSettings
from guthaben.services.delivery import LEASE_S, PAUSES_S, Dispatcher
from guthaben.services.jobs import Job, Runner
from guthaben.services.notices import OPERATOR, Fact, Notice, tell
from guthaben.services.targets import Targets
from guthaben.store.store import Store
from tests import databases

MAIL = MailSettings("127.0.0.1", 25, "none", None, None, "a@b.example", "G")
PRACTICES = ("prac_1", "prac_2", "prac_3")
FACTS: dict[Notice, dict[str, Fact]] = {
    Notice.TOPPED_UP: {"price_rappen": 1, "credit_nano_usd": 1, "automatic": 0},
    Notice.DISPUTE_OPENED: {"price_rappen": 1},
    Notice.QUARANTINED: {"reason": "x", "event_no": 1},
}
STEPS = st.lists(
    st.sampled_from(
        ["tell"] * 4 + ["work"] * 6 + ["crash", "wait", "wait", "long", "back", "change", "broken"]
    ),
    min_size=5,
    max_size=40,
)


class Killed(BaseException):
    """The process ends here."""


class World:
    """One database, servers that take turns, and receivers whose connections fail."""

    def __init__(self, seed: int, kind: str = databases.SQLITE) -> None:
        self.chance = random.Random(seed)
        self.now_ms = 1_762_945_200_000
        self.store = Store(databases.quick(kind), clock_ms=lambda: self.now_ms)
        self.faults = True
        self.dies = False
        self.arrived: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.expected: dict[tuple[str, str], str] = {}
        self.told = 0
        self.servers = [self.server() for _ in range(2)]
        self.subscribe()

    def server(self) -> Runner:
        """A process that may lead."""
        dispatcher = Dispatcher(
            self.store, mail=lambda: MAIL, allow_private=lambda: True,
            post=self.post, send=self.send, below=self.chance.randrange,
        )  # fmt: skip
        return Runner(
            self.store,
            [Job("outbox", 1, dispatcher.work)],
            monotonic_s=lambda: self.now_ms / 1000,
        )

    def subscribe(self) -> None:
        targets = Targets(self.store, allow_private=lambda: True)
        self.owners: dict[str, list[str]] = defaultdict(list)
        for owner in (*PRACTICES, OPERATOR):
            url = f"http://{owner or 'operator'}.example/"
            targets.add_endpoint(owner, url)
            self.owners[owner].append(url)
            address = f"{owner or 'operator'}@mail.example"
            targets.add_contact(owner, address)
            self.owners[owner].append(address)

    # ---- the receivers

    def post(self, url: str, _body: bytes, headers: Any, **_more: Any) -> Result:
        return self.answer(url, headers["webhook-id"])

    def send(self, _mail: MailSettings, message: Any) -> Result:
        message_id = message["Message-ID"].strip(" <>").partition(".")[0]
        return self.answer(str(message["To"]), message_id)

    def answer(self, place: str, message_id: str) -> Result:
        kind = self.chance.random() if self.faults else 1.0
        if kind < 0.3:
            return Again("connection")
        self.arrived[message_id, place].append(message_id)
        if self.dies and kind < 0.7:
            raise Killed
        if kind < 0.5:
            return Again("timeout")  # it arrived, and nobody knows
        return Sent()

    # ---- the steps

    def tell(self) -> None:
        kind = self.chance.choice([*FACTS])
        practice = self.chance.choice(PRACTICES)
        self.told += 1
        key = str(self.told)
        self.store.run(lambda space: tell(space, practice, kind, key, FACTS[kind]))
        rows = self.store.read(
            lambda cur: cur.execute(
                "SELECT notice_id FROM credit_notice WHERE kind = ? AND key = ?", (kind.value, key)
            ).fetchone()
        )
        url, address = self.owners[practice]
        host, operator = self.owners[OPERATOR]
        wanted = {host}
        if kind is not Notice.QUARANTINED:
            wanted |= {url, address}
        if kind is not Notice.TOPPED_UP:
            wanted |= {operator}
        for place in wanted:
            self.expected[rows[0], place] = practice

    def work(self, *, dies: bool = False) -> None:
        self.dies = dies
        try:
            self.chance.choice(self.servers).work_once(everything=True)
        except Killed:
            self.servers.pop(self.chance.randrange(len(self.servers)))
            self.servers.append(self.server())
        finally:
            self.dies = False

    def step(self, name: str) -> None:
        match name:
            case "tell":
                self.tell()
            case "work":
                self.work()
            case "crash":
                self.work(dies=True)
            case "wait":
                self.now_ms += 7_000
            case "long":
                self.now_ms += self.chance.choice([400, LEASE_S + 1, 3_700, 90_000]) * 1000
            case "back":
                self.now_ms -= self.chance.choice([5, 600, 40 * 86_400]) * 1000
            case "change":
                self.servers.append(self.server())
            case _:
                self.rolled_back()

    def rolled_back(self) -> None:
        """A change that is undone tells nobody."""

        def broken(space: Any) -> None:
            tell(space, PRACTICES[0], Notice.DISPUTE_OPENED, "undone", FACTS[Notice.DISPUTE_OPENED])
            raise RuntimeError("undone")

        with pytest.raises(RuntimeError):
            self.store.run(broken)

    def calm(self) -> None:
        """Let the faults stop, and time pass."""
        self.faults = False
        for pause_s in (LEASE_S, *PAUSES_S, 60, 60):
            self.now_ms += (pause_s + pause_s // 4 + 61) * 1000
            self.work()
        self.work()


@settings(max_examples=40)
@given(STEPS, st.integers(0, 2**32))
def test_what_was_told_arrives_at_least_once_everywhere_and_nowhere_else(
    steps: list[str], seed: int
) -> None:
    world = World(seed)
    assert arrived(world, steps) == set(world.expected), "nobody is left out, nobody hears more"


@settings(max_examples=10)
@given(STEPS, st.integers(0, 2**32))
def test_it_arrives_on_postgresql(steps: list[str], seed: int) -> None:
    world = World(seed, databases.POSTGRESQL)
    assert arrived(world, steps) == set(world.expected), "nobody is left out, nobody hears more"


def arrived(world: World, steps: list[str]) -> set[tuple[str, str]]:
    """Let it happen, then let every fault end; tell who has heard what by then."""
    try:
        for name in steps:
            world.step(name)
        world.calm()
        given_up = {
            (row[0], row[1])
            for row in world.store.read(
                lambda cur: cur.execute(
                    "SELECT notice_id, reason FROM credit_delivery WHERE status <> 'delivered'"
                ).fetchall()
            )
        }
        ours = {message_id for message_id, _place in world.expected}
        assert not {pair for pair in given_up if pair[0] in ours}, "forty steps exhaust no schedule"
        return {pair for pair in world.arrived if pair[0] in ours}
    finally:
        world.store.close()


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_two_that_send_at_the_same_time_send_different_things(seed: int) -> None:
    world = World(seed)
    assert sent_by_two(world) == dict.fromkeys(world.expected, 1)


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_two_send_different_things_on_postgresql(seed: int) -> None:
    world = World(seed, databases.POSTGRESQL)
    assert sent_by_two(world) == dict.fromkeys(world.expected, 1)


def sent_by_two(world: World) -> dict[tuple[str, str], int]:
    """Let two servers empty one outbox at the same time; tell how often each notice was sent."""
    world.faults = False
    try:
        for _ in range(30):
            world.tell()
        dispatchers = [
            Dispatcher(world.store, mail=lambda: MAIL, allow_private=lambda: True,
                       post=world.post, send=world.send)
            for _ in range(2)
        ]  # fmt: skip
        while world.store.run(dispatchers[0]._spread_some):
            pass

        def drain(dispatcher: Dispatcher) -> None:
            with ThreadPoolExecutor(2) as senders:
                while dispatcher.send_due(senders):
                    pass

        with ThreadPoolExecutor(2) as both:
            list(both.map(drain, dispatchers))
        return {pair: len(times) for pair, times in world.arrived.items()}
    finally:
        world.store.close()
