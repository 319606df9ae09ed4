"""Commands for the practice's portal: a link into it, and the practice's language."""

from __future__ import annotations

from typing import Annotated

import typer

from guthaben import config
from guthaben.cli.output import AsJson, Db, command, opened, say, say_json, say_pairs
from guthaben.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The practice's portal: link, language.", no_args_is_help=True)
    for work in (link, language):
        group.command(work.__name__)(command(work))
    app.add_typer(group, name="portal")


def link(
    practice: Annotated[str, typer.Argument(help="The practice whose portal it opens.")],
    language: Annotated[
        str | None, typer.Option(help="de, fr, it or en. Default: the practice's.")
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Make a link into the portal, good for ten minutes. Whoever has it is let in."""
    from guthaben.services.portal import LINK_S, Portal

    home = config.public_url()
    if home is None:
        raise ConfigError("Set GUTHABEN_PUBLIC_URL: where customers reach the server.")
    with opened(db) as guthaben:
        token = Portal(guthaben).link(practice, actor="cli", language=language)
    url = f"{home}/portal/enter?t={token}"
    if as_json:
        say_json({"url": url, "valid_s": LINK_S})
    else:
        say(url)


def language(
    practice: Annotated[str, typer.Argument(help="The practice.")],
    chosen: Annotated[
        str | None, typer.Argument(metavar="[LANGUAGE]", help="de, fr, it or en.")
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Tell or choose the language a practice is spoken to in."""
    from guthaben.services.portal import Portal

    with opened(db) as guthaben:
        portal = Portal(guthaben)
        if chosen is not None:
            portal.set_language(practice, chosen)
        found = {"practice_id": practice, "language": portal.language(practice)}
    if as_json:
        say_json(found)
    else:
        say_pairs(found)
