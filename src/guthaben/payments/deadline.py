"""A total deadline for a blocking call, and a limit to how many may hang at once.

Why a thread: the SDK takes no timeout per request. `stripe.default_http_client` is the only
place for one and belongs to the whole process, so a host application's own Stripe calls would
change under it; a `StripeClient` of our own is not reached by `stripe.PaymentIntent.create`,
the path that callers patch. And the timeout of `requests` restarts with every byte, so it is
no deadline anyway. The thread left behind ends with the SDK's own timeout (80 s unless the
process owner sets another), and as a daemon it never delays an exit. Its late answer is lost
on purpose: the caller has been told that the outcome is unknown, and asks again.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class NotStarted(Exception):
    """The call was certainly not begun."""


class Deadline:
    """Runs calls in daemon threads, at most `places` at a time, each at most `timeout_s`."""

    __slots__ = ("_places", "_timeout_s")

    def __init__(self, timeout_s: float, places: int) -> None:
        self._timeout_s = timeout_s
        self._places = threading.BoundedSemaphore(places)

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; raises what it raises, TimeoutError, or NotStarted."""
        # Waiting for a place would eat the deadline; a full house means Stripe hangs anyway.
        if not self._places.acquire(blocking=False):
            raise NotStarted("too many calls in flight")
        answer: Future[T] = Future()
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=self._fill, args=(answer, context, call), name="guthaben-payments", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._places.release()
            raise NotStarted("no thread to be had") from error
        return answer.result(self._timeout_s)

    def _fill(self, answer: Future[T], context: contextvars.Context, call: Callable[[], T]) -> None:
        try:
            answer.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 handed to the waiting caller
            answer.set_exception(error)
        finally:
            self._places.release()
