"""How much of a payment can go back without anybody owing anything afterwards.

Law: the answer is what the command that would book it does, tried on the state as it is; so the two
can't drift apart. Pure.
"""

from __future__ import annotations

from guthaben.domain.apply_payments import net_payment
from guthaben.domain.commands import NetPayment
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent


def most_without_debt(practice: Practice, event: CreditEvent, most_rappen: int, now_s: int) -> int:
    """Find the largest refund, up to `most_rappen`, that unspent credit covers."""
    low, high = 0, max(most_rappen, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if _makes_debt(practice, event, middle, now_s):
            high = middle - 1
        else:
            low = middle
    return low


def _makes_debt(practice: Practice, event: CreditEvent, rappen: int, now_s: int) -> bool:
    command = NetPayment(event.event_no, event.net_minor - rappen)
    after = net_payment(practice, event, command, now_s).practice
    return after.debt_nano_usd > practice.debt_nano_usd
