"""The commands on PostgreSQL: what is said where there is no cluster, and where nothing is yet."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from guthaben.cli.app import app
from tests import postgres

SETTINGS = 4


@pytest.mark.parametrize(
    ("kind", "by", "said"),
    [
        ("sqlite", "citus", "A SQLite file can't be spread"),
        pytest.param(
            "postgresql",
            "citus",
            "Citus is not installed in this database: nothing was changed.",
            marks=pytest.mark.cut,
        ),
        ("postgresql", "odd", "Tables are spread with citus, not 'odd': nothing was changed."),
    ],
)
def test_what_cannot_be_spread_is_left_and_explained(
    tmp_path: Path, kind: str, by: str, said: str
) -> None:
    url = f"sqlite:///{tmp_path}/credit.db" if kind == "sqlite" else postgres.fresh()
    result = CliRunner().invoke(app, ["migrate", "--db", url, "--distribute", by])
    assert (result.exit_code, result.stdout) == (SETTINGS, "")
    assert said in result.stderr
    assert CliRunner().invoke(app, ["verify", "--db", url]).exit_code == 0


def test_on_postgresql_too_a_slip_of_the_pen_makes_no_tables() -> None:
    url = postgres.create(postgres.name_of_another())
    result = CliRunner().invoke(app, ["balance", "prac_7", "--db", url])
    assert result.exit_code == SETTINGS
    assert "guthaben migrate" in result.stderr
    with psycopg.connect(url) as con:
        tables = con.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchall() == []
    assert CliRunner().invoke(app, ["migrate", "--db", url]).exit_code == 0
    assert CliRunner().invoke(app, ["balance", "prac_7", "--db", url]).exit_code == 0
