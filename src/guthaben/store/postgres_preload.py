"""What the commands of a batch speak of, locked and read in one round trip.

Law: practices are locked in the order of their ids, before anything of them is read, so two
servers never wait for each other in a circle. What is not found is remembered as not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from guthaben.domain.calls import Operation
from guthaben.domain.commands import Command, Expire, Extend, RecordUsage, Release, Reserve, Settle
from guthaben.domain.grants import Grant
from guthaben.domain.practice import Practice
from guthaben.store import calls
from guthaben.store.loaded import Loaded
from guthaben.store.practices import grant_from_row

_PRACTICE = ", ".join(Practice._fields[:-1])
_GRANT = ", ".join(Grant._fields)
_CALL = ", ".join(f"c.{name}" for name in calls.COLUMNS)
_PRACTICES = (
    f"SELECT {_PRACTICE} FROM credit_practice WHERE practice_id = ANY(%s)"
    " ORDER BY practice_id FOR UPDATE"
)
_GRANTS = (
    f"SELECT practice_no, {_GRANT} FROM credit_grant WHERE practice_no IN"
    " (SELECT practice_no FROM credit_practice WHERE practice_id = ANY(%s)) AND (is_open = 1"
    " OR kind = 1 AND (period_end_s > %s OR held_nano_usd > 0 OR provisional = 1"
    " OR former_starts <> ''))"
)
_BY_KEY = (
    f"SELECT p.practice_id, {_CALL} FROM unnest(%s::text[], %s::int8[], %s::text[])"
    " AS k(practice_id, operation, key) JOIN credit_practice p USING (practice_id)"
    " JOIN credit_call c ON c.practice_no = p.practice_no AND c.operation = k.operation"
    " AND c.key = k.key"
)
_BY_NO = (
    f"SELECT p.practice_id, {_CALL} FROM unnest(%s::text[], %s::int8[]) AS k(practice_id, call_no)"
    " JOIN credit_practice p USING (practice_id)"
    " JOIN credit_call c ON c.practice_no = p.practice_no AND c.call_no = k.call_no"
)
_OPERATIONS = {Reserve: int(Operation.RESERVE), RecordUsage: int(Operation.USAGE)}
_ENDINGS = (Settle, Release, Extend, Expire)


def preload(
    con: psycopg.Connection[Any],
    loaded: Loaded,
    asked: Iterable[tuple[str, Command]],
    now_s: int,
) -> None:
    """Lock and read the states of the commands asked for."""
    names: set[str] = set()
    keys: list[tuple[str, int, str]] = []
    numbers: list[tuple[str, int]] = []
    for practice_id, command in asked:
        names.add(practice_id)
        if isinstance(command, Reserve | RecordUsage):
            keys.append((practice_id, _OPERATIONS[type(command)], command.key))
        elif isinstance(command, _ENDINGS):
            numbers.append((practice_id, command.call_no))
    ids = sorted(names)
    with con.pipeline():
        found = con.execute(_PRACTICES.encode(), (ids,))
        grants = con.execute(_GRANTS.encode(), (ids, now_s))
        by_key = con.execute(_BY_KEY.encode(), _columns(keys, 3)) if keys else None
        by_no = con.execute(_BY_NO.encode(), _columns(numbers, 2)) if numbers else None
    _take_practices(loaded, found.fetchall(), grants.fetchall(), now_s)
    if by_key is not None:
        _take_keys(loaded, by_key.fetchall(), keys)
    for practice_id, *row in by_no.fetchall() if by_no is not None else ():
        call = calls.from_row(tuple(row))
        loaded.calls[practice_id, call.call_no] = call


def _columns(rows: list[Any], width: int) -> tuple[list[Any], ...]:
    columns: tuple[list[Any], ...] = tuple(map(list, zip(*rows, strict=True)))
    assert len(columns) == width
    return columns


def _take_practices(loaded: Loaded, rows: list[Any], grant_rows: list[Any], now_s: int) -> None:
    grants: dict[int, dict[int, Grant]] = {}
    for practice_no, *row in grant_rows:
        grants.setdefault(practice_no, {})[row[0]] = grant_from_row(tuple(row))
    for row in rows:
        practice = Practice._make((*row, grants.get(row[0], {})))
        loaded.put(practice, complete_since_s=now_s)


def _take_keys(loaded: Loaded, rows: list[Any], keys: list[tuple[str, int, str]]) -> None:
    for practice_id, *row in rows:
        call = calls.from_row(tuple(row))
        loaded.calls[practice_id, call.call_no] = call
        loaded.call_keys[practice_id, call.operation, call.key] = call.call_no
    loaded.absent_keys.update(place for place in keys if place not in loaded.call_keys)
