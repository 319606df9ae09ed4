"""Notices: what practices and the operator are told, and the telling of it.

Law: a notice is written in the same transaction as the change it tells of, at most once per
practice, kind and key; delivering it comes later and can neither undo nor delay the change.
Facts are integers and short codes, never an address, a secret or an unmasked id.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from guthaben.store import outbox
from guthaben.store.outbox import NoticeRow
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.notices")

Fact = int | str
OPERATOR: Final = ""
"""In place of a practice's id: what no practice has to do with."""
_MOST_KEY: Final = 200
_MOST_FACT: Final = 200


class Audience(Enum):
    """Who is told."""

    PRACTICE = "practice"
    OPERATOR = "operator"
    BOTH = "both"


class About(NamedTuple):
    """What belongs to a kind: who is told, whether it can be unsubscribed from, its facts."""

    audience: Audience
    contractual: bool
    facts: frozenset[str]


class Notice(Enum):
    """The kinds. Names and facts are stable: receivers of webhooks rely on them.

    What concerns money or the contract can't be unsubscribed from.
    """

    LOW_BALANCE_20 = "low_balance_20"
    LOW_BALANCE_5 = "low_balance_5"
    EMPTY = "empty"
    TOPPED_UP = "topped_up"
    TOPUP_FAILED = "topup_failed"
    AUTO_TOPUP_PAUSED = "auto_topup_paused"
    AUTO_TOPUP_SWITCHED_OFF = "auto_topup_switched_off"
    AUTHENTICATION_NEEDED = "authentication_needed"
    CONSENT_CHANGED = "consent_changed"
    REFUNDED = "refunded"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    FRAUD_WARNING = "fraud_warning"
    LICENCE_UNPAID = "licence_unpaid"
    LICENCE_CANCELLED = "licence_cancelled"
    ENDPOINT_DISABLED = "endpoint_disabled"
    QUARANTINED = "quarantined"
    ATTEMPT_UNRESOLVED = "attempt_unresolved"
    DEAD_LETTER = "dead_letter"
    UNKNOWN_PLAN = "unknown_plan"
    DIFFERENCE_FOUND = "difference_found"
    CHARGES_NOT_SENT = "charges_not_sent"
    DELIVERY_DEAD = "delivery_dead"
    JOB_FAILING = "job_failing"

    @property
    def about(self) -> About:
        """Give what belongs to this kind."""
        return ABOUT[self]


def _about(audience: Audience, contractual: bool, facts: str = "") -> About:
    return About(audience, contractual, frozenset(facts.split()))


_PRACTICE, _OPERATOR, _BOTH = Audience.PRACTICE, Audience.OPERATOR, Audience.BOTH

ABOUT: Final[Mapping[Notice, About]] = {
    Notice.LOW_BALANCE_20: _about(_PRACTICE, False, "available_nano_usd of_nano_usd"),
    Notice.LOW_BALANCE_5: _about(_PRACTICE, False, "available_nano_usd of_nano_usd"),
    Notice.EMPTY: _about(_PRACTICE, False, "debt_nano_usd"),
    Notice.TOPPED_UP: _about(_PRACTICE, True, "price_rappen credit_nano_usd automatic"),
    Notice.TOPUP_FAILED: _about(_PRACTICE, True, "price_rappen reason"),
    Notice.AUTO_TOPUP_PAUSED: _about(_PRACTICE, True, "reason"),
    Notice.AUTO_TOPUP_SWITCHED_OFF: _about(_PRACTICE, True, "reason"),
    Notice.AUTHENTICATION_NEEDED: _about(_PRACTICE, True, "price_rappen"),
    Notice.CONSENT_CHANGED: _about(
        _PRACTICE, True, "enabled price_rappen trigger_percent trigger_below_nano_usd cap_rappen"
    ),
    Notice.REFUNDED: _about(_PRACTICE, True, "price_rappen credit_nano_usd"),
    Notice.DISPUTE_OPENED: _about(_BOTH, True, "price_rappen"),
    Notice.DISPUTE_WON: _about(_BOTH, True, "price_rappen"),
    Notice.DISPUTE_LOST: _about(_BOTH, True, "price_rappen"),
    Notice.FRAUD_WARNING: _about(_OPERATOR, True, "price_rappen"),
    Notice.LICENCE_UNPAID: _about(_BOTH, True, "license"),
    Notice.LICENCE_CANCELLED: _about(_BOTH, True, "license ends_at_s"),
    Notice.ENDPOINT_DISABLED: _about(_BOTH, True, "endpoint_id reason"),
    Notice.QUARANTINED: _about(_OPERATOR, True, "reason event_no"),
    Notice.ATTEMPT_UNRESOLVED: _about(_OPERATOR, True, "event_no"),
    Notice.DEAD_LETTER: _about(_OPERATOR, True, "reason event_type"),
    Notice.UNKNOWN_PLAN: _about(_OPERATOR, True, "plan"),
    Notice.DIFFERENCE_FOUND: _about(_OPERATOR, True, "cause count"),
    Notice.CHARGES_NOT_SENT: _about(_OPERATOR, True, "reason"),
    Notice.DELIVERY_DEAD: _about(_OPERATOR, True, "kind channel reason"),
    Notice.JOB_FAILING: _about(_OPERATOR, True, "job failures"),
}


def tell(
    space: Workspace, practice_id: str, kind: Notice, key: str, facts: Mapping[str, Fact]
) -> bool:
    """Write a notice in the caller's transaction; tell whether this was not told before.

    `key` names what it is about, for ever: the same key of the same practice and kind is told once.
    With `OPERATOR` as practice the operator alone is told. A notice with wrong facts is written as
    well as it can be and complained of: a slip here must not undo a change of money.
    """
    told = _sound(kind, facts)
    practice_no = space.practice_no(practice_id) if practice_id else 0
    row = NoticeRow(
        practice_no,
        kind.value,
        key[:_MOST_KEY] or "-",
        new_notice_id(),
        json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        space.now_s,
    )
    return outbox.add_notice(space.cursor, row)


def new_notice_id() -> str:
    """Make the id by which receivers tell a repetition: 96 random bits."""
    return "ntc_" + secrets.token_hex(12)


# What has an address, a key or a provider's id in it: such a fact is kept back.
_SECRET: Final = re.compile(
    r"@|\bwhsec_|\b(?:sk|rk|pk|gh)_(?:live|test)_"
    r"|\b(?:pm|pi|cs|cus|seti|card|ch|evt|re|dp|du|tok)_(?:test_|live_)?(?=[A-Za-z]*\d)\w{8,}"
)


def _sound(kind: Notice, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    wanted = kind.about.facts
    if facts.keys() != wanted:
        complain(f"{kind.name} wants the facts {sorted(wanted)}, not {sorted(facts)}")
    return {name: _sound_fact(kind, name, value) for name, value in facts.items()}


def _sound_fact(kind: Notice, name: str, value: Fact) -> Fact:
    if type(value) is int:
        return value
    if type(value) is not str:
        complain(f"the fact {name} of {kind.name} must be an integer or a short text")
        return str(value)[:_MOST_FACT]
    if len(value) > _MOST_FACT or _SECRET.search(value):
        complain(f"the fact {name} of {kind.name} is too long, or looks like an id or a secret")
        return ""
    return value


def complain(mistake: str) -> None:
    """Say that our own code told something wrongly; tests make this an error."""
    log.error("a notice is told wrongly: %s", mistake)
