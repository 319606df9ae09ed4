"""JSON that everybody understands alike: no name twice, no NaN, no endless number, UTF-8.

Law: what two readers could understand differently is refused before anything else looks at it.
What the fields mean, and how a refusal is told to the sender, is the callers'.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn


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
            return self._decoder.decode(raw.decode())
        except UnclearJson:
            raise
        except UnicodeDecodeError as error:
            raise UnclearJson("The body is not UTF-8.") from error
        except (ValueError, RecursionError) as error:
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


def _no_constant(name: str) -> NoReturn:
    raise UnclearJson(f"{name} is no JSON number.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnclearJson("A name occurs twice in the same object.")
    return found
