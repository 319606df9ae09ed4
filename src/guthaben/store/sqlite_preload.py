"""The keys of a batch, looked up together on SQLite.

Law: what is not found is remembered as not there; of commands that come alone each asks for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from guthaben.domain.commands import OPERATION_OF, Command
from guthaben.store import calls
from guthaben.store.loaded import Loaded

FEW: Final = 4
_MOST: Final = 64
_NOBODY: Final = (0, 0, "")


def preload_keys(loaded: Loaded, asked: Iterable[tuple[str, Command]]) -> None:
    """Read the calls that the commands' keys have made already, if any."""
    names: dict[tuple[int, int, str], str] = {}
    for practice_id, command in asked:
        operation = OPERATION_OF.get(type(command))
        if operation is not None:
            practice = loaded.practice(practice_id)
            if practice.practice_no:
                key = command.key  # type: ignore[union-attr]
                names[practice.practice_no, operation, key] = practice_id
    places = list(names)
    for start in range(0, len(places), _MOST):
        _look_up(loaded, places[start : start + _MOST], names)


def _look_up(
    loaded: Loaded, places: Sequence[tuple[int, int, str]], names: dict[tuple[int, int, str], str]
) -> None:
    size = 1 << (len(places) - 1).bit_length()
    padded = chain(places, (_NOBODY,) * (size - len(places)))
    rows = loaded.cursor.execute(_statement(size), tuple(chain.from_iterable(padded))).fetchall()
    for practice_no, *row in rows:
        call = calls.from_row(tuple(row))
        practice_id = names[practice_no, call.operation, call.key]
        loaded.calls.setdefault((practice_id, call.call_no), call)
        loaded.call_keys[practice_id, call.operation, call.key] = call.call_no
    for place in places:
        found = (names[place], place[1], place[2])
        if found not in loaded.call_keys and not (
            loaded.has_archived() and calls.load_archived_by_key(loaded.cursor, *place)
        ):
            loaded.absent_keys.add(found)


@lru_cache
def _statement(size: int) -> str:
    """Ask for so many keys; few sizes, so that SQLite's statements are prepared once."""
    return (
        f"SELECT practice_no, {calls.SELECTED} FROM (VALUES {', '.join(['(?, ?, ?)'] * size)})"
        # The order of a cross join is kept: first what is asked for, then one look for each.
        " CROSS JOIN credit_call INDEXED BY credit_call_key"
        " ON practice_no = column1 AND operation = column2 AND key = column3"
    )
