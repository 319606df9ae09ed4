"""Whatever goes wrong, a call ends once: released, billed, or charged as it was reserved."""

import asyncio
import threading
from typing import Any

import httpx
import openai
import pytest

from guthaben.domain.journal import Code
from tests.gateway.served import MODEL, PRACTICE, Served

SAY = [{"role": "user", "content": "Say hello."}]
BODY = {"model": MODEL, "messages": SAY, "max_tokens": 200}


def ask(served: Served, kind: str, **more: Any) -> httpx.Response:
    body = {**BODY, "model": f"sandbox-{kind}", **more}
    return served.http.post("/chat/completions", json=body, timeout=20)


def transfers(served: Served) -> int:
    entries = served.credit.statement(PRACTICE).entries
    return len([entry for entry in entries if entry.call_no])


@pytest.mark.parametrize(
    ("kind", "status"),
    [("429", 429), ("500", 500), ("503", 503), ("400", 400), ("content-filter", 400)],
)
def test_what_the_provider_refused_costs_nothing(served: Served, kind: str, status: int) -> None:
    answer = ask(served, kind)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert answer.headers["x-request-id"].startswith("req_sandbox")
    if status in (429, 503):
        assert answer.headers["retry-after"] == "1"
    call = served.last()
    assert (call.status, call.cost_nano_usd) == ("released", 0)
    assert served.balance().available_nano_usd == 1_000_000_000


def test_the_clients_own_errors_are_raised(served: Served) -> None:
    client = served.client()
    for kind, error in (("429", openai.RateLimitError), ("500", openai.InternalServerError)):
        with pytest.raises(error):
            client.chat.completions.create(model=f"sandbox-{kind}", messages=SAY)  # type: ignore[arg-type]


def test_a_retry_of_the_client_is_a_call_of_its_own(served: Served) -> None:
    served.provider.behaviours.set({"kind": "500", "model": MODEL, "next": 1})
    client = served.client(max_retries=2)
    assert client.chat.completions.create(**BODY).usage  # type: ignore[call-overload]
    assert sorted(served.statuses()) == ["released", "settled"]


def test_that_our_own_key_is_wrong_is_not_told(served: Served) -> None:
    answer = ask(served, "401")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")
    assert served.last().status == "released"


@pytest.mark.parametrize("kind", ["504", "drop"])
def test_an_unknown_outcome_is_charged_as_reserved(served: Served, kind: str) -> None:
    answer = ask(served, kind)
    assert answer.status_code == (504 if kind == "504" else 502)
    call = served.last()
    assert call.status == "settled"
    assert call.cost_nano_usd == call.reserved_nano_usd > 0
    assert served.credit.statement(PRACTICE).entries[0].what == Code.EXCEPTION_CHARGE.name.lower()


def test_an_unknown_outcome_is_released_where_the_operator_says_so(serve: Any) -> None:
    served = serve(on_loss="release")
    served.give()
    assert ask(served, "drop").status_code == 502
    assert (served.last().status, served.last().cost_nano_usd) == ("released", 0)


def test_a_timeout_is_an_unknown_outcome(serve: Any) -> None:
    served = serve(timeout_s=1)
    served.give()
    answer = ask(served, "hang")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
    assert served.last().cost_nano_usd == served.last().reserved_nano_usd


