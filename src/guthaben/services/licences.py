"""Licences: buying one, looking at it, telling it by hand, and asking the provider anew.

Law: our own record of a purchase is committed before the provider is asked for its page. What a
subscription entitles to is decided in `licence_state`; nothing here changes credit.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Final

from guthaben.domain.grants import NEVER_S
from guthaben.domain.licences import Plans, Standing, Subscription, standing
from guthaben.domain.practice import allowance_of
from guthaben.errors import (
    GuthabenError,
    InvalidAmount,
    InvalidInput,
    PaymentError,
    PaymentOutcomeUnknown,
    PaymentUnavailable,
    Refused,
)
from guthaben.payments.gateway import HostedPage, PaymentGateway, SubscriptionOrder
from guthaben.payments.ids import mask_stripe_reference, normalize_stripe_id
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of
from guthaben.services.core import Core
from guthaben.services.guthaben import Guthaben
from guthaben.services.installation import made_here
from guthaben.services.licence_news import LicenceNews
from guthaben.services.licence_owner import METADATA_ORDER_ID, ORDER_PREFIX, PURPOSE_LICENSE
from guthaben.services.licence_state import standings
from guthaben.store import licences as rows
from guthaben.store import plans as plan_rows
from guthaben.store import queries, topups
from guthaben.store.licences import HeldRow, SubscriptionRow
from guthaben.store.plans import OrderRow
from guthaben.store.session import Cursor
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.licences")

MOST_SEATS: Final = 10_000
_ASK_AGAIN_S: Final = 6 * 3600
_MOST_ASKED: Final = 20


@dataclass(frozen=True, slots=True)
class LicenceStart:
    """Where to send the customer, and our id of the purchase."""

    url: str
    order_id: str


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """One subscription of a practice; its id is masked."""

    reference: str
    status: str
    leads: bool
    plan_known: bool
    plans: tuple[str, ...]
    quantity: int
    period_start_s: int
    period_end_s: int
    period_allowance_nano_usd: int
    next_allowance_nano_usd: int
    ends_at_s: int | None


@dataclass(frozen=True, slots=True)
class LicenceView:
    """A practice's licence as it counts now; `source` is none, told or subscription."""

    practice_id: str
    license: str
    source: str
    active: bool
    period_start_s: int
    period_end_s: int
    allowance_nano_usd: int
    provisional: bool
    ends_at_s: int | None
    subscriptions: tuple[SubscriptionView, ...]


def show(core: Core, practice_id: str) -> LicenceView:
    """Tell a practice's licence and its subscriptions; changes nothing."""
    practice_id_of(practice_id)
    now_s = core.now_ms() // 1000
    return core.ask(lambda cur: _view(cur, practice_id, now_s))


def held(core: Core, limit: int = 50) -> list[HeldRow]:
    """List subscriptions that wait for an operator to say whose they are."""
    return core.ask(lambda cur: rows.held(cur, limit))


