"""The journal: chart of accounts, transfers, the hash chain, and replay.

Law: a transfer moves one positive amount from one ledger account of a practice to another, so an
unbalanced entry can't be written down. Each carries a number without gaps and the hash of its
predecessor inside its own. Transfers hold codes, never free text.
This module stores nothing and knows no SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

_HASH_FORM = b"%d|%d|%d|%d|%d|%d|%d|%d|%d|%d"


class Account(IntEnum):
    """The ledger accounts of one practice; the numbers are stored.

    The first three hold credit, grant by grant. `DEBT` is what the practice owes (its balance is
    minus the debt). The others are where credit comes from and where it goes.
    """

    ALLOWANCE = 1
    PROMOTIONAL = 2
    PAID = 3
    DEBT = 4
    INCLUDED = 5
    GIFTED = 6
    PURCHASED = 7
    ADJUSTED = 8
    USED = 9
    EXPIRED = 10
    CLAWED_BACK = 11
    OPERATOR_LOSS = 12


class Code(IntEnum):
    """Why a transfer was made; the numbers are stored."""

    GRANT = 1
    FULFIL = 2
    SETTLE = 3
    EXPIRY_CHARGE = 4
    EXCEPTION_CHARGE = 5
    LATE = 6
    USAGE = 7
    OVERRUN = 8
    REPAY = 9
    GRANT_EXPIRED = 10
    CLAWBACK = 11
    REINSTATE = 12
    ADJUST = 13
    PLAN_CHANGE = 14
    TAKE_OVER = 15


class Transfer(NamedTuple):
    """One movement of credit inside one practice, immutable."""

    seq: int
    source: int
    target: int
    amount_nano_usd: int
    grant_no: int
    """The grant on the side that is a credit account, 0 if neither is."""
    call_no: int
    event_no: int
    code: int
    reverses_seq: int
    at_s: int
    hash: bytes


def genesis(practice_id: str) -> bytes:
    """Begin the chain of a practice: a hash that binds it to its public id."""
    return sha256(b"guthaben/1 " + practice_id.encode()).digest()


def link(
    head: bytes,
    seq: int,
    source: int,
    target: int,
    amount: int,
    grant_no: int,
    call_no: int,
    event_no: int,
    code: int,
    reverses_seq: int,
    at_s: int,
) -> bytes:
    """Compute the hash of a transfer that follows `head`: sha256 over the hash and ten integers."""
    content = _HASH_FORM % (
        seq, source, target, amount, grant_no, call_no, event_no, code, reverses_seq, at_s,
    )  # fmt: skip
    return sha256(head + content).digest()


CREDIT_ACCOUNTS = frozenset({Account.ALLOWANCE, Account.PROMOTIONAL, Account.PAID})

Row = tuple[int, int, int, int, int, int, int, int, int, int, bytes]
"""A transfer as it is stored: the fields of `Transfer`, which is one."""

Flow = tuple[int, int, int, int]
"""Source, target, grant and credit event: transfers that agree in these add up."""


class Replay(NamedTuple):
    """What the transfers of one practice say."""

    last_seq: int
    head: bytes
    grants: dict[int, int]
    """Credit left per grant number (free and held together)."""
    accounts: dict[int, int]
    """Balance per account; they sum to zero."""
    granted: dict[int, tuple[int, int]]
    """Per grant its credit account and all that was put into it from outside."""
    moved: dict[int, int]
    """Per credit event the credit that it gave, less what it took away."""
    problems: list[str]


SOURCES = frozenset({Account.INCLUDED, Account.GIFTED, Account.PURCHASED, Account.ADJUSTED})
_GIVING = frozenset({Account.GIFTED, Account.PURCHASED, Account.ADJUSTED, Account.CLAWED_BACK})
_TAKING = frozenset({Account.ADJUSTED, Account.CLAWED_BACK})


def replay(practice_id: str, transfers: Iterable[Row]) -> Replay:
    """Recompute balances and chain from nothing but the transfers, in order of `seq`.

    A problem is named with the sequence number at which it shows; the chain is then taken up again
    from the stored hash, so that one edit is reported where it is and not everywhere after.
    """
    head = genesis(practice_id)
    last_seq = 0
    flows: dict[Flow, int] = {}
    problems: list[str] = []
    for transfer in transfers:
        seq, source, target, amount, grant_no, _, event_no, _, _, _, stored = transfer
        if seq != last_seq + 1:
            problems.append(f"transfer {last_seq + 1} is missing: {seq} follows {last_seq}")
        # As `link` does it; a call of its own for each of millions would be a tenth of the time.
        if sha256(head + _HASH_FORM % transfer[:10]).digest() != stored:
            problems.append(f"transfer {seq} was altered: its hash does not follow from {seq - 1}")
        if amount <= 0 or source == target:
            problems.append(f"transfer {seq} moves nothing or in a circle")
        flow = (source, target, grant_no, event_no)
        flows[flow] = flows.get(flow, 0) + amount
        head, last_seq = stored, seq
    return Replay(last_seq, head, *_balances(flows), _moved(flows), problems)


def _balances(
    flows: dict[Flow, int],
) -> tuple[dict[int, int], dict[int, int], dict[int, tuple[int, int]]]:
    """Add up what flowed from account to account, grant by grant: grants, accounts, granted."""
    grants: dict[int, int] = {}
    accounts: dict[int, int] = {}
    granted: dict[int, tuple[int, int]] = {}
    for (source, target, grant_no, _), amount in flows.items():
        accounts[source] = accounts.get(source, 0) - amount
        accounts[target] = accounts.get(target, 0) + amount
        if grant_no:
            if source in SOURCES:
                kind, before = granted.get(grant_no, (target, 0))
                granted[grant_no] = (kind, before + amount)
            change = amount if target in CREDIT_ACCOUNTS else -amount
            grants[grant_no] = grants.get(grant_no, 0) + change
    return grants, accounts, granted


def _moved(flows: dict[Flow, int]) -> dict[int, int]:
    moved: dict[int, int] = {}
    for (source, target, _, event_no), amount in flows.items():
        if event_no:
            change = amount if source in _GIVING else -amount if target in _TAKING else 0
            moved[event_no] = moved.get(event_no, 0) + change
    return moved
