"""Extra AI credit as the application knows it: ledger, top-ups, automatic top-up, Stripe's events.

It translates names, floats and dicts; what happens is Guthaben's. Functions with a `con` use the
caller's connection alone, leave an open transaction to the caller, and commit otherwise. A charge
is never made inside a caller's open transaction. The environment is read when they are called.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from guthaben import config
from guthaben.domain.money import (
    float_from_nano_usd,
    float_from_rappen,
    nano_usd_for_rappen,
    nano_usd_from_float,
    rappen_from_float,
)
from guthaben.payments import ids
from guthaben.services.legacy import auto_topup as legacy_auto_topup
from guthaben.services.legacy import checkout as legacy_checkout
from guthaben.services.legacy import ledger as legacy_ledger
from guthaben.services.legacy import payments as legacy_payments
from guthaben.services.legacy import settings as legacy_settings
from guthaben.services.legacy import store as legacy_store
from guthaben.services.legacy import usage as legacy_usage
from guthaben.services.legacy.plans import practice_of
from guthaben.services.legacy.settings import TopupSettingsRow, whole_percent

AUTO_TOPUP_COOLDOWN_SEC: Final = 86_400
DEFAULT_TOPUP_CHF: Final = 30.0
DEFAULT_INTERNAL_USD: Final = 10.0
DEFAULT_MONTHLY_LIMIT_CHF: Final = 300.0
DEFAULT_TRIGGER_PERCENT: Final = 5
DEFAULT_SETUP_SUCCESS_URL: Final = "https://aza-medwork.ch/ki-topup-setup-success/"
DEFAULT_TOPUP_SUCCESS_URL: Final = "https://aza-medwork.ch/succes2"

mask_stripe_reference = ids.mask_stripe_reference
normalize_stripe_id = ids.normalize_stripe_id


@dataclass
class TopupSettings:
    """The automatic top-up of one practice; amounts in CHF and USD."""

    practice_id: str
    auto_topup_enabled: bool
    topup_amount_chf: float
    internal_credit_usd: float
    trigger_below_percent: int
    monthly_limit_chf: float
    stripe_customer_id: str | None
    default_payment_method_id: str | None


# ---------------------------------------------------------------- amounts


def chf_to_internal_usd(chf: float) -> float:
    """Convert a price to the credit it buys: CHF / 3, to four decimals."""
    return float_from_nano_usd(nano_usd_for_rappen(rappen_from_float(chf)))


def apply_extra_credit_to_snapshot(
    base: dict[str, Any], *, extra_remaining: float, monthly_budget: float
) -> dict[str, Any]:
    """Return the snapshot with extra credit and `available_percent`, which may exceed 100.

    The percentage is rounded down to hundredths, and an int where it is whole. Without a budget it
    is 100 while there is any credit.
    """
    extra, budget = nano_usd_from_float(extra_remaining), nano_usd_from_float(monthly_budget)
    available = nano_usd_from_float(base.get("remaining_usd") or 0) + extra
    hundredths = available * 10_000 // budget if budget > 0 else (available > 0) * 10_000
    whole, rest = divmod(hundredths, 100)
    return {
        **base,
        "extra_credit_remaining_usd": float_from_nano_usd(extra),
        "available_percent": hundredths / 100 if rest else whole,
    }


def compute_extra_credit_remaining(
    con: sqlite3.Connection,
    *,
    practice_id: str | None,
    subscription_id: str | None,
    monthly_budget_usd: float,
) -> float:
    """Tell the extra credit that is left in USD, never below 0; it survives every period.

    What the months used of it is booked already, so `monthly_budget_usd` changes nothing.
    """
    books, owner = legacy_store.books(con), practice_of(practice_id, subscription_id)
    now_s = books.now_s()
    return float_from_nano_usd(
        books.read(lambda cursor: legacy_usage.extra_credit(cursor, owner, now_s))
    )


# ---------------------------------------------------------------- the ledger


def ensure_ai_credit_schema(con: sqlite3.Connection) -> None:
    """Have all tables and the old views, taking over old tables once. Idempotent.

    Raises `MigrationNeeded` when old rows can't be explained; then nothing was changed.
    """
    legacy_store.ensure(con)


def insert_ledger_event(
    con: sqlite3.Connection,
    *,
    practice_id: str | None,
    subscription_id: str | None,
    customer_email: str | None,
    event_type: str,
    amount_internal_usd: float,
    amount_paid_chf: float | None = None,
    stripe_checkout_session_id: str | None = None,
    stripe_payment_intent_id: str | None = None,
    status: str = "pending",
    meta: dict[str, Any] | None = None,
) -> int:
    """Write a ledger entry and return its id; only a succeeded one gives (or takes) credit.

    Raises `sqlite3.IntegrityError` when its payment or session was credited before, `ValueError`
    for an unknown status or an amount out of range. Secrets in `meta` are left out.
    """
    entry = legacy_ledger.Entry(
        practice_of(practice_id, subscription_id),
        subscription_id or "",
        event_type,
        nano_usd_from_float(amount_internal_usd),
        None if amount_paid_chf is None else rappen_from_float(amount_paid_chf),
        stripe_checkout_session_id or "",
        stripe_payment_intent_id or "",
        status,
        customer_email,
        meta,
    )
    return legacy_store.books(con).run(lambda space: legacy_ledger.write(space, entry))


def ledger_exists_for_checkout(con: sqlite3.Connection, checkout_session_id: str | None) -> bool:
    """Tell whether this checkout session was credited."""
    books = legacy_store.books(con)
    return books.read(lambda cur: legacy_ledger.is_credited(cur, "session", checkout_session_id))


def ledger_exists_for_payment_intent(con: sqlite3.Connection, payment_id: str | None) -> bool:
    """Tell whether this payment was credited."""
    books = legacy_store.books(con)
    return books.read(lambda cur: legacy_ledger.is_credited(cur, "payment", payment_id))


def list_user_credit_history(
    con: sqlite3.Connection, *, practice_id: str, limit: int = 100, before_id: int | None = None
) -> list[dict[str, Any]]:
    """List a practice's entries, newest first, failed ones and refunds too; references masked."""
    books = legacy_store.books(con)
    rows = books.read(lambda cur: legacy_ledger.page(cur, practice_id, limit, before_id))
    return [legacy_ledger.history_row(row) for row in rows]


