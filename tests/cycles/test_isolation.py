"""Own, foreign, missing and malformed ids, with every kind of key: nothing foreign is reached."""

from typing import Any

import pytest

from tests.cycles.conftest import Server, planned, told, usd

CANARY = "canary-7c1e"
MISSING = "rsv_" + "A" * 32
MALFORMED = ["x", "rsv_", "rsv_" + "A" * 31, "rsv_" + "ä" * 32, "evt_" + "A" * 32, "%00", "A" * 129]


async def begun(server: Server, tenant: str = "other") -> str:
    """Begin a reservation of another tenant, with a secret inside."""
    server.fund(10_000, tenant)
    body = planned(f"{CANARY}-key", 500, metadata={"secret": CANARY})
    body["subject"] = {"tenant": tenant, "agent": CANARY}
    client = server.client(server.key(tenant))
    answer = await client.post("/v1/reservations", json=body)
    found: str = answer.json()["reservation_id"]
    return found


def requests_for(name: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    path = f"/v1/reservations/{name}"
    return [
        ("GET", path, None),
        ("POST", path + "/commit", {"idempotency_key": "i", "actual": usd(1)}),
        ("POST", path + "/release", {"idempotency_key": "i"}),
        ("POST", path + "/extend", {"idempotency_key": "i", "extend_by_ms": 1_000}),
    ]


ALL = [
    *requests_for(MISSING),
    ("POST", "/v1/reservations", planned("n", 1)),
    ("POST", "/v1/decide", planned("n", 1)),
    ("POST", "/v1/events", told("n", 1)),
    ("GET", "/v1/reservations", None),
    ("GET", "/v1/balances?tenant=acme", None),
]


async def send(client: Any, method: str, path: str, body: Any) -> Any:
    return await client.request(method, path, json=body)


async def test_a_foreign_reservation_is_forbidden_and_stays_as_it_is(server: Server) -> None:
    name = await begun(server)
    server.fund(1_000)
    client = server.client()
    for method, path, body in requests_for(name):
        answer = await send(client, method, path, body)
        assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")
        assert CANARY not in answer.text
    own = await server.client(server.key("other")).get(f"/v1/reservations/{name}")
    assert own.json()["status"] == "ACTIVE"
    assert own.json()["expires_at_ms"] == server.clock.now_ms + 60_000


async def test_what_never_was_is_not_found(server: Server) -> None:
    server.fund(1_000)
    name = await begun(server, "acme")
    flipped = name[:-1] + ("A" if name[-1] != "A" else "B")
    client = server.client()
    for wrong in (MISSING, flipped, *MALFORMED):
        for method, path, body in requests_for(wrong):
            answer = await send(client, method, path, body)
            assert (answer.status_code, answer.json()["error"]) == (404, "NOT_FOUND"), wrong


async def test_no_list_key_or_balance_reaches_another_tenant(server: Server) -> None:
    await begun(server)
    server.fund(1_000)
    client = server.client()
    for query in ("", "?idempotency_key=" + CANARY + "-key", "?agent=" + CANARY, "?limit=200"):
        answer = await client.get("/v1/reservations" + query)
        assert answer.json()["reservations"] == []
    for path in ("/v1/balances?tenant=other", "/v1/reservations?tenant=other"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")
    for path, body in (
        ("decide", planned("n")),
        ("reservations", planned("n")),
        ("events", told("n")),
    ):
        body["subject"]["tenant"] = "other"
        answer = await client.post(f"/v1/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")
    (row,) = (await client.get("/v1/balances?agent=" + CANARY)).json()["balances"]
    assert (row["scope"], row["remaining"]["amount"]) == ("tenant:acme", 1_000)


@pytest.mark.parametrize("kind", ["none", "unknown", "revoked", "not ours", "long", "bearer"])
async def test_without_a_valid_key_everything_is_401_alike(server: Server, kind: str) -> None:
    keys = {"none": "", "unknown": "gh_live_aaaaaaaaaa_" + "b" * 43, "not ours": "sk_live_1",
            "long": "gh_" + "a" * 10_000, "bearer": ""}  # fmt: skip
    key = server.key()
    if kind == "revoked":
        server.services.keys.revoke(key.rpartition("_")[0])
    client = server.client(keys.get(kind, key))
    if kind == "bearer":
        client.headers["Authorization"] = f"Bearer {key}"
    said = set()
    for method, path, body in ALL:
        answer = await send(client, method, path, body)
        assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
        said.add(answer.json()["message"])
    assert len(said) == 1
    assert server.guthaben.calls("acme") == []


async def test_a_key_without_the_gate_is_forbidden_everywhere(server: Server) -> None:
    for scopes in (("credit",), ("admin",), ("credit", "admin")):
        client = server.client(server.key("acme", *scopes))
        for method, path, body in ALL:
            answer = await send(client, method, path, body)
            assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")


async def test_a_key_for_all_practices_must_name_one(server: Server) -> None:
    server.fund(1_000)
    key = server.key(None)
    unnamed = await server.client(key).post("/v1/reservations", json=planned("a", 1))
    assert unnamed.status_code == 403
    named = await server.client(key, **{"X-Practice-Id": "acme"}).post(
        "/v1/reservations", json=planned("a", 1)
    )
    assert named.status_code == 200
    own = await server.client(server.key(), **{"X-Practice-Id": "other"}).get("/v1/reservations")
    assert own.status_code == 403
    stranger = server.client(key, **{"X-Practice-Id": "nobody"})
    name = named.json()["reservation_id"]
    assert (await stranger.get("/v1/reservations")).json()["reservations"] == []
    assert (await stranger.get(f"/v1/reservations/{name}")).status_code == 403
    odd = server.client(key, **{"X-Practice-Id": "a b"})
    assert (await odd.get("/v1/reservations")).status_code == 403


async def test_a_newer_key_of_the_tenant_repeats_what_an_older_one_did(server: Server) -> None:
    server.fund(1_000)
    first = await server.client().post("/v1/reservations", json=planned("a", 1))
    second = await server.client().post("/v1/reservations", json=planned("a", 1))
    assert first.json() == second.json()


async def test_ids_tell_nothing_and_can_not_be_made(server: Server) -> None:
    cycles = server.services.core
    from guthaben.services.cycles import Cycles, Owner

    names = Cycles(cycles)
    given = {names.name("rsv_", 1, number) for number in range(1, 200)}
    assert len(given) == 199
    assert {len(name) for name in given} == {36}
    assert names.owner("rsv_", names.name("rsv_", 2**40, 2**47)) == Owner(2**40, 2**47)
    for name in list(given)[:20]:
        assert names.owner("evt_", "evt_" + name[4:]) is None
        for place in range(4, 36):
            changed = name[:place] + ("x" if name[place] != "x" else "y") + name[place + 1 :]
            assert names.owner("rsv_", changed) is None
