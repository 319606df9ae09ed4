"""Lenient reading of the application's JSON: "30", 30 and 30.0 are the same number to it.

Law: lenient about the form, never about the meaning: what can't be read is `InvalidInput` that
names the field. A field that is missing or null is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from guthaben.errors import InvalidInput
from guthaben.plain_json import decoded
from guthaben.services.topups import LEAST_RAPPEN, MOST_RAPPEN

_YES: Final = frozenset({"1", "true", "yes", "on", "ja"})
_NO: Final = frozenset({"0", "false", "no", "off", "nein"})
_LONGEST_TEXT: Final = 500
_DECODER: Final = json.JSONDecoder(parse_float=Decimal)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        found = decoded(body, _DECODER.decode)
    except ValueError as error:
        raise InvalidInput("the body is no JSON") from error
    if not isinstance(found, dict):
        raise InvalidInput("the body is no JSON object")
    return found


def flag(source: Mapping[str, Any], name: str) -> bool | None:
    """Read a switch."""
    value = source.get(name)
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, int | str) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise InvalidInput(f"{name} is neither yes nor no", field=name)


def number(source: Mapping[str, Any], name: str) -> Decimal | None:
    """Read a number, exactly."""
    value = source.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int | str | Decimal) and not isinstance(value, bool):
        try:
            found = Decimal(value.strip() if isinstance(value, str) else value)
        except InvalidOperation:
            found = Decimal("NaN")
        if found.is_finite() and abs(found) < 10**12:
            return found
    raise InvalidInput(f"{name} is no number", field=name)


def amount(source: Mapping[str, Any], name: str) -> Any:
    """Read an amount as money's edge takes it: exact."""
    return number(source, name)


def text(source: Mapping[str, Any], name: str) -> str:
    """Read a text, empty where there is none."""
    value = source.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise InvalidInput(f"{name} is no text of at most {_LONGEST_TEXT} characters", field=name)
    return value.strip()


def whole(source: Mapping[str, Any], name: str) -> int | None:
    """Read a whole number, as from a query."""
    found = number(source, name)
    if found is None:
        return None
    if found != int(found):
        raise InvalidInput(f"{name} is no whole number", field=name)
    return int(found)


def price(source: Mapping[str, Any], name: str, default: Any) -> Any:
    """Read the price of a top-up in CHF: 10 to 5,000, whole Rappen."""
    found = number(source, name)
    if found is None:
        return default
    rappen = found * 100
    if rappen != int(rappen) or not LEAST_RAPPEN <= rappen <= MOST_RAPPEN:
        raise InvalidInput(f"{name} is 10.00 to 5000.00 CHF, in whole Rappen", field=name)
    return found
