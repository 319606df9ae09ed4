"""The old automatic top-up, called by hand: decide, claim, charge, in the old order of checks.

Law: the stored checks come first, then the switches, then the charge. Inside a caller's open
transaction nothing is ever charged, because its attempt could not be committed before. A lost
answer is asked for again with the same key, never by a new attempt; what its customer or an
operator has stopped since is looked up at the provider, never sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from guthaben import config
from guthaben.domain.auto_topup import Reason
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, SUCCEEDED, UNKNOWN, CreditEvent
from guthaben.errors import PaymentError
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.auto_topup import (
    RETRY_SAME_KEY_S,
    ChargeReport,
    charge_claimed,
    claim,
    decision,
)
from guthaben.services.janitor import look_again, resolve
from guthaben.services.legacy.settings import load
from guthaben.services.legacy.store import Books
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.topups import Located
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.legacy")

DRY_RUN = "dry_run"
LIVE_BLOCKED = "live_topup_blocked"
OPEN_TRANSACTION = "caller_transaction_open"
CHARGED = "charged"


_ERRORS = {
    "auto_topup_monthly_limit_reached": "AUTO_TOPUP_MONTHLY_LIMIT_REACHED",
    "no_payment_method": "AUTO_TOPUP_NO_PAYMENT_METHOD",
    "no_consent": "AUTO_TOPUP_CONSENT_REQUIRED",
    "pending_auto_topup": "AUTO_TOPUP_PENDING",
    LIVE_BLOCKED: "LIVE_TOPUP_BLOCKED",
}


class Run(NamedTuple):
    """What came of it; `reason` is stable."""

    reason: str
    report: ChargeReport | None = None

    @property
    def charged(self) -> bool:
        """Whether the money is ours."""
        return self.report is not None and self.report.charged

    @property
    def paused(self) -> bool:
        """Whether the top-up was switched off until its customer acts."""
        return self.report is not None and self.report.paused

    def answer(self) -> dict[str, Any]:
        """Say it in the old modules' words."""
        return {
            "ok": not (self.reason == LIVE_BLOCKED or self.paused),
            "reason": self.reason,
            "error_code": "AUTO_TOPUP_PAUSED" if self.paused else _ERRORS.get(self.reason),
            "dry_run": self.reason == DRY_RUN,
            "charged": self.charged,
            "paused": self.paused,
        }


class _Seen(NamedTuple):
    reason: Reason
    unanswered: CreditEvent | None


def run_for_practice(
    books: Books,
    practice_id: str,
    *,
    is_below: Callable[[int], bool],
    dry_run: bool,
    license: str = "",
) -> Run:
    """Top a practice up if its settings, its limits and the switches allow it.

    `is_below` tells whether credit is low, given the trigger in percent. `dry_run` only ever makes
    it safer. Commits the attempt before the charge, and its outcome after it.
    """
    transaction_open = books.con.in_transaction
    seen = books.look(lambda space: _look(space, practice_id, is_below))
    if seen.reason is not Reason.CHARGE and seen.unanswered is None:
        return Run(seen.reason.value)
    if dry_run or not config.auto_topup_enabled() or config.topup_dry_run():
        return Run(DRY_RUN if seen.unanswered is None else seen.reason.value)
    key = config.stripe_secret_key()
    if not config.topup_allow_live() or key is None:
        return Run(LIVE_BLOCKED if seen.unanswered is None else seen.reason.value)
    if transaction_open:
        return Run(OPEN_TRANSACTION)
    gateway = StripeGateway(key, api_base=config.stripe_api_base())
    if seen.unanswered is not None:
        return _unanswered(books, gateway, practice_id, seen.unanswered)
    outcome = claim(books.run, practice_id, license=license, is_low=True)
    if not outcome.applied or outcome.event is None:
        return Run(outcome.reason)
    return _reported(charge_claimed(books.run, gateway, practice_id, outcome.event))


def _look(space: Workspace, practice_id: str, is_below: Callable[[int], bool]) -> _Seen:
    """Decide without changing anything; name the attempt whose answer was lost, if there is one."""
    row = load(space, practice_id)
    decided = decision(space, practice_id, is_below(row.trigger_percent)).reason
    if decided is not Reason.PENDING:
        return _Seen(decided, None)
    number = space.practice(practice_id).practice_no
    event = legacy_rows.unanswered(space.cursor, number, AUTO_TOPUP_PURCHASE, UNKNOWN)
    fresh = event is not None and space.now_s - event.recorded_at_s <= RETRY_SAME_KEY_S
    return _Seen(decided, event if fresh else None)


def _unanswered(books: Books, gateway: StripeGateway, practice_id: str, event: CreditEvent) -> Run:
    """Find out what became of an attempt: by its own request, or by looking where it is unwanted.

    Asked in a transaction right before anything leaves: what was changed since the claim counts.
    """
    still, unwanted = books.run(lambda space: look_again(space, practice_id, event))
    if still is not None and not unwanted:
        return _reported(charge_claimed(books.run, gateway, practice_id, still, is_retry=True))
    if still is not None:
        _look_up(books, gateway, practice_id, still)
    after = books.look(lambda space: space.event(practice_id, event.event_no)) or event
    return _reported(ChargeReport(after.status == SUCCEEDED, False, False, after.reason, after))


def _look_up(books: Books, gateway: StripeGateway, practice_id: str, event: CreditEvent) -> None:
    practice_no = books.look(lambda space: space.practice(practice_id).practice_no)
    attempt = Located(practice_no, practice_id, event)
    try:
        resolve(books.run, gateway, attempt, books.now_s())
    except PaymentError as error:
        log.warning("an attempt could not be looked up: %s", error.code)


def _reported(report: ChargeReport) -> Run:
    if report.charged:
        return Run(CHARGED, report)
    if report.event.status in ("pending", UNKNOWN):
        return Run(Reason.PENDING.value, report)
    return Run(report.reason or "charge_failed", report)
