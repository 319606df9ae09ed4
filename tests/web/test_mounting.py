"""The routes in a host's own app, just as docs/server.md shows it."""

import re

import httpx
import pytest

from tests.programs import ROOT


def documented() -> str:
    text = (ROOT / "docs" / "server.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return example


async def test_the_documented_example_works(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "host"}
    exec(compile(documented(), "docs/server.md", "exec"), names)
    app, services = names["app"], names["services"]
    async with app.router.lifespan_context(app):
        key = services.keys.create("prac_7", ["gate", "credit"]).key
        services.guthaben.grant("prac_7", 1_000_000_000, key="given")
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://host/credit", headers=headers
        ) as client:
            body = {"amount_usd": "0.25", "key": "k"}
            call = await client.post("/v1/reservations", json=body)
            assert call.status_code == 201
            end = f"/v1/reservations/{call.json()['id']}/settle"
            assert (await client.post(end, json={"cost_usd": "0.1"})).status_code == 200
            refused = await client.post("/v1/reservations", json={"amount_usd": "9", "key": "k2"})
            assert refused.status_code == 402
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["x-request-id"] == refused.json()["request_id"]
            assert (await client.get("/v1/nothing")).json() == {"detail": "Not Found"}, "the host's"
    paths = app.openapi()["paths"]
    assert "/credit/v1/reservations" in paths
    assert "HTTPBearer" in app.openapi()["components"]["securitySchemes"]


async def test_several_hosts_in_one_process_do_not_disturb_each_other(tmp_path) -> None:
    from guthaben.web.app import create_app
    from guthaben.web.deps import Services

    for number in range(2):
        services = Services.open(f"sqlite:///{tmp_path / str(number)}.db")
        app = create_app(services)
        async with services:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                assert (await client.get("/readyz")).status_code == 200


def test_every_code_of_a_problem_is_documented() -> None:
    from guthaben.web.problems import TITLES

    text = (ROOT / "docs" / "server.md").read_text("utf-8")
    missing = {code for code in TITLES if f"`{code}`" not in text}
    assert missing <= {"internal_error"}
