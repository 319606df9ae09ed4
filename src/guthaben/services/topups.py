"""Top-ups by hand, saving a card, and the automatic top-up's settings with the customer's consent.

Law: our own record is committed before the provider is asked. Only an explicit consent switches
the automatic top-up on, a manual purchase never does. Amounts are Rappen; the credit they buy is
frozen when the purchase is made.
"""

from __future__ import annotations

from typing import Required, TypedDict, Unpack

from guthaben.domain.topup import SUCCEEDED
from guthaben.errors import Refused
from guthaben.payments.gateway import PaymentGateway, SetupOrder
from guthaben.services import topup_settings
from guthaben.services.answers import TopupView, topup_view
from guthaben.services.auto_topup import close_payment
from guthaben.services.checkouts import (
    Checkouts,
    CheckoutStart,
    Progress,
    PurchaseOptions,
)
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of
from guthaben.services.consent_texts import (
    CARD_TEXT_VERSION,
    VERSION,
    Terms,
    card_text,
    consent_text,
)
from guthaben.services.guthaben import Guthaben
from guthaben.services.installation import made_here
from guthaben.services.topup_settings import (
    LEAST_RAPPEN,
    MOST_CAP_RAPPEN,
    MOST_RAPPEN,
    AutoTopupChange,
    AutoTopupView,
    settings_of,
)
from guthaben.store import attempts, topups
from guthaben.store.topups import Located
from guthaben.store.workspace import Workspace

__all__ = [
    "CARD_TEXT_VERSION",
    "CONSENT_VERSION",
    "LEAST_RAPPEN",
    "MOST_CAP_RAPPEN",
    "MOST_RAPPEN",
    "AutoTopupChange",
    "AutoTopupView",
    "CheckoutStart",
    "Topups",
]

PURPOSE_SETUP = "ai_topup_setup"
CONSENT_VERSION = VERSION


class Page(TypedDict, total=False):
    """Where a customer comes back to, and in which language the page speaks."""

    success_url: Required[str]
    cancel_url: Required[str]
    customer_email: str | None
    locale: str | None


class Topups:
    """Everything a practice does about buying credit."""

    def __init__(
        self, guthaben: Guthaben, gateway: PaymentGateway, *, livemode: bool | None = None
    ) -> None:
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

    def start_replacement(self, practice_id: str, **page: Unpack[Page]) -> CheckoutStart:
        """Let the customer pay by hand what an automatic charge could not, and save the card anew.

        Payments that a decline left open are cancelled first, so that none is paid beside it.
        Raises `Refused` (`payment_under_way`, `paid_meanwhile`), `PaymentError`.
        """
        practice_id_of(practice_id)
        amount, still_open = self._store.run(lambda space: _unpaid(space, practice_id))
        for located in still_open:
            if not close_payment(self._store.run, self._gateway, located):
                raise Refused("The failed payment is being processed.", reason="payment_under_way")
            if self.one(practice_id, located.event.topup_id).status == SUCCEEDED:
                raise Refused("The failed payment was completed.", reason="paid_meanwhile")
        return self.start_checkout(practice_id, amount, save_card=True, **page)

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
            metadata={**made_here(), "aza_purpose": PURPOSE_SETUP, "practice_id": practice_id},
            locale=locale,
        )
        return CheckoutStart(self._gateway.create_setup(order).url, "")

    def _customer(self, practice_id: str) -> str | None:
        return self._store.run(lambda space: settings_of(space, practice_id)[0].customer_id)

    # ---- the automatic top-up

    def settings(self, practice_id: str) -> AutoTopupView:
        """Tell the automatic top-up's settings and what it spent this month."""
        practice_id_of(practice_id)
        return self._store.run(lambda space: topup_settings.view(space, practice_id))

    def consent_text(self, language: str, terms: Terms, seller: str = "") -> tuple[str, str]:
        """Give the version and the text that a customer agrees to, with these numbers."""
        return VERSION, consent_text(language, terms, seller)

    def card_text(self, language: str) -> tuple[str, str]:
        """Give the version and the text that a customer agrees to whose card is kept."""
        return CARD_TEXT_VERSION, card_text(language)

    def change_settings(self, practice_id: str, change: AutoTopupChange) -> AutoTopupView:
        """Change the automatic top-up; switching it off acts before the next attempt.

        Switching it on needs a saved card (`no_payment_method`) and a consent to its text, amount
        and cap (`consent_required`): both are refusals.
        """
        practice_id_of(practice_id)
        topup_settings.check(change)
        return self._store.run(
            lambda space: topup_settings.change_settings(space, practice_id, change)
        )


def _unpaid(space: Workspace, practice_id: str) -> tuple[int, list[Located]]:
    """Tell what to pay instead of the automatic charge, and which payments are still open."""
    row, _stored = settings_of(space, practice_id)
    found = attempts.left_open(space.cursor, space.practice(practice_id).practice_no)
    still_open = [located._replace(practice_id=practice_id) for located in found]
    prices = [located.event.price_minor or 0 for located in still_open]
    return max([row.amount_rappen, *prices]), still_open
