"""A draft: one practice in the middle of one command, and the moves a command is made of.

Law: credit moves only through `move`, which numbers and chains the transfer; what is drafted and
then refused leaves no trace, because the draft is thrown away. Private to `apply`.
"""

from __future__ import annotations

from typing import Any

from guthaben.domain.calls import Call
from guthaben.domain.commands import Outcome
from guthaben.domain.grants import ALLOWANCE, NEVER_S, Grant, Slice, burn_down, take
from guthaben.domain.journal import CREDIT_ACCOUNTS, Account, Code, Transfer, link
from guthaben.domain.money import MAX_BALANCE_NANO_USD, MAX_COMMAND_NANO_USD
from guthaben.domain.period import Period
from guthaben.domain.practice import Overrun, Practice, allowance_grant, allowance_of

DEBT = int(Account.DEBT)
USED = int(Account.USED)
EXPIRED = int(Account.EXPIRED)
_CREDIT = frozenset(map(int, CREDIT_ACCOUNTS))
_SOURCE_OF_KIND = {1: int(Account.INCLUDED), 2: int(Account.GIFTED), 3: int(Account.PURCHASED)}
_BEHIND_COUNTERS = Practice._fields.index("next_due_ms") + 1
OVERRUN, _REPAY, _GRANT_EXPIRED = int(Code.OVERRUN), int(Code.REPAY), int(Code.GRANT_EXPIRED)


class Refusal(Exception):
    """Raised inside a command to refuse it; `apply` turns it into an outcome."""

    def __init__(self, reason: str, available_nano_usd: int = 0) -> None:
        super().__init__(reason)
        self.outcome = Outcome(False, reason, False, False, available_nano_usd)


def require_amount(amount: int, least: int) -> None:
    """Refuse what is no amount, is below the least, or is beyond what a command may move."""
    if type(amount) is not int or not least <= amount <= MAX_COMMAND_NANO_USD:
        raise Refusal("invalid_amount")


