"""Verify finds what was changed behind the engine's back, and names the place."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from guthaben.domain.commands import (
    Adjust,
    Command,
    Fulfil,
    GrantCredit,
    NetPayment,
    OpenEvent,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    Settle,
)
from guthaben.domain.grants import PAID, PROMOTIONAL
from guthaben.domain.topup import PENDING, TOPUP_PURCHASE, CreditEvent
from guthaben.store import verify as verifying
from guthaben.store import verify_rows
from guthaben.store.store import Store
from guthaben.store.verify import groups, verify
from guthaben.store.verify_rows import Stored
from tests.store.bank import T0_S, Clock, problems, url

PURCHASE = CreditEvent(0, TOPUP_PURCHASE, PENDING, 300, 3000, bonus_nano_usd=30)
HISTORY: list[Command] = [
    SetLicense("L", True, T0_S, T0_S + 86_400, 100),  # its first touch makes grant 2
    GrantCredit("g", PAID, 200),  # grant 1
    Reserve("settled", 150),  # call 1
    Settle(1, 140),
    GrantCredit("promo", PROMOTIONAL, 50, T0_S + 999_999),  # grant 3
    Reserve("open", 60),  # call 2: 50 of grant 3 and 10 of grant 1
    OpenEvent(PURCHASE),  # event 1
    Fulfil(1, "pi_1", "cs_1"),  # grants 4 and 5
    Reserve("charged", 40, on_exception=2),  # call 3
    Release(3, 2),
    Settle(3, 25),  # late: 15 come back
    Reserve("released", 10),  # call 4
    Release(4),
    NetPayment(1, 1500),  # event 2: half is refunded
    Adjust("a", -5, PAID),  # event 3
    RecordUsage("u", 33),  # call 5
    Adjust("b", 7, PAID),  # event 4, grant 6
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with something of everything, and no trigger that guards it."""
    path = tmp_path_factory.mktemp("kept") / "kept.db"
    store = Store(url(path), clock_ms=Clock())
    for command in HISTORY:
        outcome = store.execute("p", command)
        assert outcome.applied, (command, outcome)
    for command in (RecordUsage("u", 5), GrantCredit("g", PAID, 3)):
        assert store.execute("q", command).applied
    assert problems(store) == []
    store.close()
    con = sqlite3.connect(path, isolation_level=None)
    sql = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    for (name,) in con.execute(sql).fetchall():
        con.execute(f"DROP TRIGGER {name}")
    con.close()
    return path


