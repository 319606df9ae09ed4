"""The story of a licence, over real HTTP: bought on the provider's page, renewed, upgraded,
downgraded, unpaid and paid, told late and in any order, cancelled, bought again. Server and sandbox
run as processes; the renewals come from the sandbox's clock."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.programs import STRIPE_KEY, until
from tests.story.house import PRACTICE, House

pytestmark = pytest.mark.slow

DAY_S = 86_400


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    opened = House(tmp_path)
    monkeypatch.setattr(stripe, "api_base", opened.sandbox_url)
    monkeypatch.setattr(stripe, "api_key", STRIPE_KEY)
    yield opened
    opened.close()


def test_the_story_of_a_licence(house: House) -> None:
    prices = plans_are_set_and_priced(house)
    sub = a_licence_is_bought_on_the_page(house)
    it_is_used_and_renewed(house, sub)
    an_upgrade_gives_the_difference_at_once(house, sub, prices["pro"])
    a_downgrade_acts_in_the_next_period(house, sub, prices["basic"])
    late_and_shuffled_events_come_to_the_same(house, sub, prices)
    a_failed_payment_opens_no_period_until_it_is_paid(house, sub)
    it_is_cancelled_at_the_periods_end_and_bought_again(house, sub)
    all_is_told_and_masked(house, sub)
    verified = house.command("verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["problems"] == []


def plans_are_set_and_priced(house: House) -> dict[str, str]:
    found = {}
    for plan, usd, amount in (("basic", "20", 2_000), ("pro", "50", 5_000)):
        assert house.command("plans", "set", plan, usd).returncode == 0
        made = stripe.Price.create(
            currency="chf", unit_amount=amount, lookup_key=plan, recurring={"interval": "month"},
            product_data={"name": f"Licence {plan}"},
        )  # fmt: skip
        found[plan] = made.id
    return found


def licence(house: House) -> dict[str, Any]:
    found: dict[str, Any] = house.get("/v1/license")
    return found


def settled(house: House) -> None:
    """Wait until every event has been delivered and applied."""
    until(lambda: "pending" not in house.control.look("/counters")["deliveries"], 20)
    until(lambda: not house.stored("SELECT 1 FROM credit_inbox WHERE status = 'new'"), 20)


def allowance(house: House) -> str:
    settled(house)
    return house.balance()["allowance_usd"]


def period_of(sub: str) -> tuple[int, int]:
    item = stripe.Subscription.retrieve(sub)["items"].data[0]
    return item.current_period_start, item.current_period_end


def next_period(house: House, sub: str) -> None:
    now_s = house.control.look("/clock")["now_s"]
    house.control.do("/clock", {"seconds": period_of(sub)[1] - now_s + 60})


def change_plan(sub: str, price_id: str) -> None:
    item = stripe.Subscription.retrieve(sub)["items"].data[0]
    stripe.Subscription.modify(
        sub, items=[{"id": item.id, "price": price_id}], proration_behavior="always_invoice"
    )


def a_licence_is_bought_on_the_page(house: House) -> str:
    unknown = house.http.post("/v1/license/checkout", json={"plan": "enterprise"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "plan_not_found")
    start = house.send("POST", "/v1/license/checkout", {"plan": "basic"})
    assert licence(house)["source"] == "none"
    house.press(start["checkout_url"])
    until(lambda: licence(house)["active"], 20, "the licence")
    (sub,) = stripe.Subscription.list().data
    assert sub.metadata["practice_id"] == PRACTICE
    assert house.balance()["available_usd"] == "20.00"
    assert house.get("/v1/balance")["period"]["start_s"] == period_of(sub.id)[0]
    again = house.http.post("/v1/license/checkout", json={"plan": "pro"})
    assert (again.status_code, again.json()["code"]) == (409, "license_exists")
    return sub.id


def it_is_used_and_renewed(house: House, sub: str) -> None:
    house.use("12.50", "in the first period")
    assert allowance(house) == "7.50"
    next_period(house, sub)
    assert allowance(house) == "20.00", "a new period, and nothing of the old one"
    house.use("5.00", "in the second period")


def an_upgrade_gives_the_difference_at_once(house: House, sub: str, price_id: str) -> None:
    house.control.do("/faults/deliveries", {"fault": "duplicate", "copies": 3, "times": None})
    change_plan(sub, price_id)
    assert allowance(house) == "45.00"
    house.control.http.delete("/_control/faults")


def a_downgrade_acts_in_the_next_period(house: House, sub: str, price_id: str) -> None:
    change_plan(sub, price_id)
    assert allowance(house) == "45.00"
    assert licence(house)["subscriptions"][0]["next_allowance_usd"] == "20.00"
    next_period(house, sub)
    assert allowance(house) == "20.00"


def late_and_shuffled_events_come_to_the_same(
    house: House, sub: str, prices: dict[str, str]
) -> None:
    house.use("1.00", "before the silence")
    house.control.do("/deliveries/pause")
    change_plan(sub, prices["pro"])
    change_plan(sub, prices["basic"])
    next_period(house, sub)
    next_period(house, sub)
    change_plan(sub, prices["pro"])
    house.control.do("/deliveries/resume", {"order": "shuffle", "seed": 7})
    assert allowance(house) == "50.00"
    granted = house.stored(
        "SELECT granted_nano_usd / 1000000000 FROM credit_grant WHERE kind = 1"
        " ORDER BY period_start_s"
    )
    assert granted == [(20,), (50,), (50,)], "the upgrade of the silent weeks reached its period"
    house.use("2.00", "after the silence")
    change_plan(sub, prices["basic"])


def a_failed_payment_opens_no_period_until_it_is_paid(house: House, sub: str) -> None:
    settled(house)
    method = stripe.Subscription.retrieve(sub).default_payment_method
    house.control.do(f"/payment_methods/{method}/outcome", {"outcome": "insufficient_funds"})
    # The word of the renewal is lost; the word of the failed payment comes.
    house.control.do("/faults/deliveries", {"fault": "lose", "match": {"types": ["*.updated"]}})
    next_period(house, sub)
    settled(house)
    assert stripe.Subscription.retrieve(sub).status == "past_due"
    assert licence(house)["subscriptions"][0]["status"] == "past_due"
    assert house.balance()["allowance_usd"] == "0.00"
    house.control.do(f"/payment_methods/{method}/outcome", {"outcome": None})
    house.control.do(f"/subscriptions/{sub}/pay")
    assert allowance(house) == "20.00"
    house.control.do(f"/subscriptions/{sub}/pause")
    assert allowance(house) == "0.00"
    stripe.Subscription.resume(sub)
    assert allowance(house) == "20.00"


def it_is_cancelled_at_the_periods_end_and_bought_again(house: House, sub: str) -> None:
    stripe.Subscription.modify(sub, cancel_at_period_end=True)
    settled(house)
    assert licence(house)["ends_at_s"] == period_of(sub)[1]
    assert house.balance()["allowance_usd"] == "20.00"
    next_period(house, sub)
    settled(house)
    shown = licence(house)
    assert (shown["active"], shown["subscriptions"][0]["status"]) == (False, "canceled")
    assert house.balance()["available_usd"] == "0.00"
    start = house.send("POST", "/v1/license/checkout", {"plan": "pro", "quantity": 2})
    house.press(start["checkout_url"])
    until(lambda: licence(house)["active"], 20, "the second licence")
    assert allowance(house) == "100.00"
    stripe.Subscription.cancel(stripe.Subscription.list().data[0].id)
    assert allowance(house) == "0.00"


def all_is_told_and_masked(house: House, sub: str) -> None:
    assert house.topups("topup_purchase") == [], "no invoice ever credited money"
    assert house.balance()["credit_usd"] == "0.00"
    assert house.stored("SELECT 1 FROM credit_inbox WHERE status = 'dead'") == []
    alarms = house.operator.get("/v1/admin/alarms").json()["alarms"]
    assert alarms == []
    kinds = {row[0] for row in house.stored("SELECT kind FROM credit_notice")}
    assert {"licence_unpaid", "licence_cancelled"} <= kinds
    shown = json.dumps(licence(house)) + json.dumps(house.balance()) + house.server.words()
    shown += house.command("licence", "show", PRACTICE).stdout
    assert sub not in shown
    assert "sub_…" in shown
    assert "Traceback" not in house.server.words()
