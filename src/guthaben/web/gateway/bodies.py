"""Bodies: read whole and bounded, in memory only, and written anew for the provider.

Law: what is sent on is what was bounded: JSON is written from what was read, so that two parsers
can't disagree about it. Nothing is written to a disk. Long bodies are read on a thread.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive

from guthaben.plain_json import UnclearJson, decoded
from guthaben.web.problems import Problem, invalid

MOST_BYTES: Final = 64 * 1024 * 1024
LONG_BYTES: Final = 128 * 1024
"""Longer bodies are read on a thread, so that nobody else waits."""
_MOST_FIELDS: Final = 60
_MOST_FILES: Final = 20


class ClientGone(Exception):
    """The caller left before its request was read; there is nobody to answer."""


class Upload(NamedTuple):
    """One file of a form."""

    field: str
    name: str
    content_type: str
    data: bytes


class Form(NamedTuple):
    """A form: its texts, in order and repeated as sent, and its files."""

    texts: tuple[tuple[str, str], ...]
    files: tuple[Upload, ...]

    def body(self) -> dict[str, Any]:
        """Give the texts as a body; the last one of a name counts."""
        return dict(self.texts)


async def read(receive: Receive, headers: Headers) -> bytes:
    """Read a body to its end. Raises `Problem` (`body_too_large`), `ClientGone`."""
    told = headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > MOST_BYTES:
        raise _too_large()
    parts, size = [], 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BYTES:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def parsed(raw: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises `Problem` (`invalid_input`)."""
    if len(raw) > LONG_BYTES:
        return await asyncio.to_thread(_json, raw)
    return _json(raw)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = decoded(raw, _DECODER.decode)
    except UnclearJson as error:
        raise invalid(str(error)) from error
    except ValueError as error:
        raise invalid("The body must be a JSON object in UTF-8.") from error
    if type(found) is not dict:
        raise invalid("The body must be a JSON object.")
    return found


def _refuse(name: str) -> None:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def written(body: Mapping[str, Any]) -> bytes:
    """Write a JSON body for the provider."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


class _InMemory(MultiPartParser):
    spool_max_size = MOST_BYTES + 1  # a recording must never reach a disk


async def form(raw: bytes, headers: Headers) -> Form:
    """Read a form with its files. Raises `Problem` (`invalid_input`)."""

    async def once() -> AsyncGenerator[bytes, None]:
        yield raw
        yield b""

    parser = _InMemory(
        headers, once(), max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=MOST_BYTES
    )
    try:
        found = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise invalid("The body must be multipart/form-data.") from error
    texts, files = [], []
    for name, value in found.multi_items():
        if isinstance(value, UploadFile):
            kind = value.content_type or "application/octet-stream"
            files.append(Upload(name, value.filename or "file", kind, await value.read()))
        else:
            texts.append((name, value))
    await found.close()
    return Form(tuple(texts), tuple(files))


def form_written(found: Form) -> tuple[bytes, str]:
    """Write a form for the provider; give its content type too."""
    boundary = f"guthaben{secrets.token_hex(16)}"
    parts = []
    for name, value in found.texts:
        head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
        parts.append(_part(boundary, head, value.encode("utf-8", "replace")))
    for file in found.files:
        head = (
            f'Content-Disposition: form-data; name="{_quoted(file.field)}"; '
            f'filename="{_quoted(file.name)}"\r\nContent-Type: {_quoted(file.content_type)}'
        )
        parts.append(_part(boundary, head, file.data))
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _part(boundary: str, head: str, value: bytes) -> bytes:
    return f"--{boundary}\r\n{head}\r\n\r\n".encode() + value + b"\r\n"


def _quoted(text: str) -> str:
    """Keep a name from ending its header."""
    for character in '"\\\r\n':
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _too_large() -> Problem:
    limit = MOST_BYTES // (1024 * 1024)
    return Problem(413, "body_too_large", f"A request is at most {limit} MB.")
