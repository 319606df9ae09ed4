"""Owns the sandbox's AI provider: OpenAI's endpoints over real HTTP, and a control route.

It understands nothing, charges nobody and keeps what it was asked in memory, for tests to look at.
The key is not checked beyond being there. See `ai_behaviour` for how it misbehaves.
"""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from guthaben.sandbox import ai_answers as answers
from guthaben.sandbox import ai_streams as streams
from guthaben.sandbox.ai_behaviour import ERRORS, Behaviour, Behaviours, lied
from guthaben.sandbox.routes import RAW_SEND, drop_connection

MODELS: Final = [
    "gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "whisper-1", "gpt-4o-transcribe", "tts-1",
    "gpt-4o-mini-tts", "gpt-image-1", "dall-e-3",
]  # fmt: skip
_KEPT: Final = 200
_TRANSCRIPT: Final = "The patient feels better."
_FOREVER_S: Final = 3_600


class Provider:
    """The endpoints and what they have seen."""

    def __init__(self) -> None:
        self.behaviours = Behaviours()
        self.usual_tokens = answers.USUAL_TOKENS
        self.seen: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.counters = dict.fromkeys(("requests", "streams", "streams_cut", "open_streams"), 0)
        self._numbers = itertools.count(1)

    async def serve(self, request: Request) -> Response:
        """Answer one of OpenAI's endpoints."""
        if not (request.headers.get("authorization") or request.headers.get("api-key")):
            return self._error("401")
        body, files = await _read(request)
        name = _endpoint(request)
        self._note(request, name, body, files)
        behaviour = self.behaviours.take(str(body.get("model", "")))
        if behaviour.kind in ERRORS:
            return self._error(behaviour.kind)
        if behaviour.kind == "drop":
            await drop_connection(request)
        if behaviour.kind == "hang":
            await asyncio.sleep(_FOREVER_S)
        if behaviour.kind == "slow":
            await asyncio.sleep(behaviour.delay_ms / 1000)
        answer: Response = getattr(self, f"_{name}")(body, files, behaviour)
        answer.headers.update(_headers(next(self._numbers)))
        return answer

    # ---- endpoints

    def _chat(self, body: dict[str, Any], _files: object, behaviour: Behaviour) -> Response:
        names = ("max_tokens", "max_completion_tokens")
        length, reason = answers.wanted(body, *names, usual=self.usual_tokens)
        usage = lied(answers.chat_usage(answers.tokens_of(body["messages"]), length), behaviour)
        number, model = next(self._numbers), body["model"]
        if body.get("stream"):
            asked = (body.get("stream_options") or {}).get("include_usage")
            told = usage if asked else ""
            return self._stream(streams.chat(number, model, length, reason, told), behaviour)
        text = "".join(answers.words(length))
        return JSONResponse(answers.chat(number, model, text, reason, usage))

    def _responses(self, body: dict[str, Any], _files: object, behaviour: Behaviour) -> Response:
        length, reason = answers.wanted(body, "max_output_tokens", usual=self.usual_tokens)
        taken = answers.tokens_of(body.get("input"))
        usage = lied(answers.responses_usage(taken, length), behaviour)
        number, model = next(self._numbers), body["model"]
        status = "incomplete" if reason == "length" else "completed"
        if body.get("stream"):
            return self._stream(streams.responses(number, model, length, status, usage), behaviour)
        text = "".join(answers.words(length))
        return JSONResponse(answers.response(number, model, text, status, usage))

    def _embeddings(self, body: dict[str, Any], _files: object, behaviour: Behaviour) -> Response:
        tokens = answers.tokens_of(body.get("input"))
        usage = lied({"prompt_tokens": tokens, "total_tokens": tokens}, behaviour)
        encoded = body.get("encoding_format") == "base64"
        found = answers.embeddings(body["model"], body.get("input"), usage, encoded=encoded)
        return JSONResponse(found)

    def _transcriptions(
        self, body: dict[str, Any], files: dict[str, bytes], behaviour: Behaviour
    ) -> Response:
        heard_us = answers.heard_us(files.get("file", b""))
        if body.get("response_format") in ("text", "srt", "vtt"):
            return Response(_TRANSCRIPT, media_type="text/plain")
        if str(body.get("model")).startswith("whisper"):
            usage = {"type": "duration", "seconds": -(-heard_us // 1_000_000)}
        else:
            heard, said = heard_us // 100_000, answers.tokens_of(_TRANSCRIPT)
            details = {"text_tokens": 0, "audio_tokens": heard}
            usage = {
                "type": "tokens", "input_tokens": heard, "input_token_details": details,
                "output_tokens": said, "total_tokens": heard + said,
            }  # fmt: skip
        told = lied(usage, behaviour)
        if body.get("stream") == "true":
            return self._stream(streams.transcript(_TRANSCRIPT, told), behaviour)
        return JSONResponse({"text": _TRANSCRIPT, **({"usage": told} if told else {})})

    def _speech(self, body: dict[str, Any], _files: object, _behaviour: Behaviour) -> Response:
        seconds = max(1, len(str(body.get("input", ""))) // 15)
        return Response(answers.sound(seconds), media_type="audio/wav")

    def _images(self, body: dict[str, Any], _files: object, behaviour: Behaviour) -> Response:
        count = int(body.get("n") or 1)
        usage = None
        if str(body.get("model")).startswith("gpt-image"):
            taken = answers.tokens_of(body.get("prompt"))
            usage = lied(answers.responses_usage(taken, 272 * count), behaviour)
        return JSONResponse(answers.images(count, usage))

    async def models(self, request: Request) -> Response:
        """List the models, or describe one."""
        name = request.path_params.get("model")
        if name is None:
            return JSONResponse(answers.models(MODELS))
        if name not in MODELS:
            return JSONResponse(
                answers.error(404, "invalid_request_error", "model_not_found", "No such model."),
                404,
            )
        return JSONResponse(answers.model(name))

    # ---- control

    async def control(self, request: Request) -> Response:
        """Set a behaviour or the usual length of answers, or forget everything that was set."""
        given = await request.json()
        if "usual_tokens" in given:
            self.usual_tokens = int(given["usual_tokens"])
        if given.get("clear"):
            self.behaviours.clear()
        if "kind" in given:
            try:
                self.behaviours.set(given)
            except ValueError as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"ok": True})

    async def look(self, _request: Request) -> Response:
        """Show counters and the requests that were seen last."""
        return JSONResponse({"counters": self.counters, "requests": list(self.seen)})

    # ---- answering

    def _note(
        self, request: Request, name: str, body: dict[str, Any], files: dict[str, bytes]
    ) -> None:
        self.counters["requests"] += 1
        sizes = {field: len(file) for field, file in files.items()}
        headers = dict(request.headers)
        seen = {"endpoint": name, "path": request.url.path, "query": request.url.query}
        self.seen.append({**seen, "headers": headers, "body": body, "files": sizes})

    def _error(self, kind: str) -> Response:
        status = ERRORS[kind][0]
        headers = _headers(next(self._numbers))
        if status in (429, 503):
            headers["retry-after"] = "1"
        return JSONResponse(answers.error(*ERRORS[kind]), status, headers)

    def _stream(self, events: list[bytes], behaviour: Behaviour) -> Response:
        return Streamed(self, events, behaviour)


class Streamed(Response):
    """A stream of events, one by one, that notices when nobody listens any more."""

    media_type = "text/event-stream"

    def __init__(self, provider: Provider, events: list[bytes], behaviour: Behaviour) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._provider = provider
        self._events = events
        self._behaviour = behaviour

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the end, the cut or the listener's going."""
        counters = self._provider.counters
        counters["streams"] += 1
        counters["open_streams"] += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async for event in self._paced():
                if gone.done():
                    counters["streams_cut"] += 1
                    return
                await send({"type": "http.response.body", "body": event, "more_body": True})
            if self._behaviour.kind == "broken-stream":
                await drop_connection(Request(scope, receive, send))
                return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            counters["open_streams"] -= 1

    async def _paced(self) -> AsyncIterator[bytes]:
        kind = self._behaviour.kind
        broken = kind in ("broken-stream", "error-in-stream")
        for number, event in enumerate(self._events):
            if broken and number == self._behaviour.after_chunks:
                if kind == "error-in-stream":
                    yield streams.event(answers.error(*ERRORS["500"]))
                return
            if kind == "slow-stream" and number:
                await asyncio.sleep(self._behaviour.delay_ms / 1000)
            yield event


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class App(Starlette):
    """The application; remembers the server's own `send`, so that a connection can be cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        scope[RAW_SEND] = send
        await super().__call__(scope, receive, send)


def create_ai_app(provider: Provider | None = None) -> App:
    """Build the provider; OpenAI's paths below /v1, Azure's below /openai/deployments."""
    made = provider or Provider()
    paths = ("chat/completions", "responses", "embeddings", "audio/transcriptions")
    more = ("audio/translations", "audio/speech", "images/generations", "images/edits")
    served = [
        Route(f"{base}/{path}", made.serve, methods=["POST"])
        for path in (*paths, *more)
        for base in ("/v1", "/openai/deployments/{deployment}")
    ]
    return App(
        routes=[
            *served,
            Route("/v1/models", made.models),
            Route("/v1/models/{model:path}", made.models),
            Route("/_control", made.control, methods=["POST"]),
            Route("/_control", made.look, methods=["GET"]),
        ]
    )


def _endpoint(request: Request) -> str:
    path = request.url.path
    for part, name in (
        ("/chat/", "chat"),
        ("/images/", "images"),
        ("/audio/trans", "transcriptions"),
    ):
        if part in path:
            return name
    return path.rsplit("/", 1)[-1]


async def _read(request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a JSON body, or the fields and files of a form."""
    if not request.headers.get("content-type", "").startswith("multipart/"):
        body = json.loads(await request.body())
        return {"model": request.path_params.get("deployment", ""), **body}, {}
    async with request.form() as form:
        body = {name: value for name, value in form.items() if isinstance(value, str)}
        files = {
            name: await value.read() for name, value in form.items() if not isinstance(value, str)
        }
    return {"model": request.path_params.get("deployment", ""), **body}, files


def _headers(number: int) -> dict[str, str]:
    return {
        "x-request-id": f"req_sandbox{number}",
        "openai-processing-ms": "1",
        "openai-organization": "sandbox",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "set-cookie": "__cf_bm=secret-of-the-provider; path=/",
    }
