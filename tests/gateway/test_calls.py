"""OpenAI's own client on the gateway: every endpoint, what it costs, and what is passed on."""

import io
from contextlib import closing
from typing import Any

import openai
import pytest

from guthaben.sandbox import ai_answers
from tests.gateway.served import MODEL, PRACTICE, PROVIDER_KEY, TOPUP, Served

SAY: Any = [{"role": "user", "content": "Say hello."}]


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model=more.pop("model", MODEL), messages=SAY, **more)


def test_a_chat_costs_exactly_what_its_usage_says(served: Served) -> None:
    answer = chat(served.client(), max_tokens=12)
    assert answer.usage.completion_tokens == 12
    call = served.last()
    assert call.status == "settled"
    assert call.cost_nano_usd == answer.usage.prompt_tokens * 150 + 12 * 600
    assert (call.model, call.operation_type) == (MODEL, "chat")
    assert (call.input_tokens, call.output_tokens) == (answer.usage.prompt_tokens, 12)
    assert served.balance().available_nano_usd == 1_000_000_000 - call.cost_nano_usd
    assert served.credit.verify(PRACTICE).ok


def test_a_call_records_its_price_and_its_key(served: Served) -> None:
    import sqlite3

    key = served.key()
    chat(served.client(key))
    with closing(sqlite3.connect(served.database)) as con:
        (row,) = con.execute("SELECT price_version, api_key_id FROM credit_call").fetchall()
    assert row[0].startswith(served.credit.core.prices.book().version)
    assert row[0].endswith("/sandbox/gpt-4o-mini")
    assert key.startswith(row[1])


def test_a_stream_passes_word_by_word_and_hides_the_usage(served: Served) -> None:
    chunks = list(chat(served.client(), stream=True, max_tokens=9))
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    words = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert words == "".join(ai_answers.words(9))
    call = served.settled()
    assert call.output_tokens == 9
    assert served.provider.seen[-1]["body"]["stream_options"] == {"include_usage": True}


def test_a_stream_shows_the_usage_to_who_asks(served: Served) -> None:
    options = {"include_usage": True}
    *_, last = chat(served.client(), stream=True, max_tokens=9, stream_options=options)
    assert last.choices == []
    assert last.usage.completion_tokens == 9
    call = served.settled()
    assert call.cost_nano_usd == last.usage.prompt_tokens * 150 + 9 * 600


