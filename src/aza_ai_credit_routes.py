"""The application's HTTP routes for AI credit: status, history, top-up, automatic top-up.

Law: the token is checked before the body is read and before the database is opened; the practice is
the credential's. Numbers are floats and texts German, as the application expects. Include `router`
without a prefix; `set_practice_resolver` and `set_connection_factory` adapt it to its host.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request

import aza_ai_credit
from guthaben import config
from guthaben.errors import GuthabenError, InvalidInput, StoreUnavailable
from guthaben.services.legacy import access as legacy_access
from guthaben.services.legacy import input as legacy_input
from guthaben.services.legacy import store as legacy_store
from guthaben.services.legacy.access import Resolver, by_license_key, practice_of_request

__all__ = ["router", "set_connection_factory", "set_practice_resolver"]

ConnectionFactory = Callable[[], AbstractContextManager[sqlite3.Connection | None]]

_NOT_SIGNED_IN: Final = "Bitte melden Sie sich an."
_NOT_YOURS: Final = "Für diese Praxis besteht keine Berechtigung."
_NO_STORE: Final = "Das KI-Guthaben ist gerade nicht erreichbar. Bitte versuchen Sie es später."
_BAD_INPUT: Final = "Die Angaben konnten nicht gelesen werden."
_LARGEST_BODY: Final = 64_000

router = APIRouter()


class _Host:
    """What the host application may put in our place."""

    resolver: Resolver = staticmethod(by_license_key)
    connect: ConnectionFactory = staticmethod(legacy_store.configured)


def set_practice_resolver(resolver: Resolver | None) -> None:
    """Let the host say which practice a request speaks for; None restores the licence key.

    It gets the connection and the headers, and returns the practice's id or None.
    """
    _Host.resolver = staticmethod(resolver or by_license_key)


def set_connection_factory(factory: ConnectionFactory | None) -> None:
    """Let the host provide the connection of a request; None restores the configured store.

    It returns a context manager; its schema must have been ensured.
    """
    _Host.connect = staticmethod(factory or legacy_store.configured)


def connection() -> AbstractContextManager[sqlite3.Connection | None]:
    """Open the connection of one request."""
    return _Host.connect()


# ---------------------------------------------------------------- letting in


def signed_in(request: Request) -> None:
    """Refuse a request without the application's token."""
    if not legacy_access.lets_in(request.headers, config.api_token()):
        raise problem(401, "UNAUTHORIZED", _NOT_SIGNED_IN)


def signed_in_as_admin(request: Request) -> None:
    """Refuse a request without the administration's token."""
    if not legacy_access.lets_in(request.headers, config.admin_token()):
        raise problem(401, "UNAUTHORIZED", _NOT_SIGNED_IN)


def problem(status: int, code: str, message: str) -> HTTPException:
    """Make an answer that says no, in the application's form."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return HTTPException(status, {"error_code": code, "message_user": message}, headers)


async def body_of(request: Request, _: Annotated[None, Depends(signed_in)]) -> dict[str, Any]:
    """Read the body of a request that was let in; FastAPI would read it before."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise problem(413, "BODY_TOO_LARGE", _BAD_INPUT)
    try:
        return legacy_input.read_object(body)
    except InvalidInput as error:
        raise problem(400, "INVALID_INPUT", _BAD_INPUT) from error


SignedIn = Annotated[None, Depends(signed_in)]
Admin = Annotated[None, Depends(signed_in_as_admin)]
Body = Annotated[dict[str, Any], Depends(body_of)]


def _for_practice(
    request: Request, use: Callable[[sqlite3.Connection, str], dict[str, Any]]
) -> dict[str, Any]:
    """Find out whose request it is, and answer it on one connection."""

    def answer(con: sqlite3.Connection) -> dict[str, Any]:
        practice_id = practice_of_request(con, request.headers, _Host.resolver)
        if practice_id is None:
            raise problem(403, "FORBIDDEN", _NOT_YOURS)
        return use(con, practice_id)

    return _connected(answer)


def _connected(answer: Callable[[sqlite3.Connection], dict[str, Any]]) -> dict[str, Any]:
    try:
        with connection() as con:
            if con is None:
                raise problem(503, "STORE_NOT_CONFIGURED", _NO_STORE)
            return answer(con)
    except ValueError as error:
        raise problem(400, "INVALID_INPUT", _BAD_INPUT) from error
    except (StoreUnavailable, sqlite3.OperationalError) as error:
        raise problem(503, "STORE_UNAVAILABLE", _NO_STORE) from error
    except GuthabenError as error:
        raise problem(409, error.code.upper(), _NO_STORE) from error


# ---------------------------------------------------------------- the routes


