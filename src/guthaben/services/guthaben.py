"""`Guthaben`: the Python interface. Open a database, reserve before a call, settle after it.

Law: each method that changes credit is one command, durable when it returns. All methods are
thread-safe. `AsyncGuthaben` has the same methods, awaited.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, Unpack

from guthaben.domain.commands import Command, Outcome, Reserve
from guthaben.domain.period import Period
from guthaben.domain.practice import Balance
from guthaben.errors import InsufficientCredit
from guthaben.services import checks, priced, requests
from guthaben.services.answers import CallView, GrantReceipt, Statement, TopupView
from guthaben.services.core import Core
from guthaben.services.handles import CallHandle
from guthaben.store.verify import Verification
from guthaben.store.workspace import EventNote
from guthaben.store.writer import wall_clock_ms


class Guthaben:
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
        """Open a database, creating or migrating it: `sqlite:///credit.db` or `sqlite://` (memory).

        Raises `ConfigError` for a URL it doesn't know, `StoreUnavailable` when the file can't be
        opened, `MigrationNeeded` when a later version wrote it. With `topup_wait_s` above 0 a call
        that lacks credit waits that long for the automatic charge `under_way`, then is tried again.
        """
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

    def execute(self, practice_id: str, command: Command, note: EventNote | None = None) -> Outcome:
        """Apply one command; raise the exception that names a refusal."""
        outcome = self.core.store.execute(practice_id, command, note)
        return requests.checked(outcome, practice_id, command)

    # ---- calls

    def reserve(
        self,
        practice_id: str,
        amount_nano_usd: int | None = None,
        *,
        key: str | None = None,
        **options: Unpack[checks.PricedReserveOptions],
    ) -> CallHandle:
        """Hold credit for one AI call, durably, before it is made.

        Either an amount, or what the call uses at most (model, input_tokens, max_output_tokens,
        audio_seconds), bounded by the price book. Idempotent: the same key and arguments give the
        same call, `replayed`; without a key each call is a new one. Raises `InsufficientCredit`,
        `IdempotencyConflict`, `PracticeFrozen`, `PracticeClosed`, `InvalidAmount`, `InvalidInput`,
        `Refused` (`unknown_model`, `cap_exceeded`), `ConfigError` while there are no prices;
        `StoreUnavailable` when the store can't answer (then don't call).
        """
        rest, told, by = priced.split(amount_nano_usd, options)
        tariff = self.core.tariffs.find(practice_id, by.plan)
        by = by.at(tariff)
        if amount_nano_usd is None:
            amount_nano_usd = priced.bound(tariff.book, by, told, self.core.now_ms() // 1000)
        key = self.core.new_key() if key is None else key
        command = requests.reserve_command(amount_nano_usd, key, rest)
        outcome = self._reserve(checks.practice_id_of(practice_id), command)
        assert outcome.call is not None
        return CallHandle(self, practice_id, outcome.call, replayed=outcome.replayed, by=by)

    def _reserve(self, practice_id: str, command: Reserve) -> Outcome:
        try:
            return self.execute(practice_id, command)
        except InsufficientCredit:
            if not self.core.credit_came(practice_id):
                raise
        return self.execute(practice_id, command)

    def record_usage(
        self,
        practice_id: str,
        cost_or_usage: object,
        *,
        key: str,
        **options: Unpack[checks.PricedUsageOptions],
    ) -> CallView:
        """Meter a call that was made without a reservation; what no credit covers becomes debt.

        The cost in nano-USD, or a provider's answer or usage, priced now. Idempotent by key.
        Raises `IdempotencyConflict`, `PracticeClosed`, `InvalidAmount`; for a usage that can't be
        priced `InvalidInput` (`missing_usage`, `invalid_usage`), `Refused` (`unknown_model`).
        """
        cost_nano_usd, rest = priced.of_usage(
            lambda plan: self.core.tariffs.find(practice_id, plan),
            cost_or_usage,
            options,
            self.core.now_ms() // 1000,
        )
        command = requests.usage_command(cost_nano_usd, key, rest)
        outcome = self.execute(checks.practice_id_of(practice_id), command)
        assert outcome.call is not None
        return self.core.view(practice_id, outcome.call, replayed=outcome.replayed)

    def call(self, practice_id: str, call_id: str) -> CallView:
        """Look at one call. Raises `CallNotFound`, for a foreign id just as for a missing one."""
        return self.core.one_call(practice_id, call_id)

    def calls(
        self, practice_id: str, *, limit: int = 50, before_call_no: int | None = None
    ) -> list[CallView]:
        """List calls, newest first."""
        return self.core.recent_calls(practice_id, limit, before_call_no)

    # ---- credit

    def grant(
        self,
        practice_id: str,
        amount_nano_usd: int,
        *,
        key: str,
        kind: checks.CreditKind = "promotional",
        expires_at_s: int | None = None,
        period: Period | None = None,
    ) -> GrantReceipt:
        """Give credit that no payment of ours stands behind.

        Idempotent by key, for ever. Raises `Refused` (`allowance_exists`, `already_expired`),
        `IdempotencyConflict`, `PracticeClosed`, `InvalidAmount`, `InvalidInput`.
        """
        command = requests.grant_command(
            amount_nano_usd, kind, key=key, expires_at_s=expires_at_s, period=period
        )
        outcome = self.execute(checks.practice_id_of(practice_id), command)
        return GrantReceipt(practice_id, outcome.grant_no, outcome.replayed)

    def adjust(
        self,
        practice_id: str,
        amount_nano_usd: int,
        *,
        key: str,
        reason: str,
        author: str = "",
        kind: checks.CreditKind = "promotional",
    ) -> GrantReceipt:
        """Correct a balance by hand, up or down; the reason is required and kept, erasable.

        Idempotent by key, for ever. What free credit does not cover becomes debt.
        """
        command = requests.adjust_command(amount_nano_usd, kind, key=key)
        note = EventNote(
            author=checks.checked_text("author", author, checks.MAX_TEXT) or None,
            note=checks.reason_of(reason),
        )
        outcome = self.execute(checks.practice_id_of(practice_id), command, note)
        return GrantReceipt(practice_id, outcome.grant_no, outcome.replayed)

    def set_license(
        self, practice_id: str, license: str, **options: Unpack[checks.LicenseOptions]
    ) -> None:
        """Tell the practice's licence. Naturally idempotent; an upgrade acts at once."""
        command = requests.license_command(license, options)
        self.execute(checks.practice_id_of(practice_id), command)

    def set_policy(self, practice_id: str, **options: Unpack[checks.PolicyOptions]) -> None:
        """Freeze or close a practice, or change how overrun and debt are treated."""
        command = requests.policy_command(options)
        self.execute(checks.practice_id_of(practice_id), command)

    # ---- questions

    def balance(self, practice_id: str, period: Period | None = None) -> Balance:
        """Tell the balance now, for a period (default: the current one); expires what is due."""
        return self.core.balance_now(practice_id, period)

    def statement(
        self, practice_id: str, *, limit: int = 50, before_seq: int | None = None
    ) -> Statement:
        """List every change of credit, newest first, a page at a time."""
        return self.core.statement_page(practice_id, limit, before_seq)

    def topups(
        self, practice_id: str, *, limit: int = 50, before_event_no: int | None = None
    ) -> list[TopupView]:
        """List purchases, attempts, refunds and adjustments, newest first."""
        return self.core.recent_topups(practice_id, limit, before_event_no)

    def verify(self, practice_id: str | None = None) -> Verification:
        """Replay the journal and compare it with all that is stored; `.ok`, `.problems`."""
        return self.core.verification(practice_id)

    def expire(self) -> int:
        """Expire what is due of every practice; tell how many practices were looked at."""
        return self.core.expire_due()

    # ---- end

    def close(self) -> None:
        """Finish what is queued and close. Idempotent."""
        self.core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
