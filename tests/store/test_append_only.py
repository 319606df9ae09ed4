"""What the database itself refuses: to change journal, keys or registry, and bad balances."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben.domain.commands import Fulfil, OpenEvent, Release
from guthaben.domain.topup import PENDING, TOPUP_PURCHASE, CreditEvent
from guthaben.store.store import Store
from tests.store.bank import hold, pay, problems


@pytest.fixture
def con(store: Store, path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody with a plain connection and bad intentions."""
    pay(store, "p", 100)
    event = CreditEvent(0, TOPUP_PURCHASE, PENDING, 50, 3000)
    opened = store.execute("p", OpenEvent(event)).event
    assert opened is not None
    assert store.execute("p", Fulfil(opened.event_no, "pi_1", "cs_1")).applied
    hold(store, "p", 10, "open")
    store.execute("p", Release(hold(store, "p", 10, "over")))
    plain = sqlite3.connect(path, isolation_level=None)
    yield plain
    plain.close()
    assert problems(store) == []


KEPT = {
    "credit_transfer": "append-only",
    "credit_key": "kept for ever",
    "credit_payment": "kept for ever",
}


@pytest.mark.parametrize(("table", "why"), KEPT.items())
@pytest.mark.parametrize("column", ["at_s", "practice_no"])
def test_no_update(con: sqlite3.Connection, table: str, why: str, column: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=why):
        con.execute(f"UPDATE {table} SET {column} = {column} + 1")


@pytest.mark.parametrize(("table", "why"), KEPT.items())
def test_no_delete(con: sqlite3.Connection, table: str, why: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=why):
        con.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("table", KEPT)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "REPLACE"])
def test_no_replacing(con: sqlite3.Connection, table: str, verb: str) -> None:
    before = con.execute(f"SELECT * FROM {table}").fetchall()
    row = list(before[0])
    names = [column[1] for column in con.execute(f"PRAGMA table_info({table})")]
    row[names.index("at_s")] += 1
    marks = ", ".join("?" * len(row))
    with pytest.raises(sqlite3.IntegrityError):
        con.execute(f"{verb} INTO {table} VALUES ({marks})", row)
    assert con.execute(f"SELECT * FROM {table}").fetchall() == before


def test_no_transfer_before_the_last(con: sqlite3.Connection) -> None:
    row = list(con.execute("SELECT * FROM credit_transfer ORDER BY seq LIMIT 1").fetchone())
    con.execute("CREATE TEMP TABLE gap AS SELECT MAX(seq) AS seq FROM credit_transfer")
    for seq in (1, 0, -1):
        row[1] = seq
        marks = ", ".join("?" * len(row))
        with pytest.raises(sqlite3.IntegrityError):
            con.execute(f"INSERT INTO credit_transfer VALUES ({marks})", row)


BAD_BALANCES = [
    "UPDATE credit_grant SET free_nano_usd = -1",
    "UPDATE credit_grant SET held_nano_usd = -1",
    "UPDATE credit_grant SET granted_nano_usd = 0",
    "UPDATE credit_grant SET period_used_nano_usd = -1",
    "UPDATE credit_grant SET kind = 4",
    "UPDATE credit_practice SET held_nano_usd = -1",
    "UPDATE credit_practice SET debt_nano_usd = -1",
    "UPDATE credit_practice SET last_seq = -1",
    "UPDATE credit_practice SET status = 0",
    "UPDATE credit_practice SET head = x'00'",
    "UPDATE credit_practice SET allowance_nano_usd = -1",
    "UPDATE credit_call SET reserved_nano_usd = -1",
    "UPDATE credit_call SET cost_nano_usd = -1",
    "UPDATE credit_call SET status = 6",
    "UPDATE credit_call SET key = ''",
    "UPDATE credit_call SET input_tokens = -1",
    "UPDATE credit_event SET status = 'paid'",
    "UPDATE credit_event SET clawed_back_nano_usd = -1",
    "INSERT INTO credit_payment VALUES ('stripe', 'card', 'x', 1, 1, 1, 1)",
]


