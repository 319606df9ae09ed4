"""Taking over old plain tables: their rows become credit events, calls and settings, once.

Law: all or nothing. Every row is judged before the first is moved; what can't be explained is
listed in one `MigrationNeeded`. Numbers are kept, amounts pass money's edge, and the old tables
stay under another name, so that nothing is lost. Runs in the caller's savepoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from typing import Any, NamedTuple

from guthaben.domain.commands import RecordUsage
from guthaben.domain.period import month_of
from guthaben.domain.topup import IN_FLIGHT, SUCCEEDED
from guthaben.errors import MigrationNeeded, Refused
from guthaben.store import settings, topups
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.old_rows import (
    Licenses,
    OldEntry,
    OldSettings,
    OldUsage,
    is_automatic,
    read_entry,
    read_settings,
    read_usage,
)
from guthaben.store.legacy.rows import BlockedCall
from guthaben.store.settings import ConsentRow
from guthaben.store.workspace import Workspace

LEDGER, USAGE = "ai_credit_ledger", "ai_usage_events"
KEPT = "before_guthaben_"
"""What the old tables are called afterwards."""
_MOST_TOLD = 200
_BATCH = 500
_NEEDED = {
    LEDGER: {"id", "event_type", "amount_internal_usd", "status", "created_at"},
    USAGE: {"id", "subscription_id", "period_start", "estimated_cost_usd", "created_at"},
}
_SETTINGS = {
    "practice_id", "auto_topup_enabled", "topup_amount_chf", "internal_credit_usd",
    "trigger_below_percent", "monthly_limit_chf", "stripe_customer_id", "default_payment_method_id",
}  # fmt: skip


class Old(NamedTuple):
    """The old tables of this database: what they are called, and whether they hold rows."""

    books: dict[str, bool]
    settings: dict[str, bool]


def take_over(cursor: sqlite3.Cursor, now_ms: int, allowance_of: Callable[[str], int]) -> None:
    """Move the rows of old plain tables into the engine and put the tables aside.

    Raises `MigrationNeeded` with everything that can't be explained.
    """
    old = _find(cursor)
    if not old.books and not old.settings:
        return
    licenses = legacy_rows.all_licenses(cursor)
    problems = list(_problems(cursor, old, licenses))
    if problems:
        raise MigrationNeeded(_shortened(problems))
    if old.books.get(LEDGER):
        _make_room(cursor)
    try:
        _Mover(cursor, now_ms, allowance_of).move(cursor, old, licenses)
    except sqlite3.IntegrityError as error:
        raise MigrationNeeded([f"a row contradicts what the engine holds: {error}"]) from error
    for table, filled in {**old.books, **old.settings}.items():
        _put_aside(cursor, table, filled)


def _shortened(problems: list[str]) -> list[str]:
    rest = len(problems) - _MOST_TOLD
    return problems if rest <= 0 else [*problems[:_MOST_TOLD], f"and {rest} more"]


# ---------------------------------------------------------------- finding and judging


def _find(cursor: sqlite3.Cursor) -> Old:
    tables = [
        name
        for (name,) in cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith((KEPT, "credit_", "sqlite_"))
    ]
    books = {name: _filled(cursor, name) for name in tables if name in (LEDGER, USAGE)}
    others = [name for name in tables if name not in (LEDGER, USAGE)]
    found = [name for name in others if set(_columns(cursor, name)) >= _SETTINGS]
    return Old(books, {name: _filled(cursor, name) for name in found})


def _columns(cursor: sqlite3.Cursor, table: str) -> list[str]:
    return [row[1] for row in cursor.execute(f"PRAGMA table_info({_quoted(table)})")]


def _filled(cursor: sqlite3.Cursor, table: str) -> bool:
    row = cursor.execute(f"SELECT 1 FROM {_quoted(table)} LIMIT 1").fetchone()
    return row is not None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _rows(cursor: sqlite3.Cursor, table: str, order: str = "rowid") -> Iterator[Mapping[str, Any]]:
    """Read an old table row by row, by column name, on a cursor of its own."""
    reader = cursor.connection.cursor()
    reader.row_factory = None
    names = _columns(cursor, table)
    reader.execute(f"SELECT * FROM {_quoted(table)} ORDER BY {order}")
    while rows := reader.fetchmany(_BATCH):
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def _problems(cursor: sqlite3.Cursor, old: Old, licenses: Licenses) -> Iterator[str]:
    for table in [*old.books, *old.settings]:
        yield from _ties(cursor, table)
    for table, filled in old.books.items():
        missing = _NEEDED[table] - set(_columns(cursor, table)) if filled else set()
        if missing:
            yield f"{table} has no column {', '.join(sorted(missing))}"
        elif filled and table == LEDGER:
            yield from _wrong_entries(cursor, licenses)
        elif filled:
            for row in _rows(cursor, USAGE):
                yield from read_usage(row, licenses)[1]
    for table in old.settings:
        yield from _wrong_settings(cursor, table)


def _ties(cursor: sqlite3.Cursor, table: str) -> Iterator[str]:
    """A view can't have a table's triggers, nor be the target of a foreign key."""
    triggers = cursor.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
    )
    for (name,) in triggers.fetchall():
        yield f"{table} has the trigger {name}, which would stop working: drop it first"
    tables = cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in tables:
        keys = cursor.execute(f"PRAGMA foreign_key_list({_quoted(name)})").fetchall()
        if name != table and any(key[2].lower() == table.lower() for key in keys):
            yield f"{name} has a foreign key to {table}, which can't point to a view"


def _wrong_entries(cursor: sqlite3.Cursor, licenses: Licenses) -> Iterator[str]:
    credited: dict[tuple[str, str], int] = {}
    in_flight: dict[str, int] = {}
    for row in _rows(cursor, LEDGER):
        entry, problems = read_entry(row, licenses)
        yield from problems
        event = entry.event
        if event.status == SUCCEEDED and event.amount_nano_usd >= 0:
            refs = ((topups.PAYMENT, event.payment_id), (topups.SESSION, event.session_id))
            for kind, ref in refs:
                if not ref:
                    continue
                first = credited.setdefault((kind, ref), entry.row_id)
                if first != entry.row_id:
                    yield f"{LEDGER} {entry.row_id}: its {kind} was credited by row {first}"
                elif topups.find_payment(cursor, "stripe", kind, ref) is not None:
                    yield f"{LEDGER} {entry.row_id}: its {kind} was credited by the engine"
        if event.status in IN_FLIGHT and is_automatic(event):
            first = in_flight.setdefault(entry.practice_id, entry.row_id)
            if first != entry.row_id:
                yield (
                    f"{LEDGER} {entry.row_id}: an automatic top-up is pending beside row {first};"
                    " at most one of a practice may be"
                )


def _wrong_settings(cursor: sqlite3.Cursor, table: str) -> Iterator[str]:
    for row in _rows(cursor, table):
        old, problems = read_settings(row)
        yield from problems
        taken = cursor.execute(
            "SELECT 1 FROM credit_topup_settings s JOIN credit_practice p"
            " ON p.practice_no = s.practice_no WHERE p.practice_id = ?",
            (old.practice_id,),
        ).fetchone()
        if taken:
            yield f"{table}: {old.practice_id} has settings in the engine already"


# ---------------------------------------------------------------- moving


def _make_room(cursor: sqlite3.Cursor) -> None:
    """Number the engine's own entries after the old ones; nobody has seen their numbers yet."""
    (most,) = cursor.execute(f"SELECT MAX(id) FROM {LEDGER}").fetchone()
    cursor.execute("UPDATE credit_event SET row_id = -row_id")
    cursor.execute("UPDATE credit_event SET row_id = ? - row_id", (most,))


