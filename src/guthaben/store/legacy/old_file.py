"""A file of the old application as a source to copy from: its copy, taken over; never itself.

Law: the old file is only read. Its totals are added up from its own rows, so that they can be
compared with what arrives.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from guthaben.domain.money import nano_usd_from_float
from guthaben.domain.topup import SUCCEEDED
from guthaben.errors import ConfigError, StoreUnavailable
from guthaben.store.legacy import schema
from guthaben.store.legacy.rows import all_licenses
from guthaben.store.legacy.takeover import LEDGER, USAGE
from guthaben.store.session import Cursor

_ENGINE = "SELECT 1 FROM sqlite_master WHERE name = 'credit_migration'"
_HAS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"


class Totals(NamedTuple):
    """What all rows of one practice add up to, in nano-USD."""

    credited_nano_usd: int
    """Bought and given credit, less what was taken back."""
    used_nano_usd: int


@contextmanager
def taken_over(path: Path, allowance_of: Callable[[str], int]) -> Iterator[str]:
    """Copy an old file and take over its tables; give the URL of the copy while the block lasts.

    Raises `ConfigError` when the file is no such database, `MigrationNeeded` with every row that
    can't be explained.
    """
    with tempfile.TemporaryDirectory(prefix="guthaben-") as folder:
        place = Path(folder) / "old.db"
        with closing(_opened(path)) as old, closing(sqlite3.connect(place)) as ours:
            old.backup(ours)
        with closing(sqlite3.connect(place, isolation_level=None)) as con:
            schema.ensure(con, allowance_of)
        yield f"sqlite:///{place}"


def old_totals(path: Path) -> dict[str, Totals]:
    """Add up an old file's rows by practice, each amount exactly as the engine reads it."""
    credited: dict[str, int] = defaultdict(int)
    used: dict[str, int] = defaultdict(int)
    with closing(_opened(path)) as con:
        cursor = con.cursor()
        owners = {key: row.practice_id for key, row in all_licenses(cursor).items()}
        if cursor.execute(_HAS, (LEDGER,)).fetchone():
            rows = cursor.execute(
                f"SELECT practice_id, subscription_id, amount_internal_usd, status FROM {LEDGER}"
            )
            for practice, licence, amount, status in rows:
                if status == SUCCEEDED:
                    credited[practice or owners.get(licence) or licence] += _nano(amount)
        if cursor.execute(_HAS, (USAGE,)).fetchone():
            columns = {row[1] for row in cursor.execute(f"PRAGMA table_info({USAGE})")}
            status = "status" if "status" in columns else "'success'"
            rows = cursor.execute(
                f"SELECT practice_id, subscription_id, estimated_cost_usd, {status} FROM {USAGE}"
            )
            for practice, licence, cost, state in rows:
                if not str(state).startswith("blocked"):
                    used[practice or owners.get(licence) or licence] += _nano(cost)
    return {name: Totals(credited[name], used[name]) for name in {*credited, *used}}


def new_totals(cursor: Cursor) -> dict[str, Totals]:
    """Add up what the engine holds, by practice, from its events and calls."""
    # Not as a join: events and calls may lie on different nodes.
    credited, used = (
        dict(cursor.execute(f"SELECT practice_no, {what} GROUP BY practice_no").fetchall())
        for what in (
            "SUM(amount_nano_usd) FROM credit_event WHERE status = 'succeeded'",
            "SUM(cost_nano_usd) FROM credit_call",
        )
    )
    names = cursor.execute("SELECT practice_no, practice_id FROM credit_practice_name").fetchall()
    return {
        name: Totals(int(credited.get(number, 0)), int(used.get(number, 0)))
        for number, name in names
    }


def fingerprint(path: Path) -> str:
    """Name an old file by all its rows: the same rows are the same file, wherever it lies."""
    digest = sha256()
    with closing(_opened(path)) as con:
        names = con.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        for (name,) in names.fetchall():
            digest.update(repr(name).encode())
            quoted = name.replace('"', '""')
            for row in con.execute(f'SELECT * FROM "{quoted}" ORDER BY rowid'):
                digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _nano(amount: Any) -> int:
    return 0 if amount is None else nano_usd_from_float(amount)


def _opened(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigError(f"There is no file {str(path)!r}.")
    try:
        con = sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)
        engine = con.execute(_ENGINE).fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"cannot read {str(path)!r}: {error}") from error
    if engine:
        con.close()
        raise ConfigError(
            f"{str(path)!r} is a database of this engine already: copy it with guthaben copy."
        )
    return con
