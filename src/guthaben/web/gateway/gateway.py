"""The gateway: reserve, forward, relay, settle, for every client that speaks to OpenAI.

Law: nothing is asked of a provider without a durable reservation, and every reservation ends once,
whatever happens. Prompts and answers pass through: they are neither stored nor logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from guthaben.errors import GuthabenError, InsufficientCredit
from guthaben.services.ai_quotes import Quote, quote
from guthaben.services.call_keys import new_key
from guthaben.services.checks import ReserveOptions, checked_text, key_of
from guthaben.services.tariffs import Tariff
from guthaben.services.upstreams import Upstream
from guthaben.web.access import Caller as Who
from guthaben.web.deps import Services
from guthaben.web.gateway import asked as asking
from guthaben.web.gateway import bodies, errors, pool
from guthaben.web.gateway.asked import Asked
from guthaben.web.gateway.bodies import ClientGone
from guthaben.web.gateway.errors import UpstreamFailed
from guthaben.web.gateway.holds import Hold, reserve
from guthaben.web.gateway.pool import Lost, NeverSent, Pool
from guthaben.web.gateway.relay import Caller, Relay
from guthaben.web.gateway.settings import GatewaySettings
from guthaben.web.gateway.streams import Watcher
from guthaben.web.problems import Problem, unexpected
from guthaben.web.routing import language_of, request_id, speak_to
from guthaben.web.shapes import refuse_secret

log = logging.getLogger("guthaben.gateway")

DEVICE_HEADER: Final = "x-device-id"
KEY_HEADER: Final = "idempotency-key"
_LONG_TEXT: Final = bodies.LONG_BYTES

Serve = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and the place for its answer; notes whether the answer has begun."""

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self.request = request
        self.receive = receive
        self.begun = False
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a part of the answer; who has left is told nothing more, and breaks nothing."""
        self.begun = True
        with contextlib.suppress(OSError):  # how some servers say that the caller has left
            await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with an error, if nothing has been answered yet."""
        if self.begun:
            return
        language = await language_of(self.request)
        identity = request_id(self.request.scope)
        status, headers, body = errors.wire(problem, identity, language)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class Passing(Response):
    """A response that is written straight to the connection: a stream can wait for nobody."""

    def __init__(self, serve: Serve, request: Request) -> None:
        super().__init__()
        self._serve = serve
        self._request = request

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        await self._serve(Exchange(self._request, receive, send))


class _Job(NamedTuple):
    """A request with who asks, what it is bounded by, and who answers it."""

    who: Who
    asked: Asked
    quote: Quote
    upstream: Upstream
    name: str


