"""Rights on PostgreSQL, tried from raw connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors, sql

from guthaben.domain.commands import Reserve, Settle
from guthaben.store import postgres_roles
from guthaben.store.postgres import connect
from guthaben.store.store import Store
from tests import postgres
from tests.store.bank import Clock, hold, pay, problems

APP_LOGIN, READER_LOGIN = "test_server", "test_reader"


@pytest.fixture(scope="module")
def url() -> str:
    """A database whose roles have members that can log in."""
    url = postgres.fresh()
    with connect(url) as con:
        con.execute("BEGIN")
        assert postgres_roles.ensure(con)
        for login in (APP_LOGIN, READER_LOGIN):
            if not con.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)).fetchone():
                con.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(login)))
        con.execute(f"GRANT {postgres_roles.APP} TO {APP_LOGIN}".encode())
        con.execute("COMMIT")
    return url


def as_login(url: str, login: str) -> str:
    """The same database for another user."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
def served(url: str, clock: Clock) -> Iterator[Store]:
    """A server that runs with the rights of its role only."""
    postgres.fresh()
    store = Store(as_login(url, APP_LOGIN), clock_ms=clock)
    yield store
    store.close()


@pytest.fixture
def reader(url: str, served: Store) -> Iterator[psycopg.Connection[Any]]:
    """A login that may read practice `mine`."""
    for name in ("mine", "theirs"):
        pay(served, name, 10)
        served.execute(name, Settle(hold(served, name, 4, "a"), 3))
    number = served.read(
        lambda cur: cur.execute(
            "SELECT practice_no FROM credit_practice WHERE practice_id = 'mine'"
        ).fetchone()
    )
    with connect(url) as con:
        postgres_roles.bind_reader(con, READER_LOGIN, number[0])
    with psycopg.connect(as_login(url, READER_LOGIN), autocommit=True) as con:
        yield con


def test_a_server_needs_no_more_than_its_role(served: Store) -> None:
    pay(served, "p", 10)
    call_no = hold(served, "p", 4, "a")
    assert served.execute("p", Settle(call_no, 3)).applied
    assert served.execute("p", Reserve("b", 99)).reason == "insufficient_credit"
    assert problems(served) == []


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"{verb} {table}{rest}"
            for table in ("credit_transfer", "credit_key", "credit_payment")
            for verb, rest in (("DELETE FROM", ""), ("TRUNCATE", ""))
        ),
        "UPDATE credit_transfer SET amount_nano_usd = 1",
        "UPDATE credit_key SET body_hash = 1",
        "UPDATE credit_payment SET event_no = 1",
        "UPDATE credit_migration SET number = 99",
        "ALTER TABLE credit_transfer ADD COLUMN x INTEGER",
        "ALTER TABLE credit_transfer DISABLE TRIGGER ALL",
        "DROP TRIGGER credit_transfer_no_update ON credit_transfer",
        "DROP TABLE credit_call",
        "ALTER TABLE credit_call DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (x INTEGER)",
        "SET session_replication_role = replica",
        "INSERT INTO credit_reader VALUES ('test_server', 1)",
    ],
)
def test_a_server_cannot_rewrite_history(url: str, served: Store, statement: str) -> None:
    pay(served, "p", 10)
    with (
        psycopg.connect(as_login(url, APP_LOGIN), autocommit=True) as con,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        con.execute(statement.encode())


def test_a_reader_sees_its_own_practice_only(reader: psycopg.Connection[Any]) -> None:
    assert reader.execute("SELECT practice_id FROM credit_practice").fetchall() == [("mine",)]
    for table in ("credit_grant", "credit_transfer", "credit_call"):
        own = f"SELECT COUNT(*), COUNT(DISTINCT practice_no) FROM {table}"
        found = reader.execute(own.encode()).fetchone()
        assert found is not None
        assert found[0] >= 1, table
        assert found[1] == 1, table
    reader.execute("SET guthaben.practice_id = 'theirs'")
    assert reader.execute("SELECT practice_id FROM credit_practice").fetchall() == [("mine",)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT payment_id FROM credit_event",
        "SELECT * FROM credit_event",
        "SELECT key FROM credit_call",
        "SELECT value FROM credit_meta",
        "SELECT hash FROM credit_api_key",
        "SELECT * FROM credit_reader",
        "SELECT customer_email FROM credit_note",
        "UPDATE credit_grant SET free_nano_usd = 9",
        "INSERT INTO credit_reader VALUES ('test_reader', 2)",
        "UPDATE credit_reader SET practice_no = 2",
        "SET ROLE guthaben_app",
        "SET SESSION AUTHORIZATION postgres",
    ],
)
def test_a_reader_can_do_nothing_else(reader: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        reader.execute(statement.encode())


def test_a_login_that_is_bound_to_nothing_sees_nothing(
    url: str, reader: psycopg.Connection[Any]
) -> None:
    with connect(url) as con:
        con.execute("DELETE FROM credit_reader")
    assert reader.execute("SELECT COUNT(*) FROM credit_practice").fetchone() == (0,)


def test_who_may_not_create_roles_is_told_so(url: str, served: Store) -> None:
    with psycopg.connect(as_login(url, APP_LOGIN), autocommit=True) as con:
        assert not postgres_roles.ensure(con)
