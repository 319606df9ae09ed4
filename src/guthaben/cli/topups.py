"""Commands about automatic charges: list what has no end, show a practice, stop, resume."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from guthaben.cli.output import (
    USAGE,
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

One = Annotated[str | None, typer.Argument(help="The practice's id.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every practice, on every server.")]
By = Annotated[str, typer.Option("--by", help="Who.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Automatic charges: list what has no end, show, stop, resume.", no_args_is_help=True
    )
    for name, work in (("list", list_open), ("show", show), ("stop", stop), ("resume", resume)):
        group.command(name)(command(work))
    app.add_typer(group, name="topups")


def list_open(
    practice: Annotated[
        str | None,
        typer.Argument(help="List this practice's purchases and charges.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List what is stopped and which charges have no end yet; with a practice, its history."""
    from guthaben.services.topup_stops import TopupStops
    from guthaben.web import views

    with opened(db) as guthaben:
        if practice is not None:
            page = guthaben.topups(practice, limit=limit)
            shown = views.topups(page, limit)
        else:
            shown = views.all_topups(TopupStops(guthaben).all(limit), None)
    if as_json:
        say_json(shown)
    elif practice is not None:
        _say_attempts([(practice, row, row["price_chf"]) for row in shown["topups"]])
    else:
        _say_all(shown)


def show(practice: Annotated[str, typer.Argument(help="The practice's id.")], db: Db = None,
         as_json: AsJson = False) -> None:  # fmt: skip
    """Show a practice's automatic top-up: limits, consent, tries, and what it would do now."""
    from guthaben.services.topup_stops import TopupStops
    from guthaben.web import views

    with opened(db) as guthaben:
        shown = views.practice_topups(TopupStops(guthaben).show(practice))
    if as_json:
        say_json(shown)
        return
    nested = {name: shown.pop(name) for name in ("stop", "stop_of_all", "consent")}
    say_pairs(
        {
            **shown,
            "retry_at_s": moment(shown["retry_at_s"]) if shown["retry_at_s"] else None,
            "stopped": _words_of(nested["stop"]),
            "all stopped": _words_of(nested["stop_of_all"]),
            "consent": _consent(nested["consent"]),
        }
    )


def stop(
    practice: One = None,
    everyone: All = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    by: By = "",
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Stop automatic charges of a practice, or with --all of every one, from the next try on."""
    from guthaben.services.topup_stops import TopupStops

    if not _one_or_all(practice, everyone):
        return USAGE
    with opened(db) as guthaben:
        fresh = TopupStops(guthaben).stop(practice, reason=reason, actor=by)
    _say_stop(practice, as_json, stopped=True, changed=fresh)
    return None


def resume(
    practice: One = None,
    everyone: All = False,
    unreconciled: Annotated[
        bool, typer.Option(help="Of a restored database: although it was not reconciled.")
    ] = False,
    by: By = "",
    db: Db = None,
    as_json: AsJson = False,
) -> int | None:
    """Lift a stop. What a customer has switched off, or a decline has paused, stays off."""
    from guthaben.services.topup_stops import TopupStops

    if not _one_or_all(practice, everyone):
        return USAGE
    with opened(db) as guthaben:
        lifted = TopupStops(guthaben).resume(practice, actor=by, unreconciled=unreconciled)
    _say_stop(practice, as_json, stopped=False, changed=lifted)
    return None


def _one_or_all(practice: str | None, everyone: bool) -> bool:
    if (practice is None) is everyone:
        return True
    typer.echo("guthaben: name a practice, or --all for every one.", err=True)
    return False


def _say_stop(practice: str | None, as_json: bool, *, stopped: bool, changed: bool) -> None:
    if as_json:
        say_json({"practice_id": practice, "stopped": stopped, "changed": changed})
        return
    whose = "of all practices" if practice is None else f"of {practice}"
    state = "stopped" if stopped else "not stopped"
    say(f"Automatic charges {whose} {'are' if changed else 'were already'} {state}.")


def _say_all(shown: dict[str, Any]) -> None:
    say(f"All stopped: {_words_of(shown['stop'])}")
    for held in shown["stopped_practices"]:
        say(f"{held['practice_id']} stopped: {_words_of(held['stop'])}")
    open_attempts = shown["open_attempts"]
    if not open_attempts:
        say("Every automatic charge has its end.")
        return
    _say_attempts([(one["practice_id"], one["attempt"], one["open_chf"]) for one in open_attempts])


def _say_attempts(rows: list[tuple[str, dict[str, Any], str | None]]) -> None:
    columns = [
        ("practice", "left"), ("no.", "right"), ("at (UTC)", "left"), ("what", "left"),
        ("status", "left"), ("CHF", "right"), ("reason", "left"), ("top-up", "left"),
    ]  # fmt: skip
    say_table(
        columns,
        [
            (practice, one["event_no"], moment(one["at_s"]), one["event_type"], one["status"],
             amount, one["reason"], one["topup_id"])
            for practice, one, amount in rows
        ],
    )  # fmt: skip


def _words_of(stop: dict[str, Any] | None) -> str:
    if stop is None:
        return "no"
    return f"since {moment(stop['at_s'])} by {stop['actor'] or 'nobody named'}: {stop['reason']}"


def _consent(given: dict[str, Any] | None) -> str:
    if given is None:
        return "none"
    words = f"{given['text_version'] or given['source']} {given['language']}".strip()
    limits = f"{given['amount_chf']} CHF, at most {given['cap_chf']} CHF a month"
    return f"{moment(given['given_at_s'])}, {words}, {limits}"
