"""Problems: every error as `application/problem+json` (RFC 9457) with a stable `code`.

Law: one shape for all errors; a refusal changed nothing and says so by its status. No text of an
unexpected error, no secret and no foreign fact ever stands in one. A foreign id answers as a
missing one does, word for word.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from guthaben import texts
from guthaben.domain.money import format_usd
from guthaben.errors import (
    CallFinished,
    CallNotFound,
    CapExceeded,
    ConfigError,
    GuthabenError,
    IdempotencyConflict,
    InsufficientCredit,
    InvalidAmount,
    InvalidInput,
    MigrationNeeded,
    OutcomeUnknown,
    PaymentDeclined,
    PaymentError,
    PaymentOutcomeUnknown,
    PaymentUnavailable,
    PracticeClosed,
    PracticeFrozen,
    PracticeNotFound,
    Refused,
    StoreUnavailable,
    WebhookRejected,
)
from guthaben.web.redaction import redact

TYPE_PREFIX: Final = "urn:guthaben:problem:"
MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2


class Problem(Exception):
    """An answer that is an error; raise it anywhere under a route."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        text_name: str = "",
        **fields: Any,
    ) -> None:
        super().__init__(code)
        self.text_name = text_name or code
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.fields = fields


def invalid(detail: str, *, field: str | None = None, code: str = "invalid_input") -> Problem:
    """Make the answer to a request that can't be understood; nothing was changed."""
    problem = Problem(400, code, detail)
    if field is not None:
        problem.fields["field"] = field
    return problem


def response(problem: Problem, request_id: str, language: str = "en") -> Response:
    """Put a problem into its one shape; title and detail in another language where there is one."""
    spoken = in_words(problem, language) if language != "en" else None
    title, detail = spoken or (_title(problem), redact(problem.detail))
    body = {
        "type": TYPE_PREFIX + problem.code,
        "title": title,
        "status": problem.status,
        "detail": detail,
        "code": problem.code,
        "request_id": request_id,
        **problem.fields,
    }
    headers = {
        "Cache-Control": "no-store",
        "Content-Language": language if spoken else "en",
        "Vary": "Accept-Language",
        "X-Request-Id": request_id,
        **problem.headers,
    }
    return JSONResponse(body, problem.status, headers, MEDIA_TYPE)


def in_words(problem: Problem, language: str) -> tuple[str, str] | None:
    """Say what a problem is to the people of a practice; None for what only programs meet.

    Where a text has no detail of its own, the technical one stands: it names the field to mend.
    """
    name = f"problem.{problem.text_name}"
    if not texts.known(f"{name}.title"):
        return None
    title, detail = texts.text(f"{name}.title", language), redact(problem.detail)
    if texts.known(f"{name}.detail"):
        detail = texts.text(f"{name}.detail", language, **problem.fields)
    return title, detail


def _title(problem: Problem) -> str:
    return TITLES.get(problem.code) or HTTPStatus(problem.status).phrase


TITLES: Final = {
    "insufficient_credit": "Not enough credit",
    "cap_exceeded": "The spending cap is reached",
    "idempotency_conflict": "The key belongs to another command",
    "call_finished": "The call is already over",
    "settled_otherwise": "The call is settled with another cost",
    "call_over": "The call is already over",
    "lifetime_exceeded": "A reservation lives at most 24 hours",
    "call_not_found": "No such call",
    "topup_not_found": "No such top-up",
    "contact_not_found": "No such contact",
    "endpoint_not_found": "No such endpoint",
    "plan_not_found": "No such plan",
    "license_exists": "The practice has a licence",
    "subscription_not_found": "No such subscription",
    "subscription_taken": "The subscription belongs to another practice",
    "practice_not_found": "No such practice",
    "case_not_found": "No such case",
    "event_not_found": "No such event",
    "refund_not_found": "No such refund",
    "payment_not_found": "No such payment",
    "case_resolved": "The case is resolved already",
    "more_than_left": "More than is left of the payment",
    "more_than_unspent": "More than unspent credit covers",
    "refund_in_flight": "Another refund is under way",
    "practice_frozen": "The practice is frozen",
    "practice_closed": "The practice is closed",
    "invalid_amount": "Not an exact amount in range",
    "invalid_input": "The request can't be understood",
    "unauthenticated": "No valid API key",
    "scope_missing": "The API key may not do this",
    "practice_mismatch": "The API key belongs to another practice",
    "body_too_large": "The body is too large",
    "store_unavailable": "The store can't answer",
    "outcome_unknown": "The answer was lost",
    "payments_not_configured": "Payments are not set up",
    "purchases_switched_off": "Purchases are switched off",
    "no_payment_method": "Save a card first",
    "consent_required": "The customer's consent is needed",
    "internal_error": "Something broke",
}

