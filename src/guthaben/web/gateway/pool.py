"""Connections to AI providers: one pool each, no redirects, no cookies, no compression.

Law: what went wrong is told apart by whether the request can have reached the provider:
`NeverSent` if it can't, `Lost` if nobody knows. Only an allow-list of headers goes out or comes
back: never the caller's key, never a cookie, never what belongs to one connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from starlette.datastructures import Headers

from guthaben.errors import GuthabenError
from guthaben.services.upstreams import Upstream

_TO_PROVIDER: Final = (
    "accept", "openai-beta", "x-client-request-id", "traceparent", "tracestate",
)  # fmt: skip
_TO_CALLER: Final = frozenset(
    {
        "content-type", "content-disposition", "retry-after", "retry-after-ms", "x-request-id",
        "request-id", "apim-request-id", "x-ms-request-id", "x-ms-region", "openai-processing-ms",
        "openai-version", "openai-model", "x-should-retry",
    }
)  # fmt: skip
_PREFIXES_TO_CALLER: Final = ("x-ratelimit-",)
_CONNECT_S: Final = 5
_KEEP_ALIVE_S: Final = 30
_AGENT: Final = "guthaben-gateway"


class NeverSent(GuthabenError):
    """The request did not reach the provider: nothing can have been used."""


class Lost(GuthabenError):
    """Nobody knows what the provider made of the request."""


class Pool:
    """All connections of one event loop; opened at the first request."""

    def __init__(self, timeout_s: int) -> None:
        self._timeout_s = timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def _session(self, upstream: Upstream) -> aiohttp.ClientSession:
        found = self._sessions.get(upstream.name)
        if found is None:
            limits = aiohttp.ClientTimeout(
                total=self._timeout_s, sock_connect=_CONNECT_S, sock_read=self._timeout_s
            )
            found = self._sessions[upstream.name] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=limits,
                trust_env=False,
            )
        return found

    @asynccontextmanager
    async def ask(
        self, upstream: Upstream, address: str, body: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and give the answer as soon as its headers are there.

        Without a body it is a GET. A connection that can't be made is tried once more. Raises
        `NeverSent`, `Lost`.
        """
        response = await self._sent(upstream, address, body, headers)
        try:
            yield response
        finally:
            # Closing what was not read to its end tells the provider to stop.
            response.release() if response.content.at_eof() else response.close()

    async def _sent(
        self, upstream: Upstream, address: str, body: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        session = self._session(upstream)
        method = "GET" if body is None else "POST"
        for last in (False, True):
            try:
                return await session.request(
                    method, address, data=body, headers=headers, allow_redirects=False
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                if last:
                    raise NeverSent(type(error).__name__) from error
            except aiohttp.InvalidURL as error:
                raise NeverSent("InvalidURL") from error
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise Lost(type(error).__name__) from error
        raise AssertionError

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Give an answer's bytes as they come. Raises `Lost`."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise Lost(type(error).__name__) from error


async def whole(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Give all of an answer. Raises `Lost`, also where it is longer than that."""
    parts, size = [], 0
    async for chunk in chunks(response):
        size += len(chunk)
        if size > most_bytes:
            raise Lost("TooLong")
        parts.append(chunk)
    return b"".join(parts)


def outgoing(upstream: Upstream, headers: Headers, content_type: str) -> dict[str, str]:
    """Choose the headers that go to the provider."""
    found = {name: headers[name] for name in _TO_PROVIDER if name in headers}
    if content_type:
        found["content-type"] = content_type
    # Not all keep to it: what comes packed all the same is unpacked, and its header does not pass.
    return {**found, "accept-encoding": "identity", "user-agent": _AGENT, **upstream.headers()}


def incoming(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """Choose the headers that go to the caller."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in response.headers.items()
        if name.lower() in _TO_CALLER or name.lower().startswith(_PREFIXES_TO_CALLER)
    ]
