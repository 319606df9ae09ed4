"""What a host says about a ledger entry, made fit to be kept: one JSON object without secrets.

Law: no key, token, card, payment method or e-mail address gets through, neither by its name nor by
its value; what JSON can't hold is left out, and nothing foreign is ever asked for its text. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

_MOST_CHARACTERS: Final = 8_000
_DEEPEST: Final = 6
_MOST_ITEMS: Final = 200

_SECRET_NAME: Final = re.compile(
    r"secret|token(?!s)|passw|credential|authori[sz]ation|signature|card|iban|cvc|cvv"
    r"|payment_?method|(^|[^a-z])pm([^a-z]|$)|e_?-?mail|api_?-?key|(^|[^a-z])keys?([^a-z]|$)",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"\b(?:(?:sk|rk|pk)_(?:live|test)|whsec|pm|card|src|tok|ba|gh_live|gh_test)_[A-Za-z0-9_]+"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+"
    r"|[^\s@<>\"']+@[^\s@<>\"']+\.[A-Za-z]{2,}"
    r"|\b(?:\d[ -]?){12,18}\d\b"
)
_REMOVED: Final = "[removed]"


def clean_meta(meta: object) -> str | None:
    """Write a mapping as JSON without what may not be kept; None where nothing is left."""
    if not isinstance(meta, Mapping):
        return None
    kept = _object(meta, 0)
    if not kept:
        return None
    written = json.dumps(kept, ensure_ascii=True, allow_nan=False, sort_keys=True)
    return written if len(written) <= _MOST_CHARACTERS else '{"truncated": true}'


def _object(meta: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in list(meta.items())[:_MOST_ITEMS]:
        if not isinstance(name, str) or _SECRET_NAME.search(_spaced(name)):
            continue
        if _SECRET_VALUE.search(name):
            continue
        fit, clean = _value(value, depth + 1)
        if fit:
            kept[name] = clean
    return kept


def _spaced(name: str) -> str:
    """Let `apiKey` read as `api_Key`, so that its parts are seen."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)


def _value(value: object, depth: int) -> tuple[bool, Any]:
    """Tell whether a value may be kept, and as what."""
    if value is None or type(value) in (bool, int):
        return True, value
    if type(value) is str:
        clean = _SECRET_VALUE.sub(_REMOVED, value)
        return clean != _REMOVED, clean
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return True, _object(value, depth)
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        parts = (_value(part, depth + 1) for part in value[:_MOST_ITEMS])
        return True, [clean for fit, clean in parts if fit]
    return type(value).__name__ == "float" and math.isfinite(value), value  # type: ignore[arg-type]
