"""A desk at which one practice is served: short names for commands, and what they moved."""

from __future__ import annotations

from typing import Any

from guthaben.domain.calls import Call
from guthaben.domain.commands import Command, GrantCredit, Outcome, Reserve
from guthaben.domain.grants import NEVER_S, PAID
from guthaben.domain.journal import Account
from guthaben.domain.period import Period
from tests.properties.engines import PureEngine

T0 = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
T0_S = T0 // 1000
JAN = Period("L", T0_S, T0_S + 1000, 100)  # a period with an allowance of 100
BARE = Period("L", T0_S, T0_S + 1000)

Flow = tuple[str, str, int, int]


class Desk(PureEngine):
    """The bare domain with a clock of its own; `flows` holds what the last command moved."""

    def __init__(self, paid: int = 0) -> None:
        super().__init__()
        self.now = T0
        self.flows: list[Flow] = []
        if paid:
            self(GrantCredit("paid", PAID, paid))

    def __call__(self, command: Command) -> Outcome:
        before = len(self.journal)
        outcome = self.do(command, self.now)
        self.flows = [
            (Account(t.source).name.lower(), Account(t.target).name.lower(), t.grant_no,
             t.amount_nano_usd)
            for t in self.journal[before:]
        ]  # fmt: skip
        self.check(self.now)
        return outcome

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.now += ms

    def grant(self, kind: int, amount: int, expires_at_s: int = NEVER_S, **more: Any) -> int:
        """Give credit under a key of its own; tell the grant's number."""
        key = f"grant-{len(self.keys)}"
        outcome = self(GrantCredit(key, kind, amount, expires_at_s, **more))
        assert outcome.ok, outcome
        return outcome.grant_no

    def reserve(self, amount: int, **more: Any) -> Call:
        """Reserve under a key of its own."""
        outcome = self(Reserve(f"call-{len(self.calls)}", amount, **more))
        assert outcome.call is not None, outcome
        return outcome.call

    def grants(self) -> dict[int, tuple[int, int]]:
        """Number -> free, held."""
        found = self.practice.grants.items()
        return {no: (g.free_nano_usd, g.held_nano_usd) for no, g in found}

    def figures(self, period: Period | None = None) -> tuple[int, int, int]:
        """Available, held, debt."""
        told = self.balance(period, self.now)
        return told.available_nano_usd, told.held_nano_usd, told.debt_nano_usd


def refused(outcome: Outcome) -> str:
    """The reason; a refusal says that it did nothing."""
    assert (outcome.ok, outcome.applied, outcome.replayed) == (False, False, False)
    return outcome.reason
