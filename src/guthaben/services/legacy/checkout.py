"""The old modules' hosted pages: buying credit, saving a card.

Law: a dry run comes before everything, the switch for live payments before Stripe. Where a store is
configured, our own record is committed before the page is made; without one the page's metadata is
the only record, which the old contract allows. Nothing of the automatic top-up matters here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from guthaben import config
from guthaben.domain.commands import CloseEvent
from guthaben.domain.money import format_chf, format_usd
from guthaben.domain.topup import CANCELED, PENDING, TOPUP_PURCHASE
from guthaben.errors import GuthabenError, PaymentOutcomeUnknown
from guthaben.payments.gateway import (
    METADATA_TOPUP_ID,
    CheckoutOrder,
    HostedPage,
    SetupOrder,
    SubscriptionOrder,
)
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.auto_topup import new_topup_id
from guthaben.services.checkouts import PURPOSE_TOPUP
from guthaben.services.installation import made_here
from guthaben.services.legacy.store import books, configured
from guthaben.services.purchases import PaymentNotice, open_purchase
from guthaben.services.topups import PURPOSE_SETUP
from guthaben.store.legacy.schema import Connection

DRY_RUN = "dry_run"
BLOCKED = "LIVE_TOPUP_BLOCKED"


class Page(NamedTuple):
    """A page that was made, or why there is none (`dry_run`, or an error's code)."""

    page: HostedPage | None
    refused: str = ""


class Purchase(NamedTuple):
    """What is bought; the credit is frozen here and never computed again."""

    practice_id: str
    license: str
    price_rappen: int
    credit_nano_usd: int
    customer_email: str | None


def buy_credit(purchase: Purchase, *, success_url: str, cancel_url: str, save_card: bool) -> Page:
    """Make the page where credit is paid. Raises `InvalidAmount`, `PaymentError`."""
    refused = _refused()
    if refused:
        return Page(None, refused)
    metadata = {
        **made_here(),
        "aza_purpose": PURPOSE_TOPUP,
        "practice_id": purchase.practice_id,
        "subscription_id": purchase.license,
        _CREDIT: format_usd(purchase.credit_nano_usd),
        _PAID: format_chf(purchase.price_rappen),
    }
    order = CheckoutOrder(
        amount_rappen=purchase.price_rappen,
        description="KI-Zusatzguthaben",
        success_url=success_url,
        cancel_url=cancel_url,
        customer_email=purchase.customer_email or None,
        metadata=metadata,
        save_payment_method=save_card,
    )
    gateway = _gateway()
    with configured() as con:
        if con is None:
            return Page(gateway.create_checkout(order))
        return Page(_recorded(con, gateway, purchase, order))


_CREDIT, _PAID = "internal_credit_usd", "paid_chf"


def _recorded(
    con: Connection, gateway: StripeGateway, purchase: Purchase, order: CheckoutOrder
) -> HostedPage:
    """Commit our own record, make the page, and note the page on the record."""
    run, topup_id = books(con).run, new_topup_id()
    notice = PaymentNotice(
        purchase.practice_id, TOPUP_PURCHASE, purchase.credit_nano_usd, purchase.price_rappen,
        purchase.license, topup_id=topup_id, livemode=config.livemode_expected(),
        customer_email=purchase.customer_email,
    )  # fmt: skip
    event_no = run(lambda space: open_purchase(space, notice).event_no)
    named = replace(
        order,
        metadata={**order.metadata, METADATA_TOPUP_ID: topup_id},
        client_reference_id=topup_id,
        idempotency_key=f"guthaben-{topup_id}",
    )
    try:
        page = gateway.create_checkout(named)
    except PaymentOutcomeUnknown:
        raise
    except GuthabenError as error:
        close = CloseEvent(event_no, CANCELED, reason=error.code)
        run(lambda space: space.apply(purchase.practice_id, close))
        raise
    noted = CloseEvent(event_no, PENDING, session_id=page.session_id)
    run(lambda space: space.apply(purchase.practice_id, noted))
    return page


def save_card(
    practice_id: str, *, customer_email: str | None, success_url: str, cancel_url: str
) -> Page:
    """Make the page where a card is saved and nothing is paid. Raises `PaymentError`."""
    refused = _refused()
    if refused:
        return Page(None, refused)
    order = SetupOrder(
        success_url=success_url,
        cancel_url=cancel_url,
        customer_email=customer_email or None,
        client_reference_id=practice_id,
        metadata={**made_here(), "aza_purpose": PURPOSE_SETUP, "practice_id": practice_id},
    )
    return Page(_gateway().create_setup(order))


def subscribe(order: SubscriptionOrder) -> Page:
    """Make the page where a subscription begins; no switch of the top-ups matters for it."""
    if config.stripe_secret_key() is None:
        return Page(None, "STRIPE_NOT_CONFIGURED")
    marked = replace(order, metadata={**made_here(), **order.metadata})
    return Page(_gateway().create_subscription_checkout(marked))


def answered(make: Callable[[], Page]) -> dict[str, Any]:
    """Say what became of a page in the old modules' words; `checkout_url` is always there."""
    answer: dict[str, Any] = {"ok": True, "dry_run": False, "checkout_url": None}
    try:
        page, refused = make()
    except GuthabenError as error:
        page, refused = None, error.code.upper()
    if page is not None:
        return {**answer, "checkout_url": page.url, "session_id": page.session_id}
    if refused == DRY_RUN:
        return {**answer, "dry_run": True}
    return {**answer, "ok": False, "error_code": refused, "message_user": _NO_PAGE}


_NO_PAGE = "Die Zahlungsseite kann gerade nicht geöffnet werden. Bitte versuchen Sie es später."


def _refused() -> str:
    if config.topup_dry_run():
        return DRY_RUN
    live = config.topup_allow_live() and config.stripe_secret_key() is not None
    return "" if live else BLOCKED


def _gateway() -> StripeGateway:
    return StripeGateway(config.stripe_secret_key(), api_base=config.stripe_api_base())
