"""Upper bounds of requests: from a request's body to what it can use at most, before the call.

Law: a bound is never below what the request can cost. Text is counted by a tokenizer that is here
already, else by its bytes (byte-level tokenizers never make more tokens than bytes); nothing is
downloaded. What the request only points to is bounded by the model's window, or refused
(`unbounded_request`). What is heard, spoken or drawn is bounded in `media_bounds`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from guthaben.domain.bounds import (
    Limit,
    affordable,
    bound_nano_usd,
    input_tokens,
    output_tokens,
)
from guthaben.domain.metering import Context
from guthaben.domain.pricing import RateCard
from guthaben.errors import InvalidInput
from guthaben.services.audio_length import LEAST_BYTES_PER_S, audio_length_us, spoken_tokens
from guthaben.services.token_count import TokenCount, counted

PER_MESSAGE: Final = 8
PER_REQUEST: Final = 32
PER_TOOL: Final = 32
TOOL_PROMPT: Final = 1_024
"""What providers put before the tools of a request."""
DEFAULT_OUTPUT_TOKENS: Final = 4_096
"""The longest answer that is sent upstream for a request that names no limit."""
IMAGE_TOKENS: Final = 16_400
"""The most that a picture in a request is counted as; but of these models:"""
_IMAGE_TOKENS_OF: Final = {"gpt-4o-mini": 48_200}
_MOST_COPIES: Final = 128


class Request(NamedTuple):
    """What a request can use: limits that are certain, and the answer's length if it has one."""

    limits: tuple[Limit, ...]
    output: Limit | None = None
    """The answers' tokens together; `at_most` -1 while the request names no limit."""
    copies: int = 1
    field: str = ""
    """The field of the body that limits one answer."""
    context: Context = ()


class Fitted(NamedTuple):
    """What to reserve, and what to send upstream: `field` set to `max_output_tokens`, if told."""

    amount_nano_usd: int
    field: str = ""
    max_output_tokens: int | None = None


def fit(
    card: RateCard,
    request: Request,
    available_nano_usd: int,
    most_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
) -> Fitted:
    """Choose what to reserve; an answer without a limit gets what the balance affords, clamped.

    With a limit, or with too little for one token, the amount may exceed what is available: then
    reserving refuses. Send `max_output_tokens` upstream, or neither holds.
    """
    if request.output is None:
        return Fitted(bound_nano_usd(card, request.limits))
    output = request.output
    if output.at_most >= 0:
        return Fitted(bound_nano_usd(card, (*request.limits, output)))
    wanted = output._replace(at_most=most_output_tokens * request.copies)
    tokens = affordable(card, request.limits, wanted, available_nano_usd) // request.copies
    tokens = max(1, tokens)
    amount = bound_nano_usd(
        card, (*request.limits, output._replace(at_most=tokens * request.copies))
    )
    return Fitted(amount, request.field, tokens)


# ---------------------------------------------------------------- endpoints


def chat(
    body: Mapping[str, Any], *, model: str = "", window: int = 0, count: TokenCount | None = None
) -> Request:
    """Bound chat completions (and the older completions) of OpenAI's shape.

    Here and below, `model` is the id that the price book found, `window` its window.
    """
    reader = _Reader(window, count, model or str(body.get("model")))
    messages = _list(body, "messages")
    reader.read(messages, PER_MESSAGE * len(messages))
    reader.read(body.get("prompt"))
    reader.tools(body, "tools", "functions", "response_format")
    copies = max(1, number_of(body, "n", 1), number_of(body, "best_of", 1))
    field = "max_tokens" if "prompt" in body else "max_completion_tokens"
    limits = [number_of(body, name, -1) for name in (field, "max_tokens") if body.get(name)]
    guess = body.get("prediction")
    # A prediction that is not used is charged as output.
    rejected = (output_tokens(_bytes(guess) * copies),) if guess else ()
    audio = ("audio",) if "audio" in str(body.get("modalities")) else ()
    output = output_tokens(max(limits) * copies if limits else -1, audio)
    if body.get("web_search_options") is not None:
        raise _unbounded("web_search_options: the number of searches has no limit")
    return Request((*reader.limits(), *rejected), output, copies, field, _tier(body))


