"""One payment over real HTTP: told a hundred times while its buyer looks a hundred times; then
disputed, refunded by the operator, and reconciled with the webhooks off. Server and sandbox are
processes of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stripe

from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.differences import Cause
from guthaben.services.guthaben import Guthaben
from guthaben.services.reconcile import Reconciler
from guthaben.services.webhooks import Inbox
from tests.programs import STRIPE_KEY, until
from tests.story.house import PRACTICE, House

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


def buys_in_silence(house: House) -> tuple[str, dict[str, Any]]:
    """Buy 30 CHF; the sandbox tells nobody yet."""
    house.control.do("/deliveries/pause")
    started = house.send("POST", "/v1/topups", {"amount_chf": "30.00"})
    house.press(started["checkout_url"])
    (session,) = house.control.look("/objects/checkout.session")["data"][:1]
    assert session["payment_status"] == "paid"
    return started["topup_id"], session


def event(session: dict[str, Any]) -> bytes:
    """The event that the page was paid."""
    found = {
        "id": "evt_crowd00000000000000000001", "object": "event",
        "type": "checkout.session.completed", "created": int(time.time()), "livemode": False,
        "api_version": "2026-10-28", "data": {"object": session},
    }  # fmt: skip
    return json.dumps(found).encode()


def test_a_payment_told_a_hundred_times_beside_a_hundred_looks(house: House) -> None:
    topup_id, session = buys_in_silence(house)
    body = event(session)

    def tell(_number: int) -> int:
        return house.hook(body)

    def look(_number: int) -> str:
        answer = house.http.get(f"/v1/topups/{topup_id}")
        assert answer.status_code == 200
        return str(answer.json()["status"])

    with ThreadPoolExecutor(20) as crowd:
        told = [crowd.submit(tell, number) for number in range(100)]
        seen = [crowd.submit(look, number) for number in range(100)]
        assert {one.result() for one in told} == {200}
        assert {one.result() for one in seen} <= {"pending", "succeeded"}
    house.wait_for_credit("10.00")
    house.control.do("/deliveries/resume", {"order": "reverse"})  # and everything else there is
    until(lambda: "pending" not in house.control.look("/counters")["deliveries"])
    until(lambda: not house.stored("SELECT 1 FROM credit_inbox WHERE status = 'new'"))
    assert house.balance()["credit_usd"] == "10.00"
    assert house.stored("SELECT COUNT(*) FROM credit_grant WHERE kind = 3") == [(1,)]
    assert not house.stored("SELECT 1 FROM credit_inbox WHERE status IN ('dead', 'quarantined')")
    the_operator_refunds(house, topup_id)
    a_dispute_withholds_and_comes_back(house)
    assert house.command("verify").returncode == 0


def the_operator_refunds(house: House, topup_id: str) -> None:
    path = f"/v1/admin/practices/{PRACTICE}"
    quote = house.operator.get(f"{path}/refundable", params={"of": topup_id}).json()
    assert (quote["refundable_chf"], quote["unspent_chf"]) == ("30.00", "30.00")
    wish = {"of": topup_id, "key": "refund-1", "reason": "bought by mistake", "amount_chf": "6.00"}
    answers = [house.operator.post(f"{path}/refunds", json=wish) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    house.wait_for_credit("8.00")
    until(lambda: "pending" not in house.control.look("/counters")["deliveries"])
    until(lambda: not house.stored("SELECT 1 FROM credit_inbox WHERE status = 'new'"))
    assert house.balance()["credit_usd"] == "8.00", "taken once, though its events came as well"


def a_dispute_withholds_and_comes_back(house: House) -> None:
    (charge,) = house.control.look("/objects/charge")["data"]
    house.control.do(f"/charges/{charge['id']}/dispute", {"amount": 1_500})
    house.wait_for_credit("3.00")
    (dispute,) = house.control.look("/objects/dispute")["data"]
    house.control.do(f"/disputes/{dispute['id']}/close", {"status": "won"})
    house.wait_for_credit("8.00")


def test_what_no_webhook_told_is_found_by_reconciliation(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    buys_in_silence(house)
    (charge,) = house.control.look("/objects/charge")["data"]
    house.control.do(f"/charges/{charge['id']}/refund", {"amount": 600})
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    young = house.command("reconcile", "--since", yesterday, "--fix", "--json", "-")
    # What is younger than five minutes is left to its events: so nothing differs yet.
    assert (young.returncode, json.loads(young.stdout)["clean"]) == (0, True), young.stderr
    assert house.balance()["credit_usd"] == "0.00"

    monkeypatch.setattr(stripe, "api_base", house.sandbox_url)
    later_ms = lambda: time.time_ns() // 1_000_000 + 600_000  # noqa: E731
    with Guthaben.open(house.database, clock_ms=later_ms) as guthaben:
        gateway = StripeGateway(STRIPE_KEY, api_base=house.sandbox_url)
        inbox = Inbox(guthaben, gateway, secrets=tuple, livemode_expected=False)
        reconciler = Reconciler(guthaben.core.store, gateway, inbox)
        report = reconciler.run(int(time.time()) - 86_400, fix=True)
        again = reconciler.run(int(time.time()) - 86_400)
    assert report.causes[Cause.PAID_NOT_CREDITED] == 1
    assert report.causes[Cause.EVENT_MISSED] >= 3
    assert (report.remaining, again.clean) == (0, True)
    assert house.balance()["credit_usd"] == "8.00"
    (money,) = report.totals
    assert money.gross_minor - money.fee_minor == money.net_minor > 0
    assert house.command("verify").returncode == 0
