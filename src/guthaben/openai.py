"""`wrap`: OpenAI's own client, gated and metered, without a server in between.

Law: what is asked through a wrapped client is reserved before and settled after; what this module
does not know how to meter is refused, never let through. Works by the names of methods, for the
sync and the async client alike; the package `openai` itself is not imported.
"""

from __future__ import annotations

from typing import Any, Final

from guthaben.services.ai_quotes import Endpoint
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.checks import OriginOptions
from guthaben.services.guthaben import Guthaben
from guthaben.services.metered_calls import ENDPOINT_OF, Meter, Method
from guthaben.services.metered_client import AsyncMetered, Metered
from guthaben.services.request_bounds import DEFAULT_OUTPUT_TOKENS

__all__ = ["wrap"]

_FREE: Final = frozenset({"models", "base_url", "close", "is_closed", "max_retries", "timeout"})
_COPIES: Final = frozenset({"with_options", "copy"})
_RAW: Final = "with_raw_response"
"""Stands before a method, or before a part that has methods; what is sent stays the same."""


def wrap(
    client: Any,
    credit: Guthaben | AsyncGuthaben,
    practice: str,
    *,
    most_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
    provider: str = "",
    plan: str = "",
    origin: OriginOptions | None = None,
) -> Any:
    """Give a client that looks like OpenAI's and is paid from a practice's credit.

    An `AsyncOpenAI` needs an `AsyncGuthaben`. Answers without a limit get one that the credit
    affords, at most `most_output_tokens`. Its calls raise what `Guthaben.reserve` raises; an answer
    whose outcome nobody knows is charged as it was reserved.
    """
    meter = Meter(practice, most_output_tokens, provider, plan, origin or {})
    return _Node(client, credit, meter, ())


class _Node:
    """A client, or a part of it on the way to a method."""

    def __init__(
        self, inner: Any, credit: Guthaben | AsyncGuthaben, meter: Meter, path: tuple[str, ...]
    ) -> None:
        self._inner = inner
        self._credit = credit
        self._meter = meter
        self._path = path

    def __getattr__(self, name: str) -> Any:
        path = (*self._path, name)
        plain = tuple(part for part in path if part != _RAW)
        if plain in ENDPOINT_OF:
            return self._metered(ENDPOINT_OF[plain], name, is_raw=path != plain)
        if any(known[: len(plain)] == plain for known in ENDPOINT_OF):
            return _Node(getattr(self._inner, name), self._credit, self._meter, path)
        if not self._path and name in _FREE:
            return getattr(self._inner, name)
        if not self._path and name in _COPIES:
            return lambda **options: _Node(
                getattr(self._inner, name)(**options), self._credit, self._meter, ()
            )
        raise AttributeError(
            f"{'.'.join(path)} is not metered. Ask the unwrapped client and record its usage."
        )

    def _metered(self, endpoint: Endpoint, name: str, *, is_raw: bool) -> Metered | AsyncMetered:
        # What can't be parsed was answered all the same: its usage is read before.
        parses = name == "parse" and not is_raw
        inner = getattr(self._inner, _RAW) if parses else self._inner
        method = Method(endpoint, getattr(inner, name), is_raw or parses, parses)
        if isinstance(self._credit, AsyncGuthaben):
            return AsyncMetered(self._credit, self._meter, method)
        return Metered(self._credit, self._meter, method)
