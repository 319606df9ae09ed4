"""What the services read of a payment provider's lists: for reconciliation, and for one payment.

Law: reading changes nothing. A list between two instants is given lazily, page by page, so its
length costs no memory; what can't be understood is raised, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from guthaben.payments.facts import (
    BalanceEntry,
    DisputeFacts,
    PaymentFacts,
    RefundFacts,
    RefundReceipt,
)
from guthaben.payments.webhook import WebhookEvent


class PaymentLists(Protocol):
    """The reading of lists, a part of `PaymentGateway`. Every page blocks for some seconds."""

    def payments_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[PaymentFacts]:
        """Read all payments created in `[from, before)`, newest first, page by page."""
        ...

    def charges_between(self, created_from_s: int, created_before_s: int) -> Iterator[RefundFacts]:
        """Read all charges created in `[from, before)`, with what went back of each."""
        ...

    def refunds_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[RefundReceipt]:
        """Read all refunds created in `[from, before)`."""
        ...

    def disputes_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[DisputeFacts]:
        """Read all disputes created in `[from, before)`."""
        ...

    def events_between(self, created_from_s: int, created_before_s: int) -> Iterator[WebhookEvent]:
        """Read all events of `[from, before)`, newest first; the provider keeps thirty days."""
        ...

    def balance_between(self, created_from_s: int, created_before_s: int) -> Iterator[BalanceEntry]:
        """Read the lines of the balance of `[from, before)`, with fees."""
        ...

    def retrieve_dispute(self, dispute_id: str) -> DisputeFacts:
        """Read a dispute as it is now."""
        ...

    def payment_disputes(self, payment_id: str) -> list[DisputeFacts]:
        """Read all disputes of a payment as they are now."""
        ...

    def payment_refunds(self, payment_id: str) -> list[RefundReceipt]:
        """Read all refunds of a payment as they are now."""
        ...
