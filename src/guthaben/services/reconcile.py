"""Reconciliation: our books and the provider's lists, compared both ways.

Law: whatever differs is mended by the same functions that apply events, so a run beside webhooks
credits nothing twice; what they can't mend is alarmed. Lists are walked page by page, and what was
met is noted in the database: memory does not grow with them. A dry run moves no credit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from guthaben.errors import InvalidInput, PaymentError, PaymentRejected, PaymentUnavailable
from guthaben.payments.facts import BalanceEntry, PaymentFacts
from guthaben.payments.gateway import PaymentGateway
from guthaben.payments.reading import reference
from guthaben.payments.webhook import WebhookEvent
from guthaben.services import telling
from guthaben.services.differences import (
    Action,
    Cause,
    Difference,
    Found,
    OurSide,
    compare,
    is_foreign,
    our_side,
)
from guthaben.services.netting import is_ours
from guthaben.services.webhooks import Inbox
from guthaben.store import disputes, payment_states, refunds, settings
from guthaben.store.payment_states import Money
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

OVERLAP_S: Final = 86_400
"""A hosted page stays open for a day: what was made before the window may be paid inside it."""
SETTLING_S: Final = 300
"""What is younger may be under way: its events are still coming."""
EVENTS_KEPT_S: Final = 30 * 86_400
_STUCK_S: Final = 3_600
_PAGE: Final = 100
_MOST_KEPT: Final = 1_000
Place = tuple[int, int, int]
_FIRST: Final[Place] = (-1, 0, 0)
T = TypeVar("T")
Placed = TypeVar("Placed", payment_states.OurPayment, payment_states.Stuck)


@dataclass(slots=True)
class Report:
    """What a run found; of very many differences the first thousand are kept, all are counted."""

    run_no: int
    since_s: int
    until_s: int
    fixes: bool
    payments: int = 0
    foreign: int = 0
    charges: int = 0
    refunds: int = 0
    disputes: int = 0
    events: int = 0
    balance_lines: int = 0
    ours_only: int = 0
    found: int = 0
    remaining: int = 0
    totals: list[Money] = field(default_factory=list)
    """Per currency of the balance: what our payments brought, and what they cost."""
    differences: list[Difference] = field(default_factory=list)
    causes: dict[Cause, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Tell whether nothing differed."""
        return self.found == 0


