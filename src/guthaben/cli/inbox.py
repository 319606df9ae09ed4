"""Commands about the provider's events: inbox list, show, retry, discard."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from guthaben.cli.output import AsJson, Db, command, moment, opened, say, say_json, say_table

Event = Annotated[str, typer.Argument(help="The event's id, evt_...")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Author = Annotated[str, typer.Option(help="Who.")]

_COLUMNS = [
    ("event", "left"), ("received (UTC)", "left"), ("type", "left"), ("status", "left"),
    ("reason", "left"), ("tries", "right"), ("next try (UTC)", "left"),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Events of the payment provider.", no_args_is_help=True)
    for name, work in (
        ("list", list_events), ("show", show), ("retry", retry), ("discard", discard),
    ):  # fmt: skip
        group.command(name)(command(work))
    app.add_typer(group, name="inbox")


def list_events(
    waiting: Annotated[bool, typer.Option("--waiting", help="Those not applied yet.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All, the applied ones too.")] = False,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List events that nobody will apply by itself: dead ones, and those kept apart."""
    from guthaben.services.letters import ALL, STUCK, WAITING, Letters
    from guthaben.web import money_views

    statuses = ALL if everything else WAITING if waiting else STUCK
    with opened(db) as guthaben:
        rows = Letters(guthaben.core.store).page(statuses, limit=limit)
    if as_json:
        say_json(money_views.letters(rows, limit))
        return
    say_table(_COLUMNS, [
        [row.event_id, moment(row.received_at_s), row.event_type, row.status, row.reason,
         row.attempts, moment(row.next_try_at_s) if row.next_try_at_s else ""]
        for row in rows
    ])  # fmt: skip


def show(
    event_id: Event,
    payload: Annotated[
        bool, typer.Option("--payload", help="The event itself, with what it says of a customer.")
    ] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Show one event and what was done about it."""
    from guthaben.services.letters import Letters
    from guthaben.web import money_views

    with opened(db) as guthaben:
        letters = Letters(guthaben.core.store)
        shown: dict[str, Any] = money_views.letter_with_notes(letters.show(event_id))
        if payload:
            shown["payload"] = letters.payload(event_id)
    if as_json:
        say_json(shown)
        return
    for name, value in shown.items():
        text = json.dumps(value, ensure_ascii=False) if name in ("notes", "payload") else value
        say(f"{name:<14}  {text}")


def retry(
    event_id: Event, reason: Reason, author: Author = "", db: Db = None, as_json: AsJson = False
) -> None:
    """Let an event be applied anew, by the server or by guthaben work --once."""
    _change("retry", event_id, reason, author, db, as_json)


def discard(
    event_id: Event, reason: Reason, author: Author = "", db: Db = None, as_json: AsJson = False
) -> None:
    """Close an event that shall never be applied; it is kept."""
    _change("discard", event_id, reason, author, db, as_json)


def _change(
    action: str, event_id: str, reason: str, author: str, db: str | None, as_json: bool
) -> None:
    from guthaben.services.letters import Letters
    from guthaben.web import money_views

    with opened(db) as guthaben:
        row = getattr(Letters(guthaben.core.store), action)(event_id, reason, author)
    if as_json:
        say_json(money_views.letter(row))
    else:
        say(f"{row.event_id}: {row.status}{f' ({row.reason})' if row.reason else ''}")
