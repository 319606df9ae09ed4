"""Moving in and moving house: everything arrives once, and what differs is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guthaben import Guthaben
from guthaben.cli import main
from guthaben.errors import ConfigError, MigrationNeeded
from guthaben.services.moving import copy_database, import_old_file
from tests import postgres
from tests.modules.host import create_licenses
from tests.modules.old import LEDGER, SETTINGS, USAGE, old_entry, old_settings, old_usage


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guthaben]:
    url = postgres.fresh() if request.param == "postgresql" else f"sqlite:///{tmp_path}/target.db"
    with Guthaben.open(url) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Guthaben]:
    """A database with something of most kinds in it."""
    with Guthaben.open(f"sqlite:///{tmp_path}/source.db") as opened:
        for number in range(3):
            name = f"prac_{number}"
            opened.grant(name, 10**9, key="paid", kind="paid")
            opened.grant(name, 10**8, key="gift", kind="promotional", expires_at_s=1 << 35)
            for call in range(5):
                opened.reserve(name, 10**6, key=f"c{call}").settle(700_000 + call, model="m")
            opened.reserve(name, 5_000_000, key="open")
            opened.record_usage(name, 3 * 10**9 * (number == 2), key="u")
            opened.adjust(name, -1_000, key="adjust", reason="a test")
        yield opened


def everything(credit: Guthaben) -> list[Any]:
    """All that a practice sees, as a process sees it that opens the database now."""
    with Guthaben.open(credit.core.store.url) as opened:
        return [
            (name, opened.balance(name), opened.statement(name).entries, opened.calls(name))
            for name in ("prac_0", "prac_1", "prac_2")
        ]


def test_a_copy_is_the_same_to_the_last_digit(source: Guthaben, target: Guthaben) -> None:
    moved = copy_database(source.core.store, target.core.store)
    assert moved.ok
    assert (moved.repeated, len(moved.practices)) == (False, 3)
    assert moved.rows["credit_practice"] == 3
    assert everything(target) == everything(source)


def test_a_copy_goes_on_where_the_original_was(source: Guthaben, target: Guthaben) -> None:
    call = source.reserve("prac_0", 5_000_000, key="open")
    copy_database(source.core.store, target.core.store)
    # The same key is the same call, and its public name is still its name.
    with Guthaben.open(target.core.store.url) as opened:
        again = opened.reserve("prac_0", 5_000_000, key="open")
        assert (again.replayed, again.id) == (True, call.id)
        again.settle(4_000_000)
    target.grant("prac_0", 7, key="later", kind="paid")
    target.grant("prac_new", 7, key="later", kind="paid")
    assert target.grant("prac_0", 10**9, key="paid", kind="paid").replayed
    assert target.verify().ok


def test_copying_again_changes_nothing(source: Guthaben, target: Guthaben) -> None:
    copy_database(source.core.store, target.core.store)
    before = everything(target)
    again = copy_database(source.core.store, target.core.store)
    assert (again.ok, again.repeated, again.rows) == (True, True, {})
    assert everything(target) == before


def test_a_difference_afterwards_is_named(source: Guthaben, target: Guthaben) -> None:
    copy_database(source.core.store, target.core.store)
    target.grant("prac_1", 5, key="more", kind="paid")
    again = copy_database(source.core.store, target.core.store)
    assert not again.ok
    assert [one.practice_id for one in again.practices if not one.same] == ["prac_1"]


def test_copies_arrive_beside_others(source: Guthaben, target: Guthaben) -> None:
    target.grant("prac_there", 5, key="a", kind="paid")
    target.adjust("prac_there", 3, key="b", reason="a test")
    moved = copy_database(source.core.store, target.core.store)
    assert moved.ok
    assert target.balance("prac_there").available_nano_usd == 8
    assert [one.practice_id for one in moved.practices] == ["prac_0", "prac_1", "prac_2"]


def test_a_practice_that_is_there_already_stops_the_copy(
    source: Guthaben, target: Guthaben
) -> None:
    target.grant("prac_1", 5, key="a", kind="paid")
    with pytest.raises(MigrationNeeded, match="practice prac_1 exists in the target already"):
        copy_database(source.core.store, target.core.store)
    assert target.balance("prac_1").available_nano_usd == 5
    assert target.balance("prac_0").available_nano_usd == 0


# ---------------------------------------------------------------- the old application's file


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as con:
        create_licenses(con)
        for table in (LEDGER, USAGE, SETTINGS):
            con.execute(table)
        old_entry(con, 6.6667, stripe_payment_intent_id="pi_1")
        old_entry(con, 0.1, stripe_payment_intent_id="pi_2")
        old_entry(con, 0.2, practice_id="prac_other", stripe_payment_intent_id="pi_3")
        old_entry(con, 5.0, status="failed")
        old_entry(con, -2.5, event_type="refund", amount_paid_chf=-7.5)
        old_usage(con, 1.35e-05)
        old_usage(con, 0.7, status="error")
        old_usage(con, 0.1, status="blocked_limit")
        old_usage(con, 0.3, practice_id="prac_other")
        old_settings(con)
    return path


def test_an_old_file_is_taken_over_to_the_last_digit(old: Path, target: Guthaben) -> None:
    before = old.read_bytes()
    moved = import_old_file(old, target.core.store)
    assert moved.ok, moved
    told = {one.practice_id: dict(one.after) for one in moved.practices}
    assert told == {
        "prac_top": {"credited_nano_usd": 4_266_700_000, "used_nano_usd": 700_013_500},
        "prac_other": {"credited_nano_usd": 200_000_000, "used_nano_usd": 300_000_000},
    }
    assert old.read_bytes() == before
    again = import_old_file(old, target.core.store)
    assert (again.ok, again.repeated, again.rows) == (True, True, {})


def test_what_nobody_can_explain_is_listed_and_nothing_taken(old: Path, target: Guthaben) -> None:
    with closing(sqlite3.connect(old)) as con:
        old_entry(con, float("inf"))
        old_entry(con, 1.0, stripe_payment_intent_id="pi_1")
    with pytest.raises(MigrationNeeded) as refused:
        import_old_file(old, target.core.store)
    assert len(refused.value.problems) == 2
    assert target.verify().practices == 0


def test_a_file_that_went_on_is_refused(old: Path, target: Guthaben) -> None:
    import_old_file(old, target.core.store)
    with closing(sqlite3.connect(old)) as con:
        old_entry(con, 1.0, stripe_payment_intent_id="pi_9")
    with pytest.raises(MigrationNeeded, match="exists in the target already"):
        import_old_file(old, target.core.store)


def test_other_files_are_refused(tmp_path: Path, source: Guthaben, target: Guthaben) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        import_old_file(tmp_path / "none.sqlite", target.core.store)
    with pytest.raises(ConfigError, match="copy it with guthaben copy"):
        import_old_file(tmp_path / "source.db", target.core.store)


# ---------------------------------------------------------------- by hand


def test_the_commands(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["guthaben", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    first, second = f"sqlite:///{tmp_path}/first.db", f"sqlite:///{tmp_path}/second.db"
    code, said = run("import", str(old), "--db", first)
    assert (code, "2 of 2 practices are the same" in said) == (0, True)
    code, said = run("copy", "--db", first, "--to", second, "--json")
    assert (code, json.loads(said)["ok"]) == (0, True)
    code, said = run("copy", "--db", first, "--to", second)
    assert (code, "had been moved before" in said) == (0, True)
