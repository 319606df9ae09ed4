"""A house to test in: one database in a file, a fake provider, and the services on top of them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import stripe

from guthaben.domain.commands import OpenEvent, Outcome
from guthaben.domain.topup import CreditEvent
from guthaben.payments.facts import checkout_facts
from guthaben.services import auto_topup
from guthaben.services.auto_topup import Charger
from guthaben.services.guthaben import Guthaben
from guthaben.services.purchases import (
    PaymentNotice,
    PurchaseResult,
    credit_payment,
    fail_purchase,
)
from guthaben.services.topups import AutoTopupChange, Topups
from guthaben.services.webhooks import Inbox
from guthaben.store import settings, topups
from guthaben.store.session import Cursor
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.databases import Database
from tests.services.fakes import FakeGateway

T = TypeVar("T")

USD = 1_000_000_000
TEN_USD = 10 * USD
CHF_30 = 3_000
SECRET = "whsec_of_the_tests"
NOON = 1_762_945_200  # 12 November 2025, 12:00 in Zurich
COMPLETED = "checkout.session.completed"
SUCCEEDED = "payment_intent.succeeded"
INTENT = {"id": "pi_1", "object": "payment_intent"}
PRACTICE = "prac_1"
OTHER = "prac_2"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at_s: int = NOON) -> None:
        self.ms = at_s * 1000

    def __call__(self) -> int:
        return self.ms

    @property
    def at_s(self) -> int:
        """The instant in seconds."""
        return self.ms // 1000

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.ms += seconds * 1000

    def set(self, at_s: int) -> None:
        """Go to an instant."""
        self.ms = at_s * 1000


class House:
    """Everything on one database. `claims` holds what the gate's watch claimed."""

    def __init__(
        self, database: Database, *, livemode: bool | None = True, watching: bool = True
    ) -> None:
        self.database = database
        self.clock = Clock()
        self.gateway = FakeGateway(database, livemode=livemode is not False)
        self.claims: list[tuple[str, Outcome]] = []
        self.guthaben = self.open(watching=watching)
        self.topups = Topups(self.guthaben, self.gateway, livemode=livemode)
        self.inbox = Inbox(
            self.guthaben, self.gateway, secrets=lambda: (SECRET,), livemode_expected=livemode
        )
        self.charger = Charger(self.gateway)
        self.charger.attach(self.store)
        self._numbers = itertools.count(1)

    def open(self, *, watching: bool = False) -> Guthaben:
        """Open the database once more, as another process would."""
        heard = (lambda *claim: self.claims.append(claim)) if watching else None
        return Guthaben.open(self.database.url, clock_ms=self.clock, on_claim=heard)

    @property
    def store(self) -> Store:
        """The store below."""
        return self.guthaben.core.store

    def close(self) -> None:
        """End, and see that the journal explains everything."""
        self.charger.stop()
        if not self.store._mine()[0].closed:
            found = self.guthaben.verify()
            self.guthaben.close()
            assert found.ok, found.problems

    # ---- looking

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Ask the database through a connection of our own."""
        return self.database.rows(sql, *values)

    def change(self, sql: str, *values: Any) -> None:
        """Change the database behind the store's back."""
        self.database.change(sql, *values)

    def events(self, practice_id: str = PRACTICE) -> list[dict[str, Any]]:
        """Credit events of a practice, oldest first."""
        return self.rows(
            "SELECT * FROM credit_event WHERE practice_no = (SELECT practice_no FROM"
            " credit_practice WHERE practice_id = ?) ORDER BY event_no",
            practice_id,
        )

    def event(self, practice_id: str = PRACTICE) -> dict[str, Any]:
        """The one credit event of a practice."""
        (found,) = self.events(practice_id)
        return found

    def statuses(self, practice_id: str = PRACTICE) -> list[str]:
        """Of all credit events."""
        return [row["status"] for row in self.events(practice_id)]

    def alarms(self, code: str | None = None) -> list[str]:
        """Codes of the alarms that were raised."""
        found = [row["code"] for row in self.rows("SELECT code FROM credit_alarm")]
        return [name for name in found if code in (None, name)]

    def letters(self) -> dict[str, dict[str, Any]]:
        """The inbox, by event id."""
        rows = self.rows("SELECT * FROM credit_inbox")
        return {row["provider_event_id"]: row for row in rows}

    def credit(self, practice_id: str = PRACTICE) -> int:
        """Bought and given credit that is free."""
        return self.guthaben.balance(practice_id).credit_nano_usd

    def figures(self, practice_id: str = PRACTICE) -> tuple[int, int, int]:
        """Available, held, debt."""
        found = self.guthaben.balance(practice_id)
        return found.available_nano_usd, found.held_nano_usd, found.debt_nano_usd

    # ---- purchases

    def run(self, work: Callable[[Workspace], T]) -> T:
        """Do work in one transaction."""
        return self.store.run(work)

    def open_purchase(self, topup_id: str = "tu_1", **fields: Any) -> CreditEvent:
        """Commit a pending purchase of 30 CHF for 10 USD."""
        given: dict[str, Any] = {
            "event_type": "topup_purchase", "amount_nano_usd": TEN_USD, "price_minor": CHF_30,
            "livemode": True, "session_id": "cs_1", **fields,
        }  # fmt: skip
        practice_id = given.pop("practice_id", PRACTICE)
        event = CreditEvent(
            0, given.pop("event_type"), given.pop("status", "pending"),
            given.pop("amount_nano_usd"), topup_id=topup_id, event_at_s=self.clock.at_s,
            recorded_at_s=self.clock.at_s, **given,
        )  # fmt: skip
        done = self.store.execute(practice_id, OpenEvent(event)).event
        assert done is not None
        return done

    def paid(self, **changes: Any) -> PurchaseResult:
        """Tell of a payment that succeeded."""
        told = notice_of(**changes)
        return self.run(lambda space: credit_payment(space, told))

    def failed(self, **changes: Any) -> PurchaseResult:
        """Tell of a payment that did not succeed."""
        status = changes.pop("status", "failed")
        told = notice_of(**changes)
        return self.run(lambda space: fail_purchase(space, told, status=status))

    # ---- webhooks

    def envelope(self, kind: str, about: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Make an event of the provider's."""
        return {
            "id": f"evt_{next(self._numbers)}", "object": "event", "type": kind,
            "created": self.clock.at_s, "livemode": self.gateway.livemode,
            "api_version": "2026-10-28", "data": {"object": about}, **fields,
        }  # fmt: skip

    def post(self, event: dict[str, Any] | bytes, secret: str = SECRET) -> bool:
        """Sign an event and let the inbox receive it."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.inbox.receive(body, sign(body, self.clock.at_s, secret))

    def tell(self, kind: str, about: dict[str, Any], **fields: Any) -> str:
        """Receive an event and apply it; give the status and the reason it ended with."""
        event = self.envelope(kind, about, **fields)
        if about.get("object") == "checkout.session" and about.get("id"):
            self.gateway.pages[about["id"]] = checkout_facts(about)
        self.post(event)
        self.inbox.work_once()
        row = self.letters()[event["id"]]
        return f"{row['status']}:{row['reason']}"

    # ---- the card

    def set_up(self, card: str, at_s: int) -> str:
        """Tell of a card that was saved at that moment."""
        about = {
            "id": f"seti_{card}", "object": "setup_intent", "status": "succeeded",
            "customer": "cus_1", "payment_method": f"pm_{card}",
            "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": PRACTICE},
        }  # fmt: skip
        return self.tell("setup_intent.succeeded", about, created=at_s)

    def card(self) -> str | None:
        """The card that would be charged."""
        rows = self.rows("SELECT payment_method_id FROM credit_provider_customer")
        return str(rows[0]["payment_method_id"]) if rows else None

    # ---- the automatic top-up

    def arm(self, practice_id: str = PRACTICE, **fields: Any) -> None:
        """Save a card and switch the automatic top-up on, with the customer's consent."""
        self.save_card(practice_id)
        given: dict[str, Any] = {
            "enabled": True, "trigger_below_nano_usd": USD,
            "consent_text_version": "2026-11", **fields,
        }  # fmt: skip
        self.topups.change_settings(practice_id, AutoTopupChange(**given))

    def save_card(self, practice_id: str = PRACTICE, payment_method_id: str = "pm_1") -> None:
        """Keep a card as a finished set-up would."""

        def work(space: Workspace) -> None:
            number, mode = space.practice_no(practice_id), space.practice(practice_id).mode
            row = settings.load_settings(space.cursor, number, mode) or TopupSettingsRow()
            row = row._replace(customer_id="cus_1", payment_method_id=payment_method_id)
            settings.save_settings(space.cursor, number, mode, row, space.now_s)

        self.run(work)

    def settings_row(self, practice_id: str = PRACTICE) -> dict[str, Any]:
        """The stored settings."""
        (row,) = self.rows(
            "SELECT s.* FROM credit_topup_settings s JOIN credit_practice p USING (practice_no)"
            " WHERE p.practice_id = ?",
            practice_id,
        )
        return row

    def claim(self, practice_id: str = PRACTICE) -> CreditEvent:
        """Claim an attempt that must be granted."""
        outcome = auto_topup.claim(self.store.run, practice_id)
        assert outcome.applied, outcome.reason
        assert outcome.event is not None
        return outcome.event

    def why_not(self, practice_id: str = PRACTICE) -> str:
        """Claim an attempt that must not be granted; tell why."""
        outcome = auto_topup.claim(self.store.run, practice_id)
        assert not outcome.applied, outcome
        assert outcome.event is None
        return outcome.reason

    def charge(
        self, event: CreditEvent, practice_id: str = PRACTICE, **more: Any
    ) -> auto_topup.ChargeReport:
        """Charge a claimed attempt."""
        return auto_topup.charge_claimed(self.store.run, self.gateway, practice_id, event, **more)

    def attempt(self, practice_id: str = PRACTICE) -> topups.Located:
        """The newest automatic attempt, wherever it stands."""

        def question(cursor: Cursor) -> topups.Located:
            row = cursor.execute(
                "SELECT topup_id FROM credit_event e JOIN credit_practice p USING (practice_no)"
                " WHERE practice_id = ? AND idempotency_key <> '' ORDER BY event_no DESC LIMIT 1",
                (practice_id,),
            ).fetchone()
            found = topups.locate_event(cursor, "topup_id", row[0])
            assert found is not None
            return found

        return self.store.read(question)

    def resolve(self, practice_id: str = PRACTICE) -> bool:
        """Resolve the newest attempt."""
        located = self.attempt(practice_id)
        return auto_topup.resolve(self.store.run, self.gateway, located, self.clock.at_s)


def sign(body: bytes, at_s: int, secret: str = SECRET) -> str:
    """Sign a body as the provider does."""
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at_s)
    return header


