"""Commands about prices: import, show, diff, set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
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
    from guthaben.services.guthaben import Guthaben
    from guthaben.services.price_changes import Difference
    from guthaben.services.prices import ImportReport, Prices, PriceVersion

Provider = Annotated[
    str, typer.Option(help="Whose model, such as openai; default what its name says.")
]
Author = Annotated[str, typer.Option(help="Who; it is kept.")]
_MOST_SHOWN = 200


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Prices of models: import, show, compare, set your own.", no_args_is_help=True
    )
    for name, work in (("import", take), ("show", show), ("diff", diff), ("set", set_prices)):
        group.command(name)(command(work))
    app.add_typer(group, name="prices")


def take(author: Author = "", db: Db = None, as_json: AsJson = False) -> None:
    """Take the prices of the installed package genai-prices; nothing is fetched, yours stay."""
    with opened(db) as guthaben:
        report = _prices(guthaben).take(author=author)
    if as_json:
        say_json(_report(report))
        return
    state = "taken" if report.version.new else "there already; nothing changed"
    say(f"{report.source}: {state}. Version {report.version.version}")
    say(f"{len(report.differences)} prices changed.")
    _say_left_out(report)


def diff(
    old: Annotated[
        str, typer.Argument(help="A version; default the one that counts.", show_default=False)
    ] = "",
    new: Annotated[
        str, typer.Argument(help="Another; default the installed package.", show_default=False)
    ] = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two versions, or what an import would change; changes nothing."""
    from guthaben.services.price_changes import differences

    with opened(db) as guthaben:
        prices = _prices(guthaben)
        report = None
        if new:
            found = differences(prices.version_book(old), prices.version_book(new))
        elif old:
            found = differences(prices.version_book(old), prices.book())
        else:
            report = prices.compare()
            found = report.differences
    if as_json:
        say_json([difference._asdict() for difference in found])
        return
    _say_differences(found)
    if report is not None:
        _say_left_out(report)


def show(
    model: Annotated[
        str, typer.Argument(help="A model's name; without one, versions.", show_default=False)
    ] = "",
    provider: Provider = "",
    version: Annotated[
        str, typer.Option(help="Of this version, or of a call's price_version.")
    ] = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's prices, or the versions, newest first."""
    with opened(db) as guthaben:
        prices = _prices(guthaben)
        if not model:
            _say_versions(prices.versions(), as_json)
            return
        shown = _model(prices, model, provider, version)
    if as_json:
        say_json(shown)
        return
    rows = shown.pop("prices")
    say_pairs(shown)
    columns = [("price", "left"), ("USD", "left")]
    say_table(columns, [(row["price"], _value(row["usd"])) for row in rows])


def set_prices(
    model: Annotated[
        str, typer.Argument(help="A model's name; a new one needs --provider.", show_default=False)
    ] = "",
    rates: Annotated[
        list[str] | None,
        typer.Argument(
            help="PRICE=USD, such as input_mtok=0.15, audio_hours=0.36; PRICE=none takes one away.",
            show_default=False,
        ),
    ] = None,
    provider: Provider = "",
    start: Annotated[
        str, typer.Option("--from", help="The day it begins (UTC), such as 2026-01-31.")
    ] = "",
    when: Annotated[
        list[str] | None,
        typer.Option(help="Only where NAME=VALUE, such as processing=batch; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="One more name of the model; may be repeated.")
    ] = None,
    unset: Annotated[
        bool, typer.Option("--unset", help="Drop all of your own prices of the model.")
    ] = False,
    plan: Annotated[
        str, typer.Option(help="Set the margin of this plan; * is every other plan.")
    ] = "",
    factor: Annotated[str, typer.Option(help="The margin's factor: 1.25 or 5/4.")] = "1",
    fixed: Annotated[str, typer.Option(help="The margin's fixed part in USD a call.")] = "0",
    author: Author = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Set your own prices of a model, or a plan's margin. They stand over what is imported."""
    if bool(model) == bool(plan):
        raise InvalidInput("Name a model and its prices, or --plan and its margin.")
    with opened(db) as guthaben:
        prices = _prices(guthaben)
        if plan:
            made = prices.set_margin(
                plan, factor=factor, fixed_nano_usd=usd_of(fixed), author=author
            )
        elif unset:
            made = prices.unset_rates(model, provider=provider, author=author)
        else:
            made = prices.set_rates(
                model,
                {name: None if usd == "none" else usd for name, usd in _pairs(rates or ())},
                provider=provider,
                from_day=start,
                when=dict(_pairs(when or ())),
                aliases=tuple(alias or ()),
                author=author,
            )
    if as_json:
        say_json(asdict(made))
    else:
        state = made.change if made.new else "nothing changed"
        say(f"Version {made.version}: {state}")


def _prices(guthaben: Guthaben) -> Prices:
    from guthaben.services.prices import Prices

    return Prices(guthaben.core.store)


def _pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InvalidInput(f"{text!r} is no NAME=VALUE.")
        pairs.append((name, value))
    return pairs


def _model(prices: Prices, model: str, provider: str, version: str) -> dict[str, Any]:
    from guthaben.services.price_changes import model_prices

    book = prices.version_book(version) if version else prices.book()
    found = book.find(model, provider)
    return {
        "version": book.version,
        "provider": found.provider,
        "model": found.model,
        "listed_by": found.home,
        "prices": [
            {"price": words, "usd": value}
            for (_provider, _model, words), value in model_prices(book, found)
        ],
    }


def _say_versions(versions: list[PriceVersion], as_json: bool) -> None:
    if as_json:
        say_json([asdict(version) for version in versions])
        return
    if not versions:
        say("There are no prices yet: guthaben prices import")
    columns = [(title, "left") for title in ("version", "made (UTC)", "change", "author")]
    rows = [(v.version, moment(v.created_at_s), v.change, v.author) for v in versions]
    say_table(columns, rows)


def _say_differences(found: tuple[Difference, ...]) -> None:
    say(f"{len(found)} prices differ.")
    columns = [(title, "left") for title in ("provider", "model", "price", "old", "new")]
    rows = [(d.provider, d.model, d.price, _value(d.old), _value(d.new)) for d in found]
    if rows:
        say_table(columns, rows[:_MOST_SHOWN])
    if len(rows) > _MOST_SHOWN:
        say(f"... and {len(rows) - _MOST_SHOWN} more: --json shows all.")


def _value(value: object) -> str:
    """Write a price for a person: with its tiers, or a dash where there is none."""
    if isinstance(value, list):
        tiers = "".join(f", {price} above {start}" for start, price in value[1:])
        return f"{value[0]}{tiers}"
    return "-" if value is None else str(value)


def _say_left_out(report: ImportReport) -> None:
    for name in report.left_out:
        say(f"Left out, so its calls are refused: {name}")


def _report(report: ImportReport) -> dict[str, Any]:
    return {
        "version": asdict(report.version),
        "source": report.source,
        "changed": len(report.differences),
        "left_out": list(report.left_out),
    }
