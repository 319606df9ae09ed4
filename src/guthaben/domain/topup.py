"""Credit events: money that came or went, and the life of a purchase or of an attempt.

Law: a payment turns into credit once for ever; a status only moves along `MOVES`. An attempt to
charge a saved card *is* a credit event: cap, cooldown and single flight read one truth.
"""

from __future__ import annotations

from typing import Final, NamedTuple

TOPUP_PURCHASE: Final = "topup_purchase"
AUTO_TOPUP_PURCHASE: Final = "auto_topup_purchase"
FAILED_AUTO_TOPUP: Final = "failed_auto_topup"
REFUND: Final = "refund"
DISPUTE: Final = "dispute"
ADJUSTMENT: Final = "adjustment"

PENDING: Final = "pending"
UNKNOWN: Final = "unknown"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELED: Final = "canceled"
QUARANTINED: Final = "quarantined"

IN_FLIGHT: Final = frozenset({PENDING, UNKNOWN})

MOVES: Final[dict[str, frozenset[str]]] = {
    PENDING: frozenset({UNKNOWN, SUCCEEDED, FAILED, CANCELED, QUARANTINED}),
    UNKNOWN: frozenset({PENDING, SUCCEEDED, FAILED, CANCELED, QUARANTINED}),
    FAILED: frozenset({SUCCEEDED, CANCELED, QUARANTINED}),
    CANCELED: frozenset({SUCCEEDED, QUARANTINED}),
    QUARANTINED: frozenset({SUCCEEDED, CANCELED}),
    SUCCEEDED: frozenset(),
}
"""Which status may follow which; succeeded is final, and a failure may still turn into success."""


class CreditEvent(NamedTuple):
    """One purchase, attempt, refund, dispute or adjustment of a practice, as stored."""

    event_no: int
    event_type: str
    status: str
    amount_nano_usd: int
    """What it adds to credit when it succeeds (negative: what it took)."""
    price_minor: int | None = None
    """What was paid, in minor units of `currency` (Rappen); negative for money given back."""
    currency: str = "chf"
    license: str = ""
    event_at_s: int = 0
    recorded_at_s: int = 0
    cap_month: str = ""
    cap_zone: str = ""
    provider: str = "stripe"
    livemode: bool | None = None
    payment_id: str = ""
    session_id: str = ""
    topup_id: str = ""
    """Our public id of it, unguessable; travels in metadata."""
    idempotency_key: str = ""
    params: str = ""
    """The exact parameters of the charge, as JSON, so that a lost answer can be asked for again."""
    bonus_nano_usd: int = 0
    grant_no: int = 0
    bonus_grant_no: int = 0
    captured_minor: int = 0
    net_minor: int = 0
    """What is left of the captured money after refunds and disputes, as last booked."""
    clawed_back_nano_usd: int = 0
    bonus_clawed_back_nano_usd: int = 0
    parent_event_no: int = 0
    reason: str = ""
    need_no: int = 0
    """Of an attempt: the number of the first attempt that served the same need."""
    method_id: str = ""
    """Of an attempt: the saved card it charges."""
    verdict: str = ""
    """Of a failed attempt: what that means for the next one (`declines.Verdict`)."""
    open_minor: int = 0
    """What the payment of a failed attempt may still take until the provider has cancelled it."""
    sent_at_s: int = 0
    """When an attempt's request first left us; 0 means that it certainly has not."""
    meta: str = "{}"


def may_move(status: str, target: str) -> bool:
    """Tell whether a credit event in `status` may become `target`."""
    return target in MOVES.get(status, frozenset())


def credit_target(granted_nano_usd: int, net_minor: int, captured_minor: int) -> int:
    """Compute the credit that may stay for the money left: floor(granted x net / captured)."""
    net = min(max(net_minor, 0), captured_minor)
    return granted_nano_usd * net // captured_minor


_DISPUTE_FREES: Final = frozenset({"won", "prevented"})
DISPUTE_CLOSED: Final = frozenset({"won", "lost", "prevented", "warning_closed"})


def withheld_minor(dispute_status: str, amount_minor: int) -> int:
    """Compute what a dispute withholds of its payment: all of its amount from the day it opens.

    An inquiry (`warning_...`) moves no money, and a dispute that was won gives it back. A status
    never seen withholds: what it means is looked up by a person, and given back then.
    """
    if dispute_status.startswith("warning_") or dispute_status in _DISPUTE_FREES:
        return 0
    return max(amount_minor, 0)
