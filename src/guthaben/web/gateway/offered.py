"""Which models the gateway offers: what the configuration names, and what providers list.

Law: a model is offered if an upstream answers for it and it has a price; the rest is left out, so
that nobody is shown what would be refused.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from starlette.datastructures import Headers

from guthaben.domain.price_book import PriceBook
from guthaben.errors import Refused
from guthaben.services.upstreams import Upstream
from guthaben.web.gateway import pool
from guthaben.web.gateway.gateway import Gateway
from guthaben.web.gateway.pool import Lost, NeverSent

log = logging.getLogger("guthaben.gateway")

_KEPT_S: Final = 60
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_MODELS: Final = 2_000
_CREATED: Final = 1_700_000_000


class Offered:
    """The list of models, asked for anew every minute."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept: tuple[int, list[str]] | None = None

    async def names(self) -> list[str]:
        """List the names of all models that are offered."""
        now_s = int(time.monotonic())
        if self._kept is None or now_s - self._kept[0] >= _KEPT_S:
            self._kept = (now_s, await self._ask())
        return self._kept[1]

    async def _ask(self) -> list[str]:
        upstreams = self._gateway.settings.upstreams
        found = set(upstreams.names())
        for upstream in upstreams.all:
            if any("*" in name for name in upstream.models):
                listed = await self._listed(upstream)
                found |= {name for name in listed if upstream.name_of(name) is not None}
        if not found:
            return []
        book = await self._gateway.services.credit.book()
        return sorted(name for name in found if self._has_price(book, name))

    async def _listed(self, upstream: Upstream) -> list[str]:
        headers = pool.outgoing(upstream, Headers(), "")
        try:
            address = f"{upstream.url}/models"
            async with self._gateway.pool.ask(upstream, address, None, headers) as response:
                body = await pool.whole(response, _MOST_BYTES)
            listed = json.loads(body)["data"]
            return [str(model["id"])[:200] for model in listed[:_MOST_MODELS]]
        except (NeverSent, Lost, ValueError, LookupError, TypeError):
            log.warning("a provider does not list its models")
            return []

    def _has_price(self, book: PriceBook, name: str) -> bool:
        upstream, _ = self._gateway.settings.upstreams.find(name)
        try:
            book.find(name, upstream.provider)
        except Refused:
            return False
        return True


def shown(name: str) -> dict[str, Any]:
    """Describe a model as OpenAI does."""
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "guthaben"}
