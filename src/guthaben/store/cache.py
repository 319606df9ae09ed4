"""States left by committed transactions of one connection.

Law: they are used only while the database itself proves that nobody else has written since; to
forget is always safe. What is kept is bounded.
"""

from __future__ import annotations

from guthaben.domain.calls import RESERVED, Call
from guthaben.domain.grants import ALLOWANCE
from guthaben.domain.practice import Practice
from guthaben.store import practices

_MAX_CACHED = 20_000


class Cache:
    """Practices and open calls, and the allowances that are known not to exist."""

    def __init__(self) -> None:
        self.practices: dict[str, Practice] = {}
        self.calls: dict[tuple[str, int], Call] = {}
        self.no_allowance: set[tuple[str, str, int]] = set()

    def clear(self) -> None:
        """Forget everything."""
        self.practices.clear()
        self.calls.clear()
        self.no_allowance.clear()

    def keep(
        self, changed: dict[str, Practice], calls: dict[tuple[str, int], Call], now_s: int
    ) -> None:
        """Take over the states of a transaction that was committed."""
        for practice_id, practice in changed.items():
            if practice.practice_no:
                self.practices[practice_id] = _slim(practice, now_s)
        for place, call in calls.items():
            if call.status == RESERVED:
                self.calls[place] = call
            else:
                self.calls.pop(place, None)
        if max(len(self.practices), len(self.calls), len(self.no_allowance)) > _MAX_CACHED:
            self.clear()


def _slim(practice: Practice, now_s: int) -> Practice:
    """Drop grants that no later command needs unless it names them."""
    spent = [no for no, grant in practice.grants.items() if practices.is_spent(grant)]
    old = [
        no
        for no, grant in practice.grants.items()
        if grant.kind == ALLOWANCE and grant.held_nano_usd == 0 and grant.period_end_s <= now_s
    ]
    if not spent and not old:
        return practice
    kept = {no: g for no, g in practice.grants.items() if no not in spent and no not in old}
    return practice._replace(grants=kept)
