"""Names of models: which provider's which model a name means, exactly as genai-prices decides it.

Law: a pure function of the sheet, so the same name in the same version always means the same model.
The first match in the sheet's order wins. Names are compared in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar

Matcher = Callable[[str], bool]
T = TypeVar("T")

_COMPACT_DATE: Final = re.compile(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def matcher(clause: Mapping[str, Any]) -> Matcher:
    """Make a test of a clause: one of starts_with, ends_with, contains, equals, regex, or, and.

    Raises `ValueError` for anything else.
    """
    if len(clause) != 1:
        raise ValueError(f"a clause has one operator: {clause!r:.80}")
    ((operator, operand),) = clause.items()
    if operator in ("or", "and"):
        return _combined(any if operator == "or" else all, tuple(map(matcher, operand)))
    if operator == "regex":
        found = _compiled(operand).search
        return lambda name: found(name) is not None
    compare = _COMPARED.get(operator)
    if compare is None:
        raise ValueError(f"no operator of a clause: {operator!r:.40}")
    wanted = operand.lower()
    return lambda name: compare(name, wanted)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression of a clause: {pattern!r:.80}") from error


_COMPARED: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
    "equals": str.__eq__,
}


def _combined(decide: Callable[[Any], bool], parts: tuple[Matcher, ...]) -> Matcher:
    return lambda name: decide(part(name) for part in parts)


class Shelf(NamedTuple):
    """A provider and how its models are found; `models` are tests and positions in the sheet."""

    provider: str
    is_called: Matcher | None
    makes: Matcher | None
    """Tells whether a name without a provider means one of its models."""
    answers_at: Matcher | None
    """Tells whether a URL is its API."""
    models: tuple[tuple[Matcher, str], ...]
    fallback: tuple[str, ...] = ()


class Found(NamedTuple):
    """A model: who was asked for it, in whose list it stands, and its id there."""

    provider: str
    home: str
    model: str


def find_shelf(shelves: Sequence[Shelf], provider: str) -> Shelf | None:
    """Find a provider by its id, else by its other names."""
    wanted = provider.lower().strip()
    for shelf in shelves:
        if shelf.provider == wanted:
            return shelf
    return _first(shelves, lambda shelf: shelf.is_called, wanted)


def find_maker(shelves: Sequence[Shelf], name: str) -> Shelf | None:
    """Find the provider that a model's name speaks of."""
    return _first(shelves, lambda shelf: shelf.makes, name)


def find_host(shelves: Sequence[Shelf], url: str) -> Shelf | None:
    """Find the provider whose API a URL is."""
    return _first(shelves, lambda shelf: shelf.answers_at, url)


def _first(
    shelves: Sequence[Shelf], test_of: Callable[[Shelf], Matcher | None], text: str
) -> Shelf | None:
    for shelf in shelves:
        test = test_of(shelf)
        if test is not None and test(text):
            return shelf
    return None


def find_model(shelves: Sequence[Shelf], shelf: Shelf, name: str) -> Found | None:
    """Find a model of a provider; its fallbacks, one step far, come after its own models.

    A name that ends in a compact date (-20251211) is tried with a dashed one where it is not found.
    """
    found = _look(shelves, shelf, name)
    dashed = _COMPACT_DATE.sub(_dashed, name)
    if found is None and dashed != name:
        return _look(shelves, shelf, dashed)
    return found


def _look(shelves: Sequence[Shelf], shelf: Shelf, name: str) -> Found | None:
    homes = [shelf]
    for provider in shelf.fallback:
        homes += [other for other in shelves if other.provider == provider][:1]
    for home in homes:
        for is_match, model in home.models:
            if is_match(name):
                return Found(shelf.provider, home.provider, model)
    return None


def _dashed(match: re.Match[str]) -> str:
    year, month, day = (int(match.group(index)) for index in (2, 3, 4))
    try:
        date(year, month, day)
    except ValueError:
        return match.group(0)
    return f"-{year:04d}-{month:02d}-{day:02d}"
