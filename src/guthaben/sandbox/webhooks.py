"""Owns the sending of events: signature, retries with growing pauses, order, giving up.

Law: a delivery is over when the receiver has answered 2xx, never before; what a killed process
had not finished is sent again. One loop per process; how an event is queued is in `events`.
"""

import asyncio
import hmac
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from guthaben.sandbox.context import Settings
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.state import Delivery, State, dump

PAUSED = "deliveries_paused"
PARALLEL = "deliveries_parallel"
SECRETS = "webhook_secrets"
_IDLE_S = 1
_MAX_PARALLEL = 50


def signature_header(body: bytes, secrets: tuple[str, ...], at_s: int) -> str:
    """Return `t=...,v1=...` with one `v1` per secret."""
    signed = f"{at_s}.".encode() + body
    marks = [hmac.new(secret.encode(), signed, "sha256").hexdigest() for secret in secrets]
    return ",".join([f"t={at_s}", *(f"v1={mark}" for mark in marks)])


def send(url: str, body: bytes, signature: str, timeout_s: int) -> int:
    """Post an event and return the receiver's status; raises OSError or HTTPException."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature,
        "User-Agent": "Stripe/1.0 (sandbox)",
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Postman:
    """Delivers what is due, as long as `run` runs."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._news = asyncio.Event()
        self._threads = ThreadPoolExecutor(_MAX_PARALLEL, "deliveries")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """Tell that something new may be due."""
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._news.clear()
            if not await self.deliver_due():
                await self._wait()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), self._pause_s())
        except TimeoutError:
            return

    def _pause_s(self) -> float:
        due_ms = self._state.next_due_ms()
        if due_ms is None or self._state.setting(PAUSED, False):
            return _IDLE_S
        return min(_IDLE_S, (due_ms + 2) / 1000)

    async def deliver_due(self) -> int:
        """Send the deliveries that are due, up to the set number at once; return how many."""
        if self._settings.webhook_url is None or self._state.setting(PAUSED, False):
            return 0
        due = self._state.due_deliveries(min(_MAX_PARALLEL, self._state.setting(PARALLEL, 1)))
        await asyncio.gather(*(self._deliver(delivery) for delivery in due))
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        event = self._state.find(delivery.event_id)
        url = self._settings.webhook_url
        if event is None or url is None:
            return
        body = dump(event | {"pending_webhooks": 1}).encode()  # the same bytes at every attempt
        header = self._signature(body, delivery.twist)
        timeout_s = self._settings.receiver_timeout_s
        status: int | None = None
        error: str | None = None
        try:
            loop = asyncio.get_running_loop()
            status = await loop.run_in_executor(self._threads, send, url, body, header, timeout_s)
        except (OSError, http.client.HTTPException) as failure:
            error = type(failure).__name__
        self._note(delivery, status, error)

    def _signature(self, body: bytes, twist: JsonObject) -> str:
        """Sign with real time, not the sandbox's: the receiver compares with its own clock."""
        ordered = self._state.setting(SECRETS, None)
        secrets = tuple(ordered) if ordered else self._settings.webhook_secrets
        if twist.get("bad_signature"):
            secrets = tuple(f"{secret}_wrong" for secret in secrets)
        return signature_header(body, secrets, int(time.time()) - int(twist.get("age_s", 0)))

    def _note(self, delivery: Delivery, status: int | None, error: str | None) -> None:
        attempts = delivery.attempts + 1
        done = status is not None and 200 <= status < 300
        given_up = attempts >= self._settings.max_attempts
        word = "delivered" if done else "given_up" if given_up else "pending"
        pause_ms = self._settings.retry_base_ms << min(delivery.attempts, 30)
        pause_ms = min(pause_ms, self._settings.retry_cap_ms)
        with self._state.transaction():
            self._state.note_delivery(delivery, word, pause_ms, status, error)
            event = self._state.find(delivery.event_id)
            if done and event is not None:
                self._state.put(event | {"pending_webhooks": 0})
