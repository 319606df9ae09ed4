"""What an answer or an error of Stripe means, for a charge and for everything else.

Law: only what is certain is called certain. No charge was made if Stripe itself says so in an
error of its own making (declined, refused as malformed, unauthorised, over the rate limit).
Whatever else happens after sending leaves the outcome unknown, statuses never seen included.
Nothing here talks to Stripe, and no text of Stripe's is passed on: it may quote ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import stripe

from guthaben.domain.declines import Verdict, judge
from guthaben.errors import (
    PaymentDeclined,
    PaymentError,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
)
from guthaben.payments.deadline import NotStarted
from guthaben.payments.gateway import (
    Charged,
    ChargeOrder,
    ChargeResult,
    Declined,
    NeedsCustomer,
    NotSent,
    NotSentWhy,
    Processing,
    Unknown,
)
from guthaben.payments.ids import normalize_stripe_id
from guthaben.payments.reading import read, text, whole

_METHOD_GONE: Final = frozenset(
    {
        "payment_intent_mandate_invalid",
        "payment_method_invalid_parameter",
        "payment_method_not_available",
        "payment_method_unactivated",
        "payment_method_unexpected_state",
    }
)
_MONEY_MAY_MOVE: Final = frozenset({"succeeded", "processing", "requires_capture"})


@dataclass(frozen=True, slots=True)
class _Details:
    """What Stripe's error object says; each part may be missing."""

    kind: str | None
    code: str | None
    decline_code: str | None
    advice_code: str | None
    param: str | None
    http_status: int | None
    request_id: str | None
    other_mode: bool
    intent: object

    @property
    def payment_id(self) -> str | None:
        return normalize_stripe_id(self.intent, "pi_")


def _details(error: stripe.StripeError) -> _Details:
    # `error.code` is set for some classes only and `decline_code` for none: the body has both.
    body = error.error
    intent = read(body, "payment_intent")
    return _Details(
        kind=text(body, "type"),
        code=text(body, "code") or text(error, "code"),
        decline_code=text(body, "decline_code"),
        advice_code=text(body, "advice_code") or _last_advice(intent),
        param=text(body, "param") or text(error, "param"),
        http_status=whole(error, "http_status"),
        request_id=text(error, "request_id"),
        other_mode="similar object exists in" in (text(body, "message") or ""),
        intent=intent,
    )


def _last_advice(intent: object) -> str | None:
    return text(read(intent, "last_payment_error"), "advice_code")


# ---------------------------------------------------------------- a charge


def charge_answer(answer: object, order: ChargeOrder) -> ChargeResult:
    """Read the payment intent that Stripe answered a charge with."""
    payment_id, status = normalize_stripe_id(answer, "pi_"), text(answer, "status")
    if payment_id is None or status is None:
        return Unknown("unparsable", payment_id)
    if not _as_ordered(answer, order):
        return Unknown("amount_differs", payment_id)
    match status:
        case "succeeded":
            return Charged(payment_id)
        case "processing":
            return Processing(payment_id)
        case "requires_action":
            return NeedsCustomer(payment_id, status)
        case "requires_payment_method" | "canceled":
            return _declined_intent(answer, payment_id, status)
        case _:
            return Unknown(f"status_{status[:40]}", payment_id)


def _as_ordered(answer: object, order: ChargeOrder) -> bool:
    amount, currency = whole(answer, "amount"), text(answer, "currency")
    return amount in (None, order.amount_rappen) and currency in (None, order.currency)


def _declined_intent(answer: object, payment_id: str, status: str) -> ChargeResult:
    last = read(answer, "last_payment_error")
    return _declined(
        payment_id, text(last, "code") or status, text(last, "decline_code"), _last_advice(answer)
    )


def charge_failure(error: Exception, order: ChargeOrder) -> ChargeResult:
    """Read what was raised instead of an answer to a charge."""
    result = _failure(error)
    if isinstance(result, NotSent) and order.is_retry:
        # This request did nothing, but an earlier one with the same key may have.
        return Unknown(f"retry_{result.why}")
    return result


