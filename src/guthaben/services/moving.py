"""Moving in and moving house: an old file into a store, and one database into another.

Law: what arrives is compared with what left, practice by practice, in nano-USD; a difference is
named and nobody smooths it over. Doing it again changes nothing and compares again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from guthaben.services.legacy.plans import monthly_allowance
from guthaben.store import queries
from guthaben.store.legacy import old_file
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.verify import Problem


class Compared(NamedTuple):
    """One practice before and after: figures by name, in nano-USD."""

    practice_id: str
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.before == self.after


class Moved(NamedTuple):
    """What was moved, how it compares, and what `verify` says of the target."""

    rows: Mapping[str, int]
    repeated: bool
    practices: tuple[Compared, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything arrived as it left."""
        return not self.problems and all(practice.same for practice in self.practices)


def copy_database(source: Store, target: Store) -> Moved:
    """Copy everything into another database, and compare balances and counters of every practice.

    Idempotent. Raises `MigrationNeeded` with what stands in the way, and then changed nothing.
    """
    copied = target.copy_from(source)
    now_s = source.now_s()
    before = source.read(lambda cursor: _balances(cursor, now_s))
    after = target.read(lambda cursor: _balances(cursor, now_s))
    return _report(target, copied.rows, copied.repeated, before, after)


def import_old_file(path: Path, target: Store) -> Moved:
    """Take over a file of the old application into a store, and compare what its rows add up to.

    The file is only read. Idempotent. Raises `ConfigError`, and `MigrationNeeded` with every row
    that can't be explained; then nothing was changed.
    """
    with old_file.taken_over(path, monthly_allowance) as url:
        source = Store(url, clock_ms=target.clock_ms)
        try:
            copied = target.copy_from(source, old_file.fingerprint(path))
        finally:
            source.close()
    before = {name: totals._asdict() for name, totals in old_file.old_totals(path).items()}
    found = target.read(old_file.new_totals)
    after = {name: found[name]._asdict() if name in found else {} for name in before}
    return _report(target, copied.rows, copied.repeated, before, after)


def _balances(cursor: Cursor, now_s: int) -> dict[str, Mapping[str, int]]:
    found: dict[str, Mapping[str, int]] = {}
    for head in queries.heads(cursor):
        balance, _due_ms = queries.balance(cursor, head.practice_id, None, now_s)
        found[head.practice_id] = {
            "available_nano_usd": balance.available_nano_usd,
            "held_nano_usd": balance.held_nano_usd,
            "debt_nano_usd": balance.debt_nano_usd,
            "credit_nano_usd": balance.credit_nano_usd,
            "transfers": head.last_seq,
        }
    return found


def _report(
    target: Store,
    rows: Mapping[str, int],
    repeated: bool,
    before: Mapping[str, Mapping[str, int]],
    after: Mapping[str, Mapping[str, int]],
) -> Moved:
    compared = tuple(Compared(name, before[name], after.get(name, {})) for name in sorted(before))
    problems = target.verify().problems
    return Moved(rows, repeated, compared, tuple(problems))
