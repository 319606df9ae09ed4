"""Two practices that lived for months: what nobody may lose of them, and where their calls lie."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guthaben.domain.calls import Usage
from guthaben.domain.commands import RecordUsage, Release, Settle
from guthaben.domain.practice import Balance
from guthaben.services import archive_files
from guthaben.store import queries
from guthaben.store.store import Store
from tests.store.bank import Clock, hold, pay, rows

DAY_MS = 86_400_000
NAMES = ("ana", "ben")
USED = Usage("gpt-4o-mini", "chat", 900, 400, 1300, 0, "2024-01")


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return int(at.timestamp() * 1000)


def lived(store: Store, clock: Clock, days: int = 60) -> None:
    """Two practices, a call a day each: settled, released, told afterwards, or left to expire."""
    clock.now_ms = ms(2023, 11, 10)
    for name in NAMES:
        pay(store, name, 10**9)
    for day in range(days):
        for name in NAMES:
            if day % 5 == 4:
                store.execute(name, RecordUsage(f"u{day}", 50, usage=USED))
                continue
            call_no = hold(store, name, 100, f"k{day}")
            if day % 5 == 3:
                store.execute(name, Release(call_no))
            elif day % 5 != 2:
                store.execute(name, Settle(call_no, 70 + day, USED))
        clock.wait(DAY_MS)
    for name in NAMES:
        sweep(store, name)


def sweep(store: Store, name: str) -> None:
    store.run(lambda space: space.sweep(name))


def all_calls(store: Store, name: str, size: int = 7) -> list[Any]:
    """The history of a practice, paged by key."""
    found: list[Any] = []
    before = 1 << 62
    while page := one_page(store, name, before, size):
        found += page
        before = page[-1].call_no
    return found


def one_page(store: Store, name: str, before: int, size: int) -> list[Any]:
    return store.read(lambda cur: queries.recent_calls(cur, name, before, size))


def balance(store: Store, name: str, now_s: int) -> Balance:
    return store.read(lambda cur: queries.balance(cur, name, None, now_s)[0])


def seen(store: Store) -> list[Any]:
    """What nobody may lose: balances, calls by number, key, end and cost, and every transfer."""
    now_s = store.now_s()
    told: list[Any] = []
    for name in NAMES:
        told.append(balance(store, name, now_s))
        told += [
            (call.call_no, call.key, call.status, call.ended_by, call.cost_nano_usd,
             call.reserved_nano_usd, call.created_at_ms, call.first_seq)
            for call in all_calls(store, name)
        ]  # fmt: skip
    told += rows(store, "SELECT practice_no, seq, hash FROM credit_transfer ORDER BY 1, 2")
    return told


def here(store: Store) -> int:
    return int(rows(store, "SELECT COUNT(*) FROM credit_call")[0][0])


def gone(store: Store) -> int:
    return int(rows(store, "SELECT COUNT(*) FROM credit_archived_call")[0][0])


def in_files(folder: Path) -> list[tuple[str, int]]:
    found = [
        (row[0], row[2])
        for path in folder.glob("*.parquet")
        for page in archive_files.read(path)
        for row in page
    ]
    assert len(set(found)) == len(found), "a call is in two files"
    return found


class Stopped(Exception):
    """The process ends here."""


def stopping(step: str, nth: int = 1) -> Callable[[str], None]:
    left = [nth]

    def at(now: str) -> None:
        if now == step:
            left[0] -= 1
            if left[0] == 0:
                raise Stopped

    return at
