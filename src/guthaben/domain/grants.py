"""Grants: lots of credit, and the order in which they burn down.

Law: the allowance of the call's own period first, then promotional, then paid credit; inside a kind
the earliest expiry, then the oldest grant. Nothing here moves money; `apply` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

NEVER_S = 1 << 62
"""An expiry that does not come; sorts after every real one."""


class Kind(IntEnum):
    """Kinds of credit in burn-down order; the numbers are stored."""

    ALLOWANCE = 1
    PROMOTIONAL = 2
    PAID = 3


ALLOWANCE, PROMOTIONAL, PAID = (int(kind) for kind in Kind)


class Grant(NamedTuple):
    """One lot of credit: `free_nano_usd` may be reserved, `held_nano_usd` is pinned by calls."""

    grant_no: int
    kind: int
    free_nano_usd: int
    held_nano_usd: int
    granted_nano_usd: int
    expires_at_s: int = NEVER_S
    license: str = ""
    period_start_s: int = 0
    period_end_s: int = 0
    provisional: bool = False
    period_used_nano_usd: int = 0
    """Allowance only: all usage of its period, also what other credit paid."""
    event_no: int = 0
    created_at_s: int = 0
    former_starts: tuple[int, ...] = ()
    """Allowance only: beginnings its period had before the real bounds were told."""

    def with_amounts(self, free_nano_usd: int, held_nano_usd: int) -> Grant:
        """Give the same grant with other amounts; `_replace` takes three times as long."""
        return Grant._make((*self[:2], free_nano_usd, held_nano_usd, *self[4:]))

    def serves(self, license: str, period_start_s: int) -> bool:
        """Tell whether it is the allowance of the period that begins, or once began, then."""
        return self.license == license and (
            self.period_start_s == period_start_s or period_start_s in self.former_starts
        )


class Slice(NamedTuple):
    """A part of one grant, pinned or charged by a call."""

    grant_no: int
    amount_nano_usd: int


def burn_down(grants: Iterable[Grant], now_s: int, allowance_no: int = 0) -> list[Grant]:
    """Give the grants with free credit that may be used now, in burn-down order.

    Of the allowances only the one with the given number may (0: none).
    """
    usable = [
        grant
        for grant in grants
        if grant.free_nano_usd > 0
        and (
            grant.grant_no == allowance_no
            if grant.kind == ALLOWANCE
            else grant.expires_at_s > now_s
        )
    ]
    if len(usable) > 1:
        usable.sort(key=_order)
    return usable


def _order(grant: Grant) -> tuple[int, int, int]:
    return grant.kind, grant.expires_at_s, grant.grant_no


def take(usable: list[Grant], amount_nano_usd: int) -> tuple[list[Slice], int]:
    """Cut slices off grants in the given order; tell what could not be had."""
    slices: list[Slice] = []
    missing = amount_nano_usd
    for grant in usable:
        if missing == 0:
            break
        part = min(grant.free_nano_usd, missing)
        slices.append(Slice(grant.grant_no, part))
        missing -= part
    return slices, missing
