"""Streams of events: passed on as they come, while their usage is read and, if need be, hidden.

Law: an event is passed on unchanged or, where the caller did not ask for usage, without it. What is
kept of an answer is its usage and a count of its tokens; the text goes as soon as it is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from guthaben.services.token_count import TokenCount

_MOST_BYTES: Final = 64 * 1024 * 1024
_COUNTED_AT: Final = 4_096
_BYTES_PER_TOKEN: Final = 4
_NO_USAGE: Final = b',"usage":null'
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")
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


class Seen:
    """Counts the tokens of a text that comes in pieces: exactly, or as well as can be."""

    def __init__(self, count: TokenCount | None) -> None:
        self._count = count
        self._pieces = 0
        self._bytes = 0
        self._tokens = 0
        self._texts: list[str] = []
        self._waiting = 0

    def add(self, text: str) -> None:
        """Take in one piece."""
        if not text:
            return
        self._pieces += 1
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        if self._count is not None:
            self._texts.append(text)
            self._waiting += len(text)
            if self._waiting > _COUNTED_AT:
                self._flush()

    def _flush(self) -> None:
        if self._count is not None and self._texts:
            self._tokens += self._count("".join(self._texts))
            self._texts.clear()
            self._waiting = 0

    @property
    def tokens(self) -> int:
        """How many tokens were seen."""
        self._flush()
        if self._count is not None:
            return self._tokens
        return max(self._pieces, -(-self._bytes // _BYTES_PER_TOKEN))


class Watcher:
    """Looks at the events of one stream of OpenAI's kinds."""

    def __init__(self, count: TokenCount | None, *, hide_usage: bool) -> None:
        self._hide = hide_usage
        self.seen = Seen(count)
        self.said: object = None
        """The answer, or the part of it that tells the usage."""
        self.failed = False
        """Whether the provider said that it failed."""
        self.done = False

    def look(self, event: bytes) -> bytes:
        """Note what an event tells; give what is passed on of it, b"" for nothing."""
        data = data_of(event)
        if data == DONE:
            self.done = True
            return event
        body = _object(data)
        if body is None:
            return event
        self._note(body)
        if not self._hide or b'"usage"' not in data:
            return event
        if body.get("usage") is not None:
            return b"" if body.get("choices") == [] else _without_usage(event, body)
        return event.replace(_NO_USAGE, b"") if _NO_USAGE in event else _without_usage(event, body)

    def _note(self, body: Mapping[str, Any]) -> None:
        kind = body.get("type")
        if kind in _ENDS:
            self.done = True
            self.failed = kind == "response.failed"
            answer = body.get("response")
            if isinstance(answer, Mapping) and answer.get("usage") is not None:
                self.said = answer
        elif body.get("usage") is not None:
            self.said = body
        if isinstance(body.get("error"), Mapping):
            self.failed = True
        self._see(body)

    def _see(self, body: Mapping[str, Any]) -> None:
        delta = body.get("delta")
        if isinstance(delta, str):
            self.seen.add(delta)
        choices = body.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            said = choice.get("delta") if isinstance(choice, Mapping) else None
            if isinstance(said, Mapping):
                for text in _texts(said):
                    self.seen.add(text)


def _texts(delta: Mapping[str, Any]) -> Iterator[str]:
    for name in _TEXTS:
        if isinstance(delta.get(name), str):
            yield delta[name]
    tools = delta.get("tool_calls")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping):
            yield from (part for part in function.values() if isinstance(part, str))


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