def test_a_request_that_never_left_costs_nothing(serve: Any) -> None:
    served = serve(upstream={"url": "http://127.0.0.1:9"})
    served.give()
    answer = served.http.post("/chat/completions", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert (served.last().status, served.last().cost_nano_usd) == ("released", 0)


# ---------------------------------------------------------------- usage that lies


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", ["negative", "missing", "huge", "text", "zero"])
def test_a_usage_that_can_not_be_true_is_never_free(served: Served, lie: str, stream: bool) -> None:
    answer = ask(served, f"lie-{lie}", stream=stream)
    assert answer.status_code == 200
    call = served.settled()
    assert call.status == "settled"
    if stream:
        # What was seen of the answer: twenty words, and the request as it was bounded.
        assert 20 * 600 < call.cost_nano_usd <= call.reserved_nano_usd
    else:
        assert call.cost_nano_usd == call.reserved_nano_usd


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_was_reserved_takes_credit_then_becomes_debt(serve: Any, stream: bool) -> None:
    served = serve()
    body = {**BODY, "model": "sandbox-lie-more", "stream": stream}
    held = served.bound("chat", body)
    served.give(held + 1_000)
    assert served.http.post("/chat/completions", json=body).status_code == 200
    call = served.settled()
    assert call.cost_nano_usd > held + 1_000
    balance = served.balance()
    assert balance.available_nano_usd == 0
    assert balance.debt_nano_usd == call.cost_nano_usd - (held + 1_000)
    assert served.credit.verify(PRACTICE).ok


# ---------------------------------------------------------------- broken and cancelled streams


@pytest.mark.parametrize("kind", ["broken-stream", "error-in-stream"])
def test_a_stream_that_breaks_is_billed_by_what_was_seen(served: Served, kind: str) -> None:
    body = {**BODY, "model": f"sandbox-{kind}", "stream": True}
    with served.http.stream("POST", "/chat/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert '"error"' in lines[-1]
    assert "[DONE]" not in lines[-1]
    call = served.settled()
    assert 2 <= call.output_tokens <= 10
    assert 0 < call.cost_nano_usd < call.reserved_nano_usd
    with pytest.raises(openai.APIError):
        list(served.client().chat.completions.create(**body))  # type: ignore[call-overload]


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_stream_that_fails_before_it_begins_costs_nothing(served: Served, path: str) -> None:
    served.provider.behaviours.set({"kind": "error-in-stream", "after_chunks": 0})
    body = {**BODY, "stream": True} if path.startswith("/chat") else {
        "model": MODEL, "input": "Say hello.", "stream": True}  # fmt: skip
    with served.http.stream("POST", path, json=body) as answer:
        assert '"error"' in answer.read().decode()
    call = served.settled()
    assert (call.status, call.cost_nano_usd) == ("released", 0)


def leave_half_way(served: Served, **more: Any) -> None:
    body = {**BODY, "model": "sandbox-slow-stream", "stream": True, **more}
    with served.http.stream("POST", "/chat/completions", json=body, timeout=20) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number == 6:
                return


def test_who_leaves_is_billed_by_the_usage_that_comes_later(served: Served) -> None:
    served.provider.behaviours.set({"kind": "slow-stream", "delay_ms": 10})
    leave_half_way(served, max_tokens=15)
    call = served.settled()
    assert call.output_tokens == 15
    assert served.provider.counters["streams_cut"] == 0


def test_who_leaves_a_long_stream_is_billed_by_what_was_seen(serve: Any) -> None:
    served = serve(drain_s=1)
    served.give()
    served.provider.usual_tokens = 200
    served.provider.behaviours.set({"kind": "slow-stream", "delay_ms": 100})
    leave_half_way(served)
    call = served.settled()
    assert 3 <= call.output_tokens < 40
    assert 0 < call.cost_nano_usd < call.reserved_nano_usd
    assert call.status == "settled"
    for _ in range(300):
        if served.provider.counters["streams_cut"]:
            break
        threading.Event().wait(0.01)
    assert served.provider.counters["streams_cut"] == 1


def test_a_model_that_thinks_unseen_is_charged_as_reserved_when_nobody_listens(serve: Any) -> None:
    served = serve(drain_s=1)
    served.give()
    rates = {"input_mtok": "1.1", "output_mtok": "4.4"}
    served.credit.core.prices.set_rates("o4-mini", rates, provider="sandbox")
    served.provider.usual_tokens = 200
    served.provider.behaviours.set({"kind": "slow-stream", "delay_ms": 100})
    leave_half_way(served, model="o4-mini")
    call = served.settled()
    assert call.cost_nano_usd == call.reserved_nano_usd


@pytest.mark.soak
def test_many_cancelled_streams_leave_no_open_hold(serve: Any, soak_factor: int) -> None:
    served = serve(drain_s=1)
    served.give(10**12)
    many = 300 if soak_factor == 1 else 10_000

    async def work() -> None:
        url = f"{served.gateway.url}/openai/v1/chat/completions"
        headers = {"Authorization": f"Bearer {served.key()}"}
        turn = asyncio.Semaphore(40)
        body = {**BODY, "stream": True, "max_tokens": 10}

        async def one(client: httpx.AsyncClient, number: int) -> None:
            async with turn, client.stream("POST", url, json=body, headers=headers) as answer:
                seen = 0
                async for _ in answer.aiter_lines():
                    seen += 1
                    if seen > number % 7:
                        return

        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            await asyncio.gather(*(one(client, number) for number in range(many)))

    asyncio.run(work())
    served.settled(30)
    balance = served.balance()
    assert balance.held_nano_usd == 0
    calls = served.credit.calls(PRACTICE, limit=500)
    assert {call.status for call in calls} == {"settled"}
    assert served.credit.verify(PRACTICE).ok
    assert served.provider.counters["streams"] == many


def test_a_server_that_is_stopped_ends_its_calls(serve: Any) -> None:
    served: Served = serve()
    served.give()
    served.provider.usual_tokens = 500
    served.provider.behaviours.set({"kind": "slow-stream", "delay_ms": 100})
    body = {**BODY, "stream": True, "max_tokens": 500}
    with served.http.stream("POST", "/chat/completions", json=body, timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert served.balance().held_nano_usd > 0
        gateway = served.gateway
        gateway.server.should_exit = True
        with pytest.raises(httpx.TransportError):
            list(lines)
    gateway._thread.join(10)
    from guthaben import Guthaben

    with Guthaben.open(f"sqlite:///{served.database}") as again:
        assert again.balance(PRACTICE).held_nano_usd == 0
        (call,) = again.calls(PRACTICE)
        assert call.status == "settled"
        assert 0 < call.cost_nano_usd <= call.reserved_nano_usd
