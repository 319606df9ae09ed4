"""Commands for caps: what an API key or a device of a practice may use."""

from __future__ import annotations

from typing import Annotated

import typer

from guthaben.cli.output import REFUSED, AsJson, Db, command, opened, say, say_json, say_table
from guthaben.domain.money import parse_usd

_Practice = Annotated[str, typer.Argument(help="The practice.")]
_Subject = Annotated[
    str, typer.Argument(help="key:<id> or device:<id>; key:* or device:* is every other one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Caps of API keys and devices.", no_args_is_help=True)
    for name, work in (("set", set_cap), ("list", list_caps), ("remove", remove)):
        group.command(name)(command(work))
    app.add_typer(group, name="caps")


def set_cap(
    practice: _Practice,
    subject: _Subject,
    day: Annotated[str | None, typer.Option(help="USD in a day; left out: no cap.")] = None,
    month: Annotated[str | None, typer.Option(help="USD in a month; left out: no cap.")] = None,
    per_minute: Annotated[int, typer.Option(help="Requests in a minute; 0: no limit.")] = 0,
    at_once: Annotated[int, typer.Option(help="Requests at once; 0: no limit.")] = 0,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Cap what a key or a device may use; it replaces an earlier cap."""
    from guthaben.domain.caps import Cap
    from guthaben.services.caps import CapBook

    cap = Cap(subject, _amount("--day", day), _amount("--month", month), per_minute, at_once)
    with opened(db) as guthaben:
        CapBook(guthaben.core.store).set(practice, cap)
    if as_json:
        say_json({"practice_id": practice, "subject": subject, "done": True})
    else:
        say(f"{subject} of {practice} is capped.")


def list_caps(practice: _Practice, db: Db = None, as_json: AsJson = False) -> None:
    """List the caps of a practice and what is left of them."""
    from guthaben.services.caps import CapBook
    from guthaben.web import views

    with opened(db) as guthaben:
        shown = [views.cap(found) for found in CapBook(guthaben.core.store).list(practice)]
    if as_json:
        say_json(shown)
        return
    names = ("subject", "day_usd", "month_usd", "left_usd", "per_minute", "at_once")
    columns = [(name, "left" if name == "subject" else "right") for name in names]
    say_table(columns, [["" if row[n] is None else str(row[n]) for n in names] for row in shown])


def remove(
    practice: _Practice, subject: _Subject, db: Db = None, as_json: AsJson = False
) -> int | None:
    """Take a cap away."""
    from guthaben.services.caps import CapBook

    with opened(db) as guthaben:
        removed = CapBook(guthaben.core.store).remove(practice, subject)
    if as_json:
        say_json({"practice_id": practice, "subject": subject, "removed": removed})
    else:
        say(f"{subject} is not capped any more." if removed else f"{subject} has no cap.")
    return None if removed else REFUSED


def _amount(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_usd(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is an amount in USD, such as 5.00") from error
