"""A payment provider that answers as it is told, and notes what was committed when it was asked.

Law of the fake: money moves once per idempotency key, whatever is answered. Each call notes,
through a second connection, which credit events were committed at that moment and whether somebody
else could write: so a test sees that the attempt was durable, and that no transaction was open.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any, NamedTuple, Protocol

from guthaben.errors import PaymentError, PaymentOutcomeUnknown, PaymentRejected
from guthaben.payments.facts import BalanceEntry, DisputeFacts, RefundFacts
from guthaben.payments.gateway import (
    METADATA_TOPUP_ID,
    Charged,
    ChargeOrder,
    ChargeResult,
    CheckoutFacts,
    CheckoutOrder,
    Declined,
    HostedPage,
    NeedsCustomer,
    NotSent,
    PaymentFacts,
    Processing,
    RefundReceipt,
    SetupFacts,
    SetupOrder,
    SubscriptionFacts,
    SubscriptionOrder,
    Unknown,
)
from guthaben.payments.subscriptions import subscription_facts
from guthaben.payments.webhook import WebhookEvent

CREATED_AT_S = 1_700_000_000


class Asked(NamedTuple):
    """One call, and the world at that moment."""

    method: str
    argument: Any
    committed: list[dict[str, Any]]
    others_could_write: bool


@dataclass(frozen=True)
class Lost:
    """The charge is carried out, and the answer is lost; the same key tells it later."""

    result: ChargeResult | None = None
    """What the provider did: by default the card was charged."""


Step = ChargeResult | Lost | Exception | Callable[[ChargeOrder], ChargeResult]

_STATUS = {
    Charged: "succeeded",
    Processing: "processing",
    NeedsCustomer: "requires_action",
    Declined: "requires_payment_method",
}


class Elsewhere:
    """Stands where a fake's database would, for tests that don't ask what was committed."""

    def rows(self, _sql: str) -> list[dict[str, Any]]:
        """Show nothing."""
        return []

    def can_be_written(self) -> bool:
        """Say yes."""
        return True


class Looked(Protocol):
    """What the fake looks into whenever it is asked something."""

    def rows(self, sql: str, /) -> list[dict[str, Any]]:
        """Show what is committed."""
        ...

    def can_be_written(self) -> bool:
        """Tell whether nobody keeps a transaction open."""
        ...


@dataclass
class FakeGateway:
    """Implements `PaymentGateway`. `steps` are the next charges; without one a card is charged."""

    database: Looked
    livemode: bool = True
    steps: deque[Step] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    payments: dict[str, PaymentFacts] = field(default_factory=dict)
    setups: dict[str, SetupFacts] = field(default_factory=dict)
    pages: dict[str, CheckoutFacts] = field(default_factory=dict)
    disputes: dict[str, DisputeFacts] = field(default_factory=dict)
    refunds: dict[str, RefundReceipt] = field(default_factory=dict)
    events: list[WebhookEvent] = field(default_factory=list)
    balance: list[BalanceEntry] = field(default_factory=list)
    refund_steps: deque[Exception | str] = field(default_factory=deque)
    """What the next refunds come to: an error, or the status of the refund; else succeeded."""
    refund_lost: bool = False
    """The next refund is carried out and its answer is lost."""
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As the provider shows them now."""
    while_asked: Callable[[str], None] = lambda _subscription_id: None
    """Called after a subscription was read, before the answer arrives."""
    down: PaymentError | None = None
    """Raised by everything but a charge, as long as it is set."""
    refuse: Exception | None = None
    """Raised by the making of a page, as long as it is set."""
    during: Callable[[ChargeOrder], None] = lambda _order: None
    """Called while a charge is under way, after the money moved and before the answer."""
    _refunded: dict[str, str] = field(default_factory=dict)
    _said: dict[str, ChargeResult] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pages: int = 0

    # ---- what a test asks

    @property
    def charges(self) -> list[ChargeOrder]:
        """Every charge that was asked for, repetitions included."""
        return [seen.argument for seen in self.asked if seen.method == "charge_saved_card"]

    @property
    def charged_rappen(self) -> int:
        """The money that really moved."""
        succeeded = (p for p in self.payments.values() if p.status == "succeeded")
        return sum(payment.amount_received_rappen or 0 for payment in succeeded)

    def methods(self) -> list[str]:
        """The names of all calls, in order."""
        return [seen.method for seen in self.asked]

    def then(self, *steps: Step) -> None:
        """Say what the next charges come to."""
        self.steps.extend(steps)

    def put(self, payment_id: str, **facts: Any) -> PaymentFacts:
        """Make or change a payment as the provider knows it."""
        known = self.payments.get(payment_id)
        fields: dict[str, Any] = {
            "payment_id": payment_id, "status": "succeeded", "amount_rappen": 3_000,
            "amount_received_rappen": 3_000, "refunded_rappen": 0, "disputed": False,
            "currency": "chf", "livemode": self.livemode, "customer_id": "cus_1",
            "payment_method_id": "pm_1", "created_at_s": CREATED_AT_S, "metadata": {},
        }  # fmt: skip
        if known is not None:
            fields = {one.name: getattr(known, one.name) for one in dataclass_fields(known)}
        made = PaymentFacts(**{**fields, **facts})
        self.payments[payment_id] = made
        return made

    # ---- the protocol

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        return self._page("create_checkout", order)

    def create_setup(self, order: SetupOrder) -> HostedPage:
        return self._page("create_setup", order)

    def create_subscription_checkout(self, order: SubscriptionOrder) -> HostedPage:
        return self._page("create_subscription_checkout", order)

    def charge_saved_card(self, order: ChargeOrder) -> ChargeResult:
        self._note("charge_saved_card", order)
        with self._lock:
            known = self._said.get(order.idempotency_key)
            step = None if known is not None or not self.steps else self.steps.popleft()
        if known is not None:
            return known
        answer = self._carry_out(order, step)
        self.during(order)
        return answer

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        self._read("retrieve_payment", payment_id)
        if payment_id not in self.payments:
            raise PaymentRejected("There is no such payment.")
        return self.payments[payment_id]

    def find_payment(
        self, topup_id: str, customer_id: str, created_after_s: int
    ) -> PaymentFacts | None:
        self._read("find_payment", (topup_id, customer_id, created_after_s))
        mine = (p for p in self.payments.values() if p.customer_id == customer_id)
        found = (p for p in mine if p.metadata.get(METADATA_TOPUP_ID) == topup_id)
        return next(found, None)

    def payments_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[PaymentFacts]:
        self._read("payments_between", (created_from_s, created_before_s))
        return _between(self.payments.values(), created_from_s, created_before_s)

    def charges_between(self, created_from_s: int, created_before_s: int) -> Iterator[RefundFacts]:
        self._read("charges_between", (created_from_s, created_before_s))
        for payment in _between(self.payments.values(), created_from_s, created_before_s):
            if payment.charge_id is not None:
                yield RefundFacts(
                    payment.charge_id, payment.payment_id, payment.amount_received_rappen,
                    payment.refunded_rappen, payment.disputed, payment.currency, payment.livemode,
                    payment.customer_id, payment.metadata,
                )  # fmt: skip

    def refunds_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[RefundReceipt]:
        self._read("refunds_between", (created_from_s, created_before_s))
        return _between(self.refunds.values(), created_from_s, created_before_s)

    def disputes_between(
        self, created_from_s: int, created_before_s: int
    ) -> Iterator[DisputeFacts]:
        self._read("disputes_between", (created_from_s, created_before_s))
        return _between(self.disputes.values(), created_from_s, created_before_s)

    def events_between(self, created_from_s: int, created_before_s: int) -> Iterator[WebhookEvent]:
        self._read("events_between", (created_from_s, created_before_s))
        return _between(self.events, created_from_s, created_before_s)

    def balance_between(self, created_from_s: int, created_before_s: int) -> Iterator[BalanceEntry]:
        self._read("balance_between", (created_from_s, created_before_s))
        return _between(self.balance, created_from_s, created_before_s)

    def retrieve_dispute(self, dispute_id: str) -> DisputeFacts:
        self._read("retrieve_dispute", dispute_id)
        if dispute_id not in self.disputes:
            raise PaymentRejected("There is no such dispute.")
        return self.disputes[dispute_id]

    def payment_disputes(self, payment_id: str) -> list[DisputeFacts]:
        self._read("payment_disputes", payment_id)
        return [one for one in self.disputes.values() if one.payment_id == payment_id]

    def payment_refunds(self, payment_id: str) -> list[RefundReceipt]:
        self._read("payment_refunds", payment_id)
        return [one for one in self.refunds.values() if one.payment_id == payment_id]

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        self._read("retrieve_checkout", session_id)
        if session_id not in self.pages:
            raise PaymentRejected("There is no such page.")
        return self.pages[session_id]

    def retrieve_setup(self, setup_id: str) -> SetupFacts:
        self._read("retrieve_setup", setup_id)
        return self.setups[setup_id]

    def retrieve_subscription(self, subscription_id: str) -> SubscriptionFacts:
        self._read("retrieve_subscription", subscription_id)
        if subscription_id not in self.subscriptions:
            raise PaymentRejected("There is no such subscription.")
        read = subscription_facts(self.subscriptions[subscription_id])
        self.while_asked(subscription_id)
        return read

    def cancel_payment(self, payment_id: str) -> PaymentFacts:
        self._read("cancel_payment", payment_id)
        known = self.payments.get(payment_id)
        if known is None or known.status in {"succeeded", "processing", "canceled"}:
            raise PaymentRejected("This payment can't be cancelled.")
        return self.put(payment_id, status="canceled")

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        raise NotImplementedError

    def refund(
        self,
        payment_id: str,
        amount_rappen: int | None,
        idempotency_key: str,
        metadata: Mapping[str, str] | None = None,
    ) -> RefundReceipt:
        self._note("refund", (payment_id, amount_rappen, idempotency_key))
        known = self._refunded.get(idempotency_key)
        if known is not None:
            return self.refunds[known]
        step = self.refund_steps.popleft() if self.refund_steps else "succeeded"
        if isinstance(step, Exception):
            raise step
        receipt = self.give_back(payment_id, amount_rappen or 0, step, metadata=metadata or {})
        self._refunded[idempotency_key] = receipt.refund_id
        if self.refund_lost:
            self.refund_lost = False
            raise PaymentOutcomeUnknown("The answer was lost.")
        return receipt

    def give_back(
        self, payment_id: str, rappen: int, status: str = "succeeded", **more: Any
    ) -> RefundReceipt:
        """Give money back, as an operator at the provider may; tell the refund."""
        payment = self.payments[payment_id]
        refunded = (payment.refunded_rappen or 0) + rappen
        if refunded > (payment.amount_received_rappen or 0):
            raise PaymentRejected("More than is left.", provider_code="charge_already_refunded")
        self.put(payment_id, refunded_rappen=refunded)
        receipt = RefundReceipt(
            f"re_{len(self.refunds) + 1}", payment_id, None, rappen, "chf", status,
            created_at_s=CREATED_AT_S, **more,
        )  # fmt: skip
        self.refunds[receipt.refund_id] = receipt
        return receipt

    def refund_fails(self, refund_id: str) -> None:
        """Let a refund fail at the bank: the money is here again."""
        receipt = self.refunds[refund_id]
        assert receipt.payment_id is not None
        left = (self.payments[receipt.payment_id].refunded_rappen or 0) - (
            receipt.amount_rappen or 0
        )
        self.put(receipt.payment_id, refunded_rappen=left)
        self.refunds[refund_id] = replace(receipt, status="failed")

    def dispute(self, payment_id: str, status: str, **fields: Any) -> DisputeFacts:
        """Open or change a dispute about all the money of a payment."""
        given: dict[str, Any] = {
            "dispute_id": "dp_1", "amount_rappen": 3_000, "currency": "chf", "reason": "fraudulent",
            "livemode": self.livemode, "charge_id": None, "created_at_s": CREATED_AT_S, **fields,
        }  # fmt: skip
        made = DisputeFacts(payment_id=payment_id, status=status, **given)
        self.disputes[made.dispute_id] = made
        if payment_id in self.payments:
            self.put(payment_id, disputed=True)
        return made

    # ---- inside

    def _page(self, method: str, order: Any) -> HostedPage:
        self._note(method, order)
        if self.refuse is not None:
            raise self.refuse
        with self._lock:
            self._pages += 1
            number = self._pages
        return HostedPage(f"cs_{number}", f"https://pay.example/{number}")

    def _read(self, method: str, argument: Any) -> None:
        self._note(method, argument)
        if self.down is not None:
            raise self.down

    def _carry_out(self, order: ChargeOrder, step: Step | None) -> ChargeResult:
        if isinstance(step, Exception):
            raise step
        if step is None:
            step = Charged(f"pi_of_{order.metadata[METADATA_TOPUP_ID]}")
        if isinstance(step, Lost):
            real = step.result or Charged(f"pi_of_{order.metadata[METADATA_TOPUP_ID]}")
            self._move(order, real)
            return Unknown("connection")
        if callable(step):
            return step(order)
        if not isinstance(step, NotSent | Unknown):
            self._move(order, step)
        return step

    def _move(self, order: ChargeOrder, result: ChargeResult) -> None:
        with self._lock:
            assert order.idempotency_key not in self._said, "charged twice"
            self._said[order.idempotency_key] = result
        payment_id = getattr(result, "payment_id", None)
        if payment_id:
            status = _STATUS[type(result)]
            self.put(
                payment_id, status=status, metadata=dict(order.metadata),
                amount_rappen=order.amount_rappen, customer_id=order.customer_id,
                amount_received_rappen=order.amount_rappen if status == "succeeded" else 0,
            )  # fmt: skip

    def _note(self, method: str, argument: Any) -> None:
        could_write = self.database.can_be_written()
        committed = self.database.rows("SELECT * FROM credit_event ORDER BY row_id")
        with self._lock:
            self.asked.append(Asked(method, argument, committed, could_write))


def _between(found: Iterable[Any], from_s: int, before_s: int) -> Iterator[Any]:
    inside = [one for one in found if from_s <= (one.created_at_s or 0) < before_s]
    return iter(sorted(inside, key=lambda one: -(one.created_at_s or 0)))
