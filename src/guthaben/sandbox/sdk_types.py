"""Owns which parameters an endpoint takes: read out of the installed SDK's own types.

Law: nothing is written down by hand. The SDK's services say which TypedDict belongs to which
method and path, and the TypedDicts say names and kinds, nested as deep as they go; so a newer SDK
brings its parameters along. What a handler does with a parameter is the handler's.
"""

import importlib
import re
import types
import typing
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import stripe
import typing_extensions
from stripe import RequestOptions
from stripe._stripe_object import UntypedStripeObject


class Scalar(NamedTuple):
    """One value: `integer`, `number`, `boolean`, or `string`, maybe of a closed set."""

    kind: str
    options: tuple[str, ...] = ()


class ListOf(NamedTuple):
    """A list, each entry of the same kind."""

    entry: "Kind"


class MapOf(NamedTuple):
    """Names of the caller's own, such as metadata."""


class Group(NamedTuple):
    """Named parameters; `type_` is the SDK's TypedDict."""

    type_: Any


class OneOf(NamedTuple):
    """Any of several kinds."""

    kinds: "tuple[Kind, ...]"


Kind = Scalar | ListOf | MapOf | Group | OneOf


class Names(NamedTuple):
    """The parameters of a group, and those that must be there."""

    kinds: dict[str, Kind]
    required: frozenset[str]


_ANY_TEXT = Scalar("string")
_SCALARS = {
    int: Scalar("integer"),
    bool: Scalar("boolean"),
    float: Scalar("number"),
    Decimal: Scalar("number"),
    str: _ANY_TEXT,
}
_REQUEST = re.compile(r'self\._request\(\s*"(get|post|delete)",\s*"(/v1/[^"]*)"')
_PARAMS = re.compile(r'params: (?:Optional\[)?"(\w+)"')
_IMPORT = re.compile(r"from (stripe\.params[\w.]*) import (\([^)]*\)|\w+)")
# Every TypedDict inherits the request's options, whose types are written for another module.
_NAMES_OF_OPTIONS = {"StripeContext": Any, "Mapping": Mapping}
_OPTIONS = frozenset(RequestOptions.__annotations__)


@cache
def _endpoints() -> dict[tuple[str, str], tuple[str, str]]:
    """Return module and name of the TypedDict of each endpoint that the SDK knows."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(Path(stripe.__file__).parent.rglob("_*_service.py")):
        text = path.read_text(encoding="utf-8")
        homes = {name: module for module, names in _IMPORT.findall(text) for name in _words(names)}
        for method in re.split(r"\n    (?:async )?def ", text)[1:]:
            asked, params = _REQUEST.search(method), _PARAMS.search(method)
            if asked and params:
                place = (asked[1].upper(), re.sub(r"\{\w+\}", "{}", asked[2]))
                found[place] = (homes[params[1]], params[1])
    return found


def _words(names: str) -> list[str]:
    return re.findall(r"\w+", names)


@cache
def group_of(method: str, path: str) -> Group | None:
    """Return what an endpoint takes, its path written like `/v1/refunds/{}`; None: unknown."""
    place = _endpoints().get((method, path))
    return None if place is None else Group(getattr(importlib.import_module(place[0]), place[1]))


@cache
def names_of(type_: Any) -> Names:
    """Return the parameters of a TypedDict of the SDK."""
    hints = typing_extensions.get_type_hints(type_, localns=_NAMES_OF_OPTIONS)
    own = {name: hint for name, hint in hints.items() if name not in _OPTIONS}
    required = frozenset(type_.__required_keys__) & own.keys()
    return Names({name: _kind(hint) for name, hint in own.items()}, required)


def _kind(hint: Any) -> Kind:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if typing_extensions.is_typeddict(hint):
        return Group(hint)
    if origin in (typing.Literal, typing_extensions.Literal):
        return Scalar("string", tuple(str(option) for option in args))
    if origin in (typing.Union, types.UnionType):
        return OneOf(tuple(_kind(arg) for arg in args if arg is not type(None)))
    if origin is list:
        return ListOf(_kind(args[0]))
    if hint in (dict, Any) or origin in (dict, UntypedStripeObject):
        return MapOf()
    raise TypeError(f"The SDK has a kind of parameter that the sandbox can't read: {hint}")
