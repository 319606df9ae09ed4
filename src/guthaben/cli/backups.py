"""Commands of backups: `backup` a running database, and `restored` after one was put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guthaben.cli.output import (
    REFUSED,
    AsJson,
    Db,
    command,
    moment,
    opened,
    say,
    say_json,
    say_pairs,
)

if TYPE_CHECKING:
    from guthaben.store.restored import Left


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(command(backup))
    app.command("restored")(command(restored))


def backup(
    file: Annotated[Path, typer.Argument(help="The new file; its folder must exist.")],
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Copy a running SQLite database into a new file, and verify the copy.

    The copy charges nobody before it was reconciled. Exit code 1 if verify finds a problem.
    """
    from guthaben.services.backups import back_up

    with opened(db) as guthaben:
        made = back_up(guthaben, file)
    verified = made.verified
    if as_json:
        say_json(
            {
                "file": str(made.path),
                "bytes": made.size_bytes,
                "ok": verified.ok,
                "practices": verified.practices,
                "transfers": verified.transfers,
                "known_until_s": made.known_until_s,
                "problems": [list(problem) for problem in verified.problems],
            }
        )
    else:
        say(f"{made.path}: {made.size_bytes} bytes, {verified.transfers} transfers.")
        for problem in verified.problems:
            say(f"{problem.practice_id}: {problem.text}")
        say("It is as its journal says." if verified.ok else "Keep the backups before it.")
    return None if verified.ok else REFUSED


def restored(
    look: Annotated[
        bool, typer.Option("--look", help="Only tell whether it is one, and what to look at.")
    ] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Say that this database comes from a backup: automatic charges stop until it is reconciled.

    A copy by `guthaben backup`, and a dump that was restored, know it by themselves.
    """
    from guthaben.services.backups import say_restored, what_is_left

    with opened(db) as guthaben:
        left = what_is_left(guthaben) if look else say_restored(guthaben)
    if as_json:
        say_json({"restored": left is not None, **(left._asdict() if left else {})})
    elif left is None:
        say("This database does not come from a backup, as far as it knows.")
    else:
        _say_left(left)
    return None


def _say_left(left: Left) -> None:
    say_pairs(
        {
            "money known until": moment(left.known_until_s) if left.known_until_s else "never",
            "automatic top-ups on": left.armed_practices,
            "API keys": left.keys,
            "open calls": left.open_calls,
            "open purchases": left.open_attempts,
            "messages waiting": left.unsent,
        }
    )
    day = moment(left.known_until_s)[:10] if left.known_until_s else "DAY"
    say("Automatic charges are stopped. What was switched off or revoked since is on again here.")
    say(f"Next: guthaben verify; guthaben reconcile --fix --since {day}; guthaben quarantine list;")
    say("then guthaben topups resume --all.")
