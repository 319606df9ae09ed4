"""The parts of the simulation: yard, disk, clock, and an oracle that is nobody's copy."""

from __future__ import annotations

import ast
import sqlite3
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.simulation import book
from tests.simulation.clock import EDGES, month_of, until_next_month_s
from tests.simulation.disk import Disk, Mishap
from tests.simulation.yard import Crash, Process, Yard

HERE = Path(__file__).parent
ORACLE = ("attempts.py", "book.py", "clock.py", "ending.py", "ledger.py", "oracle.py", "truth.py")


def _yard(seed: int, *, park: int = 500, crash: int = 0) -> Yard:
    yard = Yard(lambda _line: None)
    yard.rng = Random(seed)
    yard.odds.park, yard.odds.crash = park, crash
    return yard


def _told(seed: int) -> list[str]:
    yard, told = _yard(seed), []
    for name in "abc":

        def work(name: str = name) -> None:
            for number in range(3):
                told.append(f"{name}{number}")
                yard.point("somewhere")

        yard.spawn(name, Process("A"), work)
    yard.drain()
    return told


def test_the_seed_alone_decides_the_order_of_turns() -> None:
    assert _told(1) == _told(1)
    assert len({tuple(_told(seed)) for seed in range(20)}) > 5
    assert sorted(_told(7)) == [f"{name}{number}" for name in "abc" for number in range(3)]


def test_a_process_dies_as_a_whole_and_the_others_live() -> None:
    yard, told = _yard(2), []
    doomed, safe = Process("A"), Process("B")

    def work(name: str) -> None:
        for number in range(4):
            yard.point("somewhere")
            told.append(name)
            if name == "kills" and number == 1:
                yard.kill(doomed, "a test")

    for name, process in (("kills", doomed), ("dies", doomed), ("lives", safe)):
        yard.spawn(name, process, partial(work, name))
    yard.drain()
    assert told.count("kills") == 2
    assert told.count("dies") < 4
    assert told.count("lives") == 4


def test_what_dies_unwinds_without_doing_anything_more() -> None:
    yard, told = _yard(3, crash=1000), []

    def work() -> None:
        try:
            yard.point("somewhere")
            told.append("went on")
        finally:
            with pytest.raises(Crash):
                yard.point("cleaning up")
            told.append("unwound")

    yard.spawn("task", Process("A"), work)
    yard.drain()
    assert told == ["unwound"]


def test_an_error_of_a_task_ends_the_run() -> None:
    yard = _yard(4)
    yard.spawn("task", Process("A"), lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        yard.drain()


def test_the_disk_keeps_what_was_committed_and_nothing_else() -> None:
    disk = Disk()
    con = disk.open()
    write = "INSERT INTO credit_meta (name, value) VALUES (?, 'x')"
    cursor = con.cursor()
    for name in ("kept", "lost"):
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute(write, (name,))
        if name == "kept":
            cursor.execute("COMMIT")
    con.rollback()  # what a dying process leaves to the database
    con.close()
    names = {row[0] for row in disk.looking.execute("SELECT name FROM credit_meta")}
    assert "kept" in names
    assert "lost" not in names
    disk.close()


@pytest.mark.parametrize(
    ("mishap", "kept", "open_after"), [("lost", True, False), ("undone", False, True)]
)
def test_a_commit_fails_done_or_undone(mishap: Mishap, kept: bool, open_after: bool) -> None:
    disk = Disk()
    con = disk.open()
    con.before = lambda sql: mishap if sql == "COMMIT" else ""
    cursor = con.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    cursor.execute("INSERT INTO credit_meta (name, value) VALUES ('new', 'x')")
    with pytest.raises(sqlite3.OperationalError):
        cursor.execute("COMMIT")
    assert con.in_transaction is open_after
    con.rollback()
    found = disk.looking.execute("SELECT 1 FROM credit_meta WHERE name = 'new'").fetchone()
    assert (found is not None) is kept
    con.close()
    disk.close()


def test_processes_have_connections_of_their_own() -> None:
    disk = Disk()
    one, two = disk.open(), disk.open()
    one.cursor().execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        two.cursor().execute("BEGIN IMMEDIATE")
    one.rollback()
    two.cursor().execute("BEGIN IMMEDIATE")
    for con in (one, two):
        con.close()
    disk.close()


def test_zurichs_months_and_the_edges() -> None:
    ends = [edge for edge in EDGES if until_next_month_s(int(edge.timestamp()) - 1) == 1]
    assert len(ends) == len(EDGES) - 2  # all but the two days on which the clocks change
    for edge in ends:
        at_s = int(edge.timestamp())
        assert month_of(at_s - 1) != month_of(at_s)
    assert month_of(int(datetime(2026, 10, 31, 23, tzinfo=UTC).timestamp())) == "2026-11"
    assert month_of(int(datetime(2026, 3, 31, 21, 59, tzinfo=UTC).timestamp())) == "2026-03"


def test_what_credit_costs_and_what_may_stay_of_it() -> None:
    assert book.bought_nano_usd(3_000) == 10_000_000_000
    assert book.bought_nano_usd(1_000) == 3_333_300_000
    assert book.bought_nano_usd(5_000) == 16_666_700_000
    assert book.left_nano_usd(10, 2, 3) == 6
    assert book.left_nano_usd(10, -5, 3) == 0


def test_the_oracle_imports_nothing_that_it_judges() -> None:
    allowed = {"guthaben.sandbox.model"}
    for name in ORACLE:
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
        imported = {
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        ours = {module for module in imported if module.startswith("guthaben")}
        assert ours <= allowed, name
