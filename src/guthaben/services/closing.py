"""Closing payment pages that nobody paid on, so that no purchase stays open for ever.

Law: our record is closed only when the provider says that the page is, or when no page can exist
any more. Money that came is credited by the same once-only function as by webhook, also on a page
that was closed. The provider is asked outside transactions; every step may be repeated.
"""

from __future__ import annotations

import logging
from typing import Final

from guthaben.domain.topup import IN_FLIGHT, CreditEvent
from guthaben.errors import PaymentError, PaymentRejected
from guthaben.payments.facts import CheckoutFacts
from guthaben.payments.gateway import PaymentGateway
from guthaben.services.checkouts import close_record, note_page, order_from
from guthaben.services.settling import Settler
from guthaben.store import checkouts, settings, topups
from guthaben.store.checkouts import OpenPage
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.closing")

SAME_KEY_S: Final = 12 * 3600
"""How long a lost answer is asked for again; Stripe keeps keys for 24 hours at least."""
PAGE_LIVES_S: Final = 25 * 3600
"""After this no page of Stripe's can be open, whoever asked for it: 24 hours and a margin."""
_FIRST_PAUSE_S: Final = 60
_LONGEST_PAUSE_S: Final = 3600
_AT_ONCE: Final = 50


class PageCloser:
    """Closes pages whose time is over; `run_once` is a job that several servers may run at once."""

    def __init__(self, store: Store, gateway: PaymentGateway) -> None:
        self._store = store
        self._gateway = gateway
        self._settler = Settler(store, gateway)

    def run_once(self) -> int:
        """Look at the pages that are due; tell how many are known to be over now."""
        now_s = self._store.now_s()
        due = self._store.read(lambda cur: checkouts.due_pages(cur, now_s, _AT_ONCE))
        return sum(self._closed(page) for page in due)

    def close(self, practice_id: str, topup_id: str) -> bool:
        """Close the page of one purchase now, because its customer gave it up; tell if it is over.

        A foreign id does nothing, as a missing one.
        """
        found = self._store.read(lambda cur: topups.locate_event(cur, "topup_id", topup_id))
        if found is None or found.practice_id != practice_id:
            return False
        at = (found.practice_no, found.event.event_no)
        page = self._store.read(lambda cur: checkouts.page_of(cur, *at))
        return page is not None and self._closed(page)

    def _closed(self, page: OpenPage) -> bool:
        at = (page.practice_no, page.event_no)
        event = self._store.read(lambda cur: topups.load_event(cur, *at))
        if event is None or event.status not in IN_FLIGHT:
            # Its outcome came by webhook.
            self._store.run(lambda space: checkouts.page_over(space.cursor, *at))
            return True
        try:
            over = self._look(page, event)
        except PaymentError as error:
            log.warning("a payment page could not be closed yet", extra={"code": error.code})
            over = False
        if not over:
            self._store.run(lambda space: _later(space, page, event))
        return over

    def _look(self, page: OpenPage, event: CreditEvent) -> bool:
        if event.session_id:
            return self._judge(page, self._ended(event.session_id))
        age_s = self._store.now_s() - event.recorded_at_s
        if age_s < SAME_KEY_S and page.order_json:
            return self._find_and_close(page)
        return age_s >= PAGE_LIVES_S and self._close_record(page, "page_never_known")

    def _find_and_close(self, page: OpenPage) -> bool:
        """Ask again, with the same key, for the page whose answer was lost, and close it.

        Nobody was sent to it.
        """
        try:
            found = self._gateway.create_checkout(order_from(page.order_json)).session_id
        except PaymentRejected as error:
            # The same request is refused as it is: the first one made nothing either.
            return self._close_record(page, error.code)
        self._store.run(lambda space: note_page(space, page.practice_id, page.event_no, found))
        return self._judge(page, self._ended(found))

    def _close_record(self, page: OpenPage, reason: str) -> bool:
        self._store.run(lambda space: close_record(space, page.practice_id, page.event_no, reason))
        return True

    def _ended(self, session_id: str) -> CheckoutFacts:
        """Have the page closed, or learn how it ended."""
        try:
            return self._gateway.expire_checkout(session_id)
        except PaymentRejected:
            return self._gateway.retrieve_checkout(session_id)

    def _judge(self, page: OpenPage, facts: CheckoutFacts) -> bool:
        if facts.status == "expired":
            return self._close_record(page, "page_expired")
        if facts.status == "complete" and facts.payment_id is not None:
            payment = self._gateway.retrieve_payment(facts.payment_id)
            if payment.status == "succeeded" and payment.amount_received_rappen is not None:
                self._settler.settle(payment.payment_id, facts.session_id)
                at = (page.practice_no, page.event_no)
                self._store.run(lambda space: checkouts.page_over(space.cursor, *at))
                return True
        return False


def _later(space: Workspace, page: OpenPage, event: CreditEvent) -> None:
    """Look again after a growing pause; what is open for more than a day is an alarm."""
    pause_s = min(_FIRST_PAUSE_S * 2 ** min(page.looks, 10), _LONGEST_PAUSE_S)
    at = (page.practice_no, page.event_no)
    is_open = checkouts.look_again(space.cursor, *at, space.now_s + pause_s)
    if is_open and space.now_s - event.recorded_at_s >= 24 * 3600:
        settings.raise_alarm(
            space.cursor, "purchase_unresolved", f"{page.practice_no}:{page.event_no}",
            space.now_s, page.practice_no,
        )  # fmt: skip
