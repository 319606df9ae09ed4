"""The janitor of automatic charges: outcomes for lost answers, ends for what was left open.

Law: an answer that never came is asked for with the same key within twelve hours, then looked up;
never by a new attempt. What the customer or an operator has stopped meanwhile is looked up, never
sent. After a day without an outcome an alarm is raised. Each job may run anywhere, any number of
times, from the server or from `guthaben work --once`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from guthaben.domain.apply_topups import claim_decision
from guthaben.domain.auto_topup import why_not_send
from guthaben.domain.commands import ClaimTopup, ConfirmCancelled, Outcome
from guthaben.domain.declines import Verdict
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, IN_FLIGHT, CreditEvent
from guthaben.errors import PaymentError, PaymentRejected
from guthaben.payments.gateway import PaymentGateway
from guthaben.services import attempt_notices
from guthaben.services.charging import (
    Failure,
    charge_claimed,
    fail,
    store_reading,
    withdraw,
    withdraw_unsent,
)
from guthaben.store import attempts, topups
from guthaben.store.adopted import Run
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace, new_topup_id

log = logging.getLogger("guthaben.auto_topup")

RETRY_SAME_KEY_S = 12 * 3600
"""Stripe may forget a key after 24 h; half of that leaves room for clocks and delays."""
ALARM_AFTER_S = 24 * 3600
SETTLED_FOR_S = 60
"""An attempt younger than this may still be under way in another thread."""
_ARRIVED_AFTER_S = 900
"""A request that has not arrived by then never will."""
_PAGE = 50


class Janitor:
    """Does what is due, once, and tells how much that was."""

    def __init__(
        self,
        store: Store,
        gateway: PaymentGateway,
        charge: Callable[[str, Outcome], None],
        *,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._charge = charge
        self._allowed = allowed

    def work_once(self, now_s: int | None = None) -> dict[str, int]:
        """Resolve, cancel and check, in this order; give how many of each were done."""
        return {
            "resolved": self.resolve_once(now_s),
            "cancelled": self.cancel_once(now_s),
            "claimed": self.check_once(now_s),
        }

    # ---- attempts without an outcome

    def resolve_once(self, now_s: int | None = None, *, most: int = 500) -> int:
        """Resolve attempts without an outcome, the oldest first; tell how many have one now."""
        if not self._allowed():
            return 0
        now_s = self._now_s(now_s)
        after, seen, done = (0, 0, 0), 0, 0
        while page := self._store.read(_waiting(now_s - SETTLED_FOR_S, after)):
            for located in page:
                done += self._resolve_one(located, now_s)
            last = page[-1]
            after = (last.event.recorded_at_s, last.practice_no, last.event.event_no)
            seen += len(page)
            if seen >= most:
                break
        return done

    def _resolve_one(self, located: topups.Located, now_s: int) -> bool:
        if now_s - located.event.recorded_at_s > ALARM_AFTER_S:
            self._complain(located, "attempt_without_outcome")
        try:
            return resolve(self._store.run, self._gateway, located, now_s)
        except PaymentError as error:
            log.warning("an attempt could not be resolved yet: %s", error.code)
        except Exception:
            log.exception("an attempt can't be resolved; the others go on")
            self._complain(located, "attempt_unresolvable")
        return False

    # ---- payments left open

    def cancel_once(self, now_s: int | None = None, *, most: int = 500) -> int:
        """Cancel what failed attempts left open at the provider; tell how many are closed now."""
        now_s = self._now_s(now_s)
        after, seen, done = (0, 0), 0, 0
        while page := self._store.read(_left_open(after)):
            for located in page:
                done += self._cancel_one(located, now_s)
            after = (page[-1].practice_no, page[-1].event.event_no)
            seen += len(page)
            if seen >= most:
                break
        return done

    def _cancel_one(self, located: topups.Located, now_s: int) -> bool:
        if now_s - located.event.recorded_at_s > ALARM_AFTER_S:
            self._complain(located, "payment_left_open")
        try:
            return close_payment(self._store.run, self._gateway, located)
        except PaymentError as error:
            log.warning("a failed payment could not be cancelled yet: %s", error.code)
        except Exception:
            log.exception("a failed payment can't be cancelled; the others go on")
            self._complain(located, "payment_left_open")
        return False

    # ---- low balances that no command is going to see

    def check_once(self, now_s: int | None = None) -> int:
        """Claim for every practice whose credit is low and whose charge was put off until now."""
        if not self._allowed():
            return 0
        now_s = self._now_s(now_s)
        after, claimed = 0, 0
        while page := self._store.read(_due(now_s, after)):
            claims = self._store.run(_claim_low(page))
            for practice_id, outcome in claims:
                self._charge(practice_id, outcome)
            after = page[-1].practice_no
            claimed += len(claims)
        return claimed

    def _now_s(self, now_s: int | None) -> int:
        return self._store.now_s() if now_s is None else now_s

    def _complain(self, located: topups.Located, code: str) -> None:
        self._store.run(
            lambda space: attempt_notices.unresolved(
                space, located.practice_id, located.event, code
            )
        )


def resolve(run: Run, gateway: PaymentGateway, located: topups.Located, now_s: int) -> bool:
    """Find out what became of an attempt without an outcome; tell whether it has one now.

    Raises the `PaymentError` tree when the provider can't be asked.
    """
    practice_id = located.practice_id
    event, unwanted = run(lambda space: look_again(space, practice_id, located.event))
    if event is None:
        return True
    age_s = now_s - event.recorded_at_s
    if not event.sent_at_s:
        return _first_time(run, gateway, practice_id, event, age_s)
    if event.payment_id:
        return store_reading(run, practice_id, event, gateway.retrieve_payment(event.payment_id))
    if not unwanted and age_s <= RETRY_SAME_KEY_S:
        return _ask_again(run, gateway, practice_id, event)
    found = gateway.find_payment(event.topup_id, _customer_id(event), event.recorded_at_s)
    if found is not None:
        return store_reading(run, practice_id, event, found)
    if now_s - event.sent_at_s < _ARRIVED_AFTER_S:
        return False
    if unwanted:
        run(lambda space: withdraw(space, practice_id, event, unwanted))
    else:
        never = Failure(Verdict.UNSENT, "never_arrived")
        run(lambda space: fail(space, practice_id, event, never))
    return True


def _ask_again(run: Run, gateway: PaymentGateway, practice_id: str, event: CreditEvent) -> bool:
    """Repeat the request with its key; where that tells nothing either, look for the payment.

    Stripe repeats an error of its own for as long as it knows the key, and may have charged.
    """
    report = charge_claimed(run, gateway, practice_id, event, is_retry=True)
    if not report.unknown:
        return report.event.status not in IN_FLIGHT
    found = gateway.find_payment(event.topup_id, _customer_id(event), event.recorded_at_s)
    return found is not None and store_reading(run, practice_id, event, found)


def _first_time(
    run: Run, gateway: PaymentGateway, practice_id: str, event: CreditEvent, age_s: int
) -> bool:
    """Send what a process left unsent when it ended, unless its occasion is long past."""
    if age_s > RETRY_SAME_KEY_S:
        never = run(lambda space: withdraw_unsent(space, practice_id, event, "never_sent"))
        return never.status not in IN_FLIGHT
    report = charge_claimed(run, gateway, practice_id, event)
    return report.event.status not in IN_FLIGHT


def look_again(
    space: Workspace, practice_id: str, claimed: CreditEvent
) -> tuple[CreditEvent | None, str]:
    """Read the attempt again (none if it has an outcome), and say why it may not be sent again.

    Another card saved since is no reason: the first request named the old one.
    """
    event = space.event(practice_id, claimed.event_no)
    if event is None or event.status not in IN_FLIGHT:
        return None, ""
    context = space.claim_context(practice_id)
    card = context.payment_method_id
    return event, why_not_send(context, event.price_minor or 0, card, event.cap_month)


def close_payment(run: Run, gateway: PaymentGateway, located: topups.Located) -> bool:
    """Cancel the payment of a failed attempt; tell whether it can't take money any more.

    The customer may have completed it meanwhile: then it is credited. Raises `PaymentError`.
    """
    practice_id, event = located.practice_id, located.event
    payment_id = event.payment_id
    if not payment_id:
        found = gateway.find_payment(event.topup_id, _customer_id(event), event.recorded_at_s)
        if found is None:
            return _confirm(run, practice_id, event)
        payment_id = found.payment_id
    try:
        facts = gateway.cancel_payment(payment_id)
    except PaymentRejected:
        facts = gateway.retrieve_payment(payment_id)
    if facts.status == "canceled":
        return _confirm(run, practice_id, event)
    return facts.status == "succeeded" and store_reading(run, practice_id, event, facts)


def _confirm(run: Run, practice_id: str, event: CreditEvent) -> bool:
    return run(lambda space: space.apply(practice_id, ConfirmCancelled(event.event_no)).ok)


def _customer_id(event: CreditEvent) -> str:
    params: dict[str, Any] = json.loads(event.params)
    return str(params["customer_id"])


def _claim_low(page: list[attempts.Due]) -> Callable[[Workspace], list[tuple[str, Outcome]]]:
    def work(space: Workspace) -> list[tuple[str, Outcome]]:
        claims = []
        for due in page:
            command = ClaimTopup(new_topup_id())
            context = space.claim_context(due.practice_id)
            practice = space.practice(due.practice_id)
            if claim_decision(practice, context, command, space.now_s).charges:
                claims.append((due.practice_id, space.apply(due.practice_id, command)))
        return [claim for claim in claims if claim[1].applied]

    return work


def _waiting(
    recorded_before_s: int, after: tuple[int, int, int]
) -> Callable[[Cursor], list[topups.Located]]:
    return lambda cur: topups.waiting_events(cur, AUTO_TOPUP_PURCHASE, recorded_before_s, after)


def _left_open(after: tuple[int, int]) -> Callable[[Cursor], list[topups.Located]]:
    return lambda cur: attempts.open_payments(cur, after, _PAGE)


def _due(now_s: int, after_no: int) -> Callable[[Cursor], list[attempts.Due]]:
    return lambda cur: attempts.due_practices(cur, now_s, after_no, _PAGE)
