"""Requests one by one: what is read, what is answered, what the protocol demands beside money."""

import asyncio
import json

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from guthaben.domain.caps import Cap
from guthaben.web.app import create_router
from tests.cycles.conftest import BEGIN_MS, TENANT, Server, planned, told, usd
from tests.cycles.protocol import ABSENT, found_file

pytestmark = pytest.mark.edge

BOTH_IDS = ("x-request-id", "x-cycles-trace-id")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def reserved(server: Server, key: str = "r", estimate: int = 1_000, **options: object) -> str:
    """Reserve and give the id."""
    client = server.client()
    answer = await client.post("/v1/reservations", json=planned(key, estimate, **options))
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["reservation_id"]
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


@pytest.mark.skipif(found_file() is None, reason=ABSENT)
async def test_the_judge_judges(server: Server) -> None:
    """What breaks the file is noticed; else all other tests would prove nothing."""
    from tests.cycles.protocol import judge

    headers = {"x-request-id": "r", "x-cycles-trace-id": TRACE}
    good = b'{"decision":"ALLOW","affected_scopes":[]}'
    assert judge("POST", "/v1/decide", 200, headers, good) == []
    assert judge("POST", "/v1/decide", 200, headers, b'{"decision":"MAYBE"}')
    assert judge("POST", "/v1/decide", 200, headers, good[:-1] + b',"other":1}')
    assert judge("POST", "/v1/decide", 418, headers, good)
    assert judge("POST", "/v1/decide", 200, {}, good)
    assert judge("POST", "/v1/decide", 409, headers, b'{"error":"BROKE"}')


async def test_a_whole_life(server: Server) -> None:
    server.fund(10_000)
    client = server.client()
    rest = {"metadata": {"run": 7, "ratio": 0.25, "deep": {"a": [None, "ü"]}}}
    body = planned("r", 4_000, ttl_ms=30_000, **rest)
    body["subject"]["dimensions"] = {"cost_center": "x"}
    body["action"]["tags"] = ["prod"]
    made = (await client.post("/v1/reservations", json=body)).json()
    path = f"/v1/reservations/{made['reservation_id']}"
    assert made["expires_at_ms"] == BEGIN_MS + 30_000
    assert made["affected_scopes"] == ["tenant:acme", "tenant:acme/agent:bot"]
    found = (await client.get(path)).json()
    assert (found["status"], found["metadata"]) == ("ACTIVE", rest["metadata"])
    assert found["subject"] == body["subject"]
    assert found["action"] == body["action"]
    server.clock.now_ms += 1_234
    more = {"idempotency_key": "e", "extend_by_ms": 5_000}
    extended = (await client.post(path + "/extend", json=more)).json()
    assert extended["expires_at_ms"] == BEGIN_MS + 35_000
    assert extended["remaining_ttl_ms"] == 35_000 - 1_234
    metrics = {"tokens_input": 10, "tokens_output": 5, "model_version": "m", "custom": {"x": 1}}
    commit = {
        "idempotency_key": "c",
        "actual": usd(3_000),
        "metrics": metrics,
        "metadata": {"b": 1},
    }
    done = (await client.post(path + "/commit", json=commit)).json()
    assert done == {"status": "COMMITTED", "charged": usd(3_000), "released": usd(1_000)}
    found = (await client.get(path)).json()
    assert found["committed"] == usd(3_000)
    assert found["committed_metadata"] == {"b": 1}
    assert found["finalized_at_ms"] == BEGIN_MS + 1_234
    (call,) = server.guthaben.calls(TENANT)
    assert (call.cost_nano_usd, call.input_tokens, call.output_tokens) == (30_000, 10, 5)
    assert (call.model, call.device_id) == ("gpt-4o-mini", "bot")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}, TRACE),
        ({"X-Cycles-Trace-Id": TRACE}, TRACE),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Cycles-Trace-Id": "a" * 32}, TRACE),
        (
            {"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01", "X-Cycles-Trace-Id": "a" * 32},
            "a" * 32,
        ),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"X-Cycles-Trace-Id": TRACE.upper()}, None),
        ({"X-Cycles-Trace-Id": "0" * 32}, None),
        ({}, None),
    ],
)
async def test_the_trace_is_the_callers_if_it_is_sound(
    server: Server, headers: dict[str, str], expected: str | None
) -> None:
    for client in (server.client(), server.client("nonsense")):
        answer = await client.post("/v1/decide", json=planned("d"), headers=headers)
        given = answer.headers["x-cycles-trace-id"]
        assert len(given) == 32
        assert given != "0" * 32
        if expected is not None:
            assert given == expected
        else:
            assert given not in headers.values()


