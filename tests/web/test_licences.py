"""Licences over HTTP: a practice's own, buying one, plans, and what is in doubt."""

import time
from typing import Any

import pytest

from guthaben.errors import PaymentOutcomeUnknown
from guthaben.services.plans import PlanBook
from tests.web.conftest import Web

BASIC = {"lookup_key": "basic_monthly", "allowance_usd": "20.00"}
LICENSE = "/v1/admin/practices/prac_1/license"


@pytest.fixture
def operator(web: Web) -> Any:
    return web.client(None, ("admin",))


async def test_plans_are_set_listed_dated_and_removed(web: Web, operator: Any) -> None:
    made = await operator.put("/v1/admin/plans", json={**BASIC, "trial_usd": "2"})
    assert made.json() == {**BASIC, "trial_usd": "2.00", "from_s": 0}
    later = int(time.time()) + 1_000
    await operator.put("/v1/admin/plans", json={**BASIC, "allowance_usd": "30", "from_s": later})
    (plan,) = (await operator.get("/v1/admin/plans")).json()["plans"]
    assert plan["allowance_usd"] == "20.00"
    gone = await operator.post("/v1/admin/plans/remove", json={"lookup_key": "basic_monthly"})
    assert gone.json() == {"plans": []}
    again = await operator.post("/v1/admin/plans/remove", json={"lookup_key": "basic_monthly"})
    assert (again.status_code, again.json()["code"]) == (404, "plan_not_found")


@pytest.mark.parametrize("amount", ["-1", "1e3", "1000000.000000001", ""])
async def test_a_plan_has_an_exact_allowance(operator: Any, amount: str) -> None:
    answer = await operator.put("/v1/admin/plans", json={**BASIC, "allowance_usd": amount})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_amount")


async def test_plans_concern_every_practice(web: Web) -> None:
    client = web.client("prac_1", ("admin",))
    for method, path, body in (
        ("PUT", "/v1/admin/plans", BASIC),
        ("POST", "/v1/admin/plans/remove", {"lookup_key": "basic_monthly"}),
        ("GET", "/v1/admin/licenses/held", None),
        ("POST", f"{LICENSE}/assign", {"held_no": 1}),
    ):
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "practice_mismatch"), path
    assert PlanBook(web.services.core).history() == []


async def test_a_practice_buys_a_plan_and_sees_its_licence(web: Web, operator: Any) -> None:
    await operator.put("/v1/admin/plans", json=BASIC)
    client = web.client()
    start = await client.post("/v1/license/checkout", json={"plan": "basic_monthly"})
    assert start.status_code == 201
    (order,) = web.gateway.orders
    assert order.client_reference_id == start.json()["order_id"]
    assert order.success_url == "https://credit.example.com/"
    bought = web.subscribe(metadata=dict(order.metadata))
    web.services.payments.licences.news.ask(bought["id"])
    shown = (await client.get("/v1/license")).json()
    assert (shown["active"], shown["source"], shown["allowance_usd"]) == (
        True, "subscription", "20.00",
    )  # fmt: skip
    assert shown["subscriptions"][0]["plans"] == ["basic_monthly"]
    balance = (await client.get("/v1/balance")).json()
    assert balance["available_usd"] == "20.00"
    listed = await operator.get("/v1/admin/practices")
    for text in (str(shown), str(balance), listed.text):
        assert "sub_…cdef" in text
        assert "sub_1234567890abcdef" not in text
    again = await client.post("/v1/license/checkout", json={"plan": "basic_monthly"})
    assert (again.status_code, again.json()["code"]) == (409, "license_exists")


async def test_only_plans_are_sold(web: Web) -> None:
    answer = await web.client().post("/v1/license/checkout", json={"plan": "something"})
    assert (answer.status_code, answer.json()["code"]) == (404, "plan_not_found")
    unknown = {"plan": "something", "price_id": "price_1"}
    answer = await web.client().post("/v1/license/checkout", json=unknown)
    assert answer.status_code == 400
    assert web.gateway.orders == []


async def test_a_provider_that_does_not_answer_sells_nothing(web: Web, operator: Any) -> None:
    await operator.put("/v1/admin/plans", json=BASIC)
    web.gateway.breaks_with = PaymentOutcomeUnknown("no answer")
    answer = await web.client().post("/v1/license/checkout", json={"plan": "basic_monthly"})
    assert (answer.status_code, answer.json()["code"]) == (503, "payment_outcome_unknown")


async def test_a_practice_sees_only_its_own(web: Web, operator: Any) -> None:
    await operator.put("/v1/admin/plans", json=BASIC)
    web.services.payments.licences.news.ask(web.subscribe("prac_1")["id"])
    other = (await web.client("prac_2").get("/v1/license")).json()
    assert (other["source"], other["subscriptions"]) == ("none", [])
    foreign = await web.client("prac_2", ("admin",)).get(LICENSE)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "practice_not_found")


async def test_what_is_held_is_listed_masked_and_assigned(web: Web, operator: Any) -> None:
    await operator.put("/v1/admin/plans", json=BASIC)
    web.services.payments.licences.news.ask(web.subscribe(metadata={})["id"])
    (held,) = (await operator.get("/v1/admin/licenses/held")).json()["held"]
    assert (held["reference"], held["reason"]) == ("sub_…cdef", "no_practice")
    metrics = (await web.client(scopes=()).get("/metrics")).text
    assert "guthaben_licences_held 1.0" in metrics
    done = await operator.post(f"{LICENSE}/assign", json={"held_no": held["held_no"]})
    assert done.json()["active"]
    assert (await operator.get("/v1/admin/licenses/held")).json() == {"held": []}
    shown = await operator.post(f"{LICENSE}/refresh")
    assert shown.json() == (await operator.get(LICENSE)).json()
