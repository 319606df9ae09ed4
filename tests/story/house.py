"""The whole house as processes: server, sandbox and the clients of the story."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import stripe

from tests.programs import (
    ROOT,
    STRIPE_KEY,
    WEBHOOK_SECRET,
    Control,
    Program,
    environment,
    free_port,
    guthaben,
    until,
)

PRACTICE = "prac_story"
CARD = "4242424242424242"


@dataclass
class House:
    """Starts, kills and asks; all over real HTTP."""

    folder: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self.sandbox_url = f"http://127.0.0.1:{self.port + 421}"
        self.database = f"sqlite:///{self.folder / 'story.db'}"
        self.settings = {
            "GUTHABEN_DATABASE_URL": self.database,
            "GUTHABEN_STRIPE_API_BASE": self.sandbox_url,
            "GUTHABEN_PUBLIC_URL": self.url,
            "STRIPE_SECRET_KEY": STRIPE_KEY,
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "AZA_AI_AUTO_TOPUP_ENABLED": "1",
        }
        self.sandbox = Program(
            self.folder / "sandbox.log",
            *("-m", "guthaben.sandbox", "--port", str(self.port + 421)),
            *("--state", str(self.folder / "sandbox.db"), "--webhook-secret", WEBHOOK_SECRET),
            *("--webhook-url", f"{self.url}/stripe/webhook", "--retry-base-ms", "100"),
        )
        self.control = Control(self.sandbox_url)
        self.sandbox.wait_for(f"{self.sandbox_url}/_control/clock")
        try:
            self.server = self.start()
        except AssertionError:
            self.sandbox.kill()
            raise
        self.http = self._client(PRACTICE, "gate", "credit")
        self.operator = self._client("*", "admin")

    # ---- processes

    def start(self) -> Program:
        """Start the server."""
        arguments = ("-m", "guthaben.cli", "serve", "--port", str(self.port))
        self.server = Program(self.folder / "server.log", *arguments, **self.settings)
        self.server.wait_for(f"{self.url}/readyz")
        return self.server

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command line on the same database."""
        return guthaben(*arguments, cwd=self.folder, **self.settings)

    def workers(self, calls: int, cost_nano_usd: int) -> "subprocess.Popen[str]":
        """Start another program that makes calls on the same database."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.story.workers", self.database, PRACTICE, str(calls),
             str(cost_nano_usd)],
            cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End everything."""
        self.http.close()
        self.operator.close()
        self.control.http.close()
        self.server.end(signal.SIGTERM)
        self.sandbox.end(signal.SIGTERM)

    def _client(self, practice_id: str, *scopes: str) -> httpx.Client:
        options = [part for scope in scopes for part in ("--scope", scope)]
        made = self.command("keys", "create", practice_id, "--test", "--json", *options)
        assert made.returncode == 0, made.stderr
        headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    # ---- asking

    def get(self, path: str) -> Any:
        """Ask the practice's API."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Change something by the practice's API."""
        answer = self.http.request(method, path, json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def balance(self) -> dict[str, str]:
        """Tell the balance."""
        found: dict[str, str] = self.get("/v1/balance")
        return found

    def topups(self, event_type: str, status: str = "succeeded") -> list[dict[str, Any]]:
        """List top-ups of a kind and status."""
        listed = self.get("/v1/topups?limit=100")["topups"]
        return [t for t in listed if (t["event_type"], t["status"]) == (event_type, status)]

    def wait_for_credit(self, credit_usd: str) -> None:
        """Wait until there is exactly so much bought credit."""
        until(
            lambda: self.balance()["credit_usd"] == credit_usd,
            20,
            f"a credit of {credit_usd} (it is {self.balance()})",
        )

    def use(self, cost_usd: str, key: str) -> None:
        """Make one AI call over HTTP."""
        body = {"amount_usd": cost_usd, "key": key, "model": "demo-model"}
        call = self.send("POST", "/v1/reservations", body)
        self.send("POST", f"/v1/reservations/{call['id']}/settle", {"cost_usd": cost_usd})

    def press(self, page_url: str, card: str = CARD, action: str = "pay") -> None:
        """Do on the hosted page what a person does in a browser."""
        with httpx.Client(timeout=20, trust_env=False) as browser:
            assert browser.get(page_url).status_code == 200
            typed = {"email": "payer@example.com", "card": card, "action": action}
            after = browser.post(page_url, data=typed)
            assert after.status_code == 303, after.text[-500:]
            assert after.headers["location"].startswith(self.url)

    def save_card(self, card: str) -> None:
        """Save a card through the hosted page, and wait until the server knows."""

        def customers() -> int:
            return len(self.control.look("/objects/payment_method")["data"])

        before, seen = customers(), self._methods()
        page = self.send("POST", "/v1/payment-method/setup", {})
        self.press(page["checkout_url"], card)
        assert customers() == before + 1
        until(lambda: self._methods() != seen, 15, "the new card")

    def _methods(self) -> list[Any]:
        return self.stored("SELECT payment_method_id FROM credit_provider_customer")

    def switch_on(self, cap_chf: str) -> None:
        """Agree to an automatic top-up of 30 CHF below half of the allowance."""
        body = {"enabled": True, "amount_chf": "30.00", "trigger_percent": 50, "cap_chf": cap_chf,
                "consent_text_version": "2026-11", "language": "en"}  # fmt: skip
        assert self.send("PUT", "/v1/auto-topup", body)["enabled"]

    def stored(self, question: str) -> list[Any]:
        """Look into the database itself."""
        with closing(sqlite3.connect(self.folder / "story.db")) as con:
            return con.execute(question).fetchall()

    def forget_cooldown(self) -> None:
        """Let the time between two automatic top-ups be over."""
        with closing(sqlite3.connect(self.folder / "story.db", timeout=10)) as con, con:
            con.execute("UPDATE credit_topup_settings SET cooldown_s = 0")
            con.execute("UPDATE credit_practice SET auto_topup_next_s = 0")

    def hook(self, body: bytes) -> int:
        """Send a signed webhook, as Stripe does."""
        signed = stripe.WebhookSignature.generate_signature_header(body.decode(), WEBHOOK_SECRET)
        headers = {"Stripe-Signature": signed}
        answer = httpx.post(
            f"{self.url}/stripe/webhook", content=body, headers=headers, trust_env=False, timeout=20
        )
        return answer.status_code

    def hook_all(self, bodies: list[bytes]) -> list[int]:
        """Send webhooks at the same time."""
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda body=body: answers.append(self.hook(body)))
            for body in bodies
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers
