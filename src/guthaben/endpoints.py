"""Costed endpoints: a decorator and a FastAPI dependency that reserve before and settle after.

Law: the work runs only while its credit is held. With a price it costs that price unless it settles
by itself; without one it must settle. An exception ends the call as the reservation says, by
default without cost.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Unpack

from starlette.exceptions import HTTPException
from starlette.requests import Request

from guthaben.domain.money import format_usd
from guthaben.errors import CapExceeded, InsufficientCredit, PracticeClosed, PracticeFrozen
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.checks import PricedReserveOptions
from guthaben.services.guthaben import Guthaben
from guthaben.services.handles import AsyncCallHandle, CallHandle

__all__ = ["costed", "costed_dependency"]

_OPEN: Final = "reserved"
_FORBIDDEN: Final = (PracticeFrozen, PracticeClosed)


def costed(
    credit: Guthaben | AsyncGuthaben,
    practice: str | Callable[..., str],
    *,
    price_nano_usd: int | None = None,
    **options: Unpack[PricedReserveOptions],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function, or a coroutine function with an `AsyncGuthaben`, so that it costs.

    `practice` is a practice's id, or tells it from the function's own arguments. With
    `price_nano_usd` each success costs that; else give what it uses at most (model, input_tokens,
    max_output_tokens), take the parameter `call` and settle it. Raises what reserving raises.
    """

    def decorate(work: Callable[..., Any]) -> Callable[..., Any]:
        wants_call = "call" in inspect.signature(work).parameters

        def named(args: Any, given: Any) -> str:
            return practice if isinstance(practice, str) else practice(*args, **given)

        def extra(call: CallHandle | AsyncCallHandle) -> dict[str, Any]:
            return {"call": call} if wants_call else {}

        @functools.wraps(work)
        def run(*args: Any, **given: Any) -> Any:
            assert isinstance(credit, Guthaben)
            with credit.reserve(named(args, given), price_nano_usd, **options) as call:
                answer = work(*args, **given, **extra(call))
                if price_nano_usd is not None and call.status == _OPEN:
                    call.settle(price_nano_usd)
                return answer

        @functools.wraps(work)
        async def run_async(*args: Any, **given: Any) -> Any:
            assert isinstance(credit, AsyncGuthaben)
            reserved = await credit.reserve(named(args, given), price_nano_usd, **options)
            async with reserved as call:
                answer = await work(*args, **given, **extra(call))
                if price_nano_usd is not None and call.status == _OPEN:
                    await call.settle(price_nano_usd)
                return answer

        chosen: Any = run_async if inspect.iscoroutinefunction(work) else run
        # Frameworks must not look for `call` among the caller's arguments.
        chosen.__signature__ = _without_call(work)
        return chosen  # type: ignore[no-any-return]

    return decorate


def _without_call(work: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(work)
    kept = [part for part in signature.parameters.values() if part.name != "call"]
    return signature.replace(parameters=kept)


def costed_dependency(
    credit: AsyncGuthaben,
    practice: Callable[[Request], str],
    *,
    price_nano_usd: int | None = None,
    topup_url: str | None = None,
    **options: Unpack[PricedReserveOptions],
) -> Callable[[Request], AsyncIterator[AsyncCallHandle]]:
    """Make a FastAPI dependency that gives an endpoint its reserved call.

    Without credit the client hears 402 with what is available and where to buy more, above a cap
    429, and the endpoint does not run.
    """

    async def dependency(request: Request) -> AsyncIterator[AsyncCallHandle]:
        try:
            reserved = await credit.reserve(practice(request), price_nano_usd, **options)
        except InsufficientCredit as error:
            raise _refused(402, error, topup_url) from error
        except CapExceeded as error:
            raise _refused(429, error, None) from error
        except _FORBIDDEN as error:
            raise HTTPException(403, {"code": error.code, "message": str(error)}) from error  # type: ignore[arg-type]
        async with reserved as call:
            yield call
            if price_nano_usd is not None and call.status == _OPEN:
                await call.settle(price_nano_usd)

    return dependency


def _refused(
    status: int, error: InsufficientCredit | CapExceeded, topup_url: str | None
) -> HTTPException:
    detail = {
        "code": error.code,
        "message": str(error),
        "available_usd": format_usd(error.available_nano_usd),
        **({"topup_url": topup_url} if topup_url else {}),
    }
    return HTTPException(status, detail)  # type: ignore[arg-type]
