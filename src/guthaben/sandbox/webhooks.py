"""Owns the sending of events over HTTP. One loop per process.

What is sent, and when again, is in `deliveries`; how an event is queued is in `events`.
"""

import asyncio
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from guthaben.sandbox.context import Settings
from guthaben.sandbox.deliveries import Outbox, Post
from guthaben.sandbox.state import State

PAUSED = "deliveries_paused"
PARALLEL = "deliveries_parallel"
_IDLE_S = 1
_MAX_PARALLEL = 50


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
        self._outbox = Outbox(state, settings)
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
        # Signed with real time, not the sandbox's: the receiver compares with its own clock.
        limit = min(_MAX_PARALLEL, self._state.setting(PARALLEL, 1))
        due = self._outbox.due(limit, int(time.time()))
        await asyncio.gather(*(self._deliver(self._settings.webhook_url, post) for post in due))
        return len(due)

    async def _deliver(self, url: str, post: Post) -> None:
        timeout_s = self._settings.receiver_timeout_s
        status: int | None = None
        error: str | None = None
        try:
            loop = asyncio.get_running_loop()
            status = await loop.run_in_executor(
                self._threads, send, url, post.body, post.signature, timeout_s
            )
        except (OSError, http.client.HTTPException) as failure:
            error = type(failure).__name__
        self._outbox.note(post.delivery, status, error)
