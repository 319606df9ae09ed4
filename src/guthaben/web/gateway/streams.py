"""Streams of events: passed on as they come, while their usage is read and, if need be, hidden.

Law: an event is passed on unchanged or, where the caller did not ask for usage, without it. What is
kept of an answer is its usage and a count of its tokens; the text goes as soon as it is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from guthaben.services.ai_streams import Told
from guthaben.services.token_count import TokenCount

_MOST_BYTES: Final = 64 * 1024 * 1024
_NO_USAGE: Final = b',"usage":null'
DONE: Final = b"[DONE]"


class Splitter:
    """Parts bytes into whole events, blank line included."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the events that are whole now. Raises `ValueError` for one without an end."""
        rest = self._rest + data if self._rest else data
        start = 0
        while True:
            end = _end_of_event(rest, start)
            if end < 0:
                break
            yield rest[start:end]
            start = end
        self._rest = rest[start:]
        if len(self._rest) > _MOST_BYTES:
            raise ValueError("an event has no end")

    def rest(self) -> bytes:
        """Give what came last without a blank line."""
        rest, self._rest = self._rest, b""
        return rest


def _end_of_event(data: bytes, start: int) -> int:
    plain = data.find(b"\n\n", start)
    other = data.find(b"\r\n\r\n", start, plain if plain >= 0 else len(data))
    if other >= 0:
        return other + 4
    return plain + 2 if plain >= 0 else -1


class Watcher(Told):
    """Looks at the events of one stream as they come over the wire."""

    def __init__(self, count: TokenCount | None, *, hide_usage: bool) -> None:
        super().__init__(count)
        self._hide = hide_usage

    def look(self, event: bytes) -> bytes:
        """Note what an event tells; give what is passed on of it, b"" for nothing."""
        data = data_of(event)
        if data == DONE:
            self.done = True
            return event
        body = _object(data)
        if body is None:
            return event
        self.note(body)
        if not self._hide or b'"usage"' not in data:
            return event
        if body.get("usage") is not None:
            return b"" if body.get("choices") == [] else _without_usage(event, body)
        return event.replace(_NO_USAGE, b"") if _NO_USAGE in event else _without_usage(event, body)


def data_of(event: bytes) -> bytes:
    """Give an event's data."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event.rstrip(b"\r\n")):
        return event[5:].strip()
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def _object(data: bytes) -> dict[str, Any] | None:
    if not data.startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if type(found) is dict else None


def _without_usage(event: bytes, body: dict[str, Any]) -> bytes:
    head = b"".join(
        line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data:")
    )
    kept = {name: value for name, value in body.items() if name != "usage"}
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    return head + b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


def error_event(body: Mapping[str, Any]) -> bytes:
    """Make the event that tells that a stream broke."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
