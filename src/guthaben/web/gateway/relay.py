"""Relaying an answer: whole, piece by piece, or as a stream of events; and ending its call.

Law: the call is ended before the last byte of the answer goes out, so that whoever has an answer
sees its cost in the balance. A caller who leaves does not stop the reading: the stream is read on
for a while to hear its usage, then cut and billed by what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import aiohttp
from starlette.types import Receive, Send

from guthaben.errors import InvalidInput
from guthaben.services.audio_length import AUDIO_TOKENS_PER_S, audio_length_us
from guthaben.web.gateway import bodies, pool
from guthaben.web.gateway.errors import UpstreamFailed
from guthaben.web.gateway.holds import Hold
from guthaben.web.gateway.pool import Lost
from guthaben.web.gateway.streams import Splitter, Watcher, error_event

UNKNOWN: Final = frozenset({408, 409, 499, 502, 504, *range(520, 528)})
"""What stands between us and the provider answers so: nobody knows what the provider did."""
_OUR_KEY: Final = frozenset({401, 403})
_MOST_ANSWER: Final = 256 * 1024 * 1024
_MOST_ERROR: Final = 1024 * 1024
_MOST_SOUND: Final = 32 * 1024 * 1024
_BROKEN: Final = {
    "error": {
        "message": "The answer broke off. What was used is charged; try again.",
        "type": "server_error",
        "param": None,
        "code": "upstream_lost",
    }
}


class Caller(NamedTuple):
    """The caller's connection."""

    receive: Receive
    send: Send


class Relay:
    """One answer on its way from a provider to a caller."""

    def __init__(
        self, caller: Caller, response: aiohttp.ClientResponse, hold: Hold, drain_s: int
    ) -> None:
        self._caller = caller
        self._response = response
        self._hold = hold
        self._drain_s = drain_s

    async def refusal(self) -> None:
        """Pass on that the provider refused; it used nothing, unless nobody knows."""
        status = self._response.status
        body = await pool.whole(self._response, _MOST_ERROR)
        await (self._hold.lose() if status in UNKNOWN else self._hold.release())
        if status in _OUR_KEY:
            raise UpstreamFailed("upstream_refused", "The provider does not let this server in.")
        if status < 400:
            raise UpstreamFailed("upstream_refused", "The provider answered with a redirect.")
        await self._whole(body, status)

    async def answer(self, *, as_text: bool) -> None:
        """Pass on an answer that is read whole."""
        body = await pool.whole(self._response, _MOST_ANSWER)
        said = await _read(body) if self._is_json() else None
        await self._hold.bill(said)
        if as_text and isinstance(said, dict):
            body = f"{said.get('text', '')}\n".encode()
            await self._whole(body, 200, b"text/plain; charset=utf-8")
        else:
            await self._whole(body, 200)

    async def sound(self) -> None:
        """Pass speech on as it comes, and bill it by its length where it is sold by that."""
        heard: list[bytes] = []
        size, rest = 0, b""
        await self._start(200)
        async for chunk in pool.chunks(self._response):
            size += len(chunk)
            if size <= _MOST_SOUND and not self._hold.quote.measured:
                heard.append(chunk)
            if rest:
                await self._part(rest)
            rest = chunk
        if heard and size <= _MOST_SOUND:
            length_us = await asyncio.to_thread(_length_us, b"".join(heard))
            self._hold.quote = self._hold.quote.spoken(length_us, AUDIO_TOKENS_PER_S)
        await self._hold.bill(None)
        await self._part(rest, last=True)

    async def events(self, watcher: Watcher) -> None:
        """Pass a stream of events on."""
        gone = asyncio.ensure_future(_gone(self._caller.receive))
        await self._start(200)
        try:
            await self._events(watcher, gone)
        except (Lost, TimeoutError, ValueError):
            self._hold.heard(watcher.seen.tokens)
            if watcher.said is not None:
                await self._hold.bill(watcher.said)
            await self._hold.lose()
            if not gone.done():
                await self._part(error_event(_BROKEN))
        except asyncio.CancelledError:
            self._hold.heard(watcher.seen.tokens)
            raise
        finally:
            gone.cancel()
        await self._part(b"", last=True)

    async def _events(self, watcher: Watcher, gone: asyncio.Future[None]) -> None:
        splitter = Splitter()
        async with asyncio.timeout(None) as limit:
            gone.add_done_callback(self._limiting(limit))
            async for chunk in pool.chunks(self._response):
                out = b"".join([watcher.look(event) for event in splitter.feed(chunk)])
                if watcher.done:
                    await self._ended(watcher)
                if out and not gone.done():
                    await self._part(out)
        rest = splitter.rest()
        if rest:
            rest = watcher.look(rest)
        if not (watcher.done or watcher.said is not None or watcher.failed):
            raise Lost("NoEnd")
        await self._ended(watcher)
        if rest and not gone.done():
            await self._part(rest)

    def _limiting(self, limit: asyncio.Timeout) -> Callable[[asyncio.Future[None]], None]:
        """Let a stream whose caller has left be read on only for so long."""
        loop = asyncio.get_running_loop()

        def left(gone: asyncio.Future[None]) -> None:
            if not gone.cancelled():
                with contextlib.suppress(RuntimeError):  # the stream has ended meanwhile
                    limit.reschedule(loop.time() + self._drain_s)

        return left

    async def _ended(self, watcher: Watcher) -> None:
        """End the call of a stream that came to its end."""
        if self._hold.over:
            return
        self._hold.heard(watcher.seen.tokens)
        if watcher.used_nothing:
            await self._hold.release()
        else:
            await self._hold.bill(watcher.said)

    # ---- sending

    def _is_json(self) -> bool:
        return self._response.content_type.endswith("json")

    async def _start(
        self, status: int, length: int | None = None, content_type: bytes = b""
    ) -> None:
        headers = pool.incoming(self._response)
        if content_type:
            headers = [pair for pair in headers if pair[0] != b"content-type"]
            headers.append((b"content-type", content_type))
        headers.append((b"x-guthaben-call", self._hold.id.encode()))
        headers.append((b"cache-control", b"no-store"))
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self._caller.send(start)

    async def _part(self, body: bytes, *, last: bool = False) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": not last}
        await self._caller.send(message)

    async def _whole(self, body: bytes, status: int, content_type: bytes = b"") -> None:
        await self._start(status, len(body), content_type)
        await self._part(body, last=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(body: bytes) -> Any:
    try:
        if len(body) > bodies.LONG_BYTES:
            return await asyncio.to_thread(json.loads, body)
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _length_us(sound: bytes) -> int:
    try:
        return audio_length_us(sound)
    except InvalidInput:
        return 0
