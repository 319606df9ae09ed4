"""What the commands of a batch speak of, locked and read in one round trip, or proven without any.

Law: practices are locked in the order of their numbers, before anything of them is read, so two
servers never wait for each other in a circle. What is not found is remembered as not there. Each
statement names the practice of every row it wants, so it touches those practices and no others,
and where it looks: a key in the registry, a step among the open calls, and only then elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from guthaben.domain.calls import NO_ORIGIN, Operation
from guthaben.domain.caps import Cap, subjects_of
from guthaben.domain.commands import (
    OPERATION_OF,
    STEP_OF,
    Command,
    Expire,
    Extend,
    LeaseAsk,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    RecordUsage,
    Release,
    Reserve,
    Settle,
    Step,
    StepKind,
)
from guthaben.domain.grants import Grant
from guthaben.domain.period import day_of
from guthaben.domain.practice import Practice
from guthaben.store import calls
from guthaben.store.loaded import Loaded
from guthaben.store.postgres_cache import ProvenCache
from guthaben.store.postgres_wire import Wire
from guthaben.store.practices import grant_from_row, practice_from_row, stranger

Key = tuple[str, int, str]

_PRACTICE = ", ".join(Practice._fields[:-1])
_GRANT = ", ".join(Grant._fields)
_CALL = ", ".join(f"c.{name}" for name in calls.COLUMNS)
_STEP = ", ".join(f"s.{name}" for name in Step._fields)
NUMBERS: Final = (
    "SELECT practice_id, practice_no FROM credit_practice_name WHERE practice_id = ANY($1)"
)
PRACTICES: Final = (
    f"SELECT xmin::text, {_PRACTICE} FROM credit_practice WHERE practice_no = ANY($1)"
    " ORDER BY practice_no FOR UPDATE"
)
GRANTS: Final = (
    f"SELECT practice_no, {_GRANT} FROM credit_grant WHERE practice_no = ANY($1) AND is_open = 1"
    f" UNION ALL SELECT practice_no, {_GRANT} FROM credit_grant WHERE practice_no = ANY($2)"
    " AND kind = 1 AND (period_end_s > $3 OR held_nano_usd > 0 OR provisional = 1"
    " OR former_starts <> '')"
)
CAPS: Final = (
    "SELECT practice_no, subject, day_nano_usd, month_nano_usd, per_minute, at_once"
    " FROM credit_cap WHERE practice_no = ANY($1)"
)
CAP_USE: Final = (
    'SELECT n.practice_no, n.subject, n."window", n.used_nano_usd FROM'
    " unnest($1::int8[], $2::text[]) AS k(practice_no, subject)"
    " JOIN credit_cap_counter n ON n.practice_no = k.practice_no AND n.subject = k.subject"
    ' AND n."window" = ANY($3)'
)
# A side query with a limit is asked once per row, by all that is known of it: a plan that was made
# while the tables were empty must not read a practice's whole history when they are full.
_REGISTERED = (
    "unnest($1::int8[], $2::int8[], $3::text[]) AS k(practice_no, operation, key)"
    " CROSS JOIN LATERAL (SELECT call_no, created_at_ms FROM credit_call_registry"
    " WHERE practice_no = k.practice_no AND key_hash = credit_key_hash(k.operation, k.key)"
    " LIMIT 1) AS r"
)
BY_KEY: Final = (
    f"SELECT k.practice_no, r.call_no, k.operation, k.key, {_CALL} FROM {_REGISTERED}"
    " LEFT JOIN LATERAL (SELECT * FROM credit_call WHERE practice_no = k.practice_no"
    " AND call_no = r.call_no AND created_at_ms = r.created_at_ms LIMIT 1) AS c ON true"
)
_BY_NO = (
    f"SELECT k.practice_no, {_CALL} FROM unnest($1::int8[], $2::int8[]) AS k(practice_no, call_no)"
    " CROSS JOIN LATERAL (SELECT * FROM credit_call WHERE practice_no = k.practice_no"
    " AND call_no = k.call_no AND {where} LIMIT 1) AS c"
)
# Says "open" so that the index of what is due is no candidate.
BY_NO: Final = _BY_NO.format(where="status < 2")
ENDED_BY_NO: Final = _BY_NO.format(where="status > 1")
STEPS: Final = (
    f"SELECT s.practice_no, {_STEP} FROM"
    " unnest($1::int8[], $2::int8[], $3::text[]) AS k(practice_no, kind, key)"
    " JOIN credit_cycles_step s ON s.practice_no = k.practice_no AND s.kind = k.kind"
    " AND s.key = k.key"
)
PROOF: Final = (
    "SELECT credit_unchanged(array_agg(version) = $1) FROM (SELECT xmin::text AS version"
    " FROM credit_practice WHERE practice_no = ANY($2) ORDER BY practice_no FOR UPDATE) AS here"
)
ABSENCE: Final = f"SELECT credit_unchanged(COUNT(*) = 0) FROM {_REGISTERED}"
_RESERVE: Final = int(Operation.RESERVE)
_DRY_RUN: Final = int(StepKind.DRY_RUN)
_ENDINGS: Final = (Settle, Release, Extend, Expire, LeaseCommit, LeaseRelease, LeaseExtend)
_DAY_S: Final = 86_400


class Wanted:
    """What a batch speaks of."""

    def __init__(self, asked: Sequence[tuple[str, Command]]) -> None:
        self.names = sorted({practice_id for practice_id, _command in asked})
        self.keys: list[Key] = []
        self.calls: list[tuple[str, int]] = []
        self.steps: list[Key] = []
        self.subjects: set[tuple[str, str]] = set()
        for practice_id, command in asked:
            self._add(practice_id, command)

    def _add(self, name: str, command: Command) -> None:
        if isinstance(command, Reserve | RecordUsage):
            self.keys.append((name, OPERATION_OF[type(command)], command.key))
            if isinstance(command, Reserve):
                if command.overage_policy:
                    self.steps.append((name, _DRY_RUN, command.key))
                self.subjects.update((name, subject) for subject in subjects_of(command.origin))
        elif isinstance(command, _ENDINGS):
            self.calls.append((name, command.call_no))
            if isinstance(command, LeaseCommit | LeaseRelease | LeaseExtend):
                self.steps.append((name, STEP_OF[type(command)], command.key))
        elif isinstance(command, LeaseAsk):
            self.steps.append((name, command.operation, command.key))
            self.subjects.update((name, subject) for subject in subjects_of(command.origin))
            if command.operation == _DRY_RUN:
                self.keys.append((name, _RESERVE, command.key))


# ---- without a question


def from_cache(
    loaded: Loaded, cache: ProvenCache, asked: Sequence[tuple[str, Command]]
) -> list[Key] | None:
    """Take the batch's states from the cache, if it has all; tell which keys are taken as new.

    The caller proves them before anything is written or told.
    """
    keys: list[Key] = []
    for name, command in asked:
        kind = type(command)
        if name not in cache.stamps:
            return None
        if isinstance(command, Reserve | RecordUsage):
            if command.overage_policy or (
                command.origin is not NO_ORIGIN and cache.caps.get(name) != {}
            ):
                return None
            keys.append((name, OPERATION_OF[kind], command.key))
        elif kind is Settle or kind is Release or kind is Extend:
            if (name, command.call_no) not in cache.calls:  # type: ignore[union-attr]
                return None
        else:
            return None
    for name, _command in asked:
        if name not in loaded.practices:
            loaded.put(cache.practices[name], complete_since_s=cache.complete_since_s[name])
    loaded.absent_keys.update(keys)
    return keys


def prove(wire: Wire, loaded: Loaded, cache: ProvenCache) -> None:
    """Lock the practices taken from the cache; a version that is another ends the transaction."""
    known = sorted((cache.numbers[name], cache.stamps[name]) for name in loaded.practices)
    numbers, stamps = [number for number, _ in known], [stamp for _, stamp in known]
    wire.send(PROOF, (stamps, numbers))


def prove_absent(wire: Wire, cache: ProvenCache, keys: Sequence[Key]) -> None:
    """End the transaction if a key was taken as new that is not; for those that were refused."""
    rows = [(cache.numbers[name], operation, key) for name, operation, key in keys]
    wire.send(ABSENCE, _columns(rows))


# ---- with one


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
    no = cache.numbers
    numbers = sorted(no[name] for name in wanted.names if name in no)
    if not numbers:
        return

    def ask(sql: str, places: Iterable[tuple[Any, ...]], *more: object) -> int | None:
        rows = [(no[name], *rest) for name, *rest in places if name in no]
        return wire.send(sql, (*_columns(rows), *more)) if rows else None

    places = [
        wire.send(PRACTICES, (numbers,)),
        wire.send(GRANTS, (numbers, numbers, now_s)),
        wire.send(CAPS, (numbers,)),
        ask(BY_KEY, wanted.keys),
        ask(BY_NO, wanted.calls),
        ask(STEPS, wanted.steps),
        ask(CAP_USE, sorted(wanted.subjects), windows(now_s)),
    ]
    answers = wire.flush()
    found, grants, caps, by_key, by_no, steps, use = (
        [] if place is None else answers[place].rows() for place in places
    )
    names = take_practices(loaded, cache, found, grants, now_s)
    take_caps(cache, names, caps)
    take_use(loaded, wanted, no, use, now_s)
    for number, call_no, operation, key, *row in by_key:
        is_here = row[0] is not None
        call = (
            calls.from_row(tuple(row))
            if is_here
            else calls.load_archived(loaded.cursor, number, call_no)
        )
        if call is not None:
            loaded.calls[names[number], call_no] = call
            loaded.call_keys[names[number], operation, key] = call_no
    take_calls(loaded, names, by_no)
    ended = [place for place in wanted.calls if place not in loaded.calls and place[0] in no]
    if ended:
        places_of_ended = [(no[name], call_no) for name, call_no in ended]
        take_calls(loaded, names, wire.ask(ENDED_BY_NO, _columns(places_of_ended)))
    take_steps(loaded, names, steps)
    note_absence(loaded, wanted)


def find_numbers(wire: Wire, cache: ProvenCache, names: list[str]) -> None:
    """Have the numbers of the practices that there are."""
    unknown = [name for name in names if name not in cache.numbers]
    if unknown:
        for name, number in wire.ask(NUMBERS, (unknown,)):
            cache.put_number(name, number)


def put_strangers(loaded: Loaded, cache: ProvenCache, names: list[str], now_s: int) -> None:
    """Forget what was kept of these practices; who has no number is new and has nothing."""
    for name in names:
        cache.forget(name)
        if name not in cache.numbers:
            loaded.put(stranger(name), complete_since_s=now_s)
            cache.complete_since_s[name] = now_s
            cache.caps[name] = {}


def windows(now_s: int) -> list[str]:
    """Name every day and month that may be today's or this month's in some time zone."""
    days = [day_of("UTC", now_s + shift * _DAY_S) for shift in (-1, 0, 1)]
    return sorted({*days, *(day[:7] for day in days)})


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*rows, strict=True)))


def take_practices(
    loaded: Loaded, cache: ProvenCache, rows: list[Any], grant_rows: list[Any], now_s: int
) -> dict[int, str]:
    """Take over practices with their grants; tell their names by number."""
    grants: dict[int, dict[int, Grant]] = {}
    for practice_no, *row in grant_rows:
        grants.setdefault(practice_no, {})[row[0]] = grant_from_row(tuple(row))
    for stamp, *row in rows:
        practice = practice_from_row(row, grants.get(row[0], {}))
        loaded.put(practice, complete_since_s=now_s)
        cache.stamps[practice.practice_id] = stamp
        cache.complete_since_s[practice.practice_id] = now_s
    return {row[1]: row[2] for row in rows}


def take_steps(loaded: Loaded, names: dict[int, str], rows: list[Any]) -> None:
    """Take over what is remembered of the keys of leases' steps."""
    for number, *row in rows:
        step = Step._make(row)
        loaded.steps[names[number], step.kind, step.key] = step


