"""The turnstile: who meets nobody asks for nothing, who is refused a lock has met somebody."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben.store import turnstile
from guthaben.store.turnstile import Turnstile

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


def _is_free(lock_file: str) -> bool:
    with open(lock_file, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
