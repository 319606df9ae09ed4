"""The examples of docs/gateway.md run as they are printed; only addresses and keys are put in."""

import io
import json
import re
from contextlib import redirect_stdout
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from guthaben.services import upstreams
from tests.gateway.served import Served
from tests.programs import ROOT

PAGE = (ROOT / "docs" / "gateway.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


class LoggedIn:
    """What a host's own log-in does before the app."""

    def __init__(self, app: Any, practice_id: str) -> None:
        self.app, self.practice_id = app, practice_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["practice_id"] = self.practice_id
        await self.app(scope, receive, send)


def test_the_examples_work(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.give(10**9, "prac_7")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{served.upstream.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    key = served.key("prac_7")
    bare = openai.OpenAI(base_url=f"{served.upstream.url}/v1", api_key="k")
    place: dict[str, Any] = {"openai_client": bare}
    said = io.StringIO()
    with redirect_stdout(said):
        for block in blocks("python"):
            code = block.replace("http://127.0.0.1:8420", served.gateway.url)
            code = code.replace("gh_live_...", key)
            code = code.replace("sqlite:///credit.db", f"sqlite:///{served.database}")
            exec(compile(code, "gateway.md", "exec"), place)
    assert said.getvalue().count("Credit is what a practice has bought") == 5
    assert "DEAR COLLEAGUE" in said.getvalue()
    with TestClient(LoggedIn(place["app"], "prac_7")) as client:
        assert client.post("/ocr").json()["text"] == "..."
    place["credit"].close()
    calls = served.credit.calls("prac_7")
    assert len(calls) == 8
    assert {call.status for call in calls} == {"settled"}


def test_the_providers_of_the_page_are_read(monkeypatch: Any) -> None:
    (text, refusal) = blocks("json")
    monkeypatch.setenv("GUTHABEN_UPSTREAMS", text)
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_KEY", "HOUSE_KEY"):
        monkeypatch.setenv(name, "k")
    found = upstreams.configured()
    assert found.find("gpt-4o-mini")[0].name == "openai"
    assert found.find("gpt-4.1")[1] == "our-deployment"
    assert found.find("llama-3.3-70b")[0].max_tokens_field == "max_tokens"
    assert json.loads(refusal)["error"]["code"] == "insufficient_credit"
