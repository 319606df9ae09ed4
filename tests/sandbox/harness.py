"""A running sandbox and a receiver of its events, both on 127.0.0.1, for tests."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import stripe
import uvicorn

from guthaben.sandbox.app import create_app
from guthaben.sandbox.model import Model

SECRET = "whsec_test"
KEY = "sk_test_sandbox"


T = TypeVar("T")


def some(value: T | None) -> T:
    """Return what must be there."""
    assert value is not None
    return value


class Receiver:
    """Takes webhooks; answers 200, or first the statuses it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, str]] = []
        self.answers: list[int] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(body, self.headers["Stripe-Signature"])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/stripe/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def take(self, body: bytes, signature: str) -> int:
        with self._lock:
            self.seen.append((body, signature))
            return self.answers.pop(0) if self.answers else 200

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def verified(self) -> list[stripe.Event]:
        return [stripe.Webhook.construct_event(b, s, SECRET) for b, s in list(self.seen)]

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in list(self.seen)]


def wait_until(done: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


class Running:
    """A sandbox that listens."""

    def __init__(self, url: str, receiver: Receiver) -> None:
        self.url = url
        self.receiver = receiver
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"})

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        answer = self.http.request(method, f"/_control{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def forget(self) -> None:
        """Let everything that is under way arrive, and begin anew."""
        self.receiver.answers.clear()
        self.control("/faults", method="DELETE")
        self.control("/deliveries/resume")
        self.wait_idle()
        self.control("/reset")
        self.receiver.seen.clear()

    def look(self, path: str) -> Any:
        return self.control(path, method="GET")

    def charges(self, status: str = "succeeded") -> int:
        return int(self.look("/counters")["charges"][status])

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return list(self.look(f"/objects/{kind}")["data"])

    def wait_for(self, *types: str) -> list[str]:
        wait_until(lambda: all(self.receiver.types().count(t) >= 1 for t in types))
        return self.receiver.types()

    def wait_idle(self) -> None:
        wait_until(lambda: "pending" not in self.look("/counters")["deliveries"])


class Account:
    """What a sandbox that listens and a model in process have in common."""

    def __init__(self, behind: Running | Model) -> None:
        self.behind = behind

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        return self.behind.control(path, body, method)

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return self.behind.objects(kind)

    def types(self, pattern: str = "") -> list[str]:
        """Return the types of all events so far, in the order in which they happened."""
        return [e["type"] for e in self.objects("event") if e["type"].startswith(pattern)]

    def pass_s(self, seconds: int) -> None:
        self.control("/clock", {"seconds": seconds})

    def saved(self, card: str = "4242424242424242") -> tuple[str, str]:
        return saved_card(self, card)

    def paid(self, card: str = "4242424242424242", **more: Any) -> stripe.PaymentIntent:
        return charge(*self.saved(card), **more)


@contextmanager
def running(state: Path, receiver: Receiver, **options: Any) -> Iterator[Running]:
    settings = {"slow_ms": 400, "retry_base_ms": 20, "retry_cap_ms": 100} | options
    app = create_app(state, webhook_url=receiver.url, webhook_secret=SECRET, **settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_until(lambda: server.started)
    sandbox = Running(f"http://127.0.0.1:{listener.getsockname()[1]}", receiver)
    try:
        yield sandbox
    finally:
        sandbox.http.close()
        server.should_exit = True
        thread.join()
        listener.close()


def buy(**changes: Any) -> stripe.checkout.Session:
    """Create a session for credit of CHF 30."""
    price = {"currency": "chf", "unit_amount": 3000, "product_data": {"name": "KI-Guthaben"}}
    params: dict[str, Any] = {
        "mode": "payment",
        "line_items": [{"price_data": price, "quantity": 1}],
        "success_url": "http://127.0.0.1:9/ok?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:9/cancel",
        "metadata": {"topup": "t1"},
        "payment_intent_data": {"metadata": {"purpose": "topup"}},
    }
    return stripe.checkout.Session.create(**(params | changes))


def saved_card(sandbox: Running | Account, card: str = "4242424242424242") -> tuple[str, str]:
    """Save a card through a set-up session; return customer and payment method."""
    session = stripe.checkout.Session.create(
        mode="setup",
        currency="chf",
        customer_creation="always",
        success_url="http://127.0.0.1:9/ok",
    )
    done = sandbox.control(f"/checkout/{session.id}/pay", {"card": card})
    assert done["paid"]
    intent = stripe.SetupIntent.retrieve(done["session"]["setup_intent"])
    return str(intent.customer), str(intent.payment_method)


def charge(customer: str, method: str, key: str | None = None, **more: Any) -> stripe.PaymentIntent:
    """Charge a saved card without its holder, as an automatic top-up does."""
    params: dict[str, Any] = {
        "amount": 3000,
        "currency": "chf",
        "customer": customer,
        "payment_method": method,
        "off_session": True,
        "confirm": True,
        "idempotency_key": key,
    }
    return stripe.PaymentIntent.create(**(params | more))
