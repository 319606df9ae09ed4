"""Migrations: fresh is the same as migrated, statements stay whole, a later version is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from guthaben.errors import MigrationNeeded, StoreUnavailable
from guthaben.store import schema
from guthaben.store.schema import Migration, migrate, migrations, statements
from guthaben.store.store import Store
from tests.store.bank import pay, problems, rows, url

MORE = """
-- A step of a later version; the trigger's body has semicolons of its own.
CREATE TABLE credit_later (practice_no INTEGER PRIMARY KEY, note TEXT);
CREATE TRIGGER credit_later_guard BEFORE UPDATE ON credit_later
BEGIN
    SELECT RAISE(ABORT, 'no; never');
    DELETE FROM credit_later WHERE CASE WHEN note = ';' THEN 1 ELSE 0 END;
END;
ALTER TABLE credit_later ADD COLUMN extra INTEGER NOT NULL DEFAULT 0;
"""


def schema_of(con: sqlite3.Connection) -> list[tuple[str, str, str]]:
    sql = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
    return con.execute(sql).fetchall()


def later() -> Migration:
    return Migration(migrations()[-1].number + 1, "later", MORE)


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def test_numbers_are_distinct_and_names_are_told() -> None:
    known = migrations()
    assert len({m.number for m in known}) == len(known)
    assert all(m.name and m.sql.strip() for m in known)


def test_fresh_is_the_same_as_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [*migrations(), later()]
    stepwise, fresh = memory(), memory()
    for upto in range(1, len(every) + 1):
        monkeypatch.setattr(schema, "migrations", lambda upto=upto: every[:upto])
        assert migrate(stepwise.cursor(), 1) == [every[upto - 1]]
    assert [m.number for m in migrate(fresh.cursor(), 1)] == [m.number for m in every]
    assert schema_of(stepwise) == schema_of(fresh)
    assert migrate(fresh.cursor(), 2) == []


def test_a_step_that_was_joined_later_with_a_lower_number_is_not_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = migrations()
    con = memory()
    monkeypatch.setattr(schema, "migrations", lambda: [*known[:1], later()])
    migrate(con.cursor(), 1)
    monkeypatch.setattr(schema, "migrations", lambda: [*known, later()])
    assert migrate(con.cursor(), 1) == known[1:]


def test_each_key_stands_once_whatever_leads_its_index() -> None:
    con = memory()
    migrate(con.cursor(), 1)
    names = [name for *_, name in con.execute("PRAGMA index_info(credit_call_key)")]
    assert names == ["key", "practice_no", "operation"]
    found = {name: unique for _, name, unique, *_ in con.execute("PRAGMA index_list(credit_call)")}
    assert found["credit_call_key"] == 1


def test_a_database_with_money_in_it_survives_a_migration(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_money = Store(url(path))
    pay(with_money, "p", 100)
    with_money.close()
    every = [*migrations(), later()]
    monkeypatch.setattr(schema, "migrations", lambda: every)
    again = Store(url(path))
    assert problems(again) == []
    (newest,) = rows(again, "SELECT MAX(number) FROM credit_migration")[0]
    assert newest == every[-1].number
    again.close()


def test_a_later_version_is_refused_and_nothing_changes(path: Path) -> None:
    Store(url(path)).close()
    con = sqlite3.connect(path)
    con.execute("INSERT INTO credit_migration VALUES (999, 'later', 1)")
    con.commit()
    before = schema_of(con)
    with pytest.raises(MigrationNeeded, match="999 is newer"):
        Store(url(path))
    assert schema_of(con) == before


def test_a_step_that_breaks_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration(1, "broken", "CREATE TABLE half (a);\nINSERT INTO missing VALUES (1);\n")
    monkeypatch.setattr(schema, "migrations", lambda: [broken])
    with pytest.raises(StoreUnavailable, match="missing"):
        Store(url(path))
    assert schema_of(sqlite3.connect(path)) == []


@pytest.mark.parametrize(("theirs", "pages"), [(None, 2048), (8192, 8192)])
def test_a_new_file_gets_small_pages_and_an_old_one_keeps_its_own(
    path: Path, theirs: int | None, pages: int
) -> None:
    if theirs:
        con = sqlite3.connect(path)
        con.executescript(f"PRAGMA page_size = {theirs}; CREATE TABLE host (a)")
        con.close()
    Store(url(path)).close()
    con = sqlite3.connect(path)
    assert con.execute("PRAGMA page_size").fetchone() == (pages,)
    assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    con.close()


def test_what_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"a letter, not a database" * 100)
    with pytest.raises(StoreUnavailable):
        Store(url(path))
    assert path.read_bytes().startswith(b"a letter")


@pytest.mark.parametrize(
    ("sql", "pieces"),
    [
        ("", 0),
        ("-- only words\n\n", 0),
        ("SELECT 1;\n", 1),
        ("SELECT 1;\n-- words; with a semicolon\nSELECT 2;\n", 2),
        ("SELECT ';';\nSELECT 2;\n", 2),
        ("SELECT\n  1,\n  ';\n';\n", 1),
        (MORE, 3),
    ],
)
def test_statements(sql: str, pieces: int) -> None:
    found = list(statements(sql))
    assert len(found) == pieces
    assert all(sqlite3.complete_statement(piece) for piece in found)


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "SELECT 1;\nSELECT 2", "CREATE TRIGGER a\nBEGIN\n  SELECT 1;\n"]
)
def test_an_incomplete_statement_is_named(sql: str) -> None:
    with pytest.raises(ValueError, match="incomplete SQL statement"):
        list(statements(sql))


def test_every_own_statement_can_be_executed() -> None:
    con = memory()
    for migration in migrations():
        for statement in statements(migration.sql):
            con.execute(statement)
    assert len(schema_of(con)) > 20


def test_each_database_has_a_secret_of_its_own() -> None:
    secrets = set()
    for con in (memory(), memory()):
        migrate(con.cursor(), 1)
        secrets.add(con.execute("SELECT value FROM credit_meta WHERE name = 'secret'").fetchone())
    assert len(secrets) == 2
    assert all(len(secret) == 64 for (secret,) in secrets)
