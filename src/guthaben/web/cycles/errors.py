"""Errors of the Cycles protocol: its codes, their status, and which of ours become which.

Law: every error has one of the protocol's codes and says what to do; none of it comes from outside
unread. What is our own fault is 500, because the protocol knows no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

STATUS: Final = {
    "INVALID_REQUEST": 400,
    "UNIT_MISMATCH": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "BUDGET_EXCEEDED": 409,
    "BUDGET_FROZEN": 409,
    "RESERVATION_FINALIZED": 409,
    "IDEMPOTENCY_MISMATCH": 409,
    "OVERDRAFT_LIMIT_EXCEEDED": 409,
    "DEBT_OUTSTANDING": 409,
    "MAX_EXTENSIONS_EXCEEDED": 409,
    "TENANT_CLOSED": 409,
    "RESERVATION_EXPIRED": 410,
    "INTERNAL_ERROR": 500,
}

_TOO_LITTLE: Final = "Not enough credit remains. Buy credit, or reserve less."
OF_REASON: Final[Mapping[str, tuple[str, str]]] = {
    "insufficient_credit": ("BUDGET_EXCEEDED", _TOO_LITTLE),
    "cap_exceeded": (
        "BUDGET_EXCEEDED",
        "The cap of this API key or agent leaves less. Raise it, or wait for the next window.",
    ),
    "above_estimate": (
        "BUDGET_EXCEEDED",
        "The actual amount is above the estimate, which REJECT forbids. Nothing was charged.",
    ),
    "balance_limit": ("BUDGET_EXCEEDED", "The debt would grow beyond all bounds."),
    "over_limit": (
        "OVERDRAFT_LIMIT_EXCEEDED",
        "More was used than there was. No reservation is made until credit is bought or given.",
    ),
    "overdraft_limit": (
        "OVERDRAFT_LIMIT_EXCEEDED",
        "The debt would grow beyond the overdraft limit. Nothing was charged.",
    ),
    "debt_outstanding": (
        "DEBT_OUTSTANDING",
        "There is debt and no overdraft limit. Buy credit: it repays the debt first.",
    ),
    "practice_frozen": ("BUDGET_FROZEN", "An operator froze this budget: nothing new begins."),
    "practice_closed": ("TENANT_CLOSED", "The tenant is closed."),
    "idempotency_conflict": (
        "IDEMPOTENCY_MISMATCH",
        "This idempotency key was used with another body. Use a new key for a new request.",
    ),
    "call_not_found": ("NOT_FOUND", "There is no such reservation."),
    "lease_expired": (
        "RESERVATION_EXPIRED",
        "The reservation's time and grace are over, nothing was booked. Post an event instead.",
    ),
    "lease_finished": (
        "RESERVATION_FINALIZED",
        "The reservation is committed or released already.",
    ),
    "lifetime_exceeded": (
        "MAX_EXTENSIONS_EXCEEDED",
        "A reservation lives at most 24 hours in all. Commit it and reserve anew.",
    ),
}
"""Code and words for each reason of a refusal."""

REASON_CODE: Final = {"": "", **{reason: code for reason, (code, _text) in OF_REASON.items()}}
"""What a decision says instead of an error."""


class Denial(Exception):
    """An answer of the protocol that is no success."""

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS[code]
        self.message = message
        self.details = details


def invalid(message: str) -> Denial:
    """Say what is wrong with a request."""
    return Denial("INVALID_REQUEST", message)


def refusal(reason: str, details: Mapping[str, Any] | None = None) -> Denial:
    """Translate the reason of a refused command."""
    code, message = OF_REASON.get(reason, ("INVALID_REQUEST", f"Refused: {reason}."))
    return Denial(code, message, details)