async def test_every_answer_names_request_and_tenant(server: Server) -> None:
    answer = await server.client().get("/v1/balances", params={"agent": "x"})
    assert answer.headers["x-cycles-tenant"] == TENANT
    assert all(answer.headers[name] for name in BOTH_IDS)
    for method, path in (("GET", "/v1/nothing"), ("DELETE", "/v1/reservations"), ("PUT", "/x")):
        missing = await server.client("").request(method, path)
        assert code(missing) == (404, "NOT_FOUND")
        assert all(missing.headers[name] for name in BOTH_IDS)


BODY = planned("k")


@pytest.mark.parametrize(
    "change",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 257},
        {"idempotency_key": 7},
        {"idempotency_key": None},
        {"idempotency_key": "\x00"},
        {"unknown": 1},
        {"subject": {}},
        {"subject": {"dimensions": {"a": "b"}}},
        {"subject": {"tenant": TENANT, "dimensions": {"a": 1}}},
        {"subject": {"tenant": TENANT, "dimensions": {str(n): "" for n in range(17)}}},
        {"subject": {"tenant": TENANT, "other": "x"}},
        {"subject": {"tenant": TENANT, "agent": "a:b"}},
        {"subject": {"tenant": TENANT, "agent": "a/b"}},
        {"subject": {"tenant": TENANT, "agent": "ä"}},
        {"subject": {"tenant": TENANT, "agent": "a\n"}},
        {"subject": {"tenant": TENANT, "agent": "a" * 129}},
        {"subject": "acme"},
        {"action": {"kind": "k"}},
        {"action": {"kind": "k" * 65, "name": "n"}},
        {"action": {"kind": "k", "name": "n", "tags": ["t"] * 11}},
        {"action": {"kind": "k", "name": "n", "tags": [1]}},
        {"estimate": {"amount": 1}},
        {"estimate": {"unit": "CHF", "amount": 1}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": -1}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": 1.0}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": True}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": "1"}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": 10**14 + 1}},
        {"estimate": {"unit": "USD_MICROCENTS", "amount": 2**63}},
        {"ttl_ms": 999},
        {"ttl_ms": 86_400_001},
        {"grace_period_ms": -1},
        {"grace_period_ms": 60_001},
        {"overage_policy": "ALLOW"},
        {"overage_policy": []},
        {"dry_run": 1},
        {"metadata": []},
        {"metadata": {"half": "\ud800"}},
    ],
)
async def test_what_the_file_does_not_allow_is_refused_and_changes_nothing(
    server: Server, change: dict[str, object]
) -> None:
    server.fund(10_000)
    raw = json.dumps({**BODY, **change}).encode()
    client = server.client()
    answer = await client.post(
        "/v1/reservations", content=raw, headers={"Content-Type": "application/json"}
    )
    assert code(answer) == (400, "INVALID_REQUEST"), answer.text
    assert server.guthaben.calls(TENANT) == []


