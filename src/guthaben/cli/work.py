"""Commands of background work: work, jobs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guthaben import config
from guthaben.cli.output import (
    REFUSED,
    AsJson,
    Db,
    command,
    database,
    moment,
    opened,
    say,
    say_json,
    say_table,
)

if TYPE_CHECKING:
    from guthaben.services.jobs import JobState
    from guthaben.store.jobs import Lease

_COLUMNS = [
    ("job", "left"), ("every s", "right"), ("last began (UTC)", "left"), ("took s", "right"),
    ("outcome", "left"), ("failures", "right"), ("lag s", "right"), ("next due (UTC)", "left"),
    ("overdue s", "right"),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, action in (("work", work), ("jobs", jobs)):
        app.command(name)(command(action))


def work(
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due and end: for cron, without a server.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --once: do every job, due or not.")
    ] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Do the background work, until SIGINT or SIGTERM; a running server does it by itself.

    One process of a database does it at a time. With --once, exit code 1 if a job failed.
    """
    from guthaben.web import logs
    from guthaben.web.app import open_services

    logs.configure(config.log_level())
    with opened(db):  # a misspelt name must not make a new database
        pass
    services = open_services(database(db))
    try:
        if not once:
            _until_signalled(services)
            return None
        done = services.runner.work_once(everything=everything)
    finally:
        services.stop()
    if done is None:
        _say(as_json, {"ran": [], "leader_elsewhere": True}, "Another process does the work.")
        return None
    failed = [row for row in done if row.error]
    told = [{"job": row.name, "outcome": row.outcome, "error": row.error} for row in done]
    words = "\n".join(f"{row.name}: {row.error or row.outcome}" for row in done)
    _say(as_json, {"ran": told, "leader_elsewhere": False}, words or "Nothing was due.")
    return REFUSED if failed else None


def _until_signalled(services: Any) -> None:
    from guthaben.web.server import ended_by_signals

    with ended_by_signals():
        services.start()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say("The work ends.")


def jobs(db: Db = None, as_json: AsJson = False) -> int | None:
    """Tell how the background jobs are doing; exit code 1 if one is late, failing or unknown."""
    from guthaben.services.jobs import job_states

    with opened(db) as guthaben:
        lease, states = job_states(guthaben.core.store)
    well = bool(states) and all(state.is_well for state in states)
    if as_json:
        say_json({"ok": well, "leader": lease and lease.place, "jobs": [*map(_shown, states)]})
    else:
        _say_states(lease, states)
    return None if well else REFUSED


def _say_states(lease: Lease | None, states: list[JobState]) -> None:
    if not states:
        say("No background work was ever done here: run the server, or guthaben work.")
        return
    say_table(_COLUMNS, [_line(state) for state in states])
    say(f"Done by {lease.place}." if lease else "Nobody does the work now.")


def _line(state: JobState) -> list[object]:
    row = state.row
    took_ms = row.ended_at_ms - row.started_at_ms
    return [
        row.name, row.every_s, _moment(row.started_at_ms),
        f"{took_ms / 1000:.1f}" if took_ms >= 0 and row.ended_at_ms else "",
        f"{row.outcome} ({row.error})" if row.error else row.outcome,
        row.failures_in_a_row, row.lag_ms // 1000, _moment(row.next_due_ms), state.overdue_s or "",
    ]  # fmt: skip


def _moment(at_ms: int) -> str:
    return moment(at_ms // 1000) if at_ms else ""


def _shown(state: JobState) -> dict[str, object]:
    return {**state.row._asdict(), "overdue_s": state.overdue_s, "ok": state.is_well}


def _say(as_json: bool, found: dict[str, object], words: str) -> None:
    if as_json:
        say_json(found)
    else:
        say(words)
