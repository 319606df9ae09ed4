"""What really happened at Stripe: told by the model's own objects, never by the engine.

Law: it reads the snapshots that the model keeps of every change, in their order, and remembers
what was true in between, for an engine that acts on news may lag behind, but never invents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from guthaben.sandbox.model import Model

_GONE = frozenset({"failed", "canceled"})
_OVER = frozenset({"succeeded", "canceled"})
_DISPUTE_OVER = frozenset({"won", "lost", "prevented", "warning_closed"})


@dataclass
class Payment:
    """One PaymentIntent; amounts in Rappen."""

    id: str
    status: str = ""
    charge_id: str = ""
    foreign: bool = False
    """Made at Stripe by somebody else, with our metadata on it."""
    amount: int = 0
    currency: str = ""
    customer_id: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    captured: int = 0
    succeeded_at_s: int = 0
    last_error: str = ""
    refunds: dict[str, int] = field(default_factory=dict)
    asked_by: dict[str, str] = field(default_factory=dict)
    """Which refund was made for which request of ours."""
    open_disputes: set[str] = field(default_factory=set)
    withdrawals: dict[str, int] = field(default_factory=dict)
    refunded_ever: list[int] = field(default_factory=lambda: [0])
    """What refunds had given back, as one change followed the other."""
    withdrawn_ever: list[int] = field(default_factory=lambda: [0])

    @property
    def refunded(self) -> int:
        """What refunds have given back."""
        return sum(self.refunds.values())

    @property
    def withdrawn(self) -> int:
        """What disputes have taken."""
        return sum(self.withdrawals.values())

    @property
    def net(self) -> int:
        """What is left of the captured money."""
        return self.captured - self.refunded - self.withdrawn

    @property
    def topup_id(self) -> str:
        """Our own id of the purchase, as the metadata tell it."""
        return self.metadata.get("topup_id", "")

    @property
    def may_take(self) -> bool:
        """Whether money was taken, or may still be: also after a refusal, until it is cancelled."""
        return self.captured > 0 or self.status not in _OVER


class Truth:
    """Payments by id, and sessions by id."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._read = 0
        self._changes = -1
        self.payments: dict[str, Payment] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.opened_by: dict[str, str] = {}
        """Which practice was given which page."""
        self.customers: dict[str, str] = {}
        """Which practice is which customer at Stripe."""
        self.cards: dict[str, str] = {}
        """Which customer at Stripe saved which payment method."""

    def owner_of(self, payment: Payment) -> str:
        """Tell which practice paid."""
        for session_id, session in self.sessions.items():
            if session["payment_intent"] == payment.id:
                return self.opened_by.get(session_id, "")
        return self.customers.get(payment.customer_id, "")

    def update(self) -> list[dict[str, Any]]:
        """Read what is new; give the new events."""
        changes = self._model._state._con.total_changes
        if changes == self._changes:
            return []
        self._changes = changes
        found = self._model._state.select(
            "event", above=self._read, limit=100_000, oldest_first=True
        )
        if found:
            self._read = self._model._state.position(found[-1]["id"]) or self._read
        for event in found:
            self._take(event["type"], event["data"]["object"], event["created"])
        return found

    def of_topup(self, topup_id: str) -> list[Payment]:
        """Give the payments that carry a top-up's id."""
        return [p for p in self.payments.values() if p.topup_id == topup_id]

    def paid(self) -> Iterator[Payment]:
        """Give the payments that took money."""
        return (p for p in self.payments.values() if p.captured > 0)

    def _take(self, kind: str, about: dict[str, Any], at_s: int) -> None:
        match about["object"]:
            case "payment_intent":
                self._intent(about, at_s)
            case "refund":
                payment = self._payment(about["payment_intent"])
                gone = about["status"] in _GONE
                payment.refunds[about["id"]] = 0 if gone else about["amount"]
                payment.asked_by[about["id"]] = about["metadata"].get("guthaben_refund", "")
                payment.refunded_ever.append(payment.refunded)
            case "dispute":
                payment = self._payment(about["payment_intent"])
                kept = about["status"].startswith("warning") or about["status"] == "won"
                payment.withdrawals[about["id"]] = 0 if kept else about["amount"]
                payment.withdrawn_ever.append(payment.withdrawn)
                over = about["status"] in _DISPUTE_OVER
                (payment.open_disputes.discard if over else payment.open_disputes.add)(about["id"])
            case "charge" if about["paid"]:
                self._payment(about["payment_intent"]).charge_id = about["id"]
            case "checkout.session":
                self.sessions[about["id"]] = about
                owner = self.opened_by.get(about["id"])
                if about["customer"] and owner:
                    self.customers[about["customer"]] = owner
            case "payment_method" if about["customer"]:
                self.cards[about["id"]] = about["customer"]

    def _payment(self, payment_id: str) -> Payment:
        return self.payments.setdefault(payment_id, Payment(payment_id))

    def _intent(self, about: dict[str, Any], at_s: int) -> None:
        payment = self._payment(about["id"])
        payment.status = about["status"]
        payment.amount = about["amount"]
        payment.currency = about["currency"]
        payment.customer_id = about["customer"] or ""
        payment.metadata = about["metadata"]
        error = about.get("last_payment_error") or {}
        payment.last_error = error.get("decline_code") or error.get("code") or ""
        if about["status"] == "succeeded" and not payment.captured:
            payment.captured = about["amount_received"]
            payment.succeeded_at_s = at_s
