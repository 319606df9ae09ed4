"""The import of prices: what the package `genai-prices` holds, as a sheet of our own.

Law: nothing is fetched: only what the installed package carries is read, and only when somebody
asks. Every price is taken exactly; a model with a price that we can't represent or don't know is
left out and named, so that its calls are refused rather than priced wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from importlib import import_module, metadata
from typing import Any, Final, NamedTuple

from guthaben.domain.price_match import matcher
from guthaben.domain.price_sheet import FORMAT, entry_of, names_fit
from guthaben.errors import ConfigError, InvalidInput

PACKAGE: Final = "genai-prices"
# The package charges these by at least ten seconds, in its code and not in its data.
_MINIMUM_US: Final = {
    ("groq", "whisper-large-v3"): 10_000_000,
    ("groq", "whisper-large-v3-turbo"): 10_000_000,
}


class ImportedSheet(NamedTuple):
    """A sheet, where it came from, and which models had to be left out, with the reason."""

    sheet: dict[str, Any]
    source: str
    left_out: tuple[str, ...]


def installed_prices() -> ImportedSheet:
    """Read the installed package. Raises `ConfigError` without it."""
    try:
        providers = import_module("genai_prices.data").providers
        version = metadata.version(PACKAGE)
    except (ImportError, AttributeError, metadata.PackageNotFoundError) as error:
        raise ConfigError(
            f"The prices come from the package {PACKAGE}: pip install 'guthaben[prices]'"
        ) from error
    return sheet_of(providers, f"{PACKAGE} {version}")


def sheet_of(providers: Iterable[Any], source: str) -> ImportedSheet:
    """Make a sheet of the package's providers."""
    left_out: list[str] = []
    shelves = [_provider(provider, left_out) for provider in providers]
    sheet = {"format": FORMAT, "source": source, "providers": shelves}
    return ImportedSheet(sheet, source, tuple(left_out))


def _provider(provider: Any, left_out: list[str]) -> dict[str, Any]:
    models = []
    for model in provider.models:
        try:
            models.append(_model(provider.id, model))
        except (ArithmeticError, AttributeError, InvalidInput, TypeError, ValueError) as error:
            left_out.append(f"{provider.id}/{model.id}: {error}")
    made = {
        "id": provider.id,
        "is_called": _clause(provider.provider_match),
        "makes": _clause(provider.model_match),
        "answers_at": {"regex": f"^(?:{provider.api_pattern})"},
        "fallback": list(provider.fallback_model_providers or ()),
        "models": models,
    }
    return {name: value for name, value in made.items() if value or name == "models"}


def _model(provider: str, model: Any) -> dict[str, Any]:
    if not names_fit(provider, model.id):
        raise ValueError("its name is too long")
    made = {
        "id": model.id,
        "match": _clause(model.match),
        "window": model.context_window,
        "minimum_us": _MINIMUM_US.get((provider, model.id)),
        "prices": [_entry(prices, constraint) for constraint, prices in _conditional(model.prices)],
        "variants": [
            _entry(variant.prices, variant.constraint, variant.when)
            for variant in model.price_variants or ()
            if _rates(variant.prices)
        ],
    }
    for raw in (*made["prices"], *made["variants"]):
        entry_of(raw)
    matcher(made["match"])
    return {name: value for name, value in made.items() if value}


def _conditional(prices: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(prices, list):
        for conditional in prices:
            yield conditional.constraint, conditional.prices
    else:
        yield None, prices


def _entry(prices: Any, constraint: Any, when: dict[str, str] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"rates": _rates(prices)}
    if when:
        made["when"] = dict(when)
    if constraint is None:
        return made
    start = getattr(constraint, "start_date", None)
    if isinstance(start, date):
        return {**made, "from": start.isoformat()}
    return {**made, "daily": [_utc(constraint.start_time), _utc(constraint.end_time)]}


def _utc(moment: time) -> str:
    if moment.utcoffset():
        raise ValueError("its hours are not in UTC")
    return moment.replace(tzinfo=None).isoformat()


def _rates(prices: Any) -> dict[str, Any]:
    return {key: _price(value) for key, value in vars(prices).items() if value is not None}


def _price(value: Any) -> object:
    if isinstance(value, Decimal):
        return _decimal(value)
    return [_decimal(value.base), *([tier.start, _decimal(tier.price)] for tier in value.tiers)]


def _decimal(value: Decimal) -> str:
    """Write a price without an exponent and without zeros at its end; nothing is rounded."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clause(clause: Any) -> dict[str, Any] | None:
    if clause is None:
        return None
    ((name, operand),) = vars(clause).items()
    operator = name.rstrip("_")
    if operator in ("or", "and"):
        return {operator: [_clause(part) for part in operand]}
    return {operator: operand}
