"""Usages as providers tell them, as dicts and as objects; and lies, which are never free."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.errors import InvalidInput
from guthaben.services.provider_usage import duration_us, merged_usage, read_usage

CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 100},
    "completion_tokens_details": {
        "reasoning_tokens": 50, "audio_tokens": 20, "rejected_prediction_tokens": 10,
    },
}  # fmt: skip
RESPONSES = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100},
    "output_tokens": 200,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1200,
}
ANTHROPIC = {
    "input_tokens": 100,
    "cache_read_input_tokens": 600,
    "cache_creation_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
    "output_tokens": 200,
    "output_tokens_details": {"thinking_tokens": 50},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    "service_tier": "standard",
}
GEMINI = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 600,
    "toolUsePromptTokenCount": 30,
    "candidatesTokenCount": 150,
    "thoughtsTokenCount": 50,
    "totalTokenCount": 1230,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 700}, {"modality": "AUDIO", "tokenCount": 200},
        {"modality": "DOCUMENT", "tokenCount": 100},
    ],
    "cacheTokensDetails": [
        {"modality": "TEXT", "tokenCount": 400}, {"modality": "AUDIO", "tokenCount": 200},
    ],
    "toolUsePromptTokensDetails": [{"modality": "IMAGE", "tokenCount": 10}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 150}, {"modality": "NEW"}],
}  # fmt: skip


def as_object(value: Any) -> Any:
    """The same as an SDK's object."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(item) for name, item in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


