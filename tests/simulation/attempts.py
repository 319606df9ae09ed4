"""Watches purchases: claims as they are committed, charges as they arrive, credit as it is booked.

Law: what may happen is judged by what the practice itself agreed to (`book`) and by what Stripe
really did (`truth`). The engine's rows are read to learn that something happened, not why.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from tests.simulation.book import Own, Terms, bought_nano_usd, left_nano_usd
from tests.simulation.clock import month_of
from tests.simulation.history import Violation
from tests.simulation.ledger import Ledger
from tests.simulation.truth import Truth

AUTO = frozenset({"auto_topup_purchase", "failed_auto_topup"})
IN_FLIGHT = frozenset({"pending", "unknown"})
HARD = frozenset(
    {"lost_card", "stolen_card", "expired_card", "authentication_required", "pickup_card"}
)
_MOST_REFUSALS = 3
_BACK_OFF_S = 3600
_KEY_LIFE_S = 23 * 3600
_COOLDOWN_S = 86_400


class Row(NamedTuple):
    """A credit event as committed."""

    practice_no: int
    event_no: int
    event_type: str
    status: str
    amount: int
    price: int | None
    payment_id: str
    topup_id: str
    key: str
    captured: int
    clawed: int
    grant_no: int
    parent_no: int
    cap_month: str


_COLUMNS = (
    "practice_no, event_no, event_type, status, amount_nano_usd, price_minor, payment_id, topup_id,"
    " idempotency_key, captured_minor, clawed_back_nano_usd, grant_no, parent_event_no, cap_month"
)


@dataclass
class Attempt:
    """A claim of an automatic charge."""

    row: Row
    own: Own
    month: str
    claimed_at_s: int
    succeeded_at_s: int = 0


class Purchases:
    """Everything the oracle remembers of credit events."""

    def __init__(
        self, looking: sqlite3.Connection, truth: Truth, ledger: Ledger, owns: dict[str, Own]
    ) -> None:
        self._cursor = looking.cursor()
        self._truth = truth
        self._ledger = ledger
        self._owns = owns
        self.rows: dict[tuple[int, int], Row] = {}
        self.attempts: dict[str, Attempt] = {}
        self._first_sent_s: dict[str, int] = {}
        self._ended: dict[tuple[int, int], int] = {}
        """With which commit an attempt failed."""
        self._commit = 0
        self._read_at: dict[str, set[tuple[int, int]]] = {}
        """Which refunds and disputes the booked state of a payment may have known of."""
        self._disputes_seen: set[str] = set()
        self._disputed: dict[str, int] = {}
        """With which commit a practice's open dispute was taken note of."""
        self.refused_call = False
        """Whether the commit at hand is of a task that reserves: a refusal may be behind it."""

    # ---- after a commit

    def _note_disputes(self) -> None:
        """Remember with which commit the engine first knew of a dispute that is open."""
        for (dispute_id,) in self._cursor.execute("SELECT dispute_id FROM credit_dispute"):
            if dispute_id not in self._disputes_seen:
                self._disputes_seen.add(dispute_id)
                for payment in self._truth.payments.values():
                    if dispute_id in payment.open_disputes:
                        self._disputed[self._truth.owner_of(payment)] = self._commit

    def look(self, now_s: int, commit: int) -> None:
        """Check every credit event that a commit has made or changed."""
        self._commit = commit
        self._note_disputes()
        for found in self._cursor.execute(f"SELECT {_COLUMNS} FROM credit_event"):
            row = Row(*found)
            place = (row.practice_no, row.event_no)
            before = self.rows.get(place)
            if before == row:
                continue
            self.rows[place] = row
            if before is None and row.event_type in AUTO and row.key:
                self._claimed(row, now_s)
            if row.status == "failed":
                self._ended.setdefault(place, commit)
            if before is not None and before.status == "succeeded" != row.status:
                raise Violation("succeeded is final", f"{before} -> {row}")
            if row.status == "succeeded" and not row.parent_no and row.grant_no:
                if before is None or before.status != "succeeded":
                    self._credited(row, now_s)
                self._netted(row)

    def _own(self, practice_no: int) -> Own:
        return self._owns[self._ledger.names[practice_no]]

    def _claimed(self, row: Row, now_s: int) -> None:
        own, month, price = self._own(row.practice_no), month_of(now_s), row.price or 0
        if row.cap_month != month:
            raise Violation("I-19 month", f"claimed in {month}, counted in {row.cap_month}")
        fitting = [terms for terms in own.terms.now if terms.covers(price)]
        if not fitting:
            raise Violation("I-22 consent", f"{own.id} claims {price}: {own.terms.now}")
        self._may_charge(own, 1 << 60)
        mine = [a for a in self.attempts.values() if a.own is own]
        if any(self._is_open(attempt) for attempt in mine):
            raise Violation("I-20 single flight", f"{own.id} has two attempts")
        if not any(self._is_low(own, terms, now_s) for terms in fitting):
            raise Violation("trigger", f"{own.id} claims, and its credit is not low")
        spent = sum(a.row.price or 0 for a in mine if a.month == month and self._counts(a))
        cap = max(terms.cap for terms in fitting)
        if spent + price > cap:
            raise Violation("I-19 cap", f"{own.id}: {spent} + {price} above {cap} in {month}")
        if self._disputed.get(own.id, -1) > own.agreed_at:
            raise Violation("disputed", f"{own.id} is charged again, and disputes a charge")
        last_s = max((a.succeeded_at_s for a in mine), default=0)
        if last_s and now_s - last_s < _COOLDOWN_S:
            raise Violation("I-21 cooldown", f"{own.id}: {now_s - last_s} s after a success")
        self._after_refusals(own, mine, now_s)
        self.attempts[row.topup_id] = Attempt(row, own, month, now_s)

    def _is_low(self, own: Own, terms: Terms, now_s: int) -> bool:
        """Say whether the terms let a charge be made now, or a call was just refused."""
        if self.refused_call:
            return True
        number = next(no for no, name in self._ledger.names.items() if name == own.id)
        available = self._cursor.execute(
            "SELECT COALESCE(SUM(free_nano_usd), 0) FROM credit_grant WHERE practice_no = ?"
            " AND (kind <> 1 OR period_start_s <= ? AND ? < period_end_s)",
            (number, now_s, now_s),
        ).fetchone()[0]
        if own.allowance:
            # An allowance that nobody has touched yet counts, though it has no row.
            return bool(available * 100 < terms.percent * own.allowance)
        return bool(available < terms.below)

    def _may_charge(self, own: Own, at: int) -> None:
        """See that the practice was active, and nobody had stopped its charges."""
        if True not in own.active.at(at):
            raise Violation("frozen", f"{own.id} is charged while it is not active")
        if False not in own.stopped.at(at) or False not in self._owns[""].stopped.at(at):
            raise Violation("stopped", f"{own.id} is charged while its charges are stopped")

    def _after_refusals(self, own: Own, mine: list[Attempt], now_s: int) -> None:
        """A card that refused is tried again only if that may help, later, and at most twice."""
        refusals: list[tuple[Attempt, str]] = []
        for attempt in mine:
            payments = self._truth.of_topup(attempt.row.topup_id)
            if any(p.captured for p in payments):
                refusals.clear()
            refusals += [(attempt, p.last_error) for p in payments if p.last_error][:1]
        commit = self._commit
        since = [(a, why) for a, why in refusals
                 if own.agreed_at < self._ended.get(a.row[:2], commit)]  # fmt: skip
        if any(why in HARD for _attempt, why in since):
            raise Violation("I-21 refused for good", f"{own.id} again after {since[-1][1]}")
        if len(since) >= _MOST_REFUSALS:
            raise Violation("I-21 three failures", f"{own.id} again after {len(since)} refusals")
        if since and now_s - since[-1][0].claimed_at_s < _BACK_OFF_S:
            raise Violation("I-21 back-off", f"{own.id} again at once after {since[-1][1]}")

    def _is_open(self, attempt: Attempt) -> bool:
        row = self.rows[attempt.row.practice_no, attempt.row.event_no]
        payments = self._truth.of_topup(row.topup_id)
        return row.status in IN_FLIGHT or any(p.status == "processing" for p in payments)

    def _counts(self, attempt: Attempt) -> bool:
        """Say whether an attempt took money, or still may."""
        if self._is_open(attempt):
            return True
        mine = self._truth.of_topup(attempt.row.topup_id)
        return any(p.may_take and not p.foreign for p in mine)  # strangers copy our metadata

    def _credited(self, row: Row, now_s: int) -> None:
        own = self._own(row.practice_no)
        payment = self._truth.payments.get(row.payment_id)
        if payment is None or not payment.captured:
            raise Violation("I-14 paid before credited", f"{own.id}: {row}")
        if payment.currency != "chf" or row.amount != bought_nano_usd(payment.captured):
            raise Violation("I-15 what was paid", f"{own.id}: {payment.captured}, {row.amount}")
        twins = [
            other
            for other in self.rows.values()
            if other.payment_id == row.payment_id
            and other.grant_no
            and not other.parent_no
            and other[:2] != row[:2]
        ]
        if twins:
            raise Violation("I-14 credited once", f"{row.payment_id} for {twins[0]} and {row}")
        self._whose(own, row)
        attempt = self.attempts.get(row.topup_id)
        if attempt is not None and not attempt.succeeded_at_s:
            attempt.succeeded_at_s = now_s

    def _whose(self, own: Own, row: Row) -> None:
        """The credit is for whoever opened the page, or whose card was charged."""
        payment = self._truth.payments[row.payment_id]
        owner = self._truth.owner_of(payment)
        if owner != own.id:
            raise Violation("I-6 whose money", f"paid by {owner}, credited to {own.id}")

    def _netted(self, row: Row) -> None:
        """What is booked is what was left at some time, and never an older time than before."""
        payment = self._truth.payments[row.payment_id]
        before = self._read_at.get(row.payment_id, {(0, 0)})
        possible = {
            (i, j)
            for i, back in enumerate(payment.refunded_ever)
            for j, taken in enumerate(payment.withdrawn_ever)
            if row.clawed
            == row.amount - left_nano_usd(row.amount, row.captured - back - taken, row.captured)
            and any(i >= was_i and j >= was_j for was_i, was_j in before)
        }
        if not possible:
            told = f"{row.clawed} after {payment.refunded_ever} and {payment.withdrawn_ever}"
            raise Violation("I-13 netting", f"{row.payment_id}: {told}")
        if possible != before:
            self._read_at[row.payment_id] = possible

    # ---- before a request is carried out

    def sending(self, path: str, body: str, key: str, now_s: int, at: int) -> None:
        """Check that what is sent was recorded, agreed to, and is the very thing that was.

        `at` is the newest commit that the sender can have seen.
        """
        told = dict(parse_qsl(body))
        topup_id = told.get("metadata[topup_id]", "")
        if path == "/v1/checkout/sessions" and told.get("mode") == "payment":
            self._recorded(topup_id, told.get("line_items[0][price_data][unit_amount]", ""))
        if path == "/v1/refunds":
            self._refund_recorded(key, told.get("amount", ""))
        if path == "/v1/payment_intents":
            row = self._recorded(topup_id, told.get("amount", ""))
            if not key or row.key != key:
                raise Violation("I-17 one key per attempt", f"{key} for {row}")
            first_s = self._first_sent_s.setdefault(key, now_s)
            if now_s - first_s > _KEY_LIFE_S:
                raise Violation("I-18 stale key", f"sent again after {now_s - first_s} s")
            self._agreed(row, told, at)

    def _refund_recorded(self, key: str, amount: str) -> None:
        found = self._cursor.execute(
            "SELECT amount_minor FROM credit_refund WHERE idempotency_key = ?", (key,)
        ).fetchone()
        if found is None or str(found[0]) != amount:
            raise Violation("I-17 intent before effect", f"refund of {amount}: {found}")

    def charged_once(self) -> None:
        """See that no purchase took money twice, and no request gave it back twice."""
        for payment in self._truth.payments.values():
            asked = [wish for wish in payment.asked_by.values() if wish]
            if len(set(asked)) != len(asked):
                raise Violation("refunded once", f"{payment.id}: {payment.asked_by}")
        seen: set[str] = set()
        for payment in self._truth.paid():
            if payment.foreign:
                continue
            if payment.topup_id and payment.topup_id in seen:
                raise Violation("charged once", f"{payment.topup_id} took money twice")
            seen.add(payment.topup_id)

    def _recorded(self, topup_id: str, amount: str) -> Row:
        found: Any = self._cursor.execute(
            f"SELECT {_COLUMNS} FROM credit_event WHERE topup_id = ?", (topup_id,)
        ).fetchone()
        if not topup_id or found is None:
            raise Violation("I-17 intent before effect", f"nothing is recorded of {topup_id!r}")
        row = Row(*found)
        if str(row.price) != amount:
            raise Violation("I-17 intent before effect", f"recorded {row.price}, sent {amount}")
        return row

    def _agreed(self, row: Row, told: dict[str, str], at: int) -> None:
        own = self._own(row.practice_no)
        price = row.price or 0
        if not any(t.covers(price) or (t.enabled and price <= t.amount) for t in own.terms.at(at)):
            raise Violation("I-22 consent", f"{own.id} is charged {row.price}: {own.terms.at(at)}")
        self._may_charge(own, at)
        customer_id = told.get("customer", "")
        if self._truth.customers.get(customer_id) != own.id:
            raise Violation("I-6 whose card", f"{own.id}: customer {customer_id}")
        if self._truth.cards.get(told.get("payment_method", "")) != customer_id:
            raise Violation("I-6 whose card", f"{own.id}: {told.get('payment_method')}")