def responses(
    body: Mapping[str, Any], *, model: str = "", window: int = 0, count: TokenCount | None = None
) -> Request:
    """Bound OpenAI's responses; tools that run at the provider need `max_tool_calls`."""
    reader = _Reader(window, count, model or str(body.get("model")))
    if body.get("prompt"):
        raise _unbounded("prompt: what is stored there may have tools of its own")
    if any(body.get(name) for name in ("previous_response_id", "conversation")):
        reader.whole_window()
    reader.read(body.get("instructions"))
    items = body.get("input")
    reader.read(items, PER_MESSAGE * (len(items) if isinstance(items, list) else 1))
    reader.tools(body, "tools", "text")
    searches = []
    hosted = [_kind(tool) for tool in _list(body, "tools") if _kind(tool) not in _OWN_TOOLS]
    if hosted:
        calls = number_of(body, "max_tool_calls", -1)
        if calls < 0:
            raise _unbounded(f"the tool {hosted[0]!r:.40} without max_tool_calls")
        # Every turn reads again all that the turns before it brought.
        reader.whole_window(calls + 1)
        searches = [Limit((meter,), calls) for meter in sorted(set(map(_meter_of, hosted)))]
    limit = number_of(body, "max_output_tokens", -1)
    limits = (*reader.limits(), *searches)
    return Request(limits, output_tokens(limit), 1, "max_output_tokens", _tier(body))


def messages(
    body: Mapping[str, Any], *, window: int = 0, count: TokenCount | None = None
) -> Request:
    """Bound Anthropic's messages; searches need `max_uses`."""
    writes = _cache_writes(body)
    reader = _Reader(window, count, "", writes)
    if body.get("mcp_servers") or body.get("container"):
        raise _unbounded("mcp_servers, container: what they bring has no limit")
    said = _list(body, "messages")
    reader.read(body.get("system"))
    reader.read(said, PER_MESSAGE * len(said))
    reader.tools(body, "tools")
    hosted = [
        tool
        for tool in _list(body, "tools")
        if _kind(tool) and not _kind(tool).startswith(_CLIENT_TOOLS)
    ]
    uses = [number_of(tool, "max_uses", -1) for tool in hosted]
    if min(uses, default=0) < 0:
        raise _unbounded(f"the tool {_kind(hosted[uses.index(-1)])!r:.40} without max_uses")
    if hosted:
        reader.whole_window(sum(uses) + 1)
    searches = (Limit(("web_searches",), sum(uses)),) if "web_search" in str(hosted) else ()
    limit = number_of(body, "max_tokens", -1)
    named = (("inference_geo", "us"), ("speed", "fast"))
    context = tuple(pair for pair in named if body.get(pair[0]) == pair[1])
    return Request((*reader.limits(), *searches), output_tokens(limit), 1, "max_tokens", context)


def generate_content(
    body: Mapping[str, Any], *, window: int = 0, count: TokenCount | None = None
) -> Request:
    """Bound Gemini's generateContent."""
    reader = _Reader(window, count, "")
    if body.get("cachedContent") or body.get("cached_content"):
        reader.whole_window()
    for name in ("contents", "systemInstruction", "system_instruction"):
        reader.read(body.get(name), PER_MESSAGE * 8)
    reader.tools(body, "tools")
    for tool in _list(body, "tools"):
        if isinstance(tool, Mapping) and tool.keys() - {"functionDeclarations"}:
            raise _unbounded(f"the tool {min(tool)!r:.40}")
    given = body.get("generationConfig")
    config = given if isinstance(given, Mapping) else {}
    copies = max(1, number_of(config, "candidateCount", 1))
    limit = number_of(config, "maxOutputTokens", -1)
    wanted = str(config.get("responseModalities")).lower()
    known = tuple(name for name in ("audio", "image", "video") if name in wanted)
    output = output_tokens(limit * copies if limit >= 0 else -1, known)
    field = "generationConfig.maxOutputTokens"
    return Request(reader.limits(), output, copies, field, _tier(body))


def embeddings(body: Mapping[str, Any], *, count: TokenCount | None = None) -> Request:
    """Bound embeddings of texts or of tokens."""
    reader = _Reader(0, count, "", ())
    given = body.get("input")
    if isinstance(given, list) and all(type(token) is int for token in given):
        return Request((input_tokens(len(given) + PER_REQUEST, (), ()),))
    for item in given if isinstance(given, list) else [given]:
        tokens = len(item) if isinstance(item, list) else 0
        reader.read(item if isinstance(item, str) else None, tokens + PER_MESSAGE)
    return Request(reader.limits())


# ---------------------------------------------------------------- reading bodies

_OWN_TOOLS: Final = frozenset({"function", "custom"})
_CLIENT_TOOLS: Final = ("custom", "bash_", "text_editor_", "computer_", "memory_")
_METERS: Final = {
    "web_search": "web_searches", "file_search": "storage_searches",
    "code_interpreter": "code_executions",
}  # fmt: skip


