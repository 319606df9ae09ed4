"""Commands about licences (show, set, refresh, held, assign) and plans (set, list, remove)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

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
from guthaben.errors import InvalidInput

if TYPE_CHECKING:
    from guthaben.services.licences import Licences, LicenceView

Practice = Annotated[str, typer.Argument(help="The practice's id.")]
LookupKey = Annotated[str, typer.Argument(help="The lookup key of the plan's price.")]
Author = Annotated[str, typer.Option(help="Who; it is kept.")]
At = Annotated[
    str,
    typer.Option("--from", help="The day it begins (UTC), such as 2026-01-31; default now."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    licence = typer.Typer(help="Licences: show, set, refresh, held, assign.", no_args_is_help=True)
    licence.command("show")(command(show))
    licence.command("set")(command(set_licence))
    licence.command("refresh")(command(refresh))
    licence.command("held")(command(held))
    licence.command("assign")(command(assign))
    plans = typer.Typer(
        help="Plans: what the price with a lookup key includes per period.", no_args_is_help=True
    )
    plans.command("set")(command(set_plan))
    plans.command("list")(command(list_plans))
    plans.command("remove")(command(remove_plan))
    app.add_typer(licence, name="licence")
    app.add_typer(licence, name="license", hidden=True)
    app.add_typer(plans, name="plans")


# ---------------------------------------------------------------- licence


def show(practice: Practice, db: Db = None, as_json: AsJson = False) -> None:
    """Show a practice's licence and its subscriptions."""
    from guthaben.services import licences

    with opened(db) as guthaben:
        found = licences.show(guthaben.core, practice)
    _say_licence(found, as_json)


def set_licence(
    practice: Practice,
    license: Annotated[str, typer.Argument(help="Its name or number.")],
    start: Annotated[int, typer.Option(help="Of its period, seconds since 1970.")],
    end: Annotated[int, typer.Option(help="Of its period, not part of it.")],
    allowance: Annotated[str, typer.Option(help="What each period includes, in USD.")],
    active: Annotated[bool, typer.Option("--active/--over", help="Whether it counts.")] = True,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Tell a licence by hand; a subscription's next news stands over it."""
    from guthaben.services import licences

    with opened(db) as guthaben:
        guthaben.set_license(
            practice,
            license,
            period_start_s=start,
            period_end_s=end,
            allowance_nano_usd=usd_of(allowance),
            active=active,
        )
        found = licences.show(guthaben.core, practice)
    _say_licence(found, as_json)


def refresh(practice: Practice, db: Db = None, as_json: AsJson = False) -> None:
    """Ask the payment provider anew about a practice's subscriptions."""
    with _asking(db) as licences:
        found = licences.refresh(practice)
    _say_licence(found, as_json)


def held(db: Db = None, as_json: AsJson = False) -> None:
    """List subscriptions whose practice is in doubt; `assign` says whose they are."""
    from guthaben.services import licences
    from guthaben.web import licence_views

    with opened(db) as guthaben:
        shown = licence_views.held(licences.held(guthaben.core, 500))["held"]
    if as_json:
        say_json(shown)
        return
    rows = [
        (row["held_no"], row["reference"], row["reason"], row["named"], moment(row["held_at_s"]))
        for row in shown
    ]
    titles = (
        ("no.", "right"), ("subscription", "left"), ("why", "left"), ("names", "left"),
        ("since (UTC)", "left"),
    )  # fmt: skip
    say_table(titles, rows)


def assign(
    practice: Practice,
    subscription: Annotated[str, typer.Argument(help="Its number in `held`, or sub_...")],
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Say whose a subscription is: one that is held, or one that was never heard of."""
    with _asking(db) as licences:
        found = licences.assign(practice, subscription)
    _say_licence(found, as_json)


@contextmanager
def _asking(db: str | None) -> Iterator[Licences]:
    """Open the database and the payment provider for one command."""
    from guthaben import config
    from guthaben.payments.stripe_gateway import StripeGateway, point_sdk_at
    from guthaben.services.licences import Licences

    base = config.stripe_api_base()
    gateway = StripeGateway(config.stripe_secret_key(), api_base=base)
    point_sdk_at(base)
    with opened(db) as guthaben:
        yield Licences(guthaben, gateway, livemode=config.livemode_expected())


def _say_licence(found: LicenceView, as_json: bool) -> None:
    from guthaben.web import licence_views

    shown = licence_views.licence(found)
    if as_json:
        say_json(shown)
        return
    subscriptions = shown.pop("subscriptions")
    for name in ("period_start_s", "period_end_s", "ends_at_s"):
        at_s = shown.pop(name)
        shown[name.removesuffix("_s")] = moment(at_s) if at_s else "never"
    if found.source == "none":
        shown = {"practice_id": found.practice_id, "license": "none"}
    say_pairs(shown)
    if subscriptions:
        say("")
        titles = ("reference", "status", "plans", "quantity", "period_allowance_usd", "leads")
        columns = [(title, "left") for title in titles]
        say_table(columns, [[_cell(row[title]) for title in titles] for row in subscriptions])


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(value) if isinstance(value, list) else value


# ---------------------------------------------------------------- plans


def set_plan(
    lookup_key: LookupKey,
    allowance: Annotated[str, typer.Argument(help="What each period includes, in USD.")],
    trial: Annotated[str, typer.Option(help="What a trial includes; default the same.")] = "",
    start: At = "",
    author: Author = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Say what a plan includes in periods that begin at a date or later.

    A plan's first entry counts for every period.
    """
    from guthaben.services.plans import PlanBook
    from guthaben.web import licence_views

    with opened(db) as guthaben:
        made = PlanBook(guthaben.core).set(
            lookup_key,
            usd_of(allowance),
            trial_nano_usd=usd_of(trial) if trial else None,
            from_s=_day(start),
            author=author,
        )
    shown = licence_views.plan(made)
    if as_json:
        say_json(shown)
    else:
        say(f"{lookup_key} includes {shown['allowance_usd']} USD {_since(shown['from_s'])}.")


def _day(text: str) -> int | None:
    from datetime import UTC, datetime

    if not text:
        return None
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no day such as 2026-01-31.") from error


def _since(from_s: int) -> str:
    return f"in periods from {moment(from_s)}" if from_s else "in every period"


def list_plans(
    history: Annotated[bool, typer.Option("--history", help="All that was ever set.")] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List what plans include now."""
    from guthaben.services.plans import PlanBook
    from guthaben.web import licence_views

    with opened(db) as guthaben:
        book = PlanBook(guthaben.core)
        found = book.history() if history else book.current()
    shown = [
        {**licence_views.plan(version), **({"removed": version.removed} if history else {})}
        for version in found
    ]
    if as_json:
        say_json(shown)
        return
    rows = [
        (
            row["lookup_key"],
            "removed" if row.get("removed") else row["allowance_usd"],
            row["trial_usd"],
            _since(row["from_s"]),
        )
        for row in shown
    ]
    titles = (("plan", "left"), ("USD", "right"), ("trial", "right"), ("counts", "left"))
    say_table(titles, rows)


def remove_plan(lookup_key: LookupKey, author: Author = "", db: Db = None) -> None:
    """Let a price be no plan in periods that begin from now on."""
    from guthaben.services.plans import PlanBook

    with opened(db) as guthaben:
        PlanBook(guthaben.core).remove(lookup_key, author=author)
    say(f"{lookup_key} is no plan from now on; licences that have it keep their allowance.")
