"""Rows of practices and grants.

Law: what is loaded for a practice is bounded: its open bought and given credit, and the allowances
of the periods that the commands at hand speak of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from guthaben import config
from guthaben.domain.grants import ALLOWANCE, Grant
from guthaben.domain.journal import genesis
from guthaben.domain.practice import Practice
from guthaben.store.session import LOCK, NUMBER, NUMBER_OF, Cursor

_PRACTICE_COLUMNS = Practice._fields[:-1]
_PRACTICE = ", ".join(_PRACTICE_COLUMNS)
_GRANT = ", ".join(Grant._fields)

OPEN_GRANTS = "credit_grant INDEXED BY credit_grant_open"
"""SQLite would rather walk the primary key: all grants a practice ever had."""

_SELECT_PRACTICE = f"SELECT {_PRACTICE} FROM credit_practice WHERE practice_no = {NUMBER_OF} {LOCK}"
_SELECT_OPEN_GRANTS = f"SELECT {_GRANT} FROM {OPEN_GRANTS} WHERE practice_no = ? AND is_open = 1"
_SELECT_ALLOWANCE = (
    f"SELECT {_GRANT} FROM credit_grant"
    " WHERE practice_no = ? AND kind = 1 AND license = ? AND period_start_s = ?"
)
_SELECT_MOVABLE = (
    f"SELECT {_GRANT} FROM credit_grant WHERE practice_no = ? AND kind = 1 AND license = ?"
    " AND (provisional = 1 OR former_starts <> '')"
)
_SELECT_GRANT = f"SELECT {_GRANT} FROM credit_grant WHERE practice_no = ? AND grant_no = ?"
_INSERT_PRACTICE = (
    f"INSERT INTO credit_practice ({', '.join(_PRACTICE_COLUMNS[1:])})"
    f" VALUES ({', '.join('?' * (len(_PRACTICE_COLUMNS) - 1))}) RETURNING practice_no"
)
_UPDATE_PRACTICE = (
    "UPDATE credit_practice SET "
    + ", ".join(f"{name} = ?" for name in _PRACTICE_COLUMNS[2:])
    + " WHERE practice_no = ?"
)
_FLAGS = tuple(
    at
    for at, name in enumerate(_PRACTICE_COLUMNS)
    if isinstance(Practice._field_defaults.get(name), bool)
)
_PROVISIONAL = Grant._fields.index("provisional")
_HOT = Practice._fields[2 : Practice._fields.index("status")]
_N_HOT = 2 + len(_HOT)
_GRANTED, _USED = map(Grant._fields.index, ("granted_nano_usd", "period_used_nano_usd"))
_UPDATE_COUNTERS = (
    f"UPDATE credit_practice SET {', '.join(f'{name} = ?' for name in _HOT)} WHERE practice_no = ?"
)
_UPSERT_GRANT = (
    f"INSERT INTO credit_grant (practice_no, is_open, {_GRANT})"
    f" VALUES ({', '.join('?' * (len(Grant._fields) + 2))})"
    " ON CONFLICT (practice_no, grant_no) DO UPDATE SET is_open = excluded.is_open, "
    + ", ".join(f"{name} = excluded.{name}" for name in Grant._fields[2:])
)
_UPDATE_GRANT = (
    "UPDATE credit_grant SET free_nano_usd = ?, held_nano_usd = ?, period_used_nano_usd = ?"
    " WHERE practice_no = ? AND grant_no = ?"
)


def grant_from_row(row: tuple[Any, ...]) -> Grant:
    """Make a grant of the columns named like its fields."""
    former = row[-1]
    values = [*row[:-1], tuple(map(int, former.split(","))) if former else ()]
    values[_PROVISIONAL] = bool(values[_PROVISIONAL])
    return Grant._make(values)


def practice_from_row(row: Sequence[Any], grants: dict[int, Grant]) -> Practice:
    """Make a practice of the columns named like its fields, and of its grants by number."""
    values = [*row, grants]
    for at in _FLAGS:
        values[at] = bool(values[at])
    return Practice._make(values)


def stranger(practice_id: str) -> Practice:
    """Give the state of a practice nobody has stored yet: it has nothing and owes nothing."""
    return Practice(0, practice_id, genesis(practice_id), time_zone=config.time_zone())


def number_of(cursor: Cursor, practice_id: str) -> int | None:
    """Tell the internal number of a practice, if anybody has stored it."""
    row = cursor.execute(NUMBER, (practice_id,)).fetchone()
    return int(row[0]) if row else None


def in_order(cursor: Cursor, names: Iterable[str]) -> list[str]:
    """Put practices into the order in which everybody locks them; those nobody stored come last."""
    every = sorted(set(names))
    if len(every) < 2:
        return every
    found = {name: number_of(cursor, name) for name in every}
    return sorted(every, key=lambda name: (found[name] is None, found[name] or 0))


def load_practice(cursor: Cursor, practice_id: str) -> Practice | None:
    """Read a practice with its open promotional and paid grants, without allowances."""
    row = cursor.execute(_SELECT_PRACTICE, (practice_id,)).fetchone()
    if row is None:
        return None
    grants = cursor.execute(_SELECT_OPEN_GRANTS, (row[0],)).fetchall()
    return practice_from_row(row, {row[0]: grant_from_row(row) for row in grants})


def load_allowance(
    cursor: Cursor, practice_no: int, licence: str, period_start_s: int
) -> Grant | None:
    """Read the allowance of one period."""
    row = cursor.execute(_SELECT_ALLOWANCE, (practice_no, licence, period_start_s)).fetchone()
    return grant_from_row(row) if row else None


def load_movable(cursor: Cursor, practice_no: int, licence: str) -> list[Grant]:
    """Read the allowances whose bounds nobody has confirmed, or which once had other bounds."""
    rows = cursor.execute(_SELECT_MOVABLE, (practice_no, licence)).fetchall()
    return [grant_from_row(row) for row in rows]


def load_grants(cursor: Cursor, practice_no: int, numbers: Iterable[int]) -> list[Grant]:
    """Read single grants by number, also exhausted ones."""
    found = (cursor.execute(_SELECT_GRANT, (practice_no, no)).fetchone() for no in numbers)
    return [grant_from_row(row) for row in found if row]


def insert_practice(cursor: Cursor, practice: Practice) -> int:
    """Store a new practice; tell its internal number."""
    (practice_no,) = cursor.execute(_INSERT_PRACTICE, practice[1:-1]).fetchone()
    cursor.execute(
        "INSERT INTO credit_practice_name (practice_id, practice_no) VALUES (?, ?)",
        (practice.practice_id, practice_no),
    )
    return int(practice_no)


def update_practices(cursor: Cursor, practices: Iterable[Practice]) -> None:
    """Store the states of known practices."""
    cursor.executemany(_UPDATE_PRACTICE, [(*p[2:-1], p[0]) for p in practices])


def update_counters(cursor: Cursor, practices: Iterable[Practice]) -> None:
    """Store what calls change of known practices: head and counters, none of the settings."""
    cursor.executemany(_UPDATE_COUNTERS, [(*p[2:_N_HOT], p[0]) for p in practices])


def differs_in_counters_only(before: Practice | None, after: Practice) -> bool:
    """Tell whether `update_counters` is enough."""
    return before is not None and before[_N_HOT:-1] == after[_N_HOT:-1]


def upsert_grants(cursor: Cursor, rows: Iterable[tuple[int, Grant]]) -> None:
    """Store grants, new or changed in any way, given with their practice's number."""
    cursor.executemany(
        _UPSERT_GRANT,
        [
            (practice_no, _is_open(grant), *grant[:-1], ",".join(map(str, grant.former_starts)))
            for practice_no, grant in rows
        ],
    )


def update_grants(cursor: Cursor, rows: Iterable[tuple[int, Grant]]) -> None:
    """Store what using credit changed: amounts only, so that no index is touched."""
    cursor.executemany(
        _UPDATE_GRANT,
        [
            (g.free_nano_usd, g.held_nano_usd, g.period_used_nano_usd, practice_no, g.grant_no)
            for practice_no, g in rows
        ],
    )


def differs_in_amounts_only(before: Grant | None, after: Grant) -> bool:
    """Tell whether `update_grants` is enough."""
    return (
        before is not None
        and before[_GRANTED:_USED] == after[_GRANTED:_USED]
        and before.former_starts == after.former_starts
        and (after.kind == ALLOWANCE or _has_credit(before) == _has_credit(after))
    )


def _is_open(grant: Grant) -> bool:
    return grant.kind != ALLOWANCE and _has_credit(grant)


def _has_credit(grant: Grant) -> bool:
    return grant.free_nano_usd + grant.held_nano_usd > 0


def is_spent(grant: Grant) -> bool:
    """Tell whether a grant no longer matters to commands that don't name it."""
    return grant.kind != ALLOWANCE and not _has_credit(grant)
