"""Changes of prices: the vendor's own sheet after a change, and what differs between two books.

Law: pure; a sheet goes in and a new one comes out. A price is set for the model that a name means,
so that it stands over what was imported for that model under all its names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from guthaben.domain.price_book import PriceBook
from guthaben.domain.price_match import Found
from guthaben.domain.price_sheet import Entry, margins_of, names_fit, rate_value, refused
from guthaben.errors import Refused

Change = Callable[[PriceBook, dict[str, Any]], tuple[str, dict[str, Any]]]
"""From a book and the own sheet to a few words and the changed sheet."""
MOST_ALIASES: Final = 50
TAKEN_AWAY: Final = "none"
"""What is shown of an imported price that the vendor took away."""


class RateChange(NamedTuple):
    """Prices to be set for a model."""

    model: str
    rates: Mapping[str, str | None]
    provider: str = ""
    from_day: str = ""
    when: Mapping[str, str] = {}
    aliases: tuple[str, ...] = ()


class Difference(NamedTuple):
    """One price that differs; None where there is none on that side."""

    provider: str
    model: str
    price: str
    """Its key, with its day and circumstances: input_mtok from 2025-06-10."""
    old: object
    new: object


def with_rates(book: PriceBook, own: dict[str, Any], change: RateChange) -> tuple[str, Any]:
    """Set prices in the vendor's sheet; the same day and circumstances are merged."""
    provider, model = _named(book, change.model, change.provider)
    if not change.rates and not change.aliases:
        raise refused("there is nothing to set")
    models = [dict(entry) for entry in own["models"]]
    mine = next((m for m in models if (m["provider"], m["model"]) == (provider, model)), None)
    if mine is None:
        mine = {"provider": provider, "model": model, "prices": []}
        models.append(mine)
    mine["prices"] = _merged(mine["prices"], change)
    aliases = list(dict.fromkeys((*mine.get("aliases", ()), *change.aliases)))
    if len(aliases) > MOST_ALIASES or not all(a.isprintable() and a for a in aliases):
        raise refused(f"a model has at most {MOST_ALIASES} aliases, printable")
    if aliases:
        mine["aliases"] = aliases
    what = ", ".join(f"{key}={value}" for key, value in change.rates.items())
    return f"set {provider}/{model} {what}".strip(), {**own, "models": models}


def _merged(prices: list[dict[str, Any]], change: RateChange) -> list[dict[str, Any]]:
    head: dict[str, Any] = {}
    if change.from_day:
        head["from"] = change.from_day
    if change.when:
        head["when"] = dict(change.when)
    kept = []
    rates: dict[str, Any] = {}
    for entry in prices:
        if {key: value for key, value in entry.items() if key != "rates"} == head:
            rates = dict(entry["rates"])
        else:
            kept.append(entry)
    made = {**head, "rates": {**rates, **change.rates}}
    # Later entries stand over earlier ones, so they are kept in the order of their days.
    every = [*kept, made] if made["rates"] else kept
    return sorted(every, key=lambda entry: entry.get("from", ""))


def without_rates(
    book: PriceBook, own: dict[str, Any], model: str, provider: str
) -> tuple[str, Any]:
    """Drop a model from the vendor's sheet."""
    found = _named(book, model, provider)
    models = [m for m in own["models"] if (m["provider"], m["model"]) != found]
    if len(models) == len(own["models"]):
        raise refused(f"{'/'.join(found)} has no prices of your own")
    return f"unset {'/'.join(found)}", {**own, "models": models}


def with_margin(
    own: dict[str, Any], plan: str, margin: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Set a plan's margin in the vendor's sheet."""
    margins_of({"margins": {plan: margin}})
    text = f"margin of {plan}: times {margin['factor']} plus {margin['fixed_nano_usd']} nano-USD"
    return text, {**own, "margins": {**own["margins"], plan: dict(margin)}}


def _named(book: PriceBook, model: str, provider: str) -> tuple[str, str]:
    try:
        found = book.find(model, provider)
    except Refused:
        if not provider:
            raise refused(
                f"{model!r:.100} is no model that is known; to add it, name its provider too"
            ) from None
        return _new(model.lower().strip(), provider.lower().strip())
    return found.provider, found.model


def _new(model: str, provider: str) -> tuple[str, str]:
    if not names_fit(provider, model):
        raise refused("the names of provider and model together have at most 100 characters")
    return provider, model


# ---------------------------------------------------------------- differences


def differences(old: PriceBook, new: PriceBook) -> tuple[Difference, ...]:
    """List every price that one book has and the other hasn't, or has otherwise."""
    before, after = dict(_prices(old)), dict(_prices(new))
    found = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            found.append(Difference(*key, before.get(key), after.get(key)))
    return tuple(found)


def _prices(book: PriceBook) -> Iterator[tuple[tuple[str, str, str], object]]:
    for found in book.every():
        yield from model_prices(book, found)
    for plan, margin in book.margins.items():
        factor = f"{margin.numerator}/{margin.denominator}"
        yield ("", f"margin of {plan}", "factor, fixed"), f"{factor}, {margin.fixed_nano_usd}"


def model_prices(book: PriceBook, found: Found) -> Iterator[tuple[tuple[str, str, str], object]]:
    """List a model's prices in words: provider, model and price, and its value."""
    model = book.model(found)
    kinds = (("", model.standard), ("", model.variants), ("own ", model.own))
    for kind, entries in kinds:
        for entry in entries:
            for key, rate in entry.rates:
                words = f"{kind}{key}{_words(entry)}"
                value = TAKEN_AWAY if rate is None else rate_value(rate)
                yield (found.provider, found.model, words), value


def _words(entry: Entry) -> str:
    words = "".join(f" {name}={value}" for name, value in entry.when)
    if entry.daily_s is not None:
        start, end = (f"{s // 3600:02d}:{s // 60 % 60:02d}" for s in entry.daily_s)
        words += f" daily {start}-{end}"
    if entry.from_s:
        words += f" from {datetime.fromtimestamp(entry.from_s, UTC):%Y-%m-%d}"
    return words
