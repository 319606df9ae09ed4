"""Strict reading for the Cycles protocol: one JSON object, known fields, their types and bounds.

Law: a body is as `plain_json` says, and holds no text that no database keeps (NUL, halves of
characters). Fields mean nothing here; see `bodies`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from guthaben.plain_json import PlainJson, UnclearJson
from guthaben.web.cycles.errors import invalid

MAX_INT64: Final = 2**63 - 1
_JSON: Final = PlainJson(most_digits=40)
_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_BAD = re.compile("[\x00\ud800-\udfff]")


def decode(raw: bytes) -> dict[str, Any]:
    """Decode one strict JSON object."""
    try:
        found = _JSON.object(raw)
    except UnclearJson as error:
        raise invalid(str(error)) from error
    if (b"\\u" in raw and _BAD.search(json.dumps(found, ensure_ascii=False))) or b"\\u0000" in raw:
        raise invalid("Texts hold no NUL and no half of a character.")
    return found


def canonical(value: Any) -> str:
    """Write JSON so that equal values are equal texts."""
    try:
        return _CANONICAL.encode(value)
    except (ValueError, RecursionError) as error:
        raise invalid("A number is out of range.") from error


def only(found: dict[str, Any], place: str, known: frozenset[str], needed: frozenset[str]) -> None:
    """Refuse fields that are not known, and miss those that are needed."""
    names = found.keys()
    if not names <= known:
        raise invalid(f"{place} has unknown fields: {', '.join(sorted(names - known))[:200]}.")
    if not needed <= names:
        raise invalid(f"{place} needs {', '.join(sorted(needed - names))}.")


def an_object(value: object, place: str) -> dict[str, Any]:
    """Check that a value is an object."""
    if type(value) is not dict:
        raise invalid(f"{place} must be an object.")
    return value


def text(found: dict[str, Any], name: str, most: int, default: str | None = None) -> str:
    """Read a text of at most so many characters; without a default it may not be empty."""
    value = found.get(name, default)
    if type(value) is not str or len(value) > most or (default is None and not value):
        least = 1 if default is None else 0
        raise invalid(f"{name} must be a text of {least} to {most} characters.")
    return value


def number(found: dict[str, Any], name: str, least: int, most: int, default: int | None) -> int:
    """Read a whole number within bounds."""
    value = found.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise invalid(f"{name} must be a whole number from {least} to {most}.")
    return value
