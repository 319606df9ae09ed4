"""Whatever the provider does and tells of it, in any order: the ledger comes to the same.

The oracle is the equation of docs/rules.md, computed from what really happened at the provider: of
each payment the credit that may stay is floor(granted x money left / money captured). It knows
nothing of events. The machine lets events be lost, repeated and told in any order, by webhooks,
operators and reconciliation; the test below goes through all orders of a few.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

import stripe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from guthaben.domain.commands import OpenEvent
from guthaben.domain.topup import CreditEvent
from guthaben.errors import Refused
from guthaben.payments.facts import DisputeFacts, RefundReceipt
from guthaben.services.guthaben import Guthaben
from guthaben.services.reconcile import Reconciler
from guthaben.services.refunds import Wish
from guthaben.services.webhooks import Inbox
from tests import databases
from tests.services.fakes import Elsewhere, FakeGateway

SECRET = "whsec_of_the_properties"
START_S = 1_762_945_200
PRACTICE = "prac_1"


@dataclass
class Paid:
    """One purchase as it really went at the provider."""

    payment_id: str
    granted_nano_usd: int
    captured_rappen: int
    refunds: dict[str, int] = field(default_factory=dict)
    disputes: dict[str, tuple[int, str]] = field(default_factory=dict)

    def stays_nano_usd(self) -> int:
        """The oracle: the credit that may stay."""
        taken = sum(self.refunds.values())
        taken += sum(
            amount
            for amount, status in self.disputes.values()
            if status in ("needs_response", "under_review", "lost")
        )
        left_rappen = max(self.captured_rappen - taken, 0)
        return self.granted_nano_usd * left_rappen // self.captured_rappen


class World:
    """A store, a provider, and the events that it has to tell."""

    def __init__(self, kind: str = databases.SQLITE) -> None:
        self.at_s = START_S
        self.guthaben = Guthaben.open(databases.quick(kind), clock_ms=lambda: self.at_s * 1000)
        self.provider = FakeGateway(Elsewhere())
        self.inbox = Inbox(
            self.guthaben, self.provider, secrets=lambda: (SECRET,), livemode_expected=True
        )
        self.purchases: list[Paid] = []
        self.spent_nano_usd = 0
        self.numbers = itertools.count(1)

    def buy(self, rappen: int, granted: int) -> tuple[Paid, list[dict[str, Any]]]:
        """Commit a purchase of ours and let it be paid; give the events that tell of it."""
        number = next(self.numbers)
        names: dict[str, Any] = {"topup_id": f"tu_{number}", "session_id": f"cs_{number}"}
        event = CreditEvent(
            0, "topup_purchase", "pending", granted, rappen, event_at_s=self.at_s,
            recorded_at_s=self.at_s, livemode=True, **names,
        )  # fmt: skip
        self.guthaben.core.store.execute(PRACTICE, OpenEvent(event))
        metadata = {"aza_purpose": "ai_topup", "practice_id": PRACTICE, "topup_id": f"tu_{number}"}
        paid = Paid(f"pi_{number}", granted, rappen)
        self.provider.put(
            paid.payment_id, amount_rappen=rappen, amount_received_rappen=rappen,
            metadata=metadata, created_at_s=self.at_s - 600,
        )  # fmt: skip
        self.purchases.append(paid)
        page = {
            "id": f"cs_{number}", "object": "checkout.session", "mode": "payment",
            "payment_status": "paid", "payment_intent": paid.payment_id, "metadata": metadata,
        }  # fmt: skip
        intent = {"id": paid.payment_id, "object": "payment_intent"}
        return paid, [
            self.event("checkout.session.completed", page),
            self.event("payment_intent.succeeded", intent),
        ]

    def refund(self, paid: Paid, rappen: int) -> list[dict[str, Any]]:
        """Give money back at the provider; give the events."""
        receipt = self.provider.give_back(paid.payment_id, rappen)
        paid.refunds[receipt.refund_id] = rappen
        return self.refund_events(paid, receipt)

    def fail_refund(self, paid: Paid, refund_id: str) -> list[dict[str, Any]]:
        """Let a refund fail."""
        self.provider.refund_fails(refund_id)
        paid.refunds[refund_id] = 0
        return self.refund_events(paid, self.provider.refunds[refund_id])

    def refund_events(self, paid: Paid, receipt: RefundReceipt) -> list[dict[str, Any]]:
        """Tell of a refund in Stripe's three ways."""
        about = {"id": receipt.refund_id, "object": "refund", "payment_intent": paid.payment_id}
        charge = {"id": "ch_1", "object": "charge", "payment_intent": paid.payment_id}
        kind = "refund.failed" if receipt.status == "failed" else "refund.created"
        return [self.event(kind, about), self.event("charge.refunded", charge)]

    def dispute(self, paid: Paid, dispute_id: str, rappen: int, status: str) -> dict[str, Any]:
        """Open or move a dispute; give the event, which may show an older status."""
        made = DisputeFacts(
            dispute_id, paid.payment_id, None, rappen, "chf", status, "general", True, self.at_s
        )
        self.provider.disputes[dispute_id] = made
        self.provider.put(paid.payment_id, disputed=True)
        paid.disputes[dispute_id] = (rappen, status)
        about = {
            "id": dispute_id, "object": "dispute", "payment_intent": paid.payment_id,
            "amount": rappen, "currency": "chf", "status": "needs_response",
        }  # fmt: skip
        return self.event("charge.dispute.updated", about)

    def event(self, kind: str, about: dict[str, Any]) -> dict[str, Any]:
        """Make an event of the provider's."""
        return {
            "id": f"evt_{next(self.numbers)}", "object": "event", "type": kind,
            "created": self.at_s, "livemode": True, "data": {"object": about},
        }  # fmt: skip

    def tell(self, event: dict[str, Any]) -> None:
        """Deliver an event and apply it."""
        body = json.dumps(event)
        header = stripe.WebhookSignature.generate_signature_header(body, SECRET, self.at_s)
        self.inbox.receive(body.encode(), header)
        self.inbox.work_once()

    def reconcile(self) -> None:
        """Compare with the provider's lists."""
        self.at_s += 600
        store = self.guthaben.core.store
        Reconciler(store, self.provider, self.inbox).run(START_S - 86_400, fix=True)

    def booked_nano_usd(self) -> int:
        """What is left, as the ledger says."""
        balance = self.guthaben.balance(PRACTICE)
        return balance.credit_nano_usd - balance.debt_nano_usd

    def stays_nano_usd(self) -> int:
        """What should be left, as the oracle says."""
        return sum(paid.stays_nano_usd() for paid in self.purchases) - self.spent_nano_usd

    def agrees(self) -> None:
        """Hold the ledger against the oracle."""
        assert self.booked_nano_usd() == self.stays_nano_usd()
        assert self.guthaben.verify().ok

    def sane(self) -> None:
        """Check what holds at every step."""
        balance = self.guthaben.balance(PRACTICE)
        assert balance.debt_nano_usd == 0 or balance.credit_nano_usd == 0
        granted = sum(paid.granted_nano_usd for paid in self.purchases)
        assert balance.credit_nano_usd <= granted


