"""The turnstile: who meets nobody asks for nothing, who is refused a lock has met somebody."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from guthaben.store import turnstile
from guthaben.store.store import Store
from guthaben.store.turnstile import Turnstile
from tests.store.bank import free, pay

pytestmark = pytest.mark.sqlite


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "credit.db")


@pytest.fixture
def mine(path: str) -> Iterator[Turnstile]:
    opened = Turnstile(path, patience_s=5)
    yield opened
    opened.close()


def test_a_process_alone_asks_only_now_and_then(mine: Turnstile) -> None:
    assert not mine.is_open
    with mine.passed():
        assert mine.is_open


def test_time_that_passes_is_nobody(mine: Turnstile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that lost its turn between two locks comes back late, and has met nobody."""
    lock = fcntl.flock

    def slow(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        time.sleep(0.005)

    monkeypatch.setattr(fcntl, "flock", slow)
    monkeypatch.setattr(turnstile, "ALONE_S", 60)
    with mine.passed():
        pass
    assert mine.is_open


def test_who_is_refused_a_lock_has_met_somebody(
    mine: Turnstile, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "ALONE_S", 60)
    theirs = Turnstile(path)
    passed = threading.Event()

    def wait() -> None:
        with mine.passed():
            passed.set()

    waiting = threading.Thread(target=wait)
    with theirs.passed():
        waiting.start()
        assert not passed.wait(0.05), "one at a time"
    waiting.join(5)
    assert passed.is_set()
    assert not mine.is_open, "there is somebody to wait for"
    theirs.close()


def test_who_waits_at_the_gate_goes_before_who_comes_later(mine: Turnstile, path: str) -> None:
    """Whoever has `next` is the only one who asks for `main`."""
    inside, first, late = (Turnstile(path) for _ in range(3))
    order: list[str] = []

    def go(name: str, through: Turnstile) -> None:
        with through.passed():
            order.append(name)

    with inside.passed():
        one = threading.Thread(target=go, args=("first", first))
        one.start()
        while _is_free(f"{path}.next"):
            time.sleep(0.001)
        two = threading.Thread(target=go, args=("late", late))
        two.start()
    one.join(5)
    two.join(5)
    assert order == ["first", "late"]
    for each in (inside, first, late):
        each.close()


def test_a_process_that_was_stopped_at_the_gate_stops_nobody(path: str) -> None:
    stopped, mine = Turnstile(path), Turnstile(path, patience_s=0.05)
    with stopped.passed(), mine.passed():
        assert not mine.is_open
    stopped.close()
    mine.close()


@pytest.mark.parametrize("alone", [False, True])
def test_a_store_waits_at_the_gate_also_when_it_thought_itself_alone(
    path: str, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """SQLite's own lock would let whoever asks most often pass it, for as long as they like."""
    monkeypatch.setattr(turnstile, "ALONE_S", 60 if alone else 0)
    store, inside = Store(f"sqlite:///{path}"), Turnstile(path)
    pay(store, "p", 10)
    writing = threading.Thread(target=pay, args=(store, "p", 1, "again"))
    with inside.passed():
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            writing.start()
            _until(lambda: not _is_free(f"{path}.next"))
        writing.join(0.1)
        assert writing.is_alive(), "the lock is free, but it is not its turn"
    writing.join(5)
    assert not writing.is_alive()
    assert free(store, "p") == 11
    assert _is_free(f"{path}.main")
    store.close()
    inside.close()


def test_a_store_in_its_turn_waits_for_somebody_who_knows_no_turnstile(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "ALONE_S", 0)
    store = Store(f"sqlite:///{path}")
    pay(store, "p", 10)
    writing = threading.Thread(target=pay, args=(store, "p", 1, "again"))
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        writing.start()
        _until(lambda: not _is_free(f"{path}.main"))
        writing.join(0.1)
        assert writing.is_alive()
    writing.join(5)
    assert free(store, "p") == 11
    assert _is_free(f"{path}.main")
    store.close()


def _until(so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not so():
        assert time.monotonic() < until_s
        time.sleep(0.001)


def _is_free(lock_file: str) -> bool:
    with open(lock_file, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
