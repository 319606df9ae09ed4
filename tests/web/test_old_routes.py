"""The routes of the four modules are served beside the new API, where they are installed."""

import pytest
from fastapi import FastAPI

from guthaben.web.app import _include_old
from tests.web.conftest import Web

pytest.importorskip("aza_ai_credit_routes")
pytest.importorskip("stripe_routes")


async def test_they_are_served_and_let_nobody_in_without_a_token(web: Web) -> None:
    client = web.client()
    for path in ("/v1/ai-credit/history", "/v1/ai-credit/auto-topup/settings"):
        assert (await client.get(path)).status_code == 401


async def test_stripe_events_go_to_one_place(web: Web) -> None:
    found = web.app.openapi()["paths"]["/stripe/webhook"]["post"]
    assert found["tags"] == ["stripe"]
    assert found["operationId"].startswith("receive")


def test_a_module_that_is_not_installed_is_no_error() -> None:
    app = FastAPI()
    before = len(app.routes)
    _include_old(app, "no_module_of_this_name")
    assert len(app.routes) == before
