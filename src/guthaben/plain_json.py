"""JSON that everybody understands alike: no name twice, no NaN, nothing endless, UTF-8.

Law: what two readers could understand differently is refused before anything else looks at it.
What the fields mean, and how a refusal is told to the sender, is the callers'.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

MOST_NESTED: Final = 100
"""Lists and objects inside each other. How many Python itself reads depends on its version."""
_TOO_DEEP: Final = f"The body is nested deeper than {MOST_NESTED} levels."


class UnclearJson(ValueError):
    """No plain JSON; the words tell its sender why."""


class PlainJson:
    """Decodes values of which there is one understanding only.

    `fraction` reads numbers with a point or an exponent; left out, they are floats.
    """

    def __init__(self, *, most_digits: int, fraction: Callable[[str], Any] | None = None) -> None:
        self._most_digits = most_digits
        self._decoder = json.JSONDecoder(
            parse_int=self._whole,
            parse_float=fraction,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )

    def value(self, raw: bytes) -> Any:
        """Decode any value. Raises `UnclearJson`."""
        try:
            return decoded(raw, self._decoder.decode)
        except UnclearJson:
            raise
        except UnicodeDecodeError as error:
            raise UnclearJson("The body is not UTF-8.") from error
        except ValueError as error:
            raise UnclearJson("The body is not JSON.") from error

    def object(self, raw: bytes) -> dict[str, Any]:
        """Decode an object. Raises `UnclearJson`."""
        found = self.value(raw)
        if type(found) is not dict:
            raise UnclearJson("The body must be a JSON object.")
        return found

    def _whole(self, digits: str) -> int:
        if len(digits) > self._most_digits:
            raise UnclearJson("A number has too many digits.")
        return int(digits)


def decoded(raw: bytes, decode: Callable[[str], Any]) -> Any:
    """Decode what is not nested so deep that who walks through it may fail.

    Raises `UnclearJson` where it is, and the `ValueError` of `decode` or of what is no UTF-8.
    """
    try:
        found = decode(raw.decode())
    except RecursionError as error:
        raise UnclearJson(_TOO_DEEP) from error
    if raw.count(b"[") + raw.count(b"{") > MOST_NESTED and _is_too_deep(found):
        raise UnclearJson(_TOO_DEEP)
    return found


def _is_too_deep(found: Any) -> bool:
    level: list[Any] = [[found]]
    for _ in range(MOST_NESTED + 1):
        parts = (whole.values() if type(whole) is dict else whole for whole in level)
        level = [part for some in parts for part in some if type(part) in (dict, list)]
    return bool(level)


def _no_constant(name: str) -> NoReturn:
    raise UnclearJson(f"{name} is no JSON number.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnclearJson("A name occurs twice in the same object.")
    return found
