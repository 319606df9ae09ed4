"""The monthly AI budget of a licence and the gate before each AI call, for the application.

It translates names, floats and dicts; the credit itself is Guthaben's. Every function takes the
caller's `sqlite3.Connection`, uses nothing else, and leaves an open transaction to the caller;
otherwise it commits what it began.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import Any

from guthaben import config
from guthaben.domain.calls import Origin, Usage
from guthaben.domain.money import float_from_nano_usd, micros_from_float, nano_usd_from_float
from guthaben.errors import GuthabenError, StoreUnavailable
from guthaben.services.legacy import store as legacy_store
from guthaben.services.legacy import usage as legacy_usage
from guthaben.services.legacy.plans import OldLicense, practice_of
from guthaben.services.legacy.usage import Left, Report

log = logging.getLogger("guthaben.legacy")

__all__ = [
    "LicenseBudgetRow",
    "budget_gate_blocked_payload_or_none",
    "check_allows_openai_call",
    "compute_budget_snapshot",
    "ensure_ai_budget_schema",
    "insert_usage_event",
]

BUDGET_EXHAUSTED = "AI_BUDGET_EXHAUSTED"
PRACTICE_NOT_ACTIVE = "AI_PRACTICE_NOT_ACTIVE"

_MESSAGES = {
    BUDGET_EXHAUSTED: "Ihr KI-Guthaben ist aufgebraucht. Bitte laden Sie Zusatzguthaben auf.",
    PRACTICE_NOT_ACTIVE: "Ihr KI-Zugang ist gesperrt. Bitte wenden Sie sich an den Support.",
    "AUTO_TOPUP_MONTHLY_LIMIT_REACHED": "Das Monatslimit Ihrer automatischen Aufladung ist "
    "erreicht. Bitte laden Sie Ihr KI-Guthaben manuell auf oder erhöhen Sie das Limit.",
    "AUTO_TOPUP_PENDING": "Ihre automatische Aufladung wird gerade verarbeitet. Bitte versuchen "
    "Sie es in einigen Minuten erneut.",
    "AUTO_TOPUP_PAUSED": "Die automatische Aufladung ist fehlgeschlagen und wurde angehalten. "
    "Bitte prüfen Sie Ihre Zahlungsmethode oder laden Sie Ihr KI-Guthaben manuell auf.",
}
_TOLD = {
    "auto_topup_monthly_limit_reached": "AUTO_TOPUP_MONTHLY_LIMIT_REACHED",
    "pending_auto_topup": "AUTO_TOPUP_PENDING",
}


@dataclass
class LicenseBudgetRow:
    """One licence as the application reads it; its period counts as it is, whatever the clock.

    Without a `practice_id` the credit belongs to the subscription itself.
    """

    subscription_id: str
    customer_email: str | None
    customer_id: str | None
    practice_id: str | None
    lookup_key: str | None
    status: str | None
    period_start: int
    period_end: int


def ensure_ai_budget_schema(con: sqlite3.Connection) -> None:
    """Have all tables and the old views, taking over old tables once. Idempotent.

    Raises `MigrationNeeded` when old rows can't be explained; then nothing was changed.
    """
    legacy_store.ensure(con)


def insert_usage_event(
    con: sqlite3.Connection,
    *,
    lic: LicenseBudgetRow,
    device_id: str | None,
    period_start: int,
    period_end: int,
    operation_type: str | None,
    model: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
    total_tokens: int | None,
    audio_seconds: float | None,
    estimated_cost_usd: float | None,
    request_id: str | None,
    status: str = "success",
) -> int:
    """Meter one call in the period given; return its number in `ai_usage_events`.

    Each call of this function is a row: a repeated `request_id` is another call. A status that
    begins with "blocked" is kept and never counted. Raises `ValueError` for a negative cost.
    """
    license = _license(lic)._replace(start_s=period_start, end_s=period_end)
    usage = Usage(
        model or "",
        operation_type or "",
        input_tokens or 0,
        output_tokens or 0,
        total_tokens or 0,
        micros_from_float(audio_seconds or 0),
    )
    origin = Origin(device_id=device_id or "", reference=request_id or "")
    report = Report(nano_usd_from_float(estimated_cost_usd or 0), status, usage, origin)
    return legacy_store.books(con).run(lambda space: legacy_usage.record(space, license, report))


def compute_budget_snapshot(con: sqlite3.Connection, lic: LicenseBudgetRow) -> dict[str, Any]:
    """Tell budget, usage and rest of the licence's period, and the extra credit; only reads.

    `remaining_usd` is the month's part alone; `available_percent` counts both and may exceed 100.
    """
    return _snapshot(_left(con, lic), lic)


def check_allows_openai_call(
    con: sqlite3.Connection, lic: LicenseBudgetRow
) -> tuple[bool, dict[str, Any]]:
    """Tell whether a call may be made, and the snapshot that says so."""
    found = _left_swept(con, lic)
    return found.allows, _snapshot(found, lic)


def budget_gate_blocked_payload_or_none(
    con: sqlite3.Connection,
    lic: LicenseBudgetRow,
    *,
    device_id: str | None,
    request_id: str | None,
    operation_type: str | None,
    model: str | None,
) -> dict[str, Any] | None:
    """Let a call pass (None), after a top-up if that is on; or say why not and keep the refusal."""
    found = _left_swept(con, lic)
    if found.allows:
        return None
    code = BUDGET_EXHAUSTED if found.active else PRACTICE_NOT_ACTIVE
    reason = ""
    if found.active and config.auto_topup_enabled():
        told = _topped_up(con, lic)
        found = _left_swept(con, lic)
        if found.allows:
            return None
        reason = str(told.get("reason") or "")
        code = _code(told)
    _keep_refusal(con, lic, device_id, request_id, operation_type, model)
    return {
        "ok": False,
        "blocked": True,
        "error_code": code,
        "reason": reason or code.lower(),
        "message_user": _MESSAGES.get(code, _MESSAGES[BUDGET_EXHAUSTED]),
        **_snapshot(found, lic),
    }


def _topped_up(con: sqlite3.Connection, lic: LicenseBudgetRow) -> dict[str, Any]:
    """Try the automatic top-up; whatever goes wrong there, the gate stays shut and no more."""
    # Looked up at the time of the call, because callers replace the function.
    import aza_ai_credit

    try:
        told = aza_ai_credit.maybe_run_auto_topup_for_practice(
            con,
            practice_id=practice_of(lic.practice_id, lic.subscription_id),
            available_percent=0,
            subscription_id=lic.subscription_id,
        )
    except GuthabenError as error:
        log.warning("the automatic top-up failed: %s", error.code)
        return {}
    return told


def _code(told: dict[str, Any]) -> str:
    if told.get("paused"):
        return "AUTO_TOPUP_PAUSED"
    named = told.get("error_code")
    if isinstance(named, str) and named in _MESSAGES:
        return named
    return _TOLD.get(str(told.get("reason")), BUDGET_EXHAUSTED)


def _keep_refusal(
    con: sqlite3.Connection,
    lic: LicenseBudgetRow,
    device_id: str | None,
    request_id: str | None,
    operation_type: str | None,
    model: str | None,
) -> None:
    usage = Usage(model=model or "", operation_type=operation_type or "")
    report = Report(
        0, "blocked", usage, Origin(device_id=device_id or "", reference=request_id or "")
    )
    try:
        legacy_store.books(con).run(lambda space: legacy_usage.block(space, _license(lic), report))
    except StoreUnavailable as error:
        log.warning("a refused call was not kept: %s", error.code)


# ---------------------------------------------------------------- translating


def _license(lic: LicenseBudgetRow) -> OldLicense:
    return OldLicense(
        lic.subscription_id,
        practice_of(lic.practice_id, lic.subscription_id),
        lic.lookup_key or "",
        lic.status or "",
        lic.period_start,
        lic.period_end,
    )


def _left(con: sqlite3.Connection, lic: LicenseBudgetRow) -> Left:
    books, license = legacy_store.books(con), _license(lic)
    now_ms = books.clock_ms()
    return books.read(lambda cursor: legacy_usage.left(cursor, license, now_ms))


def _left_swept(con: sqlite3.Connection, lic: LicenseBudgetRow) -> Left:
    """Look; before saying no, give back what holds are over."""
    found = _left(con, lic)
    if found.allows or not found.due:
        return found
    practice_id = practice_of(lic.practice_id, lic.subscription_id)
    legacy_store.books(con).run(lambda space: space.sweep(practice_id))
    return _left(con, lic)


def _snapshot(found: Left, lic: LicenseBudgetRow) -> dict[str, Any]:
    from aza_ai_credit import apply_extra_credit_to_snapshot

    budget_usd = float_from_nano_usd(found.budget)
    base = {
        "subscription_id": lic.subscription_id,
        "lookup_key": lic.lookup_key,
        "period_start": lic.period_start,
        "period_end": lic.period_end,
        "budget_usd": budget_usd,
        "used_usd": float_from_nano_usd(found.used),
        "remaining_usd": float_from_nano_usd(found.remaining),
        "debt_usd": float_from_nano_usd(found.debt),
    }
    return apply_extra_credit_to_snapshot(
        base, extra_remaining=float_from_nano_usd(found.extra), monthly_budget=budget_usd
    )
