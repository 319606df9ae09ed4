"""A world for automatic charges: a provider in memory, and an oracle that watches what reaches it.

The oracle was written from docs/rules.md alone, and shares nothing with the code but the shape of
the rows it looks at. It knows what the customer agreed to and switched, what operators stopped and
what the bank said; from that it says, whenever a payment comes into being at the provider, whether
that was allowed, and how much of a month's cap it may take.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from guthaben.errors import PaymentOutcomeUnknown, PaymentRejected, PaymentUnavailable
from guthaben.payments.gateway import (
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
    SetupFacts,
    SetupOrder,
    SubscriptionOrder,
    Unknown,
)

ZURICH = ZoneInfo("Europe/Zurich")
HOUR_S, DAY_S = 3_600, 86_400
SOFT_PAUSE_S = {"trouble": HOUR_S, "poor": DAY_S}
HARD = frozenset({"lost_card", "no_word", "authentication"})
STEPS = ("ok", "poor", "trouble", "lost_card", "no_word", "authentication", "processing", "busy",
         "lost_before", "lost_after", "lost_poor", "lost_trouble")  # fmt: skip
CAN_STILL_PAY = frozenset({"requires_payment_method", "requires_action", "processing"})


def month_of(at_s: int) -> str:
    """The calendar month in Zurich."""
    return datetime.fromtimestamp(at_s, ZURICH).strftime("%Y-%m")


@dataclass
class Intent:
    """A payment at the provider."""

    payment_id: str
    order: ChargeOrder
    status: str
    created_s: int
    result: ChargeResult
    step: str
    is_credited: bool = False

    @property
    def rappen(self) -> int:
        return self.order.amount_rappen


@dataclass
class Customer:
    """What the customer and the operators want, as the oracle knows it."""

    is_on: bool = False
    stopped: bool = False
    all_stopped: bool = False
    frozen: bool = False
    card: str = "pm_1"
    amount: int = 0
    cap: int = 0
    largest: int = 0
    not_before_s: int = 0
    declines: list[Intent] = field(default_factory=list)
    """Since the customer last acted."""

    def acts(self) -> None:
        """Begin anew."""
        self.declines.clear()
        self.not_before_s = 0


@dataclass
class Claim:
    """An attempt as it was claimed."""

    topup_id: str
    rappen: int
    month: str
    cap: int


class World:
    """Implements `PaymentGateway`; every payment that comes into being is judged."""

    livemode = True

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.customer = Customer()
        self.steps: list[str] = []
        self.intents: dict[str, Intent] = {}
        self.claims: dict[str, Claim] = {}
        self.down = False
        self.lose_cancel = False
        self.seen: Counter[str] = Counter()
        self.look: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)

    # ---- what the oracle says

    def note_claims(self, rows: list[dict[str, Any]]) -> None:
        """See new attempts, and that the cap allows each with all that is committed already."""
        in_flight = [row for row in rows if row["status"] in ("pending", "unknown")]
        assert len(in_flight) <= 1, "two attempts in flight"
        for row in rows:
            if row["topup_id"] in self.claims:
                continue
            month = month_of(self.clock.at_s)
            claim = Claim(row["topup_id"], row["price_minor"], month, self.customer.cap)
            self.claims[claim.topup_id] = claim
            assert row["cap_month"] == month
            committed = self.committed(month, rows)
            assert committed <= claim.cap, f"{committed} of {claim.cap} claimed in {month}"

    def committed(self, month: str, rows: list[dict[str, Any]]) -> int:
        """What a month's attempts have taken or may still take."""
        total = 0
        for row in rows:
            claim = self.claims.get(row["topup_id"])
            if claim is None or claim.month != month:
                continue
            intent = self.of_topup(claim.topup_id)
            if intent is None:
                total += claim.rappen if row["status"] in ("pending", "unknown") else 0
            elif intent.status == "succeeded" or intent.status in CAN_STILL_PAY:
                total += claim.rappen
        return total

    def of_topup(self, topup_id: str) -> Intent | None:
        """The payment of an attempt, if it ever arrived."""
        found = [i for i in self.intents.values() if i.order.metadata["topup_id"] == topup_id]
        assert len(found) <= 1, "one attempt became two payments"
        return found[0] if found else None

    def _judge(self, order: ChargeOrder) -> None:
        """Say whether this payment may come into being now."""
        now_s, wish = self.clock.at_s, self.customer
        assert wish.is_on, "charged while it is switched off, paused or given up"
        stopped = wish.stopped or wish.all_stopped
        assert not stopped, "charged in spite of a stop"
        assert not wish.frozen, "charged while frozen"
        assert order.amount_rappen <= max(wish.amount, wish.largest), "more than was agreed to"
        assert now_s >= wish.not_before_s, "tried again too early"
        assert len(wish.declines) < 3, "a fourth try without anybody acting"
        unpaid = [
            i for i in self.intents.values()
            if i.order.payment_method_id == order.payment_method_id
            and i.status != "succeeded" and i.created_s > now_s - 30 * DAY_S
        ]  # fmt: skip
        assert len(unpaid) < 15, "the card was tried too often"
        claim = self.claims[order.metadata["topup_id"]]
        cap = wish.cap if claim.month == month_of(now_s) else claim.cap
        taken = sum(
            i.rappen for i in self.intents.values()
            if self.claims[i.order.metadata["topup_id"]].month == claim.month
            and (i.status == "succeeded" or i.status in CAN_STILL_PAY)
        )  # fmt: skip
        assert taken + order.amount_rappen <= cap, "the month's cap"

    # ---- charging

    def charge_saved_card(self, order: ChargeOrder) -> ChargeResult:
        """Carry a charge out as the script says; the same key tells the same."""
        self.look()
        known = self.intents.get(order.idempotency_key)
        if known is not None:
            return known.result
        step = self.steps.pop(0) if self.steps else "ok"
        self.seen[step] += 1
        if step == "busy":
            return Unknown("retry_busy") if order.is_retry else NotSent("busy")
        if step == "lost_before":
            return Unknown("connection")
        self._judge(order)
        intent = self._make(order, step.removeprefix("lost_") if step != "lost_card" else step)
        return (
            Unknown("connection")
            if step.startswith("lost_") and step != "lost_card"
            else (intent.result)
        )

    def _make(self, order: ChargeOrder, step: str) -> Intent:
        payment_id = f"pi_{next(self._numbers)}"
        status, result = self._outcome(payment_id, step)
        intent = Intent(payment_id, order, status, self.clock.at_s, result, step)
        self.intents[order.idempotency_key] = intent
        self._told(intent)
        return intent

    def _outcome(self, payment_id: str, step: str) -> tuple[str, ChargeResult]:
        match step:
            case "ok" | "after":
                return "succeeded", Charged(payment_id)
            case "processing":
                return "processing", Processing(payment_id)
            case "authentication":
                return "requires_action", NeedsCustomer(payment_id, "requires_action")
            case _:
                pass
        words = {"poor": "insufficient_funds", "trouble": "processing_error",
                 "lost_card": "lost_card", "no_word": "generic_decline"}  # fmt: skip
        said = Declined(payment_id, "card_declined", words[step], None, False)
        return "requires_payment_method", said

    def _told(self, intent: Intent) -> None:
        """Remember what the bank's word forbids from now on."""
        wish = self.customer
        if intent.step in HARD:
            wish.is_on = False
        elif intent.step in SOFT_PAUSE_S:
            wish.declines.append(intent)
            wish.not_before_s = self.clock.at_s + SOFT_PAUSE_S[intent.step]
            wish.is_on = wish.is_on and len(wish.declines) < 3

    def credited(self, intent: Intent) -> None:
        """Note that its credit was booked: earlier declines are over, and the wait is."""
        intent.is_credited = True
        order = list(self.intents.values())
        after = order.index(intent)
        self.customer.declines = [one for one in self.customer.declines if order.index(one) > after]
        self.customer.not_before_s = 0

    # ---- what else happens to payments

    def open_ones(self) -> list[Intent]:
        """Payments that a customer could still complete."""
        return [i for i in self.intents.values() if i.status in CAN_STILL_PAY]

    def _find(self, payment_id: str) -> Intent:
        return next(i for i in self.intents.values() if i.payment_id == payment_id)

    def _facts(self, intent: Intent) -> PaymentFacts:
        paid = intent.rappen if intent.status == "succeeded" else 0
        return PaymentFacts(
            intent.payment_id, intent.status, intent.rappen, paid, 0, False, "chf", True,
            intent.order.customer_id, intent.order.payment_method_id, intent.created_s,
            dict(intent.order.metadata),
        )  # fmt: skip

    def _up(self) -> None:
        if self.down:
            raise PaymentUnavailable("down")

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        """Read a payment."""
        self._up()
        return self._facts(self._find(payment_id))

    def find_payment(
        self, topup_id: str, customer_id: str, created_after_s: int
    ) -> PaymentFacts | None:
        """Find the payment of a top-up."""
        self._up()
        found = self.of_topup(topup_id)
        return None if found is None else self._facts(found)

    def cancel_payment(self, payment_id: str) -> PaymentFacts:
        """Cancel a payment; the answer may be lost."""
        self._up()
        intent = self._find(payment_id)
        if intent.status not in ("requires_payment_method", "requires_action"):
            raise PaymentRejected("it can't be cancelled")
        intent.status = "canceled"
        if self.lose_cancel:
            self.lose_cancel = False
            raise PaymentOutcomeUnknown("the answer was lost")
        return self._facts(intent)

    # ---- what nobody asks for here

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        raise NotImplementedError

    def create_setup(self, order: SetupOrder) -> HostedPage:
        raise NotImplementedError

    def create_subscription_checkout(self, order: SubscriptionOrder) -> HostedPage:
        raise NotImplementedError

    def nothing_listed(self, *_about: Any) -> Any:
        raise NotImplementedError

    payments_between = charges_between = refunds_between = nothing_listed
    disputes_between = events_between = balance_between = nothing_listed
    payment_disputes = payment_refunds = retrieve_dispute = refund = nothing_listed

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        raise NotImplementedError

    def retrieve_subscription(self, subscription_id: str) -> Any:
        raise NotImplementedError

    def retrieve_setup(self, setup_id: str) -> SetupFacts:
        raise NotImplementedError

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        raise NotImplementedError
