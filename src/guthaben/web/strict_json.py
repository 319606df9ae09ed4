"""Strict reading of a request's body: bytes limit, UTF-8, one JSON object, nothing twice.

Law: a body is as `plain_json` says, and without fractions: amounts are decimal strings. What the
fields mean is in `shapes`.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from starlette.requests import ClientDisconnect, Request

from guthaben.plain_json import PlainJson, UnclearJson
from guthaben.web.problems import Problem, invalid

MAX_BODY: Final = 65_536


def _no_fraction(_digits: str) -> NoReturn:
    raise UnclearJson('Numbers are whole; send amounts as decimal strings such as "0.0015".')


_JSON: Final = PlainJson(most_digits=18, fraction=_no_fraction)


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
        return _JSON.object(raw)
    except UnclearJson as error:
        raise invalid(str(error)) from error