def note_absence(loaded: Loaded, wanted: Wanted) -> None:
    """Remember what was asked for and not found, after all has been taken over."""
    loaded.absent_keys.update(key for key in wanted.keys if key not in loaded.call_keys)
    loaded.absent_steps.update(key for key in wanted.steps if key not in loaded.steps)


def take_caps(cache: ProvenCache, names: dict[int, str], rows: list[Any]) -> None:
    """Take over what is capped; who has no cap is remembered as such."""
    caps: dict[str, dict[str, Cap]] = {name: {} for name in names.values()}
    for number, *row in rows:
        caps[names[number]][row[0]] = Cap(*row)
    cache.caps.update(caps)


def take_use(
    loaded: Loaded, wanted: Wanted, no: dict[str, int], rows: list[Any], now_s: int
) -> None:
    """Take over what was used of caps; nothing, where nothing was counted."""
    for number, subject, window, used in rows:
        loaded.cap_use[number, subject, window] = used
    for name, subject in wanted.subjects if loaded.cache.caps else ():
        for window in windows(now_s):
            loaded.cap_use.setdefault((no.get(name, 0), subject, window), 0)


def take_calls(loaded: Loaded, names: dict[int, str], rows: list[Any]) -> None:
    """Take over calls, by number and by key."""
    for number, *row in rows:
        name, call = names[number], calls.from_row(tuple(row))
        loaded.calls[name, call.call_no] = call
        loaded.call_keys[name, call.operation, call.key] = call.call_no
