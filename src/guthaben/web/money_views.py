"""Views of the money that comes in: events, cases, refunds, reconciliation; for API and CLI.

Law: pure translation. The provider's ids are shown masked; amounts are decimal strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guthaben.domain.money import format_chf
from guthaben.payments.ids import mask_stripe_reference
from guthaben.services.differences import Difference
from guthaben.services.letters import LetterView
from guthaben.services.reconcile import Report
from guthaben.services.refunds import Quote, Refund
from guthaben.store.cases import Case, OperatorNote
from guthaben.store.inbox import LetterRow

Json = dict[str, Any]


def letter(row: LetterRow) -> Json:
    """Show one event without what it says of a customer."""
    return {
        "event_id": row.event_id,
        "live": row.livemode,
        "type": row.event_type,
        "status": row.status,
        "reason": row.reason,
        "attempts": row.attempts,
        "received_at_s": row.received_at_s,
        "next_try_at_s": row.next_try_at_s or None,
        "done_at_s": row.done_at_s or None,
    }


def letters(rows: Sequence[LetterRow], limit: int) -> Json:
    """Show a page of events."""
    last = rows[-1] if len(rows) == limit else None
    following = f"{last.received_at_s}:{last.event_id}" if last else None
    return {"events": [letter(row) for row in rows], "next_after": following}


def letter_with_notes(view: LetterView) -> Json:
    """Show one event and what operators did about it."""
    return {**letter(view.row), "notes": [note(one) for one in view.notes]}


def note(one: OperatorNote) -> Json:
    """Show what an operator did."""
    return {"action": one.action, "at_s": one.at_s, "author": one.author, "reason": one.reason}


def case(one: Case) -> Json:
    """Show one case."""
    amount = one.amount_minor
    return {
        "case_no": one.case_no,
        "status": one.status,
        "reason": one.reason,
        "practice_id": one.practice_id or None,
        "event_no": one.event_no or None,
        "payment": mask_stripe_reference(one.payment_id),
        "session": mask_stripe_reference(one.session_id),
        "live": one.livemode,
        "amount": None if amount is None else format_chf(amount),
        "currency": one.currency,
        "opened_at_s": one.opened_at_s,
        "resolved_at_s": one.resolved_at_s or None,
    }


def cases(found: Sequence[Case], limit: int) -> Json:
    """Show a page of cases."""
    following = found[-1].case_no if len(found) == limit else None
    return {"cases": [case(one) for one in found], "next_after": following}


def quote(found: Quote) -> Json:
    """Show what of a payment may go back."""
    return {
        "practice_id": found.practice_id,
        "event_no": found.event_no,
        "payment": mask_stripe_reference(found.payment_id),
        "captured_chf": format_chf(found.captured_rappen),
        "left_chf": format_chf(found.left_rappen),
        "waiting_chf": format_chf(found.waiting_rappen),
        "refundable_chf": format_chf(found.refundable_rappen),
        "unspent_chf": format_chf(found.unspent_rappen),
    }


def refund(found: Refund) -> Json:
    """Show a refund that was asked for."""
    return {
        "refund_id": found.refund_id,
        "practice_id": found.practice_id or None,
        "payment": mask_stripe_reference(found.payment_id),
        "amount_chf": format_chf(found.amount_rappen),
        "status": found.status,
        "reason": found.reason,
        "replayed": found.replayed,
    }


def difference(one: Difference) -> Json:
    """Show one difference; an amount is None where that side knows none."""
    return {
        "cause": one.cause.value,
        "action": one.action.value,
        "remains": one.remains,
        "practice_id": one.practice_id or None,
        "event_no": one.event_no or None,
        "payment": mask_stripe_reference(one.payment_id),
        "ours": None if one.ours_rappen is None else format_chf(one.ours_rappen),
        "theirs": None if one.theirs_rappen is None else format_chf(one.theirs_rappen),
        "detail": one.detail,
    }


def report(found: Report) -> Json:
    """Show a run of the reconciliation; docs/operating/reconcile.md has the schema."""
    seen = "payments foreign charges refunds disputes events balance_lines ours_only".split()
    return {
        "version": 1,
        "run_no": found.run_no,
        "since_s": found.since_s,
        "until_s": found.until_s,
        "fixed": found.fixes,
        "clean": found.clean,
        "found": found.found,
        "remaining": found.remaining,
        "seen": {name: getattr(found, name) for name in seen},
        "balance": [
            {
                "currency": money.currency,
                "gross": format_chf(money.gross_minor),
                "fee": format_chf(money.fee_minor),
                "net": format_chf(money.net_minor),
            }
            for money in found.totals
        ],
        "causes": {cause.value: count for cause, count in sorted(
            found.causes.items(), key=lambda item: item[0].value
        )},
        "differences": [difference(one) for one in found.differences],
    }  # fmt: skip
