"""Prompts, answers, recordings and keys reach no database, no log and no metric."""

import base64
import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from guthaben.errors import GuthabenError
from guthaben.openai import wrap
from guthaben.sandbox import ai_answers
from guthaben.web import logs
from tests.gateway.served import MODEL, PRACTICE, PROVIDER_KEY, Served

PROMPT = "canary-prompt-Zürich-77431"
SPOKEN = b"canary-spoken-77432-canary-spoken"
ANSWER = "canary-answer-77433"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Catch what the server would write, down to the last detail."""
    stream, root = io.StringIO(), logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure("DEBUG", stream)
    for name in ("asyncio", "aiohttp", "uvicorn"):
        logging.getLogger(name).setLevel("DEBUG")
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("guthaben", "asyncio", "aiohttp", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def every_path(served: Served, key: str) -> list[str]:
    """Send canaries through every endpoint, well and ill; return all that was answered."""
    http, said = served.http, []
    http.headers["Authorization"] = f"Bearer {key}"
    say = [{"role": "user", "content": PROMPT}]
    for kind in ("", "429", "500", "400", "401", "504", "drop", "broken-stream", "error-in-stream",
                 "lie-negative", "lie-missing", "lie-huge"):  # fmt: skip
        model = f"sandbox-{kind}" if kind else MODEL
        for stream in (False, True):
            body = {"model": model, "messages": say, "stream": stream, "max_tokens": 40}
            said.append(http.post("/chat/completions", json=body).text)
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/responses", {"model": MODEL, "input": PROMPT}),
        ("/embeddings", {"model": "text-embedding-3-small", "input": [PROMPT]}),
        ("/audio/speech", {"model": "tts-1", "input": PROMPT, "voice": "alloy"}),
        ("/images/generations", {"model": "dall-e-3", "prompt": PROMPT}),
        ("/chat/completions", {"model": PROMPT, "messages": say}),
        ("/chat/completions", {"model": MODEL, "messages": say, "max_tokens": PROMPT}),
        ("/chat/completions", {"model": MODEL, "messages": say, "user": PROMPT}),
        ("/responses", {"model": MODEL, "input": PROMPT, "previous_response_id": PROMPT}),
    ]
    said += [http.post(path, json=body).text for path, body in bodies]
    sound = ai_answers.sound(5) + SPOKEN
    for model in ("whisper-1", "gpt-4o-transcribe", PROMPT):
        form = {"model": model, "prompt": PROMPT}
        files = {"file": (f"{PROMPT}.wav", sound, "audio/wav")}
        for path in ("transcriptions", "translations"):
            said.append(http.post(f"/audio/{path}", data=form, files=files).text)
    picture = {"image": (f"{PROMPT}.png", b"\x89PNG" + SPOKEN, "image/png")}
    for model in ("gpt-image-1", PROMPT):
        edit = {"model": model, "prompt": PROMPT, "size": "1024x1024"}
        said.append(http.post("/images/edits", data=edit, files=picture).text)
    said.append(http.post("/chat/completions", content=PROMPT.encode()).text)
    return said


def left_nowhere(served: Served, log: io.StringIO, canaries: list[str]) -> None:
    """Look for canaries in the log and in every file, in whatever dress."""
    written = log.getvalue()
    kept = b"".join(path.read_bytes() for path in served.folder.iterdir() if path.is_file())
    for canary in canaries:
        assert canary not in written, canary
        plain = canary.encode()
        for needle in (plain, base64.b64encode(plain)[:-4], plain.hex().encode()):
            assert needle not in kept, canary


def test_what_passes_through_is_left_nowhere(
    served: Served, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai_answers, "WORDS", [ANSWER])
    key = served.key()
    said = every_path(served, key)
    assert len(said) == 41
    assert sum(ANSWER in text for text in said) > 8
    served.settled()
    metrics = served.http.get(f"{served.gateway.url}/metrics").text
    assert "guthaben_commands" in metrics
    canaries = [PROMPT, ANSWER, SPOKEN.decode(), key, key.rpartition("_")[2], PROVIDER_KEY]
    assert '"route": "/openai/v1/chat/completions"' in log.getvalue()
    assert not [canary for canary in canaries if canary in metrics]
    left_nowhere(served, log, canaries)
    assert not [text for text in said if PROVIDER_KEY in text or key in text]


def test_what_a_wrapped_client_asks_is_left_nowhere(
    served: Served, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai_answers, "WORDS", [ANSWER])
    bare = openai.OpenAI(base_url=f"{served.upstream.url}/v1", api_key=PROVIDER_KEY, max_retries=0)
    client, say = wrap(bare, served.credit, PRACTICE), [{"role": "user", "content": PROMPT}]
    logging.getLogger("openai").setLevel("WARNING")  # its own words are its own affair
    for kind in ("", "429", "504", "drop", "broken-stream", "error-in-stream", "lie-negative"):
        model = f"sandbox-{kind}" if kind else MODEL
        for stream in (False, True):
            with contextlib.suppress(openai.APIError, httpx.HTTPError):
                said = client.chat.completions.create(
                    model=model, messages=say, stream=stream, max_tokens=40
                )
                list(said)
    with contextlib.suppress(openai.APIError):
        client.chat.completions.with_raw_response.create(model=MODEL, messages=say, user=PROMPT)
    for wrong in ({"model": PROMPT}, {"model": MODEL, "max_tokens": PROMPT}, {"model": [PROMPT]}):
        with pytest.raises(GuthabenError):
            client.chat.completions.create(messages=say, **wrong)
    client.audio.transcriptions.create(
        model="whisper-1", file=(f"{PROMPT}.wav", ai_answers.sound(5) + SPOKEN), prompt=PROMPT
    )
    assert len(served.credit.calls(PRACTICE)) == 16
    served.settled()
    left_nowhere(served, log, [PROMPT, ANSWER, SPOKEN.decode(), PROVIDER_KEY])


def test_a_canary_in_a_fault_of_our_own_is_not_shown(
    served: Served, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guthaben.web.gateway import gateway

    def broken(*_args: Any) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(gateway, "_bound", broken)
    say = [{"role": "user", "content": PROMPT}]
    answer = served.http.post("/chat/completions", json={"model": MODEL, "messages": say})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "RuntimeError" in log.getvalue()
    assert PROMPT not in log.getvalue() + answer.text