class Gateway:
    """Serves the endpoints that cost something; one per process and event loop."""

    def __init__(self, services: Services, settings: GatewaySettings) -> None:
        self.services = services
        self.settings = settings
        self.pool = Pool(settings.timeout_s)

    async def serve(self, endpoint: str, exchange: Exchange) -> None:
        """Serve an endpoint."""
        await self.guarded(exchange, self._serve(endpoint, exchange))

    async def guarded(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Do some work for a request; whatever goes wrong is answered in OpenAI's manner."""
        try:
            await work
        except ClientGone:
            pass
        except Problem as problem:
            await exchange.refuse(problem)
        except InsufficientCredit as error:
            await exchange.refuse(errors.of_credit(error, self.settings.topup_url))
        except GuthabenError as error:
            found = errors.of_error(error)
            if found.status >= 500:
                log.error("a request failed", extra={"code": found.code})
            await exchange.refuse(found)
        except Exception:
            identity = request_id(exchange.request.scope)
            log.exception("a request broke", extra={"request_id": identity})
            await exchange.refuse(unexpected())

    async def _serve(self, endpoint: str, exchange: Exchange) -> None:
        request = exchange.request
        who = await self.services.access.caller(request, "gate")
        speak_to(request, lambda: self.services.portal.chosen_language(who.practice_id))
        device = _device(request)
        if not self.services.caps.knows(who.practice_id):
            asked = (who.practice_id, who.key_id, device)
            await asyncio.to_thread(self.services.caps.limited, *asked)
        with self.services.limits.enter(who.practice_id, who.key_id, device):
            raw = await bodies.read(exchange.receive, request.headers)
            job = await self._job(endpoint, who, request, raw)
            options: ReserveOptions = {
                "operation_type": endpoint,
                "api_key_id": who.key_id,
                "device_id": device,
            }
            hold, body, content_type = await self._reserved(job, request, options)
            await self._forward(exchange, job, hold, body, content_type)

    async def _job(self, endpoint: str, who: Who, request: Request, raw: bytes) -> _Job:
        """Read the request and bound it."""
        if not self.settings.upstreams.all:
            raise Problem(503, "gateway_not_configured", "This server knows no AI provider.")
        asked = await asking.read(endpoint, raw, request.headers)
        upstream, name = self.settings.upstreams.find(asked.model)
        tariff = await self.services.credit.tariff(who.practice_id)
        at_s = self.services.core.now_ms() // 1000
        if len(raw) > _LONG_TEXT or asked.form is not None:
            bounded = await asyncio.to_thread(_bound, tariff, asked, at_s, upstream)
        else:
            bounded = _bound(tariff, asked, at_s, upstream)
        return _Job(who, asked, bounded, upstream, name)

    async def _reserved(
        self, job: _Job, request: Request, options: ReserveOptions
    ) -> tuple[Hold, bytes, str]:
        """Reserve, and write what the provider gets."""
        settings = self.settings
        hold, fitted = await reserve(
            self.services.credit,
            job.who.practice_id,
            job.quote,
            key=_key(request, self.services.core.now_ms()),
            most_output_tokens=settings.most_output_tokens,
            ttl_s=settings.ttl_s,
            on_loss=settings.on_loss,
            origin=options,
            count=self.services.metrics.command,
        )
        if hold.over:
            detail = "This Idempotency-Key was used: its call was made, and answers aren't kept."
            raise Problem(409, "call_finished", detail)
        try:
            changes = job.asked.changes(job.upstream, job.name, fitted)
            if job.asked.as_text(bool(job.quote.measured)):
                changes["response_format"] = "json"
            return hold, *job.asked.written(changes)
        except BaseException:
            await hold.release()
            raise

    async def _forward(
        self, exchange: Exchange, job: _Job, hold: Hold, body: bytes, content_type: str
    ) -> None:
        """Ask the provider and pass its answer on; the call is over afterwards."""
        try:
            headers = pool.outgoing(job.upstream, exchange.request.headers, content_type)
            address = job.upstream.address(job.asked.endpoint, job.name)
            async with self.pool.ask(job.upstream, address, body, headers) as response:
                await self._pass_on(exchange, job, hold, response)
        except NeverSent as error:
            await hold.release()
            detail = "The AI provider can't be reached; nothing was charged. Try again later."
            raise UpstreamFailed("upstream_unreachable", detail) from error
        except Lost as error:
            await hold.lose()
            detail = "The AI provider's answer was lost; what it may have used is charged."
            raise UpstreamFailed("upstream_lost", detail) from error
        finally:
            # Cancelled, or broken in a way that nobody thought of: the call ends all the same.
            hold.abandon()

    async def _pass_on(
        self, exchange: Exchange, job: _Job, hold: Hold, response: aiohttp.ClientResponse
    ) -> None:
        caller = Caller(exchange.receive, exchange.send)
        passed = Relay(caller, response, hold, self.settings.drain_s)
        if response.status >= 300:
            await passed.refusal()
        elif response.content_type == "text/event-stream":
            watcher = Watcher(job.quote.count, hide_usage=job.asked.hides_usage)
            await passed.events(watcher)
        elif job.asked.endpoint == "speech":
            await passed.sound()
        else:
            await passed.answer(as_text=job.asked.as_text(bool(job.quote.measured)))

    async def close(self) -> None:
        """Close the connections to providers."""
        await self.pool.close()


def _bound(tariff: Tariff, asked: Asked, at_s: int, upstream: Upstream) -> Quote:
    return quote(
        tariff.book, asked.priced_as, asked.body, at_s,
        provider=upstream.provider, plan=tariff.plan, attached=asked.attachments(),
    )  # fmt: skip


def _device(request: Request) -> str:
    device = request.headers.get(DEVICE_HEADER, "")
    if device:
        checked_text("X-Device-Id", device, 200)
        refuse_secret("X-Device-Id", device)
    return device


def _key(request: Request, now_ms: int) -> str:
    """Give the caller's own key, or one for this request alone: a second try is a second call."""
    given = request.headers.get(KEY_HEADER)
    if given is None:
        return new_key("gateway-", now_ms)
    refuse_secret("Idempotency-Key", given)
    return key_of(given)
