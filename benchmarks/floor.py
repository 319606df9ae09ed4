"""The floor: what the database itself does with a raw driver, in the same run.

One guarded UPDATE and one INSERT per transaction, WAL with synchronous FULL, one connection: the
least that any durable gate has to do for one of its two steps.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path


def operations_per_s(folder: Path, seconds: float) -> float:
    """Measure guarded updates with an insert, each durable, for about so many seconds."""
    con = sqlite3.connect(folder / "floor.db", isolation_level=None)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = FULL")
    con.execute("CREATE TABLE IF NOT EXISTS balance (id INTEGER PRIMARY KEY, amount INTEGER)")
    con.execute(
        "CREATE TABLE IF NOT EXISTS hold (id INTEGER PRIMARY KEY, key TEXT, amount INTEGER)"
    )
    con.execute("INSERT OR IGNORE INTO balance VALUES (1, 1000000000000)")
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        con.execute("BEGIN IMMEDIATE")
        con.execute("UPDATE balance SET amount = amount - 1 WHERE id = 1 AND amount >= 1")
        con.execute("INSERT INTO hold (key, amount) VALUES (?, 1)", (f"key-{done}",))
        con.execute("COMMIT")
        done += 1
    con.close()
    return done / elapsed
