"""The same for asyncio: a task that is cancelled, whenever that is, leaves no hold behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from guthaben.errors import (
    CallFinished,
    InsufficientCredit,
    InvalidAmount,
    InvalidInput,
    StoreUnavailable,
)
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.handles import AsyncCallHandle
from tests.services.house import PRACTICE, USD, House

WAYS = {"release": ("released", 10), "charge": ("settled", 9), "keep": ("reserved", 9)}


@pytest.fixture
def credit(house: House) -> AsyncGuthaben:
    """A practice with 10 USD."""
    house.guthaben.grant(PRACTICE, 10 * USD, key="g")
    return AsyncGuthaben(house.guthaben.core)


async def reserve(credit: AsyncGuthaben, key: str = "k", **more: Any) -> AsyncCallHandle:
    """Hold a dollar."""
    return await credit.reserve(PRACTICE, USD, key=key, **more)


async def figures(credit: AsyncGuthaben) -> tuple[int, int]:
    """Available and held, in whole USD."""
    found = await credit.balance(PRACTICE)
    return found.available_nano_usd // USD, found.held_nano_usd // USD


async def settled_down(credit: AsyncGuthaben, wanted: tuple[int, int]) -> None:
    """Wait for what was sent and not awaited."""
    for _ in range(200):
        if await figures(credit) == wanted:
            return
        await asyncio.sleep(0.01)
    assert await figures(credit) == wanted


async def test_a_block_that_settles_is_charged_its_cost(credit: AsyncGuthaben) -> None:
    async with await reserve(credit) as call:
        assert await figures(credit) == (9, 1)
        view = await call.settle(USD, output_tokens=3)
    assert (view.status, call.status, await figures(credit)) == ("settled", "settled", (9, 0))


async def test_a_block_left_without_settling_releases_with_a_warning(
    credit: AsyncGuthaben, caplog: pytest.LogCaptureFixture
) -> None:
    async with await reserve(credit) as call:
        pass
    assert (call.status, await figures(credit)) == ("released", (10, 0))
    assert "left without settle" in caplog.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, GeneratorExit])
async def test_an_exception_does_what_the_reservation_said(
    credit: AsyncGuthaben, kind: type[BaseException], way: str
) -> None:
    call = await reserve(credit, on_exception=way)
    with pytest.raises(kind):
        async with call:
            raise kind
    status, available = WAYS[way]
    await settled_down(credit, (available, int(status == "reserved")))
    assert (await credit.call(PRACTICE, call.id)).status == status


async def test_the_exception_is_what_its_caller_sees_even_when_the_store_is_down(
    credit: AsyncGuthaben,
) -> None:
    call = await reserve(credit)

    async def work() -> None:
        async with call:
            await credit.close()
            raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        await work()


async def test_entering_the_block_of_an_ended_call_is_refused(credit: AsyncGuthaben) -> None:
    await (await reserve(credit)).release()
    with pytest.raises(CallFinished, match="already released"):
        async with await reserve(credit):
            pytest.fail("the block must not run")


# ---------------------------------------------------------------- cancelled


async def test_a_task_cancelled_before_its_reservation_is_made_leaves_no_hold(
    credit: AsyncGuthaben,
) -> None:
    for number in range(30):
        task = asyncio.create_task(reserve(credit, key=f"k{number}"))
        await asyncio.sleep(0)  # it is queued now
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settled_down(credit, (10, 0))


def cancel_on_answer(
    house: House, monkeypatch: pytest.MonkeyPatch, target: Callable[[], asyncio.Task[Any]]
) -> None:
    """Cancel a task in the very turn of the loop in which its answer came."""
    (tasks,) = house.store._tasks
    real = tasks._resolve

    def resolve(answers: Any) -> None:
        real(answers)
        target().cancel()

    monkeypatch.setattr(tasks, "_resolve", resolve)


async def test_a_task_cancelled_after_its_answer_and_before_it_heard_leaves_no_hold(
    house: House, credit: AsyncGuthaben, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_on_answer(house, monkeypatch, lambda: task)
    task = asyncio.create_task(reserve(credit))
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await settled_down(credit, (10, 0))


async def test_a_replayed_reservation_is_not_released_by_a_cancelled_repetition(
    house: House, credit: AsyncGuthaben, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await reserve(credit)
    cancel_on_answer(house, monkeypatch, lambda: task)
    task = asyncio.create_task(reserve(credit))
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await asyncio.sleep(0.05)
    assert await figures(credit) == (9, 1)
    assert (await first.settle(USD)).status == "settled"


async def test_a_time_out_around_a_reservation_leaves_no_hold(credit: AsyncGuthaben) -> None:
    for number in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await reserve(credit, key=f"k{number}")
    await settled_down(credit, (10, 0))


@pytest.mark.parametrize("turns", range(6))
async def test_a_block_cancelled_at_any_moment_leaves_no_hold(
    credit: AsyncGuthaben, turns: int
) -> None:
    async def work() -> None:
        async with await reserve(credit):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0.002 if turns % 2 else 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled_down(credit, (10, 0))


async def test_a_block_cancelled_while_it_settles_is_settled(credit: AsyncGuthaben) -> None:
    async def work() -> None:
        async with await reserve(credit) as call:
            started.set()
            await call.settle(USD)

    started = asyncio.Event()
    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled_down(credit, (9, 0))


async def test_a_stream_that_is_closed_early_releases_its_call(credit: AsyncGuthaben) -> None:
    async def stream() -> Any:
        async with await reserve(credit):
            yield 1
            yield 2

    answer = stream()
    assert await anext(answer) == 1
    await answer.aclose()
    await settled_down(credit, (10, 0))


async def test_a_crowd_cancelled_together_leaves_no_hold(credit: AsyncGuthaben) -> None:
    async def work(number: int) -> None:
        async with await credit.reserve(PRACTICE, USD // 100, key=f"k{number}"):
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(work(number)) for number in range(200)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in found} == {asyncio.CancelledError}
    await settled_down(credit, (10, 0))


# ---------------------------------------------------------------- the rest of the interface


async def test_the_event_loop_goes_on_while_commands_wait(credit: AsyncGuthaben) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.gather(*(reserve(credit, key=f"k{number}") for number in range(10)))
    counting.cancel()
    assert turns > 1


async def test_a_hundred_tasks_never_get_more_than_there_is(credit: AsyncGuthaben) -> None:
    found = await asyncio.gather(
        *(reserve(credit, key=f"k{number}") for number in range(100)), return_exceptions=True
    )
    assert [type(one) for one in found].count(InsufficientCredit) == 90
    assert await figures(credit) == (0, 10)


async def test_it_speaks_the_same_words(credit: AsyncGuthaben) -> None:
    view = await credit.record_usage(PRACTICE, USD, key="u", model="m", reference="r")
    assert (view.status, view.model, view.reference) == ("settled", "m", "r")
    assert (await credit.adjust(PRACTICE, USD, key="a", reason="goodwill")).replayed is False
    await credit.set_license(
        PRACTICE, "L", period_start_s=0, period_end_s=2**33, allowance_nano_usd=5 * USD
    )
    await credit.set_policy(PRACTICE, overrun="operator_loss")
    assert (await credit.balance(PRACTICE)).available_nano_usd == 15 * USD
    assert len(await credit.calls(PRACTICE)) == 1
    assert len((await credit.statement(PRACTICE)).entries) == 3
    assert [line.event_type for line in await credit.topups(PRACTICE)] == ["adjustment"]
    assert (await credit.verify(PRACTICE)).ok
    assert await credit.expire() == 0


async def test_bad_input_is_refused_before_anything_is_queued(credit: AsyncGuthaben) -> None:
    for amount in (0, -1, True, 1.5, 10**16):
        with pytest.raises(InvalidAmount):
            await credit.reserve(PRACTICE, amount, key="k")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        await credit.reserve("", USD, key="k")
    with pytest.raises(InvalidInput):
        await (await reserve(credit)).extend(float("nan"))


async def test_it_opens_and_closes_like_any_resource() -> None:
    async with AsyncGuthaben.open("sqlite://") as credit:
        await credit.grant(PRACTICE, USD, key="g")
    with pytest.raises(StoreUnavailable):
        await credit.grant(PRACTICE, USD, key="g")
