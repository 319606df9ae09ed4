"""A bank for fault tests: services on one database, and the payment sandbox over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import stripe

from guthaben.errors import InsufficientCredit
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.auto_topup import Charger
from guthaben.services.guthaben import Guthaben
from guthaben.services.topups import AutoTopupChange, Topups
from guthaben.store import settings
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace
from tests.databases import Database
from tests.sandbox.harness import KEY, Receiver, Running, running, saved_card

PRACTICE, USD = "prac_1", 1_000_000_000
ZURICH = ZoneInfo("Europe/Zurich")
POOR = "4000000000009995"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    receiver = Receiver()
    with running(tmp_path_factory.mktemp("stripe") / "sandbox.db", receiver) as sandbox:
        yield sandbox
    receiver.close()


@pytest.fixture
def sandbox(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name, value in (("api_base", server.url), ("api_key", KEY), ("max_network_retries", 0)):
        monkeypatch.setattr(stripe, name, value)
    monkeypatch.setattr(stripe, "default_http_client", stripe.RequestsClient(timeout=5))
    yield server
    server.forget()


class Bank:
    """Services on one database, several if need be, and a clock that can be moved."""

    def __init__(self, database: Database, sandbox: Running) -> None:
        self.url, self.sandbox = database.url, sandbox
        self.ahead_s = 0
        self.opened: list[tuple[Guthaben, Charger]] = []
        self.credit, self.charger = self.open()

    def open(self, *, timeout_s: float = 10) -> tuple[Guthaben, Charger]:
        """Open the database as another process would."""
        charger = Charger(StripeGateway(KEY, api_base=self.sandbox.url, timeout_s=timeout_s))
        credit = Guthaben.open(self.url, clock_ms=self.now_ms, on_claim=charger.claimed)
        charger.attach(credit.core.store)
        self.opened.append((credit, charger))
        return credit, charger

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_s * 1000

    def wait(self, seconds: int) -> None:
        """Let time pass, here and at the provider."""
        self.ahead_s += seconds
        self.sandbox.control("/clock", {"seconds": seconds})

    def arm(self, card: str = "4242424242424242", **change: Any) -> str:
        """Save a card at the provider, and agree."""
        customer, method = saved_card(self.sandbox, "4242424242424242")
        if card == POOR:
            self.sandbox.control(
                f"/payment_methods/{method}/outcome", {"outcome": "insufficient_funds"}
            )

        def save(space: Workspace) -> None:
            number, mode = space.practice_no(PRACTICE), space.practice(PRACTICE).mode
            row = TopupSettingsRow(customer_id=customer, payment_method_id=method, cooldown_s=0)
            settings.save_settings(space.cursor, number, mode, row, space.now_s)

        self.credit.core.store.run(save)
        given = {"trigger_below_nano_usd": USD, "consent_text_version": "2026-11", **change}
        topups = Topups(self.credit, StripeGateway(KEY, api_base=self.sandbox.url))
        topups.change_settings(PRACTICE, AutoTopupChange(True, **given))
        return method

    def refused(self, credit: Guthaben, key: str) -> None:
        """Make a call that lacks credit."""
        with pytest.raises(InsufficientCredit):
            credit.reserve(PRACTICE, USD, key=key)

    def events(self) -> list[tuple[str, str, int]]:
        """Status, reason and what is open of each attempt."""
        return [
            tuple(row)
            for row in self.credit.core.ask(
                lambda cur: cur.execute(
                    "SELECT status, reason, open_minor FROM credit_event ORDER BY event_no"
                ).fetchall()
            )
        ]

    def until_ended(self, number: int = 1, *, with_janitor: bool = False) -> None:
        """Wait until so many attempts have an outcome; the janitor sees to what is left to it."""
        end = time.monotonic() + 20
        while sum(one[0] not in ("pending", "unknown") for one in self.events()) < number:
            assert time.monotonic() < end, self.events()
            if with_janitor:
                self.opened[0][1].resolve_waiting()
            time.sleep(0.01)


@pytest.fixture
def bank(database: Database, sandbox: Running) -> Iterator[Bank]:
    made = Bank(database, sandbox)
    yield made
    for _credit, charger in made.opened:
        charger.stop()
    found = made.credit.verify()
    for credit, _charger in made.opened:
        credit.close()
    assert found.ok, found.problems