SOUND = json.dumps({**BODY, "metadata": {"x": "y"}})


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"\xff", b"9" * 50, b"[" * 9_000, b"x" * 65_537,
     SOUND.replace('"x": "y"', '"x": "y", "x": "z"').encode(),
     SOUND[:-1].encode() + b', "idempotency_key": "k"}',
     *(SOUND.replace('"y"', odd).encode()
       for odd in ("NaN", "-Infinity", "1e999", "9" * 50, '"\\u0000"', '"\\ud800"'))],
)  # fmt: skip
async def test_what_is_no_sound_json_is_refused(server: Server, raw: bytes) -> None:
    server.fund(10_000)
    client, sent = server.client(), {"Content-Type": "application/json"}
    answer = await client.post("/v1/reservations", content=raw, headers=sent)
    assert code(answer) == (400, "INVALID_REQUEST")
    answer = await client.post("/v1/reservations", content=SOUND, headers=sent)
    assert answer.status_code == 200, "and nothing else was wrong with it"


async def test_other_encodings_and_a_second_key_are_refused(server: Server) -> None:
    client, raw = server.client(), json.dumps(BODY).encode()
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "X-Idempotency-Key": "another"},
    ):
        answer = await client.post("/v1/reservations", content=raw, headers=headers)
        assert code(answer) == (400, "INVALID_REQUEST")
    twice = [("X-Idempotency-Key", "k"), ("X-Idempotency-Key", "k")]
    answer = await client.post("/v1/reservations", json=BODY, headers=twice)
    assert code(answer) == (400, "INVALID_REQUEST")


async def test_the_largest_body_and_the_longest_key_are_taken(server: Server) -> None:
    server.fund(10_000)
    body = planned("ö" * 256, metadata={"text": "x" * 60_000})
    client = server.client()
    made = await client.post("/v1/reservations", json=body)
    assert made.status_code == 200
    found = await client.get("/v1/reservations", params={"idempotency_key": "ö" * 256})
    (row,) = found.json()["reservations"]
    assert row["reservation_id"] == made.json()["reservation_id"]
    assert row["idempotency_key"] == "ö" * 256


@pytest.mark.parametrize("unit", ["TOKENS", "CREDITS", "RISK_POINTS"])
async def test_another_unit_is_told_which_there_is(server: Server, unit: str) -> None:
    server.fund(10_000)
    client, name = server.client(), await reserved(server)
    plan, event = planned("u"), told("u")
    plan["estimate"] = event["actual"] = usd(1, unit)
    commit = {"idempotency_key": "u", "actual": usd(1, unit)}
    for path, body in (
        ("/v1/reservations", plan),
        ("/v1/reservations", {**plan, "dry_run": True}),
        ("/v1/decide", plan),
        ("/v1/events", event),
        (f"/v1/reservations/{name}/commit", commit),
    ):
        answer = await client.post(path, json=body)
        assert code(answer) == (400, "UNIT_MISMATCH")
        assert answer.json()["details"] == {
            "scope": "tenant:acme",
            "requested_unit": unit,
            "expected_units": ["USD_MICROCENTS"],
        }


async def test_a_closed_tenant_begins_and_ends_nothing_but_repeats(server: Server) -> None:
    server.fund(10_000)
    client, name = server.client(), await reserved(server)
    gone = await reserved(server, "short", ttl_ms=1_000, grace_period_ms=0)
    path = f"/v1/reservations/{name}"
    commit = {"idempotency_key": "c", "actual": usd(1)}
    first = await client.post("/v1/events", json=told("e", 7))
    server.clock.now_ms += 2_000
    server.policy(status="closed")
    for step, body in (
        ("", planned("new")),
        (f"/{name}/commit", commit),
        (f"/{gone}/commit", commit),
        (f"/{name}/release", {"idempotency_key": "c"}),
        (f"/{name}/extend", {"idempotency_key": "c", "extend_by_ms": 1}),
    ):
        answer = await client.post("/v1/reservations" + step, json=body)
        assert code(answer) == (409, "TENANT_CLOSED"), step
    assert code(await client.post("/v1/events", json=told("n"))) == (409, "TENANT_CLOSED")
    for kind, body in (
        ("/v1/decide", planned("d")),
        ("/v1/reservations", planned("y", dry_run=True)),
    ):
        answer = (await client.post(kind, json=body)).json()
        assert (answer["decision"], answer["reason_code"]) == ("DENY", "TENANT_CLOSED")
    assert (await client.post("/v1/events", json=told("e", 7))).json() == first.json()
    assert (await client.post("/v1/reservations", json=planned("r"))).json()[
        "reservation_id"
    ] == name
    assert (await client.get(path)).status_code == 200
    assert len((await client.get("/v1/reservations")).json()["reservations"]) == 2


