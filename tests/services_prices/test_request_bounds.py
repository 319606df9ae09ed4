"""Bounds of requests: by bytes or tokenizer, clamped to the balance, refused without a bound."""

from __future__ import annotations

import base64
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.bounds import Limit, output_tokens
from guthaben.domain.metering import metered
from guthaben.errors import InvalidInput
from guthaben.services import media_bounds, request_bounds, token_count
from guthaben.services.request_bounds import (
    DEFAULT_OUTPUT_TOKENS,
    Request,
    chat,
    embeddings,
    fit,
    generate_content,
    messages,
    responses,
)
from guthaben.services.token_count import offline_counter
from tests.domain.price_desk import BOOK, NOW
from tests.services_prices import recordings

CARD = BOOK.card("gpt-4o-mini", NOW)
TEXT = "Guten Tag, die Blutwerte sind unauffällig. " * 20
BYTES = len(TEXT.encode())
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": TEXT}]}


def taken(request: Request) -> int:
    """The most tokens of input."""
    return request.limits[0].at_most


def words(text: str) -> int:
    return len(text.split())


# ---------------------------------------------------------------- chat


def test_text_is_bounded_by_its_bytes_or_by_a_tokenizer() -> None:
    assert BYTES <= taken(chat(CHAT)) <= BYTES + 100
    assert taken(chat(CHAT, count=words)) <= len(TEXT.split()) + 100
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]}
    assert BYTES <= taken(chat(parts)) <= BYTES + 150
    assert BYTES <= taken(chat({"prompt": TEXT})) <= BYTES + 100
    assert taken(chat({"messages": [{"role": "user", "content": "\ud800", "n": 5}]})) < 200


def test_tools_and_forms_count_by_their_bytes() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": TEXT}}
    assert taken(chat({**CHAT, "tools": [tool, tool]})) > taken(chat(CHAT)) + 2 * BYTES
    form = {"type": "json_schema", "json_schema": {"schema": {"description": TEXT}}}
    assert taken(chat({**CHAT, "response_format": form})) > taken(chat(CHAT)) + BYTES


@pytest.mark.parametrize(
    ("more", "at_most", "copies", "field"),
    [
        ({}, -1, 1, "max_completion_tokens"),
        ({"max_tokens": 100}, 100, 1, "max_completion_tokens"),
        ({"max_completion_tokens": 100, "n": 3}, 300, 3, "max_completion_tokens"),
        ({"max_completion_tokens": 100, "max_tokens": 900}, 900, 1, "max_completion_tokens"),
        ({"max_tokens": 0, "n": 0}, -1, 1, "max_completion_tokens"),
        ({"prompt": "x", "max_tokens": 7, "best_of": 4}, 28, 4, "max_tokens"),
    ],
)
def test_answers(more: dict[str, Any], at_most: int, copies: int, field: str) -> None:
    request = chat({**CHAT, **more})
    assert request.output is not None
    assert (request.output.at_most, request.copies, request.field) == (at_most, copies, field)


def test_sounds_pictures_and_predictions() -> None:
    def part(**content: Any) -> Request:
        return chat({**CHAT, "messages": [{"role": "user", "content": [content]}]}, window=128_000)

    seen = part(type="image_url", image_url={"url": "https://example.org/a.png"})
    assert "input_image_tokens" in seen.limits[0].meters
    assert 48_200 <= taken(seen) <= 48_400
    other = chat({"model": "gpt-5", "messages": [{"content": [{"type": "input_image"}]}]})
    assert 16_400 <= taken(other) <= 16_600
    sound = base64.b64encode(recordings.wav(10)).decode()
    heard = part(type="input_audio", input_audio={"data": sound, "format": "wav"})
    assert "input_audio_tokens" in heard.limits[0].meters
    assert 340 <= taken(heard) <= 500
    noise = base64.b64encode(b"x" * 5_000).decode()
    assert 340 <= taken(part(type="input_audio", input_audio={"data": noise})) <= 500
    with pytest.raises(InvalidInput, match="base64"):
        part(type="input_audio", input_audio={"data": "abcde"})
    for pointer in ({"type": "file", "file": {"file_id": "f"}}, {"audio": {"id": "a"}}):
        assert taken(part(**pointer)) >= 128_000
    spoken = chat({**CHAT, "modalities": ["text", "audio"]})
    assert spoken.output is not None
    assert "output_audio_tokens" in spoken.output.meters
    guessed = chat({**CHAT, "prediction": {"type": "content", "content": TEXT}, "n": 2})
    assert guessed.limits[1].at_most >= 2 * BYTES


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"audio": {"id": "audio_1"}}]},
        {"web_search_options": {}},
    ],
)
def test_what_has_no_bound_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        chat(body)
    assert refused.value.reason == "unbounded_request"


@pytest.mark.parametrize("bad", [-1, True, 1.5, "5", 10**9 + 1])
def test_a_number_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInput, match="max_tokens") as refused:
        chat({**CHAT, "max_tokens": bad})
    assert refused.value.field == "max_tokens"
    with pytest.raises(InvalidInput, match="n must"):
        chat({**CHAT, "n": 129})


