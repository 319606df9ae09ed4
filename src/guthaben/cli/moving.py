"""Commands that move: `copy` one database into another, `import` a file of the old application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guthaben.cli.output import REFUSED, AsJson, Db, command, opened, say, say_json, say_table

if TYPE_CHECKING:
    from guthaben.services.moving import Moved


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("copy")(command(copy))
    app.command("import")(command(import_old))


def copy(
    to: Annotated[str, typer.Option(help="The URL of the database to copy into.")],
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Copy everything into another database, and compare; stop all servers first.

    Doing it again changes nothing.
    """
    from guthaben.services.moving import copy_database

    with opened(db) as source, opened(to, create=True) as target:
        moved = copy_database(source.core.store, target.core.store)
    return _told(moved, as_json)


def import_old(
    file: Annotated[Path, typer.Argument(help="The SQLite file of the old application.")],
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Take over a file of the old application, and compare; the file is only read.

    Doing it again changes nothing. What can't be explained is listed, and nothing is taken over.
    """
    from guthaben.services.moving import import_old_file

    with opened(db, create=True) as target:
        moved = import_old_file(file, target.core.store)
    return _told(moved, as_json)


def _told(moved: Moved, as_json: bool) -> int | None:
    if as_json:
        say_json(
            {
                "ok": moved.ok,
                "repeated": moved.repeated,
                "rows": dict(moved.rows),
                "practices": [
                    {
                        "practice_id": one.practice_id,
                        "same": one.same,
                        "before": dict(one.before),
                        "after": dict(one.after),
                    }
                    for one in moved.practices
                ],
                "problems": [list(problem) for problem in moved.problems],
            }
        )
        return None if moved.ok else REFUSED
    names = sorted({name for one in moved.practices for name in one.before})
    columns = [("practice", "left"), *((name, "right") for name in names), ("", "left")]
    say_table(
        columns,
        [
            [
                one.practice_id,
                *(_cell(one.before.get(name), one.after.get(name)) for name in names),
                "same" if one.same else "DIFFERENT",
            ]
            for one in moved.practices
        ],
    )
    for problem in moved.problems:
        say(f"{problem.practice_id}: {problem.text}")
    how = "had been moved before" if moved.repeated else f"{sum(moved.rows.values())} rows moved"
    same = sum(one.same for one in moved.practices)
    say(f"{how}; {same} of {len(moved.practices)} practices are the same.")
    return None if moved.ok else REFUSED


def _cell(before: int | None, after: int | None) -> str:
    return str(before) if before == after else f"{before} -> {after}"