async def test_the_last_millisecond_of_grace_counts_and_the_next_does_not(server: Server) -> None:
    server.fund(10_000)
    client = server.client()
    for late, expected in ((0, 200), (1, 410)):
        begun_ms = server.clock.now_ms
        options = {"ttl_ms": 1_000, "grace_period_ms": 500}
        name = await reserved(server, f"r{late}", 100, **options)
        server.clock.now_ms = begun_ms + 1_500 + late
        server.guthaben.expire()
        path = f"/v1/reservations/{name}"
        body = {"idempotency_key": f"c{late}", "actual": usd(100)}
        assert (await client.post(path + "/commit", json=body)).status_code == expected
    again = await client.post(path + "/commit", json=body)
    assert code(again) == (410, "RESERVATION_EXPIRED")
    assert code(await client.get(path)) == (410, "RESERVATION_EXPIRED")
    assert server.guthaben.balance(TENANT).available_nano_usd == (10_000 - 100) * 10
    event = await client.post("/v1/events", json=told("instead", 100))
    assert event.status_code == 201
    assert server.guthaben.balance(TENANT).available_nano_usd == (10_000 - 200) * 10


async def test_a_lease_used_beyond_everything_blocks_until_credit_comes(server: Server) -> None:
    server.fund(1_000)
    client, name = server.client(), await reserved(server, estimate=900)
    body = {"idempotency_key": "c", "actual": usd(5_000)}
    done = await client.post(f"/v1/reservations/{name}/commit", json=body)
    assert done.json()["charged"] == usd(1_000)
    statement = server.guthaben.statement(TENANT).entries
    assert sum(entry.amount_nano_usd for entry in statement if entry.what == "overrun") == 40_000
    assert server.guthaben.balance(TENANT).debt_nano_usd == 0
    new = await client.post("/v1/reservations", json=planned("n", 0))
    assert code(new) == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    server.policy(over_limit=False)
    assert (await client.post("/v1/reservations", json=planned("n", 0))).status_code == 200
    event = await client.post("/v1/events", json=told("e", 10))
    assert event.json()["charged"] == usd(0)
    server.fund(5)
    assert (await client.post("/v1/reservations", json=planned("m", 5))).status_code == 200


async def test_a_new_periods_allowance_clears_the_block(server: Server) -> None:
    now_s = BEGIN_MS // 1000
    server.guthaben.set_license(
        TENANT, "basic", period_start_s=now_s - 10, period_end_s=now_s + 100,
        allowance_nano_usd=10_000,
    )  # fmt: skip
    client = server.client()
    event = await client.post("/v1/events", json=told("e", 5_000))
    assert event.json()["charged"] == usd(1_000)
    (row,) = (await client.get("/v1/balances", params={"tenant": TENANT})).json()["balances"]
    assert row["is_over_limit"]
    server.clock.now_ms += 100_000
    (row,) = (await client.get("/v1/balances", params={"tenant": TENANT})).json()["balances"]
    assert (row["is_over_limit"], row["remaining"]["amount"]) == (False, 1_000)
    decided = (await client.post("/v1/decide", json=planned("d", 1_000))).json()
    assert decided["decision"] == "ALLOW"
    assert (await client.post("/v1/reservations", json=planned("r", 1_000))).status_code == 200


