"""Low credit: practices are told when a fifth, a twentieth and nothing is left.

Law: nothing is added to the gate: a background job looks at the practices that had a transfer since
its last look. A threshold is told once per crossing; only new credit or a new period lets it be
told again. Of several thresholds that were passed at once, the lowest is told.
"""

from __future__ import annotations

from typing import Final

from guthaben.services.jobs import Turn
from guthaben.services.notices import Fact, Notice, tell
from guthaben.store import low_watch
from guthaben.store.connection import Cursor
from guthaben.store.low_watch import Level, Standing, Touched
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

FULL: Final = 100
_THRESHOLDS: Final = ((0, Notice.EMPTY), (5, Notice.LOW_BALANCE_5), (20, Notice.LOW_BALANCE_20))
_PAGE: Final = 500


class LowBalanceWatch:
    """Looks again and again; remembers in memory what it has seen, and forgets without harm."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[int, int] = {}

    def look(self, turn: Turn) -> int:
        """Look at what changed and tell who is low; tell how many practices were looked at."""
        after_no, looked = 0, 0
        while turn.may_go_on() and (page := self._page(after_no)):
            changed = [touched for touched, _ in page if self._seen.get(touched[0]) != touched[2]]
            for touched, standing in page:
                if standing is not None:
                    self._look_at(turn, touched, standing)
            self._seen |= {touched.practice_no: touched.last_seq for touched in changed}
            looked += len(changed)
            after_no = page[-1][0].practice_no
        return looked

    def _page(self, after_no: int) -> list[tuple[Touched, Standing | None]]:
        """Read practices, and of those that changed what they have left, all of one moment."""
        now_s = self._store.clock_ms() // 1000

        def read(cursor: Cursor) -> list[tuple[Touched, Standing | None]]:
            return [
                (
                    touched,
                    None
                    if self._seen.get(touched.practice_no) == touched.last_seq
                    else low_watch.standing(cursor, touched, now_s),
                )
                for touched in low_watch.page(cursor, after_no, _PAGE)
            ]

        return self._store.read(read)

    def _look_at(self, turn: Turn, touched: Touched, standing: Standing) -> None:
        number = touched.practice_no
        known = self._store.read(lambda cur: low_watch.load_level(cur, number))
        level, notice = judge(known, standing)
        if level != known:
            turn.run(lambda space: _note(space, touched, standing, level, notice))


def judge(known: Level | None, standing: Standing) -> tuple[Level, Notice | None]:
    """Tell how low a practice now counts as told, and what there is to tell."""
    basis = standing.basis
    crossings = known.crossings if known is not None else 0
    now, notice = bucket(standing)
    before = known.level if known is not None else FULL
    if known is not None and known.basis != basis:
        before = max(before, now)  # credit came or the period changed: what it rose above is armed
    if now < before:
        return Level(now, basis, crossings + 1), notice
    return Level(before, basis, crossings), None


def bucket(standing: Standing) -> tuple[int, Notice | None]:
    """Tell the lowest threshold that is reached, in whole per cents rounded down."""
    if standing.of_nano_usd <= 0:
        return FULL, None
    percent = max(0, standing.remaining_nano_usd) * 100 // standing.of_nano_usd
    for threshold, notice in _THRESHOLDS:
        if percent < threshold or (threshold == 0 and percent == 0):
            return threshold, notice
    return FULL, None


def _note(
    space: Workspace, touched: Touched, standing: Standing, level: Level, notice: Notice | None
) -> None:
    low_watch.save_level(space.cursor, touched.practice_no, level)
    if notice is None:
        return
    facts: dict[str, Fact] = {"debt_nano_usd": standing.debt_nano_usd}
    if notice is not Notice.EMPTY:
        facts = {
            "available_nano_usd": standing.remaining_nano_usd,
            "of_nano_usd": standing.of_nano_usd,
        }
    tell(space, touched.practice_id, notice, f"crossing:{level.crossings}", facts)
