"""States left by committed transactions of one connection.

Law: they are used only while the database itself proves that nobody else has written since; to
forget is always safe. What is kept is bounded.
"""

from __future__ import annotations

from guthaben.domain.auto_topup import AutoTopup
from guthaben.domain.calls import RESERVED, Call
from guthaben.domain.caps import Caps
from guthaben.domain.grants import ALLOWANCE, Grant
from guthaben.domain.practice import Practice
from guthaben.store import practices

_MAX_CACHED = 20_000


class Cache:
    """Practices and open calls, and the allowances that are known not to exist."""

    def __init__(self) -> None:
        self.practices: dict[str, Practice] = {}
        self.calls: dict[tuple[str, int], Call] = {}
        self.no_allowance: set[tuple[str, str, int]] = set()
        self.caps: dict[str, Caps] = {}
        self.triggers: dict[str, AutoTopup] = {}
        """When their credit counts as low."""
        self.written: set[str] = set()
        """Practices whose rows the transaction at hand wrote."""
        self.has_archived: bool | None = None
        """Whether calls were ever archived; None while nobody has looked."""

    def clear(self) -> None:
        """Forget everything."""
        self.practices.clear()
        self.calls.clear()
        self.no_allowance.clear()
        self.caps.clear()
        self.triggers.clear()
        self.written.clear()
        self.has_archived = None

    def keep(
        self, changed: dict[str, Practice], calls: dict[tuple[str, int], Call], now_s: int
    ) -> None:
        """Take over the states of a transaction that was committed."""
        for practice_id, practice in changed.items():
            if practice.practice_no:
                self.practices[practice_id] = slim(practice, now_s)
        for place, call in calls.items():
            if call.status == RESERVED:
                self.calls[place] = call
            else:
                self.calls.pop(place, None)
        self.written.clear()
        self._stay_within_bounds()

    def _stay_within_bounds(self) -> None:
        most = max(len(self.practices), len(self.calls), len(self.no_allowance), len(self.caps))
        if most > _MAX_CACHED:
            self.clear()


def slim(practice: Practice, now_s: int) -> Practice:
    """Drop grants that no later command needs unless it names them."""
    gone = [no for no, grant in practice.grants.items() if _is_gone(grant, now_s)]
    if not gone:
        return practice
    return practice._replace(
        grants={no: grant for no, grant in practice.grants.items() if no not in gone}
    )


def _is_gone(grant: Grant, now_s: int) -> bool:
    """Tell whether a grant is used up, or the allowance of a past period that nothing holds."""
    if grant.kind == ALLOWANCE:
        movable = grant.provisional or grant.former_starts
        return grant.period_end_s <= now_s and grant.held_nano_usd == 0 and not movable
    return practices.is_spent(grant)