async def test_parts_of_a_unit_never_round_in_favour_of_the_caller(server: Server) -> None:
    server.guthaben.grant(TENANT, 1_009, key="odd")
    server.guthaben.reserve(TENANT, 3, key="own")
    client = server.client()
    (row,) = (await client.get("/v1/balances", params={"agent": "x"})).json()["balances"]
    assert (row["remaining"]["amount"], row["reserved"]["amount"]) == (100, 1)
    assert (await client.post("/v1/reservations", json=planned("r", 101))).status_code == 409
    event = await client.post("/v1/events", json=told("e", 200))
    assert event.json()["charged"] == usd(100)
    assert server.guthaben.balance(TENANT).available_nano_usd == 6


async def test_our_own_api_may_end_a_lease_and_the_client_hears_it(server: Server) -> None:
    server.fund(10_000)
    client = server.client()
    settled, released = await reserved(server, "a"), await reserved(server, "b")
    newest, oldest = server.guthaben.calls(TENANT)
    from guthaben.domain.commands import Release, Settle

    number = server.services.core.call_no(TENANT, oldest.id)
    server.guthaben.execute(TENANT, Settle(number, 70))
    number = server.services.core.call_no(TENANT, newest.id)
    server.guthaben.execute(TENANT, Release(number))
    found = (await client.get(f"/v1/reservations/{settled}")).json()
    assert (found["status"], found["committed"]) == ("COMMITTED", usd(7))
    assert found["finalized_at_ms"] == BEGIN_MS
    found = (await client.get(f"/v1/reservations/{released}")).json()
    assert (found["status"], found["finalized_at_ms"]) == ("RELEASED", BEGIN_MS)
    body = {"idempotency_key": "c", "actual": usd(7)}
    for name in (settled, released):
        answer = await client.post(f"/v1/reservations/{name}/commit", json=body)
        assert code(answer) == (409, "RESERVATION_FINALIZED")


async def test_one_key_for_two_reservations_is_two_bodies(server: Server) -> None:
    server.fund(10_000)
    client = server.client()
    one, two = await reserved(server, "a"), await reserved(server, "b")
    body = {"idempotency_key": "same", "actual": usd(1)}
    assert (await client.post(f"/v1/reservations/{one}/commit", json=body)).status_code == 200
    second = await client.post(f"/v1/reservations/{two}/commit", json=body)
    assert code(second) == (409, "IDEMPOTENCY_MISMATCH")
    key = {"idempotency_key": "same"}
    assert (await client.post(f"/v1/reservations/{two}/release", json=key)).status_code == 200


async def test_a_store_that_can_not_answer_is_500_and_tells_no_secret(server: Server) -> None:
    client = server.client()
    await client.get("/v1/balances", params={"tenant": TENANT})
    for writer in server.services.core.store._writers:
        writer.close()
    answer = await client.post("/v1/reservations", json=planned("r"))
    assert code(answer) == (500, "INTERNAL_ERROR")
    assert "sqlite" not in answer.text.lower()


async def test_the_same_request_at_once_happens_once(server: Server) -> None:
    server.fund(10_000)
    client = server.client()
    answers = await asyncio.gather(
        *(client.post("/v1/reservations", json=planned("same")) for _ in range(20))
    )
    assert len({answer.json()["reservation_id"] for answer in answers}) == 1
    path = f"/v1/reservations/{answers[0].json()['reservation_id']}/commit"
    body = {"idempotency_key": "c", "actual": usd(10)}
    done = await asyncio.gather(*(client.post(path, json=body) for _ in range(20)))
    assert {answer.text for answer in done} == {done[0].text}
    assert server.guthaben.balance(TENANT).available_nano_usd == (10_000 - 10) * 10


