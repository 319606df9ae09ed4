"""`guthaben.openai.wrap`: OpenAI's own clients, straight to a provider, paid from credit."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel, ValidationError

from guthaben import AsyncGuthaben, InsufficientCredit
from guthaben.errors import InvalidInput
from guthaben.openai import wrap
from guthaben.sandbox import ai_answers
from guthaben.sandbox.ai_app import Provider, create_ai_app
from tests.gateway.served import MODEL, PRACTICE, Running, flush, opened_with_prices

SAY: Any = [{"role": "user", "content": "Say hello."}]


class Direct:
    """A provider, credit beside it, and clients of the two."""

    def __init__(self, folder: Path) -> None:
        self.provider = Provider()
        self.running = Running(create_ai_app(self.provider))
        self.credit = opened_with_prices(folder / "wrap.db")
        self.credit.grant(PRACTICE, 10**9, key="given")

    def client(self, **options: Any) -> Any:
        bare = openai.OpenAI(base_url=f"{self.running.url}/v1", api_key="k", max_retries=0)
        return wrap(bare, self.credit, PRACTICE, **options)

    def bare_async(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.running.url}/v1", api_key="k", max_retries=0)

    def last(self) -> Any:
        return self.credit.calls(PRACTICE, limit=1)[0]


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    made = Direct(tmp_path)
    yield made
    made.running.close()
    made.credit.close()


def test_every_endpoint_is_metered(direct: Direct) -> None:
    client = direct.client(origin={"user_id": "u-1"})
    answer = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=7)
    assert direct.last().cost_nano_usd == answer.usage.prompt_tokens * 150 + 7 * 600
    client.responses.create(model=MODEL, input="Hello.")
    assert direct.last().output_tokens == ai_answers.USUAL_TOKENS
    client.embeddings.create(model="text-embedding-3-small", input="Hello.")
    sound = ("said.wav", io.BytesIO(ai_answers.sound(9)))
    client.audio.transcriptions.create(model="whisper-1", file=sound)
    assert direct.last().cost_nano_usd == 9 * 100_000
    client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="x" * 150)
    assert direct.last().output_tokens > 300
    client.images.generate(model="dall-e-3", prompt="A point.")
    calls = direct.credit.calls(PRACTICE)
    assert [call.status for call in calls] == ["settled"] * 6
    assert direct.credit.verify(PRACTICE).ok


def test_an_answer_without_a_limit_gets_one(direct: Direct) -> None:
    client = direct.client(most_output_tokens=99)
    client.chat.completions.create(model=MODEL, messages=SAY)
    assert direct.provider.seen[-1]["body"]["max_completion_tokens"] == 99


def test_a_stream_is_settled_at_its_end_and_hides_what_nobody_asked_for(direct: Direct) -> None:
    chunks = list(direct.client().chat.completions.create(model=MODEL, messages=SAY, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert direct.last().output_tokens == ai_answers.USUAL_TOKENS
    with direct.client().responses.create(model=MODEL, input="Hello.", stream=True) as events:
        assert [event.type for event in events][-1] == "response.completed"
    assert direct.last().output_tokens == ai_answers.USUAL_TOKENS


def test_a_stream_that_is_left_is_charged_by_what_was_seen(direct: Direct) -> None:
    stream = direct.client().chat.completions.create(
        model=MODEL, messages=SAY, stream=True, max_tokens=20
    )
    with stream as events:
        for number, _ in enumerate(events):
            if number == 5:
                break
    call = direct.last()
    assert call.status == "settled"
    assert 3 <= call.output_tokens <= 8
    assert 0 < call.cost_nano_usd < call.reserved_nano_usd


def test_errors_end_the_call(direct: Direct) -> None:
    client = direct.client()
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="sandbox-429", messages=SAY)
    assert (direct.last().status, direct.last().cost_nano_usd) == ("released", 0)
    for kind, error in (("504", openai.APIStatusError), ("drop", openai.APIConnectionError)):
        with pytest.raises(error):
            client.chat.completions.create(model=f"sandbox-{kind}", messages=SAY)
        assert direct.last().cost_nano_usd == direct.last().reserved_nano_usd > 0, kind
    client.chat.completions.create(model="sandbox-lie-negative", messages=SAY)
    assert direct.last().cost_nano_usd == direct.last().reserved_nano_usd


def test_raw_answers_are_metered_too(direct: Direct) -> None:
    client = direct.client()
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=SAY, max_tokens=7)
    assert raw.headers["x-request-id"]
    usage = raw.parse().usage
    assert direct.last().cost_nano_usd == usage.prompt_tokens * 150 + 7 * 600
    client.with_raw_response.responses.create(model=MODEL, input="Hello.", max_output_tokens=16)
    assert direct.last().output_tokens == 16
    heard = ("said.wav", io.BytesIO(ai_answers.sound(9)))
    client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=heard, response_format="text"
    )
    assert 900_000 <= direct.last().cost_nano_usd < 901_000
    with pytest.raises(InvalidInput, match="streamed"):
        client.chat.completions.with_raw_response.create(model=MODEL, messages=SAY, stream=True)
    assert len(direct.credit.calls(PRACTICE)) == 3


class Letter(BaseModel):
    """The form of an answer."""

    greeting: str
    lines: list[str]


def test_answers_in_a_form_are_metered_whatever_they_are(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = direct.client()
    form = {"model": MODEL, "messages": SAY, "response_format": Letter, "max_tokens": 40}
    with pytest.raises(ValidationError):
        client.chat.completions.parse(**form)
    assert (direct.last().status, direct.last().output_tokens) == ("settled", 20)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**{**form, "max_tokens": 7})
    call = direct.last()
    assert (call.status, call.output_tokens) == ("settled", 7)
    plain = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=7)
    # The form itself is sent, and was reserved for.
    assert plain.usage
    sent = len(json.dumps(direct.provider.seen[-2]["body"]["response_format"]))
    assert call.reserved_nano_usd - direct.last().reserved_nano_usd > 150 * sent // 2
    words = json.dumps({"greeting": "Hello", "lines": []})
    monkeypatch.setattr(ai_answers, "words", lambda _count: [words])
    assert client.chat.completions.parse(**form).choices[0].message.parsed.greeting == "Hello"
    told = client.responses.parse(model=MODEL, input="Hello.", text_format=Letter)
    assert told.output_parsed.greeting == "Hello"
    assert (direct.last().status, direct.last().operation_type) == ("settled", "responses")
    raw = client.chat.completions.with_raw_response.parse(**form)
    assert raw.parse().choices[0].message.parsed.lines == []

    async def work() -> str:
        async with direct.bare_async() as bare:
            paid = wrap(bare, AsyncGuthaben(direct.credit.core), PRACTICE)
            return str((await paid.chat.completions.parse(**form)).choices[0].message.parsed)

    assert "Hello" in asyncio.run(work())
    assert {call.status for call in direct.credit.calls(PRACTICE)} == {"settled"}
    with pytest.raises(InvalidInput, match="form"):
        client.chat.completions.parse(**{**form, "response_format": int})
    with pytest.raises(InvalidInput, match="streamed"):
        client.responses.parse(model=MODEL, input="Hello.", text_format=Letter, stream=True)
    assert len(direct.credit.calls(PRACTICE)) == 7


def test_a_stream_that_fails_before_it_begins_costs_nothing(direct: Direct) -> None:
    direct.provider.behaviours.set({"kind": "error-in-stream", "after_chunks": 0})
    with pytest.raises(openai.APIError):
        list(direct.client().chat.completions.create(model=MODEL, messages=SAY, stream=True))
    assert (direct.last().status, direct.last().cost_nano_usd) == ("released", 0)

    async def work() -> None:
        async with direct.bare_async() as bare:
            client = wrap(bare, AsyncGuthaben(direct.credit.core), PRACTICE)
            stream = await client.chat.completions.create(model=MODEL, messages=SAY, stream=True)
            with pytest.raises(openai.APIError):
                async for _ in stream:
                    pass
            raw = await client.chat.completions.with_raw_response.create(
                model=MODEL, messages=SAY, max_tokens=7
            )
            assert raw.parse().usage.completion_tokens == 7

    asyncio.run(work())
    raw, failed, _ = direct.credit.calls(PRACTICE)
    assert (failed.status, failed.cost_nano_usd) == ("released", 0)
    assert (raw.status, raw.output_tokens) == ("settled", 7)


def test_without_credit_nobody_is_asked(direct: Direct) -> None:
    client = wrap(direct.client()._inner, direct.credit, "prac_poor")
    with pytest.raises(InsufficientCredit):
        client.chat.completions.create(model=MODEL, messages=SAY)
    assert direct.provider.counters["requests"] == 0


def test_what_is_not_metered_is_not_let_through(direct: Direct) -> None:
    client = direct.client()
    for ask in (
        lambda: client.completions,
        lambda: client.chat.completions.with_streaming_response,
        lambda: client.with_raw_response.models,
        lambda: client.chat.completions.stream,
        lambda: client.beta.chat.completions.stream,
        lambda: client.responses.retrieve,
        lambda: client.fine_tuning,
        lambda: client.post,
    ):
        with pytest.raises(AttributeError, match="not metered"):
            ask()
    assert client.models.list().data
    assert client.with_options(timeout=5).chat.completions.create(model=MODEL, messages=SAY)
    assert direct.last().status == "settled"


def test_asyncio_plain_streamed_and_cancelled(direct: Direct) -> None:
    async def work() -> None:
        credit = AsyncGuthaben(direct.credit.core)
        async with direct.bare_async() as bare:
            client = wrap(bare, credit, PRACTICE)
            answer = await client.chat.completions.create(model=MODEL, messages=SAY)
            assert answer.usage
            stream = await client.chat.completions.create(model=MODEL, messages=SAY, stream=True)
            assert len([chunk async for chunk in stream]) == ai_answers.USUAL_TOKENS + 2
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model="sandbox-500", messages=SAY)
            slow = client.chat.completions.create(model="sandbox-slow", messages=SAY)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.1)

    asyncio.run(work())
    flush(direct.credit)
    calls = direct.credit.calls(PRACTICE)
    assert direct.credit.balance(PRACTICE).held_nano_usd == 0
    assert [call.status for call in calls] == ["settled", "released", "settled", "settled"]
    assert calls[0].cost_nano_usd == calls[0].reserved_nano_usd