@router.get("/v1/ai-credit/status")
def status(request: Request, _: SignedIn) -> dict[str, Any]:
    """Tell the budget of the practice's licence, its extra credit and its automatic top-up."""

    def answer(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
        topup = aza_ai_credit.auto_topup_settings_status(con, practice_id=practice_id)
        return {"ok": True, **budget_of(con, practice_id), "auto_topup": topup}

    return _for_practice(request, answer)


def budget_of(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
    """Tell the snapshot of the practice's licence; without a licence there is extra credit only."""
    from aza_ai_budget import LicenseBudgetRow, compute_budget_snapshot

    found = legacy_store.license_of(con, practice_id)
    if found is not None:
        return compute_budget_snapshot(con, LicenseBudgetRow(*found))
    extra = aza_ai_credit.compute_extra_credit_remaining(
        con, practice_id=practice_id, subscription_id=None, monthly_budget_usd=0.0
    )
    base = {"budget_usd": 0.0, "used_usd": 0.0, "remaining_usd": 0.0}
    return aza_ai_credit.apply_extra_credit_to_snapshot(
        base, extra_remaining=extra, monthly_budget=0.0
    )


@router.get("/v1/ai-credit/history")
def history(request: Request, _: SignedIn) -> dict[str, Any]:
    """List the practice's entries, newest first; `before_id` asks for the next page."""

    def answer(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
        limit = legacy_input.whole(request.query_params, "limit") or 100
        before_id = legacy_input.whole(request.query_params, "before_id")
        items = aza_ai_credit.list_user_credit_history(
            con, practice_id=practice_id, limit=limit, before_id=before_id
        )
        more = bool(items) and len(items) >= limit
        return {"ok": True, "items": items, "next_before_id": items[-1]["id"] if more else None}

    return _for_practice(request, answer)


@router.post("/v1/ai-credit/topup/checkout")
def topup_checkout(request: Request, body: Body) -> dict[str, Any]:
    """Make the page where the practice buys credit for `paid_chf`; what it buys is ours to say."""

    def answer(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
        found = legacy_store.license_of(con, practice_id)
        price = legacy_input.price(body, "paid_chf", aza_ai_credit.DEFAULT_TOPUP_CHF)
        return aza_ai_credit.create_topup_checkout_session(
            practice_id=practice_id,
            subscription_id=found.subscription_id if found else None,
            customer_email=found.customer_email if found else None,
            paid_chf=price,
            internal_usd=aza_ai_credit.chf_to_internal_usd(price),
            success_url=aza_ai_credit.DEFAULT_TOPUP_SUCCESS_URL,
            cancel_url=cancel_url(),
            save_payment_method=bool(legacy_input.flag(body, "save_payment_method")),
        )

    return _for_practice(request, answer)


@router.post("/v1/ai-credit/setup/checkout")
def setup_checkout(request: Request, body: Body) -> dict[str, Any]:
    """Make the page where the practice saves a card for the automatic top-up."""

    def answer(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
        found = legacy_store.license_of(con, practice_id)
        return aza_ai_credit.create_setup_checkout_session(
            practice_id=practice_id,
            customer_email=found.customer_email if found else None,
            success_url=aza_ai_credit.DEFAULT_SETUP_SUCCESS_URL,
            cancel_url=cancel_url(),
        )

    return _for_practice(request, answer)


def cancel_url() -> str:
    """Tell where a page leads whose customer turns back."""
    return config.stripe_cancel_url() or "https://aza-medwork.ch"


@router.get("/v1/ai-credit/auto-topup/settings")
def auto_topup_settings(request: Request, _: SignedIn) -> dict[str, Any]:
    """Tell the automatic top-up's settings, without any id of a card."""
    return _for_practice(
        request,
        lambda con, practice_id: aza_ai_credit.auto_topup_settings_status(
            con, practice_id=practice_id
        ),
    )


@router.post("/v1/ai-credit/auto-topup/settings")
@router.put("/v1/ai-credit/auto-topup/settings")
def change_auto_topup_settings(request: Request, body: Body) -> dict[str, Any]:
    """Switch the automatic top-up on or off; `enabled` is required."""

    def answer(con: sqlite3.Connection, practice_id: str) -> dict[str, Any]:
        enabled = legacy_input.flag(body, "enabled")
        if enabled is None:
            raise InvalidInput("enabled is missing", field="enabled")
        return aza_ai_credit.apply_auto_topup_user_settings(
            con,
            practice_id=practice_id,
            enabled=enabled,
            topup_amount_chf=legacy_input.amount(body, "topup_amount_chf"),
            monthly_limit_chf=legacy_input.amount(body, "monthly_limit_chf"),
            trigger_below_percent=legacy_input.whole(body, "trigger_below_percent"),
            consent_text_version=legacy_input.text(body, "consent_text_version"),
            language=legacy_input.text(body, "language") or "de",
            actor="customer",
        )

    return _for_practice(request, answer)


@router.get("/v1/ai-credit/admin/ledger")
def admin_ledger(request: Request, _: Admin) -> dict[str, Any]:
    """List one practice's entries for the administration; references are masked here too."""

    def answer(con: sqlite3.Connection) -> dict[str, Any]:
        practice_id = legacy_input.text(request.query_params, "practice_id")
        limit = legacy_input.whole(request.query_params, "limit") or 200
        before_id = legacy_input.whole(request.query_params, "before_id")
        entries = aza_ai_credit.list_ledger_for_practice(con, practice_id, limit, before_id)
        return {"ok": True, "practice_id": practice_id, "entries": entries}

    return _connected(answer)
