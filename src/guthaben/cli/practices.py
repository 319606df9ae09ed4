"""Commands that look at the whole: practices, verify, anchors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guthaben.cli.output import REFUSED, AsJson, Db, command, opened, say, say_json, say_table


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, work in (("practices", practices), ("verify", verify), ("anchors", anchors)):
        app.command(name)(command(work))


def practices(
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    after: Annotated[str, typer.Option(help="Begin after this id.")] = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List practices in the order of their ids."""
    from guthaben.store import queries
    from guthaben.web import views

    with opened(db) as guthaben:
        rows = guthaben.core.ask(lambda cur: queries.list_practices(cur, after, limit))
    shown = [views.practice(row) for row in rows]
    if as_json:
        say_json(shown)
        return
    names = ("practice_id", "status", "mode", "credit_usd", "held_usd", "debt_usd", "license")
    columns = [(name, "right" if name.endswith("_usd") else "left") for name in names]
    say_table(columns, [[row[name] for name in names] for row in shown])


def verify(
    practice: Annotated[
        str | None, typer.Argument(help="One practice; default all.", show_default=False)
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="The folder of archived calls: check its files too.")
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Replay the journal and compare it with all that is stored; exit code 1 if they differ."""
    from guthaben.services.growth import file_problems
    from guthaben.store.verify import Problem
    from guthaben.web import views

    with opened(db) as guthaben:
        found = guthaben.verify(practice)
        if archive is not None:
            texts = file_problems(guthaben.core.store, archive)
            problems = [*found.problems, *(Problem("", text) for text in texts)]
            found = found._replace(problems=problems)
    if as_json:
        say_json(views.verification(found))
    else:
        for problem in found.problems:
            say(f"{problem.practice_id or 'all'}: {problem.text}")
        wrong = _counted(len(found.problems), "problem")
        result = "all is as the journal says" if found.ok else wrong
        practices = _counted(found.practices, "practice")
        say(f"{practices}, {_counted(found.transfers, 'transfer')}: {result}.")
    return None if found.ok else REFUSED


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def anchors(db: Db = None) -> None:
    """Export the dated ends of all chains, as JSON.

    Kept outside the database, they show later whether the past was rewritten as a whole.
    """
    from guthaben.store import queries

    with opened(db) as guthaben:
        heads = guthaben.core.ask(queries.heads)
        now_s = guthaben.core.now_ms() // 1000
    say_json(
        {
            "at_s": now_s,
            "heads": [
                {"practice_id": head.practice_id, "last_seq": head.last_seq, "head": head.head}
                for head in heads
            ],
        }
    )
