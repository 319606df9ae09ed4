"""Strict reading of a request's body: bytes limit, UTF-8, one JSON object, nothing twice.

Law: what two readers could understand differently is refused before anything else looks at it:
duplicate keys, NaN and Infinity, here also numbers with a fraction. What the fields mean is in
`shapes`; the Cycles protocol, whose errors look otherwise, reads with a `StrictDecoder` of its own.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from starlette.requests import ClientDisconnect, Request

from guthaben.web.problems import Problem, invalid

MAX_BODY: Final = 65_536


class UnclearJson(ValueError):
    """No strict JSON object; the words tell its sender why."""


class StrictDecoder:
    """Decodes one JSON object of which there is one understanding only."""

    def __init__(self, *, most_digits: int, fractions: bool) -> None:
        self._most_digits = most_digits
        self._json = json.JSONDecoder(
            parse_int=self._whole,
            parse_float=None if fractions else _no_fraction,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )

    def decode(self, raw: bytes) -> dict[str, Any]:
        """Decode it. Raises `UnclearJson`."""
        try:
            found = self._json.decode(raw.decode())
        except UnclearJson:
            raise
        except UnicodeDecodeError as error:
            raise UnclearJson("The body is not UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise UnclearJson("The body is not JSON.") from error
        if type(found) is not dict:
            raise UnclearJson("The body must be a JSON object.")
        return found

    def _whole(self, digits: str) -> int:
        if len(digits) > self._most_digits:
            raise UnclearJson("A number has too many digits.")
        return int(digits)


def _no_fraction(_digits: str) -> NoReturn:
    raise UnclearJson('Numbers are whole; send amounts as decimal strings such as "0.0015".')


def _no_constant(name: str) -> NoReturn:
    raise UnclearJson(f"{name} is no JSON number.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnclearJson("A name occurs twice in the same object.")
    return found


_OURS: Final = StrictDecoder(most_digits=18, fractions=False)


async def read_bytes(request: Request, limit: int = MAX_BODY) -> bytes:
    """Read a body of at most `limit` bytes, and stop reading there."""
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:12]) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect as error:
        raise invalid("The connection ended inside the body.") from error
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    # The rest of the body is not read, so the connection can't be used again.
    headers = {"Connection": "close"}
    detail = f"A body has at most {limit} bytes. Nothing was changed."
    return Problem(413, "body_too_large", detail, headers=headers)


async def read_object(request: Request) -> dict[str, Any]:
    """Read the body as one strict JSON object; no body at all is an empty one."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")
    raw = await read_bytes(request)
    if not raw:
        return {}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = "Send JSON, with the header Content-Type: application/json."
        raise Problem(415, "unsupported_media_type", detail)
    return decode(raw)


def decode(raw: bytes) -> dict[str, Any]:
    """Decode one strict JSON object."""
    try:
        return _OURS.decode(raw)
    except UnclearJson as error:
        raise invalid(str(error)) from error