# ---------------------------------------------------------------- all orders of a few


@settings(max_examples=25)
@given(
    rappen=st.integers(1_000, 500_000),
    granted=st.integers(1, 10**12),
    first=st.integers(1, 400),
    second=st.integers(1, 400),
    disputed=st.integers(1, 2_000),
    ends=st.sampled_from(["won", "lost", "needs_response", "warning_closed"]),
    order=st.permutations(range(8)),
    again=st.lists(st.integers(0, 7), max_size=4),
    spent=st.integers(0, 10**12),
)
def test_one_equation_whatever_the_order(
    rappen: int,
    granted: int,
    first: int,
    second: int,
    disputed: int,
    ends: str,
    order: list[int],
    again: list[int],
    spent: int,
) -> None:
    world = World()
    paid, events = world.buy(rappen, granted)
    events += world.refund(paid, first)
    events += world.refund(paid, second)
    refund_id = next(iter(paid.refunds))
    events += world.fail_refund(paid, refund_id)[:1]
    events.append(world.dispute(paid, "dp_1", min(disputed, rappen), ends))
    if spent:
        world.guthaben.record_usage(PRACTICE, spent, key="spent")
        world.spent_nano_usd = spent
    for number in [*order, *again]:
        world.tell(events[number])
        world.sane()
    assert world.booked_nano_usd() == world.stays_nano_usd()
    assert world.guthaben.verify().ok
    world.guthaben.close()


# ---------------------------------------------------------------- the machine


