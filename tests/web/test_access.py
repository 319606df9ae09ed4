"""Who is let in, for which practice, and what the others hear."""

import httpx
import pytest

from tests.web.conftest import Web

ROUTES = {
    "gate": [
        ("POST", "/v1/reservations"), ("POST", "/v1/reservations/call_1_x/settle"),
        ("POST", "/v1/reservations/call_1_x/release"), ("POST", "/v1/reservations/call_1_x/extend"),
        ("POST", "/v1/usage"),
    ],
    "credit": [
        ("GET", "/v1/contacts"), ("POST", "/v1/contacts"),
        ("DELETE", "/v1/contacts/{contact_id}"), ("PUT", "/v1/contacts/{contact_id}/preferences"),
        ("GET", "/v1/webhook-endpoints"), ("POST", "/v1/webhook-endpoints"),
        ("DELETE", "/v1/webhook-endpoints/{endpoint_id}"),
        ("POST", "/v1/webhook-endpoints/{endpoint_id}/test"),
        ("POST", "/v1/webhook-endpoints/{endpoint_id}/secret"),
        ("POST", "/v1/webhook-endpoints/{endpoint_id}/enable"),
        ("GET", "/v1/notices"),
        ("GET", "/v1/statement"), ("GET", "/v1/topups"), ("POST", "/v1/topups"),
        ("GET", "/v1/topups/tu_1"), ("POST", "/v1/payment-method/setup"),
        ("GET", "/v1/auto-topup"), ("PUT", "/v1/auto-topup"), ("GET", "/v1/usage"),
        ("POST", "/v1/portal-sessions"), ("GET", "/v1/language"), ("PUT", "/v1/language"),
        ("GET", "/v1/license"), ("POST", "/v1/license/checkout"),
        ("GET", "/v1/auto-topup/consent-text"),
        ("GET", "/v1/payment-method/consent-text"), ("POST", "/v1/auto-topup/payment"),
    ],
    "both": [("GET", "/v1/balance"), ("GET", "/v1/calls"), ("GET", "/v1/reservations/call_1_x")],
    "admin": [
        ("GET", "/v1/admin/inbox"), ("GET", "/v1/admin/inbox/evt_1"),
        ("POST", "/v1/admin/inbox/evt_1/retry"), ("POST", "/v1/admin/inbox/evt_1/discard"),
        ("GET", "/v1/admin/quarantine"), ("GET", "/v1/admin/quarantine/1"),
        ("POST", "/v1/admin/quarantine/1/credit"), ("POST", "/v1/admin/quarantine/1/dismiss"),
        ("POST", "/v1/admin/quarantine/1/refund"),
        ("GET", "/v1/admin/practices/prac_1/refundable"),
        ("POST", "/v1/admin/practices/prac_1/refunds"),
        ("GET", "/v1/admin/practices"), ("POST", "/v1/admin/practices/prac_1/grants"),
        ("POST", "/v1/admin/practices/prac_1/adjustments"),
        ("PUT", "/v1/admin/practices/prac_1/license"),
        ("PUT", "/v1/admin/practices/prac_1/caps"),
        ("POST", "/v1/admin/practices/prac_1/caps/remove"),
        ("GET", "/v1/admin/practices/prac_1/caps"),
        ("PUT", "/v1/admin/practices/prac_1/policy"), ("GET", "/v1/admin/verify"),
        ("GET", "/v1/admin/alarms"), ("GET", "/v1/admin/plans"), ("PUT", "/v1/admin/plans"),
        ("POST", "/v1/admin/plans/remove"), ("GET", "/v1/admin/licenses/held"),
        ("GET", "/v1/admin/practices/prac_1/license"),
        ("POST", "/v1/admin/practices/prac_1/license/refresh"),
        ("POST", "/v1/admin/practices/prac_1/license/assign"),
        ("GET", "/v1/admin/auto-topups"),
        ("PUT", "/v1/admin/auto-topups/stop"),
        ("GET", "/v1/admin/practices/prac_1/auto-topup"),
    ],
}  # fmt: skip
ALL = [route for routes in ROUTES.values() for route in routes]


def _filled(path: str) -> str:
    names = {"call_id": "call_1_x", "topup_id": "tu_1", "event_id": "evt_1", "case_no": "1"}
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def test_the_list_above_is_complete(web: Web) -> None:
    described = {
        (method.upper(), _filled(path))
        for path, methods in web.app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1/") and not path.startswith("/v1/ai-credit")
    }
    described = {(m, p.replace("{practice_id}", "prac_1")) for m, p in described}
    assert described == set(ALL)


BAD_CREDENTIALS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "empty": [("Authorization", "")],
    "unknown": [("Authorization", "Bearer gh_live_aaaaaaaaaa_" + "b" * 43)],
    "not ours": [("Authorization", "Bearer sk_live_abcdef")],
    "another way": [("Authorization", "Basic Z2g6Z2g=")],
    "long": [("Authorization", "Bearer gh_" + "a" * 10_000)],
    "in another header": [("X-Api-Key", "gh_live_aaaaaaaaaa_b")],
}


@pytest.mark.parametrize("kind", BAD_CREDENTIALS)
async def test_without_a_valid_key_every_route_answers_401_alike(web: Web, kind: str) -> None:
    client = web.client(scopes=())
    said = set()
    for method, path in ALL:
        answer = await client.request(method, path, headers=BAD_CREDENTIALS[kind])
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        said.add((answer.json()["code"], answer.json()["detail"]))
    assert len(said) == 1


async def test_two_credentials_are_none(web: Web) -> None:
    key = web.services.keys.create("prac_1", ["gate"]).key
    client = web.client(scopes=())
    twice = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    assert (await client.get("/v1/balance", headers=twice)).status_code == 401
    in_query = await client.get(f"/v1/balance?authorization=Bearer%20{key}")
    assert in_query.status_code == 401


