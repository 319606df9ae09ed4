"""A server with a clock of its own, and a client that every answer is judged for."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from guthaben.services.guthaben import Guthaben
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from tests.cycles.protocol import Judged
from tests.databases import Database
from tests.store.bank import Clock

TENANT = "acme"
BEGIN_MS = 1_790_000_000_000
JSON = dict[str, Any]


def usd(amount: int, unit: str = "USD_MICROCENTS") -> JSON:
    """Write an amount."""
    return {"unit": unit, "amount": amount}


def planned(key: str, estimate: int = 1_000, **options: Any) -> JSON:
    """Write what a reservation asks for."""
    return {
        "idempotency_key": key,
        "subject": {"tenant": TENANT, "agent": "bot"},
        "action": {"kind": "llm.completion", "name": "gpt-4o-mini"},
        "estimate": usd(estimate),
        **options,
    }


def told(key: str, actual: int = 1_000, **options: Any) -> JSON:
    """Write an event."""
    body = planned(key, **options)
    del body["estimate"]
    return {**body, "actual": usd(actual)}


class Server:
    """Services on a database of their own, and requests to them."""

    def __init__(self, url: str) -> None:
        self.clock = Clock(BEGIN_MS)
        guthaben = Guthaben.open(url, clock_ms=self.clock)
        self.services = Services(guthaben, None)
        self.guthaben = guthaben
        self.app = Judged(create_app(self.services))
        self.clients: list[httpx.AsyncClient] = []
        self.given = 0

    def key(self, tenant: str | None = TENANT, *scopes: str) -> str:
        """Make an API key."""
        return self.services.keys.create(tenant, scopes or ("gate",), mode="test").key

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Make a client; without a key, one of the tenant's."""
        sent = {"X-Cycles-API-Key": self.key() if key is None else key, **headers}
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://test/cycles",
            headers=sent,
        )
        self.clients.append(client)
        return client

    def fund(self, microcents: int, tenant: str = TENANT) -> None:
        """Give credit."""
        self.given += 1
        self.guthaben.grant(tenant, microcents * 10, key=f"given-{self.given}")

    def policy(self, tenant: str = TENANT, **options: Any) -> None:
        """Change how a practice is treated."""
        self.guthaben.set_policy(tenant, **options)

    async def close(self) -> None:
        """End, and hear the judge."""
        for client in self.clients:
            await client.aclose()
        if not self.guthaben.core.store._mine()[0].closed:
            verified = self.guthaben.verify()
            assert verified.ok, verified.problems
        self.guthaben.close()
        assert not self.app.problems, self.app.problems[:5]


@pytest.fixture
async def server(database: Database) -> AsyncIterator[Server]:
    """Serve a database; at the end its books are verified and no answer may break the protocol."""
    served = Server(database.url)
    yield served
    await served.close()
