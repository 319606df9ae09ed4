"""Views: the engine's answers as JSON: amounts as decimal strings, instants as whole seconds.

Law: pure translation, field by field, so that nothing new of the engine leaves unseen. What each
answer looks like is described in `models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guthaben.domain.money import format_chf, format_usd
from guthaben.domain.practice import Balance, Mode, PracticeStatus
from guthaben.payments.ids import mask_stripe_reference
from guthaben.services.answers import CallView, GrantReceipt, Statement, TopupView
from guthaben.services.caps import CapView
from guthaben.services.core import Core
from guthaben.services.portal import UsageLine, UsageView
from guthaben.services.topup_stops import AllTopups, PracticeTopups
from guthaben.services.topups import AutoTopupView
from guthaben.store.attempts import Stop
from guthaben.store.queries import PracticeRow
from guthaben.store.settings import ConsentRow
from guthaben.store.verify import Verification

Json = dict[str, Any]


def call(view: CallView) -> Json:
    """Show one call."""
    return {
        "id": view.id,
        "practice_id": view.practice_id,
        "key": view.key,
        "status": view.status,
        "reserved_usd": format_usd(view.reserved_nano_usd),
        "cost_usd": format_usd(view.cost_nano_usd),
        "created_at_s": view.created_at_s,
        "expires_at_s": view.expires_at_s,
        "ended_at_s": view.ended_at_s,
        "model": view.model,
        "operation_type": view.operation_type,
        "input_tokens": view.input_tokens,
        "output_tokens": view.output_tokens,
        "total_tokens": view.total_tokens,
        "audio_ms": round(view.audio_seconds * 1000),
        "reference": view.reference,
        "device_id": view.device_id,
        "replayed": view.replayed,
        "applied": view.applied,
    }


def calls(views: Sequence[CallView], limit: int) -> Json:
    """Show a page of calls."""
    following = views[-1].id if len(views) == limit else None
    return {"calls": [call(view) for view in views], "next_before": following}


def balance(found: Balance) -> Json:
    """Show a balance."""
    period = found.period
    return {
        "practice_id": found.practice_id,
        "available_usd": format_usd(found.available_nano_usd),
        "held_usd": format_usd(found.held_nano_usd),
        "debt_usd": format_usd(found.debt_nano_usd),
        "allowance_usd": format_usd(found.allowance_nano_usd),
        "credit_usd": format_usd(found.credit_nano_usd),
        "period": {
            "license": license_name(period.license),
            "start_s": period.start_s,
            "end_s": period.end_s,
            "allowance_usd": format_usd(period.allowance_nano_usd),
        },
    }


def statement(core: Core, page: Statement) -> Json:
    """Show a page of changes."""
    return {
        "entries": [
            {
                "seq": entry.seq,
                "at_s": entry.at_s,
                "what": entry.what,
                "source": entry.source,
                "target": entry.target,
                "amount_usd": format_usd(entry.amount_nano_usd),
                "grant_no": entry.grant_no,
                "call_id": core.call_id(page.practice_id, entry.call_no) if entry.call_no else None,
                "event_no": entry.event_no,
                "reverses_seq": entry.reverses_seq,
            }
            for entry in page.entries
        ],
        "next_before": page.next_before_seq,
    }


def topup(view: TopupView) -> Json:
    """Show one purchase, attempt, refund or adjustment."""
    price = None if view.price_rappen is None else format_chf(view.price_rappen)
    return {
        "event_no": view.event_no,
        "topup_id": view.topup_id,
        "event_type": view.event_type,
        "status": view.status,
        "amount_usd": format_usd(view.amount_nano_usd),
        "price_chf": price,
        "currency": view.currency,
        "at_s": view.at_s,
        "reference": view.reference,
        "session_reference": view.session_reference,
        "clawed_back_usd": format_usd(view.clawed_back_nano_usd),
        "reason": view.reason,
    }


def topups(views: Sequence[TopupView], limit: int) -> Json:
    """Show a page of purchases, attempts, refunds and adjustments."""
    following = views[-1].event_no if len(views) == limit else None
    return {"topups": [topup(view) for view in views], "next_before": following}


def usage(view: UsageView) -> Json:
    """Show what was used."""
    return {
        "days": [_usage_line(line) for line in view.days],
        "models": [_usage_line(line) for line in view.models],
        "calls": view.calls,
        "cost_usd": format_usd(view.cost_nano_usd),
        "cut": view.cut,
    }


def _usage_line(line: UsageLine) -> Json:
    return {"name": line.name, "calls": line.calls, "cost_usd": format_usd(line.cost_nano_usd)}


def auto_topup(view: AutoTopupView) -> Json:
    """Show the automatic top-up."""
    return {
        "practice_id": view.practice_id,
        "enabled": view.enabled,
        "card_saved": view.card_saved,
        "amount_chf": format_chf(view.amount_rappen),
        "credit_usd": format_usd(view.credit_nano_usd),
        "trigger_percent": view.trigger_percent,
        "trigger_below_usd": format_usd(view.trigger_below_nano_usd),
        "cap_chf": format_chf(view.cap_rappen),
        "cooldown_s": view.cooldown_s,
        "spent_this_month_chf": format_chf(view.spent_this_month_rappen),
        "paused_reason": view.paused_reason,
        "largest_chf": format_chf(view.largest_rappen),
        "stopped": view.stopped,
        "retry_at_s": view.retry_at_s or None,
    }


def stop(found: Stop | None) -> Json | None:
    """Show an operator's stop."""
    if found is None:
        return None
    return {"reason": found.reason, "actor": found.actor, "at_s": found.at_s}