@pytest.mark.parametrize("scope", ["gate", "credit", "admin"])
async def test_a_key_does_what_its_scope_says_and_no_more(web: Web, scope: str) -> None:
    client = web.client(scopes=(scope,))
    for group, routes in ROUTES.items():
        allowed = group == scope or (group == "both" and scope != "admin")
        for method, path in routes:
            answer = await client.request(method, path)
            in_scope = answer.status_code != 403 or answer.json()["code"] != "scope_missing"
            assert in_scope == allowed, (method, path, answer.text)
            if not allowed:
                assert answer.json()["code"] == "scope_missing"


async def test_a_revoked_key_stops_at_once(web: Web) -> None:
    made = web.services.keys.create("prac_1", ["gate"])
    client = web.client(scopes=(), Authorization=f"Bearer {made.key}")
    assert (await client.get("/v1/balance")).status_code == 200
    web.services.keys.revoke(made.key_id)
    assert (await client.get("/v1/balance")).status_code == 401


async def test_a_practice_header_that_contradicts_the_key_is_403(web: Web) -> None:
    client = web.client("prac_1", ("gate", "credit", "admin"))
    for method, path in ALL:
        answer = await client.request(method, path, headers={"X-Practice-Id": "prac_2"})
        assert (answer.status_code, answer.json()["code"]) == (403, "practice_mismatch"), path
    same = await client.get("/v1/balance", headers={"X-Practice-Id": "prac_1"})
    assert same.status_code == 200


async def test_a_key_for_all_practices_must_name_one(web: Web) -> None:
    web.give(7, "prac_1")
    client = web.client(None, ("gate",))
    assert (await client.get("/v1/balance")).status_code == 400
    found = await client.get("/v1/balance", headers={"X-Practice-Id": "prac_1"})
    assert found.json()["available_usd"] == "0.000000007"
    for wrong in ("", "a" * 201, "dr.muster@example.com", "sk_live_abcdef", "Z\u00fcrich"):
        answer = await client.get("/v1/balance", headers={b"X-Practice-Id": wrong.encode()})
        assert answer.status_code == 400, wrong
        assert str(wrong) not in answer.text or not wrong
    twice = [("X-Practice-Id", "prac_1"), ("X-Practice-Id", "prac_2")]
    assert (await client.get("/v1/balance", headers=twice)).status_code == 400


async def test_the_practice_comes_from_the_credential_and_from_nowhere_else(web: Web) -> None:
    web.give(5_000_000_000, "prac_2")
    client = web.client("prac_1")
    body = {"amount_usd": "1", "key": "k", "practice_id": "prac_2"}
    assert (await client.post("/v1/reservations", json=body)).status_code == 400
    assert (await client.get("/v1/balance?practice_id=prac_2")).status_code in {200, 400}
    assert (await client.get("/v1/balance")).json()["practice_id"] == "prac_1"


async def test_a_foreign_call_answers_as_a_missing_one_word_for_word(web: Web) -> None:
    web.give()
    call = web.services.guthaben.reserve("prac_1", 1, key="k")
    other = web.client("prac_2", ("gate", "credit"))
    web.give(1_000_000_000, "prac_2")
    mine = web.services.guthaben.reserve("prac_2", 1, key="k")
    missing_id = web.services.core.call_id("prac_2", 99)
    steps = [("GET", "", None), ("POST", "/settle", {"cost_usd": "0"}), ("POST", "/release", {}),
             ("POST", "/extend", {"ttl_s": 60})]  # fmt: skip
    ids = [call.id, missing_id, "call_1_aaaaaaaaaaaaaaaa", "x", "call_", mine.id + "x", "%00"]
    for method, step, body in steps:
        said = set()
        for call_id in ids:
            answer = await other.request(method, f"/v1/reservations/{call_id}{step}", json=body)
            assert answer.status_code == 404, (call_id, step)
            said.add(str({**answer.json(), "request_id": ""}))
        assert len(said) == 1, said
    assert web.services.guthaben.call("prac_1", call.id).status == "reserved"


async def test_an_operator_of_one_practice_reaches_that_one_only(web: Web) -> None:
    web.give(1, "prac_1")
    web.give(2, "prac_2")
    client = web.client("prac_1", ("admin",))
    listed = (await client.get("/v1/admin/practices")).json()["practices"]
    assert [row["practice_id"] for row in listed] == ["prac_1"]
    body = {"amount_usd": "1", "key": "k"}
    said = set()
    for practice_id in ("prac_2", "prac_unknown"):
        answer = await client.post(f"/v1/admin/practices/{practice_id}/grants", json=body)
        assert answer.status_code == 404
        said.add(str({**answer.json(), "request_id": ""}))
        verify = await client.get(f"/v1/admin/verify?practice_id={practice_id}")
        assert verify.status_code == 404
    assert len(said) == 1
    assert (await client.get("/v1/admin/verify")).json()["practices"] == 1
    assert len(web.services.guthaben.statement("prac_2").entries) == 1


async def test_answers_carry_the_request_id(web: Web) -> None:
    client = web.client()
    given = await client.get("/v1/balance", headers={"X-Request-Id": "trace-7.a_B"})
    assert given.headers["x-request-id"] == "trace-7.a_B"
    refused = await client.get("/v1/calls/none", headers={"X-Request-Id": "trace-8"})
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "trace-8"
    for wrong in ("a b", "x" * 65, "<script>", "sk_live_abcdefgh", ""):
        answer = await client.get("/v1/balance", headers={"X-Request-Id": wrong})
        assert answer.headers["x-request-id"] not in {wrong, ""}
        assert isinstance(answer, httpx.Response)
