"""Refunds that an operator asks for.

Law: the request is committed, with its key and amount, before the provider hears of it; an answer
that was lost is asked for again under the same key for twelve hours, then looked up. The credit is
taken by what the payment itself says afterwards, so it is taken once, whether this or the
provider's own event comes first.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from guthaben.domain.topup import SUCCEEDED
from guthaben.errors import (
    InvalidInput,
    PaymentDeclined,
    PaymentError,
    PaymentRejected,
    PaymentUnavailable,
    Refused,
)
from guthaben.payments.facts import RefundReceipt
from guthaben.payments.gateway import METADATA_REFUND_ID, PaymentGateway
from guthaben.services.checks import MAX_TEXT, checked_text
from guthaben.services.refund_claims import RETRY_S, Quote, Wish, check, claim, claim_case, quote
from guthaben.services.settling import Settler
from guthaben.store import cases, refunds, settings, topups
from guthaben.store.refunds import RefundRow
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

__all__ = ["Quote", "Refund", "Refunds", "Wish"]

log = logging.getLogger("guthaben.refunds")

SAME_KEY_S: Final = 12 * 3600
_LONGEST_RETRY_S: Final = 3600
_ALARM_AFTER_S: Final = 24 * 3600

_STATUS: Final = {
    "succeeded": refunds.SUCCEEDED,
    "pending": refunds.SENT,
    "requires_action": refunds.SENT,
    "failed": refunds.FAILED,
    "canceled": refunds.CANCELED,
}
_BEFORE: Final = {
    refunds.SUCCEEDED: frozenset({refunds.SENT}),
    refunds.CANCELED: frozenset({refunds.SENT}),
    refunds.FAILED: frozenset({refunds.SENT, refunds.SUCCEEDED}),
}
"""Where a refund that was accepted may stand before; a bank may send back one that was made."""


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund that was asked for, as it stands."""

    refund_id: str
    practice_id: str
    payment_id: str
    amount_rappen: int
    status: str
    reason: str
    replayed: bool = False


