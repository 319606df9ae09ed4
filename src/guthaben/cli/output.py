"""What commands have in common: options, printing, and errors in one line with an exit code.

Law: with `--json`, standard output holds JSON and nothing else; words for people about errors go to
standard error. No traceback for what Guthaben raises on purpose.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec

import typer

from guthaben import config
from guthaben.errors import (
    ConfigError,
    GuthabenError,
    InvalidAmount,
    MigrationNeeded,
    OutcomeUnknown,
    PaymentUnavailable,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from guthaben.services.guthaben import Guthaben

P = ParamSpec("P")

DEFAULT_DATABASE: Final = "sqlite:///guthaben.db"
OK, REFUSED, USAGE, UNAVAILABLE, SETTINGS, INTERRUPTED = 0, 1, 2, 3, 4, 130

Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="The database; default GUTHABEN_DATABASE_URL, else sqlite:///guthaben.db.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def database(url: str | None) -> str:
    """Choose the database: the option, the environment, or a file in this folder."""
    return url or config.database_url() or DEFAULT_DATABASE


@contextmanager
def opened(url: str | None, *, create: bool = False) -> Iterator[Guthaben]:
    """Open the database for one command; a misspelt name must not make a new one."""
    from guthaben.services.guthaben import Guthaben
    from guthaben.store.database import open_database

    chosen = database(url)
    found = open_database(chosen)
    if not (create or found.exists()):
        raise ConfigError(
            f"There is no database of Guthaben at {found.name!r}. Name another with --db, or "
            "create it with guthaben migrate."
        )
    with Guthaben.open(chosen) as guthaben:
        yield guthaben


def command(work: Callable[P, int | None]) -> Callable[P, None]:
    """Make a command of a function: its result or its error becomes the exit code."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = work(*args, **kwargs) or OK
        except GuthabenError as error:
            code = complain(error)
        except BrokenPipeError:  # the reader of our output has gone: `guthaben statement | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = REFUSED
        raise typer.Exit(code)

    return run


def complain(error: GuthabenError) -> int:
    """Say in one line what went wrong, and choose the exit code."""
    message = " ".join(str(error).split())
    print(f"guthaben: {message}", file=sys.stderr)
    if isinstance(error, StoreUnavailable | OutcomeUnknown | PaymentUnavailable):
        return UNAVAILABLE
    if isinstance(error, ConfigError | MigrationNeeded):
        return SETTINGS
    return REFUSED


def usd_of(text: str) -> int:
    """Read an amount in USD as nano-USD."""
    from guthaben.domain.money import parse_usd

    try:
        return parse_usd(text)
    except ValueError as error:
        raise InvalidAmount(f'{text!r} is no amount in USD such as "5.00" or "0.0015".') from error


# ---------------------------------------------------------------- printing


def say_json(value: object) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Print a line for a person."""
    print(text)


def say_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values below each other."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        print(f"{name:<{width}}  {value}")


def say_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; each column has a title and a side, `left` or `right`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in columns:
        table.add_column(title, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 240  # nothing is cut off where no terminal sets a width
    console.print(table)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def moment(at_s: int) -> str:
    """Write an instant for people, in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
