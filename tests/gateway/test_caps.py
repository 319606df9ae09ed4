"""Caps of keys and devices hold under concurrency; limits of requests are kept; both say so."""

import asyncio
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben import Guthaben
from guthaben.domain.caps import Cap
from guthaben.errors import CapExceeded, InvalidInput
from guthaben.services.caps import CapBook
from tests.gateway.served import MODEL, PRACTICE, Served, crowd
from tests.store.bank import Clock

SAY: Any = [{"role": "user", "content": "Say hello."}]
DAY_MS = 86_400_000
NOON_MS = 1_795_258_800_000  # 21 November 2026, noon in Zurich


def opened() -> tuple[Guthaben, CapBook, Clock]:
    clock = Clock(NOON_MS)
    credit = Guthaben.open("sqlite://", clock_ms=clock)
    credit.grant("p", 10**12, key="given")
    return credit, CapBook(credit.core.store), clock


def test_a_cap_counts_what_is_held_and_then_what_it_cost() -> None:
    credit, caps, _ = opened()
    caps.set("p", Cap("device:d", day_nano_usd=100))
    call = credit.reserve("p", 80, device_id="d")
    with pytest.raises(CapExceeded) as refused:
        credit.reserve("p", 21, device_id="d")
    assert refused.value.available_nano_usd == 20
    assert credit.balance("p").held_nano_usd == 80
    call.settle(30)
    credit.reserve("p", 70, device_id="d").release()
    assert [cap.left_nano_usd for cap in caps.list("p")] == [70]
    credit.reserve("p", 10**6, device_id="another").release()
    credit.record_usage("p", 500, key="late", device_id="d")
    assert [cap.left_nano_usd for cap in caps.list("p")] == [0]
    credit.close()


def test_a_day_ends_at_midnight_and_a_month_goes_on() -> None:
    credit, caps, clock = opened()
    caps.set("p", Cap("key:*", 100, 150))
    credit.reserve("p", 100, api_key_id="k").settle(100)
    clock.now_ms += DAY_MS // 2 - 1
    with pytest.raises(CapExceeded):
        credit.reserve("p", 1, api_key_id="k")
    clock.now_ms += 1
    with pytest.raises(CapExceeded) as refused:
        credit.reserve("p", 51, api_key_id="k")
    assert refused.value.available_nano_usd == 50
    credit.reserve("p", 50, api_key_id="k").settle(50)
    clock.now_ms += 10 * DAY_MS
    credit.reserve("p", 100, api_key_id="k").settle(100)
    credit.close()


def test_a_cap_of_its_own_stands_before_that_of_every_other() -> None:
    credit, caps, _ = opened()
    caps.set("p", Cap("key:*", 10))
    caps.set("p", Cap("key:k", 1_000))
    credit.reserve("p", 900, api_key_id="k")
    with pytest.raises(CapExceeded):
        credit.reserve("p", 11, api_key_id="other")
    assert caps.remove("p", "key:k")
    assert not caps.remove("p", "key:k")
    with pytest.raises(CapExceeded):
        credit.reserve("p", 1, api_key_id="k")
    credit.close()


def test_a_cap_that_comes_later_counts_what_was_used_before() -> None:
    credit, caps, _ = opened()
    credit.reserve("p", 60, device_id="d").settle(40)
    open_call = credit.reserve("p", 30, device_id="d")
    caps.set("p", Cap("device:*", 100))
    with pytest.raises(CapExceeded) as refused:
        credit.reserve("p", 31, device_id="d")
    assert refused.value.available_nano_usd == 30
    open_call.release()
    credit.reserve("p", 60, device_id="d")
    credit.close()


