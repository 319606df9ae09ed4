"""Two ways to drive the engine with the same commands: the bare `apply`, and the whole store.

Both show what they hold as a `Picture`, in the words of the oracle, so that the two can be laid
side by side. The bare one loads and keeps states in dicts, and sweeps as docs/rules.md says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from guthaben.domain.apply import Subject, apply
from guthaben.domain.auto_topup import AutoTopup
from guthaben.domain.calls import RESERVED, Call, Operation, Status
from guthaben.domain.commands import (
    Adjust,
    ClaimTopup,
    CloseEvent,
    Command,
    Expire,
    ExpireGrants,
    Extend,
    Fulfil,
    GrantCredit,
    KeyRecord,
    NetPayment,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    Settle,
    body_hash,
)
from guthaben.domain.grants import Grant
from guthaben.domain.journal import Account, Transfer, genesis, replay
from guthaben.domain.period import Period
from guthaben.domain.practice import NEVER_MS, Balance, Practice, balance_of, current_period
from guthaben.domain.topup import CreditEvent
from guthaben.store import calls, journal, practices, queries
from guthaben.store.store import Store
from guthaben.store.verify import verify
from guthaben.store.workspace import Workspace
from guthaben.store.writer import Order

PRACTICE = "prac_1"


class CallPicture(NamedTuple):
    """A call as the oracle speaks of it."""

    status: str
    cost: int
    expires_at_ms: int


class Picture(NamedTuple):
    """Everything that the rules speak of."""

    held: int
    debt: int
    grants: dict[int, tuple[str, int, int]]
    """Number -> kind, free, held."""
    calls: dict[int, CallPicture]


class Engine(Protocol):
    """What the machine needs."""

    def do(self, command: Command, now_ms: int) -> Outcome:
        """Apply one command."""

    def together(self, commands: Sequence[Command], now_ms: int) -> list[Outcome]:
        """Apply commands that arrive at the same time."""

    def sweep(self, now_ms: int) -> None:
        """Expire what is due."""

    def picture(self) -> Picture:
        """Show the state."""

    def transfers(self, after_seq: int) -> list[Transfer]:
        """Read the transfers after a number."""

    def balance(self, period: Period | None, now_ms: int) -> Balance:
        """Tell a balance, without sweeping."""

    def check(self, now_ms: int) -> None:
        """Assert that the journal explains every balance."""

    def close(self) -> None:
        """End it."""


def _picture(practice: Practice, grants: dict[int, Grant], found: list[Call]) -> Picture:
    return Picture(
        practice.held_nano_usd,
        practice.debt_nano_usd,
        {
            no: (Account(g.kind).name.lower(), g.free_nano_usd, g.held_nano_usd)
            for no, g in grants.items()
        },
        {
            c.call_no: CallPicture(Status(c.status).name.lower(), c.cost_nano_usd, c.expires_at_ms)
            for c in found
        },
    )


class PureEngine:
    """The bare domain: `apply` and a few dicts."""

    def __init__(self) -> None:
        self.practice = Practice(1, PRACTICE, genesis(PRACTICE))
        self.calls: dict[int, Call] = {}
        self.events: dict[int, CreditEvent] = {}
        self.keys: dict[tuple[str, str], KeyRecord] = {}
        self.journal: list[Transfer] = []

    def do(self, command: Command, now_ms: int) -> Outcome:
        """Sweep before a Reserve, load, apply, keep."""
        if isinstance(command, Reserve):
            self.sweep(now_ms)
        subject = self._subject(command)
        applied = apply(self.practice, subject, command, now_ms)
        if not applied.outcome.ok:
            assert applied.practice is self.practice, "a refusal changes nothing"
            assert (applied.transfers, applied.new_event) == ([], None)
        self.practice = applied.practice
        self.journal += applied.transfers
        self._keep(command, applied.subject, applied.outcome)
        if applied.new_event is not None:
            self.events[applied.new_event.event_no] = applied.new_event
        return applied.outcome

    def _subject(self, command: Command) -> Subject:
        match command:
            case Reserve() | RecordUsage():
                operation = Operation.RESERVE if isinstance(command, Reserve) else Operation.USAGE
                mine = (c for c in self.calls.values() if c.operation == operation)
                return next((c for c in mine if c.key == command.key), None)
            case Settle() | Release() | Extend() | Expire():
                return self.calls.get(command.call_no)
            case GrantCredit() | Adjust():
                return self.keys.get((type(command).__name__, command.key))
            case Fulfil() | CloseEvent() | NetPayment():
                return self.events.get(command.event_no)
            case ClaimTopup():
                return AutoTopup()
            case _:
                return None

    def _keep(self, command: Command, changed: object, outcome: Outcome) -> None:
        if isinstance(changed, Call):
            self.calls[changed.call_no] = changed
        elif isinstance(changed, CreditEvent):
            self.events[changed.event_no] = changed
        if isinstance(command, GrantCredit | Adjust) and outcome.applied:
            event_no = outcome.event.event_no if outcome.event else 0
            name = type(command).__name__
            self.keys[name, command.key] = KeyRecord(body_hash(command), outcome.grant_no, event_no)

    def together(self, commands: Sequence[Command], now_ms: int) -> list[Outcome]:
        """One after the other: there is nothing else to it here."""
        return [self.do(command, now_ms) for command in commands]

    def sweep(self, now_ms: int) -> None:
        """Expire at most a hundred due calls in their order, then grants."""
        opened = [c for c in self.calls.values() if c.status == RESERVED]
        due = sorted((c for c in opened if c.due_at_ms <= now_ms), key=_due_order)
        for call in due[:100]:
            assert self.do(Expire(call.call_no), now_ms).ok
        left = [c.due_at_ms for c in self.calls.values() if c.status == RESERVED]
        self.do(ExpireGrants(min([NEVER_MS, *left])), now_ms)

    def picture(self) -> Picture:
        """Show the dicts."""
        return _picture(self.practice, dict(self.practice.grants), list(self.calls.values()))

    def transfers(self, after_seq: int) -> list[Transfer]:
        """Read the list."""
        return self.journal[after_seq:]

    def balance(self, period: Period | None, now_ms: int) -> Balance:
        """Compute it."""
        wanted = period or current_period(self.practice, now_ms // 1000)
        return balance_of(self.practice, wanted, now_ms // 1000)

    def check(self, now_ms: int) -> None:
        """Replay the list and compare it with the practice."""
        practice = self.practice
        found = replay(PRACTICE, self.journal)
        assert found.problems == []
        assert (found.last_seq, found.head) == (practice.last_seq, practice.head)
        assert sum(found.accounts.values()) == 0
        assert -found.accounts.get(Account.DEBT, 0) == practice.debt_nano_usd
        for no, grant in practice.grants.items():
            assert found.grants[no] == grant.free_nano_usd + grant.held_nano_usd
        assert found.grants.keys() == practice.grants.keys()

    def close(self) -> None:
        """Nothing is open."""


def _due_order(call: Call) -> tuple[int, int]:
    return call.due_at_ms, call.call_no


class StoreEngine:
    """The whole store on a database: writer, cache, SQL."""

    def __init__(self, url: str) -> None:
        self.now_ms = 0
        self.store = Store(url, clock_ms=lambda: self.now_ms)

    def do(self, command: Command, now_ms: int) -> Outcome:
        """Hand it to the writer."""
        self.now_ms = now_ms
        return self.store.execute(PRACTICE, command)

    def together(self, commands: Sequence[Command], now_ms: int) -> list[Outcome]:
        """Let the writer fold the commands into one transaction."""
        self.now_ms = now_ms
        answers: list[object] = []

        def queue_up(space: Workspace) -> None:
            for command in commands:
                self.store._writers[0].submit(Order(PRACTICE, command, answers.append))

        # While the writer is busy with this job, what it queues waits, and is folded afterwards.
        self.store.run(queue_up)
        self.store.run(lambda space: None)
        outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
        assert len(outcomes) == len(commands), answers
        return outcomes

    def sweep(self, now_ms: int) -> None:
        """Sweep as a balance does."""
        self.now_ms = now_ms
        self.store.run(lambda space: space.sweep(PRACTICE))

    def _practice(self) -> Practice:
        found = self.store.read(lambda cur: practices.load_practice(cur, PRACTICE))
        return found or practices.stranger(PRACTICE)

    def picture(self) -> Picture:
        """Read every row."""
        practice = self._practice()
        number = (practice.practice_no,)
        columns = ", ".join(Grant._fields)
        grants = self.store.read(
            lambda cur: cur.execute(
                f"SELECT {columns} FROM credit_grant WHERE practice_no = ?", number
            ).fetchall()
        )
        rows = self.store.read(
            lambda cur: cur.execute(
                f"SELECT {calls.SELECTED} FROM credit_call WHERE practice_no = ?", number
            ).fetchall()
        )
        found = [calls.from_row(row) for row in rows]
        return _picture(practice, {row[0]: practices.grant_from_row(row) for row in grants}, found)

    def transfers(self, after_seq: int) -> list[Transfer]:
        """Read the rows."""
        number = self._practice().practice_no
        stored = self.store.read(lambda cur: list(journal.each_transfer(cur, number)))
        return stored[after_seq:]

    def balance(self, period: Period | None, now_ms: int) -> Balance:
        """Ask the store."""
        now_s = now_ms // 1000
        return self.store.read(lambda cur: queries.balance(cur, PRACTICE, period, now_s))[0]

    def check(self, now_ms: int) -> None:
        """Verify."""
        found = self.store.read(lambda cur: verify(cur, None, now_ms // 1000))
        assert found.ok, found.problems

    def close(self) -> None:
        """Close the store."""
        self.store.close()
