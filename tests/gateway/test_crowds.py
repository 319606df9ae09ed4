"""Sixty-four callers at once with credit for exactly ten: exactly ten pass, whatever they ask."""

import asyncio
import io
from typing import Any, NamedTuple

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


class End(NamedTuple):
    """How a crowd ended."""

    refused: int
    refusals: set[int]
    asked: int
    calls: int
    debt_nano_usd: int
    is_overspent: bool
    is_sound: bool


EXACTLY_TEN = End(CALLERS - AFFORDED, {402}, AFFORDED, AFFORDED, 0, False, True)


def end(served: Served, answers: list[Any]) -> End:
    """Tell how a crowd ended, once no call is open."""
    refused = [it for it in answers if isinstance(it, openai.APIStatusError)]
    asked = served.provider.counters["requests"]
    served.settled()
    balance = served.balance()
    return End(
        len(refused),
        {error.status_code for error in refused},
        asked,
        len(served.credit.calls(PRACTICE)),
        balance.debt_nano_usd,
        balance.available_nano_usd < 0,
        served.credit.verify(PRACTICE).ok,
    )


@pytest.mark.parametrize("limit", [{"max_tokens": 200}, {}])
def test_chat_with_and_without_a_limit(slow: Served, limit: dict[str, int]) -> None:
    body: dict[str, Any] = {"model": MODEL, "messages": SAY, **limit}
    slow.give(AFFORDED * slow.bound("chat", body))

    async def work() -> list[Any]:
        async with slow.async_client(timeout=30) as client:
            return await crowd(CALLERS, lambda _: client.chat.completions.create(**body))

    assert end(slow, asyncio.run(work())) == EXACTLY_TEN


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

    assert end(slow, asyncio.run(work())) == EXACTLY_TEN


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

    assert end(served, asyncio.run(work())) == EXACTLY_TEN