def list_ledger_for_practice(
    con: sqlite3.Connection, practice_id: str, limit: int = 200, before_id: int | None = None
) -> list[dict[str, Any]]:
    """List a practice's entries for the administration, newest first; references masked."""
    books = legacy_store.books(con)
    rows = books.read(lambda cur: legacy_ledger.page(cur, practice_id, limit, before_id))
    return [legacy_ledger.admin_row(row, practice_id) for row in rows]


# ---------------------------------------------------------------- settings


def get_topup_settings(con: sqlite3.Connection, practice_id: str) -> TopupSettings:
    """Read a practice's settings; one that has none gets the defaults, switched off."""
    row = legacy_store.books(con).look(lambda space: legacy_settings.load(space, practice_id))
    return TopupSettings(
        practice_id=practice_id,
        auto_topup_enabled=row.enabled,
        topup_amount_chf=float_from_rappen(row.amount_rappen),
        internal_credit_usd=float_from_nano_usd(row.credit_nano_usd),
        trigger_below_percent=row.trigger_percent,
        monthly_limit_chf=float_from_rappen(row.cap_rappen),
        stripe_customer_id=row.customer_id,
        default_payment_method_id=row.payment_method_id,
    )


def save_topup_settings(con: sqlite3.Connection, settings: TopupSettings) -> None:
    """Store settings exactly as given, ids that are None too.

    Switched on, they count as the customer's consent to amount and limit: the host vouches for it.
    """
    row = TopupSettingsRow(
        enabled=bool(settings.auto_topup_enabled),
        amount_rappen=rappen_from_float(settings.topup_amount_chf),
        credit_nano_usd=nano_usd_from_float(settings.internal_credit_usd),
        trigger_percent=whole_percent(settings.trigger_below_percent),
        cap_rappen=rappen_from_float(settings.monthly_limit_chf),
        customer_id=settings.stripe_customer_id or None,
        payment_method_id=settings.default_payment_method_id or None,
    )
    practice_id = practice_of(settings.practice_id, None)
    legacy_store.books(con).run(lambda space: legacy_settings.save(space, practice_id, row))


def auto_topup_is_fully_configured(settings: TopupSettings) -> bool:
    """Tell whether a customer and a payment method are there to be charged."""
    return bool(settings.stripe_customer_id and settings.default_payment_method_id)


def auto_topup_settings_status(con: sqlite3.Connection, *, practice_id: str) -> dict[str, Any]:
    """Tell the settings as their customer may see them: no id of card or customer."""
    return legacy_store.books(con).look(lambda space: legacy_settings.status(space, practice_id))


def apply_auto_topup_user_settings(
    con: sqlite3.Connection,
    *,
    practice_id: str,
    enabled: bool,
    topup_amount_chf: float | None = None,
    monthly_limit_chf: float | None = None,
    trigger_below_percent: int | None = None,
    consent_text_version: str = "",
    language: str = "de",
    actor: str = "",
) -> dict[str, Any]:
    """Switch the automatic top-up on or off for its customer; card and ledger stay as they are.

    Switching on needs a saved card, and the text version with amount and limit, unless what was
    agreed to before still covers both.
    """
    asked = legacy_settings.Change(
        bool(enabled),
        None if topup_amount_chf is None else rappen_from_float(topup_amount_chf),
        None if monthly_limit_chf is None else rappen_from_float(monthly_limit_chf),
        None if trigger_below_percent is None else whole_percent(trigger_below_percent),
        consent_text_version,
        language,
        actor,
    )
    owner = practice_of(practice_id, None)
    return legacy_store.books(con).run(
        lambda space: legacy_settings.change(space, owner, asked).answer(space, owner)
    )


