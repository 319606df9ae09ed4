"""Low credit: practices are told when a fifth, a twentieth and nothing is left.

Law: nothing is added to the gate: a background job looks at the practices that had a transfer since
its last look. A threshold is told once per crossing; only new credit or a new period lets it be
told again. Of several thresholds that were passed at once, the lowest is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from guthaben.services.jobs import Turn
from guthaben.services.notices import Fact, Notice, tell
from guthaben.store import low_watch
from guthaben.store.low_watch import Level, Standing, Touched
from guthaben.store.session import Cursor
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
        while turn.may_go_on():
            last_no, changed = self._store.read(self._page(after_no))
            if last_no == after_no:
                break
            after_no, looked = last_no, looked + len(changed)
            steps = [step for step in map(_step, changed) if step is not None]
            if steps:  # one transaction for many, and none for a page on which nobody crossed
                turn.run(partial(_note, steps=steps))
            self._seen |= {seen.touched.practice_no: seen.touched.last_seq for seen in changed}
        return looked

    def _page(self, after_no: int) -> Callable[[Cursor], tuple[int, list[_Seen]]]:
        """Read practices, and of those that changed what they have left, all of one moment."""
        now_s = self._store.now_s()

        def read(cursor: Cursor) -> tuple[int, list[_Seen]]:
            page = low_watch.page(cursor, after_no, _PAGE)
            changed = [
                _Seen(
                    touched,
                    low_watch.standing(cursor, touched, now_s),
                    low_watch.load_level(cursor, touched.practice_no),
                )
                for touched in page
                if self._seen.get(touched.practice_no) != touched.last_seq
            ]
            return (page[-1].practice_no if page else after_no), changed

        return read


class _Seen(NamedTuple):
    """A practice that changed, as it is now and as it was told."""

    touched: Touched
    standing: Standing
    known: Level | None


class _Step(NamedTuple):
    """What to write of a practice, and what to tell it."""

    touched: Touched
    standing: Standing
    level: Level
    notice: Notice | None


def _step(seen: _Seen) -> _Step | None:
    """Say what there is to write; for a practice that is and was well, nothing."""
    level, notice = judge(seen.known, seen.standing)
    was_well = seen.known is None or seen.known.level == FULL
    if level == seen.known or (was_well and level.level == FULL):
        return None
    return _Step(seen.touched, seen.standing, level, notice)


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


def _note(space: Workspace, steps: Sequence[_Step]) -> None:
    for touched, standing, level, notice in steps:
        low_watch.save_level(space.cursor, touched.practice_no, level)
        if notice is not None:
            key = f"crossing:{level.crossings}"
            tell(space, touched.practice_id, notice, key, _facts(notice, standing))


def _facts(notice: Notice, standing: Standing) -> dict[str, Fact]:
    if notice is Notice.EMPTY:
        return {"debt_nano_usd": standing.debt_nano_usd}
    return {
        "available_nano_usd": standing.remaining_nano_usd,
        "of_nano_usd": standing.of_nano_usd,
    }
