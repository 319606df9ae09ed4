"""Leases for the Cycles protocol: their ids, the commands behind its requests, and its questions.

Law: an id names its owner to us and to nobody else, and can't be guessed, so that a foreign id may
be told from a missing one. Amounts inside are nano-USD; only ids and bounds of the protocol are
known here, its JSON is the web's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from guthaben.domain.calls import RELEASED, RESERVED, SETTLED, SETTLED_LATE, Call
from guthaben.domain.leases import practice_over_limit
from guthaben.domain.period import Period
from guthaben.domain.practice import Practice, allowance_of, balance_of
from guthaben.services.core import Core
from guthaben.store import leases, queries
from guthaben.store.leases import Lease, LeasePage
from guthaben.store.session import Cursor

Kind = Literal["rsv_", "evt_"]
Status = Literal["ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"]

_BYTES: Final = 12
_MOST_REMEMBERED: Final = 20_000


class Owner(NamedTuple):
    """Whose an id is: the practice's internal number, and the call's number there."""

    practice_no: int
    call_no: int


class Funds(NamedTuple):
    """What a practice has, as leases see it; `remaining` may be negative."""

    remaining_nano_usd: int
    held_nano_usd: int
    debt_nano_usd: int
    overdraft_limit_nano_usd: int
    is_over_limit: bool


class Wanted(NamedTuple):
    """Which leases a list is asked for; instants in ms, both ends included."""

    subject: Mapping[str, str]
    status: Status | None = None
    created_ms: tuple[int | None, int | None] = (None, None)
    expires_ms: tuple[int | None, int | None] = (None, None)
    finalized_ms: tuple[int | None, int | None] = (None, None)
    ascending: bool = False


class Cycles:
    """The leases of one database; thread-safe."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._numbers: dict[str, int] = {}

    # ---- names

    def name(self, kind: Kind, practice_no: int, call_no: int) -> str:
        """Name a call: its numbers, sealed and hidden under the seal."""
        plain = practice_no.to_bytes(6, "big") + call_no.to_bytes(6, "big")
        seal = self._seal(kind, plain)
        return kind + base64.urlsafe_b64encode(seal + self._hidden(seal, plain)).decode()

    def owner(self, kind: Kind, given: str) -> Owner | None:
        """Read whose an id is; None for what we never gave."""
        if len(given) != len(kind) + 2 * _BYTES * 4 // 3 or not given.startswith(kind):
            return None
        try:
            raw = base64.b64decode(given[len(kind) :], altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        seal = raw[:_BYTES]
        plain = self._hidden(seal, raw[_BYTES:])
        if not hmac.compare_digest(self._seal(kind, plain), seal):
            return None
        return Owner(int.from_bytes(plain[:6], "big"), int.from_bytes(plain[6:], "big"))

    def _seal(self, kind: Kind, plain: bytes) -> bytes:
        return self.core.keyed_hash(b"lease|" + kind.encode() + plain)

    def _hidden(self, seal: bytes, text: bytes) -> bytes:
        mask = int.from_bytes(self.core.keyed_hash(b"lease mask|" + seal), "big")
        return (int.from_bytes(text, "big") ^ mask).to_bytes(_BYTES, "big")

    def known_number(self, practice_id: str) -> int:
        """Give the internal number of a practice without asking the store; 0 if that can't be."""
        return self._numbers.get(practice_id, 0)

    def number(self, practice_id: str) -> int:
        """Give the internal number of a practice, which never changes; 0 while nobody stored it."""
        found = self._numbers.get(practice_id, 0)
        if not found:
            found = self.core.ask(lambda cur: queries.practice_no(cur, practice_id))
            if found:
                if len(self._numbers) >= _MOST_REMEMBERED:
                    self._numbers.clear()
                self._numbers[practice_id] = found
        return found

    # ---- questions

    def one(self, owner: Owner) -> Lease | None:
        """Read one lease."""
        return self.core.ask(lambda cur: leases.load_lease(cur, *owner))

    def by_key(self, practice_no: int, key: str) -> Lease | None:
        """Read the lease that a client's key began."""
        return self.core.ask(lambda cur: leases.load_lease_by_key(cur, practice_no, call_key(key)))

    def funds(self, practice_id: str) -> Funds:
        """Expire what is due, then tell what the practice has now, for its current period."""
        self.core.balance_now(practice_id, None)
        now_s = self.core.now_ms() // 1000

        def question(cur: Cursor) -> Funds:
            practice, period = queries.practice_with(cur, practice_id, None, now_s)
            balance = balance_of(practice, period, now_s)
            fresh = practice.over_limit and not _is_touched(practice, period)
            return Funds(
                balance.available_nano_usd - practice.debt_nano_usd,
                practice.held_nano_usd,
                practice.debt_nano_usd,
                practice.overdraft_limit_nano_usd,
                practice_over_limit(practice._replace(over_limit=False) if fresh else practice),
            )

        return self.core.ask(question)

    def page(self, practice_no: int, wanted: Wanted, limit: int, start_no: int | None) -> LeasePage:
        """Read one page of leases, newest first unless `wanted` says otherwise."""
        now_ms = self.core.now_ms()

        def question(cur: Cursor) -> LeasePage:
            numbers = leases.list_numbers(
                cur, practice_no, wanted.subject, start_no,
                ascending=wanted.ascending, open_only=wanted.status == "ACTIVE",
            )  # fmt: skip
            found: list[Lease] = []
            for call_no, is_fit in numbers:
                lease = leases.load_lease(cur, practice_no, call_no) if is_fit else None
                if lease is None or not fits(lease, wanted, now_ms):
                    continue
                if len(found) == limit:
                    return LeasePage(found, call_no)
                found.append(lease)
            if len(numbers) < leases.MOST_LOOKED_AT:
                return LeasePage(found, None)
            return LeasePage(found, numbers[-1][0] + (1 if wanted.ascending else -1))

        return self.core.ask(question)


def _is_touched(practice: Practice, period: Period) -> bool:
    """Tell whether the period's allowance is granted already, or there is none to come."""
    return period.allowance_nano_usd <= 0 or allowance_of(practice.grants, period) is not None


def call_key(key: str) -> str:
    """Make the key of a call of a client's key: apart from our own API's, and of any characters."""
    return "cycles:" + sha256(key.encode()).hexdigest()


def status_of(call: Call, now_ms: int) -> Status:
    """Tell the state of a lease; one whose time is over has expired, swept or not."""
    if call.status == RESERVED:
        return "ACTIVE" if now_ms < call.due_at_ms else "EXPIRED"
    if call.status in (SETTLED, SETTLED_LATE):
        return "COMMITTED"
    return "RELEASED" if call.status == RELEASED else "EXPIRED"


def fits(lease: Lease, wanted: Wanted, now_ms: int) -> bool:
    """Tell whether a lease is one that a list is asked for."""
    status = status_of(lease.call, now_ms)
    if wanted.status not in (None, status):
        return False
    ended = status in ("COMMITTED", "RELEASED")
    if wanted.finalized_ms != (None, None) and not ended:
        return False
    return (
        _within(lease.call.created_at_ms, wanted.created_ms)
        and _within(lease.call.expires_at_ms, wanted.expires_ms)
        and (not ended or _within(lease.finalized_at_ms, wanted.finalized_ms))
    )


def _within(at_ms: int, window: tuple[int | None, int | None]) -> bool:
    low, high = window
    return (low is None or at_ms >= low) and (high is None or at_ms <= high)