def practice_topups(view: PracticeTopups) -> Json:
    """Show one practice's automatic top-up to an operator."""
    return {
        "practice_id": view.practice_id,
        "enabled": view.enabled,
        "card_saved": view.card_saved,
        "amount_chf": format_chf(view.amount_rappen),
        "largest_chf": format_chf(view.largest_rappen),
        "cap_chf": format_chf(view.cap_rappen),
        "spent_this_month_chf": format_chf(view.spent_this_month_rappen),
        "on_decline": view.on_decline,
        "paused_reason": view.paused_reason,
        "would": view.would,
        "retry_at_s": view.retry_at_s or None,
        "tries_of_need": view.tries_of_need,
        "failures_in_row": view.failures_in_row,
        "tries_of_card": view.tries_of_card,
        "stop": stop(view.stop),
        "stop_of_all": stop(view.stop_of_all),
        "consent": _consent(view.consent),
    }


def _consent(given: ConsentRow | None) -> Json | None:
    if given is None:
        return None
    return {
        "source": given.source,
        "text_version": given.text_version,
        "language": given.language,
        "actor": given.actor,
        "amount_chf": format_chf(given.amount_rappen),
        "largest_chf": format_chf(given.largest_rappen),
        "cap_chf": format_chf(given.cap_rappen),
        "trigger_percent": given.trigger_percent,
        "trigger_below_usd": format_usd(given.trigger_below_nano_usd),
        "given_at_s": given.given_at_s,
    }


def all_topups(found: AllTopups, practice_id: str | None) -> Json:
    """Show what is stopped and which attempts have no end yet; of one practice, or of all."""
    return {
        "stop": stop(found.stop),
        "stopped_practices": [
            {"practice_id": held, "stop": stop(why)}
            for held, why in found.stopped_practices
            if practice_id in (None, held)
        ],
        "open_attempts": [
            {
                "practice_id": one.practice_id,
                "attempt": topup(one.attempt),
                "open_chf": format_chf(one.open_rappen),
            }
            for one in found.open_attempts
            if practice_id in (None, one.practice_id)
        ],
    }


def license_name(license: str) -> str:
    """Show a licence's name; one that is the provider's id is masked."""
    return str(mask_stripe_reference(license)) if license.startswith("sub_") else license


def practice(row: PracticeRow) -> Json:
    """Show one practice of a list."""
    return {
        "practice_id": row.practice_id,
        "status": PracticeStatus(row.status).name.lower(),
        "mode": Mode(row.mode).name.lower(),
        "held_usd": format_usd(row.held_nano_usd),
        "debt_usd": format_usd(row.debt_nano_usd),
        "credit_usd": format_usd(row.credit_nano_usd),
        "license": license_name(row.license),
        "last_seq": row.last_seq,
    }


def grant(receipt: GrantReceipt) -> Json:
    """Show what giving credit did."""
    return {
        "practice_id": receipt.practice_id,
        "grant_no": receipt.grant_no or None,
        "replayed": receipt.replayed,
    }


def cap(found: CapView) -> Json:
    """Show a cap and what is left of it."""
    return {
        "subject": found.subject,
        "day_usd": _usd_or_none(found.day_nano_usd),
        "month_usd": _usd_or_none(found.month_nano_usd),
        "left_usd": _usd_or_none(found.left_nano_usd),
        "per_minute": found.per_minute,
        "at_once": found.at_once,
    }


def _usd_or_none(amount_nano_usd: int | None) -> str | None:
    return None if amount_nano_usd is None else format_usd(amount_nano_usd)


def verification(found: Verification) -> Json:
    """Show the result of replaying the journal."""
    return {
        "ok": found.ok,
        "practices": found.practices,
        "transfers": found.transfers,
        "problems": [
            {"practice_id": problem.practice_id, "problem": problem.text}
            for problem in found.problems
        ],
    }
