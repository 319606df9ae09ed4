"""A host's own connection: what the host began only the host ends; nothing of it is changed."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.commands import GrantCredit, Reserve
from guthaben.domain.grants import PAID
from guthaben.errors import StoreUnavailable
from guthaben.store.adopted import Adopted
from guthaben.store.connection import joined
from guthaben.store.workspace import Workspace
from tests.store.bank import Clock, prepared

LEVELS: list[dict[str, Any]] = [
    {"isolation_level": None}, {"isolation_level": ""}, {"isolation_level": "DEFERRED"},
    {"isolation_level": "IMMEDIATE"},
]  # fmt: skip
if sys.version_info >= (3, 12):
    LEVELS += [{"autocommit": True}]


@pytest.fixture(params=LEVELS, ids=str)
def con(request: pytest.FixtureRequest, path: Path) -> Iterator[sqlite3.Connection]:
    """The host's connection, with a table of the host."""
    opened = prepared(path, **request.param)
    opened.execute("CREATE TABLE host (note TEXT)")
    yield opened
    opened.close()


@pytest.fixture
def other(path: Path, con: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Somebody else, who sees only what was committed."""
    opened = sqlite3.connect(path, timeout=0.2, isolation_level=None)
    yield opened
    opened.close()


@pytest.fixture
def adopted(con: sqlite3.Connection, clock: Clock) -> Adopted:
    return Adopted(con, clock)


@pytest.fixture
def always(path: Path) -> Iterator[sqlite3.Connection]:
    """A host's connection with a transaction open from its first moment, as PEP 249 has it."""
    opened = prepared(path, autocommit=False)
    opened.execute("CREATE TABLE host (note TEXT)")
    opened.commit()
    yield opened
    opened.close()


def roll_back(con: sqlite3.Connection) -> None:
    """End what the host began, as its mode does: with autocommit, rollback() does nothing."""
    if getattr(con, "autocommit", None) is True:
        con.execute("ROLLBACK")
    else:
        con.rollback()


def grant(space: Workspace, key: str = "g") -> None:
    assert space.apply("p", GrantCredit(key, PAID, 100)).ok


def grants(con: sqlite3.Connection) -> int:
    return int(con.execute("SELECT COUNT(*) FROM credit_grant").fetchone()[0])


def notes(con: sqlite3.Connection) -> list[str]:
    return [row[0] for row in con.execute("SELECT note FROM host ORDER BY note")]


def test_what_we_begin_we_commit(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    adopted.run(grant)
    assert not con.in_transaction
    assert grants(other) == 1


def test_an_open_transaction_stays_open_until_the_host_commits(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    con.execute("BEGIN")
    con.execute("INSERT INTO host VALUES ('before')")
    adopted.run(grant)
    con.execute("INSERT INTO host VALUES ('after')")
    assert con.in_transaction
    assert (grants(other), notes(other)) == (0, [])
    con.execute("COMMIT")
    assert (grants(other), notes(other)) == (1, ["after", "before"])


def test_an_implicit_transaction_of_the_host_is_one_too(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    con.execute("INSERT INTO host VALUES ('before')")
    implicit = con.in_transaction  # not with isolation_level None
    adopted.run(grant)
    assert con.in_transaction is implicit
    assert grants(other) == (0 if implicit else 1)
    con.commit()
    assert (grants(other), notes(other)) == (1, ["before"])


def test_the_hosts_rollback_removes_our_work(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    adopted.run(grant)
    con.execute("BEGIN")
    con.execute("INSERT INTO host VALUES ('before')")
    adopted.run(lambda space: grant(space, "second"))
    assert grants(con) == 2
    roll_back(con)
    assert (grants(con), grants(other), notes(con)) == (1, 1, [])
    adopted.run(lambda space: grant(space, "second"))  # the key went with it
    assert grants(other) == 2


def test_our_exception_undoes_our_work_only(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    def broken(space: Workspace) -> None:
        grant(space)
        space.flush()
        raise LookupError("changed my mind")

    con.execute("BEGIN")
    con.execute("INSERT INTO host VALUES ('before')")
    with pytest.raises(LookupError):
        adopted.run(broken)
    assert con.in_transaction
    assert (grants(con), notes(con)) == (0, ["before"])
    con.execute("COMMIT")
    assert (grants(other), notes(other)) == (0, ["before"])
    with pytest.raises(LookupError):
        adopted.run(broken)
    assert not con.in_transaction
    assert grants(other) == 0


def test_work_within_work(con: sqlite3.Connection, adopted: Adopted) -> None:
    def outer(space: Workspace) -> None:
        grant(space, "outer")
        space.flush()
        with pytest.raises(LookupError):
            inner()

    def inner() -> None:
        with joined(con) as cursor:
            cursor.execute("INSERT INTO host VALUES ('inner')")
            raise LookupError

    adopted.run(outer)
    assert (grants(con), notes(con), con.in_transaction) == (1, [], False)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_hosts_factories_are_untouched_and_do_not_touch_us(
    con: sqlite3.Connection, adopted: Adopted, breaks: bool
) -> None:
    def rows_as_dicts(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    con.row_factory, con.text_factory = rows_as_dicts, bytes

    def work(space: Workspace) -> str:
        grant(space)
        told = space.apply("p", Reserve("r", 40))
        assert told.call is not None
        assert told.call.key == "r"
        if breaks:
            raise LookupError
        return space.practice("p").practice_id

    for _ in range(2):  # the second time it reads what the first has stored
        if breaks:
            with pytest.raises(LookupError):
                adopted.run(work)
        else:
            assert adopted.run(work) == "p"
    assert con.row_factory is rows_as_dicts
    assert con.text_factory is bytes
    assert con.execute("SELECT 'x' AS a").fetchone() == {"a": b"x"}
    assert adopted.read(lambda cursor: cursor.execute("SELECT 'x'").fetchone()) == ("x",)
    assert con.text_factory is bytes


def test_a_question_sees_the_hosts_own_transaction(
    con: sqlite3.Connection, adopted: Adopted
) -> None:
    con.execute("BEGIN")
    con.execute("INSERT INTO host VALUES ('mine')")
    count = "SELECT COUNT(*) FROM host"
    assert adopted.read(lambda cursor: cursor.execute(count).fetchone()) == (1,)
    assert con.in_transaction
    roll_back(con)


def test_no_pragma_of_the_host_is_changed(con: sqlite3.Connection, adopted: Adopted) -> None:
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "temp_store")
    before = [con.execute(f"PRAGMA {name}").fetchone() for name in pragmas]
    adopted.run(grant)
    assert [con.execute(f"PRAGMA {name}").fetchone() for name in pragmas] == before


def test_a_locked_database_is_unavailable_and_the_connection_lives_on(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        adopted.run(grant)
    assert not con.in_transaction
    other.execute("ROLLBACK")
    adopted.run(grant)
    assert grants(other) == 1


def test_a_stale_snapshot_is_unavailable_at_once(
    path: Path, con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    assert con.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    con.execute("PRAGMA busy_timeout = 60000")
    con.execute("BEGIN")
    assert notes(con) == []  # from here on the host sees this moment
    other.execute("INSERT INTO host VALUES ('elsewhere')")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked"):
        adopted.run(grant)
    assert time.monotonic() - began < 30  # waiting would not help
    assert con.in_transaction
    assert notes(con) == []
    roll_back(con)
    adopted.run(grant)
    assert (grants(other), notes(con)) == (1, ["elsewhere"])


def test_a_host_that_wrote_first_has_no_stale_snapshot(
    con: sqlite3.Connection, other: sqlite3.Connection, adopted: Adopted
) -> None:
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("BEGIN")
    con.execute("INSERT INTO host VALUES ('before')")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("INSERT INTO host VALUES ('elsewhere')")
    adopted.run(grant)
    con.execute("COMMIT")
    assert grants(other) == 1


def test_a_store_that_is_missing_is_unavailable(tmp_path: Path, clock: Clock) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as con:
        with pytest.raises(StoreUnavailable, match="no such table"):
            Adopted(con, clock).run(grant)
        assert not con.in_transaction


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit came with Python 3.12")
def test_where_a_transaction_is_always_open_the_host_alone_ends_it(
    path: Path, always: sqlite3.Connection, clock: Clock
) -> None:
    adopted, seen = Adopted(always, clock), sqlite3.connect(path, timeout=0.2)
    adopted.run(grant)
    assert (always.in_transaction, grants(always), grants(seen)) == (True, 1, 0)
    always.commit()
    assert (always.in_transaction, grants(seen)) == (True, 1)
    always.execute("INSERT INTO host VALUES ('before')")
    adopted.run(lambda space: grant(space, "second"))

    def breaks(space: Workspace) -> None:
        grant(space, "third")
        space.flush()
        raise LookupError

    with pytest.raises(LookupError):
        adopted.run(breaks)
    assert (always.in_transaction, grants(always), notes(always)) == (True, 2, ["before"])
    always.rollback()
    assert (always.in_transaction, grants(always), notes(always)) == (True, 1, [])
    adopted.run(lambda space: grant(space, "second"))  # the key went with it
    always.commit()
    assert grants(seen) == 2
    seen.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit came with Python 3.12")
def test_where_a_transaction_is_always_open_a_stale_snapshot_ends_with_it(
    path: Path, always: sqlite3.Connection, clock: Clock
) -> None:
    adopted, other = Adopted(always, clock), sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    assert notes(always) == []  # from here on the host sees this moment
    other.execute("INSERT INTO host VALUES ('elsewhere')")
    with pytest.raises(StoreUnavailable, match="locked"):
        adopted.run(grant)
    assert (always.in_transaction, notes(always)) == (True, [])
    always.rollback()
    adopted.run(grant)
    always.commit()
    assert (grants(other), notes(always)) == (1, ["elsewhere"])
    other.close()
