"""Reading Stripe's lists, page by page, and what belongs to one payment.

Law: a list is read newest first with a cursor, so what is made meanwhile moves nothing; one page is
in memory at a time. A page that can't be understood is an error, never an empty page: taken for
empty it would say that a payment doesn't exist. Nothing here changes anything at Stripe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import stripe

from guthaben.errors import (
    InvalidInput,
    PaymentOutcomeUnknown,
    PaymentUnavailable,
    WebhookRejected,
)
from guthaben.payments.facts import (
    BalanceEntry,
    DisputeFacts,
    PaymentFacts,
    RefundFacts,
    RefundReceipt,
    balance_entry,
    dispute_facts,
    payment_facts,
    refund_facts,
    refund_receipt,
)
from guthaben.payments.gateway import METADATA_TOPUP_ID
from guthaben.payments.ids import normalize_stripe_id
from guthaben.payments.reading import flag, items, text
from guthaben.payments.webhook import WebhookEvent, event_of

T = TypeVar("T")

__all__ = ["EXPANDED", "StripeLists", "stripe_id", "understood"]

EXPANDED: Final = "latest_charge.balance_transaction"
"""What a payment is read with: its charge tells refunds, the charge's balance line the fee."""

_PAGE: Final = 100
_MOST_PAGES_OF_ONE: Final = 50
_CLOCK_SKEW_S: Final = 600
_BEST_FIRST: Final = ("succeeded", "processing", "requires_capture", "requires_action")


class StripeLists(ABC):
    """The reading part of the gateway; the wire is its subclass's."""

    __slots__ = ()

    @abstractmethod
    def _read(self, call: Callable[..., object], *args: str, **params: Any) -> object:
        """Ask Stripe something that changes nothing."""

    @abstractmethod
    def _read_one(self, call: Callable[..., object], object_id: str, **params: Any) -> object:
        """Read one object, and see that it is the one that was asked for."""

    # ------------------------------------------------------------ between two instants

    def payments_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[PaymentFacts]:
        """Read all payments created in `[from, before)`, newest first, page by page."""
        return self._each(
            stripe.PaymentIntent.list,
            payment_facts,
            created={"gte": created_from_s, "lt": created_before_s},
            expand=[f"data.{EXPANDED}"],
        )

    def charges_between(self, created_from_s: int, created_before_s: int) -> Iterator[RefundFacts]:
        """Read all charges created in `[from, before)`, with what went back of each."""
        return self._each(
            stripe.Charge.list,
            refund_facts,
            created={"gte": created_from_s, "lt": created_before_s},
        )

    def refunds_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[RefundReceipt]:
        """Read all refunds created in `[from, before)`."""
        return self._each(
            stripe.Refund.list,
            refund_receipt,
            created={"gte": created_from_s, "lt": created_before_s},
        )

    def disputes_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[DisputeFacts]:
        """Read all disputes created in `[from, before)`."""
        return self._each(
            stripe.Dispute.list,
            dispute_facts,
            created={"gte": created_from_s, "lt": created_before_s},
        )

    def events_between(self, created_from_s: int, created_before_s: int) -> Iterator[WebhookEvent]:
        """Read all events of `[from, before)`, newest first; Stripe keeps thirty days."""
        return self._each(
            stripe.Event.list, _event, created={"gte": created_from_s, "lt": created_before_s}
        )

    def balance_between(self, created_from_s: int, created_before_s: int) -> Iterator[BalanceEntry]:
        """Read the lines of the balance of `[from, before)`, with fees."""
        return self._each(
            stripe.BalanceTransaction.list,
            balance_entry,
            created={"gte": created_from_s, "lt": created_before_s},
        )

    # ------------------------------------------------------------ of one payment

    def find_payment(
        self, topup_id: str, customer_id: str, created_after_s: int
    ) -> PaymentFacts | None:
        """Find the payment of a top-up; None is certain: there is none.

        Stripe's list is read, not its search, which lags by minutes. Where several payments
        carry the top-up's id, the one that got furthest is returned.
        """
        found = [
            payment
            for payment in self._each(
                stripe.PaymentIntent.list,
                payment_facts,
                _MOST_PAGES_OF_ONE,
                customer=stripe_id(customer_id, "cus_"),
                created={"gte": created_after_s - _CLOCK_SKEW_S},
                expand=[f"data.{EXPANDED}"],
            )
            if payment.metadata.get(METADATA_TOPUP_ID) == topup_id
        ]
        return min(found, key=_rank, default=None)

    def retrieve_dispute(self, dispute_id: str) -> DisputeFacts:
        """Read a dispute as it is now."""
        wanted = dispute_id if dispute_id.startswith("du_") else stripe_id(dispute_id, "dp_")
        return dispute_facts(self._read_one(stripe.Dispute.retrieve, wanted))

    def payment_disputes(self, payment_id: str) -> list[DisputeFacts]:
        """Read all disputes of a payment as they are now."""
        wanted = stripe_id(payment_id, "pi_")
        return list(
            self._each(
                stripe.Dispute.list, dispute_facts, _MOST_PAGES_OF_ONE, payment_intent=wanted
            )
        )

    def payment_refunds(self, payment_id: str) -> list[RefundReceipt]:
        """Read all refunds of a payment as they are now."""
        wanted = stripe_id(payment_id, "pi_")
        return list(
            self._each(
                stripe.Refund.list, refund_receipt, _MOST_PAGES_OF_ONE, payment_intent=wanted
            )
        )

    # ------------------------------------------------------------ pages

    def _each(
        self,
        call: Callable[..., object],
        extract: Callable[[object], T],
        most_pages: int | None = None,
        **where: Any,
    ) -> Iterator[T]:
        after: dict[str, str] = {}
        pages = 0
        while True:
            page = self._read(call, limit=_PAGE, **where, **after)
            more, found = flag(page, "has_more"), items(page, "data")
            last = text(found[-1], "id") if found else None
            if more is None or (more and (last is None or after.get("starting_after") == last)):
                raise PaymentUnavailable("Stripe's list can't be understood; try later.")
            for one in found:
                yield understood(extract, one)
            if not more:
                return
            pages += 1
            if pages == most_pages:
                raise PaymentUnavailable(
                    f"More than {pages * _PAGE} objects to look through. Ask for a shorter time."
                )
            after = {"starting_after": str(last)}


def stripe_id(value: object, prefix: str) -> str:
    """Check an id before it is sent; raises InvalidInput."""
    found = normalize_stripe_id(value, prefix) if isinstance(value, str) else None
    if found is None:
        raise InvalidInput(f"Expected a Stripe id that starts with {prefix}.", field="id")
    return found


def understood(extract: Callable[[object], T], answer: object, *, changed: bool = False) -> T:
    """Read an answer; raises what says whether something may have been done."""
    try:
        return extract(answer)
    except InvalidInput:
        kind = PaymentOutcomeUnknown if changed else PaymentUnavailable
    raise kind("Stripe's answer can't be understood.")


def _event(source: object) -> WebhookEvent:
    payload = source.to_dict(for_json=True) if isinstance(source, stripe.StripeObject) else source
    try:
        return event_of(payload if isinstance(payload, dict) else {})
    except WebhookRejected as error:
        raise InvalidInput("The event can't be understood.", field="event") from error


def _rank(payment: PaymentFacts) -> int:
    status = payment.status or ""
    return _BEST_FIRST.index(status) if status in _BEST_FIRST else len(_BEST_FIRST)
