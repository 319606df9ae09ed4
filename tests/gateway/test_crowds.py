"""Sixty-four callers at once with credit for exactly ten: exactly ten pass, whatever they ask."""

import asyncio
import io
from typing import Any

import openai
import pytest

from guthaben.sandbox import ai_answers
from guthaben.services.ai_quotes import Attachments
from tests.gateway.served import MODEL, PRACTICE, Served, crowd

SAY = [{"role": "user", "content": "Say hello."}]
CALLERS, AFFORDED = 64, 10


@pytest.fixture
def slow(serve: Any) -> Served:
    """Serve a provider that answers so late that all have asked before anybody is settled."""
    served: Served = serve()
    served.provider.behaviours.set({"kind": "slow", "delay_ms": 1_500})
    return served


def exactly_ten(served: Served, answers: list[Any]) -> None:
    refused = [it for it in answers if isinstance(it, openai.APIStatusError)]
    assert {error.status_code for error in refused} == {402}
    assert len(refused) == CALLERS - AFFORDED, [it for it in answers if isinstance(it, Exception)]
    assert served.provider.counters["requests"] == AFFORDED
    served.settled()
    assert len(served.credit.calls(PRACTICE)) == AFFORDED
    assert served.balance().available_nano_usd >= 0
    assert served.balance().debt_nano_usd == 0
    assert served.credit.verify(PRACTICE).ok


@pytest.mark.parametrize("limit", [{"max_tokens": 200}, {}])
def test_chat_with_and_without_a_limit(slow: Served, limit: dict[str, int]) -> None:
    body: dict[str, Any] = {"model": MODEL, "messages": SAY, **limit}
    slow.give(AFFORDED * slow.bound("chat", body))

    async def work() -> list[Any]:
        async with slow.async_client(timeout=30) as client:
            return await crowd(CALLERS, lambda _: client.chat.completions.create(**body))

    exactly_ten(slow, asyncio.run(work()))


def test_audio(slow: Served) -> None:
    sound = ai_answers.sound(60)
    held = slow.bound("transcriptions", {"model": "whisper-1"}, Attachments(recording=sound))
    slow.give(AFFORDED * held)

    async def work() -> list[Any]:
        async with slow.async_client(timeout=30) as client:

            async def one(_number: int) -> Any:
                file = ("said.wav", io.BytesIO(sound))
                return await client.audio.transcriptions.create(model="whisper-1", file=file)

            return await crowd(CALLERS, one)

    exactly_ten(slow, asyncio.run(work()))


def test_streams_that_are_cancelled_half_way(serve: Any) -> None:
    served: Served = serve(drain_s=1)
    served.provider.usual_tokens = 60
    served.provider.behaviours.set({"kind": "slow-stream", "delay_ms": 50})
    body: dict[str, Any] = {"model": MODEL, "messages": SAY, "stream": True, "max_tokens": 60}
    served.give(AFFORDED * served.bound("chat", body))

    async def work() -> list[Any]:
        async with served.async_client(timeout=30) as client:

            async def one(_number: int) -> None:
                stream = await client.chat.completions.create(**body)
                await anext(stream)
                await asyncio.sleep(0.8)
                await stream.close()

            return await crowd(CALLERS, one)

    exactly_ten(served, asyncio.run(work()))
