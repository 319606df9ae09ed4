"""Purchases by hand: from an amount to a hosted page, and what has become of it since.

Law: our own record, with exactly what will be asked, is committed before the provider is asked. A
lost answer is asked for again with the same key, never with a new one. Looking credits nothing.
What closes pages that nobody paid on is in `closing`.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple

from guthaben import config
from guthaben.domain.commands import CloseEvent
from guthaben.domain.money import format_chf, format_usd, nano_usd_for_rappen
from guthaben.domain.topup import CANCELED, FAILED, PENDING, QUARANTINED, SUCCEEDED, TOPUP_PURCHASE
from guthaben.errors import (
    GuthabenError,
    InvalidAmount,
    InvalidInput,
    PaymentError,
    PaymentOutcomeUnknown,
    PaymentRejected,
)
from guthaben.payments.gateway import (
    METADATA_TOPUP_ID,
    CheckoutOrder,
    HostedPage,
    PaymentGateway,
)
from guthaben.services.auto_topup import new_topup_id
from guthaben.services.checks import MAX_TEXT, checked_text
from guthaben.services.consent_texts import CARD_TEXT_VERSION
from guthaben.services.installation import made_here
from guthaben.services.purchases import PaymentNotice, open_purchase
from guthaben.store import checkouts, topups
from guthaben.store.checkouts import CardConsent
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from guthaben.texts import LANGUAGES, show, text

PURPOSE_TOPUP: Final = "ai_topup"
METADATA_SAVE_CARD: Final = "save_card"
TWINT_MOST_RAPPEN: Final = 500_000
TOPUP_ID_PLACEHOLDER: Final = "{TOPUP_ID}"

State = Literal["open", "processing", "paid", "credited", "review", "closed", "failed"]

_STATES: Final[dict[str, State]] = {
    SUCCEEDED: "credited",
    QUARANTINED: "review",
    CANCELED: "closed",
    FAILED: "failed",
}
_BELIEVED_MS: Final = 3_000
_MOST_BELIEVED: Final = 1_000


@dataclass(frozen=True, slots=True)
class CheckoutStart:
    """Where to send the customer, and our id of what was started (empty for a set-up)."""

    url: str
    topup_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseOptions:
    """How a purchase is made. `{TOPUP_ID}` in an address becomes the id of the purchase.

    `save_card` says that the customer agreed to `consent_texts.card_text` in `language`, and
    `actor` who said so. Without a language the practice's own is used.
    """

    success_url: str
    cancel_url: str
    save_card: bool = False
    card_text_version: str = CARD_TEXT_VERSION
    actor: str = ""
    customer_id: str | None = None
    customer_email: str | None = None
    language: str | None = None


class Progress(NamedTuple):
    """How far a purchase has come; `paid` says that the money came and the credit is on its way."""

    practice_id: str
    topup_id: str
    state: State
    price_rappen: int
    credit_nano_usd: int


class Checkouts:
    """Begins purchases by hand, and tells how far they are."""

    def __init__(
        self, store: Store, gateway: PaymentGateway, *, livemode: bool | None = None
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._livemode = livemode
        self._told: dict[str, tuple[int, State]] = {}
        self._lock = threading.Lock()

    def start(
        self, practice_id: str, amount_rappen: int, options: PurchaseOptions
    ) -> CheckoutStart:
        """Record a purchase, then make the page where it is paid; see `Topups.start_checkout`."""
        check_amount(amount_rappen)
        if options.language is not None and options.language not in LANGUAGES:
            raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
        for name in ("card_text_version", "actor"):
            checked_text(name, getattr(options, name), MAX_TEXT)
        language = options.language or self._language(practice_id)
        notice = PaymentNotice(
            practice_id, TOPUP_PURCHASE, nano_usd_for_rappen(amount_rappen), amount_rappen,
            topup_id=new_topup_id(), livemode=self._livemode,
            customer_email=options.customer_email,
        )  # fmt: skip
        order = _order(notice, options, language)
        consent = _card_consent(options, language)
        event_no = self._store.run(lambda space: _record(space, notice, order, consent))
        page = self._page(practice_id, event_no, order)
        return CheckoutStart(page.url, notice.topup_id)

    def _language(self, practice_id: str) -> str:
        known = self._store.read(lambda cur: checkouts.language_of(cur, practice_id))
        return known or config.default_language()

    def _page(self, practice_id: str, event_no: int, order: CheckoutOrder) -> HostedPage:
        try:
            page = self._asked(order)
        except PaymentOutcomeUnknown:
            raise  # the record stays open: it is asked for again later, or closed
        except GuthabenError as error:
            code = error.code
            self._store.run(lambda space: close_record(space, practice_id, event_no, code))
            raise
        self._store.run(lambda space: note_page(space, practice_id, event_no, page.session_id))
        return page

    def _asked(self, order: CheckoutOrder) -> HostedPage:
        """Ask for the page, and once more with the same key where the answer was lost."""
        try:
            return self._gateway.create_checkout(order)
        except PaymentOutcomeUnknown as lost:
            try:
                return self._gateway.create_checkout(order)
            except PaymentRejected:
                raise  # the same request is refused as it is: the first one made nothing either
            except PaymentError:
                raise lost from None

    # ---- looking

    def progress(self, topup_id: str) -> Progress | None:
        """Tell how far a purchase by hand is, whoever asks; None for an id that is nobody's.

        The id is the secret. Reads only: while nothing was told by webhook the provider is asked,
        at most once in three seconds, and never for a credit.
        """
        checked_text("topup_id", topup_id, MAX_TEXT)
        found = self._store.read(lambda cur: topups.locate_event(cur, "topup_id", topup_id))
        if found is None or found.event.event_type != TOPUP_PURCHASE:
            return None
        event = found.event
        state = _STATES.get(event.status) or self._asked_state(topup_id, event.session_id)
        return Progress(
            found.practice_id, topup_id, state, event.price_minor or 0, event.amount_nano_usd
        )

    def _asked_state(self, topup_id: str, session_id: str) -> State:
        now_ms = self._store.clock_ms()
        with self._lock:
            until_ms, state = self._told.get(topup_id, (0, "open"))
            if now_ms < until_ms or not session_id:
                return state
            if len(self._told) >= _MOST_BELIEVED:
                self._told.clear()
            # Noted before asking: whoever comes meanwhile hears what was known.
            self._told[topup_id] = (now_ms + _BELIEVED_MS, state)
        try:
            page = self._gateway.retrieve_checkout(session_id)
        except PaymentError:
            return state
        if page.status == "complete":
            state = "paid" if page.payment_status == "paid" else "processing"
        elif page.status == "expired":
            state = "closed"
        with self._lock:
            self._told[topup_id] = (now_ms + _BELIEVED_MS, state)
        return state


def check_amount(amount_rappen: object) -> None:
    """Refuse what no purchase by hand may cost."""
    least, most = config.topup_limits_rappen()
    if type(amount_rappen) is not int or not least <= amount_rappen <= most:
        raise InvalidAmount(
            f"a top-up is {format_chf(least)} to {format_chf(most)} CHF, in whole Rappen"
        )


def methods_for(amount_rappen: int) -> tuple[str, ...]:
    """Say what a purchase may be paid with: a TWINT takes no more than 5,000 CHF."""
    methods = config.checkout_methods()
    if amount_rappen <= TWINT_MOST_RAPPEN:
        return methods
    return tuple(method for method in methods if method != "twint") or ("card",)


def note_page(space: Workspace, practice_id: str, event_no: int, session_id: str) -> None:
    """Note the page of a purchase, and forget what was ordered."""
    space.apply(practice_id, CloseEvent(event_no, PENDING, session_id=session_id))
    checkouts.page_known(space.cursor, space.practice_no(practice_id), event_no)


def close_record(space: Workspace, practice_id: str, event_no: int, reason: str) -> None:
    """Close a purchase that nobody can pay any more; a late payment is credited all the same."""
    space.apply(practice_id, CloseEvent(event_no, CANCELED, reason=reason))
    checkouts.page_over(space.cursor, space.practice_no(practice_id), event_no)


def order_from(order_json: str) -> CheckoutOrder:
    """Make the very order that was asked for before."""
    fields = json.loads(order_json)
    methods = fields.pop("payment_method_types")
    return CheckoutOrder(**fields, payment_method_types=tuple(methods) if methods else None)


def _record(
    space: Workspace, notice: PaymentNotice, order: CheckoutOrder, consent: CardConsent | None
) -> int:
    event_no = open_purchase(space, notice).event_no
    practice_no = space.practice_no(notice.practice_id)
    asked = json.dumps(asdict(order), sort_keys=True)
    look_at_s = space.now_s + config.checkout_open_s()
    checkouts.add_page(space.cursor, practice_no, event_no, asked, look_at_s)
    if consent is not None:
        given = consent._replace(given_at_s=space.now_s)
        checkouts.add_card_consent(space.cursor, practice_no, event_no, given)
    return event_no


def _card_consent(options: PurchaseOptions, language: str) -> CardConsent | None:
    if not options.save_card:
        return None
    return CardConsent(options.card_text_version, language, options.actor, 0)


def _order(notice: PaymentNotice, options: PurchaseOptions, language: str) -> CheckoutOrder:
    credit = show.usd_exact(notice.credit_nano_usd)
    amount_rappen = notice.price_rappen or 0
    return CheckoutOrder(
        amount_rappen=amount_rappen,
        description=text("checkout.item", language),
        details=text("checkout.details", language, credit_usd=credit),
        note=text("checkout.note", language),
        success_url=options.success_url.replace(TOPUP_ID_PLACEHOLDER, notice.topup_id),
        cancel_url=options.cancel_url.replace(TOPUP_ID_PLACEHOLDER, notice.topup_id),
        customer_id=options.customer_id,
        customer_email=options.customer_email,
        client_reference_id=notice.topup_id,
        metadata=_metadata(notice, options.save_card),
        save_payment_method=options.save_card,
        locale=language,
        idempotency_key=f"guthaben-{notice.topup_id}",
        payment_method_types=methods_for(amount_rappen),
    )


def _metadata(notice: PaymentNotice, save_card: bool) -> dict[str, str]:
    wish = {METADATA_SAVE_CARD: "1"} if save_card else {}
    return {
        **wish,
        **made_here(),
        "aza_purpose": PURPOSE_TOPUP,
        "practice_id": notice.practice_id,
        "internal_credit_usd": format_usd(notice.credit_nano_usd),
        "paid_chf": format_chf(notice.price_rappen or 0),
        METADATA_TOPUP_ID: notice.topup_id,
    }