def test_a_raw_stream_ends_as_openai_ends_it(served: Served) -> None:
    body = {"model": MODEL, "messages": SAY, "stream": True}
    with served.http.stream("POST", "/chat/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert not [line for line in lines if "usage" in line]


def test_responses_plain_and_streamed(served: Served) -> None:
    client: Any = served.client()
    answer = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16)
    assert answer.usage.output_tokens == 16
    assert served.last().output_tokens == 16
    events = list(client.responses.create(model=MODEL, input="Say hello.", stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == ai_answers.USUAL_TOKENS
    assert served.settled().output_tokens == ai_answers.USUAL_TOKENS
    assert served.provider.seen[-1]["body"]["store"] is False


def test_embeddings(served: Served) -> None:
    answer = served.client().embeddings.create(model="text-embedding-3-small", input=["a b", "c"])
    assert len(answer.data) == 2
    assert served.last().cost_nano_usd == answer.usage.total_tokens * 20


def recording(seconds: int = 30) -> tuple[str, io.BytesIO]:
    return "said.wav", io.BytesIO(ai_answers.sound(seconds))


def test_a_transcription_is_charged_by_time(served: Served) -> None:
    heard = served.client().audio.transcriptions.create(model="whisper-1", file=recording())
    assert heard.text
    call = served.last()
    assert call.cost_nano_usd == 30 * 100_000
    assert call.audio_seconds == 30
    assert served.provider.seen[-1]["files"] == {"file": len(ai_answers.sound(30))}


def test_a_transcription_as_text_is_charged_by_our_own_measure(served: Served) -> None:
    client = served.client()
    create: Any = client.audio.transcriptions.create
    create(model="whisper-1", file=recording(), response_format="text")
    assert served.last().cost_nano_usd == 3_000_275  # 30 s, and a header that counts as sound
    create(model="gpt-4o-transcribe", file=recording(), response_format="text")
    call = served.last()
    assert call.input_tokens == 300
    assert call.cost_nano_usd == 300 * 6_000 + call.output_tokens * 10_000


def test_a_transcription_by_tokens_and_its_stream(served: Served) -> None:
    create: Any = served.client().audio.transcriptions.create
    answer = create(model="gpt-4o-transcribe", file=recording())
    assert served.last().cost_nano_usd == 300 * 6_000 + answer.usage.output_tokens * 10_000
    events = list(create(model="gpt-4o-transcribe", file=recording(), stream=True))
    assert events[-1].type == "transcript.text.done"
    assert served.settled().input_tokens == 300


def test_what_is_no_recording_is_refused_before_it_costs_anything(served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        served.client().audio.transcriptions.create(
            model="whisper-1", file=("said.wav", io.BytesIO(b"no sound at all" * 9))
        )
    assert refused.value.code == "unreadable_audio"
    assert served.statuses() == []


def test_speech_by_characters_and_by_its_length(served: Served) -> None:
    client = served.client()
    said = client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 150)
    assert said.content[:4] == b"RIFF"
    assert served.last().cost_nano_usd == 150 * 15_000
    client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="x" * 150)
    call = served.last()
    assert call.output_tokens == 10 * 34 + 1  # a header that counts as sound
    assert call.cost_nano_usd < call.reserved_nano_usd


def test_images_by_tokens_and_by_piece(served: Served) -> None:
    client = served.client()
    client.images.generate(model="gpt-image-1", prompt="A point.", size="1024x1024")
    assert served.last().output_tokens == 272
    client.images.generate(model="dall-e-3", prompt="A point.", n=2)
    assert served.last().cost_nano_usd == 2 * 40_000_000


def test_translations_and_edited_images(served: Served) -> None:
    client = served.client()
    heard = client.audio.translations.create(model="whisper-1", file=recording(7))
    assert heard.text
    assert served.last().cost_nano_usd == 7 * 100_000
    served.give(10**10)  # without a size, the largest picture is reserved for
    picture = ("point.png", io.BytesIO(b"\x89PNG\r\n\x1a\n"), "image/png")
    client.images.edit(model="gpt-image-1", image=picture, prompt="A point.", n=2)
    call = served.last()
    assert (call.operation_type, call.output_tokens) == ("image_edits", 2 * 272)
    # One picture was sent along and two were asked for: both are in the reservation.
    assert call.reserved_nano_usd > 16_400 * 10_000 + 2 * 272 * 40_000
    assert served.provider.seen[-1]["files"] == {"image": 8}


def test_models_are_listed_if_they_have_a_price(served: Served) -> None:
    client = served.client()
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed
    assert "gpt-4o" not in listed
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_without_a_limit_the_answer_is_clamped_to_what_the_credit_affords(serve: Any) -> None:
    served = serve()
    served.give(100_000)
    chat(served.client())
    sent = served.provider.seen[-1]["body"]["max_completion_tokens"]
    assert 16 <= sent < 4096
    call = served.last()
    assert call.reserved_nano_usd <= 100_000
    assert call.reserved_nano_usd > 100_000 - 600
    client: Any = served.client()
    client.responses.create(model=MODEL, input="Say hello.")
    assert 16 <= served.provider.seen[-1]["body"]["max_output_tokens"] < sent
    list(chat(client, stream=True))
    assert 16 <= served.provider.seen[-1]["body"]["max_completion_tokens"] < sent
    with pytest.raises(openai.APIStatusError) as refused:
        chat(served.client(), max_tokens=4_000)
    assert refused.value.status_code == 402


def test_a_refusal_is_a_402_with_the_link_in_the_users_language(serve: Any) -> None:
    served = serve()
    said = {}
    for language in ("de-CH,de;q=0.9", "fr", "it", "en", "rm, it;q=0.4"):
        client = served.client(default_headers={"Accept-Language": language})
        with pytest.raises(openai.APIStatusError) as refused:
            chat(client)
        error: Any = refused.value
        assert error.status_code == 402
        assert (error.code, error.type) == ("insufficient_credit", "insufficient_quota")
        assert error.body["available_usd"] == "0.00"
        assert error.body["topup_url"] == TOPUP
        assert error.response.headers["x-should-retry"] == "false"
        said[language] = error.body["message"]
        assert TOPUP in said[language]
    assert "Guthaben" in said["de-CH,de;q=0.9"]
    assert "crédit" in said["fr"]
    assert said["rm, it;q=0.4"] == said["it"]
    assert len(set(said.values())) == 4
    assert served.provider.counters["requests"] == 0


def test_headers_of_the_answer_pass_and_the_rest_does_not(served: Served) -> None:
    raw = served.client().chat.completions.with_raw_response.create(model=MODEL, messages=SAY)
    assert raw.headers["x-request-id"].startswith("req_sandbox")
    assert raw.headers["x-ratelimit-remaining-requests"] == "9999"
    assert "set-cookie" not in raw.headers
    assert "openai-organization" not in raw.headers
    assert raw.headers["x-guthaben-call"] == served.last().id
    body = {"model": MODEL, "messages": SAY, "stream": True}
    with served.http.stream("POST", "/chat/completions", json=body) as stream:
        assert stream.headers["x-request-id"].startswith("req_sandbox")
        assert stream.headers["x-ratelimit-remaining-requests"] == "9999"
        assert stream.headers["x-guthaben-call"]


def test_the_callers_key_and_cookies_do_not_reach_the_provider(served: Served) -> None:
    key = served.key()
    headers = {"Authorization": f"Bearer {key}", "Cookie": "a=b", "X-Device-Id": "d-3",
               "OpenAI-Beta": "x=1", "OpenAI-Organization": "org-foreign"}  # fmt: skip
    body = {"model": MODEL, "messages": SAY}
    assert served.http.post("/chat/completions", json=body, headers=headers).status_code == 200
    seen = served.provider.seen[-1]["headers"]
    assert seen["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert seen["openai-beta"] == "x=1"
    assert not {"cookie", "x-device-id", "openai-organization"} & seen.keys()
    assert key not in str(seen)
    assert served.last().device_id == "d-3"
    assert served.provider.seen[-1]["body"]["service_tier"] == "default"


def test_azure_is_asked_in_its_own_way(serve: Any) -> None:
    served = serve(
        upstream={"kind": "azure", "auth": "api-key", "api_version": "2024-10-21",
                  "models": {MODEL: "our-mini"}, "max_tokens_field": "max_tokens",
                  "service_tier": False}
    )  # fmt: skip
    served.give()
    client = served.client()
    chat(client)
    seen = served.provider.seen[-1]
    assert seen["path"].endswith("/openai/deployments/our-mini/chat/completions")
    assert seen["query"] == "api-version=2024-10-21"
    assert seen["headers"]["api-key"] == PROVIDER_KEY
    assert "authorization" not in seen["headers"]
    assert seen["body"]["max_tokens"] == 4096
    assert "service_tier" not in seen["body"]


def test_a_used_key_makes_no_second_call(served: Served) -> None:
    headers = {"Idempotency-Key": "one"}
    body = {"model": MODEL, "messages": SAY}
    assert served.http.post("/chat/completions", json=body, headers=headers).status_code == 200
    again = served.http.post("/chat/completions", json=body, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "call_finished")
    assert served.provider.counters["requests"] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": SAY}, "invalid_input"),
        ({"model": "nobody-knows-it", "messages": SAY}, "unknown_model"),
        ({"model": MODEL, "messages": SAY, "max_tokens": -1}, "invalid_input"),
        ({"model": MODEL, "messages": SAY, "stream": "yes"}, "invalid_input"),
        ({"model": MODEL, "messages": SAY, "n": 1000}, "invalid_input"),
        ({"model": MODEL, "messages": SAY, "service_tier": "priority"}, "unpriced_usage"),
        ({"model": MODEL, "messages": [{"role": "user", "content": [
            {"type": "file", "file": {"file_id": "file-foreign"}}]}]}, "unsupported"),
    ],
)  # fmt: skip
def test_what_can_not_be_bounded_is_refused(served: Served, body: Any, code: str) -> None:
    answer = served.http.post("/chat/completions", json=body)
    assert answer.json()["error"]["code"] == code
    assert answer.status_code == (404 if code == "unknown_model" else 400)
    if code in ("unknown_model", "unpriced_usage"):
        assert body["model"] in answer.json()["error"]["message"]
    assert served.provider.counters["requests"] == 0
    assert served.balance().held_nano_usd == 0


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "prompt", "background"])
def test_what_lies_in_the_shared_account_is_out_of_reach(served: Served, field: str) -> None:
    body = {"model": MODEL, "input": "Hello.", field: "resp_foreign"}
    answer = served.http.post("/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
    assert served.provider.counters["requests"] == 0


def test_a_long_request_passes_whole(served: Served) -> None:
    text = "Zürich " * 100_000
    say = [{"role": "user", "content": text}]
    body = {"model": MODEL, "messages": say, "max_tokens": 5}
    assert served.http.post("/chat/completions", json=body, timeout=20).status_code == 200
    assert served.provider.seen[-1]["body"]["messages"] == say
    assert served.last().reserved_nano_usd >= len(text.encode()) * 150


def test_the_language_of_the_practice_counts_where_none_is_asked_for(serve: Any) -> None:
    served = serve()
    key = served.key(PRACTICE, "gate", "credit")
    headers = {"Authorization": f"Bearer {key}"}
    root = served.gateway.url
    put = served.http.put(f"{root}/v1/language", json={"language": "it"}, headers=headers)
    assert put.status_code == 200
    body = {"model": MODEL, "messages": SAY}
    said = served.http.post("/chat/completions", json=body, headers=headers)
    assert said.json()["error"]["message"].startswith("Il credito non basta")
    assert said.headers["content-language"] == "it"


def test_what_is_not_served_is_told_in_openais_shape(served: Served) -> None:
    client = served.client()
    with pytest.raises(openai.NotFoundError) as missing:
        client.files.list()
    assert missing.value.code == "not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("a\nb")
    assert served.http.get("/chat/completions").json()["error"]["code"] == "method_not_allowed"


def test_only_a_key_of_the_gate_gets_in(served: Served) -> None:
    body = {"model": MODEL, "messages": SAY}
    for key, status in ((served.key(PRACTICE, "credit"), 403), ("gh_test_wrong_key", 401)):
        headers = {"Authorization": f"Bearer {key}"}
        answer = served.http.post("/chat/completions", json=body, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in ("scope_missing", "unauthenticated")
    assert served.provider.counters["requests"] == 0