def sum_auto_topups_chf_this_month(con: sqlite3.Connection, practice_id: str) -> float:
    """Add up this calendar month's succeeded automatic top-ups, in CHF."""
    books = legacy_store.books(con)
    now_s = books.now_s()
    return float_from_rappen(
        books.read(lambda cur: legacy_ledger.spent_this_month(cur, practice_id, now_s))
    )


def last_successful_auto_topup_ts(con: sqlite3.Connection, practice_id: str) -> int | None:
    """Tell when the newest automatic top-up succeeded, in seconds since 1970."""
    books = legacy_store.books(con)
    return books.read(lambda cur: legacy_ledger.last_success_at_s(cur, practice_id))


def has_pending_auto_topup(con: sqlite3.Connection, practice_id: str) -> bool:
    """Tell whether an automatic top-up has no outcome yet."""
    return legacy_store.books(con).read(lambda cur: legacy_ledger.in_flight(cur, practice_id))


def maybe_run_auto_topup_for_practice(
    con: sqlite3.Connection,
    *,
    practice_id: str,
    available_percent: float,
    dry_run: bool | None = None,
    subscription_id: str | None = None,
) -> dict[str, Any]:
    """Charge the saved card if settings, limits and switches allow it; `reason` tells what came.

    The attempt is committed before the charge. Inside a caller's open transaction nothing is
    charged (`caller_transaction_open`). `dry_run=True` simulates; False can't undo the switches.
    """
    done = legacy_auto_topup.run_for_practice(
        legacy_store.books(con),
        practice_of(practice_id, subscription_id),
        # Nothing left at all is low whatever the trigger: the next call would be refused.
        is_below=lambda trigger: available_percent < trigger or available_percent <= 0,
        dry_run=dry_run is True,
        license=subscription_id or "",
    )
    return done.answer()


# ---------------------------------------------------------------- hosted pages


def create_setup_checkout_session(
    *, practice_id: str, customer_email: str | None, success_url: str, cancel_url: str
) -> dict[str, Any]:
    """Make the page where a card is saved; `checkout_url` is None in a dry run."""
    return legacy_checkout.answered(
        lambda: legacy_checkout.save_card(
            practice_id,
            customer_email=customer_email,
            success_url=success_url,
            cancel_url=cancel_url,
        )
    )


def create_topup_checkout_session(
    *,
    practice_id: str,
    subscription_id: str | None,
    customer_email: str | None,
    paid_chf: float,
    internal_usd: float,
    success_url: str,
    cancel_url: str,
    save_payment_method: bool = False,
) -> dict[str, Any]:
    """Make the page where credit is paid; price and credit are taken as given and frozen.

    `checkout_url` is None in a dry run. The limit of the automatic top-up plays no part.
    """
    purchase = legacy_checkout.Purchase(
        practice_of(practice_id, subscription_id),
        subscription_id or "",
        rappen_from_float(paid_chf),
        nano_usd_from_float(internal_usd),
        customer_email,
    )
    return legacy_checkout.answered(
        lambda: legacy_checkout.buy_credit(
            purchase, success_url=success_url, cancel_url=cancel_url, save_card=save_payment_method
        )
    )


# ---------------------------------------------------------------- Stripe's events


def process_topup_checkout_completed(con: sqlite3.Connection, *, session: object) -> dict[str, Any]:
    """Credit a paid checkout once; an unpaid one leaves a failed entry, and may be paid later."""
    return _told(con, legacy_payments.checkout_completed, session)


def process_topup_payment_intent_succeeded(
    con: sqlite3.Connection, *, payment_intent: object
) -> dict[str, Any]:
    """Credit a payment made by hand once, whether or not its checkout was told before."""
    return _told(con, legacy_payments.payment_succeeded, payment_intent)


def process_auto_topup_payment_intent_succeeded(
    con: sqlite3.Connection, *, payment_intent: object
) -> dict[str, Any]:
    """Credit an automatic top-up once, also one that needed its customer first."""
    return _told(con, legacy_payments.automatic_payment_succeeded, payment_intent)


def process_setup_checkout_completed(con: sqlite3.Connection, *, session: object) -> dict[str, Any]:
    """Keep what a set-up page saved; with customer and card the automatic top-up is on."""
    return _told(con, legacy_settings.checkout_set_up, session)


def process_setup_intent_succeeded(
    con: sqlite3.Connection, *, setup_intent: object
) -> dict[str, Any]:
    """Keep a saved card; with its customer the automatic top-up is on."""
    return _told(con, legacy_settings.intent_set_up, setup_intent)


def _told(
    con: sqlite3.Connection, apply: legacy_payments.Processor, source: object
) -> dict[str, Any]:
    done = legacy_store.books(con).run(lambda space: apply(space, source, config.livemode_expected))
    return done.answer()
