"""Tasks of event loops and one writer: they ask it together, and are answered together.

Law: what is asked is handed in when the loop's turn is over, in the order in which it was asked,
and answered for certain: by the writer, or by the reason why it took nothing more. An answer that
nobody waits for any more is told to whom it may concern.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from guthaben.domain.commands import Command
from guthaben.errors import StoreUnavailable
from guthaben.store.workspace import EventNote
from guthaben.store.writer import Order, Writer

log = logging.getLogger("guthaben.store")

Abandoned = Callable[[str, Command, object], None]
"""Hears of an answer that nobody waits for any more: practice, command, answer."""


class _Asked:
    """One command of an awaiting task; takes its answer on the writer's thread."""

    __slots__ = ("_ready", "answer", "command", "future", "loop", "note", "practice_id")

    def __init__(
        self, ready: _Ready, practice_id: str, command: Command, note: EventNote | None
    ) -> None:
        self._ready = ready
        self.practice_id = practice_id
        self.command = command
        self.note = note
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.answer: object = None

    def __call__(self, answer: object) -> None:
        self.answer = answer
        self._ready.setdefault(self.loop, []).append(self)


_Ready = dict[asyncio.AbstractEventLoop, list[_Asked]]


class Tasks:
    """All tasks of this process that wait for one writer."""

    def __init__(self, on_abandoned: Abandoned) -> None:
        self._on_abandoned = on_abandoned
        self._asked: deque[_Asked] = deque()
        self._turning: set[asyncio.AbstractEventLoop] = set()
        """Loops at whose turn's end somebody hands in what was asked."""
        self._ready: _Ready = {}

    # ---- on the way there, on the loops' threads

    def ask(
        self, writer: Writer, practice_id: str, command: Command, note: EventNote | None
    ) -> asyncio.Future[Any]:
        """Ask the writer; who asks alone asks at once, a crowd when its loop's turn is over.

        The tasks that one batch woke all run in one turn: what they ask next is the next batch, and
        not a batch for the quickest of them while the writer and they are in each other's way.
        """
        asked = _Asked(self._ready, practice_id, command, note)
        if not writer.has_company and not self._asked:
            writer.submit(_order(asked))
            return asked.future
        self._asked.append(asked)
        loop = asked.loop
        if loop not in self._turning:
            self._turning.add(loop)
            loop.call_soon(self._end_turn, loop, writer)
        return asked.future

    def _end_turn(self, loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
        self._turning.discard(loop)
        self.hand_in(writer)

    def hand_in(self, writer: Writer) -> None:
        """Queue what was asked so far; what comes afterwards comes behind it. Thread-safe."""
        together: list[_Asked] = []
        while self._asked:
            try:
                together.append(self._asked.popleft())
            except IndexError:  # another thread was quicker
                break
        if not together:
            return
        try:
            writer.submit(*map(_order, together))
        except StoreUnavailable as error:
            for asked in together:
                asked.answer = error
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    asked.loop.call_soon_threadsafe(self._resolve, [asked])

    # ---- on the way back

    def wake(self) -> None:
        """Wake every loop that has answers; on the writer's thread, after each batch."""
        while self._ready:
            loop, answers = self._ready.popitem()
            try:
                loop.call_soon_threadsafe(self._resolve, answers)
            except RuntimeError:  # the loop is closed: nobody waits any more
                for asked in answers:
                    self._abandon(asked)

    def _resolve(self, answers: list[_Asked]) -> None:
        for asked in answers:
            if asked.future.done():
                self._abandon(asked)
            elif isinstance(asked.answer, BaseException):
                asked.future.set_exception(asked.answer)
            else:
                asked.future.set_result(asked.answer)

    def _abandon(self, asked: _Asked) -> None:
        try:
            self._on_abandoned(asked.practice_id, asked.command, asked.answer)
        except Exception:
            log.exception("an abandoned reservation was not released; it will expire")


def _order(asked: _Asked) -> Order:
    return Order(asked.practice_id, asked.command, asked, asked.note)
