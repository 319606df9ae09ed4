"""Views of licences and plans as JSON: amounts as decimal strings, the provider's ids masked.

Law: pure translation, field by field. What each answer looks like is described in `models`.
"""

from __future__ import annotations

from collections.abc import Sequence

from guthaben.domain.licences import PlanVersion
from guthaben.domain.money import format_usd
from guthaben.payments.ids import mask_stripe_reference
from guthaben.services.licences import LicenceView, SubscriptionView
from guthaben.store.licences import HeldRow
from guthaben.web.views import Json


def licence(view: LicenceView) -> Json:
    """Show a practice's licence."""
    return {
        "practice_id": view.practice_id,
        "license": view.license,
        "source": view.source,
        "active": view.active,
        "period_start_s": view.period_start_s,
        "period_end_s": view.period_end_s,
        "allowance_usd": format_usd(view.allowance_nano_usd),
        "provisional": view.provisional,
        "ends_at_s": view.ends_at_s,
        "subscriptions": list(map(_subscription, view.subscriptions)),
    }


def _subscription(view: SubscriptionView) -> Json:
    return {
        "reference": view.reference,
        "status": view.status,
        "leads": view.leads,
        "plan_known": view.plan_known,
        "plans": list(view.plans),
        "quantity": view.quantity,
        "period_start_s": view.period_start_s,
        "period_end_s": view.period_end_s,
        "period_allowance_usd": format_usd(view.period_allowance_nano_usd),
        "next_allowance_usd": format_usd(view.next_allowance_nano_usd),
        "ends_at_s": view.ends_at_s,
    }


def plan(version: PlanVersion) -> Json:
    """Show what a plan includes."""
    trial = version.trial_nano_usd
    return {
        "lookup_key": version.lookup_key,
        "allowance_usd": format_usd(version.allowance_nano_usd),
        "trial_usd": None if trial is None else format_usd(trial),
        "from_s": version.from_s,
    }


def plans(versions: Sequence[PlanVersion]) -> Json:
    """Show the plans."""
    return {"plans": list(map(plan, versions))}


def held(found: Sequence[HeldRow]) -> Json:
    """Show subscriptions whose practice is in doubt."""
    return {
        "held": [
            {
                "held_no": row.held_no,
                "reference": str(mask_stripe_reference(row.subscription_id)),
                "reason": row.reason,
                "named": row.named,
                "held_at_s": row.held_at_s,
            }
            for row in found
        ]
    }
