"""The command of growth: maintain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guthaben.cli.output import AsJson, Db, command, opened, say, say_json

if TYPE_CHECKING:
    from guthaben.services.growth import Grew


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("maintain")(command(maintain))


def maintain(
    archive_to: Annotated[
        Path | None,
        typer.Option(help="A folder: calls that are over for long leave for files in it."),
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Expire what is due, make room for the months to come, and archive old calls.

    Doing it again does what is left. Without a folder nothing is archived; how old a call must be
    is GUTHABEN_ARCHIVE_AFTER_DAYS (default 400). A run that was interrupted goes on with the next.
    """
    from guthaben.services import growth

    after_days = growth.archive_after_days()
    with opened(db) as guthaben:
        swept = 0
        for _round in range(1000):
            done = guthaben.expire()
            swept += done
            if done < 1000:
                break
        grew = growth.maintain(guthaben.core.store, archive_to, after_days)
    if as_json:
        say_json(
            {
                "practices_swept": swept,
                "months_made": dict(grew.made),
                "months_dissolved": dict(grew.dissolved),
                "archived": [manifest._asdict() for manifest in grew.archived],
            }
        )
    else:
        _say(swept, grew)


def _say(swept: int, grew: Grew) -> None:
    say(f"{swept} practices had something due.")
    for month, moved in grew.made.items():
        say(f"{month} has its partition now; {moved} calls moved into it.")
    for manifest in grew.archived:
        say(
            f"{manifest.calls} calls of {manifest.month} left for {manifest.file}"
            f" ({manifest.file_bytes} bytes, SHA-256 {manifest.sha256})."
        )
    for month, stayed in grew.dissolved.items():
        say(f"{month} needs no partition any more; {stayed} of its calls stay.")