def test_the_tier_of_a_request() -> None:
    tiers = {"auto": (), "default": (), None: (), "flex": (("service_tier", "flex"),)}
    for tier, context in tiers.items():
        assert chat({**CHAT, "service_tier": tier}).context == context


# ---------------------------------------------------------------- other endpoints


def test_responses() -> None:
    body = {"model": "gpt-4o-mini", "input": TEXT, "instructions": TEXT, "max_output_tokens": 50}
    request = responses(body)
    assert 2 * BYTES <= taken(request) <= 2 * BYTES + 100
    assert request.output is not None
    assert (request.output.at_most, request.field) == (50, "max_output_tokens")
    items = [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]
    assert BYTES <= taken(responses({"input": items})) <= BYTES + 200
    assert taken(responses({**body, "previous_response_id": "r"}, window=500_000)) > 500_000
    searching = {**body, "tools": [{"type": "web_search"}, {"type": "function"}]}
    found = responses({**searching, "max_tool_calls": 3}, window=100_000)
    assert taken(found) > 400_000
    assert found.limits[1:] == (Limit(("web_searches",), 3),)
    for bad in (
        searching, {**body, "prompt": {"id": "p"}}, {**body, "conversation": "c"},
        {**body, "tools": [{"type": "mcp"}], "max_tool_calls": 1},
    ):  # fmt: skip
        with pytest.raises(InvalidInput) as refused:
            responses(bad, window=0 if "conversation" in bad else 1000)
        assert refused.value.reason == "unbounded_request"


