"""A database whose answer is lost: what it did is asked for again, and happens once.

At the gateway and in wrapped clients a hold that nobody knows of would be charged when it expires.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import openai
import pytest

from guthaben import AsyncGuthaben
from guthaben.domain.commands import Command, Outcome, Release, Reserve, Settle
from guthaben.errors import OutcomeUnknown
from guthaben.openai import wrap
from guthaben.store.store import Store
from tests.gateway.served import MODEL, PRACTICE, Served

SAY: Any = [{"role": "user", "content": "Say hello."}]
BODY: dict[str, Any] = {"model": MODEL, "messages": SAY}


class Losses:
    """Loses the answers of the next commands of some kinds, after they were carried out."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.next: list[type[Command]] = []
        self._now, self._soon = store.execute, store.execute_soon
        monkeypatch.setattr(store, "execute", self.execute)
        monkeypatch.setattr(store, "execute_soon", self.execute_soon)

    def _takes(self, command: Command, outcome: Outcome) -> bool:
        if not (self.next and isinstance(command, self.next[0]) and outcome.ok):
            return False
        self.next.pop(0)
        return True

    def execute(self, practice_id: str, command: Command, note: Any = None) -> Outcome:
        outcome = self._now(practice_id, command, note)
        if self._takes(command, outcome):
            raise OutcomeUnknown("lost")
        return outcome

    def execute_soon(
        self, practice_id: str, command: Command, note: Any = None
    ) -> "asyncio.Future[Outcome]":
        inner = self._soon(practice_id, command, note)
        heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def tell(done: "asyncio.Future[Outcome]") -> None:
            if self._takes(command, done.result()):
                heard.set_exception(OutcomeUnknown("lost"))
            else:
                heard.set_result(done.result())

        inner.add_done_callback(tell)
        return heard


@pytest.fixture
def losses(served: Served, monkeypatch: pytest.MonkeyPatch) -> Losses:
    return Losses(served.credit.core.store, monkeypatch)


def gateway(served: Served, model: str) -> None:
    served.client().chat.completions.create(**{**BODY, "model": model})


def wrapped(served: Served, model: str) -> None:
    bare = openai.OpenAI(base_url=f"{served.upstream.url}/v1", api_key="k", max_retries=0)
    wrap(bare, served.credit, PRACTICE).chat.completions.create(**{**BODY, "model": model})


def wrapped_async(served: Served, model: str) -> None:
    async def work() -> None:
        url = f"{served.upstream.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as bare:
            client = wrap(bare, AsyncGuthaben(served.credit.core), PRACTICE)
            await client.chat.completions.create(**{**BODY, "model": model})

    asyncio.run(work())


Door = Callable[[Served, str], None]
DOORS = [gateway, wrapped, wrapped_async]


@pytest.mark.parametrize("door", DOORS)
def test_a_reservation_whose_answer_was_lost_is_made_once(
    served: Served, losses: Losses, door: Door
) -> None:
    losses.next = [Reserve]
    door(served, MODEL)
    (call,) = served.credit.calls(PRACTICE)
    assert (losses.next, call.status) == ([], "settled")
    assert call.cost_nano_usd < call.reserved_nano_usd
    assert served.balance().held_nano_usd == 0
    assert served.provider.counters["requests"] == 1


@pytest.mark.parametrize("door", DOORS)
def test_without_any_answer_nobody_is_asked(served: Served, losses: Losses, door: Door) -> None:
    losses.next = [Reserve, Reserve]
    with pytest.raises((OutcomeUnknown, openai.APIStatusError)):
        door(served, MODEL)
    assert served.provider.counters["requests"] == 0
    assert len(served.credit.calls(PRACTICE)) == 1


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("model", "end"), [(MODEL, Settle), ("sandbox-429", Release)])
def test_an_end_whose_answer_was_lost_is_written_once(
    served: Served, losses: Losses, door: Door, model: str, end: type[Command]
) -> None:
    losses.next = [end]
    with contextlib.suppress(openai.RateLimitError):
        door(served, model)
    (call,) = served.credit.calls(PRACTICE)
    assert (losses.next, call.status) == ([], "settled" if end is Settle else "released")
    assert served.balance().available_nano_usd == 1_000_000_000 - call.cost_nano_usd
    assert served.credit.verify(PRACTICE).ok


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_who_has_an_answer_keeps_it_though_its_end_can_not_be_written(
    served: Served, losses: Losses, stream: bool, is_async: bool
) -> None:
    losses.next = [Settle, Settle]
    url = f"{served.upstream.url}/v1"

    async def work() -> int:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as bare:
            client = wrap(bare, AsyncGuthaben(served.credit.core), PRACTICE)
            answer = await client.chat.completions.create(**BODY, stream=stream)
            return len([chunk async for chunk in answer]) if stream else len(answer.choices)

    if is_async:
        heard = asyncio.run(work())
    else:
        client = wrap(openai.OpenAI(base_url=url, api_key="k"), served.credit, PRACTICE)
        answer = client.chat.completions.create(**BODY, stream=stream)
        heard = len(list(answer)) if stream else len(answer.choices)
    assert heard > (20 if stream else 0)
    assert losses.next == []
