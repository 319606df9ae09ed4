"""Streams of answers: what is told of their usage, and how much of them was seen.

Law: what is kept of an answer is its usage and a count of its tokens; the text goes as soon as it
is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from guthaben.services.token_count import TokenCount

_COUNTED_AT: Final = 4_096
_BYTES_PER_TOKEN: Final = 4
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")


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


class Told:
    """What the events of one stream of OpenAI's kinds tell."""

    def __init__(self, count: TokenCount | None) -> None:
        self.seen = Seen(count)
        self.said: object = None
        """The answer, or the part of it that tells the usage."""
        self.failed = False
        """Whether the provider said that it failed."""
        self.done = False
        """Whether the stream said that this was all."""

    @property
    def used_nothing(self) -> bool:
        """Whether the provider failed before anything was made."""
        return self.said is None and self.failed and not self.seen.tokens

    def note(self, body: Mapping[str, Any]) -> None:
        """Take in one event."""
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
