"""Holds: one reserved call at the gateway, from the reservation to its one end.

Law: a call ends exactly once: released if the provider can't have used anything, billed by its
usage, by our own measure, or as it was reserved if its outcome is lost. What can't be written now
ends by itself when its time is over, as the reservation said. A refusal reserves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from guthaben.domain.calls import BY_EXCEPTION, RESERVED, Call
from guthaben.domain.commands import Command, Outcome, Release
from guthaben.errors import (
    CapExceeded,
    GuthabenError,
    InsufficientCredit,
    OutcomeUnknown,
    StoreUnavailable,
)
from guthaben.services import requests
from guthaben.services.ai_quotes import Fitting, Quote
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.checks import EndPolicy, ReserveOptions
from guthaben.services.request_bounds import Fitted

log = logging.getLogger("guthaben.gateway")

_AGAIN_S: Final = 0.05

Count = Callable[[str, str], None]
"""Notes how a step ended: operation, outcome."""


class Hold:
    """What is held for one request, and how it ended."""

    def __init__(
        self, credit: AsyncGuthaben, practice_id: str, call: Call, quote: Quote, count: Count
    ) -> None:
        self._credit = credit
        self._practice_id = practice_id
        self._call = call
        self._count = count
        self.quote = quote
        self.over = False
        self._heard = False

    @property
    def id(self) -> str:
        """The call's public id."""
        return self._credit.core.call_id(self._practice_id, self._call.call_no)

    def heard(self, tokens: int) -> None:
        """Note how much of an answer was seen, in case it does not come to its end."""
        quote = self.quote.seen(tokens)
        self._heard = quote is not self.quote
        self.quote = quote

    async def release(self) -> None:
        """End the call without cost: nothing was used."""
        await self._end(Release(self._call.call_no), "released")

    async def bill(self, said: object) -> None:
        """End the call with what the answer says it cost, else by measure, else as reserved."""
        command, outcome = self._billed(said)
        await self._end(command, outcome)

    async def lose(self) -> None:
        """End a call whose outcome nobody knows, by what was seen or as the reservation said."""
        command, outcome = self._lost()
        await self._end(command, outcome)

    def abandon(self) -> None:
        """End the call without waiting: for a task that is being cancelled."""
        if self.over:
            return
        self.over = True
        command, outcome = self._lost()
        self._count("gateway", outcome)
        self._credit.core.store.send(self._practice_id, command)

    def _billed(self, said: object) -> tuple[Command, str]:
        bill = self.quote.bill(said, self._call.reserved_nano_usd)
        options = bill.options
        command = requests.settle_command(self._call.call_no, bill.cost_nano_usd, options)
        return command, f"billed_{bill.by}"

    def _lost(self) -> tuple[Command, str]:
        if self._heard:
            return self._billed(None)
        return Release(self._call.call_no, BY_EXCEPTION), "lost"

    async def _end(self, command: Command, outcome: str) -> None:
        if self.over:
            return
        self.over = True
        for last in (False, True):
            try:
                # Shielded: a caller that is cancelled now must not leave the call open.
                await asyncio.shield(self._credit.execute(self._practice_id, command))
            except (StoreUnavailable, OutcomeUnknown):
                if last:
                    log.error("a call could not be ended; its time will end it")
                    self._count("gateway", "unsettled")
                    return
                await asyncio.sleep(_AGAIN_S)
            except GuthabenError as error:
                log.error("a call could not be ended", extra={"code": error.code})
                self._count("gateway", "unsettled")
                return
            else:
                break
        self._count("gateway", outcome)


async def reserve(
    credit: AsyncGuthaben,
    practice_id: str,
    quote: Quote,
    *,
    key: str,
    most_output_tokens: int,
    ttl_s: int,
    on_loss: EndPolicy,
    origin: ReserveOptions,
    count: Count,
) -> tuple[Hold, Fitted]:
    """Reserve what a request can cost; an answer without a limit gets what is affordable.

    Nobody asks for the balance first: what a refusal tells is what the next try fits into; only the
    last refusal counts as a lack of credit. Where nothing fits, an automatic charge under way is
    waited for, as long as agreed, once. Raises what reserving raises; `CallFinished` is not raised,
    a used key is the caller's to refuse.
    """
    fitting = Fitting(quote, most_output_tokens)
    options: ReserveOptions = {
        "ttl_s": ttl_s,
        "on_expiry": "charge" if on_loss == "charge" else "release",
        "on_exception": on_loss,
        "model": quote.model,
        **origin,
    }
    is_unknown = False
    while True:
        try:
            outcome = await credit.execute(practice_id, fitting.command(key, options))
        except (InsufficientCredit, CapExceeded) as error:
            if fitting.goes_on(error.available_nano_usd):
                continue
            if not (fitting.may_wait(error) and await credit.credit_came(practice_id)):
                raise
            fitting = fitting.anew()
        except OutcomeUnknown:
            # The same key tells what happened; a hold left behind might be charged when it expires.
            if is_unknown:
                raise
            is_unknown = True
        else:
            if is_unknown and outcome.call is not None and outcome.call.status == RESERVED:
                outcome = outcome._replace(replayed=False)
            return _held(credit, practice_id, outcome, quote, count), fitting.fitted


def _held(
    credit: AsyncGuthaben, practice_id: str, outcome: Outcome, quote: Quote, count: Count
) -> Hold:
    assert outcome.call is not None
    hold = Hold(credit, practice_id, outcome.call, quote, count)
    hold.over = outcome.replayed
    count("gateway", "replayed" if outcome.replayed else "reserved")
    return hold