CASES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    (
        "chat", CHAT,
        {
            "input_tokens": 300, "cache_read_tokens": 600, "input_audio_tokens": 100,
            "output_tokens": 130, "output_reasoning_tokens": 50, "output_audio_tokens": 20,
        },
    ),
    (
        "responses", RESPONSES,
        {
            "input_tokens": 300, "cache_read_tokens": 600, "cache_write_tokens": 100,
            "output_tokens": 150, "output_reasoning_tokens": 50,
        },
    ),
    ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, {"input_tokens": 8}),
    ("whisper", {"type": "duration", "seconds": 60}, {"input_audio_us": 60_000_000}),
    (
        "transcription",
        {
            "type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59,
            "input_token_details": {"audio_tokens": 10, "text_tokens": 4},
        },
        {"input_tokens": 4, "input_audio_tokens": 10, "output_tokens": 45},
    ),
    (
        "realtime",
        {
            "input_tokens": 100, "output_tokens": 5, "total_tokens": 105,
            "input_token_details": {
                "audio_tokens": 60, "cached_tokens": 50,
                "cached_tokens_details": {"audio_tokens": 40, "text_tokens": 10},
            },
        },
        {
            "input_tokens": 30, "input_audio_tokens": 20, "cache_read_tokens": 10,
            "cache_audio_read_tokens": 40, "output_tokens": 5,
        },
    ),
    (
        "anthropic", ANTHROPIC,
        {
            "input_tokens": 100, "cache_read_tokens": 600, "cache_write_tokens": 10,
            "cache_write_5m_tokens": 20, "cache_write_1h_tokens": 30, "output_tokens": 150,
            "output_reasoning_tokens": 50, "web_searches": 2,
        },
    ),
    (
        "gemini", GEMINI,
        {
            "input_tokens": 320, "cache_read_tokens": 400, "cache_audio_read_tokens": 200,
            "input_image_tokens": 110, "output_tokens": 150, "output_reasoning_tokens": 50,
        },
    ),
    # Grok counts reasoning beside the completion, some only in the total.
    (
        "beside",
        {
            "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45,
            "completion_tokens_details": {"reasoning_tokens": 30},
        },
        {"input_tokens": 10, "output_tokens": 5, "output_reasoning_tokens": 30},
    ),
    (
        "only in the total",
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45},
        {"input_tokens": 10, "output_tokens": 35},
    ),
    (
        "beside, no total",
        {
            "prompt_tokens": 10, "completion_tokens": 5,
            "completion_tokens_details": {"reasoning_tokens": 30},
        },
        {"input_tokens": 10, "output_tokens": 5, "output_reasoning_tokens": 30},
    ),
    # More is cached than was text: the rest was pictures, then sound.
    (
        "cached sound",
        {
            "prompt_tokens": 100, "completion_tokens": 1,
            "prompt_tokens_details": {"audio_tokens": 60, "image_tokens": 10, "cached_tokens": 50},
        },
        {
            "cache_read_tokens": 30, "cache_image_read_tokens": 10, "cache_audio_read_tokens": 10,
            "input_audio_tokens": 50, "output_tokens": 1,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("said", "counts"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_usages(said: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(read_usage(said).usage.counts) == counts
    assert dict(read_usage(as_object(said)).usage.counts) == counts
    whole = {"usage": said, "model": "m-1"}
    assert read_usage(whole).model == "m-1"
    assert dict(read_usage(as_object(whole)).usage.counts) == counts


def test_images() -> None:
    said = {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}  # fmt: skip
    counts = {"input_tokens": 10, "input_image_tokens": 40, "output_image_tokens": 4160}
    assert dict(read_usage({"created": 1, "usage": said}, "images").usage.counts) == counts
    said["output_tokens_details"] = {"image_tokens": 4000, "text_tokens": 160}
    counts |= {"output_image_tokens": 4000, "output_tokens": 160}
    assert dict(read_usage(said, "images").usage.counts) == counts
    with pytest.raises(InvalidInput, match="svg_usage"):
        read_usage({"usage": said, "svg_usage": {"input_tokens": 1}}, "images")


def test_what_providers_do_not_tell_is_added() -> None:
    spoken = read_usage(None, also={"input_characters": 12})
    assert dict(spoken.usage.counts) == {"input_characters": 12}
    assert dict(read_usage(CHAT, also={"web_searches": 1}).usage.counts)["web_searches"] == 1


def test_tools_are_counted_in_a_whole_answer() -> None:
    calls = ["web_search_call", "message", "web_search_call", "file_search_call"]
    answer = {"usage": RESPONSES, "output": [{"type": kind} for kind in calls]}
    counts = dict(read_usage(as_object(answer)).usage.counts)
    assert (counts["web_searches"], counts["storage_searches"]) == (2, 1)


@pytest.mark.parametrize(
    ("said", "context"),
    [
        ({"usage": CHAT, "service_tier": "default"}, {}),
        ({"usage": CHAT, "service_tier": "priority"}, {"service_tier": "priority"}),
        ({"usage": RESPONSES, "service_tier": "flex"}, {"service_tier": "flex"}),
        ({"usage": {**ANTHROPIC, "service_tier": "batch"}}, {"processing": "batch"}),
        ({"usage": {**ANTHROPIC, "service_tier": "priority"}}, {}),
        ({"usage": {**ANTHROPIC, "speed": "fast"}}, {"speed": "fast"}),
        (
            {"usageMetadata": {**GEMINI, "trafficType": "ON_DEMAND_PRIORITY"}},
            {"service_tier": "priority"},
        ),
        ({"usageMetadata": {**GEMINI, "trafficType": "ON_DEMAND"}}, {}),
    ],
)
def test_circumstances(said: dict[str, Any], context: dict[str, str]) -> None:
    assert dict(read_usage(said).usage.context) == context
    both = {"processing": "batch", **context}
    assert dict(read_usage(said, context={"processing": "batch"}).usage.context) == both


def test_usages_of_a_stream_are_merged() -> None:
    start = {**ANTHROPIC, "output_tokens": 1}
    end = as_object({"output_tokens": 200, "input_tokens": None})
    merged = merged_usage(start, end)
    assert (merged["input_tokens"], merged["output_tokens"]) == (100, 200)
    assert read_usage(merged).usage.count("cache_read_tokens") == 600


def test_what_is_recorded() -> None:
    read = read_usage({"usage": CHAT, "model": "gpt-4o-mini-2024-07-18"})
    assert read.options("gpt-4o-mini", "v1/openai/gpt-4o-mini") == {
        "model": "gpt-4o-mini", "input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200,
        "audio_seconds": 0, "price_version": "v1/openai/gpt-4o-mini",
    }  # fmt: skip
    heard = read_usage({"seconds": 1.5}).options()
    assert (heard["audio_seconds"], heard["model"]) == (1.5, "")


# ---------------------------------------------------------------- lies


@pytest.mark.parametrize(
    "said",
    [
        None, {}, [], "usage", {"usage": None}, {"usage": {}}, {"prompt_tokens": 5},
        {"completion_tokens": 5}, {"output_tokens": 5}, {"prompt_tokens": None},
        {"prompt_token_count": 5}, {"totalTokenCount": 5}, {"type": "tokens"}, {"type": "duration"},
        {"input_tokens": 5, "cache_read_input_tokens": 5},
    ],
)  # fmt: skip
def test_a_missing_usage_is_refused(said: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_usage(said)
    assert refused.value.reason == "missing_usage"


BAD = [-1, True, False, 1.0, 0.5, "5", "", 10**12 + 1, 10**30, float("nan"), [], {}]


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize(
    ("said", "path"),
    [
        (CHAT, ("prompt_tokens",)), (CHAT, ("completion_tokens",)), (CHAT, ("total_tokens",)),
        (CHAT, ("prompt_tokens_details", "cached_tokens")),
        (CHAT, ("completion_tokens_details", "reasoning_tokens")),
        (RESPONSES, ("input_tokens_details", "cache_write_tokens")),
        (ANTHROPIC, ("cache_creation_input_tokens",)),
        (ANTHROPIC, ("server_tool_use", "web_search_requests")),
        (GEMINI, ("promptTokenCount",)), (GEMINI, ("thoughtsTokenCount",)),
    ],
)  # fmt: skip
def test_a_count_that_is_none_is_refused(
    said: dict[str, Any], path: tuple[str, ...], bad: Any
) -> None:
    *outer, last = path
    lie = {**said}
    inner = lie
    for name in outer:
        inner[name] = {**inner[name]}
        inner = inner[name]
    inner[last] = bad
    for form in (lie, as_object(lie)):
        with pytest.raises(InvalidInput) as refused:
            read_usage(form)
        assert refused.value.reason == "invalid_usage"


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}},
        {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": 6}},
        {
            "prompt_tokens": 5, "completion_tokens": 1,
            "completion_tokens_details": {"audio_tokens": 2},
        },
        {
            "input_tokens": 9, "output_tokens": 1, "input_token_details": {
                "cached_tokens": 1, "cached_tokens_details": {"audio_tokens": 2}},
        },
        {"seconds": 0}, {"seconds": -1}, {"seconds": True},
        {"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": 1e12},
        {"seconds": "60"},
        {"prompt_tokens": 5, "completion_tokens": 5, "cache_read_input_tokens": 5},
    ],
)  # fmt: skip
def test_a_usage_that_contradicts_itself_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_usage(said)
    assert refused.value.reason == "invalid_usage"


def test_a_named_flavour_decides() -> None:
    said = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 4}}  # fmt: skip
    assert read_usage(said, "anthropic").usage.count("input_tokens") == 10
    assert read_usage(said, "openai").usage.count("input_tokens") == 6


