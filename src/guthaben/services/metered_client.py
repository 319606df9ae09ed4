"""A client's methods, metered: reserve, call, settle; for threads and for asyncio.

Law: a call ends once, whatever its client raises: released if the provider refused it, billed by
its usage, by what was seen of a stream, or as it was reserved where nobody knows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from guthaben.errors import (
    CapExceeded,
    InsufficientCredit,
    InvalidInput,
    OutcomeUnknown,
    StoreUnavailable,
)
from guthaben.services import metered_calls
from guthaben.services.ai_quotes import Endpoint, Fitting, Quote
from guthaben.services.ai_streams import Told
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.audio_length import AUDIO_TOKENS_PER_S, audio_length_us
from guthaben.services.checks import ReserveOptions, practice_id_of
from guthaben.services.guthaben import Guthaben
from guthaben.services.handles import AsyncCallHandle, CallHandle
from guthaben.services.metered_calls import Arguments, Meter, Method

log = logging.getLogger("guthaben")

_TTL_S: Final = 3_600
_AGAIN_S: Final = 0.05
_UNENDED: Final = "a call could not be ended; its time will end it"


def _options(meter: Meter, endpoint: Endpoint, quote: Quote) -> ReserveOptions:
    options: ReserveOptions = {
        "ttl_s": _TTL_S,
        "on_expiry": "charge",
        "on_exception": "charge",
        "model": quote.model,
        "operation_type": endpoint,
    }
    options.update(meter.origin)  # type: ignore[typeddict-item]
    return options


def _said(method: Method, quote: Quote, answer: Any) -> tuple[Quote, Any]:
    """Tell what an answer says of its usage; of speech only its length does."""
    if method.endpoint != "speech":
        found = _parsed(answer) if method.is_raw else answer
        return quote, None if isinstance(found, str) else found
    try:
        length_us = audio_length_us(getattr(answer, "content", b""))
    except InvalidInput:
        return quote, None
    return quote.spoken(length_us, AUDIO_TOKENS_PER_S), None


def _parsed(answer: Any) -> Any:
    """Read what came over the wire; what is no JSON tells nothing."""
    try:
        return json.loads(answer.http_response.content)
    except (ValueError, RecursionError):
        return None


def _read(method: Method, given: dict[str, Any]) -> Arguments:
    """Read what is asked for. Raises `InvalidInput`."""
    if method.is_raw and _streamed(given):
        raise InvalidInput("an answer that is raw or parsed can't be streamed here", field="stream")
    return metered_calls.read(method.endpoint, given)


def _streamed(given: dict[str, Any]) -> bool:
    return given.get("stream") is True


# ---------------------------------------------------------------- threads


def _end(end: Callable[[], object]) -> None:
    """End a call; what can't be written now ends by its time, and the answer is not lost for it."""
    for last in (False, True):
        try:
            end()
        except (StoreUnavailable, OutcomeUnknown):
            if last:
                log.exception(_UNENDED)
            else:
                time.sleep(_AGAIN_S)
        else:
            return


class Metered:
    """One method of a client, metered."""

    def __init__(self, credit: Guthaben, meter: Meter, method: Method) -> None:
        self._credit = credit
        self._meter = meter
        self._method = method

    def __call__(self, **given: Any) -> Any:
        """Reserve, call and settle."""
        arguments = _read(self._method, given)
        core = self._credit.core
        at_s = core.now_ms() // 1000
        tariff = core.tariffs.find(self._meter.practice_id, self._meter.plan)
        quote = arguments.quote(tariff, self._meter, self._method.endpoint, at_s)
        call, fitting = self._reserved(quote)
        try:
            answer = self._method.ask(**arguments.limited(fitting.fitted))
        except BaseException as error:
            if metered_calls.never_used(error):
                _end(call.release)
            else:
                _end(call.lose)
            raise
        if _streamed(arguments.given):
            return MeteredStream(answer, call, quote, arguments)
        quote, said = _said(self._method, quote, answer)
        bill = quote.bill(said, call.reserved_nano_usd)
        _end(lambda: call.settle(bill.cost_nano_usd, **bill.options))
        return answer.parse() if self._method.parses else answer

    def _reserved(self, quote: Quote) -> tuple[CallHandle, Fitting]:
        fitting = Fitting(quote, self._meter.most_output_tokens)
        options = _options(self._meter, self._method.endpoint, quote)
        practice_id = practice_id_of(self._meter.practice_id)
        key, is_unknown = self._credit.core.new_key(), False
        while True:
            try:
                outcome = self._credit.execute(practice_id, fitting.command(key, options))
            except (InsufficientCredit, CapExceeded) as error:
                if fitting.goes_on(error.available_nano_usd):
                    continue
                if not (fitting.may_wait(error) and self._credit.core.credit_came(practice_id)):
                    raise
                fitting = fitting.anew()
            except OutcomeUnknown:
                # The same key tells what happened; what is left behind would be charged one day.
                if is_unknown:
                    raise
                is_unknown = True
            else:
                assert outcome.call is not None
                return CallHandle(self._credit, practice_id, outcome.call, replayed=False), fitting


