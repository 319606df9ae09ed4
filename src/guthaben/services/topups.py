"""Top-ups by hand, saving a card, and the automatic top-up's settings with the customer's consent.

Law: our own record is committed before the provider is asked. Only an explicit consent switches
the automatic top-up on, a manual purchase never does. Amounts are Rappen; the credit they buy is
frozen when the purchase is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guthaben.domain.money import nano_usd_for_rappen
from guthaben.errors import InvalidInput, Refused
from guthaben.payments.gateway import PaymentGateway, SetupOrder
from guthaben.services.answers import TopupView, topup_view
from guthaben.services.checkouts import (
    CARD_TEXT_VERSION,
    Checkouts,
    CheckoutStart,
    Progress,
    PurchaseOptions,
)
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of
from guthaben.services.guthaben import Guthaben
from guthaben.store import settings, topups
from guthaben.store.settings import ConsentRow, TopupSettingsRow
from guthaben.store.workspace import Workspace
from guthaben.texts import LANGUAGES

LEAST_RAPPEN = 1_000
MOST_RAPPEN = 500_000
MOST_CAP_RAPPEN = 5_000_000
PURPOSE_SETUP = "ai_topup_setup"
CONSENT_VERSION = "2026-11"


@dataclass(frozen=True, slots=True)
class AutoTopupView:
    """The automatic top-up as its customer may see it; no id of card or customer."""

    practice_id: str
    enabled: bool
    card_saved: bool
    amount_rappen: int
    credit_nano_usd: int
    trigger_percent: int
    trigger_below_nano_usd: int
    cap_rappen: int
    cooldown_s: int
    spent_this_month_rappen: int
    paused_reason: str


@dataclass(frozen=True, slots=True)
class AutoTopupChange:
    """What a customer asks for; switching on or raising amount or cap needs the consent fields."""

    enabled: bool
    amount_rappen: int = 3_000
    trigger_percent: int = 5
    trigger_below_nano_usd: int = 0
    cap_rappen: int = 30_000
    consent_text_version: str = ""
    language: str = "de"
    actor: str = ""


class Topups:
    """Everything a practice does about buying credit."""

    def __init__(
        self, guthaben: Guthaben, gateway: PaymentGateway, *, livemode: bool | None = None
    ) -> None:
        self._guthaben = guthaben
        self._store = guthaben.core.store
        self._gateway = gateway
        self._checkouts = Checkouts(self._store, gateway, livemode=livemode)

    # ---- by hand

    def start_checkout(
        self,
        practice_id: str,
        amount_rappen: int,
        *,
        success_url: str,
        cancel_url: str,
        save_card: bool = False,
        card_text_version: str = CARD_TEXT_VERSION,
        actor: str = "",
        customer_email: str | None = None,
        locale: str | None = None,
    ) -> CheckoutStart:
        """Record a purchase of 10 to 5,000 CHF (a setting), then make the page where it is paid.

        Each call is a purchase of its own. `save_card` records the customer's consent to the text
        of that version. Raises `InvalidAmount`, `PaymentError`; after `PaymentOutcomeUnknown` the
        record stays pending, nothing was paid, and the page is found or closed later.
        """
        practice_id_of(practice_id)
        options = PurchaseOptions(
            success_url=success_url,
            cancel_url=cancel_url,
            save_card=save_card,
            card_text_version=card_text_version,
            actor=actor,
            customer_id=self._customer(practice_id),
            customer_email=customer_email,
            language=locale,
        )
        return self._checkouts.start(practice_id, amount_rappen, options)

    def progress(self, topup_id: str) -> Progress | None:
        """Tell how far a purchase is; credits nothing."""
        return self._checkouts.progress(topup_id)

    def one(self, practice_id: str, topup_id: str) -> TopupView:
        """Look at one top-up; raises `Refused` (`topup_not_found`), also for another's."""
        practice_id_of(practice_id)
        checked_text("topup_id", topup_id, MAX_TEXT)
        found = self._store.read(lambda cur: topups.locate_event(cur, "topup_id", topup_id))
        if found is None or found.practice_id != practice_id:
            raise Refused("No such top-up.", reason="topup_not_found")
        return topup_view(found.event)

    # ---- a saved card

    def start_setup(
        self,
        practice_id: str,
        *,
        success_url: str,
        cancel_url: str,
        customer_email: str | None = None,
        locale: str | None = None,
    ) -> CheckoutStart:
        """Make a page where a card is saved and nothing is paid. It enables nothing by itself."""
        practice_id_of(practice_id)
        order = SetupOrder(
            success_url=success_url,
            cancel_url=cancel_url,
            customer_id=self._customer(practice_id),
            customer_email=customer_email,
            client_reference_id=practice_id,
            metadata={"aza_purpose": PURPOSE_SETUP, "practice_id": practice_id},
            locale=locale,
        )
        return CheckoutStart(self._gateway.create_setup(order).url, "")

    def _customer(self, practice_id: str) -> str | None:
        return self._store.run(lambda space: _settings(space, practice_id)[0].customer_id)

    # ---- the automatic top-up

    def settings(self, practice_id: str) -> AutoTopupView:
        """Tell the automatic top-up's settings and what it spent this month."""
        practice_id_of(practice_id)
        return self._store.run(lambda space: _view(space, practice_id))

    def change_settings(self, practice_id: str, change: AutoTopupChange) -> AutoTopupView:
        """Change the automatic top-up; switching it off acts before the next attempt.

        Switching it on needs a saved card (`no_payment_method`) and a consent to its text, amount
        and cap (`consent_required`): both are refusals.
        """
        practice_id_of(practice_id)
        _check(change)
        return self._store.run(lambda space: _change(space, practice_id, change))


