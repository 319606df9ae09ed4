"""The application's HTTP routes for Stripe: its webhook, and the checkout of a subscription.

Law: an event is verified over its raw bytes before anything of it is read, applied in one
transaction, and answered 200 after the commit; what is none of ours is ignored with 200. Nothing
here asks Stripe while a transaction is open. `licenses` is the host's and stays untouched.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

import aza_ai_credit
from aza_ai_credit_routes import Body, cancel_url, connection, problem
from guthaben import config
from guthaben.errors import InvalidInput, StoreUnavailable, WebhookRejected
from guthaben.payments.gateway import SubscriptionOrder
from guthaben.payments.reading import texts
from guthaben.payments.webhook import LARGEST_BODY, WebhookEvent, verify
from guthaben.services.legacy import checkout as legacy_checkout
from guthaben.services.legacy import input as legacy_input
from guthaben.services.legacy import store as legacy_store

log = logging.getLogger("guthaben.legacy")

router = APIRouter()

_NO_STORE: Final = "Das KI-Guthaben ist gerade nicht erreichbar."
_REJECTED: Final = "Diese Nachricht wurde nicht angenommen."
_NO_URL: Final = "Es ist keine Rücksprungadresse eingerichtet."
_BAD_INPUT: Final = "Die Angaben konnten nicht gelesen werden."


def __getattr__(name: str) -> Any:
    """Give the subscription's addresses as they are set now, not as they were at import."""
    if name == "STRIPE_SUCCESS_URL":
        return config.stripe_success_url() or ""
    if name == "STRIPE_CANCEL_URL":
        return config.stripe_cancel_url() or ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---------------------------------------------------------------- the webhook

Processor = Callable[[sqlite3.Connection, Any], dict[str, Any]]


_OURS: Final = frozenset({"ai_topup", "ai_auto_topup"})


def _purpose(source: Any) -> str:
    return texts(source, "metadata").get("aza_purpose", "")


def _checkout(con: sqlite3.Connection, source: Any) -> dict[str, Any]:
    if _purpose(source) == "ai_topup_setup":
        return aza_ai_credit.process_setup_checkout_completed(con, session=source)
    return aza_ai_credit.process_topup_checkout_completed(con, session=source)


def _payment(con: sqlite3.Connection, source: Any) -> dict[str, Any]:
    if _purpose(source) == "ai_auto_topup":
        return aza_ai_credit.process_auto_topup_payment_intent_succeeded(con, payment_intent=source)
    return aza_ai_credit.process_topup_payment_intent_succeeded(con, payment_intent=source)


def _setup(con: sqlite3.Connection, source: Any) -> dict[str, Any]:
    return aza_ai_credit.process_setup_intent_succeeded(con, setup_intent=source)


_PROCESSORS: Final[dict[str, Processor]] = {
    "checkout.session.completed": _checkout,
    "checkout.session.async_payment_succeeded": _checkout,
    "payment_intent.succeeded": _payment,
    "setup_intent.succeeded": _setup,
}


@router.post("/stripe/webhook")
async def webhook(request: Request) -> dict[str, Any]:
    """Take one of Stripe's events; 400 for a forged one, 503 to have it sent again."""
    body = await _raw(request)
    try:
        event = verify(
            body,
            request.headers.get("stripe-signature"),
            config.stripe_webhook_secrets(),
            int(time.time()),
            livemode_expected=config.livemode_expected(),
        )
    except WebhookRejected as rejected:
        log.warning("a webhook was rejected: %s", rejected.reason)
        if rejected.authentic:  # signed rightly, and still not for us: not to be sent again
            return {"received": True, "handled": False, "reason": rejected.reason}
        raise problem(400, "WEBHOOK_REJECTED", _REJECTED) from None
    return await run_in_threadpool(_apply, event)


async def _raw(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise problem(400, "WEBHOOK_REJECTED", _REJECTED)
    return body


def _apply(event: WebhookEvent) -> dict[str, Any]:
    try:
        with connection() as con:
            if con is None:
                raise problem(503, "STORE_NOT_CONFIGURED", _NO_STORE)
            with legacy_store.one_transaction(con):
                told = _dispatch(con, event)
    except (StoreUnavailable, sqlite3.OperationalError) as error:
        log.warning("an event could not be applied: %s", type(error).__name__)
        raise problem(503, "STORE_UNAVAILABLE", _NO_STORE) from error
    return {"received": True, **told}


def _dispatch(con: sqlite3.Connection, event: WebhookEvent) -> dict[str, Any]:
    processor = _PROCESSORS.get(event.type)
    if processor is not None:
        told = processor(con, event.object)
        names = ("handled", "credited", "duplicate", "quarantined", "reason")
        return {name: told[name] for name in names if told.get(name)}
    try:
        status, reason = legacy_store.apply_told(con, event.type, event.object)
    except InvalidInput as error:
        if _purpose(event.object) not in _OURS:
            return {"handled": False, "reason": "not_ours"}
        # A refund whose purchase we have not heard of yet: Stripe tells it again.
        raise problem(503, "NOT_YET", _NO_STORE) from error
    return {"handled": status != "ignored", "reason": reason or None}


# ---------------------------------------------------------------- a subscription


@router.post("/stripe/checkout")
def subscription_checkout(body: Body) -> dict[str, Any]:
    """Make the page where a subscription begins: `lookup_key` or `price_id`, and its customer."""
    success_url = config.stripe_success_url()
    if success_url is None:
        raise problem(503, "STRIPE_NOT_CONFIGURED", _NO_URL)
    try:
        order = SubscriptionOrder(
            success_url=success_url,
            cancel_url=cancel_url(),
            price_id=legacy_input.text(body, "price_id") or None,
            lookup_key=legacy_input.text(body, "lookup_key") or None,
            quantity=legacy_input.whole(body, "quantity") or 1,
            customer_email=legacy_input.text(body, "customer_email") or None,
            client_reference_id=legacy_input.text(body, "practice_id") or None,
            metadata=_metadata(body),
        )
    except ValueError as error:
        raise problem(400, "INVALID_INPUT", _BAD_INPUT) from error
    return legacy_checkout.answered(lambda: legacy_checkout.subscribe(order))


def _metadata(body: dict[str, Any]) -> dict[str, str]:
    said = {name: legacy_input.text(body, name) for name in ("practice_id", "lookup_key")}
    return {name: value for name, value in said.items() if value}