def test_a_replay_is_answered_whatever_the_cap() -> None:
    credit, caps, _ = opened()
    first = credit.reserve("p", 60, key="once", device_id="d")
    caps.set("p", Cap("device:d", 60))
    again = credit.reserve("p", 60, key="once", device_id="d")
    assert again.replayed
    assert again.id == first.id
    credit.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release", "expire", "usage", "cap", "night"]),
        st.sampled_from(["", "d1", "d2"]),
        st.integers(0, 60),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_counter_is_the_sum_over_the_calls_of_its_window(steps: list[Any]) -> None:
    """Whatever happens, what is left is the cap less what a plain sum over all calls says."""
    credit, caps, clock = opened()
    begun: dict[str, int] = {}
    caps.set("p", Cap("device:d1", 300, 500))
    opened_calls: list[Any] = []
    for number, (step, device, amount) in enumerate(steps):
        if step == "reserve":
            try:
                call = credit.reserve("p", amount + 1, device_id=device, ttl_s=600)
            except CapExceeded:
                continue
            opened_calls.append(call)
            begun[call.id] = clock.now_ms
        elif step in ("settle", "release") and opened_calls:
            call = opened_calls.pop(amount % len(opened_calls))
            call.settle(amount) if step == "settle" else call.release()
        elif step == "expire":
            clock.now_ms += 700_000
            credit.expire()
        elif step == "usage":
            begun[credit.record_usage("p", amount, key=f"u{number}", device_id=device).id] = (
                clock.now_ms
            )
        elif step == "cap":
            caps.set("p", Cap("device:d2", 300, 500))
        elif step == "night":
            clock.now_ms += DAY_MS
    credit.expire()
    for cap in caps.list("p"):
        device = cap.subject.removeprefix("device:")
        used = {"day": 0, "month": 0}
        for made in credit.calls("p", limit=500):
            if made.device_id != device:
                continue
            counts = made.reserved_nano_usd if made.status == "reserved" else made.cost_nano_usd
            days = (clock.now_ms - NOON_MS + DAY_MS // 2) // DAY_MS
            its_day = (begun[made.id] - NOON_MS + DAY_MS // 2) // DAY_MS
            used["day"] += counts if its_day == days else 0
            # 21 November: the month ends after ten days.
            used["month"] += counts if (its_day < 10) == (days < 10) and days < 41 else 0
        assert cap.left_nano_usd == max(0, min(300 - used["day"], 500 - used["month"]))
    credit.close()


@pytest.mark.parametrize("subject", ["", "key", "user:u", "key:", "device:\n", "key:" + "k" * 300])
def test_a_subject_is_a_key_or_a_device(subject: str) -> None:
    credit, caps, _ = opened()
    with pytest.raises(InvalidInput):
        caps.set("p", Cap(subject, 1))
    credit.close()


# ---------------------------------------------------------------- at the gateway


def test_a_crowd_does_not_get_past_the_cap_of_a_device(serve: Any) -> None:
    served: Served = serve()
    served.give()
    served.provider.behaviours.set({"kind": "slow", "delay_ms": 1_000})
    body: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 200}
    held = served.bound("chat", body)
    served.services.caps.set(PRACTICE, Cap("device:d-3", day_nano_usd=3 * held))

    async def work() -> list[Any]:
        headers = {"X-Device-Id": "d-3"}
        async with served.async_client(timeout=30, default_headers=headers) as client:
            return await crowd(30, lambda _: client.chat.completions.create(**body))

    answers = asyncio.run(work())
    refused = [it for it in answers if isinstance(it, openai.RateLimitError)]
    assert len(refused) == 27
    assert {error.code for error in refused} == {"cap_exceeded"}
    assert {error.response.headers["x-should-retry"] for error in refused} == {"false"}
    assert served.provider.counters["requests"] == 3


def test_a_cap_clamps_the_answer_too(served: Served) -> None:
    served.services.caps.set(PRACTICE, Cap("key:*", month_nano_usd=100_000))
    served.client().chat.completions.create(model=MODEL, messages=SAY)
    assert served.provider.seen[-1]["body"]["max_completion_tokens"] < 200


def test_requests_in_a_minute_and_at_once(served: Served) -> None:
    served.services.caps.set(PRACTICE, Cap("key:*", per_minute=2))
    client = served.client(default_headers={"Accept-Language": "fr"})
    create: Any = client.chat.completions.create
    for _ in range(2):
        create(model=MODEL, messages=SAY)
    with pytest.raises(openai.RateLimitError) as refused:
        create(model=MODEL, messages=SAY)
    assert refused.value.code == "rate_limit_exceeded"
    assert "secondes" in refused.value.body["message"]  # type: ignore[index]
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 61

    served.services.caps.set(PRACTICE, Cap("key:*", at_once=4))
    served.provider.behaviours.set({"kind": "slow", "delay_ms": 500})

    async def work() -> list[Any]:
        async with served.async_client() as other:
            return await crowd(
                9, lambda _: other.chat.completions.create(model=MODEL, messages=SAY)
            )

    answers = asyncio.run(work())
    codes = [it.code for it in answers if isinstance(it, openai.RateLimitError)]
    assert codes == ["too_many_at_once"] * 5