@pytest.mark.parametrize("sql", BAD_BALANCES)
def test_no_balance_that_can_not_be(con: sqlite3.Connection, sql: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
        con.execute(sql)


@pytest.mark.parametrize(
    ("source", "target", "amount"), [(3, 9, 0), (3, 9, -5), (3, 3, 5)], ids=str
)
def test_no_transfer_that_moves_nothing(
    con: sqlite3.Connection, source: int, target: int, amount: int
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
        con.execute(
            "INSERT INTO credit_transfer VALUES (1, 99, ?, ?, ?, 1, 0, 0, 1, 0, 1, zeroblob(32))",
            (source, target, amount),
        )


def _copied_grant(con: sqlite3.Connection, **changes: object) -> None:
    names = [column[1] for column in con.execute("PRAGMA table_info(credit_grant)")]
    row = dict(zip(names, con.execute("SELECT * FROM credit_grant").fetchone(), strict=True))
    row |= changes
    if "is_open" in row:
        row["is_open"] = int(row["kind"] != 1 and row["free_nano_usd"] + row["held_nano_usd"] > 0)
    marks = ", ".join("?" * len(row))
    con.execute(f"INSERT INTO credit_grant VALUES ({marks})", tuple(row.values()))


def test_one_allowance_per_period(con: sqlite3.Connection) -> None:
    con.execute("BEGIN")
    _copied_grant(con, grant_no=90, kind=1, license="L", period_start_s=5)
    _copied_grant(con, grant_no=91, kind=1, license="L", period_start_s=6)
    _copied_grant(con, grant_no=92, kind=2, license="L", period_start_s=5)
    with pytest.raises(sqlite3.IntegrityError, match=r"period_start_s|UNIQUE"):
        _copied_grant(con, grant_no=93, kind=1, license="L", period_start_s=5)
    con.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("table", "key"), [("credit_call", "key"), ("credit_practice", "practice_id")]
)
def test_a_key_names_one_call_and_an_id_one_practice(
    con: sqlite3.Connection, table: str, key: str
) -> None:
    number = "call_no" if table == "credit_call" else "practice_no"
    names = [column[1] for column in con.execute(f"PRAGMA table_info({table})")]
    chosen = ", ".join(f"{n} + 70" if n == number else n for n in names)
    with pytest.raises(sqlite3.IntegrityError, match=f"UNIQUE constraint failed: .*{key}"):
        con.execute(f"INSERT INTO {table} SELECT {chosen} FROM {table} LIMIT 1")


def _attempt(con: sqlite3.Connection, event_no: int, status: str, practice_no: int = 1) -> None:
    names = [column[1] for column in con.execute("PRAGMA table_info(credit_event)")]
    found = con.execute("SELECT * FROM credit_event").fetchone()
    row = dict(zip(names, found, strict=True)) | {
        "practice_no": practice_no, "event_no": event_no, "row_id": event_no, "status": status,
        "event_type": "auto_topup_purchase", "topup_id": f"tu_{event_no}",
    }  # fmt: skip
    marks = ", ".join("?" * len(row))
    con.execute(f"INSERT INTO credit_event VALUES ({marks})", tuple(row.values()))


@pytest.mark.parametrize("first", ["pending", "unknown"])
@pytest.mark.parametrize("second", ["pending", "unknown"])
def test_at_most_one_attempt_is_in_flight(con: sqlite3.Connection, first: str, second: str) -> None:
    con.execute("BEGIN")
    _attempt(con, 90, "failed")
    _attempt(con, 91, first)
    _attempt(con, 92, "pending", practice_no=2)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
        _attempt(con, 93, second)
    con.execute("ROLLBACK")


def test_a_payment_is_registered_once(con: sqlite3.Connection) -> None:
    insert = "INSERT INTO credit_payment VALUES (?, ?, ?, ?, 1, 1, 1)"
    con.execute("BEGIN")
    con.execute(insert, ("stripe", "payment", "pi_1", 0))  # test mode is another world
    con.execute(insert, ("other", "payment", "pi_1", 1))
    con.execute(insert, ("stripe", "session", "pi_1", 1))
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE|kept for ever"):
        con.execute(insert, ("stripe", "payment", "pi_1", 1))
    con.execute("ROLLBACK")
