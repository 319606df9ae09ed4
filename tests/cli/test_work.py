"""`guthaben work` and `guthaben jobs`: for cron, for people and for whoever watches."""

from __future__ import annotations

import json

import pytest

from guthaben.services.jobs import Job
from guthaben.web import background
from tests.cli.test_cli import REFUSED, Run, ready, run

__all__ = ["ready", "run"]


def test_work_once_does_what_is_due(ready: Run) -> None:
    assert "No background work was ever done" in ready("jobs", code=REFUSED).stdout
    assert json.loads(ready("jobs", "--json", code=REFUSED).stdout)["ok"] is False
    done = ready("work", "--once", "--json")
    assert done["leader_elsewhere"] is False
    assert {row["outcome"] for row in done["ran"]} == {"ok"}
    assert "expire" in {row["job"] for row in done["ran"]}
    assert "Nothing was due" in ready("work", "--once").stdout
    assert "expire: ok" in ready("work", "--once", "--all").stdout
    told = ready("jobs", "--json")
    assert (told["ok"], told["leader"]) == (True, None)
    (expire,) = [row for row in told["jobs"] if row["name"] == "expire"]
    assert (expire["runs"], expire["outcome"], expire["ok"]) == (2, "ok", True)
    assert "Nobody does the work now." in ready("jobs").stdout


def test_a_job_that_fails_is_told_by_the_exit_code(
    ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_turn: object) -> None:
        raise RuntimeError("broke")

    monkeypatch.setattr(background, "jobs", lambda *_all: [Job("broken", 1, breaks)])
    assert "broken: RuntimeError" in ready("work", "--once", code=REFUSED).stdout


def test_a_misspelt_database_is_not_made(run: Run) -> None:
    assert "guthaben migrate" in run("work", "--once", code=4).stderr
    assert "guthaben migrate" in run("jobs", code=4).stderr
