"""A server in this process, on a database of its own, with a provider that only pretends."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from guthaben.errors import GuthabenError
from guthaben.payments.facts import checkout_facts
from guthaben.payments.gateway import (
    CheckoutFacts,
    CheckoutOrder,
    HostedPage,
    SetupOrder,
    SubscriptionFacts,
    SubscriptionOrder,
)
from guthaben.payments.subscriptions import subscription_facts
from guthaben.services.topups import AutoTopupChange
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from tests.databases import Database

SECRET = "whsec_of_the_web_tests"


@dataclass
class PretendedGateway:
    """Makes pages, and breaks when told to; everything else is not to be asked."""

    livemode = False
    orders: list[Any] = field(default_factory=list)
    breaks_with: GuthabenError | None = None
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def nothing_between(self, _created_from_s: int, _created_before_s: int) -> Iterator[Any]:
        return iter(())

    payments_between = charges_between = refunds_between = nothing_between
    disputes_between = events_between = balance_between = nothing_between

    def create_checkout(self, order: CheckoutOrder) -> HostedPage:
        return self._page(order)

    def create_setup(self, order: SetupOrder) -> HostedPage:
        return self._page(order)

    def retrieve_checkout(self, session_id: str) -> CheckoutFacts:
        return self._facts(session_id, "open")

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        return self._facts(session_id, "expired")

    def _facts(self, session_id: str, status: str) -> CheckoutFacts:
        facts = {"id": session_id, "mode": "payment", "status": status, "payment_status": "unpaid"}
        return checkout_facts(facts)

    def create_subscription_checkout(self, order: SubscriptionOrder) -> HostedPage:
        return self._page(order)

    def retrieve_subscription(self, subscription_id: str) -> SubscriptionFacts:
        if self.breaks_with is not None:
            raise self.breaks_with
        return subscription_facts(self.subscriptions[subscription_id])

    def _page(self, order: Any) -> HostedPage:
        if self.breaks_with is not None:
            raise self.breaks_with
        self.orders.append(order)
        number = len(self.orders)
        return HostedPage(f"cs_test_{number:024d}", f"https://pay.example.com/{number}")


@dataclass
class Web:
    """A served database, and clients for it."""

    services: Services
    app: FastAPI
    gateway: PretendedGateway
    database: Database
    opened: list[httpx.AsyncClient] = field(default_factory=list)

    def client(
        self,
        practice_id: str | None = "prac_1",
        scopes: tuple[str, ...] = ("gate", "credit"),
        **headers: str,
    ) -> httpx.AsyncClient:
        """Return a client with a new key; `scopes` empty: without any."""
        if scopes:
            made = self.services.keys.create(practice_id, scopes, mode="test")
            headers = {"Authorization": f"Bearer {made.key}", **headers}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
        self.opened.append(client)
        return client

    def give(self, amount_nano_usd: int = 10_000_000_000, practice_id: str = "prac_1") -> None:
        """Give credit."""
        key = f"given-{amount_nano_usd}"
        self.services.guthaben.grant(practice_id, amount_nano_usd, key=key)

    def seq(self, practice_id: str = "prac_1") -> tuple[int, int, int]:
        """Tell how much has happened: transfers, calls, top-ups."""
        guthaben = self.services.guthaben
        return (
            len(guthaben.statement(practice_id).entries),
            len(guthaben.calls(practice_id)),
            len(guthaben.topups(practice_id)),
        )

    def save_card(self, practice_id: str = "prac_1") -> None:
        """Save a card as the provider's event would."""
        from guthaben.store import settings
        from guthaben.store.workspace import Workspace

        def save(space: Workspace) -> None:
            number = space.practice_no(practice_id)
            row = settings.TopupSettingsRow(
                customer_id="cus_1234567890abcd", payment_method_id="pm_1234567890abcd"
            )
            mode = space.practice(practice_id).mode
            settings.save_settings(space.cursor, number, mode, row, space.now_s)

        self.services.core.store.run(save)

    def subscribe(self, practice_id: str = "prac_1", **fields: Any) -> dict[str, Any]:
        """Let the provider have a subscription of 30 days to `basic_monthly`, begun now."""
        now_s = int(time.time())
        item = {
            "current_period_start": now_s, "current_period_end": now_s + 2_592_000, "quantity": 1,
            "price": {"lookup_key": "basic_monthly"},
        }  # fmt: skip
        made = {
            "id": "sub_1234567890abcdef", "status": "active", "livemode": False, "created": now_s,
            "customer": "cus_1234567890abcd", "metadata": {"practice_id": practice_id},
            "items": {"data": [item], "has_more": False}, **fields,
        }  # fmt: skip
        self.gateway.subscriptions[made["id"]] = made
        return made

    def switch_on(self, practice_id: str = "prac_1") -> None:
        """Switch the automatic top-up on with a consent."""
        self.save_card(practice_id)
        change = AutoTopupChange(True, 3_000, 5, 0, 9_000, "2026-11", "en", "test")
        self.services.payments.topups.change_settings(practice_id, change)


@pytest.fixture
def open_web(database: Database) -> Callable[..., Web]:
    """Open a server's services on a database of their own."""

    def make(gateway: Any = None, **options: Any) -> Web:
        gateway = gateway or PretendedGateway()
        services = Services.open(
            database.url,
            gateway=gateway,
            webhook_secrets=lambda: (SECRET,),
            livemode=False,
            charges_allowed=lambda: False,
            public_url="https://credit.example.com",
            **options,
        )
        return Web(services, create_app(services), gateway, database)

    return make


@pytest.fixture
async def web(open_web: Callable[..., Web]) -> AsyncIterator[Web]:
    """Serve a database."""
    served = open_web()
    async with served.services:
        yield served
        for client in served.opened:
            await client.aclose()
