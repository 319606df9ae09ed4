"""The sandbox's AI provider: what its control route does, and that its answers are OpenAI's."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from guthaben.sandbox.ai_app import Provider, create_ai_app
from guthaben.sandbox.ai_behaviour import KINDS
from tests.gateway.served import Running

SAY: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[Provider, httpx.Client]]:
    made = Provider()
    running = Running(create_ai_app(made))
    with httpx.Client(base_url=running.url, trust_env=False, timeout=10) as http:
        http.headers["Authorization"] = "Bearer k"
        yield made, http
    running.close()


def chat(http: httpx.Client, model: str = "gpt-4o-mini") -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": model, "messages": SAY})


def test_a_behaviour_counts_for_the_next_calls_of_a_model(provider: Any) -> None:
    _, http = provider
    wish = {"kind": "429", "model": "gpt-4o*", "next": 2}
    assert http.post("/_control", json=wish).status_code == 200
    assert chat(http, "another").status_code == 200
    assert [chat(http).status_code for _ in range(3)] == [429, 429, 200]
    http.post("/_control", json={"kind": "500"})
    assert chat(http).status_code == 500
    http.post("/_control", json={"clear": True, "usual_tokens": 3})
    assert chat(http).json()["usage"]["completion_tokens"] == 3
    assert http.post("/_control", json={"kind": "unheard-of"}).status_code == 400


def test_it_wants_a_key_and_remembers_what_it_was_asked(provider: Any) -> None:
    made, http = provider
    headers = {"Authorization": ""}
    assert http.post("/v1/embeddings", json={"model": "m"}, headers=headers).status_code == 401
    chat(http)
    seen = http.get("/_control").json()["requests"][-1]
    assert seen["body"]["messages"] == SAY
    assert seen["endpoint"] == "chat"
    assert made.counters["requests"] > 0


def test_every_kind_is_chosen_by_the_name_of_a_model_too(provider: Any) -> None:
    made, _ = provider
    for kind in KINDS:
        assert made.behaviours.take(f"sandbox-{kind}").kind == kind
    assert made.behaviours.take("sandbox-unheard-of").kind == ""


def test_openais_client_understands_it(provider: Any) -> None:
    _, http = provider
    client = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="k", max_retries=0)
    assert client.chat.completions.create(model="m", messages=SAY).choices[0].message.content
    assert client.responses.create(model="m", input="x").output_text
    assert len(client.embeddings.create(model="m", input="x").data[0].embedding) == 3
    assert len(list(client.models.list())) > 5
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody-knows-it")
