"""Operators over HTTP: practices, grants, adjustments, licences, policy, verify, alarms."""

import time

import pytest

from guthaben.store import settings
from tests.web.conftest import Web

PRACTICE = "/v1/admin/practices/prac_1"


async def test_practices_are_paged(web: Web) -> None:
    for number in range(5):
        web.give(1, f"prac_{number}")
    client = web.client(None, ("admin",))
    first = (await client.get("/v1/admin/practices?limit=3")).json()
    assert [row["practice_id"] for row in first["practices"]] == ["prac_0", "prac_1", "prac_2"]
    rest = (await client.get(f"/v1/admin/practices?limit=3&after={first['next_after']}")).json()
    assert [row["practice_id"] for row in rest["practices"]] == ["prac_3", "prac_4"]
    assert rest["next_after"] is None


async def test_credit_is_given_once_per_key(web: Web) -> None:
    client = web.client(None, ("admin",))
    body = {"amount_usd": "5.000000001", "key": "welcome"}
    answers = [await client.post(f"{PRACTICE}/grants", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert [answer.json()["replayed"] for answer in answers] == [False, True]
    other = await client.post(f"{PRACTICE}/grants", json={**body, "amount_usd": "6"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert web.services.guthaben.balance("prac_1").available_nano_usd == 5_000_000_001


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "gift"}, "invalid_input"),
        ({"expires_at_s": 5}, "already_expired"),
        ({"period_start_s": 1}, "invalid_input"),
        ({"license": "l", "period_start_s": 9, "period_end_s": 9}, "invalid_input"),
        ({"amount_usd": "0"}, "invalid_amount"),
        ({"amount_usd": "-1"}, "invalid_amount"),
        ({"amount_usd": "1000000.000000001"}, "invalid_amount"),
    ],
)
async def test_a_wrong_grant_is_refused(web: Web, body: dict, code: str) -> None:
    client = web.client(None, ("admin",))
    answer = await client.post(f"{PRACTICE}/grants", json={"amount_usd": "1", "key": "k", **body})
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert web.seq() == (0, 0, 0)


async def test_an_allowance_belongs_to_a_period_and_is_given_once(web: Web) -> None:
    client = web.client(None, ("admin",))
    body = {"amount_usd": "1", "key": "k", "kind": "allowance", "license": "l",
            "period_start_s": 1_700_000_000, "period_end_s": 1_702_592_000}  # fmt: skip
    assert (await client.post(f"{PRACTICE}/grants", json=body)).status_code == 201
    again = await client.post(f"{PRACTICE}/grants", json={**body, "key": "k2"})
    assert (again.status_code, again.json()["code"]) == (409, "allowance_exists")


async def test_an_adjustment_has_a_reason_that_is_kept_apart(web: Web) -> None:
    web.give()
    client = web.client(None, ("admin",))
    no_reason = await client.post(f"{PRACTICE}/adjustments", json={"amount_usd": "-1", "key": "a"})
    assert (no_reason.status_code, no_reason.json()["field"]) == (400, "reason")
    body = {"amount_usd": "-12.5", "key": "a", "reason": "charged twice"}
    answer = await client.post(f"{PRACTICE}/adjustments", json=body)
    assert answer.status_code == 201
    balance = web.services.guthaben.balance("prac_1")
    assert (balance.available_nano_usd, balance.debt_nano_usd) == (0, 2_500_000_000)
    zero = await client.post(
        f"{PRACTICE}/adjustments", json={**body, "amount_usd": "0", "key": "b"}
    )
    assert (zero.status_code, zero.json()["code"]) == (400, "invalid_amount")
    listed = await web.client().get("/v1/topups")
    assert "charged twice" not in listed.text


async def test_a_licence_includes_an_allowance(web: Web) -> None:
    client = web.client(None, ("admin",))
    now_s = int(time.time())
    body = {"license": "basic", "period_start_s": now_s - 10, "period_end_s": now_s + 1000,
            "allowance_usd": "2"}  # fmt: skip
    for _ in range(2):
        assert (await client.put(f"{PRACTICE}/license", json=body)).json()["done"] is True
    assert web.services.guthaben.balance("prac_1").allowance_nano_usd == 2_000_000_000
    backwards = {**body, "period_end_s": now_s - 20}
    assert (await client.put(f"{PRACTICE}/license", json=backwards)).status_code == 400


async def test_the_policy_freezes_and_closes(web: Web) -> None:
    client = web.client(None, ("admin",))
    assert (await client.put(f"{PRACTICE}/policy", json={"status": "frozen"})).status_code == 200
    wrong = await client.put(f"{PRACTICE}/policy", json={"time_zone": "Mars/Olympus"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_input")
    await client.put(f"{PRACTICE}/policy", json={"status": "closed"})
    grant = await client.post(f"{PRACTICE}/grants", json={"amount_usd": "1", "key": "k"})
    assert (grant.status_code, grant.json()["code"]) == (403, "practice_closed")


async def test_verify_tells_what_is_not_as_the_journal_says(web: Web) -> None:
    web.give()
    client = web.client(None, ("admin",))
    clean = (await client.get("/v1/admin/verify")).json()
    assert (clean["ok"], clean["practices"], clean["problems"]) == (True, 1, [])
    web.database.change("UPDATE credit_practice SET debt_nano_usd = 5")
    found = (await client.get("/v1/admin/verify?practice_id=prac_1")).json()
    assert not found["ok"]
    assert found["problems"][0]["practice_id"] == "prac_1"


async def test_alarms_are_listed_for_who_may_see_them(web: Web) -> None:
    def alarm(space):
        number = space.practice_no("prac_1")
        settings.raise_alarm(space.cursor, "auto_topup_paused", "prac_1", space.now_s, number)
        settings.raise_alarm(space.cursor, "charges_not_sent", "auth", space.now_s)

    web.services.core.store.run(alarm)
    everything = (await web.client(None, ("admin",)).get("/v1/admin/alarms")).json()["alarms"]
    assert {found["code"] for found in everything} == {"auto_topup_paused", "charges_not_sent"}
    own = (await web.client("prac_1", ("admin",)).get("/v1/admin/alarms")).json()["alarms"]
    assert [(found["code"], found["practice_id"]) for found in own] == [
        ("auto_topup_paused", "prac_1")
    ]
    assert (await web.client("prac_2", ("admin",)).get("/v1/admin/alarms")).json()["alarms"] == []


async def test_a_practice_id_may_hold_slashes_and_blanks(web: Web) -> None:
    client = web.client(None, ("admin",))
    body = {"amount_usd": "1", "key": "k"}
    answer = await client.post("/v1/admin/practices/a%2Fb%20c/grants", json=body)
    assert (answer.status_code, answer.json()["practice_id"]) == (201, "a/b c")
