"""Commands for API keys: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

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
    say_table,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
    for name, work in (("create", create), ("list", list_keys), ("revoke", revoke)):
        group.command(name)(command(work))
    app.add_typer(group, name="keys")


def create(
    practice: Annotated[
        str, typer.Argument(help="The practice it belongs to, or * for every practice.")
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="gate, credit or admin; may be repeated. Default gate and credit."),
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    test: Annotated[bool, typer.Option("--test", help="Mark it gh_test_, not gh_live_.")] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown this once."""
    from guthaben.services.api_keys import ApiKeys

    with opened(db) as guthaben:
        made = ApiKeys(guthaben.core.store).create(
            None if practice == "*" else practice,
            scope or ["gate", "credit"],
            name=name,
            mode="test" if test else "live",
        )
    shown = {
        "key": made.key,
        "key_id": made.key_id,
        "practice_id": made.practice_id,
        "scopes": list(made.scopes),
        "name": made.name,
    }
    if as_json:
        say_json(shown)
        return
    say_pairs({**shown, "practice_id": practice, "scopes": " ".join(made.scopes)})
    say("Keep the key now: it is stored nowhere and can't be shown again.")


def list_keys(
    practice: Annotated[str | None, typer.Option(help="Only of this practice.")] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first, masked."""
    from guthaben.services.api_keys import ApiKeys

    with opened(db) as guthaben:
        found = ApiKeys(guthaben.core.store).list(practice)
    if as_json:
        say_json(
            [
                {
                    "key_id": key.key_id,
                    "practice_id": key.practice_id,
                    "scopes": list(key.scopes),
                    "name": key.name,
                    "created_at_s": key.created_at_s,
                    "revoked_at_s": key.revoked_at_s,
                }
                for key in found
            ]
        )
        return
    columns = [(t, "left") for t in ("key", "practice", "scopes", "name", "created", "revoked")]
    rows = [
        (
            key.masked,
            key.practice_id or "*",
            " ".join(key.scopes),
            key.name,
            moment(key.created_at_s),
            moment(key.revoked_at_s) if key.revoked_at_s else "",
        )
        for key in found
    ]
    say_table(columns, rows)


def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, such as gh_live_k7Qd3fT9wz.")],
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Let a key count no longer."""
    from guthaben.services.api_keys import ApiKeys

    with opened(db) as guthaben:
        revoked = ApiKeys(guthaben.core.store).revoke(key_id.removesuffix("_…"))
    if as_json:
        say_json({"key_id": key_id, "revoked": revoked})
    else:
        say(f"{key_id} is revoked." if revoked else f"There is no valid key {key_id}.")
    return None if revoked else REFUSED
