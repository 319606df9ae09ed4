"""The decorator and the FastAPI dependency: reserve before, settle after, refuse without credit."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from guthaben import AsyncCallHandle, AsyncGuthaben, CallHandle, Guthaben, InsufficientCredit
from guthaben.domain.caps import Cap
from guthaben.endpoints import costed, costed_dependency
from guthaben.services.caps import CapBook
from tests.gateway.served import MODEL, flush, opened_with_prices

PRICE = 1_000_000
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


@pytest.fixture
def credit(tmp_path: Path) -> Iterator[Guthaben]:
    made = opened_with_prices(tmp_path / "endpoints.db")
    made.grant("p", 10 * PRICE, key="given")
    yield made
    made.close()


def test_a_function_at_a_price(credit: Guthaben) -> None:
    @costed(credit, "p", price_nano_usd=PRICE)
    def shout(text: str) -> str:
        """Shout."""
        if not text:
            raise ValueError
        return text.upper()

    assert shout("a") == "A"
    assert (shout.__name__, shout.__doc__) == ("shout", "Shout.")
    with pytest.raises(ValueError):
        shout("")
    assert [call.status for call in credit.calls("p")] == ["released", "settled"]
    assert credit.balance("p").available_nano_usd == 9 * PRICE


def test_a_function_that_settles_by_its_usage(credit: Guthaben) -> None:
    @costed(credit, lambda owner, _text: owner, model=MODEL, input_tokens=200, max_output_tokens=50)
    def ask(_owner: str, text: str, *, call: CallHandle) -> str:
        call.settle(USAGE)
        return text

    assert ask("p", "x") == "x"
    (call,) = credit.calls("p")
    assert call.cost_nano_usd == 100 * 150 + 10 * 600
    assert call.reserved_nano_usd >= 200 * 150 + 50 * 600
    with pytest.raises(InsufficientCredit):
        ask("nobody", "x")


async def test_a_coroutine(credit: Guthaben) -> None:
    @costed(AsyncGuthaben(credit.core), "p", price_nano_usd=PRICE)
    async def work(fail: bool) -> int:
        await asyncio.sleep(0)
        if fail:
            raise KeyError
        return 1

    assert await work(False) == 1
    with pytest.raises(KeyError):
        await work(True)
    flush(credit)
    assert [call.status for call in credit.calls("p")] == ["released", "settled"]


async def test_what_settles_by_itself_costs_what_it_says(credit: Guthaben) -> None:
    @costed(credit, "p", price_nano_usd=PRICE)
    def half(*, call: CallHandle) -> None:
        call.settle(PRICE // 2)

    @costed(AsyncGuthaben(credit.core), "p", price_nano_usd=PRICE)
    async def third(*, call: AsyncCallHandle) -> None:
        await call.settle(PRICE // 3)

    half()
    await third()
    assert [call.cost_nano_usd for call in credit.calls("p")] == [PRICE // 3, PRICE // 2]


def app_of(credit: Guthaben) -> FastAPI:
    app = FastAPI()

    def practice_of(request: Request) -> str:
        return request.headers["x-owner"]

    shared = AsyncGuthaben(credit.core)
    link = "https://credit.example.com/buy"
    flat = costed_dependency(
        shared, practice_of, price_nano_usd=PRICE, topup_url=link, device_id="scanner"
    )
    sized = costed_dependency(
        shared, practice_of, model=MODEL, input_tokens=200, max_output_tokens=50
    )

    @app.get("/flat")
    async def at_a_price(
        call: Annotated[AsyncCallHandle, Depends(flat)], fail: bool = False
    ) -> Any:
        if fail:
            raise HTTPException(418)
        return {"call": call.id}

    @app.get("/sized")
    async def by_usage(call: Annotated[AsyncCallHandle, Depends(sized)]) -> Any:
        await call.settle(USAGE)
        return {"cost": call.cost_nano_usd}

    return app


async def test_a_dependency_of_fastapi(credit: Guthaben) -> None:
    transport = httpx.ASGITransport(app_of(credit))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.headers["x-owner"] = "p"
        assert (await client.get("/flat")).json()["call"] == credit.calls("p")[0].id
        assert credit.calls("p")[0].cost_nano_usd == PRICE
        assert (await client.get("/flat?fail=true")).status_code == 418
        flush(credit)
        assert credit.calls("p")[0].status == "released"
        assert (await client.get("/sized")).json() == {"cost": 100 * 150 + 10 * 600}
        client.headers["x-owner"] = "poor"
        refused = await client.get("/flat")
    assert refused.status_code == 402
    assert refused.json()["detail"]["code"] == "insufficient_credit"
    assert refused.json()["detail"]["topup_url"].endswith("/buy")
    assert credit.balance("p").held_nano_usd == 0


# ---------------------------------------------------------------- reserving by model and tokens


def test_reserve_by_tokens_settle_by_usage(credit: Guthaben) -> None:
    with credit.reserve("p", model=MODEL, input_tokens=900, max_output_tokens=400) as call:
        assert call.reserved_nano_usd == 900 * 150 + 400 * 600
        view = call.settle({"usage": USAGE, "model": "another"})
    assert view.cost_nano_usd == 100 * 150 + 10 * 600
    assert (view.model, view.input_tokens, view.output_tokens) == (MODEL, 100, 10)
    lied = credit.reserve("p", model=MODEL, input_tokens=9, max_output_tokens=9, key="k")
    again = credit.reserve("p", model=MODEL, input_tokens=9, max_output_tokens=9, key="k")
    assert again.replayed
    assert again.settle({**USAGE, "completion_tokens": -1}).cost_nano_usd == lied.reserved_nano_usd
    heard = credit.reserve("p", model="whisper-1", audio_seconds=2.5)
    assert heard.reserved_nano_usd == 250_000
    recorded = credit.record_usage("p", USAGE, key="u", model=MODEL)
    assert recorded.cost_nano_usd == 100 * 150 + 10 * 600


async def test_a_dependency_says_why_the_endpoint_did_not_run(credit: Guthaben) -> None:
    transport = httpx.ASGITransport(app_of(credit))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.headers["x-owner"] = "p"
        CapBook(credit.core.store).set("p", Cap("device:scanner", day_nano_usd=PRICE - 1))
        capped = await client.get("/flat")
        assert (capped.status_code, capped.json()["detail"]["code"]) == (429, "cap_exceeded")
        assert capped.json()["detail"]["available_usd"] == "0.000999999"
        assert "topup_url" not in capped.json()["detail"]
        credit.set_policy("p", status="frozen")
        frozen = await client.get("/flat")
        assert (frozen.status_code, frozen.json()["detail"]["code"]) == (403, "practice_frozen")
    assert credit.calls("p") == []


@pytest.mark.parametrize(
    "given",
    [{}, {"amount_nano_usd": 5, "input_tokens": 5}, {"input_tokens": 5}, {"model": MODEL},
     {"model": "nobody-knows-it", "input_tokens": 5}, {"model": MODEL, "input_tokens": -5},
     {"model": MODEL, "input_tokens": 5.0}, {"model": MODEL, "max_output_tokens": True},
     {"model": MODEL, "audio_seconds": 5}, {"model": 5, "input_tokens": 5}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(credit: Guthaben, given: dict[str, Any]) -> None:
    from guthaben import Refused

    with pytest.raises(Refused):
        credit.reserve("p", **given)
    assert credit.calls("p") == []


async def test_the_same_for_asyncio(credit: Guthaben) -> None:
    other = AsyncGuthaben(credit.core)
    reserved = await other.reserve("p", model=MODEL, input_tokens=900, max_output_tokens=400)
    async with reserved as call:
        assert (await call.settle(USAGE)).cost_nano_usd == 100 * 150 + 10 * 600
    assert (await other.record_usage("p", USAGE, key="u", model=MODEL)).output_tokens == 10
