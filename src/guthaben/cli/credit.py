"""Commands about one practice's credit: balance, statement, grant, adjust."""

from __future__ import annotations

from typing import Annotated

import typer

from guthaben.cli.output import (
    AsJson,
    Db,
    command,
    moment,
    opened,
    say,
    say_json,
    say_pairs,
    say_table,
    usd_of,
)

Practice = Annotated[str, typer.Argument(help="The practice's id.")]
Key = Annotated[
    str | None,
    typer.Option(
        help="Idempotency key, kept for ever: the same again is done once. Default a random one.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, work in (("balance", balance), ("statement", statement), ("grant", grant)):
        app.command(name)(command(work))
    # A negative amount must not be taken for an option.
    app.command("adjust", context_settings={"ignore_unknown_options": True})(command(adjust))


def balance(practice: Practice, db: Db = None, as_json: AsJson = False) -> None:
    """Tell a practice's balance now."""
    from guthaben.store import queries
    from guthaben.web import views

    with opened(db) as guthaben:
        shown = views.balance(guthaben.balance(practice))
        number = guthaben.core.store.read(lambda cursor: queries.practice_no(cursor, practice))
    if as_json:
        say_json(shown)
        return
    if number == 0:  # a slip of the pen looks like a practice without credit
        say("Nothing is stored under this name yet.")
    period = shown.pop("period")
    until = moment(period["end_s"] - 1)[:10]
    say_pairs({**shown, "period": f"{period['license'] or 'no licence'}, until {until}"})


def statement(
    practice: Practice,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    before: Annotated[
        int | None, typer.Option(help="Only changes before this number.", show_default=False)
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List every change of credit, newest first."""
    from guthaben.web import views

    with opened(db) as guthaben:
        page = guthaben.statement(practice, limit=limit, before_seq=before)
        shown = views.statement(guthaben.core, page)
    if as_json:
        say_json(shown)
        return
    columns = [
        ("no.", "right"), ("at (UTC)", "left"), ("what", "left"), ("from", "left"), ("to", "left"),
        ("USD", "right"), ("grant", "right"), ("call", "left"), ("event", "right"),
    ]  # fmt: skip
    names = "seq at_s what source target amount_usd grant_no call_id event_no".split()
    rows = [[row[name] for name in names] for row in shown["entries"]]
    for row in rows:
        row[1] = moment(row[1])
    say_table(columns, rows)
    if shown["next_before"]:
        say(f"More: --before {shown['next_before']}")


def grant(
    practice: Practice,
    amount: Annotated[str, typer.Argument(help="In USD, such as 5.00.")],
    kind: Annotated[str, typer.Option(help="promotional or paid.")] = "promotional",
    key: Key = None,
    expires_at: Annotated[
        int | None,
        typer.Option(help="Seconds since 1970; default never.", show_default=False),
    ] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Give credit that no payment of ours stands behind."""
    chosen = key or _random_key("grant")
    with opened(db) as guthaben:
        receipt = guthaben.grant(
            practice,
            usd_of(amount),
            key=chosen,
            kind=kind,  # type: ignore[arg-type]
            expires_at_s=expires_at,
        )
    _say_receipt(practice, chosen, receipt.replayed, as_json, "given")


def adjust(
    practice: Practice,
    amount: Annotated[str, typer.Argument(help="In USD; with a minus, less: -1.25.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    kind: Annotated[str, typer.Option(help="promotional or paid.")] = "promotional",
    key: Key = None,
    author: Annotated[str, typer.Option(help="Who.")] = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Correct a balance by hand, up or down. What free credit does not cover becomes debt."""
    chosen = key or _random_key("adjust")
    with opened(db) as guthaben:
        receipt = guthaben.adjust(
            practice,
            usd_of(amount),
            key=chosen,
            reason=reason,
            author=author,
            kind=kind,  # type: ignore[arg-type]
        )
    _say_receipt(practice, chosen, receipt.replayed, as_json, "corrected")


def _random_key(operation: str) -> str:
    import secrets

    return f"cli-{operation}-{secrets.token_hex(8)}"


def _say_receipt(practice: str, key: str, replayed: bool, as_json: bool, done: str) -> None:
    if as_json:
        say_json({"practice_id": practice, "key": key, "replayed": replayed})
    elif replayed:
        say(f"{practice}: was {done} before with the key {key}; nothing changed.")
    else:
        say(f"{practice}: {done}. Key: {key}")
