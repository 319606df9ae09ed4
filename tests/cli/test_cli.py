"""The command line as scripts and people use it: output, exit codes, one-line errors."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guthaben import Guthaben
from guthaben.cli.app import app
from tests.programs import guthaben

DONE, REFUSED, USAGE, UNAVAILABLE, SETTINGS = 0, 1, 2, 3, 4
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def command(*arguments: str, code: int = DONE) -> Any:
        result = runner.invoke(app, list(arguments))
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        if code == DONE and "--json" in arguments:
            return json.loads(result.stdout)
        return result

    return command


@pytest.fixture
def ready(run: Run) -> Run:
    """Run commands on a database that is there."""
    run("migrate")
    return run


def test_a_database_is_made_by_migrate_and_by_nothing_else(run: Run, tmp_path: Path) -> None:
    for command in ("balance p", "statement p", "verify", "practices", "keys list", "anchors",
                    "grant p 1", "expire", "keys create p"):  # fmt: skip
        result = run(*command.split(), code=SETTINGS)
        assert "guthaben migrate" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert run("migrate", "--json") == {"database": "guthaben.db", "ok": True}
    assert "is up to date" in run("migrate").stdout


def test_credit_is_given_and_shown(ready: Run) -> None:
    given = ready("grant", "prac_7", "5.000000001", "--key", "welcome", "--json")
    assert given == {"practice_id": "prac_7", "key": "welcome", "replayed": False}
    assert ready("grant", "prac_7", "5.000000001", "--key", "welcome", "--json")["replayed"]
    balance = ready("balance", "prac_7", "--json")
    assert (balance["available_usd"], balance["debt_usd"]) == ("5.000000001", "0.00")
    assert "5.000000001" in ready("balance", "prac_7").stdout
    assert "Nothing is stored" not in ready("balance", "prac_7").stdout
    assert ready("balance", "prac_77").stdout.startswith("Nothing is stored under this name yet.")
    other = ready("grant", "prac_7", "6", "--key", "welcome", code=REFUSED)
    assert "another" in other.stderr


def test_an_adjustment_needs_a_reason_and_may_be_negative(ready: Run) -> None:
    ready("grant", "prac_7", "1", "--key", "a")
    ready("adjust", "prac_7", "-1", "--key", "b", code=USAGE)
    ready("adjust", "prac_7", "-1", "--reason", "x", code=REFUSED)
    done = ready(
        "adjust", "prac_7", "-2.5", "--reason", "charged twice", "--author", "anna", "--json"
    )
    assert done["key"].startswith("cli-adjust-")
    assert ready("balance", "prac_7", "--json")["debt_usd"] == "1.50"
    assert "corrected" in ready("adjust", "prac_7", "2", "--reason", "was wrong").stdout
    ready("adjust", "prac_7", "0", "--reason", "nothing", code=REFUSED)


def test_the_statement_is_paged(ready: Run) -> None:
    for number in range(3):
        ready("grant", "prac_7", "1", "--key", str(number))
    page = ready("statement", "prac_7", "--limit", "2", "--json")
    assert [entry["seq"] for entry in page["entries"]] == [3, 2]
    rest = ready("statement", "prac_7", "--before", str(page["next_before"]), "--json")
    assert [entry["seq"] for entry in rest["entries"]] == [1]
    text = ready("statement", "prac_7", "--limit", "2").stdout
    assert "promotional" in text
    assert "--before 2" in text


def test_verify_tells_whether_all_is_as_the_journal_says(ready: Run) -> None:
    ready("grant", "prac_7", "1", "--key", "a")
    assert ready("verify", "--json")["ok"] is True
    assert "all is as the journal says" in ready("verify", "prac_7").stdout
    with closing(sqlite3.connect("guthaben.db")) as con, con:
        con.execute("UPDATE credit_practice SET debt_nano_usd = 7")
    found = ready("verify", code=REFUSED)
    assert "prac_7:" in found.stdout
    assert json.loads(ready("verify", "--json", code=REFUSED).stdout)["ok"] is False


def test_practices_and_the_ends_of_their_chains_are_listed(ready: Run) -> None:
    for name in ("prac_1", "prac_2", "prac_3"):
        ready("grant", name, "1", "--key", "a")
    listed = ready("practices", "--limit", "2", "--after", "prac_1", "--json")
    assert [row["practice_id"] for row in listed] == ["prac_2", "prac_3"]
    assert "prac_3" in ready("practices").stdout
    anchors = json.loads(ready("anchors").stdout)
    assert anchors["at_s"] > 1_700_000_000
    assert [head["practice_id"] for head in anchors["heads"]] == ["prac_1", "prac_2", "prac_3"]
    assert all(len(head["head"]) == 64 for head in anchors["heads"])


def test_keys_are_made_listed_and_revoked(ready: Run) -> None:
    made = ready("keys", "create", "prac_7", "--scope", "admin", "--name", "ops", "--json")
    assert made["key"].startswith("gh_live_")
    assert made["scopes"] == ["admin"]
    everywhere = ready("keys", "create", "*", "--test", "--json")
    assert (everywhere["practice_id"], everywhere["scopes"]) == (None, ["gate", "credit"])
    listed = ready("keys", "list", "--json")
    assert {key["key_id"] for key in listed} == {made["key_id"], everywhere["key_id"]}
    text = ready("keys", "list").stdout
    assert f"{made['key_id']}_…" in text
    assert made["key"] not in text
    ready("keys", "revoke", made["key_id"])
    ready("keys", "revoke", made["key_id"], code=REFUSED)
    assert ready("keys", "list", "--practice", "prac_7", "--json")[0]["revoked_at_s"]
    assert "shown again" in ready("keys", "create", "prac_7").stdout
    ready("keys", "create", "prac_7", "--scope", "root", code=REFUSED)


def test_what_is_due_is_expired(ready: Run) -> None:
    now_ms = 1_000_000
    with Guthaben.open("sqlite:///guthaben.db", clock_ms=lambda: now_ms) as past:
        past.grant("prac_7", 10, key="a")
        past.reserve("prac_7", 10, key="b", ttl_s=1)
    assert ready("expire", "--json") == {"practices": 1}
    assert "0 practices" in ready("expire").stdout
    assert ready("balance", "prac_7", "--json")["held_usd"] == "0.00"


def test_another_database_is_named_by_option_or_environment(
    ready: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready("migrate", "--db", "sqlite:///other.db")
    ready("grant", "prac_7", "1", "--db", "sqlite:///other.db")
    assert ready("balance", "prac_7", "--json")["available_usd"] == "0.00"
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert ready("balance", "prac_7", "--json")["available_usd"] == "1.00"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("balance prac_7 --db postgres:/x", SETTINGS, "database URL"),
        ("migrate --db sqlite:////nowhere/at/all/credit.db", UNAVAILABLE, "unavailable"),
        ("grant prac_7 abc", REFUSED, "amount in USD"),
        ("grant prac_7 1e3", REFUSED, "amount in USD"),
        ("grant prac_7 0", REFUSED, "amount_nano_usd"),
        ("grant prac_7 1 --kind gift", REFUSED, "kind"),
        ("grant prac_7", USAGE, "amount"),
        ("balance", USAGE, "practice"),
        ("statement prac_7 --limit 0", USAGE, "limit"),
        ("nothing", USAGE, "nothing"),
        ("serve --port 0", USAGE, "port"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    ready: Run, arguments: str, code: int, words: str
) -> None:
    result = ready(*arguments.split(), code=code)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    if code != USAGE:
        assert len(result.stderr.splitlines()) == 1


def test_a_file_that_is_no_database_is_told(ready: Run, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, only words" * 100)
    result = ready("balance", "prac_7", "--db", "sqlite:///text.db", code=UNAVAILABLE)
    assert len(result.stderr.splitlines()) == 1


def test_a_database_of_a_later_version_is_left_alone(ready: Run) -> None:
    with closing(sqlite3.connect("guthaben.db")) as con, con:
        con.execute("INSERT INTO credit_migration VALUES (9999, 'of tomorrow', 1)")
    result = ready("balance", "prac_7", code=SETTINGS)
    assert "newer" in result.stderr


def test_help_names_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    told = guthaben("--help", cwd=tmp_path)
    assert told.returncode == 0
    for command in ("serve", "demo", "migrate", "keys", "practices", "balance", "statement",
                    "grant", "adjust", "verify", "expire", "anchors"):  # fmt: skip
        assert command in told.stdout
    assert "Exit codes" in told.stdout
    assert guthaben("--version", cwd=tmp_path).stdout.strip() == "0.1.0"
    assert guthaben(cwd=tmp_path).returncode == USAGE


def test_help_loads_neither_the_server_nor_the_payments(tmp_path: Path) -> None:
    from tests.programs import ROOT

    code = (
        "import sys; import guthaben.cli.app; "
        "print([n for n in sys.modules if n.split('.')[0] in {'fastapi', 'uvicorn', 'structlog'}"
        " or n.startswith('guthaben.web')])"
    )
    import sys

    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True
    )
    assert told.stdout.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    import sys

    from tests.programs import environment

    assert guthaben("migrate", cwd=tmp_path).returncode == 0
    with Guthaben.open(f"sqlite:///{tmp_path / 'guthaben.db'}") as credit:
        for number in range(300):
            credit.grant("prac_7", 1, key=str(number))
    shell = f"'{sys.executable}' -m guthaben.cli statement prac_7 --limit 300 --json | head -1"
    told = subprocess.run(
        shell, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        check=False,
    )  # fmt: skip
    assert told.stdout.strip() == "{"
    assert "Traceback" not in told.stderr
