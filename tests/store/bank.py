"""Helpers for tests of the store: a clock that stands still, short questions, plain connections."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from guthaben.domain.commands import Command, GrantCredit, Reserve
from guthaben.domain.grants import PAID
from guthaben.store.connection import joined
from guthaben.store.schema import migrate
from guthaben.store.sqlite_database import SqliteDatabase
from guthaben.store.sqlite_session import SqliteSession
from guthaben.store.store import Store
from guthaben.store.verify import Problem, verify
from guthaben.store.workspace import Workspace
from guthaben.store.writer import Order

T0 = 1_700_000_000_000
T0_S = T0 // 1000


class Clock:
    """The store's clock; it moves when a test says so."""

    def __init__(self, at_ms: int = T0) -> None:
        self.now_ms = at_ms

    def __call__(self) -> int:
        return self.now_ms

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.now_ms += ms


def url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path}"


def rows(store: Store, sql: str, *values: Any) -> list[Any]:
    """Ask a database that is open."""
    return store.read(lambda cursor: cursor.execute(sql, values).fetchall())


def problems(store: Store) -> list[Problem]:
    """What verify finds."""
    return store.read(lambda cursor: verify(cursor, None, T0_S)).problems


def connection(store: Store) -> sqlite3.Connection:
    """The writer's own connection to SQLite."""
    session = store._writers[0]._session
    assert isinstance(session, SqliteSession)
    assert session.con is not None
    return session.con


def idle_readers(store: Store) -> list[sqlite3.Connection]:
    """The connections that questions are asked through."""
    database = store._database
    assert isinstance(database, SqliteDatabase)
    return database._idle


def pay(store: Store, practice_id: str, amount: int, key: str = "paid") -> None:
    """Give paid credit."""
    assert store.execute(practice_id, GrantCredit(key, PAID, amount)).ok


def hold(store: Store, practice_id: str, amount: int, key: str) -> int:
    """Reserve; tell the call's number."""
    outcome = store.execute(practice_id, Reserve(key, amount))
    assert outcome.call is not None, outcome
    return outcome.call.call_no


def held(store: Store, practice_id: str) -> int:
    """What the practice holds."""
    sql = "SELECT held_nano_usd FROM credit_practice WHERE practice_id = ?"
    return int(rows(store, sql, practice_id)[0][0])


def free(store: Store, practice_id: str) -> int:
    """All free credit of the practice."""
    sql = (
        "SELECT COALESCE(SUM(free_nano_usd), 0) FROM credit_grant JOIN credit_practice"
        " USING (practice_no) WHERE practice_id = ?"
    )
    return int(rows(store, sql, practice_id)[0][0])


def prepared(path: Path, **options: Any) -> sqlite3.Connection:
    """A host's own connection to a database that has the engine's schema."""
    con = sqlite3.connect(path, timeout=0.2, **options)
    with joined(con) as cursor:
        migrate(cursor, T0_S)
    return con


def together(store: Store, commands: list[tuple[str, Command]]) -> list[Any]:
    """Queue commands while the writer is busy, so that it folds them; give the answers in order."""
    answers: list[Any] = [None] * len(commands)

    def reply_to(place: int) -> Any:
        return lambda answer: answers.__setitem__(place, answer)

    def queue_up(_space: Workspace) -> None:
        for place, (practice_id, command) in enumerate(commands):
            store._writers[0].submit(Order(practice_id, command, reply_to(place)))

    store.run(queue_up)
    store.run(lambda space: None)
    return answers
