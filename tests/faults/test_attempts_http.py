"""Automatic charges against the sandbox over real HTTP: lost answers, late completions, crowds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
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
from tests.services.house import in_parallel

pytestmark = pytest.mark.faults

PRACTICE, USD = "prac_1", 1_000_000_000
ZURICH = ZoneInfo("Europe/Zurich")
INTENTS = "/v1/payment_intents"
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
        self.database, self.sandbox = database, sandbox
        self.ahead_s = 0
        self.opened: list[tuple[Guthaben, Charger]] = []
        self.credit, self.charger = self.open()

    def open(self, *, timeout_s: float = 10) -> tuple[Guthaben, Charger]:
        """Open the database as another process would."""
        charger = Charger(StripeGateway(KEY, api_base=self.sandbox.url, timeout_s=timeout_s))
        credit = Guthaben.open(self.database.url, clock_ms=self.now_ms, on_claim=charger.claimed)
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

    def until_ended(self, number: int = 1) -> None:
        """Wait until so many attempts have an outcome."""
        end = time.monotonic() + 20
        while sum(one[0] not in ("pending", "unknown") for one in self.events()) < number:
            assert time.monotonic() < end, self.events()
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


@pytest.mark.parametrize(
    "kind", ["commit_then_drop", "commit_then_500", "drop_before", "error_500"]
)
@pytest.mark.parametrize("hours", [1, 13])
def test_a_lost_answer_ends_in_one_charge_and_one_credit(
    bank: Bank, sandbox: Running, kind: str, hours: int
) -> None:
    bank.arm()
    sandbox.control(
        "/faults/calls", {"fault": kind, "match": {"method": "POST", "path": INTENTS}, "times": 1}
    )
    bank.refused(bank.credit, "k")
    assert bank.charger.janitor.check_once() == 0  # one is in flight
    bank.charger.start()
    end = time.monotonic() + 20
    while bank.events()[0][0] == "pending" and time.monotonic() < end:
        time.sleep(0.01)
    assert bank.events()[0][0] == "unknown"
    bank.wait(hours * 3_600)
    assert bank.charger.janitor.resolve_once() == 1
    made = kind.startswith("commit") or hours == 1
    assert sandbox.charges() == int(made)
    assert bank.credit.balance(PRACTICE).credit_nano_usd == (10 * USD if made else 0)


def test_a_customer_who_completes_the_old_payment_before_it_is_cancelled_is_credited(
    bank: Bank, sandbox: Running
) -> None:
    method = bank.arm(POOR)
    fault = {"method": "POST", "path": f"{INTENTS}/*/cancel"}
    sandbox.control("/faults/calls", {"fault": "error_500", "match": fault, "times": 1})
    bank.refused(bank.credit, "k")
    bank.charger.start()
    bank.until_ended()
    ((status, reason, still_open),) = bank.events()
    assert (status, reason, still_open) == ("failed", "insufficient_funds", 3_000)
    (intent,) = sandbox.objects("payment_intent")
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": "succeeds"})
    paid = stripe.PaymentIntent.confirm(intent["id"], payment_method=method)
    assert paid.status == "succeeded"
    assert bank.charger.janitor.cancel_once() == 1
    assert bank.events() == [("succeeded", "", 0)]
    assert bank.credit.balance(PRACTICE).credit_nano_usd == 10 * USD
    assert sandbox.charges() == 1


def test_a_declined_payment_is_cancelled_there_and_can_not_be_completed(
    bank: Bank, sandbox: Running
) -> None:
    method = bank.arm(POOR)
    bank.refused(bank.credit, "k")
    bank.charger.start()
    bank.until_ended()
    end = time.monotonic() + 20
    while bank.events()[0][2] and time.monotonic() < end:
        time.sleep(0.01)
    assert bank.events() == [("failed", "insufficient_funds", 0)]
    (intent,) = sandbox.objects("payment_intent")
    assert intent["status"] == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.confirm(intent["id"], payment_method=method)


def test_fifty_that_are_refused_at_once_in_three_processes_make_one_charge(
    bank: Bank, sandbox: Running
) -> None:
    bank.arm()
    gates = [bank.credit, bank.open()[0], bank.open()[0]]
    for _credit, charger in bank.opened:
        charger.start()
    in_parallel(50, lambda index: _quietly(gates[index % 3], f"k{index}"))
    bank.until_ended()
    assert (len(bank.events()), sandbox.charges()) == (1, 1)
    balance = bank.credit.balance(PRACTICE)  # whoever came late may have used it already
    assert balance.credit_nano_usd + balance.held_nano_usd == 10 * USD


def test_fifty_that_cross_the_end_of_the_month_stay_below_the_cap_of_each(
    bank: Bank, sandbox: Running
) -> None:
    bank.arm(cap_rappen=3_000)
    now = datetime.fromtimestamp(bank.now_ms() / 1000, ZURICH)
    year, month = divmod(now.year * 12 + now.month, 12)
    end_s = int(datetime(year, month + 1, 1, tzinfo=ZURICH).timestamp())
    bank.wait(end_s - bank.now_ms() // 1000 - 2)  # 23:59:58
    gates = [bank.credit, bank.open()[0], bank.open()[0]]
    for _credit, charger in bank.opened:
        charger.start()

    def cross(index: int) -> None:
        for turn in range(4):
            if index == turn == 0:
                bank.until_ended()
            if index == 0 and turn == 2:
                bank.wait(60)
            _quietly(gates[index % 3], f"{index}-{turn}")

    in_parallel(50, cross)
    bank.ahead_s += 61
    left = bank.credit.balance(PRACTICE).available_nano_usd
    if len(bank.events()) < 2 and left:
        bank.credit.record_usage(PRACTICE, left, key="the rest")
    _quietly(bank.credit, "the last")
    bank.until_ended(2)
    months = bank.credit.core.ask(
        lambda cur: cur.execute(
            "SELECT cap_month, SUM(price_minor) FROM credit_event WHERE status = 'succeeded'"
            " GROUP BY cap_month"
        ).fetchall()
    )
    assert [total for _month, total in months] == [3_000, 3_000]
    assert sandbox.charges() == 2


def _quietly(credit: Guthaben, key: str) -> None:
    try:
        credit.reserve(PRACTICE, USD, key=key)
    except InsufficientCredit:
        return