class MoneyIn(RuleBasedStateMachine):
    """Purchases, refunds, disputes, spending; events lost, late and repeated."""

    kind: ClassVar[str] = databases.SQLITE
    events = Bundle("events")

    @initialize()
    def open(self) -> None:
        """Begin with nothing."""
        self.world = World(self.kind)
        self.told = 0
        self.all_events: list[dict[str, Any]] = []

    def _made(self, events: list[dict[str, Any]]) -> None:
        self.all_events += events

    def _some(self, number: int) -> Paid | None:
        purchases = self.world.purchases
        return purchases[number % len(purchases)] if purchases else None

    @rule(rappen=st.integers(1_000, 9_000), granted=st.integers(1, 10**11))
    def buy(self, rappen: int, granted: int) -> None:
        """Buy; nobody tells of it yet."""
        if len(self.world.purchases) < 4:
            self._made(self.world.buy(rappen, granted)[1])

    @rule(which=st.integers(0, 3), percent=st.integers(1, 100))
    def refund_at_the_provider(self, which: int, percent: int) -> None:
        """Give some of what is left back."""
        paid = self._some(which)
        left = paid.captured_rappen - sum(paid.refunds.values()) if paid else 0
        if paid is not None and left * percent // 100:
            self._made(self.world.refund(paid, left * percent // 100))

    @rule(which=st.integers(0, 3), number=st.integers(0, 5))
    def a_refund_fails(self, which: int, number: int) -> None:
        """Let a refund fail."""
        paid = self._some(which)
        alive = [one for one, rappen in paid.refunds.items() if rappen] if paid else []
        if paid is not None and alive:
            self._made(self.world.fail_refund(paid, alive[number % len(alive)]))

    @rule(
        which=st.integers(0, 3),
        dispute=st.integers(1, 2),
        rappen=st.integers(1, 9_000),
        status=st.sampled_from(
            ["warning_needs_response", "needs_response", "under_review", "won", "lost"]
        ),
    )
    def dispute(self, which: int, dispute: int, rappen: int, status: str) -> None:
        """Open or move a dispute, to whatever status."""
        paid = self._some(which)
        if paid is not None:
            name = f"dp_{paid.payment_id}_{dispute}"
            amount = paid.disputes.get(name, (min(rappen, paid.captured_rappen), ""))[0]
            self._made([self.world.dispute(paid, name, amount, status)])

    @rule(number=st.integers(0, 99))
    def tell(self, number: int) -> None:
        """Tell any event that there ever was, perhaps again."""
        if self.all_events:
            self.world.tell(self.all_events[number % len(self.all_events)])

    @rule(amount=st.integers(1, 10**11))
    def spend(self, amount: int) -> None:
        """Use credit, more than there is too."""
        key = f"spend-{next(self.world.numbers)}"
        self.world.guthaben.record_usage(PRACTICE, amount, key=key)
        self.world.spent_nano_usd += amount

    @rule(which=st.integers(0, 3), percent=st.integers(1, 100), lost=st.booleans())
    def refund_by_operator(self, which: int, percent: int, lost: bool) -> None:
        """Ask for a refund, whose answer may be lost."""
        paid = self._some(which)
        if paid is None:
            return
        before = set(self.world.provider.refunds)
        self.world.provider.refund_lost = lost
        try:
            left = self.world.inbox.refunds.quote(paid.payment_id).refundable_rappen
            wish = Wish(max(left * percent // 100, 1), f"key-{next(self.world.numbers)}", "because",
                        allow_debt=True)  # fmt: skip
            self.world.inbox.refunds.refund(paid.payment_id, wish)
        except Refused:
            pass
        self.world.provider.refund_lost = False
        for refund_id in set(self.world.provider.refunds) - before:
            receipt = self.world.provider.refunds[refund_id]
            paid.refunds[refund_id] = receipt.amount_rappen or 0
            self._made(self.world.refund_events(paid, receipt))

    @rule()
    def reconcile(self) -> None:
        """Reconcile: from here on the books agree, until something new happens."""
        self.world.reconcile()
        self.world.agrees()

    @invariant()
    def sane(self) -> None:
        """Hold at every step."""
        if hasattr(self, "world"):
            self.world.sane()

    def teardown(self) -> None:
        """Tell everything once more in the end, the newest first: the ledger is the oracle's."""
        if not hasattr(self, "world"):
            return
        for event in reversed(self.all_events):
            again = replace_id(event, f"evt_{next(self.world.numbers)}")
            self.world.tell(again)
        self.world.agrees()
        self.world.guthaben.close()


def replace_id(event: dict[str, Any], event_id: str) -> dict[str, Any]:
    """Tell the same under another id, as a second endpoint does."""
    return {**event, "id": event_id}


class MoneyInOnPostgresql(MoneyIn):
    """The same on the other database."""

    kind = databases.POSTGRESQL


_USUAL = settings(
    stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMoneyIn = MoneyIn.TestCase
TestMoneyIn.settings = settings(_USUAL, max_examples=40)
TestMoneyInOnPostgresql = MoneyInOnPostgresql.TestCase
TestMoneyInOnPostgresql.settings = settings(_USUAL, max_examples=10)
