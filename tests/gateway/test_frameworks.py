"""LangChain and the OpenAI Agents SDK on wrapped clients, as docs/frameworks.md prints it.

Both are heavy and not installed with the project; `make test-frameworks` brings them. How they ask
the client (raw answers, streams as contexts, copies with options) is tested in test_wrap.py, too.
"""

import asyncio
import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from guthaben import AsyncGuthaben, InsufficientCredit
from guthaben.openai import wrap
from guthaben.sandbox import ai_answers
from tests.gateway.served import MODEL, Served
from tests.programs import ROOT

HOW = "make test-frameworks installs it and runs this"
PAGE = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
SHAPE = {"title": "Answer", "description": "An answer.", "type": "object",
         "properties": {"text": {"type": "string"}}}  # fmt: skip


class Answer(BaseModel):
    """The form of an answer."""

    text: str


BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def page(served: Served, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's first example leaves, with LangChain's model in it."""
    pytest.importorskip("langchain_openai", reason=HOW)
    served.give(10**9, "prac_7")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{served.upstream.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    place: dict[str, Any] = {}
    said = run(BLOCKS[0], served.database, place)
    assert said.count("Credit is what a practice has bought") == 2
    return place


def run(block: str, database: Path, place: dict[str, Any]) -> str:
    code = block.replace("sqlite:///credit.db", f"sqlite:///{database}")
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "frameworks.md", "exec"), place)
    return said.getvalue()


def test_langchain_pays_for_what_it_asks(served: Served, page: dict[str, Any]) -> None:
    streamed, asked = served.credit.calls("prac_7")
    for call in (asked, streamed):
        assert (call.status, call.operation_type) == ("settled", "chat")
        assert call.output_tokens == ai_answers.USUAL_TOKENS
        assert 0 < call.cost_nano_usd < call.reserved_nano_usd
    limits = {seen["body"]["max_completion_tokens"] for seen in served.provider.seen}
    assert limits == {4_096}
    answers = page["model"].batch(["One.", "Two.", "Three."])
    assert len(answers) == 3
    assert len(served.credit.calls("prac_7")) == 5

    async def work() -> int:
        await page["model"].ainvoke("Four.")
        return len([chunk async for chunk in page["model"].astream("Five.")])

    assert asyncio.run(work()) > ai_answers.USUAL_TOKENS
    assert served.credit.balance("prac_7").held_nano_usd == 0
    assert [call.status for call in served.credit.calls("prac_7")] == ["settled"] * 7
    page["credit"].close()


def test_langchain_without_credit_asks_nobody(served: Served, page: dict[str, Any]) -> None:
    before = served.provider.counters["requests"]
    poor = wrap(openai.OpenAI(), page["credit"], "prac_poor")
    model = page["model"].model_copy(update={"client": poor.chat.completions, "root_client": poor})
    for ask in (model.invoke, lambda text: list(model.stream(text)), lambda x: model.batch([x, x])):
        with pytest.raises(InsufficientCredit):
            ask("Say hello.")
    assert served.provider.counters["requests"] == before
    page["credit"].close()


def test_langchain_pays_for_answers_in_a_form(
    served: Served, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai_answers, "words", lambda _count: ['{"text": "Hello"}'])
    for shape in (SHAPE, Answer):
        said = page["model"].with_structured_output(shape).invoke("A")
        assert (said if isinstance(said, dict) else said.model_dump()) == {"text": "Hello"}
    with pytest.raises(AttributeError, match="not metered"):
        list(page["model"].with_structured_output(Answer).stream("A"))
    page["model"].with_structured_output(SHAPE, method="function_calling").invoke("A")
    assert served.provider.seen[-1]["body"]["tools"]
    calls = served.credit.calls("prac_7")
    assert [call.status for call in calls] == ["settled"] * 5
    page["credit"].close()


@pytest.mark.parametrize("model", ["OpenAIResponsesModel", "OpenAIChatCompletionsModel"])
def test_agents_pay_for_what_they_ask(served: Served, page: dict[str, Any], model: str) -> None:
    agents: Any = pytest.importorskip("agents", reason=HOW)
    assert "Credit is what a practice has bought" in run(BLOCKS[1], served.database, page)
    assert served.credit.calls("prac_7")[0].operation_type == "responses"

    async def work() -> None:
        # A client belongs to one event loop; the example's has ended.
        paid = wrap(openai.AsyncOpenAI(), AsyncGuthaben(page["credit"].core), "prac_7")
        agent = agents.Agent(name="A", model=getattr(agents, model)(MODEL, paid))
        stream = agents.Runner.run_streamed(agent, "Say hello.", run_config=page["config"])
        async for _ in stream.stream_events():
            pass
        assert stream.final_output
        poor = wrap(openai.AsyncOpenAI(), AsyncGuthaben(page["credit"].core), "prac_poor")
        refused = agents.Agent(name="A", model=getattr(agents, model)(MODEL, poor))
        with pytest.raises(InsufficientCredit):
            await agents.Runner.run(refused, "Say hello.", run_config=page["config"])

    asyncio.run(work())
    calls = served.credit.calls("prac_7")
    assert [call.status for call in calls] == ["settled"] * 4
    assert calls[0].output_tokens == ai_answers.USUAL_TOKENS
    assert served.credit.calls("prac_poor") == []
    page["credit"].close()
