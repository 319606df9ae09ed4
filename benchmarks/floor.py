"""The floor: what the database itself does with its raw driver, in the same run.

One guarded UPDATE and one INSERT for each operation, each durable: the least that a gate has to do
for one of its two steps. On SQLite they are one transaction; on PostgreSQL one call of a PL/pgSQL
function, prepared, so that an operation is one round trip. All clients are threads of one process,
each with a connection, because that is what a gate inside of an application would be.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import count

BALANCES = 256
_START = 10**15
_FUNCTION = """
CREATE OR REPLACE FUNCTION floor_operation(who BIGINT, called TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql AS $$ BEGIN
    UPDATE floor_balance SET amount = amount - 1 WHERE id = who AND amount >= 1;
    IF NOT FOUND THEN RETURN FALSE; END IF;
    INSERT INTO floor_hold (owner, key, amount) VALUES (who, called, 1);
    RETURN TRUE;
END $$"""

Operation = Callable[[int, str], None]
"""Take 1 from a balance and note it under a key, durably."""


def operations_per_s(url: str, clients: int, seconds: float, *, hot: bool) -> float:
    """Measure operations of so many clients, on many balances or on one."""
    opened = _sqlite if url.startswith("sqlite") else _postgresql
    opened(url, create=True)[1]()
    done: list[int] = []
    ready = threading.Barrier(clients + 1)
    until: list[float] = []

    def work(client: int) -> None:
        operation, close = opened(url, create=False)
        operation(client % BALANCES + 1, f"warm-{client}")
        ready.wait()
        ready.wait()
        for number in count():
            if time.perf_counter() >= until[0]:
                break
            who = 1 if hot else (client * 8 + number) % BALANCES + 1
            operation(who, f"key-{client}-{number}")
        done.append(number)
        close()

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    until.append(begun + seconds)
    ready.wait()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begun)


def _sqlite(url: str, *, create: bool) -> tuple[Operation, Callable[[], None]]:
    con = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = FULL")
    if create:
        con.execute(
            "CREATE TABLE IF NOT EXISTS floor_balance (id INTEGER PRIMARY KEY, amount INTEGER)"
        )
        con.execute(
            "CREATE TABLE IF NOT EXISTS floor_hold"
            " (id INTEGER PRIMARY KEY, owner INTEGER, key TEXT, amount INTEGER)"
        )
        con.executemany(
            "INSERT OR IGNORE INTO floor_balance VALUES (?, ?)",
            [(number, _START) for number in range(1, BALANCES + 1)],
        )

    def operation(who: int, key: str) -> None:
        con.execute("BEGIN IMMEDIATE")
        con.execute(
            "UPDATE floor_balance SET amount = amount - 1 WHERE id = ? AND amount >= 1", (who,)
        )
        con.execute("INSERT INTO floor_hold (owner, key, amount) VALUES (?, ?, 1)", (who, key))
        con.execute("COMMIT")

    return operation, con.close


def _postgresql(url: str, *, create: bool) -> tuple[Operation, Callable[[], None]]:
    import psycopg

    con = psycopg.connect(url, autocommit=True)
    con.prepare_threshold = 0
    if create:
        con.execute(
            "CREATE TABLE IF NOT EXISTS floor_balance"
            " (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL CHECK (amount >= 0))"
        )
        con.execute(
            "CREATE TABLE IF NOT EXISTS floor_hold (id BIGINT GENERATED ALWAYS AS IDENTITY"
            " PRIMARY KEY, owner BIGINT NOT NULL, key TEXT NOT NULL, amount BIGINT NOT NULL)"
        )
        con.execute(
            f"INSERT INTO floor_balance SELECT g, {_START} FROM generate_series(1, {BALANCES}) g"
            " ON CONFLICT DO NOTHING"
        )
        con.execute(_FUNCTION)
    cursor = con.cursor()

    def operation(who: int, key: str) -> None:
        cursor.execute("SELECT floor_operation(%s::bigint, %s)", (who, key))
        assert cursor.fetchone() == (True,)

    return operation, con.close