class _Reader:
    """Adds up what a body's parts can be in tokens."""

    def __init__(
        self,
        window: int,
        count: TokenCount | None,
        model: str,
        writes: Sequence[str] = ("", "5m", "1h"),
    ) -> None:
        self._window = window
        self._count = count
        self._per_image = IMAGE_TOKENS
        for name, tokens in _IMAGE_TOKENS_OF.items():
            if model.startswith(name):
                self._per_image = tokens
        self._writes = writes
        self._tokens = PER_REQUEST
        self._unseen = 0
        self._modalities: set[str] = set()

    def read(self, part: object, extra: int = 0) -> None:
        """Add a text, or a message's parts with their texts, pictures, sounds and files."""
        self._tokens += extra
        if isinstance(part, str):
            self._tokens += counted(self._count, part)
        elif isinstance(part, Mapping):
            self._read_mapping(part)
        elif isinstance(part, list | tuple):
            for item in part:
                self.read(item, 4)
        elif part is not None:
            self._tokens += 32

    def _read_mapping(self, part: Mapping[str, Any]) -> None:
        kind = _kind(part)
        sound = part.get("audio")
        inline = _inline(part)
        if kind in _IMAGES or "image_url" in part or inline.startswith("image/"):
            self._modalities.add("image")
            self._tokens += self._per_image * (_GEMINI_TILES if inline else 1)
        elif kind == "input_audio" or inline.startswith("audio/"):
            self._modalities.add("audio")
            self._tokens += spoken_tokens(_sound(part))
        elif (
            kind in _FILES
            or inline
            or any(name in part for name in _POINTERS)
            or (isinstance(sound, Mapping) and "id" in sound)
        ):
            # Files may be long texts, films or scans.
            self._modalities |= {"audio", "image", "video"}
            self.whole_window()
        else:
            for name, value in part.items():
                self.read(value, len(str(name).encode("utf-8", "surrogatepass")) + 4)

    def tools(self, body: Mapping[str, Any], *names: str) -> None:
        """Add definitions of tools and of the answer's form, by their bytes."""
        for name in names:
            given = body.get(name)
            if given:
                many = len(given) if isinstance(given, list) else 1
                self._tokens += _bytes(given) + PER_TOOL * many + TOOL_PROMPT

    def whole_window(self, times: int = 1) -> None:
        """Add what the request doesn't show: all that the model can read."""
        if self._window <= 0:
            raise _unbounded("content that the request only points to, and the window is unknown")
        self._unseen = max(self._unseen, self._window * times)

    def limits(self) -> tuple[Limit, ...]:
        """Give the limit of the input."""
        modalities = sorted(self._modalities)
        return (input_tokens(self._tokens + self._unseen, modalities, self._writes),)


_FILES: Final = frozenset({"file", "input_file", "document", "item_reference", "container_upload"})
_POINTERS: Final = ("fileData", "file_data", "file_id", "file_url", "fileUri")
_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
_INLINE: Final = ("inlineData", "inline_data")
_GEMINI_TILES: Final = 4
"""Gemini counts every part of a large picture: so much more than others."""


def _inline(part: Mapping[str, Any]) -> str:
    """Tell what kind of data Gemini's inline data is, "" for a part without."""
    for name in _INLINE:
        data = part.get(name)
        if isinstance(data, Mapping):
            return str(data.get("mimeType") or data.get("mime_type") or "unknown")
    return ""


def _sound(part: Mapping[str, Any]) -> int:
    given = next((part[name] for name in ("input_audio", *_INLINE) if name in part), None)
    data = given.get("data") if isinstance(given, Mapping) else None
    try:
        sound = base64.b64decode(str(data or ""), validate=False)
    except ValueError as error:
        raise InvalidInput("input_audio holds no base64", field="input_audio") from error
    return audio_length_us(sound, least_bytes_per_s=LEAST_BYTES_PER_S)


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    return value if isinstance(value, list) else []


def _kind(part: object) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else ""
    return kind if isinstance(kind, str) else ""


def _meter_of(tool: str) -> str:
    for name, meter in _METERS.items():
        if tool.startswith(name):
            return meter
    raise _unbounded(f"the tool {tool!r:.40}")


def number_of(body: Mapping[str, Any], name: str, default: int) -> int:
    """Read a whole number of a request's body. Raises `InvalidInput`, naming the field."""
    value = body.get(name)
    if value is None:
        return default
    most = _MOST_COPIES if name in ("n", "best_of", "candidateCount") else 10**9
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidInput(f"{name} must be an integer from 0 to {most}", field=name)
    return value


def _tier(body: Mapping[str, Any]) -> Context:
    tier = body.get("service_tier")
    usual = tier in (None, "", "auto", "default", "standard")
    return () if usual else (("service_tier", str(tier)[:40]),)


def _cache_writes(body: object) -> tuple[str, ...]:
    found: set[str] = set()
    for control in _controls(body):
        found |= {"", "1h" if control.get("ttl") == "1h" else "5m"}
    return tuple(sorted(found))


def _controls(part: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, Mapping):
        control = part.get("cache_control")
        if isinstance(control, Mapping):
            yield control
        for value in part.values():
            yield from _controls(value)
    elif isinstance(part, list):
        for item in part:
            yield from _controls(item)


def _unbounded(what: str) -> InvalidInput:
    return InvalidInput(
        f"The request's cost has no upper bound ({what}). Set a limit and try again.",
        reason="unbounded_request",
    )
