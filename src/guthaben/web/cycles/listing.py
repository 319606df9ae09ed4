"""The list of reservations: which are wanted, and pages that go on where the last one ended.

Law: what the protocol lets a server ignore is ignored without error (unknown names, orders of
sorting that would read a whole history); a cursor belongs to the filters it was made with.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, get_args

from guthaben.domain.calls import LEVELS
from guthaben.services.cycles import Status, Wanted, fits
from guthaben.web.cycles.answers import ALL_FIELDS
from guthaben.web.cycles.bodies import same_tenant
from guthaben.web.cycles.errors import invalid

__all__ = ["Wanted", "fits", "limit", "page", "projected", "start", "wanted"]

_STATUSES: Final = get_args(Status)
_ORDERS: Final = frozenset({"created_at_ms", "reservation_id", "tenant"})
"""Orders that are the order of creation; of the others none is kept."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST: Final = 200


def wanted(query: Mapping[str, str], tenant: str) -> Wanted:
    """Read the filters; blank ones count as none."""
    subject = {name: query[name] for name in LEVELS if query.get(name)}
    same_tenant(subject.get("tenant", ""), tenant)
    status = query.get("status") or None
    if status is not None and status not in _STATUSES:
        raise invalid(f"status must be one of {', '.join(_STATUSES)}.")
    direction = query.get("sort_dir") or "desc"
    if direction not in ("asc", "desc"):
        raise invalid("sort_dir must be asc or desc.")
    return Wanted(
        subject,
        status,  # type: ignore[arg-type]
        _window(query, "from", "to"),
        _window(query, "expires_from", "expires_to"),
        _window(query, "finalized_from", "finalized_to"),
        ascending=direction == "asc" and (query.get("sort_by") or "tenant") in _ORDERS,
    )


def _window(query: Mapping[str, str], low: str, high: str) -> tuple[int | None, int | None]:
    begin, end = _instant(query, low, up=True), _instant(query, high, up=False)
    if begin is not None and end is not None and begin > end:
        raise invalid(f"{low} must not lie behind {high}.")
    return begin, end


def _instant(query: Mapping[str, str], name: str, *, up: bool) -> int | None:
    """Read an ISO 8601 instant as milliseconds; a part of one counts to the inside."""
    told = query.get(name)
    if not told:
        return None
    try:
        found = datetime.fromisoformat(told)
        since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError) as error:
        raise invalid(f"{name} must be an instant such as 2026-11-21T08:00:00Z.") from error
    whole, rest = divmod(since, timedelta(milliseconds=1))
    return whole + 1 if up and rest else whole


def limit(query: Mapping[str, str]) -> int:
    """Read how many are wanted."""
    told = query.get("limit") or "50"
    if not (told.isascii() and told.isdigit() and len(told) <= 3 and 1 <= int(told) <= _MOST):
        raise invalid(f"limit must be a whole number from 1 to {_MOST}.")
    return int(told)


def projected(query: Mapping[str, str]) -> frozenset[str]:
    """Read which heavy fields are wanted; unknown names are ignored."""
    return ALL_FIELDS.intersection(part.strip() for part in query.get("include", "").split(","))


def start(query: Mapping[str, str], asked: Wanted) -> int | None:
    """Read a cursor: the number that the page begins with."""
    cursor = query.get("cursor")
    if not cursor:
        return None
    try:
        number, _, mark = base64.b64decode(cursor, b"-_", validate=True).decode().partition(".")
    except (binascii.Error, ValueError) as error:
        raise invalid("The cursor is none of this server's.") from error
    if mark != _mark(asked) or not (number.isascii() and number.isdigit() and len(number) < 18):
        raise invalid("The cursor belongs to another list: keep the filters, or begin anew.")
    return int(number)


def _mark(asked: Wanted) -> str:
    told = repr((sorted(asked.subject.items()), *asked[1:]))
    return sha256(told.encode()).hexdigest()[:12]


def page(name: str, shown: list[Any], next_no: int | None, asked: Wanted) -> dict[str, Any]:
    """Write a page."""
    body: dict[str, Any] = {name: shown, "has_more": next_no is not None}
    if next_no is not None:
        raw = f"{next_no}.{_mark(asked)}".encode()
        body["next_cursor"] = base64.urlsafe_b64encode(raw).decode()
    return body
