"""The gate over HTTP: reserve, settle, release, extend, usage, and looking at calls."""

import asyncio

import httpx
import pytest

from tests.web.conftest import Web

USD = 1_000_000_000


async def reserve(client: httpx.AsyncClient, amount: str = "1", key: str = "k", **more: object):
    return await client.post("/v1/reservations", json={"amount_usd": amount, "key": key, **more})


async def available(client: httpx.AsyncClient) -> tuple[str, str]:
    found = (await client.get("/v1/balance")).json()
    return found["available_usd"], found["held_usd"]


async def test_a_call_is_reserved_and_settled_exactly(web: Web) -> None:
    web.give()
    client = web.client()
    made = await reserve(client, "0.0015", model="gpt-4o-mini", reference="r-1", tags={"a": "b"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    call = made.json()
    assert (call["status"], call["reserved_usd"], call["replayed"]) == ("reserved", "0.0015", False)
    assert await available(client) == ("9.9985", "0.0015")
    body = {"cost_usd": "0.000000001", "input_tokens": 5, "output_tokens": 6, "audio_ms": 1500}
    settled = await client.post(f"/v1/reservations/{call['id']}/settle", json=body)
    assert settled.status_code == 200
    found = settled.json()
    assert (found["status"], found["cost_usd"]) == ("settled", "0.000000001")
    assert (found["total_tokens"], found["audio_ms"], found["reference"]) == (11, 1500, "r-1")
    assert await available(client) == ("9.999999999", "0.00")
    assert (await client.get(f"/v1/reservations/{call['id']}")).json() == {
        **found, "applied": True, "replayed": False,
    }  # fmt: skip


async def test_too_little_credit_is_402_and_says_how_much_there_is(web: Web) -> None:
    web.give(USD // 2)
    answer = await reserve(web.client(), "0.75")
    assert answer.status_code == 402
    problem = answer.json()
    assert problem["code"] == "insufficient_credit"
    assert (problem["available_usd"], problem["requested_usd"]) == ("0.50", "0.75")
    assert web.seq() == (1, 0, 0)


async def test_the_key_makes_it_once(web: Web) -> None:
    web.give()
    client = web.client()
    first, again = await reserve(client), await reserve(client)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {**first.json(), "replayed": True, "applied": False}
    other = await reserve(client, "2")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/usage"])
async def test_a_lost_answer_is_asked_for_again_with_a_newer_api_key(web: Web, path: str) -> None:
    """The key was exchanged for a newer one in between: the same call, made once."""
    web.give()
    amount = "amount_usd" if path == "/v1/reservations" else "cost_usd"
    body = {amount: "1", "key": "k", "device_id": "d1"}
    first = await web.client().post(path, json=body)
    again = await web.client().post(path, json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json()["id"], again.json()["replayed"]) == (first.json()["id"], True)
    other = await web.client().post(path, json={**body, "device_id": "d2"})
    assert other.json()["code"] == "idempotency_conflict"


async def test_the_key_makes_it_once_and_holds_once(web: Web) -> None:
    web.give()
    client = web.client()
    for _ in range(2):
        await reserve(client)
    assert await available(client) == ("9.00", "1.00")


async def test_twenty_requests_with_one_key_reserve_once(web: Web) -> None:
    web.give()
    client = web.client()
    answers = await asyncio.gather(*(reserve(client) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await available(client) == ("9.00", "1.00")


async def test_credit_for_ten_calls_admits_ten_of_forty(web: Web) -> None:
    web.give()
    client = web.client()
    answers = await asyncio.gather(*(reserve(client, "1", f"k{i}") for i in range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [402] * 30


async def test_the_key_may_stand_in_the_header(web: Web) -> None:
    web.give()
    client = web.client()
    body = {"amount_usd": "1"}
    first = await client.post("/v1/reservations", json=body, headers={"Idempotency-Key": "h1"})
    same = await reserve(client, "1", "h1")
    assert (first.status_code, same.status_code) == (201, 200)
    both = {"amount_usd": "1", "key": "h2"}
    for headers in ({"Idempotency-Key": "other"}, {"Idempotency-Key": ""}):
        answer = await client.post("/v1/reservations", json=both, headers=headers)
        assert answer.status_code == 400
    missing = await client.post("/v1/reservations", json=body)
    assert (missing.status_code, missing.json()["field"]) == (400, "key")
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await client.post("/v1/reservations", json=body, headers=twice)).status_code == 400
    assert await available(client) == ("9.00", "1.00")


@pytest.mark.parametrize("end", ["settle", "release"])
async def test_a_call_that_is_over_is_not_handed_out_again(web: Web, end: str) -> None:
    web.give()
    client = web.client()
    call = (await reserve(client)).json()
    body = {"cost_usd": "0.25"} if end == "settle" else {}
    await client.post(f"/v1/reservations/{call['id']}/{end}", json=body)
    answer = await reserve(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "call_finished")
    assert answer.json()["call_id"] == call["id"]
    assert answer.json()["call_status"] == f"{end}d".replace("ed", "ed")


async def test_of_two_ends_one_wins_and_the_other_hears_it(web: Web) -> None:
    web.give()
    client = web.client()
    call = (await reserve(client)).json()
    ends = [
        client.post(f"/v1/reservations/{call['id']}/settle", json={"cost_usd": "0.5"}),
        client.post(f"/v1/reservations/{call['id']}/release", json={}),
    ]
    answers = await asyncio.gather(*ends)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["status"] for answer in answers}) == 1
    assert sorted(answer.json()["applied"] for answer in answers) == [False, True]


async def test_settling_again_is_the_same_or_refused(web: Web) -> None:
    web.give()
    client = web.client()
    call = (await reserve(client)).json()
    path = f"/v1/reservations/{call['id']}/settle"
    first = await client.post(path, json={"cost_usd": "0.5"})
    same = await client.post(path, json={"cost_usd": "0.50"})
    other = await client.post(path, json={"cost_usd": "0.6"})
    assert (first.status_code, same.status_code, other.status_code) == (200, 200, 409)
    assert other.json()["code"] == "settled_otherwise"
    assert await available(client) == ("9.50", "0.00")


async def test_an_overrun_takes_what_there_is_and_becomes_debt(web: Web) -> None:
    web.give(USD)
    client = web.client()
    call = (await reserve(client, "0.5")).json()
    answer = await client.post(f"/v1/reservations/{call['id']}/settle", json={"cost_usd": "1.25"})
    assert answer.status_code == 200
    found = (await client.get("/v1/balance")).json()
    assert (found["available_usd"], found["debt_usd"]) == ("0.00", "0.25")


async def test_a_release_gives_all_back_or_does_what_was_said(web: Web) -> None:
    web.give()
    client = web.client()
    plain = (await reserve(client, "1", "a")).json()
    assert (await client.post(f"/v1/reservations/{plain['id']}/release")).status_code == 200
    charged = (await reserve(client, "1", "b", on_exception="charge")).json()
    body = {"cause": "exception"}
    answer = await client.post(f"/v1/reservations/{charged['id']}/release", json=body)
    assert answer.json()["cost_usd"] == "1.00"
    assert await available(client) == ("9.00", "0.00")


async def test_a_call_is_extended_within_a_day(web: Web) -> None:
    web.give()
    client = web.client()
    call = (await reserve(client, ttl_s=60)).json()
    path = f"/v1/reservations/{call['id']}/extend"
    longer = await client.post(path, json={"ttl_s": 600})
    assert longer.json()["expires_at_s"] - call["expires_at_s"] >= 530
    assert (await client.post(path, json={"ttl_s": 86_401})).status_code == 400
    await client.post(f"/v1/reservations/{call['id']}/release")
    over = await client.post(path, json={"ttl_s": 60})
    assert (over.status_code, over.json()["code"]) == (409, "call_over")


async def test_usage_is_recorded_without_a_reservation(web: Web) -> None:
    web.give(USD)
    client = web.client()
    body = {"cost_usd": "0.75", "key": "u1", "model": "whisper-1", "audio_ms": 42_000}
    first, again = [await client.post("/v1/usage", json=body) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["status"] == "settled"
    assert await available(client) == ("0.25", "0.00")
    more = await client.post("/v1/usage", json={"cost_usd": "1", "key": "u2"})
    assert more.status_code == 201
    assert (await client.get("/v1/balance")).json()["debt_usd"] == "0.75"


async def test_calls_are_paged_newest_first(web: Web) -> None:
    web.give()
    client = web.client()
    made = [(await reserve(client, "0.1", f"k{i}")).json()["id"] for i in range(5)]
    seen, before = [], ""
    for _ in range(3):
        page = (await client.get(f"/v1/calls?limit=2{before}")).json()
        seen += [call["id"] for call in page["calls"]]
        before = f"&before={page['next_before']}"
    assert seen == made[::-1]
    assert page["next_before"] is None
    assert (await client.get("/v1/calls?before=call_1_wrong")).status_code == 404


async def test_a_frozen_practice_reserves_nothing_and_may_settle(web: Web) -> None:
    web.give()
    client = web.client()
    call = (await reserve(client)).json()
    web.services.guthaben.set_policy("prac_1", status="frozen")
    refused = await reserve(client, "1", "k2")
    assert (refused.status_code, refused.json()["code"]) == (403, "practice_frozen")
    settled = await client.post(f"/v1/reservations/{call['id']}/settle", json={"cost_usd": "1"})
    assert settled.status_code == 200


async def test_the_key_that_called_is_kept_on_the_call(web: Web) -> None:
    web.give()
    await reserve(web.client())
    key_id = web.services.keys.list()[0].key_id
    assert web.database.rows("SELECT api_key_id FROM credit_call") == [{"api_key_id": key_id}]
