"""Plans: what the price with a lookup key includes per period, dated, set by an operator.

Law: a change never acts backwards on what was granted: it counts for periods that begin at its date
or later. A plan's first entry counts for every period. What was set is kept for ever.
"""

from __future__ import annotations

from guthaben.domain.licences import Plans, PlanVersion
from guthaben.domain.money import MAX_COMMAND_NANO_USD, is_amount
from guthaben.errors import InvalidAmount, InvalidInput, Refused
from guthaben.services.checks import MAX_TEXT, checked_text
from guthaben.services.core import Core
from guthaben.services.licence_state import retell_all
from guthaben.store import plans as rows
from guthaben.store.workspace import Workspace

_LATEST_S = 1 << 40


class PlanBook:
    """Reads and sets what plans include."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def current(self) -> list[PlanVersion]:
        """List what counts for periods that begin now."""
        now_s = self._core.now_ms() // 1000
        return Plans(self._core.ask(rows.plan_versions)).current(now_s)

    def history(self) -> list[PlanVersion]:
        """List everything that was ever set, oldest first."""
        return self._core.ask(rows.plan_versions)

    def set(
        self,
        lookup_key: str,
        allowance_nano_usd: int,
        *,
        trial_nano_usd: int | None = None,
        from_s: int | None = None,
        author: str = "",
    ) -> PlanVersion:
        """Say what a plan includes in periods that begin at `from_s` (default: now) or later.

        The first entry of a plan counts for every period, unless a date is given. Licences that are
        sold under it hear of it at once. Saying the same again changes nothing.
        """
        _key(lookup_key)
        for amount in (allowance_nano_usd, 0 if trial_nano_usd is None else trial_nano_usd):
            if not is_amount(amount, 0):
                raise InvalidAmount(f"an allowance must be from 0 to {MAX_COMMAND_NANO_USD}")
        if from_s is not None and not (type(from_s) is int and 0 <= from_s < _LATEST_S):
            raise InvalidInput("from_s must be an instant, in seconds since 1970", field="from_s")
        wanted = PlanVersion(
            0, lookup_key, from_s or 0, allowance_nano_usd, trial_nano_usd,
            author=checked_text("author", author, MAX_TEXT),
        )  # fmt: skip
        made = self._core.store.run(lambda space: _add(space, wanted, dated=from_s is not None))
        retell_all(self._core.store)
        return made

    def remove(self, lookup_key: str, *, author: str = "") -> None:
        """Let a price be no plan for periods that begin from now on; they keep what they had.

        Raises `Refused` (`plan_not_found`).
        """
        _key(lookup_key)
        checked_text("author", author, MAX_TEXT)
        self._core.store.run(lambda space: _remove(space, lookup_key, author))


def _key(lookup_key: str) -> None:
    checked_text("lookup_key", lookup_key, MAX_TEXT, empty=False)


def _add(space: Workspace, wanted: PlanVersion, *, dated: bool) -> PlanVersion:
    every = rows.plan_versions(space.cursor)
    known = [version for version in every if version.lookup_key == wanted.lookup_key]
    if not dated:
        wanted = wanted._replace(from_s=space.now_s if known else 0)
    same = Plans(known).version(wanted.lookup_key, wanted.from_s)
    if same is not None and not dated and _includes(same) == _includes(wanted):
        return same
    made = wanted._replace(plan_no=_next_no(every), at_s=space.now_s)
    rows.add_plan(space.cursor, made)
    return made


def _next_no(every: list[PlanVersion]) -> int:
    return every[-1].plan_no + 1 if every else 1


def _includes(version: PlanVersion) -> tuple[int, int | None]:
    return version.allowance_nano_usd, version.trial_nano_usd


def _remove(space: Workspace, lookup_key: str, author: str) -> None:
    every = rows.plan_versions(space.cursor)
    known = Plans(every).version(lookup_key, space.now_s)
    if known is None:
        raise Refused("There is no such plan.", reason="plan_not_found")
    gone = known._replace(
        plan_no=_next_no(every), from_s=space.now_s, removed=True, author=author, at_s=space.now_s
    )
    rows.add_plan(space.cursor, gone)
