"""An AI provider that answers at once and always the same: the floor beside which we measure."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvicorn

ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25}}'
)
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench","choices":'
    b'[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}\n\n'
)
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],'
    b'"usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25}}\n\n'
)
DONE = b"data: [DONE]\n\n"
HOLD_S = 15
_JSON = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
_EVENTS = [(b"content-type", b"text/event-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a constant; hold a stream open where the body says so."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if b'"stream":true' not in body:
        await send({"type": "http.response.start", "status": 200, "headers": _JSON})
        await send({"type": "http.response.body", "body": ANSWER})
        return
    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    if b"hold" in body:
        await asyncio.sleep(HOLD_S)
    for part in (CHUNK, USAGE, DONE):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve on the port that is named."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=2048)
    settings = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=300)
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
