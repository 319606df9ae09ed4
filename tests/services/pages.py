"""A fake provider with payment pages: open, paid, expired; answers may be lost on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guthaben.errors import PaymentOutcomeUnknown, PaymentRejected, PaymentUnavailable
from guthaben.payments.gateway import CheckoutFacts, CheckoutOrder, HostedPage
from tests.services.fakes import FakeGateway


@dataclass
class PageGateway(FakeGateway):
    """One page per key, for ever. `lose` answers of `create_checkout` are lost after the deed."""

    lose: int = 0
    lose_before: int = 0
    """Requests that never arrive."""
    pages: dict[str, CheckoutFacts] = field(default_factory=dict)
    orders: dict[str, CheckoutOrder] = field(default_factory=dict)
    unreachable: bool = False
    forgotten: bool = False
    """The provider has pruned its keys."""

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        page = self._create(order)
        if self.lose:
            self.lose -= 1
            raise PaymentOutcomeUnknown("no answer")
        return page

    def _create(self, order: CheckoutOrder) -> HostedPage:
        self._note("create_checkout", order)
        if self.lose_before or self.unreachable:
            self.lose_before = max(0, self.lose_before - 1)
            raise PaymentOutcomeUnknown("never arrived")
        if self.refuse is not None:
            raise self.refuse
        key = order.idempotency_key or ""
        known = None if self.forgotten else self.orders.get(key)
        assert known is None or asdict(known) == asdict(order), "the same key, something else"
        session_id = f"cs_{key}" if not self.forgotten else f"cs_again_{key}"
        self.orders[key] = order
        self.pages.setdefault(session_id, _page(session_id, order))
        return HostedPage(session_id, f"https://pay.example/{session_id}")

    def pay(self, session_id: str, *, processing: bool = False, **facts: Any) -> str:
        """Let a person pay on a page; return the payment's id."""
        page = self.pages[session_id]
        assert page.status == "open"
        payment_id = f"pi_of_{session_id}"
        received = 0 if processing else page.amount_total_rappen
        self.put(
            payment_id, status="processing" if processing else "succeeded",
            amount_rappen=page.amount_total_rappen, amount_received_rappen=received,
            metadata=dict(page.metadata), **facts,
        )  # fmt: skip
        paid = "unpaid" if processing else "paid"
        self.pages[session_id] = replace(
            page, status="complete", payment_status=paid, payment_id=payment_id
        )
        return payment_id

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        self._note("retrieve_checkout", session_id)
        if self.unreachable:
            raise PaymentUnavailable("try later")
        return self.pages[session_id]

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        self._note("expire_checkout", session_id)
        if self.unreachable:
            raise PaymentOutcomeUnknown("no answer")
        page = self.pages[session_id]
        if page.status != "open":
            raise PaymentRejected("it isn't open")
        self.pages[session_id] = replace(page, status="expired")
        return self.pages[session_id]


def _page(session_id: str, order: CheckoutOrder) -> CheckoutFacts:
    return CheckoutFacts(
        session_id, "payment", "open", "unpaid", None, None, None, None, None,
        order.amount_rappen, order.currency, True, order.client_reference_id, dict(order.metadata),
    )  # fmt: skip