async def test_the_description_fits_what_is_answered(server: Server) -> None:
    """Every example of our own OpenAPI page is accepted, and answered as the page says."""
    server.fund(10_000_000)
    client = server.client()
    paths = {p: m for p, m in server.app.app.openapi()["paths"].items() if p.startswith("/cycles/")}
    assert sum(map(len, paths.values())) == 9
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation["security"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if body:
                jsonschema.Draft202012Validator(body["schema"]).validate(body["example"])
            name = await reserved(server, f"{method}{path}")
            url = path.removeprefix("/cycles").replace("{reservation_id}", name)
            answer = await client.request(
                method, url, json=body.get("example"), params={"tenant": TENANT}
            )
            missing = await server.client("none").request(method, url)
            for found in (answer, missing):
                told = operation["responses"][str(found.status_code)]["content"]
                schema = told["application/json"]["schema"]
                jsonschema.Draft202012Validator(schema).validate(found.json())
            assert answer.is_success, (method, path, answer.text)


async def test_a_host_may_mount_the_routes_under_a_prefix(server: Server) -> None:
    host = FastAPI()
    host.include_router(create_router(server.services), prefix="/credit")
    server.fund(1_000)
    headers = {"X-Cycles-API-Key": server.key()}
    transport = httpx.ASGITransport(host)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://host/credit/cycles", headers=headers
    ) as client:
        made = await client.post("/v1/reservations", json=planned("r", 10))
        assert made.status_code == 200, made.text
        found = await client.get(f"/v1/reservations/{made.json()['reservation_id']}")
        assert found.json()["status"] == "ACTIVE"
        assert found.headers["x-cycles-tenant"] == TENANT
        assert (await client.post("/v1/decide", json={})).status_code == 400


@pytest.mark.parametrize("subject", ["device:bot", "key:*"])
async def test_caps_of_agents_and_keys_hold_for_leases(server: Server, subject: str) -> None:
    server.fund(10_000)
    server.services.caps.set(TENANT, Cap(subject, day_nano_usd=10_000))
    client = server.client()
    name = (await client.post("/v1/reservations", json=planned("a", 900))).json()["reservation_id"]
    refused = await client.post("/v1/reservations", json=planned("b", 101))
    assert code(refused) == (409, "BUDGET_EXCEEDED")
    assert refused.json()["details"]["remaining"] == 100
    commit = {"idempotency_key": "c", "actual": usd(100)}
    await client.post(f"/v1/reservations/{name}/commit", json=commit)
    assert (await client.post("/v1/reservations", json=planned("b", 900))).status_code == 200


@pytest.mark.parametrize("subject", ["device:bot", "key:*"])
async def test_a_question_hears_of_the_caps_as_a_reservation_does(
    server: Server, subject: str
) -> None:
    server.fund(10_000)
    server.services.caps.set(TENANT, Cap(subject, day_nano_usd=10_000))
    client = server.client()
    await client.post("/v1/reservations", json=planned("a", 900))
    for number, (amount, decision) in enumerate([(100, "ALLOW"), (101, "DENY")]):
        decided = await client.post("/v1/decide", json=planned(f"d{number}", amount))
        dry = planned(f"t{number}", amount, dry_run=True)
        tried = await client.post("/v1/reservations", json=dry)
        for answer in (decided.json(), tried.json()):
            assert answer["decision"] == decision
            assert answer.get("reason_code") == (None if decision == "ALLOW" else "BUDGET_EXCEEDED")
    server.services.caps.remove(TENANT, subject)  # what was answered is repeated
    again = await client.post("/v1/decide", json=planned("d1", 101))
    assert again.json()["decision"] == "DENY"


async def test_a_question_is_repeated_with_a_newer_key(server: Server) -> None:
    server.fund(10_000)
    first, newer = server.client(), server.client()
    asked = await first.post("/v1/decide", json=planned("d", 100))
    again = await newer.post("/v1/decide", json=planned("d", 100))
    assert (again.status_code, again.json()) == (200, asked.json())
