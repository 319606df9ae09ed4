"""`AsyncGuthaben`: the Python interface for asyncio; the methods of `Guthaben`, awaited.

Law: nothing blocks the event loop: commands wait on the writer, questions run on a thread. A task
that is cancelled while it reserves leaves no hold behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, Unpack

from guthaben.domain.commands import Command, Outcome, Reserve
from guthaben.domain.period import Period
from guthaben.domain.practice import Balance
from guthaben.domain.price_book import PriceBook
from guthaben.errors import InsufficientCredit
from guthaben.services import checks, priced, requests
from guthaben.services.answers import CallView, GrantReceipt, Statement, TopupView
from guthaben.services.core import Core
from guthaben.services.handles import AsyncCallHandle
from guthaben.services.tariffs import Tariff
from guthaben.store.verify import Verification
from guthaben.store.workspace import EventNote
from guthaben.store.writer import wall_clock_ms


class AsyncGuthaben:
    """Prepaid AI credit on one database."""

    def __init__(self, core: Core) -> None:
        self.core = core

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_claim: Callable[[str, Outcome], None] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        under_way: Callable[[str], Future[bool] | None] = lambda _practice_id: None,
        topup_wait_s: float = 0,
    ) -> Self:
        """Open a database; see `Guthaben.open`. Blocks while it opens or migrates."""
        return cls(
            Core(
                url,
                clock_ms=clock_ms,
                on_claim=on_claim,
                may_claim=may_claim,
                under_way=under_way,
                topup_wait_s=topup_wait_s,
            )
        )

    async def execute(
        self, practice_id: str, command: Command, note: EventNote | None = None
    ) -> Outcome:
        """Apply one command; raise the exception that names a refusal."""
        answer = self.core.store.execute_soon(practice_id, command, note)
        try:
            outcome = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                # Answered, and cancelled before it could hear: nobody else will end the hold.
                self.core.release_abandoned(practice_id, command, answer.result())
            raise
        return requests.checked(outcome, practice_id, command)

    # ---- calls

    async def reserve(
        self,
        practice_id: str,
        amount_nano_usd: int | None = None,
        *,
        key: str | None = None,
        **options: Unpack[checks.PricedReserveOptions],
    ) -> AsyncCallHandle:
        """Hold credit for one AI call; see `Guthaben.reserve`."""
        practice_id = checks.practice_id_of(practice_id)
        rest, told, by = priced.split(amount_nano_usd, options)
        tariff = self.core.tariffs.recall(practice_id, by.plan)
        if tariff is None:
            tariff = await self.tariff(practice_id, by.plan)
        by = by.at(tariff)
        if amount_nano_usd is None:
            amount_nano_usd = priced.bound(tariff.book, by, told, self.core.now_ms() // 1000)
        key = self.core.new_key() if key is None else key
        command = requests.reserve_command(amount_nano_usd, key, rest)
        outcome = await self.execute_or_wait(practice_id, command)
        assert outcome.call is not None
        return AsyncCallHandle(self, practice_id, outcome.call, replayed=outcome.replayed, by=by)

    async def book(self) -> PriceBook:
        """Give the price book that counts, without blocking the loop."""
        known = self.core.prices.recall()
        return known if known is not None else await asyncio.to_thread(self.core.prices.book)

    async def tariff(self, practice_id: str, plan: str = "") -> Tariff:
        """Give what prices a practice's calls now, without blocking the loop."""
        known = self.core.tariffs.recall(checks.practice_id_of(practice_id), plan)
        if known is not None:
            return known
        return await asyncio.to_thread(self.core.tariffs.find, practice_id, plan)

    async def execute_or_wait(self, practice_id: str, command: Reserve) -> Outcome:
        """Reserve; where credit lacks, wait as long as agreed for a charge under way, try again."""
        try:
            return await self.execute(practice_id, command)
        except InsufficientCredit:
            if not await self.credit_came(practice_id):
                raise
        return await self.execute(practice_id, command)

    async def credit_came(self, practice_id: str) -> bool:
        """Wait for the charge under way, but not longer than agreed; tell whether credit came."""
        charge = self.core.charge_to_await(practice_id)
        if charge is None:
            return False
        answer = asyncio.wrap_future(charge)
        # Not `wait_for`: its end would cancel what others wait for too.
        done, _waiting = await asyncio.wait([answer], timeout=self.core.topup_wait_s)
        return bool(done) and answer.result()

    async def record_usage(
        self,
        practice_id: str,
        cost_or_usage: object,
        *,
        key: str,
        **options: Unpack[checks.PricedUsageOptions],
    ) -> CallView:
        """Meter a call that was made without a reservation; see `Guthaben.record_usage`."""
        if not priced.is_amount_of_money(cost_or_usage):
            await self.tariff(practice_id)
        cost_nano_usd, rest = priced.of_usage(
            lambda plan: self.core.tariffs.find(practice_id, plan),
            cost_or_usage,
            options,
            self.core.now_ms() // 1000,
        )
        command = requests.usage_command(cost_nano_usd, key, rest)
        outcome = await self.execute(checks.practice_id_of(practice_id), command)
        assert outcome.call is not None
        return self.core.view(practice_id, outcome.call, replayed=outcome.replayed)

    async def call(self, practice_id: str, call_id: str) -> CallView:
        """Look at one call. Raises `CallNotFound`, for a foreign id just as for a missing one."""
        return await asyncio.to_thread(self.core.one_call, practice_id, call_id)

    async def calls(
        self, practice_id: str, *, limit: int = 50, before_call_no: int | None = None
    ) -> list[CallView]:
        """List calls, newest first."""
        return await asyncio.to_thread(self.core.recent_calls, practice_id, limit, before_call_no)

    # ---- credit

    async def grant(
        self,
        practice_id: str,
        amount_nano_usd: int,
        *,
        key: str,
        kind: checks.CreditKind = "promotional",
        expires_at_s: int | None = None,
        period: Period | None = None,
    ) -> GrantReceipt:
        """Give credit that no payment of ours stands behind; see `Guthaben.grant`."""
        command = requests.grant_command(
            amount_nano_usd, kind, key=key, expires_at_s=expires_at_s, period=period
        )
        outcome = await self.execute(checks.practice_id_of(practice_id), command)
        return GrantReceipt(practice_id, outcome.grant_no, outcome.replayed)

    async def adjust(
        self,
        practice_id: str,
        amount_nano_usd: int,
        *,
        key: str,
        reason: str,
        author: str = "",
        kind: checks.CreditKind = "promotional",
    ) -> GrantReceipt:
        """Correct a balance by hand, up or down; see `Guthaben.adjust`."""
        command = requests.adjust_command(amount_nano_usd, kind, key=key)
        note = EventNote(
            author=checks.checked_text("author", author, checks.MAX_TEXT) or None,
            note=checks.reason_of(reason),
        )
        outcome = await self.execute(checks.practice_id_of(practice_id), command, note)
        return GrantReceipt(practice_id, outcome.grant_no, outcome.replayed)

    async def set_license(
        self, practice_id: str, license: str, **options: Unpack[checks.LicenseOptions]
    ) -> None:
        """Tell the practice's licence. Naturally idempotent; an upgrade acts at once."""
        command = requests.license_command(license, options)
        await self.execute(checks.practice_id_of(practice_id), command)

    async def set_policy(self, practice_id: str, **options: Unpack[checks.PolicyOptions]) -> None:
        """Freeze or close a practice, or change how overrun and debt are treated."""
        command = requests.policy_command(options)
        await self.execute(checks.practice_id_of(practice_id), command)

    # ---- questions

    async def balance(self, practice_id: str, period: Period | None = None) -> Balance:
        """Tell the balance now, for a period (default: the current one); expires what is due."""
        return await asyncio.to_thread(self.core.balance_now, practice_id, period)

    async def statement(
        self, practice_id: str, *, limit: int = 50, before_seq: int | None = None
    ) -> Statement:
        """List every change of credit, newest first, a page at a time."""
        return await asyncio.to_thread(self.core.statement_page, practice_id, limit, before_seq)

    async def topups(
        self, practice_id: str, *, limit: int = 50, before_event_no: int | None = None
    ) -> list[TopupView]:
        """List purchases, attempts, refunds and adjustments, newest first."""
        return await asyncio.to_thread(self.core.recent_topups, practice_id, limit, before_event_no)

    async def verify(self, practice_id: str | None = None) -> Verification:
        """Replay the journal and compare it with all that is stored; `.ok`, `.problems`."""
        return await asyncio.to_thread(self.core.verification, practice_id)

    async def expire(self) -> int:
        """Expire what is due of every practice; tell how many practices were looked at."""
        return await asyncio.to_thread(self.core.expire_due)

    # ---- end

    async def close(self) -> None:
        """Finish what is queued and close. Idempotent."""
        await asyncio.to_thread(self.core.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
