"""What the commands of a batch speak of, where practices are spread over nodes.

Law: each practice is locked and read by statements of its own, which one node answers; locks come
first, in the order of numbers, so two servers never wait for each other in a circle. All questions
go in one round trip. A practice whose name is given and whose row is not there yet is waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from psycopg import errors

from guthaben.domain.caps import subjects_of
from guthaben.domain.commands import Command, Step
from guthaben.domain.grants import Grant
from guthaben.domain.practice import Practice
from guthaben.store import calls
from guthaben.store.loaded import Loaded
from guthaben.store.postgres_cache import ProvenCache
from guthaben.store.postgres_preload import (
    Wanted,
    find_numbers,
    note_absence,
    put_strangers,
    take_calls,
    take_caps,
    take_practices,
    take_steps,
    take_use,
    windows,
)
from guthaben.store.postgres_wire import Answer, Wire

_PRACTICE = ", ".join(Practice._fields[:-1])
_GRANT = ", ".join(Grant._fields)
_STEP = ", ".join(Step._fields)
LOCKED: Final = f"SELECT '', {_PRACTICE} FROM credit_practice WHERE practice_no = $1 FOR UPDATE"
GRANTS: Final = (
    f"SELECT practice_no, {_GRANT} FROM credit_grant WHERE practice_no = $1 AND (is_open = 1"
    " OR (kind = 1 AND (period_end_s > $2 OR held_nano_usd > 0 OR provisional = 1"
    " OR former_starts <> '')))"
)
CAPS: Final = (
    "SELECT practice_no, subject, day_nano_usd, month_nano_usd, per_minute, at_once"
    " FROM credit_cap WHERE practice_no = $1"
)
CAP_USE: Final = (
    'SELECT practice_no, subject, "window", used_nano_usd FROM credit_cap_counter'
    ' WHERE practice_no = $1 AND subject = ANY($2) AND "window" = ANY($3)'
)
BY_KEY: Final = (
    f"SELECT practice_no, {calls.SELECTED} FROM credit_call"
    " WHERE practice_no = $1 AND operation = $2 AND key = ANY($3)"
)
BY_NO: Final = (
    f"SELECT practice_no, {calls.SELECTED} FROM credit_call"
    " WHERE practice_no = $1 AND call_no = ANY($2)"
)
STEPS: Final = (
    f"SELECT practice_no, {_STEP} FROM credit_cycles_step"
    " WHERE practice_no = $1 AND kind = $2 AND key = ANY($3)"
)
ARCHIVED_BY_KEY: Final = (
    f"SELECT practice_no, {', '.join(calls.ARCHIVED)} FROM credit_archived_call"
    " WHERE practice_no = $1 AND operation = $2 AND key = ANY($3)"
)
HAS_ARCHIVED: Final = "SELECT 1 FROM credit_archive LIMIT 1"
KNOCK: Final = "INSERT INTO credit_practice (practice_no, practice_id, head) VALUES ($1, $2, $3)"
HOT: Final = (LOCKED, GRANTS, CAPS, CAP_USE, BY_KEY, BY_NO, STEPS, ARCHIVED_BY_KEY)
"""Every question that a batch asks of a spread table."""


class _Questions:
    """Statements that wait for their round trip, by kind."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._places: dict[str, list[int]] = defaultdict(list)
        self._answers: list[Answer] = []

    def ask(self, sql: str, *values: Any) -> None:
        self._places[sql].append(self._wire.send(sql, values))

    def flush(self) -> None:
        self._answers = self._wire.flush()

    def rows(self, sql: str) -> list[Any]:
        return [row for place in self._places[sql] for row in self._answers[place].rows()]


