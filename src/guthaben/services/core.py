"""What both Python interfaces share: the store, the names of calls, and the questions.

Law: every method that changes credit is one command; every question reads one moment.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import blake2b
from typing import TypeVar

from guthaben.domain.calls import RESERVED, Call
from guthaben.domain.commands import Command, Outcome, Release, Reserve
from guthaben.domain.period import Period
from guthaben.domain.practice import Balance
from guthaben.errors import CallNotFound, InvalidInput
from guthaben.services import checks
from guthaben.services.answers import (
    CallView,
    Statement,
    TopupView,
    call_view,
    entry,
    topup_view,
)
from guthaben.services.call_keys import new_key
from guthaben.services.prices import Prices
from guthaben.services.tariffs import Tariffs
from guthaben.store import calls, journal, queries
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.verify import Verification
from guthaben.store.workspace import Workspace
from guthaben.store.writer import wall_clock_ms

log = logging.getLogger("guthaben")
T = TypeVar("T")

_CALL_PREFIX = "call_"
_SEAL_CHARACTERS = 20
"""Eighty bits: nobody guesses them, and every guess costs a request."""
_LAST = 1 << 62


class Core:
    """Opens the store and answers what needs no command; not for use by itself."""

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        under_way: Callable[[str], Future[bool] | None] = lambda _practice_id: None,
        topup_wait_s: float = 0,
    ) -> None:
        self._under_way = under_way
        self.topup_wait_s = topup_wait_s
        self.store = Store(
            url,
            clock_ms=clock_ms,
            on_claim=on_claim,
            may_claim=may_claim,
            on_abandoned=self.release_abandoned,
        )
        self.prices = Prices(self.store)
        """One for all who price by this store."""
        self.tariffs = Tariffs(self.store, self.prices)
        self._secret = bytes.fromhex(self.store.read(lambda cur: queries.meta(cur, "secret")))

    def now_ms(self) -> int:
        """Read the store's clock."""
        return self.store.clock_ms()

    def new_key(self) -> str:
        """Make a key for a call that nobody will repeat."""
        return new_key("once-", self.now_ms())

    def release_abandoned(self, practice_id: str, command: Command, answer: object) -> None:
        """Release a reservation whose awaiter was cancelled before it heard of it."""
        # Of a lease its client hears by asking again, with the same key; it ends by itself.
        ours = type(command) is Reserve and not command.overage_policy
        fresh = ours and isinstance(answer, Outcome) and answer.applied
        call = answer.call if fresh and isinstance(answer, Outcome) else None
        if call is not None and call.status == RESERVED:
            log.warning("a cancelled task's reservation is released")
            self.store.send(practice_id, Release(call.call_no))

    # ---- waiting for credit

    def charge_to_await(self, practice_id: str) -> Future[bool] | None:
        """Give the charge that a refused call may wait for; none where nobody waits."""
        return self._under_way(practice_id) if self.topup_wait_s > 0 else None

    def credit_came(self, practice_id: str) -> bool:
        """Wait for the charge under way, but not longer than agreed; tell whether credit came."""
        charge = self.charge_to_await(practice_id)
        try:
            return charge is not None and charge.result(timeout=self.topup_wait_s)
        except TimeoutError:
            return False

    # ---- names of calls

    def call_id(self, practice_id: str, call_no: int) -> str:
        """Name a call so that nobody can guess another's name: its number and a seal."""
        return f"{_CALL_PREFIX}{call_no}_{self._seal(practice_id, call_no)}"

    def call_no(self, practice_id: str, call_id: str) -> int:
        """Read the number of a call of this practice; a foreign id is simply not found."""
        number, _, seal = call_id.removeprefix(_CALL_PREFIX).partition("_")
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise CallNotFound(call_id)
        call_no = int(number)
        if not (seal.isascii() and hmac.compare_digest(self._seal(practice_id, call_no), seal)):
            raise CallNotFound(call_id)
        return call_no

    def keyed_hash(self, message: bytes) -> bytes:
        """Hash with this database's own secret: 12 bytes that nobody else can make."""
        # Keyed BLAKE2 takes a microsecond where HMAC over OpenSSL takes ten.
        return blake2b(message, digest_size=12, key=self._secret[:64]).digest()

    def _seal(self, practice_id: str, call_no: int) -> str:
        message = f"call|{call_no}|{practice_id}".encode()
        return self.keyed_hash(message).hex()[:_SEAL_CHARACTERS]

    def view(
        self, practice_id: str, call: Call, *, replayed: bool = False, applied: bool = True
    ) -> CallView:
        """Put a call into words."""
        call_id = self.call_id(practice_id, call.call_no)
        return call_view(call, call_id, practice_id, replayed=replayed, applied=applied)

    # ---- questions

    def ask(self, question: Callable[[Cursor], T]) -> T:
        """Ask the store something that changes nothing."""
        return self.store.read(question)

    def balance_now(self, practice_id: str, period: Period | None) -> Balance:
        """Expire what is due of the practice, then tell its balance."""
        checks.practice_id_of(practice_id)
        period = checks.period_of(period)
        now_ms = self.now_ms()
        balance, due_ms = self.ask(
            lambda cur: queries.balance(cur, practice_id, period, now_ms // 1000)
        )
        while due_ms <= now_ms:
            self.store.run(_sweep(practice_id), practice_id)
            before = due_ms
            balance, due_ms = self.ask(
                lambda cur: queries.balance(cur, practice_id, period, now_ms // 1000)
            )
            if due_ms == before:
                break
        return balance

    def statement_page(self, practice_id: str, limit: int, before_seq: int | None) -> Statement:
        """Read one page of changes, newest first."""
        checks.practice_id_of(practice_id)
        before_seq = checks.page_key(before_seq)
        size = _page_size(limit)

        def question(cur: Cursor) -> Statement:
            practice, _period = queries.practice_with(cur, practice_id, None, self.now_ms() // 1000)
            found = journal.newest_transfers(cur, practice.practice_no, before_seq or _LAST, size)
            following = found[-1].seq if len(found) == size and found[-1].seq > 1 else None
            return Statement(practice_id, tuple(map(entry, found)), following)

        return self.ask(question)

    def recent_calls(
        self, practice_id: str, limit: int, before_call_no: int | None
    ) -> list[CallView]:
        """Read calls, newest first."""
        checks.practice_id_of(practice_id)
        before_call_no = checks.page_key(before_call_no)
        found = self.ask(
            lambda cur: queries.recent_calls(
                cur, practice_id, before_call_no or _LAST, _page_size(limit)
            )
        )
        return [self.view(practice_id, call) for call in found]

    def recent_topups(
        self, practice_id: str, limit: int, before_event_no: int | None
    ) -> list[TopupView]:
        """Read purchases, attempts, refunds and adjustments, newest first."""
        checks.practice_id_of(practice_id)
        before_event_no = checks.page_key(before_event_no)
        found = self.ask(
            lambda cur: queries.recent_events(
                cur, practice_id, before_event_no or _LAST, _page_size(limit)
            )
        )
        return [topup_view(event) for event in found]

    def one_call(self, practice_id: str, call_id: str) -> CallView:
        """Read one call by its id."""
        checks.practice_id_of(practice_id)
        call_no = self.call_no(practice_id, call_id)

        def question(cur: Cursor) -> Call | None:
            practice, _period = queries.practice_with(cur, practice_id, None, self.now_ms() // 1000)
            return calls.load_call(cur, practice.practice_no, call_no)

        found = self.ask(question)
        if found is None:
            raise CallNotFound(call_id)
        return self.view(practice_id, found)

    def verification(self, practice_id: str | None) -> Verification:
        """Replay the journal and compare it with all that is stored."""
        if practice_id is not None:
            checks.practice_id_of(practice_id)
        return self.store.verify(practice_id)

    def expire_due(self, limit: int = 1000) -> int:
        """Expire what is due of all practices; tell how many practices were swept."""
        now_ms = self.now_ms()
        due = self.ask(lambda cur: queries.due_practices(cur, now_ms, limit))
        for practice_id in due:
            self.store.run(_sweep(practice_id), practice_id)
        return len(due)

    def close(self) -> None:
        """Finish what is queued and close the database. Idempotent."""
        self.store.close()


def _sweep(practice_id: str) -> Callable[[Workspace], None]:
    return lambda space: space.sweep(practice_id)


def _page_size(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= queries.MAX_PAGE:
        raise InvalidInput(f"limit must be an integer from 1 to {queries.MAX_PAGE}")
    return limit
