"""Usage as providers tell it -> one neutral usage: OpenAI's endpoints, Anthropic, Gemini.

Law: what a provider says is read strictly and never to nobody's cost: a missing, negative, boolean,
fractional, contradictory or huge count is refused (`missing_usage`, `invalid_usage`), and so is a
usage of nothing; the caller then charges what was reserved. Dicts and SDK objects are read alike.
Where a provider does not say whether cached tokens were text or audio, they were text.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, Literal, NamedTuple

from guthaben.domain.metering import (
    AUDIO_METERS,
    INPUT_TOKEN_METERS,
    MAX_AUDIO_US,
    MAX_COUNT,
    OUTPUT_TOKEN_METERS,
    Metered,
    invalid_usage,
    metered,
)
from guthaben.errors import InvalidInput
from guthaben.services.checks import SettleOptions

Flavour = Literal["", "openai", "images", "anthropic", "google"]
"""Who speaks; "" finds out. An answer of the images endpoint is best named."""

_TOOLS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
}
_USUAL_TIERS: Final = frozenset({"", "auto", "default", "standard", "standard_only", "scale"})
_TRAFFIC: Final = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}
_MODALITIES: Final = ("", "image", "video", "audio")


class UsageRead(NamedTuple):
    """What a provider said was used, and of which model it spoke ("" if of none)."""

    usage: Metered
    model: str = ""

    def options(self, model: str = "", price_version: str = "") -> SettleOptions:
        """Give what is recorded on the call when it is settled."""
        input_tokens = self.usage.count(*INPUT_TOKEN_METERS)
        output_tokens = self.usage.count(*OUTPUT_TOKEN_METERS)
        return SettleOptions(
            model=model or self.model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            audio_seconds=self.usage.count(*AUDIO_METERS) / 1_000_000,
            price_version=price_version,
        )


def read_usage(
    said: object,
    flavour: Flavour = "",
    *,
    also: Mapping[str, int] | None = None,
    context: Mapping[str, str] | None = None,
) -> UsageRead:
    """Read a whole answer or its usage alone, dict or SDK object.

    `also` adds counts that providers don't tell (input_characters of speech, output_images);
    `context` adds circumstances (processing=batch). Raises `InvalidInput`: `missing_usage`,
    `invalid_usage`.
    """
    body = _get(said, "usage", "usage_metadata", "usageMetadata")
    whole = body is not None
    body = body if whole else said
    if flavour == "images" and _get(said, "svg_usage") is not None:
        raise invalid_usage("svg_usage", "is another model's: price it by itself")
    kind = flavour or _flavour_of(body)
    counts: dict[str, int] = dict(also or {})
    circumstances = {**_tier(said, body, kind), **(context or {})}
    if not (_speaks(body) or counts):
        raise _missing("usage")
    if _speaks(body):
        for meter, count in _READERS[kind](body).items():
            counts[meter] = counts.get(meter, 0) + count
    if whole:
        for meter, count in _tool_calls(said).items():
            counts[meter] = counts.get(meter, 0) + count
    usage = metered(counts, circumstances)
    if not usage.counts:
        raise invalid_usage("usage", "says that nothing was used")
    return UsageRead(usage, _text(_get(said, "model", "model_version", "modelVersion")))


def merged_usage(*usages: object) -> dict[str, Any]:
    """Merge the usages of one stream (message_start and message_delta): the last count wins."""
    names = (*_ANTHROPIC_ONLY, "input_tokens", "output_tokens", "service_tier", *_CIRCUMSTANCES)
    found = {}
    for usage in usages:
        for name in names:
            value = _get(usage, name)
            if value is not None:
                found[name] = value
    return found


# ---------------------------------------------------------------- who speaks

_ANTHROPIC_ONLY: Final = (
    "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use",
)  # fmt: skip
_CIRCUMSTANCES: Final = ("speed", "inference_geo")
_OPENAI_ONLY: Final = (
    "prompt_tokens", "input_tokens_details", "input_token_details", "output_token_details",
    "seconds",
)  # fmt: skip
_GOOGLE_ONLY: Final = (
    "prompt_token_count", "promptTokenCount", "total_token_count", "totalTokenCount",
)  # fmt: skip


def _flavour_of(body: object) -> Flavour:
    voices: list[Flavour] = []
    if any(_get(body, name) is not None for name in _ANTHROPIC_ONLY):
        voices.append("anthropic")
    if any(_get(body, name) is not None for name in _OPENAI_ONLY):
        voices.append("openai")
    if any(_get(body, name) is not None for name in _GOOGLE_ONLY):
        voices.append("google")
    if len(voices) > 1:
        raise invalid_usage("usage", f"may be {' or '.join(voices)}: say which")
    return voices[0] if voices else "openai"


def _speaks(body: object) -> bool:
    names = ("input_tokens", "output_tokens", *_OPENAI_ONLY, *_ANTHROPIC_ONLY, *_GOOGLE_ONLY)
    return any(_get(body, name) is not None for name in names)


def _tier(said: object, body: object, kind: str) -> dict[str, str]:
    if kind == "google":
        traffic = _text(_get(body, "traffic_type", "trafficType"))
        return {"service_tier": _TRAFFIC[traffic]} if traffic in _TRAFFIC else {}
    if kind == "anthropic":
        named = (("speed", "fast"), ("inference_geo", "us"))
        found = {name: value for name, value in named if _text(_get(body, name)) == value}
        batch = _text(_get(body, "service_tier")) == "batch"
        return {**found, "processing": "batch"} if batch else found
    tier = _text(_get(said, "service_tier"))
    return {} if tier in _USUAL_TIERS else {"service_tier": tier[:40]}


def _tool_calls(said: object) -> dict[str, int]:
    found: dict[str, int] = {}
    items = _get(said, "output")
    for item in items if isinstance(items, list | tuple) else ():
        meter = _TOOLS.get(_text(_get(item, "type")))
        if meter:
            found[meter] = found.get(meter, 0) + 1
    return found


# ---------------------------------------------------------------- OpenAI


def _openai(body: object) -> dict[str, int]:
    if _get(body, "seconds") is not None:
        return {"input_audio_us": duration_us(_get(body, "seconds"), "seconds")}
    chat = _get(body, "prompt_tokens") is not None
    names = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    total = _optional(body, "total_tokens")
    taken = _count(body, names[0])
    given = _optional(body, names[1])
    if given is None and total is None:
        raise _missing(names[1])
    # Some servers count reasoning in the total only; and embeddings have nothing but a total.
    given = max(given or 0, (total or 0) - taken)
    details = _details(body, names[0])
    counts = _input(
        taken,
        {name: _count_or_0(details, f"{name}_tokens") for name in ("audio", "image")},
        _count_or_0(details, "cached_tokens"),
        _cached_split(_get(details, "cached_tokens_details")),
        {"": _count_or_0(details, "cache_write_tokens")},
    )
    details = _details(body, names[1])
    made = {name: _count_or_0(details, f"{name}_tokens") for name in ("audio", "image")}
    return {**counts, **_output(given, made, _count_or_0(details, "reasoning_tokens"))}


def _images(body: object) -> dict[str, int]:
    counts = _openai(body)
    if _get(_details(body, "output_tokens"), "image_tokens") is None:
        counts["output_image_tokens"] = counts.pop("output_tokens", 0)
    return counts


def _details(body: object, name: str) -> object:
    stem = name.removesuffix("s")
    return _get(body, f"{name}_details", f"{stem}_details")


def _cached_split(details: object) -> dict[str, int]:
    if details is None:
        return {}
    names = ("audio", "image")
    return {name: _count_or_0(details, f"{name}_tokens") for name in names}


# ---------------------------------------------------------------- Anthropic and Gemini


def _anthropic(body: object) -> dict[str, int]:
    made = _get(body, "cache_creation")
    writes = {
        "5m": _count_or_0(made, "ephemeral_5m_input_tokens"),
        "1h": _count_or_0(made, "ephemeral_1h_input_tokens"),
    }
    written = _count_or_0(body, "cache_creation_input_tokens")
    writes[""] = max(0, written - sum(writes.values()))
    read = _count_or_0(body, "cache_read_input_tokens")
    taken = _count(body, "input_tokens") + read + sum(writes.values())
    counts = _input(taken, {}, read, {}, writes)
    details = _get(body, "output_tokens_details")
    counts |= _output(_count(body, "output_tokens"), {}, _count_or_0(details, "thinking_tokens"))
    searches = _count_or_0(_get(body, "server_tool_use"), "web_search_requests")
    return {**counts, "web_searches": searches}


def _google(body: object) -> dict[str, int]:
    total = _optional(body, "total_token_count", "totalTokenCount")
    tools = _count_or_0(body, "tool_use_prompt_token_count", "toolUsePromptTokenCount")
    thoughts = _count_or_0(body, "thoughts_token_count", "thoughtsTokenCount")
    answer = _optional(body, "candidates_token_count", "candidatesTokenCount")
    taken = _count(body, "prompt_token_count", "promptTokenCount") + tools
    if answer is None and total is None:
        raise _missing("candidates_token_count")
    given = max((answer or 0) + thoughts, (total or 0) - taken)
    prompt = _by_modality(_get(body, "prompt_tokens_details", "promptTokensDetails"))
    for name, count in _by_modality(
        _get(body, "tool_use_prompt_tokens_details", "toolUsePromptTokensDetails")
    ).items():
        prompt[name] = prompt.get(name, 0) + count
    counts = _input(
        taken,
        prompt,
        _count_or_0(body, "cached_content_token_count", "cachedContentTokenCount"),
        _by_modality(_get(body, "cache_tokens_details", "cacheTokensDetails")),
        {},
    )
    made = _by_modality(_get(body, "candidates_tokens_details", "candidatesTokensDetails"))
    return {**counts, **_output(given, made, thoughts)}


def _by_modality(details: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in details if isinstance(details, list | tuple) else ():
        name = _text(_get(item, "modality")).lower()
        name = {"document": "image", "text": ""}.get(name, name)
        if name not in _MODALITIES:
            name = ""
        found[name] = found.get(name, 0) + _count_or_0(item, "token_count", "tokenCount")
    found.pop("", None)
    return found


_READERS: Final = {
    "openai": _openai,
    "images": _images,
    "anthropic": _anthropic,
    "google": _google,
}


# ---------------------------------------------------------------- counts that don't overlap


def _input(
    total: int,
    modalities: Mapping[str, int],
    read: int,
    read_split: Mapping[str, int],
    writes: Mapping[str, int],
) -> dict[str, int]:
    """Part the tokens of input by modality, and by what was read from or written to a cache."""
    left = {**modalities, "": total - sum(modalities.values())}
    if left[""] < 0:
        raise invalid_usage("input tokens", "are fewer than their parts")
    counts: dict[str, int] = {}
    split = {**read_split, "": read - sum(read_split.values())}
    if split[""] < 0:
        raise invalid_usage("cached tokens", "are fewer than their parts")
    for name, count in split.items():
        order = _MODALITIES if not name else (name,)
        _take(counts, left, count, order, "read_")
    for ttl, count in writes.items():
        _take(counts, left, count, _MODALITIES, f"write_{ttl}_" if ttl else "write_")
    for name, count in left.items():
        counts[f"input_{f'{name}_' if name else ''}tokens"] = count
    return counts


def _take(
    counts: dict[str, int], left: dict[str, int], count: int, order: tuple[str, ...], use: str
) -> None:
    for name in order:
        taken = min(count, left.get(name, 0))
        if taken:
            left[name] -= taken
            count -= taken
            meter = f"cache_{f'{name}_' if name else ''}{use}tokens"
            counts[meter] = counts.get(meter, 0) + taken
    if count:
        raise invalid_usage("cached tokens", "are more than there were")


def _output(total: int, modalities: Mapping[str, int], reasoning: int) -> dict[str, int]:
    """Part the tokens of output; reasoning that exceeds them was not counted in them."""
    if reasoning > total:
        total += reasoning
    plain = total - sum(modalities.values())
    if plain < 0:
        raise invalid_usage("output tokens", "are fewer than their parts")
    reasoning = min(reasoning, plain)
    counts = {f"output_{name}_tokens": count for name, count in modalities.items()}
    return {**counts, "output_reasoning_tokens": reasoning, "output_tokens": plain - reasoning}


# ---------------------------------------------------------------- reading


def _get(said: object, *names: str) -> Any:
    """Give the first of these that is there, of a dict or an object."""
    for name in names:
        value = said.get(name) if isinstance(said, Mapping) else getattr(said, name, None)
        if value is not None:
            return value
    return None


def _text(value: object) -> str:
    value = getattr(value, "value", value)
    return value if isinstance(value, str) else ""


def _optional(said: object, *names: str) -> int | None:
    value = _get(said, *names)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise invalid_usage(
            names[0], f"must be an integer from 0 to {MAX_COUNT}, not {value!r:.40}"
        )
    return value


def _count(said: object, *names: str) -> int:
    value = _optional(said, *names)
    if value is None:
        raise _missing(names[0])
    return value


def _count_or_0(said: object, *names: str) -> int:
    return _optional(said, *names) or 0


def duration_us(value: object, field: str = "seconds") -> int:
    """Read seconds as microseconds, rounded up. Raises `InvalidInput` (`invalid_usage`)."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise invalid_usage(field, f"must be a number, not {value!r:.40}")
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite() or not 0 <= exact <= MAX_AUDIO_US // 1_000_000:
        raise invalid_usage(field, f"is out of range: {value!r:.40}")
    return int((exact * 1_000_000).to_integral_value(ROUND_CEILING))


def _missing(field: str) -> InvalidInput:
    return InvalidInput(
        f"The provider told no usage ({field} is missing). Charge what was reserved, or look it "
        "up.",
        field=field,
        reason="missing_usage",
    )
