"""The log of SQLite: carried over beside the writer, begun anew, and gone when all is closed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben.domain.commands import RecordUsage
from guthaben.errors import StoreUnavailable
from guthaben.store import checkpoints, connection
from guthaben.store.store import Store
from guthaben.store.verify import Problem
from tests.store.bank import url

pytestmark = pytest.mark.sqlite

FEW = 60


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MUCH", FEW)


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(url(path))
    yield opened
    opened.close()


def use(store: Store, begin: int, end: int) -> None:
    """Meter calls, each in a commit of its own."""
    for number in range(begin, end):
        store.execute("prac_1", RecordUsage(f"call-{number}", 1_000))


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def problems(store: Store) -> list[Problem]:
    return store.verify().problems


def test_the_log_begins_anew_however_much_is_written(store: Store, path: Path) -> None:
    use(store, 0, 300)
    after_some = log_bytes(path)

    use(store, 300, 1_500)

    assert log_bytes(path) <= 2 * after_some
    assert problems(store) == []


def test_without_it_the_log_would_grow(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above says something: SQLite's own limit is far away."""
    monkeypatch.setattr(checkpoints, "MUCH", 1 << 40)
    use(store, 0, 300)
    after_some = log_bytes(path)

    use(store, 300, 1_500)

    assert log_bytes(path) > 3 * after_some


def test_the_bulk_is_carried_by_another_thread(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_by: list[str] = []
    original = connection.connect

    def connect(*args: object, **options: object) -> sqlite3.Connection:
        carried_by.append(threading.current_thread().name)
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "connect", connect)

    use(store, 0, 100)

    assert set(carried_by) == {"guthaben-checkpoint"}


def test_a_reader_of_long_ago_only_delays_it(store: Store, path: Path) -> None:
    """What somebody still reads stays in the log; when they are done, it begins anew."""
    use(store, 0, 20)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT COUNT(*) FROM credit_call").fetchone()
    use(store, 20, 600)
    grown = log_bytes(path)

    assert reader.execute("SELECT COUNT(*) FROM credit_call").fetchone() == before
    reader.execute("ROLLBACK")
    use(store, 600, 1_200)

    assert log_bytes(path) <= 1.5 * grown
    reader.close()


def test_a_disk_that_refuses_stops_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> sqlite3.Connection:
        raise StoreUnavailable("no")

    monkeypatch.setattr(checkpoints, "connect", refuse)

    use(store, 0, 200)

    assert problems(store) == []


def test_without_room_for_a_thread_the_writer_does_it_all(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    use(store, 0, 300)
    after_some = log_bytes(path)

    use(store, 300, 1_500)

    assert log_bytes(path) <= 2 * after_some


def test_who_closes_waits_for_it_and_leaves_one_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    original = connection.connect

    def connect(*args: object, **options: object) -> sqlite3.Connection:
        opened = original(*args, **options)  # type: ignore[arg-type]
        go_on.wait(10)
        return opened

    monkeypatch.setattr(checkpoints, "connect", connect)
    store = Store(url(path))
    use(store, 0, 100)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()

    go_on.set()
    closing.join(10)

    assert not closing.is_alive()
    assert not path.with_name(f"{path.name}-wal").exists()


def test_a_commit_carries_over_what_no_thread_did(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit stays: many processes together write more than each of them knows."""
    monkeypatch.setattr(checkpoints, "MUCH", 1 << 40)
    monkeypatch.setattr(connection, "_LOG_PAGES", 200)
    store = Store(url(path))
    use(store, 0, 300)
    after_some = log_bytes(path)

    use(store, 300, 1_500)

    assert log_bytes(path) <= 2 * after_some
    store.close()