class MeteredStream:
    """A stream of the client, settled at its end, or where it is left."""

    def __init__(self, inner: Any, call: CallHandle, quote: Quote, arguments: Arguments) -> None:
        self._inner = inner
        self._call = call
        self._quote = quote
        self._hides = arguments.hides_usage
        self._told = Told(quote.count)
        self._over = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for chunk in self._inner:
                if _noted(self._told, chunk, hides=self._hides):
                    yield chunk
        except Exception as error:
            _failed(self._told, error)
            raise
        finally:
            self._settle()

    def _settle(self) -> None:
        if self._over:
            return
        self._over = True
        if self._told.used_nothing:
            _end(self._call.release)
        else:
            cost, options = _bill(self._quote, self._told, self._call.reserved_nano_usd)
            _end(lambda: self._call.settle(cost, **options))

    def close(self) -> None:
        """Stop listening; what was seen is charged."""
        self._inner.close()
        self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# ---------------------------------------------------------------- asyncio


async def _ended(end: Callable[[], Awaitable[object]]) -> None:
    for last in (False, True):
        try:
            await end()
        except (StoreUnavailable, OutcomeUnknown):
            if last:
                log.exception(_UNENDED)
            else:
                await asyncio.sleep(_AGAIN_S)
        else:
            return


class AsyncMetered:
    """One method of an asynchronous client, metered."""

    def __init__(self, credit: AsyncGuthaben, meter: Meter, method: Method) -> None:
        self._credit = credit
        self._meter = meter
        self._method = method

    async def __call__(self, **given: Any) -> Any:
        """Reserve, call and settle."""
        arguments = _read(self._method, given)
        tariff = await self._credit.tariff(self._meter.practice_id, self._meter.plan)
        at_s = self._credit.core.now_ms() // 1000
        quote = arguments.quote(tariff, self._meter, self._method.endpoint, at_s)
        call, fitting = await self._reserved(quote)
        try:
            answer = await self._method.ask(**arguments.limited(fitting.fitted))
        except asyncio.CancelledError:
            call.lose_soon()
            raise
        except BaseException as error:
            if metered_calls.never_used(error):
                await _ended(call.release)
            else:
                call.lose_soon()
            raise
        if _streamed(arguments.given):
            return AsyncMeteredStream(answer, call, quote, arguments)
        quote, said = _said(self._method, quote, answer)
        bill = quote.bill(said, call.reserved_nano_usd)
        await _ended(lambda: call.settle(bill.cost_nano_usd, **bill.options))
        return answer.parse() if self._method.parses else answer

    async def _reserved(self, quote: Quote) -> tuple[AsyncCallHandle, Fitting]:
        fitting = Fitting(quote, self._meter.most_output_tokens)
        options = _options(self._meter, self._method.endpoint, quote)
        practice_id = practice_id_of(self._meter.practice_id)
        key, is_unknown = self._credit.core.new_key(), False
        while True:
            try:
                outcome = await self._credit.execute(practice_id, fitting.command(key, options))
            except (InsufficientCredit, CapExceeded) as error:
                if fitting.goes_on(error.available_nano_usd):
                    continue
                if not (fitting.may_wait(error) and await self._credit.credit_came(practice_id)):
                    raise
                fitting = fitting.anew()
            except OutcomeUnknown:
                if is_unknown:
                    raise
                is_unknown = True
            else:
                assert outcome.call is not None
                call = AsyncCallHandle(self._credit, practice_id, outcome.call, replayed=False)
                return call, fitting


class AsyncMeteredStream:
    """An asynchronous stream of the client, settled at its end, or where it is left."""

    def __init__(
        self, inner: Any, call: AsyncCallHandle, quote: Quote, arguments: Arguments
    ) -> None:
        self._inner = inner
        self._call = call
        self._quote = quote
        self._hides = arguments.hides_usage
        self._told = Told(quote.count)
        self._over = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for chunk in self._inner:
                if _noted(self._told, chunk, hides=self._hides):
                    yield chunk
        except Exception as error:
            _failed(self._told, error)
            raise
        finally:
            await self._settle()

    async def _settle(self) -> None:
        if self._over:
            return
        self._over = True
        # Shielded: whoever is cancelled here must not leave the call open.
        if self._told.used_nothing:
            await asyncio.shield(_ended(self._call.release))
        else:
            cost, options = _bill(self._quote, self._told, self._call.reserved_nano_usd)
            await asyncio.shield(_ended(lambda: self._call.settle(cost, **options)))

    async def close(self) -> None:
        """Stop listening; what was seen is charged."""
        await self._inner.close()
        await self._settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


# ---------------------------------------------------------------- streams


def _noted(told: Told, chunk: Any, *, hides: bool) -> bool:
    """Note what a chunk tells; tell whether it is given on."""
    body = chunk.model_dump() if hasattr(chunk, "model_dump") else chunk
    told.note(body)
    return not (hides and body.get("usage") is not None and not body.get("choices"))


def _failed(told: Told, error: Exception) -> None:
    """Note what the client makes of an event that tells of a failure: an error with its body."""
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        told.note({"error": body})


def _bill(quote: Quote, told: Told, reserved_nano_usd: int) -> tuple[int, Any]:
    bill = quote.seen(told.seen.tokens).bill(told.said, reserved_nano_usd)
    return bill.cost_nano_usd, bill.options
