"""Providers, and what stands between, that answer as no provider should: each call ends once."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import pytest

from tests.gateway.served import MODEL, Served

SAY = [{"role": "user", "content": "Say hello."}]
BODY = {"model": MODEL, "messages": SAY, "max_tokens": 20}
USAGE = {"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20}
ANSWER = json.dumps(
    {"id": "c", "object": "chat.completion", "choices": [], "usage": USAGE}
).encode()
COST = 11 * 150 + 9 * 600


class Wire:
    """Reads whole requests and answers each connection's with the next bytes of a script."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.requests = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        read = b""
        while b"\r\n\r\n" not in read:
            read += connection.recv(65_536)
        head, _, body = read.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *([0-9]+)", head)
        length = int(found[1]) if found else 0
        while len(body) < length:
            body += connection.recv(65_536)
        self.requests += 1
        connection.sendall(self.script.pop(0))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def ask(serve: Any, wire: Wire) -> Callable[..., tuple[httpx.Response, Any]]:
    """Ask for a chat that is answered with these bytes; give the answer and its call."""
    served: Served = serve(upstream={"url": wire.url})
    served.give()

    def asked(*script: bytes) -> tuple[httpx.Response, Any]:
        wire.script = list(script)
        answer = served.http.post("/chat/completions", json=BODY)
        return answer, served.settled()

    return asked


def said(status: str, body: bytes, *headers: str, length: int = -1) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length < 0 else length}",
             "Connection: close", *headers]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"


def test_an_answer_that_breaks_off_is_charged_as_reserved(ask: Any) -> None:
    answer, call = ask(said("200 OK", ANSWER[:40], JSON, length=len(ANSWER)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
    assert call.status == "settled"
    assert call.cost_nano_usd == call.reserved_nano_usd > COST


@pytest.mark.parametrize("status", ["408 Slow", "409 Busy", "499 Gone", "502 Bad", "520 Odd"])
def test_what_nobody_knows_is_charged_as_reserved(ask: Any, status: str) -> None:
    answer, call = ask(said(status, b'{"error": {"message": "m"}}', JSON))
    assert answer.status_code == int(status[:3])
    assert call.cost_nano_usd == call.reserved_nano_usd


@pytest.mark.parametrize("status", ["404 None", "413 Large", "422 Odd", "529 Overloaded"])
def test_a_refusal_costs_nothing(ask: Any, status: str) -> None:
    answer, call = ask(said(status, b"<html>", "Content-Type: text/html", "Retry-After: 7"))
    assert (answer.status_code, answer.text) == (int(status[:3]), "<html>")
    assert answer.headers["retry-after"] == "7"
    assert (call.status, call.cost_nano_usd) == ("released", 0)


@pytest.mark.parametrize("status", ["401 No", "403 No"])
def test_that_we_are_not_let_in_is_no_business_of_the_caller(ask: Any, status: str) -> None:
    answer, call = ask(said(status, b'{"error": {"message": "our account is ..."}}', JSON))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")
    assert "account" not in answer.text
    assert (call.status, call.cost_nano_usd) == ("released", 0)


def test_nobody_is_sent_elsewhere_with_our_key(ask: Any, wire: Wire) -> None:
    answer, call = ask(said("307 There", b"", f"Location: {wire.url}/elsewhere"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")
    assert "location" not in answer.headers
    assert (call.status, wire.requests) == ("released", 1)


def test_an_answer_that_was_packed_unasked_is_unpacked(ask: Any) -> None:
    answer, call = ask(said("200 OK", gzip.compress(ANSWER), JSON, "Content-Encoding: gzip"))
    assert answer.json()["usage"] == USAGE
    assert call.cost_nano_usd == COST


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'{"usage": 5}'])
def test_an_answer_without_sense_passes_and_is_charged_as_reserved(ask: Any, body: bytes) -> None:
    answer, call = ask(said("200 OK", body, JSON))
    assert (answer.status_code, answer.content) == (200, body)
    assert call.cost_nano_usd == call.reserved_nano_usd


def test_a_stream_without_an_end_is_billed_by_what_was_seen(ask: Any) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hello"}}]}
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    answer, call = ask(said("200 OK", event, "Content-Type: text/event-stream"))
    assert answer.content.startswith(event)
    assert '"upstream_lost"' in answer.text
    assert 1 <= call.output_tokens <= 2
    assert 600 < call.cost_nano_usd < call.reserved_nano_usd


def test_junk_on_the_wire_is_an_unknown_outcome(ask: Any) -> None:
    answer, call = ask(b"SSH-2.0-OpenSSH_9.9\r\n")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
    assert call.cost_nano_usd == call.reserved_nano_usd


def test_a_connection_that_could_not_be_made_is_tried_once_more(
    ask: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing had left: so it is the same call, not a second one."""
    made, failures = aiohttp.ClientSession.request, [aiohttp.ConnectionTimeoutError()]

    def request(*args: Any, **given: Any) -> Any:
        if failures:
            raise failures.pop()
        return made(*args, **given)

    monkeypatch.setattr(aiohttp.ClientSession, "request", request)
    answer, call = ask(said("200 OK", ANSWER, JSON))
    assert (answer.status_code, call.cost_nano_usd, wire.requests) == (200, COST, 1)
    failures.extend([aiohttp.ConnectionTimeoutError(), aiohttp.ConnectionTimeoutError()])
    answer, call = ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert (call.status, call.cost_nano_usd, wire.requests) == ("released", 0, 1)
