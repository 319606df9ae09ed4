"""Streams of events: however they are cut on the wire, what is passed on and what is noted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.sandbox import ai_answers, ai_streams
from guthaben.services.ai_streams import Seen
from guthaben.web.gateway.streams import Splitter, Watcher, data_of

USAGE = ai_answers.chat_usage(11, 3)


def stream(*, usage: Any = USAGE) -> list[bytes]:
    return ai_streams.chat(1, "m", 3, "stop", usage)


def passed(events: list[bytes], *, hide: bool) -> tuple[Watcher, list[bytes]]:
    watcher = Watcher(None, hide_usage=hide)
    return watcher, [out for event in events if (out := watcher.look(event))]


@given(st.lists(st.integers(1, 400), max_size=30), st.booleans())
def test_events_are_the_same_however_the_wire_cuts_them(cuts: list[int], crlf: bool) -> None:
    events = stream()
    if crlf:
        events = [event.replace(b"\n", b"\r\n") for event in events]
    wire, found, splitter = b"".join(events), [], Splitter()
    for cut in [*cuts, len(wire)]:
        found += list(splitter.feed(wire[:cut]))
        wire = wire[cut:]
    assert found == events
    assert splitter.rest() == b""


def test_an_event_without_an_end_does_not_fill_the_memory() -> None:
    splitter = Splitter()
    for _ in range(64):
        assert not list(splitter.feed(b"x" * 1024 * 1024))
    with pytest.raises(ValueError):
        list(splitter.feed(b"x"))


def test_what_was_asked_for_passes_unchanged() -> None:
    watcher, out = passed(stream(), hide=False)
    assert out == stream()
    assert watcher.done
    assert watcher.said["usage"] == USAGE  # type: ignore[index]
    assert watcher.seen.tokens == 4  # "Credit is what " has 15 bytes


def test_what_nobody_asked_for_is_hidden_and_nothing_else_changes() -> None:
    watcher, out = passed(stream(), hide=True)
    assert watcher.said["usage"] == USAGE  # type: ignore[index]
    assert len(out) == len(stream()) - 1
    assert not [event for event in out if b'"usage"' in event]
    plain = [json.loads(data_of(event)) for event in out[:-1]]
    whole = [json.loads(data_of(event)) for event in stream()[:-2]]
    for body in whole:
        body.pop("usage")
    for body in (*plain, *whole):
        body.pop("created")
    assert plain == whole
    assert out[-1] == b"data: [DONE]\n\n"


def test_usage_beside_an_answer_is_cut_out_and_text_about_it_stays() -> None:
    text = 'say ,"usage":null and \\"usage\\":5'
    body = {"choices": [{"delta": {"content": text}}], "usage": {"prompt_tokens": 1}}
    watcher, (out,) = passed([ai_streams.event(body, "named")], hide=True)
    assert out.startswith(b"event: named\n")
    told = json.loads(data_of(out))
    assert told == {"choices": body["choices"]}
    assert watcher.said == body
    untouched = {"choices": [{"delta": {"content": text}}], "usage": None}
    _, (out,) = passed([ai_streams.event(untouched)], hide=True)
    assert json.loads(data_of(out))["choices"][0]["delta"]["content"] == text


def test_an_event_without_choices_that_tells_no_usage_passes() -> None:
    filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "usage": None}
    _, (out,) = passed([ai_streams.event(filtered)], hide=True)
    assert json.loads(data_of(out))["prompt_filter_results"]


@pytest.mark.parametrize(
    "event", [b": a comment\n\n", b"data: {broken\n\n", b"data: [1,2]\n\n", b"retry: 5\n\n",
              b"data: " + b"[" * 9_000 + b"\n\n", b"data: \xff\n\n"],
)  # fmt: skip
def test_what_is_no_event_of_ours_passes(event: bytes) -> None:
    watcher, out = passed([event], hide=True)
    assert out == [event]
    assert watcher.said is None


def test_the_end_of_a_response_tells_its_usage_or_its_failure() -> None:
    events = ai_streams.responses(1, "m", 2, "completed", ai_answers.responses_usage(5, 2))
    watcher, _ = passed(events, hide=False)
    assert watcher.done
    assert not watcher.failed
    assert watcher.said["usage"]["output_tokens"] == 2  # type: ignore[index]
    failed = ai_streams.event({"type": "response.failed", "response": {"usage": None}})
    watcher, _ = passed([failed], hide=False)
    assert watcher.failed
    assert watcher.said is None


@given(st.lists(st.text(max_size=2_000), max_size=20))
def test_seen_counts_by_a_tokenizer_or_by_bytes_and_pieces(texts: list[str]) -> None:
    exact, rough = Seen(len), Seen(None)
    for text in texts:
        exact.add(text)
        rough.add(text)
    assert exact.tokens == len("".join(texts))
    size = len("".join(texts).encode("utf-8", "surrogatepass"))
    assert rough.tokens == max(len([text for text in texts if text]), -(-size // 4))


def test_all_that_a_model_says_is_seen() -> None:
    delta = {"content": "a", "reasoning_content": "b", "refusal": "c",
             "tool_calls": [{"function": {"name": "d", "arguments": "{}"}}]}  # fmt: skip
    watcher, _ = passed([ai_streams.event({"choices": [{"delta": delta}]})], hide=False)
    assert watcher.seen.tokens == 5