class Draft:
    """The changing copy of a practice that one command works on."""

    __slots__ = (
        "_gained", "_head", "_seq", "call_no", "debt", "event_no", "grants", "held", "next_call_no",
        "next_due_ms", "next_grant_no", "now_s", "over_limit", "practice", "transfers",
    )  # fmt: skip

    def __init__(self, practice: Practice, now_s: int) -> None:
        self.practice = practice
        self.now_s = now_s
        self.grants: dict[int, Grant] = dict(practice.grants)
        self.held = practice.held_nano_usd
        self.debt = practice.debt_nano_usd
        self.over_limit = practice.over_limit
        self.next_grant_no = practice.next_grant_no
        self.next_call_no = practice.next_call_no
        self.next_due_ms = practice.next_due_ms
        self.transfers: list[Transfer] = []
        self.call_no = 0
        self.event_no = 0
        self._gained = False
        self._seq = practice.last_seq
        self._head = practice.head

    @property
    def next_seq(self) -> int:
        """The number the next transfer will have."""
        return self._seq + 1

    def move(
        self, source: int, target: int, amount: int, grant_no: int, code: int, reverses: int = 0
    ) -> None:
        """Write one transfer; the caller has changed, or changes, the balances it speaks of."""
        seq = self._seq + 1
        call_no, event_no, at_s = self.call_no, self.event_no, self.now_s
        hashed = link(
            self._head, seq, source, target, amount, grant_no, call_no, event_no, code, reverses,
            at_s,
        )  # fmt: skip
        self.transfers.append(
            Transfer(
                seq, source, target, amount, grant_no, call_no, event_no, code, reverses, at_s,
                hashed,
            )
        )  # fmt: skip
        self._seq, self._head = seq, hashed
        if target in _CREDIT:
            self._gained = True

    def usable(self, allowance: Grant | None) -> list[Grant]:
        """Give the grants a call with this allowance may use now, in burn-down order."""
        blocked = self.debt > 0 and self.practice.debt_blocks_allowance
        allowance_no = 0 if allowance is None or blocked else allowance.grant_no
        return burn_down(self.grants.values(), self.now_s, allowance_no)

    def allowance_of_call(self, call: Call) -> Grant | None:
        """Give the allowance that a call was reserved under, whatever its bounds are now."""
        return allowance_grant(self.grants, call.license, call.period_start_s)

    def touch(self, period: Period) -> Grant | None:
        """Give the period's allowance grant, creating it at the period's first touch."""
        existing = allowance_of(self.grants, period)
        if existing is not None:
            known = existing.serves(period.license, period.start_s)
            return existing if known else self.rebound(existing, period, provisional=True)
        if period.allowance_nano_usd <= 0:
            return None
        self.forget_former(period)
        return self.add_grant(ALLOWANCE, period.allowance_nano_usd, NEVER_S, Code.GRANT, period)

    def rebound(self, grant: Grant, period: Period, *, provisional: bool) -> Grant:
        """Give an allowance other bounds; what speaks of the old ones still finds it."""
        start_s = period.start_s
        former = [old for old in (*grant.former_starts, grant.period_start_s) if old != start_s]
        bound = grant._replace(
            period_start_s=start_s,
            period_end_s=period.end_s,
            provisional=provisional,
            former_starts=tuple(dict.fromkeys(former)),
        )
        self.grants[grant.grant_no] = bound
        return bound

    def forget_former(self, period: Period) -> None:
        """Let a beginning mean the new period that has it, and no older allowance any more."""
        older = allowance_grant(self.grants, period.license, period.start_s)
        if older is not None:
            kept = tuple(old for old in older.former_starts if old != period.start_s)
            self.grants[older.grant_no] = older._replace(former_starts=kept)

    def add_grant(
        self,
        kind: int,
        amount: int,
        expires_at_s: int,
        code: int,
        period: Period | None = None,
        source: int = 0,
    ) -> Grant:
        """Create a grant and book where its credit comes from."""
        license, start_s, end_s = period[:3] if period else ("", 0, 0)
        grant = Grant(
            self.next_grant_no, kind, amount, 0, amount, expires_at_s, license, start_s, end_s,
            period.provisional if period else False, 0, self.event_no, self.now_s,
        )  # fmt: skip
        self.next_grant_no += 1
        self.grants[grant.grant_no] = grant
        self.over_limit = False
        self.move(source or _SOURCE_OF_KIND[kind], kind, amount, grant.grant_no, code)
        if expires_at_s < NEVER_S:
            self.next_due_ms = min(self.next_due_ms, expires_at_s * 1000)
        return grant

    def pin(self, slices: list[Slice]) -> None:
        """Hold slices of free credit for an open call."""
        for grant_no, amount in slices:
            grant = self.grants[grant_no]
            self.grants[grant_no] = grant.with_amounts(
                grant.free_nano_usd - amount, grant.held_nano_usd + amount
            )
            self.held += amount

    def unpin(self, slices: tuple[Slice, ...], cost: int, code: int) -> int:
        """End a hold: its first `cost` is used, the rest is free again; tell what is missing."""
        missing = cost
        for grant_no, amount in slices:
            used = min(amount, missing)
            missing -= used
            self.held -= amount
            grant = self.grants[grant_no]
            held = grant.held_nano_usd - amount
            self.grants[grant_no] = grant.with_amounts(grant.free_nano_usd, held)
            if used:
                self.move(grant.kind, USED, used, grant_no, code)
            if amount > used:
                self.free(grant_no, amount - used)
        return missing

    def free(self, grant_no: int, amount: int) -> None:
        """Make credit of a grant usable again; on an expired grant it expires at once."""
        grant = self.grants[grant_no]
        if grant.kind != ALLOWANCE and grant.expires_at_s <= self.now_s:
            self.move(grant.kind, EXPIRED, amount, grant_no, _GRANT_EXPIRED)
            return
        self.grants[grant_no] = grant.with_amounts(
            grant.free_nano_usd + amount, grant.held_nano_usd
        )
        if grant.expires_at_s < NEVER_S:
            self.next_due_ms = min(self.next_due_ms, grant.expires_at_s * 1000)

    def spend(self, slices: list[Slice], target: int, code: int) -> None:
        """Move slices of free credit out of their grants."""
        for grant_no, amount in slices:
            grant = self.grants[grant_no]
            free = grant.free_nano_usd - amount
            self.grants[grant_no] = grant.with_amounts(free, grant.held_nano_usd)
            self.move(grant.kind, target, amount, grant_no, code)

    def charge(self, allowance: Grant | None, cost: int, code: int) -> None:
        """Use free credit for a cost; what is missing becomes debt or the operator's loss."""
        slices, missing = take(self.usable(allowance), cost)
        self.spend(slices, USED, code)
        if missing == 0:
            return
        if self.practice.overrun == Overrun.OPERATOR_LOSS:
            self.move(Account.OPERATOR_LOSS, USED, missing, 0, OVERRUN)
            return
        self.owe(missing, USED, OVERRUN)

    def owe(self, amount: int, target: int, code: int) -> None:
        """Let the debt grow by what no credit covered."""
        self.debt += amount
        if self.debt > MAX_BALANCE_NANO_USD:
            raise Refusal("balance_limit")
        self.move(DEBT, target, amount, 0, code)

    def bought(self) -> list[Grant]:
        """Give promotional and paid grants with free credit, not expired, in burn-down order."""
        others = (grant for grant in self.grants.values() if grant.kind != ALLOWANCE)
        return burn_down(others, self.now_s)

    def repay(self) -> None:
        """Repay debt from free promotional and paid credit."""
        slices, missing = take(self.bought(), self.debt)
        self.debt = missing
        self.spend(slices, DEBT, _REPAY)

    def note_use(self, allowance: Grant | None, cost: int) -> None:
        """Count usage in its period, whatever credit paid for it."""
        if allowance is None or cost == 0:
            return
        grant = self.grants[allowance.grant_no]
        self.grants[grant.grant_no] = grant._replace(
            # Usage from before there was an allowance was not counted, so it may go back below.
            period_used_nano_usd=max(0, grant.period_used_nano_usd + cost)
        )

    def finish(self, **changes: Any) -> Practice:
        """Repay what can be repaid, check the limits, and give the practice after the command."""
        if self.debt:
            self.repay()
        if self._gained:  # a limit is passed by what comes in, and by nothing else
            total = sum(grant.free_nano_usd + grant.held_nano_usd for grant in self.grants.values())
            if total > MAX_BALANCE_NANO_USD:
                raise Refusal("balance_limit")
        before = self.practice
        # By place: `_replace` takes three times as long, and every command comes by here.
        after = Practice._make((
            before.practice_no, before.practice_id, self._head, self._seq, self.held, self.debt,
            self.next_grant_no, self.next_call_no, before.next_event_no, self.next_due_ms,
            *before[_BEHIND_COUNTERS:-2], self.over_limit, self.grants,
        ))  # fmt: skip
        return after._replace(**changes) if changes else after
