"""Crowds: what comes together is one batch, and nobody waits for company that does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from guthaben.domain.commands import Reserve
from guthaben.store import writer as writers
from guthaben.store.cache import Cache
from guthaben.store.session import Session
from guthaben.store.writer import ENOUGH, Order, Writer


class Idle(Writer):
    """A writer whose thread never began."""

    def __init__(self) -> None:
        super().__init__(cast(Session, SimpleNamespace(cache=Cache())))
        self.pauses = 0

    def _begin_work(self) -> None:
        return None


def orders(*keys: object) -> list[Order]:
    return [Order("p", Reserve(str(key), 1), lambda _answer: None) for key in keys]


@pytest.fixture
def idle() -> Idle:
    return Idle()


@pytest.fixture
def during_pauses(
    idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[int, list[Order]]], None]:
    """Let orders come while the writer pauses: those of its first pause, its second, ..."""

    def will_come(coming: dict[int, list[Order]]) -> None:
        def pause(_seconds: float) -> None:
            idle.pauses += 1
            idle.submit(*coming.get(idle.pauses, []))

        monkeypatch.setattr(writers, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))

    will_come({})
    return will_come


def test_what_was_submitted_together_is_taken_together(idle: Idle) -> None:
    idle.submit(*orders(1, 2))
    idle.submit(*orders(3))
    assert [order.command.key for order in cast(Any, idle._next_batch())] == ["1", "2", "3"]


@pytest.mark.usefixtures("during_pauses")
def test_who_comes_alone_is_not_kept_waiting(idle: Idle) -> None:
    idle.submit(*orders(1))
    assert len(idle._next_batch()) == 1
    assert idle.pauses == 0


def test_a_crowd_is_given_time_while_it_keeps_coming(
    idle: Idle, during_pauses: Callable[[dict[int, list[Order]]], None]
) -> None:
    during_pauses({1: orders(2), 3: orders(3), 4: orders(4, 5), 9: orders(6)})
    idle._last_batch = 20
    idle.submit(*orders(1))
    assert len(idle._next_batch()) == 5  # after two pauses in which nobody came it begins
    assert idle.pauses == 6


def test_a_crowd_that_is_complete_is_not_kept_waiting(
    idle: Idle, during_pauses: Callable[[dict[int, list[Order]]], None]
) -> None:
    during_pauses({1: orders(2, 3), 2: orders(4)})
    idle._last_batch = 3
    idle.submit(*orders(1))
    assert len(idle._next_batch()) == 3
    assert idle.pauses == 1


@pytest.mark.usefixtures("during_pauses")
def test_a_batch_that_is_large_enough_waits_for_nobody(idle: Idle) -> None:
    idle._last_batch = 2 * ENOUGH
    idle.submit(*orders(*range(ENOUGH + 7)))
    assert len(idle._next_batch()) == ENOUGH
    assert len(idle._next_batch()) == 7
    assert idle.pauses == writers._PATIENCE
