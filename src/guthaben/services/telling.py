"""What is told at each change of money: the notice, its key and its facts, in one place.

Law: called inside the transaction of the change. A key names what is told of, so that the same
thing, heard again from another event, is told once; ids of the provider go into keys as hashes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, FAILED_AUTO_TOPUP, CreditEvent
from guthaben.services.notices import OPERATOR, Fact, Notice, tell
from guthaben.store.workspace import Workspace

_AUTOMATIC: Final = frozenset({AUTO_TOPUP_PURCHASE, FAILED_AUTO_TOPUP})
_WANTS_ITS_OWNER: Final = frozenset({"authentication_required", "requires_action"})
_DAY_S: Final = 86_400


def topped_up(space: Workspace, practice_id: str, event: CreditEvent) -> None:
    """Tell a practice that its payment became credit."""
    facts: dict[str, Fact] = {
        "price_rappen": event.price_minor or 0,
        "credit_nano_usd": event.amount_nano_usd,
        "automatic": int(event.event_type in _AUTOMATIC),
    }
    tell(space, practice_id, Notice.TOPPED_UP, _of(event), facts)


def quarantined(space: Workspace, practice_id: str, event: CreditEvent | None, reason: str) -> None:
    """Tell the operator that a payment contradicts our record."""
    event_no = event.event_no if event is not None else 0
    facts: dict[str, Fact] = {"reason": reason, "event_no": event_no}
    tell(space, practice_id, Notice.QUARANTINED, f"{reason}:{event_no}", facts)


def paused(space: Workspace, practice_id: str, event: CreditEvent, reason: str) -> None:
    """Tell a practice that its automatic top-up is paused, or wants its owner."""
    if reason in _WANTS_ITS_OWNER:
        price: dict[str, Fact] = {"price_rappen": event.price_minor or 0}
        tell(space, practice_id, Notice.AUTHENTICATION_NEEDED, _of(event), price)
    else:
        tell(space, practice_id, Notice.AUTO_TOPUP_PAUSED, _of(event), {"reason": reason})


def charges_not_sent(space: Workspace, reason: str) -> None:
    """Tell the operator, once a day, that the provider refuses our requests."""
    key = f"{reason}:{space.now_s // _DAY_S}"
    tell(space, OPERATOR, Notice.CHARGES_NOT_SENT, key, {"reason": reason})


def unresolved(space: Workspace, practice_id: str, event: CreditEvent) -> None:
    """Tell the operator that a charge has had no outcome for too long."""
    facts: dict[str, Fact] = {"event_no": event.event_no}
    tell(space, practice_id, Notice.ATTEMPT_UNRESOLVED, _of(event), facts)


def dead_letter(space: Workspace, event_id: str, event_type: str, reason: str) -> None:
    """Tell the operator that an event of the provider was given up."""
    facts: dict[str, Fact] = {"reason": reason, "event_type": event_type}
    tell(space, OPERATOR, Notice.DEAD_LETTER, _hash(event_id), facts)


def disputed(
    space: Workspace, practice_id: str, dispute_id: str, status: str, price_rappen: int
) -> None:
    """Tell practice and operator how a dispute stands; each of its three stands once."""
    notice = Notice.DISPUTE_OPENED
    if status in {"won", "warning_closed"}:
        notice = Notice.DISPUTE_WON
    elif status == "lost":
        notice = Notice.DISPUTE_LOST
    tell(space, practice_id, notice, _hash(dispute_id), {"price_rappen": price_rappen})


def nobodys(space: Workspace, payment_id: str, reason: str) -> None:
    """Tell the operator that a payment for credit leads to no practice."""
    facts: dict[str, Fact] = {"reason": reason, "event_no": 0}
    tell(space, OPERATOR, Notice.QUARANTINED, f"{reason}:{_hash(payment_id)}", facts)


def fraud_warning(space: Workspace, practice_id: str, warning_id: str, price_rappen: int) -> None:
    """Tell the operator that a card's issuer warns of fraud."""
    facts: dict[str, Fact] = {"price_rappen": price_rappen}
    tell(space, practice_id, Notice.FRAUD_WARNING, _hash(warning_id), facts)


def difference(space: Workspace, run_no: int, cause: str, count: int) -> None:
    """Tell the operator that a reconciliation left differences of a kind."""
    facts: dict[str, Fact] = {"cause": cause, "count": count}
    tell(space, OPERATOR, Notice.DIFFERENCE_FOUND, f"run:{run_no}:{cause}", facts)


def refunded(space: Workspace, practice_id: str, before: CreditEvent, after: CreditEvent) -> None:
    """Tell a practice what of its payment went back; money that came again is not told."""
    price_rappen = before.net_minor - after.net_minor
    if price_rappen <= 0:
        return
    taken = after.clawed_back_nano_usd - before.clawed_back_nano_usd
    facts: dict[str, Fact] = {"price_rappen": price_rappen, "credit_nano_usd": taken}
    tell(space, practice_id, Notice.REFUNDED, f"{_of(after)}:{after.net_minor}", facts)


def _of(event: CreditEvent) -> str:
    return f"event:{event.event_no}"


def _hash(provider_id: str) -> str:
    return sha256(provider_id.encode()).hexdigest()[:32]
