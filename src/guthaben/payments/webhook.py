"""From the raw bytes of a webhook to a verified, typed event.

Law: nothing is read from a body before its signature is verified over exactly those bytes, and
the signature's own time (not the event's: Stripe repeats an event for three days) lies within
300 s of now, both ways. What is returned is a hint that something happened: it is stored, and
what is credited comes from our own record and the payment itself. Nothing is stored, logged or
answered here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import stripe

from guthaben.errors import WebhookRejected
from guthaben.payments.discreet import Discreet
from guthaben.payments.facts import (
    CheckoutFacts,
    DisputeFacts,
    PaymentFacts,
    RefundFacts,
    RefundReceipt,
    SetupFacts,
    WarningFacts,
    checkout_facts,
    dispute_facts,
    payment_facts,
    refund_facts,
    refund_receipt,
    setup_facts,
    warning_facts,
)
from guthaben.payments.reading import flag, read, text, whole
from guthaben.plain_json import PlainJson, UnclearJson

__all__ = [
    "LARGEST_BODY",
    "TOLERANCE_S",
    "EventFacts",
    "WebhookEvent",
    "authentic",
    "event_facts",
    "event_of",
    "not_for_us",
    "verify",
]

TOLERANCE_S: Final = 300
LARGEST_BODY: Final = 1_000_000
_LONGEST_HEADER: Final = 4_096
_JSON: Final = PlainJson(most_digits=40, fraction=str)
_TIME: Final = re.compile(r"[0-9]{1,11}")

EventFacts = (
    CheckoutFacts
    | PaymentFacts
    | SetupFacts
    | RefundFacts
    | RefundReceipt
    | DisputeFacts
    | WarningFacts
    | None
)


@dataclass(frozen=True, slots=True, repr=False)
class WebhookEvent(Discreet):
    """A verified event. `payload` is the whole event as plain JSON values.

    A number with a fraction is kept as its text in there: no amount is one.
    """

    event_id: str
    type: str
    created_at_s: int
    livemode: bool
    object_type: str
    object_id: str | None  # some objects have none, such as a balance
    api_version: str | None
    account: str | None = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)

    @property
    def object(self) -> Mapping[str, Any]:
        """The object the event is about, as it was then; it may be older than what is stored."""
        found: Mapping[str, Any] = self.payload["data"]["object"]
        return found


def verify(
    body: bytes,
    signature_header: str | None,
    secrets: Sequence[str],
    now_s: int,
    *,
    livemode_expected: bool | None,
    account: str | None = None,
) -> WebhookEvent:
    """Return the event, or raise WebhookRejected with a stable reason.

    Several secrets are for the time of a rotation. `livemode_expected=None` accepts both modes.
    `account` is our own account: an event that names another one is a connected account's.
    """
    event = authentic(body, signature_header, secrets, now_s)
    why = not_for_us(event, livemode_expected=livemode_expected, account=account)
    if why:
        raise WebhookRejected(why, authentic=True)
    return event


def authentic(
    body: bytes, signature_header: str | None, secrets: Sequence[str], now_s: int
) -> WebhookEvent:
    """Return an event that is signed rightly and recently, whoever it is for."""
    signed_at_s = _verified_time(body, signature_header, secrets)
    if now_s - signed_at_s > TOLERANCE_S:
        raise WebhookRejected("signature_too_old")
    if signed_at_s - now_s > TOLERANCE_S:
        raise WebhookRejected("signature_from_future")
    return event_of(_object_of(body))


def not_for_us(event: WebhookEvent, *, livemode_expected: bool | None, account: str | None) -> str:
    """Say why an authentic event is not for us; empty where it is."""
    if livemode_expected is not None and event.livemode is not livemode_expected:
        return "wrong_livemode"
    # An event of the endpoint's own account names none.
    return "wrong_account" if event.account not in (None, account) else ""


def event_facts(event: WebhookEvent) -> EventFacts:
    """The facts of the event's object, by its kind; None for kinds that move no money of ours.

    Raises InvalidInput if the object has no id of its kind.
    """
    match event.object_type:
        case "checkout.session":
            return checkout_facts(event.object)
        case "payment_intent":
            return payment_facts(event.object)
        case "setup_intent":
            return setup_facts(event.object)
        case "charge":
            return refund_facts(event.object)
        case "refund":
            return refund_receipt(event.object)
        case "dispute":
            return dispute_facts(event.object)
        case "radar.early_fraud_warning":
            return warning_facts(event.object)
        case _:
            return None


# ---------------------------------------------------------------- the signature


def _verified_time(body: bytes, header: str | None, secrets: Sequence[str]) -> int:
    usable = [secret.strip() for secret in secrets if secret.strip()]
    if not usable:
        raise WebhookRejected("no_secret_configured")
    if len(body) > LARGEST_BODY:
        raise WebhookRejected("body_too_large")
    signed_at = _signed_at(header)
    if not any(_is_signed_with(secret, body, header) for secret in usable):
        raise WebhookRejected("wrong_signature")
    return int(signed_at)


def _signed_at(header: str | None) -> str:
    # Parsed strictly and before the SDK does: its own parser takes the first of several times,
    # and its comparison raises TypeError for a signature outside ASCII.
    if not header:
        raise WebhookRejected("signature_missing")
    if len(header) > _LONGEST_HEADER or not header.isascii():
        raise WebhookRejected("signature_malformed")
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise WebhookRejected("signature_malformed")
    if not any(name == "v1" and value for name, _, value in pairs):
        raise WebhookRejected("signature_scheme")
    return times[0]


def _is_signed_with(secret: str, body: bytes, header: str | None) -> bool:
    try:
        # No tolerance: the SDK checks only the past, and by its own clock.
        stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None)
    except UnicodeDecodeError:
        raise WebhookRejected("body_not_utf8") from None
    except stripe.SignatureVerificationError:
        return False
    return True


# ---------------------------------------------------------------- the body


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        decoded = _JSON.value(body)
    except UnclearJson:
        raise WebhookRejected("body_not_json", authentic=True) from None
    if not isinstance(decoded, dict):
        raise WebhookRejected("body_not_an_object", authentic=True)
    return decoded


def event_of(payload: dict[str, Any]) -> WebhookEvent:
    """Read an event from its JSON values; raises WebhookRejected where it is none of ours to read.

    For events whose origin is certain: verified above, or read from the provider's own list.
    """
    if payload.get("object", "event") != "event":
        raise WebhookRejected("not_a_snapshot_event", authentic=True)
    about = read(_mapping(payload, "data"), "object")
    event_id, event_type = text(payload, "id"), text(payload, "type")
    created_at_s, livemode = whole(payload, "created"), flag(payload, "livemode")
    account = payload.get("account")
    if (
        event_id is None
        or event_type is None
        or created_at_s is None
        or livemode is None
        or not isinstance(about, dict)
        or not isinstance(account, str | None)
        or len(event_id) > 255
    ):
        raise WebhookRejected("event_incomplete", authentic=True)
    return WebhookEvent(
        event_id=event_id,
        type=event_type,
        created_at_s=created_at_s,
        livemode=livemode,
        object_type=text(about, "object") or "",
        object_id=text(about, "id"),
        api_version=text(payload, "api_version"),
        account=account,
        payload=payload,
    )


def _mapping(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = source.get(key)
    return found if isinstance(found, dict) else {}
