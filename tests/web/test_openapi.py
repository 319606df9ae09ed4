"""The description is true: every documented example is accepted, every answer is as described."""

import json
import time
from typing import Any

import httpx
import jsonschema
import pytest

from guthaben.services.plans import PlanBook
from guthaben.web.routing import Endpoint
from tests.web.conftest import Web

pytestmark = pytest.mark.edge

ADMIN = ("gate", "credit", "admin")


MONEY = ("/v1/admin/inbox", "/v1/admin/quarantine")
"""Routes about money that came in: what they answer is checked in test_money.py."""


def described(web: Web) -> dict[str, Any]:
    found = web.app.openapi()
    found["paths"] = {
        path: methods
        for path, methods in found["paths"].items()
        if not path.startswith(("/v1/ai-credit", "/stripe/", "/openai/", "/cycles/", *MONEY))
        and not path.endswith(("/refunds", "/refundable"))
    }
    return found


def operations(web: Web) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in described(web)["paths"].items()
        for method, operation in methods.items()
    ]


def check(web: Web, answer: httpx.Response, operation: dict[str, Any]) -> None:
    """Hold an answer against what is described for its status."""
    status = str(answer.status_code)
    assert status in operation["responses"], f"{status} is not described: {answer.text}"
    (media,) = operation["responses"][status]["content"]
    assert answer.headers["content-type"] == media
    schema = operation["responses"][status]["content"][media]["schema"]
    whole = {**schema, "components": web.app.openapi()["components"]}
    jsonschema.Draft202012Validator(whole).validate(answer.json())


async def example_call(web: Web, client: httpx.AsyncClient, path: str, method: str, operation: Any):
    """Do what the description's own examples say."""
    call = web.services.guthaben.reserve("prac_7", 2_000_000, key=f"{path} {time.time_ns()}")
    started = await client.post("/v1/topups", json={"amount_chf": "30"})
    filled = path.replace("{call_id}", call.id).replace("{practice_id}", "prac_7")
    filled = filled.replace("{topup_id}", started.json()["topup_id"])
    if "{contact_id}" in path:
        made = web.services.targets.add_contact("prac_7", f"a{time.time_ns()}@praxis.example")
        filled = filled.replace("{contact_id}", made.contact_id)
    if "{endpoint_id}" in path:
        # Nobody listens there, and no name has to be looked up.
        there = web.services.targets.add_endpoint("prac_7", "https://hooks.invalid/")
        filled = filled.replace("{endpoint_id}", there.endpoint.endpoint_id)
    query = {
        parameter["name"]: parameter["example"]
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query" and "example" in parameter
    }
    body = None
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["example"]
    return await client.request(method, filled, params=query, json=body)


async def test_every_documented_example_is_accepted_and_answered_as_described(web: Web) -> None:
    web.give(10_000_000_000, "prac_7")
    web.switch_on("prac_7")
    PlanBook(web.services.core).set("basic_monthly", 20_000_000_000)
    nobodys = web.subscribe(
        metadata={}, customer="cus_of_nobody0001"
    )  # held until an operator says whose it is
    assert web.services.payments.licences.news.ask(nobodys["id"])[0] == "quarantined"
    client = web.client(None, ADMIN, **{"X-Practice-Id": "prac_7"})
    seen = 0
    for path, method, operation in operations(web):
        answer = await example_call(web, client, path, method, operation)
        assert answer.status_code < 300, (method, path, answer.text)
        check(web, answer, operation)
        seen += 1
    assert seen >= 20


async def test_refusals_are_as_described_too(web: Web) -> None:
    nobody, client = web.client(scopes=()), web.client("prac_7", ADMIN)
    for path, method, operation in operations(web):
        if not path.startswith("/v1/"):
            continue
        filled = path.replace("{practice_id}", "prac_7")
        check(web, await nobody.request(method, filled), operation)
        wrong = {"X-Practice-Id": "prac_8"}
        check(web, await client.request(method, filled, headers=wrong), operation)
        if "requestBody" in operation:
            check(web, await client.request(method, filled, json={"unknown": 1}), operation)
    answer = await client.post("/v1/reservations", json={"amount_usd": "1", "key": "k"})
    assert answer.status_code == 402
    check(web, answer, described(web)["paths"]["/v1/reservations"]["post"])


async def test_every_example_fits_its_own_schema(web: Web) -> None:
    for path, method, operation in operations(web):
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            jsonschema.Draft202012Validator(content["schema"]).validate(content["example"])
            names = set(content["schema"]["properties"])
            assert content["schema"]["additionalProperties"] is False, (method, path)
            assert set(content["example"]) <= names


async def test_every_operation_says_what_it_does_and_needs_a_key(web: Web) -> None:
    ids = set()
    for path, method, operation in operations(web):
        assert operation["summary"], (method, path)
        ids.add(operation["operationId"])
        assert ("security" in operation) == path.startswith("/v1/"), path
        for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            assert name in {p["name"] for p in operation["parameters"] if p["in"] == "path"}
    assert len(ids) == len(operations(web))


async def test_the_description_is_served_and_whole(web: Web) -> None:
    found = (await web.client(scopes=()).get("/openapi.json")).json()
    text = json.dumps(found)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        place: Any = found
        for step in reference.split("/"):
            place = place[step]
    assert found["openapi"].startswith("3.1")


async def test_fastapi_reads_nothing_by_itself(web: Web) -> None:
    from fastapi.routing import APIRoute

    def routes(router: Any):
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield route
            elif hasattr(route, "original_router"):
                yield from routes(route.original_router)

    ours = [r for r in routes(web.app) if r.endpoint.__module__.startswith("guthaben.web")]
    assert all(isinstance(route, Endpoint) for route in ours)


@pytest.mark.parametrize("viewer", ["/docs", "/redoc"])
async def test_no_page_loads_scripts_from_elsewhere(web: Web, viewer: str) -> None:
    assert (await web.client().get(viewer)).status_code == 404
