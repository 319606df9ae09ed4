"""The model of Stripe inside a process: no sockets, threads, wall clock or unseeded randomness.

    model = Model(clock_ms, seed=7)                    # clock_ms() returns milliseconds
    with model.installed():                            # the official SDK now talks to the model
        model.load(Script(calls=(CallFault(fault="commit_then_drop",
                                           match=CallMatch(path="/v1/payment_intents")),)))
        ...                                            # services call Stripe as always
        model.control("/checkout/cs_test_.../pay", {"card": "4242424242424242"})
        for post in model.due_deliveries():            # signed as of the clock, in due order
            status = receive(post.body, post.signature)
            model.answered(post, status)               # None: no answer; it comes again

Law: the same clock, seed and calls give the same bytes (the SDK invents a random key for a call
that has none, and events show it). Everything lives in the state (`path`);
a `Model` opened on the same file goes on where the last one was closed or died. What a caller
can't see of the wire is told in the real ways: a lost answer, or one slower than `patience_s`,
raises `stripe.APIConnectionError`, and what was asked for is done all the same, a slow request
when the clock reaches its time (until then its key answers 409). Time moves only by the clock
that was given; `next_due_ms` says when something will happen. Calls may come from other threads
but one at a time. The actions of `control` are those of /_control, by the same addresses.
"""

import heapq
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stripe
from starlette.datastructures import Headers

from guthaben.sandbox import control, faults, passing
from guthaben.sandbox.context import Context, Settings
from guthaben.sandbox.core import ApiRequest, Core, HttpAnswer, Waits
from guthaben.sandbox.deliveries import Outbox, Post
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.ids import drawn_from
from guthaben.sandbox.retries import LIVE_PAUSES_MS
from guthaben.sandbox.script import Script
from guthaben.sandbox.sdk_wire import Said, SdkWire
from guthaben.sandbox.state import State

SECRET = "whsec_model"
_BASE_URL = "http://sandbox.invalid"
_RECEIVER = "in process"


class NoAnswer(Exception):
    """The connection ended without an answer."""


class Model:
    """One account at Stripe."""

    def __init__(
        self,
        clock_ms: Callable[[], int],
        seed: int,
        *,
        path: str | Path = ":memory:",
        secret: str = SECRET,
        patience_s: float = 10,
        retry_pauses_ms: tuple[int, ...] = LIVE_PAUSES_MS,
    ) -> None:
        self.secret = secret
        self.patience_s = patience_s
        self._settings = Settings(
            webhook_url=_RECEIVER,
            webhook_secrets=tuple(secret.split(",")),
            public_url=_BASE_URL,
            slow_ms=3000,
            retry_pauses_ms=retry_pauses_ms,
            receiver_timeout_s=10,
        )
        self._state = State(path, clock_ms)
        # After a restart the ids go on in another part of the seed's numbers.
        self._ids = random.Random(f"{seed}:{self._state.writes()}")
        self._core = Core(self._state, self._settings)
        self._outbox = Outbox(self._state, self._settings)
        self._waiting: list[tuple[int, int, Waits]] = []
        self._started = 0
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let go of the state; requests that still wait were never executed."""
        for _, _, steps in self._waiting:
            steps.close()
        self._state.close()

    # -- the SDK's side

    def http_client(self) -> stripe.HTTPClient:
        """Return a client for `stripe.default_http_client` or `StripeClient(http_client=...)`."""
        return _Client(self)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the SDK's module-level functions talk to the model; put back what was there."""
        before = stripe.default_http_client
        stripe.default_http_client = self.http_client()
        try:
            yield
        finally:
            stripe.default_http_client = before

    def request(
        self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]
    ) -> HttpAnswer:
        """Answer one request; raises NoAnswer if the caller gets none."""
        lower = {name.lower(): value for name, value in headers.items()}
        asked = ApiRequest(method.upper(), path, query, body, lower, _BASE_URL)
        with self._at_work():
            return self._run(self._core.serve(asked))

    def _run(self, steps: Waits) -> HttpAnswer:
        waited_s: float = 0
        try:
            while True:
                waited_s += next(steps)
                if waited_s >= self.patience_s:
                    self._park(steps, waited_s)
                    raise NoAnswer("timed out")
        except StopIteration as end:
            if end.value is None:
                raise NoAnswer("connection reset") from None
            answer: HttpAnswer = end.value
            return answer

    def _park(self, steps: Waits, waited_s: float) -> None:
        self._started += 1
        due_ms = self._state.now_ms() + int(waited_s * 1000)
        heapq.heappush(self._waiting, (due_ms, self._started, steps))

    # -- the simulator's side

    def load(self, script: Script) -> None:
        """Add a script of faults."""
        with self._at_work(), self._state.transaction():
            faults.load(self._state, script)

    def control(self, path: str, body: JsonObject | None = None, method: str = "POST") -> Any:
        """Do what the address under /_control does; raises ApiError where it refuses."""
        with self._at_work():
            action, ids = control.action_at(method, path)
            return control.perform(self._context(), action, body or {}, ids)

    def due_deliveries(self, limit: int = 1000) -> list[Post]:
        """Return the deliveries that are due; each comes again until `answered`."""
        with self._at_work():
            return self._outbox.due(limit, self._state.now_s())

    def answered(self, post: Post, status: int | None) -> None:
        """Tell how the receiver answered; None is no answer, which is tried again later."""
        with self._at_work():
            self._outbox.note(post.delivery, status)

    def objects(self, kind: str) -> list[JsonObject]:
        """Return all objects of a kind, such as `charge`, oldest first."""
        with self._at_work():
            return self._state.select(kind, limit=1_000_000, oldest_first=True)

    def now_ms(self) -> int:
        """Return the model's time."""
        return self._state.now_ms()

    def next_due_ms(self) -> int | None:
        """Return the instant of the next delivery, slow request or expiry; None: nothing waits."""
        with self._at_work():
            found = [self._waiting[0][0]] if self._waiting else []
            in_ms = self._state.next_due_ms()
            if in_ms is not None:
                found.append(self._state.now_ms() + in_ms)
            if (expiry_s := passing.next_due_s(self._state)) is not None:
                found.append(expiry_s * 1000)
            return min(found, default=None)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock, drawn_from(self._ids):
            self._let_time_pass()
            yield

    def _let_time_pass(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._state.now_ms():
            _, _, steps = heapq.heappop(self._waiting)
            for _ in steps:  # nobody waits for the answer any more
                pass
        if passing.is_due(self._state):
            with self._state.transaction():
                passing.run(self._context())

    def _context(self) -> Context:
        return Context(self._state, self._settings, _BASE_URL)


class _Client(SdkWire):
    """Hands the SDK's requests to the model."""

    name = "sandbox model"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def carry(
        self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]
    ) -> Said:
        try:
            answer = self._model.request(method, path, query, body, headers)
        except NoAnswer as lost:
            text = f"Unexpected error communicating with Stripe.\n\n(Network error: {lost})"
            raise stripe.APIConnectionError(text, should_retry=True) from lost  # type: ignore[no-untyped-call]
        return answer.body, answer.status, Headers(answer.headers)
