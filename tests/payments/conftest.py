"""A loopback server that answers as it is told, in place of Stripe; and the SDK's globals kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import stripe

from guthaben.payments.gateway import ChargeOrder
from guthaben.payments.stripe_gateway import StripeGateway, point_sdk_at


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    params: dict[str, str]


@dataclass
class FakeStripe:
    """What to answer next, and what was asked."""

    url: str = ""
    status: int = 200
    body: Any = None
    wait_s: float = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    drop: bool = False
    answers: list[tuple[int, Any]] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)

    def error(self, status: int, **error: Any) -> None:
        self.status, self.body = status, {"error": error}


def _handler(fake: FakeStripe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

        def _answer(self, sent: str) -> None:
            parts = urlsplit(self.path)
            params = {k: v[0] for k, v in parse_qs(sent or parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.seen.append(Request(self.command, parts.path, headers, params))
            fake.go_on.wait(fake.wait_s)
            if fake.drop:
                self.close_connection = True
                return
            status, body = fake.answers.pop(0) if fake.answers else (fake.status, fake.body)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Request-Id", "req_test")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def fake() -> Iterator[FakeStripe]:
    fake = FakeStripe()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    before = stripe.api_base
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    point_sdk_at(fake.url)
    try:
        yield fake
    finally:
        fake.go_on.set()
        stripe.api_base = before
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def gateway(fake: FakeStripe) -> StripeGateway:
    return StripeGateway("sk_test_local", api_base=fake.url, timeout_s=30)


MakeOrder = Callable[..., ChargeOrder]


@pytest.fixture
def order() -> MakeOrder:
    def make(**changes: Any) -> ChargeOrder:
        fields: dict[str, Any] = {
            "amount_rappen": 3000,
            "customer_id": "cus_1234567890abcdef",
            "payment_method_id": "pm_1234567890abcdef",
            "idempotency_key": "topup:42:1",
            "is_retry": False,
            "metadata": {"topup_id": "42"},
        }
        return ChargeOrder(**fields | changes)

    return make


def intent(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "object": "payment_intent",
        "id": "pi_1",
        "status": "succeeded",
        "amount": 3000,
        "amount_received": 3000,
        "currency": "chf",
        "customer": "cus_1",
        "payment_method": "pm_1",
        "livemode": False,
        "created": 1_700_000_000,
        "latest_charge": "ch_1",
        "metadata": {"topup_id": "42"},
    }
    return fields | changes
