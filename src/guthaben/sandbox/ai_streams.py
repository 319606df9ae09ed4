"""Owns the events of the AI provider's streams, in the order in which OpenAI sends them."""

import json
from typing import Any

from guthaben.sandbox import ai_answers as answers

DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any], name: str = "") -> bytes:
    """Put one event on the wire."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


def chat(number: int, model: str, length: int, reason: str, usage: object) -> list[bytes]:
    """Stream a chat, one word an event; `usage` is "" where none was asked for."""
    among = "" if usage == "" else None
    pieces: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    pieces += [({"content": word}, None) for word in answers.words(length)]
    pieces.append(({}, reason))
    found = [event(answers.chat_chunk(number, model, d, why, among)) for d, why in pieces]
    if usage not in ("", None):
        found.append(event(answers.chat_chunk(number, model, None, None, usage)))
    return [*found, DONE]


def responses(number: int, model: str, length: int, status: str, usage: object) -> list[bytes]:
    """Stream a response; its usage stands in the last event."""
    begun = answers.response(number, model, "", "in_progress", None)
    found = [event({"type": "response.created", "response": begun}, "response.created")]
    name = "response.output_text.delta"
    for order, word in enumerate(answers.words(length)):
        place = {"item_id": f"msg_sandbox{number}", "output_index": 0, "content_index": 0}
        body = {"type": name, "sequence_number": order + 1, **place, "delta": word}
        found.append(event({**body, "logprobs": []}, name))
    text = "".join(answers.words(length))
    whole = answers.response(number, model, text, status, usage)
    name = f"response.{status}"
    return [*found, event({"type": name, "sequence_number": length + 1, "response": whole}, name)]


def transcript(text: str, usage: object) -> list[bytes]:
    """Stream a transcript word by word."""
    name = "transcript.text.delta"
    found = [event({"type": name, "delta": f"{word} "}, name) for word in text.split()]
    name = "transcript.text.done"
    body = {"type": name, "text": text, **({"usage": usage} if usage else {})}
    return [*found, event(body, name)]