class Licences:
    """Everything about licences that needs the provider."""

    def __init__(
        self, guthaben: Guthaben, gateway: PaymentGateway, *, livemode: bool | None = None
    ) -> None:
        self._core = guthaben.core
        self._store = guthaben.core.store
        self._gateway = gateway
        self._livemode = livemode
        self.news = LicenceNews(self._store, gateway)

    def start_checkout(
        self,
        practice_id: str,
        lookup_key: str,
        *,
        success_url: str,
        cancel_url: str,
        quantity: int = 1,
        customer_email: str | None = None,
        locale: str | None = None,
    ) -> LicenceStart:
        """Record that a licence is being bought, then make the page where it is.

        Raises `Refused`: `plan_not_found`, or `license_exists` while a subscription is active (its
        plan is changed where it was bought); `PaymentError`. After `PaymentOutcomeUnknown` nothing
        was bought.
        """
        practice_id_of(practice_id)
        checked_text("lookup_key", lookup_key, MAX_TEXT, empty=False)
        if type(quantity) is not int or not 1 <= quantity <= MOST_SEATS:
            raise InvalidAmount(f"quantity must be a whole number from 1 to {MOST_SEATS}")
        order_id = ORDER_PREFIX + secrets.token_hex(12)
        row = OrderRow(
            0, order_id, lookup_key, quantity, "pending", "", self._livemode, "", "", "", 0
        )
        row = self._store.run(lambda space: _record(space, practice_id, row))
        order = SubscriptionOrder(
            success_url=success_url,
            cancel_url=cancel_url,
            lookup_key=lookup_key,
            quantity=quantity,
            customer_id=row.customer_id or None,
            customer_email=customer_email,
            client_reference_id=order_id,
            metadata={
                **made_here(),
                "aza_purpose": PURPOSE_LICENSE,
                "practice_id": practice_id,
                METADATA_ORDER_ID: order_id,
            },
            locale=locale,
            idempotency_key=f"guthaben-{order_id}",
        )
        return LicenceStart(self._page(order, order_id).url, order_id)

    def _page(self, order: SubscriptionOrder, order_id: str) -> HostedPage:
        try:
            page = self._gateway.create_subscription_checkout(order)
        except PaymentOutcomeUnknown:
            raise  # the record stays, should the page be there after all
        except GuthabenError as error:
            code = error.code
            self._store.run(lambda space: plan_rows.cancel_order(space.cursor, order_id, code))
            raise
        self._store.run(
            lambda space: plan_rows.note_session(space.cursor, order_id, page.session_id)
        )
        return page

    def assign(self, practice_id: str, subscription: str) -> LicenceView:
        """Say whose a subscription is: one held back, by its number, or any by its own id.

        Raises `Refused`: `subscription_not_found`, or `subscription_taken` by another practice.
        """
        practice_id_of(practice_id)
        found = self._core.ask(lambda cur: rows.find_held(cur, subscription))
        subscription_id = found.subscription_id if found else subscription
        if normalize_stripe_id(subscription_id, "sub_") is None:
            raise Refused("There is no such subscription.", reason="subscription_not_found")
        if self._owner(subscription_id) not in (None, practice_id):
            raise Refused("It belongs to another practice.", reason="subscription_taken")
        self.news.assign(subscription_id, practice_id)
        return show(self._core, practice_id)

    def _owner(self, subscription_id: str) -> str | None:
        def question(cursor: Cursor) -> str | None:
            row = rows.find_subscription(cursor, subscription_id)
            return topups.practice_id_of(cursor, row.practice_no) if row else None

        return self._core.ask(question)

    def refresh(self, practice_id: str) -> LicenceView:
        """Ask the provider about every subscription of a practice that is not over."""
        practice_id_of(practice_id)

        def question(cursor: Cursor) -> list[SubscriptionRow]:
            practice, _period = queries.practice_with(cursor, practice_id, None, 0)
            return rows.subscriptions_of(cursor, practice.practice_no)

        for row in self._core.ask(question):
            self.news.ask(row.subscription_id)
        return show(self._core, practice_id)

    def refresh_overdue(self) -> int:
        """Ask about subscriptions whose renewal nobody told, a few at a time; tell how many.

        One that can't be understood waits with the others for its next turn. Raises
        `PaymentUnavailable` where no other would fare better.
        """
        now_s = self._core.now_ms() // 1000
        due = self._core.ask(
            lambda cur: rows.overdue(cur, now_s, now_s - _ASK_AGAIN_S, _MOST_ASKED)
        )
        for subscription_id in due:
            self._ask_overdue(subscription_id)
        return len(due)

    def _ask_overdue(self, subscription_id: str) -> None:
        try:
            self.news.ask(subscription_id)
        except PaymentUnavailable:
            raise
        except (PaymentError, InvalidInput) as error:
            log.warning("a late subscription could not be asked for: %s", error.code)
            self._store.run(
                lambda space: rows.note_asked(space.cursor, subscription_id, space.now_s)
            )


def _record(space: Workspace, practice_id: str, row: OrderRow) -> OrderRow:
    """Commit our own record of a licence being bought."""
    plans = Plans(plan_rows.plan_versions(space.cursor))
    if plans.version(row.lookup_key, space.now_s) is None:
        raise Refused("There is no such plan.", reason="plan_not_found")
    practice_no = space.practice_no(practice_id)
    if any(found.active for found in standings(space, practice_no)):
        raise Refused("The practice has a licence already.", reason="license_exists")
    row = row._replace(
        practice_no=practice_no,
        customer_id=rows.customer_of(space.cursor, practice_no, row.livemode),
        created_at_s=space.now_s,
    )
    plan_rows.add_order(space.cursor, row)
    return row


def _view(cursor: Cursor, practice_id: str, now_s: int) -> LicenceView:
    practice, period = queries.practice_with(cursor, practice_id, None, now_s)
    plans = Plans(plan_rows.plan_versions(cursor))
    told = [
        rows.subscription_of(cursor, row)
        for row in rows.subscriptions_of(cursor, practice.practice_no, over=True)
    ]
    active = bool(practice.license) and period.license == practice.license
    sold = any(each.subscription_id == practice.license for each in told)
    grant = allowance_of(practice.grants, period)
    return LicenceView(
        practice_id,
        str(mask_stripe_reference(practice.license)) if sold else practice.license,
        "none" if not practice.license else ("subscription" if sold else "told"),
        active,
        period.start_s if active else practice.period_start_s,
        period.end_s if active else practice.period_end_s,
        grant.granted_nano_usd if grant else period.allowance_nano_usd,
        period.provisional,
        _end(practice.license_ends_at_s),
        tuple(
            _shown(
                each,
                standing(each, plans, now_s),
                active and each.subscription_id == practice.license,
            )
            for each in told
        ),
    )


def _shown(subscription: Subscription, found: Standing, leads: bool) -> SubscriptionView:
    return SubscriptionView(
        str(mask_stripe_reference(subscription.subscription_id)),
        found.status,
        leads,
        found.known,
        tuple(sorted({item.lookup_key for item in subscription.items})),
        max(item.quantity for item in subscription.items),
        found.start_s,
        found.end_s,
        found.period_nano_usd,
        found.next_nano_usd,
        _end(subscription.ends_at_s),
    )


def _end(at_s: int) -> int | None:
    return None if at_s >= NEVER_S else at_s
