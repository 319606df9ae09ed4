"""Handles: what `reserve` gives back, to settle, release or extend, and to use with `with`.

Law: leaving the block by an exception does what the reservation said; leaving it without settling
releases, with a warning. Entering the block of a call that is over raises `CallFinished`.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, cast

from guthaben.domain.calls import BY_EXCEPTION, RESERVED, Call
from guthaben.domain.commands import Extend, Outcome, Release
from guthaben.errors import CallFinished
from guthaben.services import checks, priced, requests
from guthaben.services.answers import CallView
from guthaben.services.priced import NOBODYS, PricedBy

if TYPE_CHECKING:
    from guthaben.services.asynchronous import AsyncGuthaben
    from guthaben.services.core import Core
    from guthaben.services.guthaben import Guthaben

log = logging.getLogger("guthaben")
_UNSETTLED = "a call was left without settle and is released; settle it with its cost"


class _Handle:
    """The known state of one call; the state of the store decides."""

    def __init__(
        self, core: Core, practice_id: str, call: Call, *, replayed: bool, by: PricedBy
    ) -> None:
        self._core = core
        self._by = by
        self._call = call
        self.practice_id = practice_id
        self.replayed = replayed
        """Whether this reservation had been made before with the same key."""

    @property
    def id(self) -> str:
        """The call's public id."""
        return self._core.call_id(self.practice_id, self._call.call_no)

    @property
    def key(self) -> str:
        """The idempotency key it was reserved with."""
        return self._call.key

    @property
    def status(self) -> str:
        """The last known status: reserved, settled, released, expired or settled_late."""
        return requests.STATUS_NAMES[self._call.status]

    @property
    def reserved_nano_usd(self) -> int:
        """What is, or was, held."""
        return self._call.reserved_nano_usd

    @property
    def cost_nano_usd(self) -> int:
        """What was charged so far."""
        return self._call.cost_nano_usd

    @property
    def expires_at_s(self) -> int:
        """When the hold ends by itself."""
        return self._call.expires_at_ms // 1000

    def __repr__(self) -> str:
        return f"<call {self._call.call_no} of {self.practice_id}: {self.status}>"

    def _bill(
        self, cost_or_usage: object, options: checks.SettleOptions
    ) -> tuple[int, checks.SettleOptions]:
        if priced.is_amount_of_money(cost_or_usage):
            return cast(int, cost_or_usage), options
        call = self._call
        by = self._by._replace(model=options.get("model") or self._by.model or call.usage.model)
        at_s = call.created_at_ms // 1000
        book = by.book or self._core.prices.book()
        cost_nano_usd, told = priced.bill(book, by, cost_or_usage, at_s, call.reserved_nano_usd)
        return cost_nano_usd, {**told, **options}

    def _enter(self) -> None:
        if self._call.status != RESERVED:
            raise CallFinished(self.id, self.status)

    def _heard(self, outcome: Outcome) -> CallView:
        if outcome.call is not None:
            self._call = outcome.call
        return self._core.view(
            self.practice_id, self._call, replayed=outcome.replayed, applied=outcome.applied
        )


class CallHandle(_Handle):
    """One reserved call."""

    def __init__(
        self,
        owner: Guthaben,
        practice_id: str,
        call: Call,
        *,
        replayed: bool,
        by: PricedBy = NOBODYS,
    ) -> None:
        super().__init__(owner.core, practice_id, call, replayed=replayed, by=by)
        self._owner = owner

    def settle(self, cost_or_usage: object, **options: Unpack[checks.SettleOptions]) -> CallView:
        """End the call with its real cost, and commit.

        The cost in nano-USD, or a provider's answer or usage: it is priced as of the reservation,
        and charged as it was reserved where it can't be true. Idempotent for the same cost and
        usage; another cost on a settled call is refused (`Refused`, reason `settled_otherwise`). On
        a call that had been released by its caller nothing is charged and the answer says
        `applied=False`. After expiry or an exception the difference is booked once
        (`settled_late`).
        """
        cost_nano_usd, told = self._bill(cost_or_usage, options)
        command = requests.settle_command(self._call.call_no, cost_nano_usd, told)
        return self._heard(self._owner.execute(self.practice_id, command))

    def release(self) -> CallView:
        """End the call without cost, and commit; on an ended call `applied` is False."""
        return self._heard(self._owner.execute(self.practice_id, Release(self._call.call_no)))

    def lose(self) -> CallView:
        """End a call that an exception left, as the reservation said (`on_exception`)."""
        command = Release(self._call.call_no, BY_EXCEPTION)
        return self._heard(self._owner.execute(self.practice_id, command))

    def extend(self, ttl_s: float) -> CallView:
        """Give the call more time, counted from now, at most 24 h in all; never shortens it."""
        command = Extend(self._call.call_no, checks.ttl_ms_of(ttl_s))
        return self._heard(self._owner.execute(self.practice_id, command))

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._call.status != RESERVED:
            return
        if kind is None:
            log.warning(_UNSETTLED)
            self.release()
            return
        command = Release(self._call.call_no, BY_EXCEPTION)
        try:
            self._heard(self._owner.execute(self.practice_id, command))
        except Exception:
            # The exception that left the block is what its caller must see; expiry frees the hold.
            log.exception("a call could not be ended after an exception; it will expire")


class AsyncCallHandle(_Handle):
    """One reserved call, for asyncio."""

    def __init__(
        self,
        owner: AsyncGuthaben,
        practice_id: str,
        call: Call,
        *,
        replayed: bool,
        by: PricedBy = NOBODYS,
    ) -> None:
        super().__init__(owner.core, practice_id, call, replayed=replayed, by=by)
        self._owner = owner

    async def settle(
        self, cost_or_usage: object, **options: Unpack[checks.SettleOptions]
    ) -> CallView:
        """End the call with its real cost; see `CallHandle.settle`."""
        if self._by.book is None and not priced.is_amount_of_money(cost_or_usage):
            await self._owner.book()
        cost_nano_usd, told = self._bill(cost_or_usage, options)
        command = requests.settle_command(self._call.call_no, cost_nano_usd, told)
        return self._heard(await self._owner.execute(self.practice_id, command))

    async def release(self) -> CallView:
        """End the call without cost; see `CallHandle.release`."""
        command = Release(self._call.call_no)
        return self._heard(await self._owner.execute(self.practice_id, command))

    def lose_soon(self) -> None:
        """End a call that an exception left, without waiting: a cancelled task can't."""
        self._core.store.send(self.practice_id, Release(self._call.call_no, BY_EXCEPTION))

    async def extend(self, ttl_s: float) -> CallView:
        """Give the call more time; see `CallHandle.extend`."""
        command = Extend(self._call.call_no, checks.ttl_ms_of(ttl_s))
        return self._heard(await self._owner.execute(self.practice_id, command))

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._call.status != RESERVED:
            return
        if kind is None:
            log.warning(_UNSETTLED)
            await self.release()
            return
        # Sent, not awaited: a cancelled task can't await any more, and must not leak its hold.
        try:
            self.lose_soon()
        except Exception:
            log.exception("a call could not be ended after an exception; it will expire")
