"""A town for fault tests: servers on one database, the payment sandbox, one clock for all."""

from __future__ import annotations

import hmac
import json
import os
import struct
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from guthaben import Guthaben
from guthaben.services.api_keys import ApiKeys
from tests.databases import Database
from tests.programs import (
    ROOT,
    STRIPE_KEY,
    WEBHOOK_SECRET,
    Control,
    Program,
    free_port,
    until,
)

ZURICH = ZoneInfo("Europe/Zurich")
LAST_SECOND_S = int(datetime(2027, 3, 31, 23, 59, 59, tzinfo=ZURICH).timestamp())


class Town:
    """Servers on one database and the sandbox; their clock stands until it is moved."""

    def __init__(
        self, folder: Path, database: Database, practices: tuple[str, ...], servers: int = 2
    ) -> None:
        self.folder, self.database = folder, database
        self.clock = folder / "clock"
        self.clock.write_bytes(bytes(8))
        self.set_clock(LAST_SECOND_S - 200)
        self.ports = [free_port() for _ in range(servers)]
        sandbox_port = self.ports[0] + 421
        self.sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.settings = {
            "GUTHABEN_DATABASE_URL": database.url,
            "GUTHABEN_STRIPE_API_BASE": self.sandbox_url,
            "GUTHABEN_PUBLIC_URL": self.urls[0],
            "STRIPE_SECRET_KEY": STRIPE_KEY,
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "AZA_AI_AUTO_TOPUP_ENABLED": "1",
        }
        with Guthaben.open(self.settings["GUTHABEN_DATABASE_URL"]) as credit:
            keys = ApiKeys(credit.core.store)
            scopes = ("gate", "credit")
            self.keys = {p: keys.create(p, scopes, mode="test").key for p in practices}
        script = str(ROOT / "tests" / "faults" / "clocked_server.py")
        self.programs = [
            Program(
                folder / "sandbox.log",
                *("-m", "guthaben.sandbox", "--port", str(sandbox_port)),
                *("--state", str(folder / "sandbox.db"), "--webhook-secret", WEBHOOK_SECRET),
            )
        ]
        for port in self.ports:
            log = folder / f"server-{port}.log"
            serve = (script, str(self.clock), "serve", "--port", str(port))
            self.programs.append(Program(log, *serve, **self.settings))
        self.control = Control(self.sandbox_url)
        try:
            self.programs[0].wait_for(f"{self.sandbox_url}/_control/clock")
            for program, url in zip(self.programs[1:], self.urls, strict=True):
                program.wait_for(f"{url}/readyz")
        except AssertionError:
            self.close()
            raise
        ahead_s = LAST_SECOND_S - self.control.look("/clock")["now_s"]
        self.control.do("/clock", {"seconds": ahead_s})

    def close(self) -> None:
        """End everything."""
        self.control.http.close()
        for program in reversed(self.programs):
            program.end()

    def set_clock(self, at_s: int) -> None:
        """Move the servers' clock."""
        self.now_s = at_s
        with self.clock.open("r+b") as file:
            os.pwrite(file.fileno(), struct.pack("<q", at_s * 1000), 0)

    def wait(self, found: Callable[[], object], what: str) -> None:
        """Let time pass, a second at a look, until something is so: jobs run by the clock."""

        def look() -> object:
            self.set_clock(min(self.now_s + 1, LAST_SECOND_S))
            return found()

        until(look, 60, what)

    def client(self, practice_id: str, number: int = 0) -> httpx.Client:
        """Speak to one of the servers as a practice."""
        headers = {"Authorization": f"Bearer {self.keys[practice_id]}"}
        return httpx.Client(
            base_url=self.urls[number % len(self.urls)],
            headers=headers,
            timeout=60,
            trust_env=False,
        )

    def stored(self, question: str, *values: str) -> list[tuple[Any, ...]]:
        """Look into the database itself."""
        return [tuple(row.values()) for row in self.database.rows(question, *values)]

    def change(self, statement: str, *values: str) -> None:
        """Change the database behind the servers' back."""
        self.database.change(statement, *values)

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Look at the sandbox's objects."""
        found: list[dict[str, Any]] = self.control.look(f"/objects/{kind}")["data"]
        return found

    def press(self, page_url: str) -> None:
        """Pay, or save a card, as a person does."""
        with httpx.Client(timeout=20, trust_env=False) as browser:
            typed = {"email": "payer@example.com", "card": "4242424242424242", "action": "pay"}
            assert browser.post(page_url, data=typed).status_code == 303

    def tell(self, body: bytes, number: int = 0) -> int:
        """Tell one of the servers of an event."""
        url = f"{self.urls[number % len(self.urls)]}/stripe/webhook"
        headers = self.signed(body)
        return httpx.post(
            url, content=body, headers=headers, timeout=60, trust_env=False
        ).status_code

    def tell_all(self) -> None:
        """Tell of everything that happened at the provider: its own deliveries go by real time."""
        for number, event in enumerate(self.objects("event")):
            assert self.tell(json.dumps(event).encode(), number) == 200
        news = "SELECT 1 FROM credit_inbox WHERE status = 'new'"
        self.wait(lambda: not self.stored(news), "that every event is applied")

    def signed(self, body: bytes) -> dict[str, str]:
        """Sign a webhook by the servers' clock."""
        at_s = LAST_SECOND_S
        message = f"{at_s}.".encode() + body
        seal = hmac.digest(WEBHOOK_SECRET.encode(), message, "sha256").hex()
        return {"Stripe-Signature": f"t={at_s},v1={seal}", "Content-Type": "application/json"}

    def balanced(self) -> None:
        """Make sure that the journal explains everything."""
        with Guthaben.open(self.settings["GUTHABEN_DATABASE_URL"]) as credit:
            found = credit.verify()
        assert found.ok, found.problems