def test_messages_of_anthropic() -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": TEXT}]
    body = {"messages": said, "system": TEXT, "max_tokens": 50}
    request = messages(body)
    assert 2 * BYTES <= taken(request) <= 2 * BYTES + 100
    assert not any("write" in meter for meter in request.limits[0].meters)
    cached = {"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}
    meters = messages({**body, "system": [cached]}).limits[0].meters
    assert "cache_write_5m_tokens" in meters
    assert "cache_write_1h_tokens" not in meters
    cached["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    assert "cache_write_1h_tokens" in messages({**body, "system": [cached]}).limits[0].meters
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    found = messages({**body, "tools": [search, {"type": "bash_20250124"}]}, window=200_000)
    assert taken(found) > 600_000
    assert found.limits[1] == Limit(("web_searches",), 2)
    assert messages({**body, "speed": "fast"}).context == (("speed", "fast"),)
    own = {"name": "f", "input_schema": {}}
    more: dict[str, Any]
    for more in (
        {"tools": [{"type": "web_search_20250305"}]}, {"mcp_servers": [{}]},
        {"messages": [{"content": [{"type": "document"}]}]},
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match="no upper bound"):
            messages({**body, **more})
    assert taken(messages({**body, "tools": [own]})) < taken(request) + 1_300


def test_gemini() -> None:
    parts: list[dict[str, Any]] = [{"text": TEXT}]
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": parts}]}
    config = {"maxOutputTokens": 50, "candidateCount": 2, "responseModalities": ["AUDIO"]}
    request = generate_content({**body, "generationConfig": config})
    assert BYTES <= taken(request) <= BYTES + 300
    assert request.output is not None
    assert request.output.at_most == 100
    assert "output_audio_tokens" in request.output.meters
    assert request.field == "generationConfig.maxOutputTokens"
    parts.append({"inlineData": {"mimeType": "image/png", "data": "aGk="}})
    assert 65_600 <= taken(generate_content(body)) <= 67_000
    sound = base64.b64encode(recordings.wav(10)).decode()
    parts[1] = {"inline_data": {"mime_type": "audio/wav", "data": sound}}
    assert 340 <= taken(generate_content(body)) - BYTES <= 700
    pointer: dict[str, Any]
    for pointer in ({"inlineData": {"mimeType": "application/pdf"}}, {"fileData": {}}):
        parts[1] = pointer
        assert taken(generate_content(body, window=10**6)) > 10**6
    parts.pop()
    assert taken(generate_content({**body, "cachedContent": "c"}, window=10**6)) > 10**6
    own = {"tools": [{"functionDeclarations": [{"name": "f"}]}], "generationConfig": 5}
    assert generate_content({**body, **own}).output == output_tokens(-1)
    with pytest.raises(InvalidInput, match="googleSearch"):
        generate_content({**body, "tools": [{"googleSearch": {}}]})


@pytest.mark.parametrize(
    ("given_", "least", "most"),
    [
        (TEXT, BYTES, BYTES + 50), ([TEXT, TEXT], 2 * BYTES, 2 * BYTES + 60),
        ([1, 2, 3], 3, 50), ([[1, 2], [3]], 3, 60), ([], 0, 50), (None, 0, 50),
    ],
)  # fmt: skip
def test_embeddings(given_: Any, least: int, most: int) -> None:
    request = embeddings({"input": given_})
    assert least <= taken(request) <= most
    assert request.output is None


def test_transcriptions() -> None:
    whisper = BOOK.card("whisper-1", NOW)
    assert (
        fit(whisper, media_bounds.transcription(whisper, 60_000_000), 0).amount_nano_usd
        == 6_000_000
    )
    heard = media_bounds.transcription(BOOK.card("gpt-audio", NOW), 60_000_000, prompt=TEXT)
    assert heard.output is None
    assert 2_040 + BYTES <= taken(heard) <= 2_200 + BYTES
    assert [limit.at_most for limit in heard.limits] == [taken(heard)] * 2


def test_speech() -> None:
    request = media_bounds.speech(BOOK.card("tts-1", NOW), {"input": TEXT})
    assert request.limits == (Limit(("input_characters",), BYTES),)
    request = media_bounds.speech(BOOK.card("gpt-audio", NOW), {"input": "Hallo"})
    assert request.limits[1].at_most == 600
    assert "output_audio_tokens" in request.limits[1].meters


@pytest.mark.parametrize(
    ("body", "least"),
    [
        ({}, 20_900), ({"size": "auto", "n": 2}, 41_800), ({"size": "1024x1024"}, 6_200),
        ({"size": "1024x1024", "partial_images": 3}, 6_800), ({"size": "bigxbigger"}, 20_900),
        ({"size": "999999x999999"}, 20_900),
    ],
)  # fmt: skip
def test_images(body: dict[str, Any], least: int) -> None:
    request = media_bounds.images(CARD, {"prompt": TEXT, **body}, pictures=2)
    assert least <= request.limits[1].at_most <= least * 1.1
    assert taken(request) >= BYTES + 2 * 16_400


def test_images_that_are_priced_one_by_one() -> None:
    card = SimpleNamespace(prices=lambda meter: meter == "output_images")
    request = media_bounds.images(card, {"n": 2, "size": "1024x1024", "quality": "hd"})  # type: ignore[arg-type]
    assert request.limits == (Limit(("output_images",), 2),)
    assert request.context == (("quality", "hd"), ("size", "1024x1024"))


# ---------------------------------------------------------------- clamped to the balance


def test_a_limit_is_reserved_as_it_is() -> None:
    fitted = fit(CARD, chat({**CHAT, "max_tokens": 200}), 0)
    assert fitted.max_output_tokens is None
    assert fitted.amount_nano_usd > 120_000


def test_without_a_limit_the_balance_decides() -> None:
    request = chat(CHAT)
    rich = fit(CARD, request, 10**12)
    assert (rich.max_output_tokens, rich.field) == (DEFAULT_OUTPUT_TOKENS, "max_completion_tokens")
    assert fit(CARD, request, 10**12, 50).max_output_tokens == 50
    tight = fit(CARD, request, 200_000)
    assert tight.max_output_tokens is not None
    assert 1 < tight.max_output_tokens < 200
    assert 200_000 - 600 <= tight.amount_nano_usd <= 200_000
    poor = fit(CARD, request, 10)
    assert poor.max_output_tokens == 1
    assert poor.amount_nano_usd > 10
    three = fit(CARD, chat({**CHAT, "n": 3}), 400_000)
    assert three.max_output_tokens is not None
    assert three.amount_nano_usd <= 400_000


@given(
    text=st.text(max_size=200),
    most=st.integers(1, 500),
    share=st.floats(0, 1),
    cached=st.floats(0, 1),
)
def test_whatever_is_used_within_the_request_costs_no_more(
    text: str, most: int, share: float, cached: float
) -> None:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": most}
    fitted = fit(CARD, chat(body), 0)
    used = int(taken(chat(body)) * share)
    read = int(used * cached)
    usage = metered({"input_tokens": used - read, "cache_read_tokens": read, "output_tokens": most})
    assert CARD.cost_nano_usd(usage) <= fitted.amount_nano_usd


# ---------------------------------------------------------------- tokenizers


class Encoding:
    def encode_ordinary(self, text: str) -> list[str]:
        return text.split()


def test_a_tokenizer_counts_only_where_it_is_known_and_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_name: str) -> Any:
        raise ImportError

    monkeypatch.setattr(token_count, "import_module", missing)
    monkeypatch.delitem(sys.modules, "tiktoken.registry", raising=False)
    assert offline_counter("gpt-4o-mini") is None
    registry = SimpleNamespace(ENCODINGS={"o200k_base": Encoding()})
    monkeypatch.setitem(sys.modules, "tiktoken.registry", registry)
    count = offline_counter("GPT-4o-mini")
    assert count is not None
    assert count("one two three") == 3
    assert count("x " * 60_000) == 120_000
    assert offline_counter("gpt-4") is None
    assert offline_counter("claude-opus-5") is None
    assert offline_counter("gpt-99") is None


def test_a_package_that_carries_its_tables_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(get_encoding=lambda _name: Encoding())
    monkeypatch.setitem(sys.modules, "bpe_openai", package)
    count = offline_counter("gpt-4")
    assert count is not None
    assert count("a b") == 2


def test_without_a_package_bytes_count() -> None:
    assert token_count.counted(None, "ä") == 2
    assert token_count.counted(words, "ä b") == 2
    assert request_bounds.PER_MESSAGE > 0