class Refunds:
    """Everything about refunds of one store and one provider."""

    def __init__(self, store: Store, gateway: PaymentGateway, settler: Settler) -> None:
        self._store = store
        self._gateway = gateway
        self._settler = settler

    def quote(self, ref: str, practice_id: str | None = None) -> Quote:
        """Read the payment anew, then tell the largest amounts that can go back.

        `ref` is a top-up's id or a payment's. Raises `Refused` (`payment_not_found`).
        """
        payment_id = self._payment(ref, practice_id)
        self._settler.settle(payment_id)
        return self._store.run(lambda space: quote(space, payment_id))

    def refund(self, ref: str, wish: Wish, practice_id: str | None = None) -> Refund:
        """Give money back, once per key; the credit for it is taken.

        Refused where more is asked for than is left (`more_than_left`) or than unspent credit
        covers (`more_than_unspent`, unless debt is allowed). Raises `PaymentError` where the
        provider did certainly nothing; an answer that was lost is a refund of status `unknown`.
        """
        check(wish)
        payment_id = self._payment(ref, practice_id)
        self._settler.settle(payment_id)
        row, fresh = self._store.run(lambda space: claim(space, payment_id, wish))
        return self._carry_out(row) if fresh else self._view(row.refund_id, replayed=True)

    def refund_case(self, case_no: int, wish: Wish) -> Refund:
        """Give a payment that is held back back whole; its case is closed by that."""
        check(wish)
        case = self._store.read(lambda cur: cases.load(cur, case_no))
        if case is None:
            raise Refused("There is no such case.", reason="case_not_found")
        if not case.payment_id:
            raise Refused("The case names no payment.", reason="payment_unknown")
        facts = self._gateway.retrieve_payment(case.payment_id)
        if facts.status != "succeeded":
            raise Refused("The payment did not succeed.", reason="payment_not_succeeded")
        left = (facts.amount_received_rappen or 0) - (facts.refunded_rappen or 0)
        row, fresh = self._store.run(lambda space: claim_case(space, case_no, left, wish))
        return self._carry_out(row) if fresh else self._view(row.refund_id, replayed=True)

    def one(self, refund_id: str) -> Refund:
        """Look at one refund; raises `Refused` (`refund_not_found`)."""
        return self._view(refund_id)

    # ---- carrying out

    def resolve_waiting(self, limit: int = 50) -> int:
        """Find out what became of refunds without an answer; tell how many have one now."""
        now_s = self._store.now_s()
        done = 0
        for row in self._store.read(lambda cur: refunds.due(cur, now_s, limit)):
            try:
                done += self._carry_out(row).status not in refunds.WAITING
            except PaymentError as error:
                log.warning("a refund waits: %s", error.code)
            if now_s - row.asked_at_s > _ALARM_AFTER_S:
                self._store.run(lambda space, row=row: _unresolved(space, row))  # type: ignore[misc]
        return done

    def follow(self, payment_id: str) -> None:
        """Bring our refunds of a payment in line with what the provider says of them now."""
        rows = self._store.read(lambda cur: refunds.of_payment(cur, payment_id))
        if not rows:
            return
        found = {_ours(receipt): receipt for receipt in self._gateway.payment_refunds(payment_id)}
        for row in rows:
            receipt = found.get(row.refund_id)
            if receipt is not None:
                self._answered(row, receipt)

    def _carry_out(self, row: RefundRow) -> Refund:
        """Ask the provider, unless its key is too old to be trusted; then look."""
        now_s = self._store.now_s()
        is_retry = row.attempts > 0
        pause_s = min(RETRY_S * 2 ** min(row.attempts, 10), _LONGEST_RETRY_S)
        self._store.run(
            lambda space: refunds.note_try(space.cursor, row.refund_id, now_s + pause_s)
        )
        if is_retry and now_s - row.asked_at_s > SAME_KEY_S:
            self._look_up(row)
            return self._view(row.refund_id)
        try:
            receipt = self._gateway.refund(
                row.payment_id, row.amount_minor, row.idempotency_key,
                {METADATA_REFUND_ID: row.refund_id},
            )  # fmt: skip
        except (PaymentRejected, PaymentDeclined) as error:
            self._refused(row, error, is_retry=is_retry)
            if not is_retry:
                raise
        except PaymentUnavailable:
            if not is_retry:  # the first try, and certainly nothing was done
                self._end(row, refunds.CANCELED, "not_sent")
            raise
        except PaymentError as error:
            self._move(row, refunds.UNKNOWN, error.code)
        else:
            self._answered(row, receipt)
            self._book(row)
        return self._view(row.refund_id)

    def _book(self, row: RefundRow) -> None:
        """Take the credit; where that fails now, the provider's own event does it."""
        try:
            self._settler.settle(row.payment_id)
        except (PaymentError, InvalidInput) as error:
            log.warning("a refund is made and not booked yet: %s", error.code)

    def _refused(self, row: RefundRow, error: PaymentError, *, is_retry: bool) -> None:
        if is_retry:  # an earlier try may have been carried out all the same
            self._look_up(row)
        else:
            self._end(row, refunds.FAILED, (error.provider_code or error.code)[:100])

    def _look_up(self, row: RefundRow) -> None:
        for receipt in self._gateway.payment_refunds(row.payment_id):
            if _ours(receipt) == row.refund_id:
                self._answered(row, receipt)
                self._book(row)
                return
        self._end(row, refunds.FAILED, "never_arrived")

    def _answered(self, row: RefundRow, receipt: RefundReceipt) -> None:
        """Store how the provider says the refund stands; the payment tells what of it is booked."""
        status = _STATUS.get(receipt.status or "", refunds.SENT)
        if status == row.status:
            return

        def work(space: Workspace) -> None:
            moved = _move(space, row, status, receipt.status or "", receipt.refund_id)
            if moved and status in (refunds.FAILED, refunds.CANCELED):
                _alarm(space, "refund_failed", row)

        self._store.run(work)

    def _move(self, row: RefundRow, status: str, reason: str) -> None:
        self._store.run(lambda space: _move(space, row, status, reason))

    def _end(self, row: RefundRow, status: str, reason: str) -> None:
        """End a request of which the provider knows nothing; what it has told meanwhile stands."""

        def work(space: Workspace) -> None:
            if _move(space, row, status, reason) and row.attempts:
                _alarm(space, "refund_failed", row)

        self._store.run(work)

    # ---- looking

    def _payment(self, ref: str, practice_id: str | None) -> str:
        checked_text("ref", ref, MAX_TEXT)
        found = self._store.read(lambda cur: _find(cur, ref))
        if found is None or practice_id not in (None, found[0]):
            raise Refused("There is no such credited payment.", reason="payment_not_found")
        return found[1]

    def _view(self, refund_id: str, *, replayed: bool = False) -> Refund:
        def question(cursor: Cursor) -> Refund | None:
            row = refunds.load(cursor, refund_id)
            if row is None:
                return None
            practice_id = topups.practice_id_of(cursor, row.practice_no) if row.practice_no else ""
            return Refund(
                row.refund_id, practice_id, row.payment_id, row.amount_minor, row.status,
                row.reason, replayed,
            )  # fmt: skip

        found = self._store.read(question)
        if found is None:
            raise Refused("There is no such refund.", reason="refund_not_found")
        return found


# ---------------------------------------------------------------- inside a transaction


def _find(cursor: Cursor, ref: str) -> tuple[str, str] | None:
    if ref.startswith("pi_"):
        owner = topups.find_payment(cursor, "stripe", topups.PAYMENT, ref)
        return None if owner is None else (topups.practice_id_of(cursor, owner.practice_no), ref)
    found = topups.locate_event(cursor, "topup_id", ref)
    if found is None or found.event.status != SUCCEEDED or not found.event.payment_id:
        return None
    return found.practice_id, found.event.payment_id


def _move(
    space: Workspace, row: RefundRow, status: str, reason: str, provider_refund_id: str = ""
) -> bool:
    """Move a request forward only: a late answer undoes nothing that was told before it.

    What we gave up without a word of the provider is no such thing: its refund may be there.
    """
    before = refunds.WAITING
    if provider_refund_id:
        before |= _BEFORE.get(status, frozenset())
        known = refunds.load(space.cursor, row.refund_id)
        if known is not None and not known.provider_refund_id:
            before |= {refunds.FAILED, refunds.CANCELED}
    ends = 0 if status in (*refunds.WAITING, refunds.SENT) else space.now_s
    return refunds.move(
        space.cursor, row.refund_id, status, from_statuses=before,
        provider_refund_id=provider_refund_id, reason=reason, ended_at_s=ends,
    )  # fmt: skip


def _alarm(space: Workspace, code: str, row: RefundRow) -> None:
    settings.raise_alarm(space.cursor, code, row.refund_id, space.now_s, row.practice_no)


def _unresolved(space: Workspace, row: RefundRow) -> None:
    """Raise the alarm unless it has an answer by now."""
    found = refunds.load(space.cursor, row.refund_id)
    if found is not None and found.status in refunds.WAITING:
        _alarm(space, "refund_unresolved", row)


def _ours(receipt: RefundReceipt) -> str:
    return receipt.metadata.get(METADATA_REFUND_ID, "")
