"""The bodies of the Cycles protocol's answers.

Law: what an idempotent repetition must say again comes from what never changes any more: the call's
own row and the row of its step. Only `remaining_ttl_ms` is of the moment. Balances are no part of
the answers to changes, so that none has to be remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from guthaben.domain.calls import LEVELS, Call, Told
from guthaben.domain.money import NANO_PER_MICROCENT
from guthaben.services.cycles import Funds, status_of
from guthaben.store.leases import Lease
from guthaben.web.cycles.bodies import UNIT

Body = dict[str, Any]
_PROJECTED: Final = ("metadata", "committed_metadata")


def amount(nano_usd: int) -> Body:
    """Show an amount; a part of a unit that is owed or held counts as a whole one."""
    return {"unit": UNIT, "amount": -(-nano_usd // NANO_PER_MICROCENT)}


def scopes(levels: Sequence[str]) -> list[str]:
    """Derive the canonical scopes of a subject, from the tenant inwards; the last is its path."""
    path, found = "", []
    for name, value in zip(LEVELS, levels, strict=True):
        if value:
            path = f"{path}/{name}:{value}" if path else f"{name}:{value}"
            found.append(path)
    return found


def created(
    call: Call, reservation_id: str, levels: Sequence[str], ttl_ms: int, now_ms: int
) -> Body:
    """Tell of a reservation that was made, now or when its key was first used."""
    affected = scopes(levels)
    expires_ms = call.created_at_ms + ttl_ms
    return {
        "decision": "ALLOW",
        "reservation_id": reservation_id,
        "reserved": amount(call.reserved_nano_usd),
        "expires_at_ms": expires_ms,
        "remaining_ttl_ms": _left(call, expires_ms, now_ms),
        "scope_path": affected[-1],
        "affected_scopes": affected,
    }


def _left(call: Call, expires_ms: int, now_ms: int) -> int:
    return max(0, expires_ms - now_ms) if status_of(call, now_ms) == "ACTIVE" else 0


def decided(reason_code: str, levels: Sequence[str], *, dry_run: bool) -> Body:
    """Tell of a decision that held nothing."""
    affected = scopes(levels)
    body: Body = {"decision": "DENY" if reason_code else "ALLOW", "affected_scopes": affected}
    if reason_code:
        body["reason_code"] = reason_code
    if dry_run:
        body["scope_path"] = affected[-1]
    return body


def committed(call: Call) -> Body:
    """Tell of a commit."""
    body: Body = {"status": "COMMITTED", "charged": amount(call.charged_nano_usd)}
    if call.charged_nano_usd < call.reserved_nano_usd:
        body["released"] = amount(call.reserved_nano_usd - call.charged_nano_usd)
    return body


def released(call: Call) -> Body:
    """Tell of a release."""
    return {"status": "RELEASED", "released": amount(call.reserved_nano_usd)}


def extended(call: Call, expires_ms: int, now_ms: int) -> Body:
    """Tell of an extension."""
    return {
        "status": "ACTIVE",
        "expires_at_ms": expires_ms,
        "remaining_ttl_ms": _left(call, expires_ms, now_ms),
    }


def posted(call: Call, event_id: str) -> Body:
    """Tell of an event."""
    body: Body = {"status": "APPLIED", "event_id": event_id}
    if call.uncovered_nano_usd:
        body["charged"] = amount(call.charged_nano_usd)
    return body


def balance(practice_id: str, funds: Funds) -> Body:
    """Show what a practice has; `remaining` rounds down, what is owed and held rounds up."""
    scope = f"tenant:{practice_id}"
    body: Body = {
        "scope": scope,
        "scope_path": scope,
        "remaining": {
            "unit": UNIT,
            "amount": funds.remaining_nano_usd // NANO_PER_MICROCENT,
        },
        "reserved": amount(funds.held_nano_usd),
        "debt": amount(funds.debt_nano_usd),
        "is_over_limit": funds.is_over_limit,
    }
    if funds.overdraft_limit_nano_usd:
        body["overdraft_limit"] = amount(funds.overdraft_limit_nano_usd)
    return body


def lease(found: Lease, reservation_id: str, now_ms: int, projected: frozenset[str]) -> Body:
    """Show a reservation; `projected` names the heavy fields that are wanted."""
    call, told = found.call, found.told
    rest: Mapping[str, Any] = json.loads(told.rest) if told.rest else {}
    levels = [getattr(told, name) for name in LEVELS]
    affected = scopes(levels)
    status = status_of(call, now_ms)
    body: Body = {
        "reservation_id": reservation_id,
        "status": status,
        "idempotency_key": told.key,
        "subject": _subject(levels, rest),
        "action": _action(told, rest),
        "reserved": amount(call.reserved_nano_usd),
        "created_at_ms": call.created_at_ms,
        "expires_at_ms": call.expires_at_ms,
        "scope_path": affected[-1],
        "affected_scopes": affected,
    }
    if status in ("COMMITTED", "RELEASED"):
        body["finalized_at_ms"] = found.finalized_at_ms
    if status == "COMMITTED":
        body["committed"] = amount(call.charged_nano_usd)
    kept = json.loads(found.committed_told) if found.committed_told else {}
    for name, source in zip(_PROJECTED, (rest, kept), strict=True):
        if name in projected and "metadata" in source:
            body[name] = source["metadata"]
    return body


ALL_FIELDS: Final = frozenset(_PROJECTED)


def _subject(levels: Sequence[str], rest: Mapping[str, Any]) -> Body:
    body: Body = {name: value for name, value in zip(LEVELS, levels, strict=True) if value}
    if "dimensions" in rest:
        body["dimensions"] = rest["dimensions"]
    return body


def _action(told: Told, rest: Mapping[str, Any]) -> Body:
    body: Body = {"kind": told.kind, "name": told.name}
    if "tags" in rest:
        body["tags"] = rest["tags"]
    return body