def _failure(error: Exception) -> ChargeResult:
    match error:
        case NotStarted():
            return NotSent("busy")
        case TimeoutError():
            return Unknown("deadline")
        case stripe.CardError():
            return _refused_payment(_details(error))
        case stripe.InvalidRequestError():
            return _invalid(_details(error))
        case stripe.AuthenticationError() | stripe.PermissionError():
            return NotSent("auth", _details(error).code)
        case stripe.RateLimitError():
            return _limited(_details(error))
        case stripe.StripeError():
            return Unknown(_why_open(error))
        case _:
            return Unknown(f"unexpected_{type(error).__name__}")


def _refused_payment(found: _Details) -> ChargeResult:
    status = text(found.intent, "status")
    if status in _MONEY_MAY_MOVE:
        return Unknown(f"error_but_{status}", found.payment_id)
    if "authentication_required" in (found.code, found.decline_code):
        return NeedsCustomer(found.payment_id, "authentication_required")
    if status == "requires_action":
        return NeedsCustomer(found.payment_id, status)
    return _declined(found.payment_id, found.code, found.decline_code, found.advice_code)


def _invalid(found: _Details) -> ChargeResult:
    # Some payments fail with 400 and carry their intent: then the intent's own status counts.
    if found.intent is not None or found.kind == "card_error":
        return _refused_payment(found)
    return NotSent(_blame(found), found.code)


def _blame(found: _Details) -> NotSentWhy:
    if found.other_mode:
        # "A similar object exists in live mode": our key is wrong, not the customer's card.
        return "misconfigured"
    missing = found.code == "resource_missing" and found.param in ("customer", "payment_method")
    return "method_unusable" if missing or found.code in _METHOD_GONE else "invalid_request"


def _limited(found: _Details) -> ChargeResult:
    # A lock is waited for inside the execution; only the limiter in front of it is certain.
    if found.code == "lock_timeout":
        return Unknown("lock_timeout")
    return NotSent("rate_limit", found.code)


def _declined(
    payment_id: str | None, code: str | None, decline_code: str | None, advice_code: str | None
) -> Declined:
    hopeless = judge(code, decline_code, advice_code) is Verdict.NEVER
    return Declined(payment_id, code or "unknown", decline_code, advice_code, hopeless)


def _why_open(error: stripe.StripeError) -> str:
    if isinstance(error, stripe.APIConnectionError):
        return "connection"
    if isinstance(error, stripe.IdempotencyError):
        # A request with this key and other parameters went out before; it may have charged.
        return "idempotency_mismatch"
    status = whole(error, "http_status") or 0
    if status == 409:
        return "conflict"
    return "server_error" if status >= 500 else "unparsable"


# ---------------------------------------------------------------- everything else


def as_payment_error(error: Exception, *, changes: bool) -> PaymentError:
    """The error to raise for a request that `changes` something at Stripe, or only reads."""
    match error:
        case NotStarted():
            return PaymentUnavailable("Too many requests to Stripe hang already; try later.")
        case stripe.CardError():
            return _declined_error(_details(error))
        case stripe.InvalidRequestError():
            message = "Stripe refuses this request as it is."
            return _of(PaymentRejected, message, _details(error))
        case stripe.AuthenticationError() | stripe.PermissionError():
            message = "Stripe refuses the API key. Check STRIPE_SECRET_KEY and its rights."
            return _of(PaymentUnavailable, message, _details(error))
        case stripe.RateLimitError() if not changes or _details(error).code != "lock_timeout":
            return _of(PaymentUnavailable, "Stripe's rate limit; try later.", _details(error))
        case _:
            return _open_error(error, changes=changes)


def _open_error(error: Exception, *, changes: bool) -> PaymentError:
    kind = PaymentOutcomeUnknown if changes else PaymentUnavailable
    if isinstance(error, stripe.StripeError):
        why = _why_open(error)
        found = _details(error)
    else:
        why = "deadline" if isinstance(error, TimeoutError) else type(error).__name__
        found = None
    advice = "it may have been done, so repeat the same key or look" if changes else "try later"
    message = f"Stripe gave no usable answer ({why}); {advice}."
    return kind(message) if found is None else _of(kind, message, found)


def _of(kind: type[PaymentError], message: str, found: _Details) -> PaymentError:
    return kind(
        message,
        provider_code=found.code,
        request_id=found.request_id,
        http_status=found.http_status,
    )


def _declined_error(found: _Details) -> PaymentDeclined:
    return PaymentDeclined(
        found.decline_code,
        found.code,
        request_id=found.request_id,
        http_status=found.http_status,
    )