class Reconciler:
    """Compares one store with one provider."""

    def __init__(
        self,
        store: Store,
        gateway: PaymentGateway,
        inbox: Inbox,
        *,
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._inbox = inbox
        self._may_go_on = may_go_on

    def run(self, since_s: int, until_s: int | None = None, *, fix: bool = False) -> Report:
        """Compare what happened in `[since, until)`; with `fix` mend what can be mended.

        `until_s` is at latest five minutes ago. Raises `PaymentUnavailable` where the provider
        can't be asked: what was mended until then stays mended, and the next run does the rest.
        """
        now_s = self._store.now_s()
        latest = now_s - SETTLING_S
        until = latest if until_s is None else min(until_s, latest)
        if type(since_s) is not int or since_s < 0 or since_s >= until:
            raise InvalidInput("since must lie before until, and five minutes ago", field="since")
        run_no = self._store.run(
            lambda space: payment_states.begin_run(
                space.cursor, since_s, until, fixes=fix, now_s=space.now_s
            )
        )
        run = _Run(self, Report(run_no, since_s, until, fix))
        run.walk(now_s)
        report = run.report
        report.totals = self._store.run(lambda space: _close(space, report))
        return report


class _Run:
    """One run: the walks over the provider's lists, then over our own books."""

    def __init__(self, reconciler: Reconciler, report: Report) -> None:
        self.report = report
        self._store = reconciler._store
        self._gateway = reconciler._gateway
        self._inbox = reconciler._inbox
        self._may_go_on = reconciler._may_go_on

    def walk(self, now_s: int) -> None:
        """Walk through everything."""
        start, until = max(self.report.since_s - OVERLAP_S, 0), self.report.until_s
        if self.report.fixes:
            self._inbox.refunds.resolve_waiting()
        for facts in self._each(self._gateway.payments_between(start, until)):
            self._payment(facts)
        self._other_lists(start, until)
        self._balance(start, until)
        self._ours(self.report.since_s, until)
        self._stuck(now_s)
        self._unresolved_refunds(now_s)
        self._events(max(start, now_s - EVENTS_KEPT_S), until)

    def _each(self, found: Iterator[T]) -> Iterator[T]:
        for one in found:
            if not self._may_go_on():
                raise PaymentUnavailable("The reconciliation was asked to stop; run it again.")
            yield one

    # ---- payments

    def _payment(self, facts: PaymentFacts) -> None:
        ours = self._side(facts.payment_id, facts)
        if is_foreign(facts, ours):
            self.report.foreign += 1
            return
        self.report.payments += 1
        run_no = self.report.run_no
        self._store.run(lambda space: _seen(space, run_no, facts))
        for found in self._compare(facts, ours):
            self._judge(facts, ours, found)

    def _compare(self, facts: PaymentFacts, ours: OurSide) -> list[Found]:
        asks = facts.disputed is True and ours.event is not None
        found = self._gateway.payment_disputes(facts.payment_id) if asks else []
        return compare(facts, ours, found)

    def _judge(self, facts: PaymentFacts, ours: OurSide, found: Found) -> None:
        if not found.mendable and not self._stands(facts, found):
            return
        action = Action.NONE
        if self.report.fixes:
            action = self._mend(facts, found) if found.mendable else Action.ALARMED
        self._note(found, action, ours, facts.payment_id)

    def _mend(self, facts: PaymentFacts, found: Found) -> Action:
        try:
            verdict = self._inbox.settler.settle(
                facts.payment_id, ask_disputes=facts.disputed is True
            )
        except PaymentUnavailable:
            raise
        except (PaymentError, InvalidInput):
            return Action.ALARMED
        if verdict[0] == "quarantined":
            return Action.QUARANTINED
        return Action.ALARMED if self._stands(facts, found) else Action.MENDED

    def _stands(self, facts: PaymentFacts, found: Found) -> bool:
        """Look again, at ours first: a list is older than what was booked while it was read."""
        ours = self._side(facts.payment_id, facts)
        now = self._gateway.retrieve_payment(facts.payment_id)
        return found.cause in {one.cause for one in self._compare(now, ours)}

    def _unmet(self, payment_id: str | None, metadata: Mapping[str, str] | None = None) -> None:
        """Look at a payment that another list names and the list of payments did not show."""
        if payment_id is None:
            return
        run_no = self.report.run_no

        def worth_it(cursor: Cursor) -> bool:
            if payment_states.seen_in(cursor, run_no, payment_id):
                return False
            ours = our_side(cursor, payment_id)
            known = ours.event is not None or ours.record is not None or ours.case is not None
            return known or is_ours(metadata or {})

        if self._store.read(worth_it):
            self._payment(self._gateway.retrieve_payment(payment_id))

    def _other_lists(self, start: int, until: int) -> None:
        for charge in self._each(self._gateway.charges_between(start, until)):
            self.report.charges += 1
            self._unmet(charge.payment_id, charge.metadata)
        for refund in self._each(self._gateway.refunds_between(start, until)):
            self.report.refunds += 1
            self._unmet(refund.payment_id)
        for dispute in self._each(self._gateway.disputes_between(start, until)):
            self.report.disputes += 1
            self._unmet(dispute.payment_id)
        for payment_id in self._store.read(disputes.open_payments):
            self._unmet(payment_id)

    # ---- the balance

    def _balance(self, start: int, until: int) -> None:
        for line in self._each(self._gateway.balance_between(start, until)):
            self.report.balance_lines += 1
            if line.source_id is not None and line.kind in ("charge", "payment"):
                self._line(line, line.source_id)

    def _line(self, line: BalanceEntry, charge_id: str) -> None:
        known = self._store.read(lambda cur: payment_states.by_charge(cur, charge_id))
        told = _money(line)
        if known is None or known[1] == told:
            return
        payment_id, kept = known
        self._store.run(
            lambda space: payment_states.note_money(space.cursor, payment_id, charge_id, told)
        )
        if kept is not None:
            found = Found(Cause.FEE_DIFFERS, kept.fee_minor, told.fee_minor, told.currency)
            self._note(found, Action.MENDED, self._side(payment_id), payment_id)

    # ---- our own books

    def _ours(self, since_s: int, until_s: int) -> None:
        """Look each credited payment up that the provider's lists did not show."""
        run_no = self.report.run_no
        walk = self._pages(
            lambda cur, after: payment_states.unseen(cur, run_no, since_s, until_s, after, _PAGE)
        )
        for one in self._each(walk):
            self.report.ours_only += 1
            self._look_up(one.payment_id)

    def _pages(self, question: Callable[[Cursor, Place], Sequence[Placed]]) -> Iterator[Placed]:
        """Read our own side page by page; each row begins with its place in the walk."""
        after = _FIRST
        while True:
            page = self._ask_page(question, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = (page[-1][0], page[-1][1], page[-1][2])

    def _ask_page(
        self, question: Callable[[Cursor, Place], Sequence[Placed]], after: Place
    ) -> Sequence[Placed]:
        return self._store.read(lambda cur: question(cur, after))

    def _look_up(self, payment_id: str) -> None:
        try:
            facts = self._gateway.retrieve_payment(payment_id)
        except (PaymentRejected, InvalidInput) as error:
            ours = self._side(payment_id)
            captured = ours.event.captured_minor if ours.event else None
            found = Found(Cause.CREDITED_NOT_PAID, captured, None, error.code, False)
            action = Action.ALARMED if self.report.fixes else Action.NONE
            self._note(found, action, ours, payment_id)
            return
        self._payment(facts)

    def _stuck(self, now_s: int) -> None:
        before_s = now_s - _STUCK_S
        walk = self._pages(
            lambda cur, after: payment_states.stuck_purchases(cur, before_s, after, _PAGE)
        )
        for one in self._each(walk):
            self._page_of(one)

    def _page_of(self, one: payment_states.Stuck) -> None:
        try:
            page = self._gateway.retrieve_checkout(one.session_id)
        except (PaymentRejected, InvalidInput) as error:
            action, detail = Action.ALARMED, error.code
        else:
            if page.status == "open" or (
                page.status == "complete" and page.payment_status != "paid"
            ):
                return  # it may still be paid, or is under way
            action, detail = Action.MENDED, f"page_{page.status}"
            if self.report.fixes and self._inbox.settle_page(one.session_id)[0] != "done":
                action = Action.QUARANTINED
        done = action if self.report.fixes else Action.NONE
        ours = OurSide(one.practice_id, None, None, None, 0, False, None)
        self._note(Found(Cause.PURCHASE_STUCK, detail=detail), done, ours, "", one.event_no)

    def _unresolved_refunds(self, now_s: int) -> None:
        rows = self._store.read(lambda cur: refunds.due(cur, now_s, _PAGE))
        for row in rows:
            if now_s - row.asked_at_s <= OVERLAP_S:
                continue
            ours = self._side(row.payment_id)
            action = Action.ALARMED if self.report.fixes else Action.NONE
            found = Found(Cause.REFUND_UNRESOLVED, row.amount_minor, None, row.refund_id, False)
            self._note(found, action, ours, row.payment_id)

    # ---- events

    def _events(self, start: int, until: int) -> None:
        for event in self._each(self._gateway.events_between(start, until)):
            self.report.events += 1
            if not self._inbox.missed(event):
                continue
            payment_id = _payment_named(event)
            ours = self._side(payment_id)
            if not _concerns(event, ours):
                continue
            stored = self.report.fixes and self._inbox.take(event)
            self._note(
                Found(Cause.EVENT_MISSED, detail=event.type),
                Action.STORED if stored else Action.NONE, ours, payment_id,
            )  # fmt: skip
        if self.report.fixes:
            while self._may_go_on() and self._inbox.work_once():
                pass

    # ---- noting

    def _side(self, payment_id: str, facts: PaymentFacts | None = None) -> OurSide:
        return self._store.read(lambda cur: our_side(cur, payment_id, facts))

    def _note(
        self, found: Found, action: Action, ours: OurSide, payment_id: str, event_no: int = 0
    ) -> None:
        event = ours.event or ours.record
        one = Difference(
            found.cause, action, ours.practice_id, event.event_no if event else event_no,
            payment_id, found.ours_rappen, found.theirs_rappen, found.detail,
        )  # fmt: skip
        report = self.report
        report.found += 1
        report.remaining += one.remains
        report.causes[one.cause] = report.causes.get(one.cause, 0) + 1
        if len(report.differences) < _MOST_KEPT:
            report.differences.append(one)


def _seen(space: Workspace, run_no: int, facts: PaymentFacts) -> None:
    payment_states.mark_seen(space.cursor, run_no, facts.payment_id, space.now_s)
    kept = payment_states.money_of(space.cursor, facts.payment_id)
    if facts.balance is not None and kept is None:
        charge_id, money = facts.charge_id or "", _money(facts.balance)
        payment_states.note_money(space.cursor, facts.payment_id, charge_id, money)


def _money(line: BalanceEntry) -> Money:
    return Money(line.amount_minor, line.fee_minor, line.net_minor, line.currency)


def _close(space: Workspace, report: Report) -> list[Money]:
    if report.fixes:
        for cause in {one.cause for one in report.differences if one.remains}:
            settings.raise_alarm(space.cursor, "reconcile_difference", cause.value, space.now_s)
            telling.difference(space, report.run_no, cause.value, report.causes[cause])
    payment_states.end_run(
        space.cursor, report.run_no, payments=report.payments, differences=report.found,
        remaining=report.remaining, now_s=space.now_s,
    )  # fmt: skip
    return payment_states.totals(space.cursor, report.run_no)


def _payment_named(event: WebhookEvent) -> str:
    about = event.object
    found = reference(about, "payment_intent", "pi_") or reference(about, "id", "pi_")
    return found or ""


def _concerns(event: WebhookEvent, ours: OurSide) -> bool:
    if ours.event is not None or ours.record is not None or ours.case is not None:
        return True
    metadata = event.object.get("metadata")
    return isinstance(metadata, dict) and is_ours(metadata)


__all__ = ["EVENTS_KEPT_S", "OVERLAP_S", "SETTLING_S", "Reconciler", "Report"]