_UNCHANGED = "Nothing was changed."
_GENERIC_NOT_FOUND: Final = {
    "call_not_found": "There is no such call for this credential.",
    "topup_not_found": "There is no such top-up for this credential.",
    "contact_not_found": "There is no such contact for this credential.",
    "endpoint_not_found": "There is no such endpoint for this credential.",
    "practice_not_found": "There is no such practice for this credential.",
}
_REFUSED_STATUS: Final = {
    "settled_otherwise": 409,
    "call_over": 409,
    "lifetime_exceeded": 409,
    "allowance_exists": 409,
    "balance_limit": 409,
    "no_payment_method": 409,
    "consent_required": 409,
    "not_reconciled": 409,
    "already_expired": 400,
    "topup_not_found": 404,
    "case_not_found": 404,
    "event_not_found": 404,
    "refund_not_found": 404,
    "payment_not_found": 404,
    "contact_not_found": 404,
    "endpoint_not_found": 404,
    "too_many": 409,
    "plan_not_found": 404,
    "license_exists": 409,
    "subscription_not_found": 404,
    "subscription_taken": 409,
}


def of_error(error: GuthabenError) -> Problem:
    """Translate what the engine raised."""
    match error:
        case Refused():
            return _of_refusal(error)
        case StoreUnavailable() | MigrationNeeded():
            detail = f"The store can't answer. {_UNCHANGED} Try again with the same key."
            return _later("store_unavailable", detail)
        case OutcomeUnknown():
            detail = (
                "The answer was lost: it may have been done or not. Repeat it with the same "
                "idempotency key; it is done once, and you hear its outcome."
            )
            return _later(error.code, detail)
        case PaymentError():
            return _of_payment(error)
        case WebhookRejected():
            return Problem(400, error.code, "The webhook was not taken.", reason=error.reason)
        case ConfigError():
            return Problem(503, error.code, "The server is not set up for this.")
        case _:
            return Problem(500, error.code, "The request failed.")


def _of_refusal(error: Refused) -> Problem:
    match error:
        case InsufficientCredit():
            return Problem(
                402,
                error.code,
                str(error),
                available_usd=format_usd(error.available_nano_usd),
                requested_usd=format_usd(error.requested_nano_usd),
            )
        case CapExceeded():
            return Problem(
                429,
                error.code,
                str(error),
                available_usd=format_usd(error.available_nano_usd),
                requested_usd=format_usd(error.requested_nano_usd),
            )
        case CallFinished():
            detail = "The call is over, so its work must not run again. Reserve with a new key."
            return Problem(409, error.code, detail, call_id=error.call_id, call_status=error.status)
        case IdempotencyConflict():
            detail = (
                "The idempotency key belongs to an earlier command with another body. Use a new "
                "key for a new command."
            )
            return Problem(409, error.code, detail)
        case CallNotFound() | PracticeNotFound():
            return Problem(404, error.code, _GENERIC_NOT_FOUND[error.code])
        case PracticeFrozen() | PracticeClosed():
            return Problem(403, error.code, str(error))
        case InvalidAmount():
            return invalid(str(error), code=error.code)
        case InvalidInput():
            return invalid(str(error), field=error.field, code=error.code)
        case _:
            return _of_reason(error)


def _of_reason(error: Refused) -> Problem:
    """Answer a refusal that has no exception of its own: its reason is its code."""
    status = _REFUSED_STATUS.get(error.reason)
    if status is None:  # the engine's own fault, or a reason that this module has yet to learn
        known = type(error) is Refused
        detail = str(error) if known else f"The command failed inside. {_UNCHANGED}"
        return Problem(409 if known else 500, error.reason, detail)
    return Problem(status, error.reason, _GENERIC_NOT_FOUND.get(error.reason, str(error)))


def _of_payment(error: PaymentError) -> Problem:
    match error:
        case PaymentDeclined():
            return Problem(402, error.code, "The payment was declined.")
        case PaymentUnavailable():
            detail = "The payment provider can't answer now. Nothing was paid; try again later."
            return _later(error.code, detail)
        case PaymentOutcomeUnknown():
            detail = "The payment provider did not answer. Nothing was paid; begin anew."
            return _later(error.code, detail)
        case _:
            return Problem(502, error.code, "The payment provider refused the request.")


def _later(code: str, detail: str) -> Problem:
    return Problem(503, code, detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def not_configured() -> Problem:
    """Make the answer where payments are asked for and no provider is set up."""
    detail = "This server has no payment provider. The operator has to set STRIPE_SECRET_KEY."
    return Problem(503, "payments_not_configured", detail)


def switched_off() -> Problem:
    """Make the answer where real money would move and the operator has not allowed it."""
    detail = (
        "Purchases with real money are switched off. The operator has to set "
        "AZA_AI_TOPUP_ALLOW_LIVE=1 and AZA_AI_TOPUP_DRY_RUN=0."
    )
    return Problem(503, "purchases_switched_off", detail)


def unexpected() -> Problem:
    """Make the answer to a fault of ours; it tells nothing but its request id."""
    detail = "Something broke on our side. The request id finds it in the log."
    return Problem(500, "internal_error", detail)
