"""Owns what the AI provider answers: texts of so many words, their usage, sound and pictures.

Nothing is understood and nothing is random: a word is a token, and four bytes of a request are one.
"""

import base64
import json
import struct
import time
import wave
from io import BytesIO
from typing import Any, Final

WORDS: Final = "Credit is what a practice has bought and has not used yet, said the ledger.".split()
USUAL_TOKENS: Final = 20
_HEADER_BYTES: Final = 44


def tokens_of(value: object) -> int:
    """Count a request's tokens: four bytes are one."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def words(count: int) -> list[str]:
    """Make a text of so many tokens, one word each."""
    return [f"{WORDS[number % len(WORDS)]} " for number in range(count)]


def wanted(body: dict[str, Any], *names: str, usual: int) -> tuple[int, str]:
    """Tell how long an answer gets, and why it ends."""
    limits = [body[name] for name in names if isinstance(body.get(name), int) and body[name] > 0]
    most = min(limits, default=usual)
    return (most, "length") if most < usual else (usual, "stop")


def chat_usage(prompt: int, completion: int) -> dict[str, Any]:
    """Make the usage of a chat."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def responses_usage(taken: int, given: int) -> dict[str, Any]:
    """Make the usage of a response."""
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + given,
    }


def chat(number: int, model: str, text: str, reason: str, usage: object) -> dict[str, Any]:
    """Make a chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    answer = {
        "id": f"chatcmpl-sandbox{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "service_tier": "default",
    }
    return answer if usage is None else {**answer, "usage": usage}


def chat_chunk(
    number: int, model: str, delta: dict[str, Any] | None, reason: str | None, usage: object
) -> dict[str, Any]:
    """Make one piece of a streamed chat; `usage` is "" where none was asked for."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    chunk = {
        "id": f"chatcmpl-sandbox{number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "choices": choices,
    }
    return chunk if usage == "" else {**chunk, "usage": usage}


def response(number: int, model: str, text: str, status: str, usage: object) -> dict[str, Any]:
    """Make a response of the responses endpoint."""
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {
        "id": f"msg_sandbox{number}", "type": "message", "role": "assistant",
        "status": "completed", "content": [part],
    }  # fmt: skip
    return {
        "id": f"resp_sandbox{number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": model,
        "output": [item] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "usage": usage,
    }


def embeddings(model: str, given: object, usage: object, *, encoded: bool) -> dict[str, Any]:
    """Make embeddings: short vectors, encoded as the SDK asks for them."""
    items = (
        given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    )
    data = []
    for number, item in enumerate(items):
        vector = [(tokens_of(item) % 7) / 7, 0.5, -0.5]
        packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append(
            {"object": "embedding", "index": number, "embedding": packed if encoded else vector}
        )
    return {"object": "list", "data": data, "model": model, "usage": usage}


def sound(seconds: int = 1, rate: int = 8_000) -> bytes:
    """Make a silent recording of so many seconds."""
    file = BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(bytes(2 * rate * seconds))
    return file.getvalue()


def heard_us(recording: bytes) -> int:
    """Tell how long a wav is; anything else counts as 8 kB a second."""
    try:
        with wave.open(BytesIO(recording)) as read:
            frames: int = read.getnframes() * 1_000_000 // read.getframerate()
            return frames
    except (wave.Error, EOFError, ZeroDivisionError):
        return max(0, len(recording) - _HEADER_BYTES) * 125


def images(count: int, usage: object) -> dict[str, Any]:
    """Make pictures: one grey point each."""
    point = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    answer = {"created": int(time.time()), "data": [{"b64_json": point}] * count}
    return answer if usage is None else {**answer, "usage": usage}


def models(names: list[str]) -> dict[str, Any]:
    """List models."""
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    """Describe a model."""
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "sandbox"}


def error(status: int, kind: str, code: str, message: str) -> dict[str, Any]:
    """Make an error in OpenAI's shape."""
    del status
    return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}
