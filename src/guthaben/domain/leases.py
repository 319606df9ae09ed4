"""What the Cycles protocol asks of credit: who may begin a lease, and who pays what it used more.

A lease is a call with an overage policy. Law: a lease begins only where nothing is owed beyond what
the practice may owe, and only for what remains, which is what is available less the debt. What a
lease uses above its reservation is paid as its policy says, and nothing is lost: what the policy
does not charge is booked as the operator's loss.
"""

from __future__ import annotations

from guthaben.domain.calls import Overage
from guthaben.domain.draft import OVERRUN, USED, Draft, Refusal
from guthaben.domain.grants import Grant, take
from guthaben.domain.journal import Account
from guthaben.domain.money import NANO_PER_MICROCENT
from guthaben.domain.practice import Practice

_REJECT, _WITH_OVERDRAFT = int(Overage.REJECT), int(Overage.WITH_OVERDRAFT)
_LOSS = int(Account.OPERATOR_LOSS)


def is_over_limit(limit_nano_usd: int, debt_nano_usd: int, marked: bool) -> bool:
    """Tell whether no lease may begin because too much was used."""
    return marked or 0 < limit_nano_usd < debt_nano_usd


def practice_over_limit(practice: Practice) -> bool:
    """Tell whether a practice's debt is above its limit, or a lease used more than there was."""
    limit, debt = practice.overdraft_limit_nano_usd, practice.debt_nano_usd
    return is_over_limit(limit, debt, practice.over_limit)


def remaining(draft: Draft, allowance: Grant | None) -> int:
    """Tell what remains for leases of this allowance's period; below 0 while more is owed."""
    return sum(grant.free_nano_usd for grant in draft.usable(allowance)) - draft.debt


def denial(draft: Draft, allowance: Grant | None, amount: int) -> tuple[str, int]:
    """Say why a lease of this amount may not begin ("" if it may), and what remains."""
    left = remaining(draft, allowance)
    limit = draft.practice.overdraft_limit_nano_usd
    if is_over_limit(limit, draft.debt, draft.over_limit):
        return "over_limit", left
    if draft.debt and not limit:
        return "debt_outstanding", left
    if left < amount:
        return "insufficient_credit", left
    return "", left


def cover(draft: Draft, allowance: Grant | None, amount: int, policy: int, code: int) -> int:
    """Charge what no reservation covered; tell how much of it is left to the operator."""
    room = max(0, remaining(draft, allowance))
    if amount <= room:
        _pay(draft, allowance, amount, code)
        return 0
    if policy == _REJECT:
        raise Refusal("insufficient_credit", room)
    limit = draft.practice.overdraft_limit_nano_usd
    if policy == _WITH_OVERDRAFT and limit:
        if draft.debt + amount > limit:
            raise Refusal("overdraft_limit", room)
        missing = _pay(draft, allowance, amount, code)
        if missing:
            draft.owe(missing, USED, OVERRUN)
        return 0
    charged = room - room % NANO_PER_MICROCENT
    _pay(draft, allowance, charged, code)
    draft.move(_LOSS, USED, amount - charged, 0, OVERRUN)
    draft.over_limit = True
    return amount - charged


def _pay(draft: Draft, allowance: Grant | None, amount: int, code: int) -> int:
    slices, missing = take(draft.usable(allowance), amount)
    draft.spend(slices, USED, code)
    return missing
