"""What the practices did and were told: the other half of what the oracle knows.

Law: it holds only what a practice itself can know. Where an answer was lost, it holds every state
that the answer may have meant, until a later answer settles it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")


class Possible(Generic[T]):
    """What may be in force: from which commit on, and which of several where nobody knows.

    A change that was asked for and not answered leaves both states possible.
    """

    def __init__(self, first: T) -> None:
        self._since: list[tuple[int, tuple[T, ...]]] = [(0, (first,))]

    @property
    def now(self) -> tuple[T, ...]:
        """All that may be in force."""
        return self._since[-1][1]

    @property
    def last(self) -> T:
        """What was told last."""
        return self.now[-1]

    def at(self, commit: int) -> tuple[T, ...]:
        """Tell what may have been in force after a commit."""
        return next(states for since, states in reversed(self._since) if since <= commit)

    def become(self, commit: int, *states: T) -> None:
        """Note what may be in force from a commit on."""
        self._since.append((commit, tuple(dict.fromkeys(states))))


class Terms(NamedTuple):
    """An automatic top-up as its customer has set it; amounts in Rappen."""

    enabled: bool
    amount: int = 0
    cap: int = 0
    percent: int = 5
    below: int = 0
    largest: int = 0
    """The most that one charge may be to close a whole shortfall; 0: no such charges."""

    def covers(self, price: int) -> bool:
        """Say whether a single charge of this size was agreed to."""
        return self.enabled and (price == self.amount or self.amount < price <= self.largest)

    def holds(self, wish: Terms) -> bool:
        """Say whether somebody who agreed to these terms has agreed to those."""
        return self.enabled and all(
            wanted <= known for wanted, known in zip(wish[1:], self[1:], strict=True)
        )


OFF = Terms(False)


@dataclass
class OwnCall:
    """One AI call, as the practice that makes it knows it."""

    key: str
    amount: int
    on_expiry: Literal["release", "charge"]
    id: str = ""
    """Its public id, once it has heard it."""
    cost: int | None = None
    """What it settles with, -1 where it releases; decided once, and asked for until answered."""
    over: bool = False
    """It has heard the end of it."""
    gone: bool = False
    """It was refused."""
    forgotten: bool = False
    """Its maker died after it was reserved: nobody will end it."""

    @property
    def waits(self) -> bool:
        """Whether its maker has still to do something."""
        return not (self.gone or self.over or self.forgotten)


@dataclass
class Page:
    """A hosted page that the practice was sent to; `amount` 0 is a set-up."""

    session_id: str
    amount: int


@dataclass
class Own:
    """One practice."""

    id: str
    license: str
    allowance: int
    terms: Possible[Terms] = field(default_factory=lambda: Possible(OFF))
    active: Possible[bool] = field(default_factory=lambda: Possible(True))
    stopped: Possible[bool] = field(default_factory=lambda: Possible(False))
    pages: list[Page] = field(default_factory=list)
    calls: list[OwnCall] = field(default_factory=list)
    usages: dict[str, int] = field(default_factory=dict)
    gifts: dict[str, int] = field(default_factory=dict)
    period_start_s: int = 0
    changing: bool = False
    agreed_at: int = 0
    """The commit with which it last switched the automatic top-up on, or began to save a card."""


def bought_nano_usd(rappen: int) -> int:
    """Say what a price buys: a third of it, half-even to a hundredth of a cent, in nano-USD.

    Written apart from the engine's own conversion.
    """
    return round(Fraction(rappen * 10_000, 300)) * 100_000


def left_nano_usd(granted: int, net: int, captured: int) -> int:
    """Say what may stay of the credit of a payment: in proportion, rounded down."""
    return int(Fraction(granted * min(max(net, 0), captured), captured).__floor__())