@pytest.fixture
def con(kept: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The hand of somebody who may write to the file."""
    copied = tmp_path / "copy.db"
    shutil.copyfile(kept, copied)
    with closing(sqlite3.connect(copied, isolation_level=None)) as opened:
        opened.execute("PRAGMA ignore_check_constraints = ON")
        yield opened


def found(con: sqlite3.Connection) -> list[str]:
    told = verify(con.cursor(), None, T0_S)
    return [f"{problem.practice_id}: {problem.text}" for problem in told.problems]


def test_untouched_it_is_sound(con: sqlite3.Connection) -> None:
    told = verify(con.cursor(), None, T0_S)
    assert told.ok
    assert told.practices == 2
    assert told.transfers == con.execute("SELECT COUNT(*) FROM credit_transfer").fetchone()[0]
    only = verify(con.cursor(), "q", T0_S)
    assert (only.practices, only.ok) == (1, True)
    assert verify(con.cursor(), "nobody", T0_S).practices == 0


TRANSFER_COLUMNS = (
    "source", "target", "amount_nano_usd", "grant_no", "call_no", "event_no", "code",
    "reverses_seq", "at_s",
)  # fmt: skip


@pytest.mark.parametrize("column", TRANSFER_COLUMNS)
@pytest.mark.parametrize("seq", [1, 7, -1], ids=["first", "middle", "last"])
def test_any_edit_of_a_transfer(con: sqlite3.Connection, column: str, seq: int) -> None:
    if seq < 0:
        sql = "SELECT last_seq FROM credit_practice WHERE practice_no = 1"
        (seq,) = con.execute(sql).fetchone()
    con.execute(
        f"UPDATE credit_transfer SET {column} = {column} + 1 WHERE practice_no = 1 AND seq = ?",
        (seq,),
    )
    assert f"p: transfer {seq} was altered: its hash does not follow from {seq - 1}" in found(con)


def edit(table: str, change: str, where: str = "1") -> str:
    return f"UPDATE credit_{table} SET {change} WHERE practice_no = 1 AND {where}"


def drop(table: str, where: str = "1") -> str:
    return f"DELETE FROM credit_{table} WHERE practice_no = 1 AND {where}"


LAST = "seq = (SELECT last_seq FROM credit_practice WHERE practice_no = 1)"
AGAIN = """
    INSERT INTO credit_transfer SELECT practice_no, seq + 1, source, target, amount_nano_usd,
    grant_no, call_no, event_no, code, reverses_seq, at_s, hash FROM credit_transfer
    WHERE practice_no = 1 ORDER BY seq DESC LIMIT 1
"""
EDITS = {
    # the journal
    drop("transfer", "seq = 3"): "transfer 3 is missing",
    drop("transfer", LAST): "the journal ends at",
    drop("transfer"): "the journal ends at transfer 0",
    edit("transfer", "hash = zeroblob(32)", "seq = 4"): "transfer 4 was altered",
    edit("transfer", "practice_no = 2, seq = 99", "seq = 2"): "transfer 2 is missing",
    edit("transfer", "practice_no = 9", "seq = 2"): "credit_transfer belong to no practice",
    AGAIN: "was altered",
    # the practice
    edit("practice", "head = zeroblob(32)"): "the head stored beside transfer",
    edit("practice", "last_seq = last_seq + 1"): "the journal ends at",
    edit("practice", "held_nano_usd = 0"): "held: the open calls say 60, stored is 0",
    edit("practice", "debt_nano_usd = 5"): "debt: the journal says 0, stored is 5",
    edit("practice", "practice_id = 'r'"): "transfer 1 was altered",
    edit("practice", "next_due_ms = 1 << 62"): "the practice is not looked at before",
    drop("practice"): "belong to no practice",
    # grants
    edit("grant", "free_nano_usd = free_nano_usd + 1", "grant_no = 1"): "grant 1: the journal",
    edit("grant", "free_nano_usd = 1, held_nano_usd = 49", "grant_no = 3"): (
        "grant 3: the open calls hold 50, stored is 49"
    ),
    edit("grant", "held_nano_usd = 1", "grant_no = 4"): "grant 4: the",
    edit("grant", "kind = 3", "grant_no = 3"): "grant 3: ",
    edit("grant", "kind = 1", "grant_no = 1"): "grant 1: ",
    edit("grant", "granted_nano_usd = 500", "grant_no = 4"): "grant 4: ",
    edit("grant", "event_no = 0", "grant_no = 4"): "credit event 1: its grant is missing",
    drop("grant", "grant_no = 3"): "grant 3: the journal says 50, there is no such grant",
    drop("grant", "grant_no = 4"): "grant 4: the journal says 150, there is no such grant",
    # calls
    edit("call", "cost_nano_usd = 139", "call_no = 1"): (
        "call 1: the journal says 140 was used, stored is 139"
    ),
    edit("call", "cost_nano_usd = 1", "call_no = 4"): "call 4: the journal says 0 was used",
    edit("call", "reserved_nano_usd = 61", "call_no = 2"): "call 2: its slices are not its",
    edit("call", "slices = '3:50,4:10'", "call_no = 2"): "grant 4: the open calls hold 10",
    edit("call", "slices = ''", "call_no = 2"): "call 2: its slices are not its reservation",
    edit("call", "status = 3", "call_no = 2"): "held: the open calls say 0",
    edit("call", "status = 1", "call_no = 1"): "held: the open calls say 210",
    drop("call", "call_no = 2"): "held: the open calls say 0",
    drop("call", "call_no = 1"): "call 1: the journal speaks of it",
    edit("call", "call_no = 77", "call_no = 3"): "call 3: the journal speaks of it",
    edit("call", "practice_no = 9", "call_no = 4"): "credit_call belong to no practice",
    # money
    drop("payment", "kind = 'payment'"): "credit event 1: its payment is not in the registry",
    edit("event", "clawed_back_nano_usd = 0", "event_no = 1"): "credit event 1: ",
    edit("event", "amount_nano_usd = 999", "event_no = 1"): "credit event 1: ",
    edit("event", "bonus_nano_usd = 999", "event_no = 1"): "credit event 1: ",
    edit("event", "status = 'failed'", "event_no = 1"): "credit event 1: ",
    drop("event", "event_no = 1"): "credit event 1: ",
    edit("event", "amount_nano_usd = -1", "event_no = 2"): "credit event ",
    drop("event", "event_no = 2"): "credit event ",
    drop("event", "event_no = 3"): "credit event 3: ",
    edit("event", "amount_nano_usd = 8", "event_no = 4"): "credit event 4: ",
}


@pytest.fixture(params=["together", "in pages"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, or every practice by itself and two transfers at a time."""
    if request.param == "in pages":
        monkeypatch.setattr(verify_rows, "PAGE_TRANSFERS", 2)
        monkeypatch.setattr(verify_rows, "PAGE_PRACTICES", 1)
        monkeypatch.setattr(verifying, "WORTH_A_QUESTION", 1)
        monkeypatch.setattr(verifying, "GROUP_PRACTICES", 1)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize(("sql", "told"), EDITS.items(), ids=[" ".join(e.split()) for e in EDITS])
def test_an_edit_is_found_and_named(con: sqlite3.Connection, sql: str, told: str) -> None:
    assert con.execute(sql).rowcount > 0
    assert any(told in text for text in found(con)), found(con)


@pytest.mark.usefixtures("sizes")
def test_sound_is_sound_whatever_the_pages(con: sqlite3.Connection) -> None:
    assert found(con) == []
    assert verify(con.cursor(), None, T0_S).practices == 2


def test_small_practices_go_together_and_a_large_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verifying, "GROUP_TRANSFERS", 100)
    monkeypatch.setattr(verifying, "GROUP_PRACTICES", 3)
    sizes = [1, 1, 1, 1, 60, 60, 40, 500, 0, 0]
    made = [Stored(no, str(no), b"", size, 0, 0, 0) for no, size in enumerate(sizes, 1)]
    told = [[stored.last_seq for stored in group] for group in groups(made)]
    assert told == [[1, 1, 1], [1, 60], [60, 40], [500], [0, 0]]


def test_debt_beside_free_credit_is_found(con: sqlite3.Connection) -> None:
    con.execute("UPDATE credit_practice SET debt_nano_usd = 5 WHERE practice_no = 1")
    assert any("stands beside free bought or given credit" in text for text in found(con))
    later = verify(con.cursor(), "q", T0_S)
    assert later.ok  # each practice by itself