@pytest.mark.parametrize(
    ("seconds", "us"), [(60, 60_000_000), (0.1, 100_000), (1e-7, 1), (8.47, 8_470_000)]
)
def test_seconds_are_rounded_up_to_microseconds(seconds: Any, us: int) -> None:
    assert duration_us(seconds) == us


COUNT = st.one_of(st.integers(-2, 2000), st.none(), st.booleans(), st.floats(), st.text(max_size=2))
DETAILS = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "image_tokens"]),
        COUNT,
        max_size=3,
    ),
)


@given(
    said=st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT,
            "prompt_tokens_details": DETAILS, "completion_tokens_details": DETAILS,
        },
    )
)  # fmt: skip
def test_whatever_is_said_it_is_refused_or_counted_in_full(said: dict[str, Any]) -> None:
    try:
        usage = read_usage(said).usage
    except InvalidInput:
        return
    assert all(count > 0 for _, count in usage.counts)
    told = (said.get("prompt_tokens") or 0) + (said.get("completion_tokens") or 0)
    assert sum(count for _, count in usage.counts) >= max(told, said.get("total_tokens") or 0)


def test_the_objects_of_the_sdks() -> None:
    openai = pytest.importorskip("openai.types")
    pytest.importorskip("anthropic")
    from anthropic.types import Usage as AnthropicUsage  # type: ignore[import-not-found,unused-ignore]

    chat = openai.CompletionUsage.model_validate(CHAT)
    assert dict(read_usage(chat).usage.counts) == CASES[0][2]
    message = AnthropicUsage.model_validate(ANTHROPIC)
    assert dict(read_usage(message).usage.counts) == CASES[6][2]


def test_the_objects_of_gemini() -> None:
    types = pytest.importorskip("google.genai.types")
    said = types.GenerateContentResponseUsageMetadata.model_validate(
        {**GEMINI, "candidatesTokensDetails": None}
    )
    assert dict(read_usage(said).usage.counts) == CASES[7][2]
