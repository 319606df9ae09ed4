"""The story of one practice, over real HTTP: it buys, uses, saves a card, is topped up within its
limits, is declined, is refunded; a server is killed in between, and nothing that was acknowledged
is lost. Server, sandbox and a third program run as processes."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from tests.programs import STRIPE_KEY, until
from tests.story.house import PRACTICE, House
from tests.story.samples import ABSENT, event, samples_are_there

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def sdk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the official SDK at the sandbox."""
    monkeypatch.setattr(stripe, "api_base", house.sandbox_url)
    monkeypatch.setattr(stripe, "api_key", STRIPE_KEY)


def test_stripes_own_samples_give_the_webhooks_their_shape() -> None:
    if not samples_are_there():
        pytest.skip(f"{ABSENT}; the story tells its webhooks with the sandbox's objects")
    kind = "payment_intent.succeeded"
    told = json.loads(event(kind, "payment_intent", {"id": "pi_ours"}, "id"))
    intent = told["data"]["object"]
    assert (told["type"], intent["object"], intent["id"]) == (kind, "payment_intent", "pi_ours")
    assert {"amount_received", "latest_charge", "transfer_data"} <= set(intent), "as Stripe tells"


@pytest.mark.usefixtures("sdk")
def test_the_story(house: House) -> None:
    licensed(house)
    payment_id = buys_30_chf_and_is_credited_once(house)
    uses_up_the_allowance_and_some_credit(house)
    saves_a_card_and_is_topped_up_within_limits(house)
    a_declining_card_pauses_it(house)
    a_refund_takes_credit_back(house, payment_id)
    a_killed_server_loses_nothing_that_was_acknowledged(house)
    all_is_told_and_masked(house, payment_id)
    verified = house.command("verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["problems"] == []


def licensed(house: House) -> None:
    now_s = int(time.time())
    body = {"license": "basic", "period_start_s": now_s - 60, "period_end_s": now_s + 2_592_000,
            "allowance_usd": "2.00"}  # fmt: skip
    answer = house.operator.put(f"/v1/admin/practices/{PRACTICE}/license", json=body)
    assert answer.status_code == 200, answer.text
    assert house.balance()["available_usd"] == "2.00"


def buys_30_chf_and_is_credited_once(house: House) -> str:
    house.control.do("/deliveries/pause")
    started = house.send("POST", "/v1/topups", {"amount_chf": "30.00"})
    house.press(started["checkout_url"])
    (session,) = stripe.checkout.Session.list(limit=1).data
    intent = stripe.PaymentIntent.retrieve(str(session.payment_intent))
    assert (session.payment_status, intent.status) == ("paid", "succeeded")
    assert house.balance()["credit_usd"] == "0.00", "nobody has told the server yet"
    completed = event(
        "checkout.session.completed", "checkout.session", session.to_dict(),
        "id", "payment_intent", "payment_status", "status", "mode", "amount_total", "currency",
        "customer", "metadata", "client_reference_id", "livemode",
    )  # fmt: skip
    succeeded = event(
        "payment_intent.succeeded", "payment_intent", intent.to_dict(),
        "id", "amount", "amount_received", "currency", "status", "customer", "metadata", "livemode",
        "latest_charge",
    )  # fmt: skip
    answers = house.hook_all([completed, succeeded, completed, completed])
    assert answers == [200] * 4
    house.wait_for_credit("10.00")
    house.control.do("/deliveries/resume", {"order": "reverse"})
    until(lambda: "pending" not in house.control.look("/counters")["deliveries"])
    until(lambda: not house.stored("SELECT 1 FROM credit_inbox WHERE status = 'new'"))
    assert house.balance()["credit_usd"] == "10.00", "credited once, however often it is told"
    assert len(house.topups("topup_purchase")) == 1
    assert house.get(f"/v1/topups/{started['topup_id']}")["status"] == "succeeded"
    assert house.stored("SELECT DISTINCT status FROM credit_inbox WHERE status = 'dead'") == []
    return str(intent.id)


def uses_up_the_allowance_and_some_credit(house: House) -> None:
    workers = house.workers(500, 20_000_000)  # 500 calls of 0.02 USD
    for number in range(20):
        house.use("0.000001", f"beside-{number}")
    told, _ = workers.communicate(timeout=120)
    assert workers.returncode == 0
    assert json.loads(told) == {"settled": 500}
    left = house.balance()
    assert left["allowance_usd"] == "0.00"
    assert left["credit_usd"] == "1.99998", "12 less 500 times 0.02 and 20 times 0.000001"
    assert (left["held_usd"], left["debt_usd"]) == ("0.00", "0.00")
    too_much = house.http.post("/v1/reservations", json={"amount_usd": "2", "key": "too much"})
    assert too_much.status_code == 402
    assert too_much.json()["available_usd"] == "1.99998"


def saves_a_card_and_is_topped_up_within_limits(house: House) -> None:
    house.save_card("4242424242424242")
    settings = house.get("/v1/auto-topup")
    assert settings["card_saved"]
    assert not settings["enabled"], "a saved card alone switches nothing on"
    house.switch_on(cap_chf="60.00")
    charges = house.control.charges()

    house.use("1.50", "below the trigger")
    house.wait_for_credit("10.49998")
    assert house.control.charges() == charges + 1

    house.use("10.00", "below it again")
    time.sleep(2)
    assert house.control.charges() == charges + 1, "the cooldown holds it back"

    house.forget_cooldown()
    house.use("0.01", "after the cooldown")
    house.wait_for_credit("10.48998")
    assert house.control.charges() == charges + 2
    assert house.get("/v1/auto-topup")["spent_this_month_chf"] == "60.00"

    house.use("10.00", "below it a third time")
    time.sleep(2)
    assert house.control.charges() == charges + 2, "the cap holds it back"
    assert len(house.topups("auto_topup_purchase")) == 2
    assert house.get("/v1/auto-topup")["enabled"]


def a_declining_card_pauses_it(house: House) -> None:
    house.save_card("4000002500003155")
    charges = house.control.charges()
    house.switch_on(cap_chf="300.00")
    house.use("0.01", "with the other card")
    paused = until(
        lambda: found if (found := house.get("/v1/auto-topup"))["paused_reason"] else None,
        what="a pause",
    )
    assert (paused["enabled"], paused["paused_reason"]) == (False, "authentication_required")
    assert house.control.charges() == charges
    (failed,) = house.topups("failed_auto_topup", "failed")
    assert failed["reason"] == "authentication_required"
    alarms = house.operator.get("/v1/admin/alarms").json()["alarms"]
    assert ("auto_topup_paused", PRACTICE) in {(a["code"], a["practice_id"]) for a in alarms}
    house.use("0.01", "after the pause")
    time.sleep(1)
    assert len(house.topups("failed_auto_topup", "failed")) == 1


def a_refund_takes_credit_back(house: House, payment_id: str) -> None:
    before = house.balance()
    assert before["credit_usd"] == "0.46998"
    stripe.Refund.create(payment_intent=payment_id, amount=1_500)
    until(lambda: house.balance()["debt_usd"] == "4.53002", what="the clawback of 5 USD")
    assert house.balance()["credit_usd"] == "0.00"
    (refund,) = house.topups("refund")
    assert refund["amount_usd"] == "-5.00"
    house.operator.post(
        f"/v1/admin/practices/{PRACTICE}/grants",
        json={"amount_usd": "100.00", "key": "goodwill", "kind": "promotional"},
    ).raise_for_status()
    assert house.balance()["credit_usd"] == "95.46998", "debt is repaid first"


def a_killed_server_loses_nothing_that_was_acknowledged(house: House) -> None:
    acknowledged: dict[str, Any] = {}
    began = threading.Event()

    def work(worker: int) -> None:
        headers = dict(house.http.headers)
        with httpx.Client(base_url=house.url, headers=headers, timeout=20, trust_env=False) as http:
            for number in range(10_000):
                try:
                    body = {"amount_usd": "0.001", "key": f"kill-{worker}-{number}"}
                    call = http.post("/v1/reservations", json=body).json()
                    acknowledged[call["id"]] = call
                    path = f"/v1/reservations/{call['id']}/settle"
                    acknowledged[call["id"]] = http.post(path, json={"cost_usd": "0.0005"}).json()
                    began.set()
                except httpx.TransportError:
                    return

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    assert began.wait(20)
    time.sleep(1)
    started = house.send("POST", "/v1/topups", {"amount_chf": "30.00"})
    house.server.kill()
    for thread in threads:
        thread.join()
    house.press(started["checkout_url"])  # paid while nobody is there to hear of it
    house.start()

    assert len(acknowledged) > 20
    for call_id, told in acknowledged.items():
        found = house.get(f"/v1/reservations/{call_id}")
        if told["status"] == "settled":
            assert (found["status"], found["cost_usd"]) == ("settled", "0.0005")
        else:
            assert found["status"] in {"reserved", "settled"}
        assert found["key"] == told["key"]
    until(
        lambda: house.get(f"/v1/topups/{started['topup_id']}")["status"] == "succeeded",
        30,
        "the credit that was paid for while the server was down",
    )
    assert len(house.topups("topup_purchase")) == 2


def all_is_told_and_masked(house: House, payment_id: str) -> None:
    kinds = {(t["event_type"], t["status"]) for t in house.get("/v1/topups?limit=100")["topups"]}
    assert kinds == {
        ("topup_purchase", "succeeded"), ("auto_topup_purchase", "succeeded"),
        ("failed_auto_topup", "failed"), ("refund", "succeeded"),
    }  # fmt: skip
    changes: set[str] = set()
    before: str | None = ""
    while before is not None:
        page = house.get(f"/v1/statement?limit=500{before}")
        changes |= {entry["what"] for entry in page["entries"]}
        before = f"&before={page['next_before']}" if page["next_before"] else None
    assert {"fulfil", "settle", "clawback", "repay", "grant"} <= changes
    ids = [
        found["id"]
        for kind in ("payment_intent", "payment_method", "customer", "charge")
        for found in house.control.look(f"/objects/{kind}")["data"]
    ]
    assert payment_id in ids
    shown = "".join(
        house.http.get(path).text
        for path in ("/v1/topups?limit=100", "/v1/statement?limit=500", "/v1/auto-topup",
                     "/v1/calls?limit=500", "/v1/balance")
    )  # fmt: skip
    shown += house.operator.get("/v1/admin/alarms").text + house.server.words()
    shown += httpx.get(f"{house.url}/metrics", trust_env=False).text
    assert "pi_…" in shown
    assert not [secret for secret in ids if secret in shown]
    assert "payer@example.com" not in shown
    assert "Traceback" not in house.server.words()
