"""Owns a delivery's content and its end: body, signature, and when it is tried again.

Law: a delivery is over when the receiver has answered 2xx or the attempts are used up, never
before; one that was handed out and not answered is handed out again. It sends nothing itself:
`webhooks` sends over HTTP, a simulation takes what is due from `model`.
"""

import hmac
from typing import NamedTuple

from guthaben.sandbox.context import Settings
from guthaben.sandbox.errors import JsonObject
from guthaben.sandbox.state import Delivery, State, dump

SECRETS = "webhook_secrets"


class Post(NamedTuple):
    """One attempt to deliver an event: the very bytes and the Stripe-Signature header."""

    delivery: Delivery
    event_id: str
    type: str
    body: bytes
    signature: str


def signature_header(body: bytes, secrets: tuple[str, ...], at_s: int) -> str:
    """Return `t=...,v1=...` with one `v1` per secret."""
    signed = f"{at_s}.".encode() + body
    marks = [hmac.new(secret.encode(), signed, "sha256").hexdigest() for secret in secrets]
    return ",".join([f"t={at_s}", *(f"v1={mark}" for mark in marks)])


class Outbox:
    """What waits to be delivered."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings

    def due(self, limit: int, at_s: int) -> list[Post]:
        """Return what is due, signed as of `at_s`, the time by the receiver's clock."""
        due = self._state.due_deliveries(limit)
        return [post for delivery in due if (post := self._post(delivery, at_s)) is not None]

    def _post(self, delivery: Delivery, at_s: int) -> Post | None:
        event = self._state.find(delivery.event_id)
        if event is None:
            return None
        body = dump(event | {"pending_webhooks": 1}).encode()  # the same bytes at every attempt
        header = self._signature(body, delivery.twist, at_s)
        return Post(delivery, delivery.event_id, event["type"], body, header)

    def _signature(self, body: bytes, twist: JsonObject, at_s: int) -> str:
        ordered = self._state.setting(SECRETS, None)
        secrets = tuple(ordered) if ordered else self._settings.webhook_secrets
        if twist.get("bad_signature"):
            secrets = tuple(f"{secret}_wrong" for secret in secrets)
        return signature_header(body, secrets, at_s - int(twist.get("age_s", 0)))

    def note(self, delivery: Delivery, status: int | None, error: str | None = None) -> None:
        """Record how an attempt ended; without a status there was no answer."""
        done = status is not None and 200 <= status < 300
        pauses_ms = self._settings.retry_pauses_ms
        given_up = delivery.attempts >= len(pauses_ms)
        word = "delivered" if done else "given_up" if given_up else "pending"
        pause_ms = 0 if given_up else pauses_ms[delivery.attempts]
        with self._state.transaction():
            self._state.note_delivery(delivery, word, pause_ms, status, error)
            event = self._state.find(delivery.event_id)
            if done and event is not None:
                self._state.put(event | {"pending_webhooks": 0})
