"""The program: its groups of commands, its help, and its end."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from guthaben.cli import (
    backups,
    caps,
    credit,
    growth,
    inbox,
    keys,
    licences,
    money,
    moving,
    portal,
    practices,
    prices,
    serving,
    telling,
    topups,
    work,
)
from guthaben.cli.output import INTERRUPTED

_EPILOG: Final = (
    "Exit codes: 0 done; 1 refused, or problems found; 2 wrong usage; 3 the store is unavailable; "
    "4 a setting stands in the way; 130 interrupted."
)

app = typer.Typer(
    name="guthaben",
    help="Prepaid AI credit: reserve before the call, settle after it, exactly.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from guthaben import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Tell the version.")
    ] = False,
) -> None:
    """Prepaid AI credit: reserve before the call, settle after it, exactly."""


serving.register(app)
practices.register(app)
credit.register(app)
keys.register(app)
caps.register(app)
inbox.register(app)
money.register(app)
prices.register(app)
portal.register(app)
work.register(app)
telling.register(app)
licences.register(app)
topups.register(app)
moving.register(app)
backups.register(app)
growth.register(app)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        app(prog_name="guthaben")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
