"""How the official SDK speaks to something in this process: one request, taken apart.

Law: nothing here waits or sleeps; the SDK's own retries follow at once. What becomes of a request
is the subclass's to say.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import stripe

Said = tuple[str, int, Mapping[str, str]]
"""An answer's body, status and headers."""


class SdkWire(stripe.HTTPClient):
    """A client of HTTP for the SDK that opens no connection."""

    @abstractmethod
    def carry(
        self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]
    ) -> Said:
        """Carry one request and its answer; raises what a network raises."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> Said:
        """Take a request of the SDK apart and carry it."""
        parts = urlsplit(url)
        body = post_data.encode() if isinstance(post_data, str) else post_data or b""
        return self.carry(method.upper(), parts.path, parts.query, body, headers or {})

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[Any, int, Mapping[str, str]]:
        """Do the same; nothing here waits."""
        return self.request(method, url, headers, post_data)

    def _sleep_time_seconds(self, num_retries: int) -> float:
        return 0

    async def sleep_async(self, secs: float) -> None:
        """Don't."""

    def close(self) -> None:
        """Nothing is open."""

    async def close_async(self) -> None:
        """Nothing is open."""
