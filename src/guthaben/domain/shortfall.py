"""Shortfall: how much credit a refused call lacked, so that a charge can bring it.

Law: only what credit would have prevented counts; what is bought repays debt first, so debt belongs
to what was missing.
"""

from __future__ import annotations

from typing import Final

from guthaben.domain.commands import Command, LeaseCommit, Outcome, RecordUsage, Reserve
from guthaben.domain.practice import Practice

LACK_OF_CREDIT: Final = frozenset(
    {"insufficient_credit", "debt_outstanding", "over_limit", "overdraft_limit"}
)
"""The reasons of a refused call that credit would have prevented."""


def shortfall_nano_usd(practice: Practice, command: Command, outcome: Outcome) -> int:
    """Tell how much credit a refused call lacked; 0 where none did, or the caller asks again."""
    if outcome.ok or outcome.reason not in LACK_OF_CREDIT:
        return 0
    if isinstance(command, Reserve):
        # What remains for a lease is told less the debt already.
        owed = 0 if command.overage_policy else practice.debt_nano_usd
        missing = command.amount_nano_usd - outcome.available_nano_usd + owed
        return 0 if command.is_tentative else max(1, missing)
    if isinstance(command, RecordUsage):
        return max(1, command.cost_nano_usd - outcome.available_nano_usd)
    return int(isinstance(command, LeaseCommit))