def preload(
    wire: Wire,
    loaded: Loaded,
    cache: ProvenCache,
    asked: Sequence[tuple[str, Command]],
    now_s: int,
) -> None:
    """Lock and read the states of the commands asked for."""
    wanted = Wanted(asked)
    find_numbers(wire, cache, wanted.names)
    put_strangers(loaded, cache, wanted.names, now_s)
    no = {name: cache.numbers[name] for name in wanted.names if name in cache.numbers}
    if not no:
        return
    questions = _Questions(wire)
    for number in sorted(no.values()):
        questions.ask(LOCKED, number)
    _ask(questions, wanted, no, now_s)
    questions.flush()
    names = take_practices(loaded, cache, questions.rows(LOCKED), questions.rows(GRANTS), now_s)
    if len(names) < len(no):
        wait_for(wire, cache, {name: n for name, n in no.items() if n not in names})
    take_calls(loaded, names, questions.rows(BY_KEY))
    take_calls(loaded, names, questions.rows(BY_NO))
    _take_caps(wire, loaded, cache, no, wanted)
    take_use(loaded, wanted, no, questions.rows(CAP_USE), now_s)
    take_steps(loaded, names, questions.rows(STEPS))
    if wanted.keys:
        cache.has_archived = bool(questions.rows(HAS_ARCHIVED))
    if cache.has_archived:
        _take_archived(wire, loaded, names, no, wanted)
    note_absence(loaded, wanted)


def _take_caps(
    wire: Wire, loaded: Loaded, cache: ProvenCache, no: dict[str, int], wanted: Wanted
) -> None:
    """Read the caps of those practices of whose calls one counts for a key or a device."""
    counted = {name for name, _subject in wanted.subjects}
    counted |= {place[0] for place, call in loaded.calls.items() if subjects_of(call.origin)}
    questions = _Questions(wire)
    for name in sorted(counted & no.keys()):
        questions.ask(CAPS, no[name])
    questions.flush()
    take_caps(cache, {no[name]: name for name in counted & no.keys()}, questions.rows(CAPS))


def _take_archived(
    wire: Wire, loaded: Loaded, names: dict[int, str], no: dict[str, int], wanted: Wanted
) -> None:
    """Look keys that made no call here up among the archived ones."""
    missing = [key for key in wanted.keys if key not in loaded.call_keys and key[0] in no]
    questions = _Questions(wire)
    for (name, operation), keys in _grouped(missing).items():
        questions.ask(ARCHIVED_BY_KEY, no[name], operation, keys)
    questions.flush()
    for number, *row in questions.rows(ARCHIVED_BY_KEY):
        name, call = names[number], calls.archived_from_row(tuple(row))
        loaded.calls[name, call.call_no] = call
        loaded.call_keys[name, call.operation, call.key] = call.call_no


def _ask(questions: _Questions, wanted: Wanted, no: dict[str, int], now_s: int) -> None:
    for number in sorted(no.values()):
        questions.ask(GRANTS, number, now_s)
    for (name, operation), keys in _grouped(wanted.keys).items():
        if name in no:
            questions.ask(BY_KEY, no[name], operation, keys)
    if wanted.keys:
        questions.ask(HAS_ARCHIVED)
    for (name,), numbers in _grouped(wanted.calls).items():
        if name in no:
            questions.ask(BY_NO, no[name], numbers)
    for (name, kind), keys in _grouped(wanted.steps).items():
        if name in no:
            questions.ask(STEPS, no[name], kind, keys)
    for (name,), subjects in _grouped(sorted(wanted.subjects)).items():
        if name in no:
            questions.ask(CAP_USE, no[name], subjects, windows(now_s))


def _grouped(places: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], list[Any]]:
    """Gather the last part of places that begin alike."""
    found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for *beginning, last in places:
        found[tuple(beginning)].append(last)
    return found


def wait_for(wire: Wire, cache: ProvenCache, missing: dict[str, int]) -> NoReturn:
    """Wait for whoever is making these practices, then let the work be done again.

    Their names are given where the coordinator committed; their rows come a moment later, where a
    node does. Its unique key lets us wait, as long as for a lock; what we add is undone.
    """
    for name in missing:
        cache.numbers.pop(name, None)
    for name, number in missing.items():
        wire.send(KNOCK, (number, name, bytes(32)))
    wire.flush()
    raise errors.SerializationFailure(f"{len(missing)} practices are only being made")