def notice_of(**fields: Any) -> PaymentNotice:
    """What the provider says of a payment of 30 CHF for the top-up tu_1."""
    return PaymentNotice(PRACTICE, "topup_purchase", TEN_USD, CHF_30)._replace(
        **{"topup_id": "tu_1", "payment_id": "pi_1", "session_id": "cs_1", "livemode": True,
           **fields}
    )  # fmt: skip


def metadata_of(topup_id: str = "tu_1", **fields: str) -> dict[str, str]:
    """The metadata that our pages carry."""
    known = {
        "aza_purpose": "ai_topup", "practice_id": PRACTICE, "internal_credit_usd": "10.00",
        "paid_chf": "30.00", "topup_id": topup_id, **fields,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}


def page_of(session_id: str = "cs_1", payment_id: str | None = "pi_1", **fields: Any) -> Any:
    """A paid page as an event shows it."""
    return {
        "id": session_id, "object": "checkout.session", "mode": "payment", "status": "complete",
        "payment_status": "paid", "payment_intent": payment_id, "amount_total": CHF_30,
        "currency": "chf", "livemode": True, "metadata": metadata_of(), **fields,
    }  # fmt: skip


def in_parallel(number: int, work: Callable[[int], T]) -> list[T | BaseException]:
    """Let threads do the work at the same moment; give what each came to."""
    gate = threading.Barrier(number)
    found: list[Any] = [None] * number

    def one(index: int) -> None:
        gate.wait()
        try:
            found[index] = work(index)
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return found