def _settings(space: Workspace, practice_id: str) -> tuple[TopupSettingsRow, bool]:
    """Read the settings, or the defaults; tell whether any are stored."""
    practice = space.practice(practice_id)
    row = settings.load_settings(space.cursor, practice.practice_no, practice.mode)
    return row or TopupSettingsRow(), row is not None


def _view(space: Workspace, practice_id: str) -> AutoTopupView:
    row, _stored = _settings(space, practice_id)
    context = space.claim_context(practice_id)
    return AutoTopupView(
        practice_id=practice_id,
        enabled=row.enabled,
        card_saved=bool(row.customer_id and row.payment_method_id),
        amount_rappen=row.amount_rappen,
        credit_nano_usd=row.credit_nano_usd,
        trigger_percent=row.trigger_percent,
        trigger_below_nano_usd=row.trigger_below_nano_usd,
        cap_rappen=row.cap_rappen,
        cooldown_s=row.cooldown_s,
        spent_this_month_rappen=context.spent_rappen,
        paused_reason=row.paused_reason,
    )


def _check(change: AutoTopupChange) -> None:
    numbers: dict[str, tuple[Any, int, int]] = {
        "amount_rappen": (change.amount_rappen, LEAST_RAPPEN, MOST_RAPPEN),
        "cap_rappen": (change.cap_rappen, LEAST_RAPPEN, MOST_CAP_RAPPEN),
        "trigger_percent": (change.trigger_percent, 1, 100),
        "trigger_below_nano_usd": (change.trigger_below_nano_usd, 0, 10**15),
    }
    for name, (value, least, most) in numbers.items():
        if type(value) is not int or not least <= value <= most:
            raise InvalidInput(f"{name} must be an integer from {least} to {most}", field=name)
    if change.cap_rappen < change.amount_rappen:
        raise InvalidInput("the monthly cap must allow at least one top-up", field="cap_rappen")
    if change.language not in LANGUAGES:
        raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
    if type(change.enabled) is not bool:
        raise InvalidInput("enabled is true or false", field="enabled")
    for name in ("consent_text_version", "actor"):
        checked_text(name, getattr(change, name), MAX_TEXT)


def _change(space: Workspace, practice_id: str, change: AutoTopupChange) -> AutoTopupView:
    practice_no = space.practice_no(practice_id)
    space.flush()
    row, _stored = _settings(space, practice_id)
    if change.enabled:
        if not (row.customer_id and row.payment_method_id):
            raise Refused("Save a card first.", reason="no_payment_method")
        _consent(space, practice_no, row, change)
    row = row._replace(
        enabled=change.enabled,
        amount_rappen=change.amount_rappen,
        credit_nano_usd=nano_usd_for_rappen(change.amount_rappen),
        trigger_percent=change.trigger_percent,
        trigger_below_nano_usd=change.trigger_below_nano_usd,
        cap_rappen=change.cap_rappen,
        paused_reason="" if change.enabled else row.paused_reason,
    )
    mode = space.practice(practice_id).mode
    settings.save_settings(space.cursor, practice_no, mode, row, space.now_s)
    action = "auto_topup_on" if change.enabled else "auto_topup_off"
    detail = f"amount {row.amount_rappen}, cap {row.cap_rappen}, trigger {row.trigger_percent} %"
    settings.audit(space.cursor, practice_no, action, change.actor, detail, space.now_s)
    return _view(space, practice_id)


def _asks_more(row: TopupSettingsRow, change: AutoTopupChange) -> bool:
    """Tell whether a change may lead to more or earlier charges than the settings in force."""
    return (
        change.amount_rappen > row.amount_rappen
        or change.cap_rappen > row.cap_rappen
        or change.trigger_percent > row.trigger_percent
        or change.trigger_below_nano_usd > row.trigger_below_nano_usd
    )


def _consent(
    space: Workspace, practice_no: int, row: TopupSettingsRow, change: AutoTopupChange
) -> None:
    """Record the consent given with this change, or find one that covers it."""
    if change.consent_text_version:
        consent = ConsentRow(
            "portal", change.consent_text_version, change.language, change.actor,
            change.amount_rappen, change.trigger_percent, change.trigger_below_nano_usd,
            change.cap_rappen, space.now_s,
        )  # fmt: skip
        settings.revoke_consents(space.cursor, practice_no, space.now_s)
        settings.add_consent(space.cursor, practice_no, consent)
        return
    known = topups.standing_consent(space.cursor, practice_no)
    if (
        known is None
        or not row.enabled
        or _asks_more(row, change)
        or change.amount_rappen > known.amount_rappen
        or change.cap_rappen > known.cap_rappen
    ):
        raise Refused(
            "The customer must agree to the text, the amount and the monthly cap.",
            reason="consent_required",
        )