class _Mover:
    """Applies old rows in batches, each through a workspace of its own."""

    def __init__(
        self, cursor: sqlite3.Cursor, now_ms: int, allowance_of: Callable[[str], int]
    ) -> None:
        self.cursor = cursor
        self.now_ms = now_ms
        self.allowance_of = allowance_of
        self.space = Workspace(cursor, now_ms)
        self.legacy_ids: list[tuple[int, str, int]] = []
        self.waiting = 0

    def move(self, cursor: sqlite3.Cursor, old: Old, licenses: Licenses) -> None:
        """Move everything, entries and usage in the order in which they happened."""
        entries = self._entries(cursor, licenses) if old.books.get(LEDGER) else iter(())
        usage = self._usage(cursor, licenses) if old.books.get(USAGE) else iter(())
        for _at_s, kind, row_id, value in merge(entries, usage, key=lambda item: item[:3]):
            try:
                self._one(value)
            except Refused as refused:
                table = LEDGER if kind == 0 else USAGE
                raise MigrationNeeded([f"{table} {row_id}: {refused.reason}"]) from refused
            self.waiting += 1
            if self.waiting >= _BATCH:
                self._write()
        self._write()
        for table in old.settings:
            for row in list(_rows(cursor, table)):
                self._settings(read_settings(row)[0])
        self._write()

    def _entries(self, cursor: sqlite3.Cursor, licenses: Licenses) -> Iterator[Any]:
        for row in _rows(cursor, LEDGER, "created_at, id"):
            entry = read_entry(row, licenses)[0]
            yield entry.event.event_at_s, 0, entry.row_id, entry

    def _usage(self, cursor: sqlite3.Cursor, licenses: Licenses) -> Iterator[Any]:
        for row in _rows(cursor, USAGE, "created_at, id"):
            usage = read_usage(row, licenses)[0]
            yield usage.at_s, 1, usage.row_id, usage

    def _one(self, value: OldEntry | OldUsage) -> None:
        if isinstance(value, OldEntry):
            self._entry(value)
        elif value.status.startswith("blocked"):
            self._blocked(value)
        else:
            self._call(value)

    def _entry(self, old: OldEntry) -> None:
        event = old.event
        if is_automatic(event):
            zone = self.space.practice(old.practice_id).time_zone
            event = event._replace(cap_month=month_of(zone, event.event_at_s), cap_zone=zone)
        legacy_rows.record_entry(self.space, old.practice_id, event, old.note)

    def _call(self, old: OldUsage) -> None:
        tags = "" if old.status == "success" else legacy_rows.status_tags(old.status)
        period = old.period._replace(allowance_nano_usd=self.allowance_of(old.lookup_key))
        outcome = self.space.apply(
            old.practice_id,
            RecordUsage(
                f"old-row:{old.row_id}", old.cost_nano_usd, period, old.usage,
                old.origin._replace(tags=tags), old.at_s,
            ),
        )  # fmt: skip
        if outcome.call is None:
            raise Refused(reason=outcome.reason)
        self.legacy_ids.append((old.row_id, old.practice_id, outcome.call.call_no))

    def _blocked(self, old: OldUsage) -> None:
        usage, period = old.usage, old.period
        call = BlockedCall(
            period.license, period.start_s, period.end_s, old.at_s, old.status,
            usage.operation_type or None, usage.model or None, old.origin.device_id or None,
            old.origin.reference or None, usage.input_tokens, usage.output_tokens,
            usage.total_tokens, usage.audio_us, old.cost_nano_usd, old.row_id,
        )  # fmt: skip
        legacy_rows.insert_blocked(self.cursor, self.space.practice_no(old.practice_id), call)

    def _settings(self, old: OldSettings) -> None:
        space = self.space
        number = space.practice_no(old.practice_id)
        mode = space.practice(old.practice_id).mode
        settings.save_settings(self.cursor, number, mode, old.row, space.now_s)
        if old.row.enabled:
            # The old application switched it on only after the customer had agreed.
            consent = ConsentRow(
                "host", "taken_over", "", "", old.row.amount_rappen, old.row.trigger_percent,
                old.row.trigger_below_nano_usd, old.row.cap_rappen, space.now_s,
            )  # fmt: skip
            settings.add_consent(self.cursor, number, consent)
        settings.audit(self.cursor, number, "taken_over", "", "old settings", space.now_s)

    def _write(self) -> None:
        """Write the batch, and begin the next with nothing remembered."""
        self.space.flush()
        numbered = [
            (row_id, self.space.practice_no(practice_id), call_no)
            for row_id, practice_id, call_no in self.legacy_ids
        ]
        legacy_rows.set_legacy_ids(self.cursor, numbered)
        self.legacy_ids, self.waiting = [], 0
        self.space = Workspace(self.cursor, self.now_ms)


def _put_aside(cursor: sqlite3.Cursor, table: str, filled: bool) -> None:
    """Drop an empty table; keep a filled one under another name."""
    if not filled:
        cursor.execute(f"DROP TABLE {_quoted(table)}")
        return
    # Otherwise SQLite rewrites the host's own views, and they follow the old table for ever.
    (before,) = cursor.execute("PRAGMA legacy_alter_table").fetchone()
    cursor.execute("PRAGMA legacy_alter_table = ON")
    try:
        kept = _quoted(KEPT + table)
        cursor.execute(f"ALTER TABLE {_quoted(table)} RENAME TO {kept}")
    finally:
        cursor.execute(f"PRAGMA legacy_alter_table = {'ON' if before else 'OFF'}")
