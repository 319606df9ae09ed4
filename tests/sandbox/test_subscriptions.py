"""Subscriptions in the sandbox: bought on the page, renewed by the clock, changed, ended."""

import json
from pathlib import Path
from typing import Any

import pytest
import stripe

from guthaben.sandbox.subscriptions import after
from tests.sandbox.harness import Running, saved_card, some

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared/stripe/fixtures3_2026-08.json"
DAY_S = 86_400
MONTH: dict[str, Any] = {"interval": "month", "interval_count": 1}
DECLINED_LATER = "4000000000000341"


def price(lookup_key: str, amount: int = 2000, **more: Any) -> stripe.Price:
    return stripe.Price.create(
        currency="chf", unit_amount=amount, lookup_key=lookup_key,
        recurring={"interval": "month"}, product_data={"name": lookup_key}, **more,
    )  # fmt: skip


def subscribe(sandbox: Running, card: str = "4242424242424242", **more: Any) -> stripe.Subscription:
    customer, method = saved_card(sandbox, card)
    found = stripe.Price.list(lookup_keys=["basic"]).data or [price("basic")]
    sandbox.wait_idle()
    sandbox.receiver.seen.clear()
    return stripe.Subscription.create(
        customer=customer, default_payment_method=method, items=[{"price": found[0].id}], **more
    )


def period(sub: stripe.Subscription) -> tuple[int, int]:
    item = sub["items"].data[0]
    return item.current_period_start, item.current_period_end


def told(sandbox: Running) -> list[str]:
    sandbox.wait_idle()
    names = [t for t in sandbox.receiver.types() if t.startswith(("customer.sub", "invoice"))]
    sandbox.receiver.seen.clear()
    return names


def test_intervals_are_clipped_to_the_month_and_come_back() -> None:
    january_31 = 1_769_860_800  # 31 January 2026, 12:00 UTC
    ends = [after(january_31, MONTH, steps) for steps in range(1, 4)]
    assert ends == [1_772_280_000, 1_774_958_400, 1_777_550_400]  # 28 Feb, 31 Mar, 30 Apr
    assert (
        after(january_31, {"interval": "week", "interval_count": 2}, 1) == january_31 + 14 * DAY_S
    )
    assert after(january_31, {"interval": "year", "interval_count": 1}, 1) == 1_801_396_800


def test_a_page_sells_a_subscription(sandbox: Running) -> None:
    basic = price("basic")
    session = stripe.checkout.Session.create(
        mode="subscription",
        line_items=[{"price": basic.id, "quantity": 3}],
        subscription_data={"metadata": {"practice_id": "prac_7"}},
        success_url="http://127.0.0.1:9/ok",
        client_reference_id="lo_1",
    )
    page = sandbox.http.get(f"/c/pay/{session.id}")
    assert "CHF 60.00" in page.text
    assert not sandbox.control(f"/checkout/{session.id}/decline")["paid"]
    assert sandbox.control(f"/checkout/{session.id}/pay")["paid"]
    done = stripe.checkout.Session.retrieve(session.id)
    assert (done.status, done.payment_status, done.payment_intent) == ("complete", "paid", None)
    sub = stripe.Subscription.retrieve(str(done.subscription), expand=["latest_invoice"])
    assert (sub.status, sub.metadata["practice_id"]) == ("active", "prac_7")
    assert (sub["items"].data[0].quantity, sub["items"].data[0].price.lookup_key) == (3, "basic")
    invoice = some(sub.latest_invoice)
    assert isinstance(invoice, stripe.Invoice)
    assert invoice.amount_paid == 6000
    assert sandbox.charges() == 1
    sandbox.wait_for("customer.subscription.created", "invoice.paid", "checkout.session.completed")


def test_the_clock_renews_and_charges_each_period_once(sandbox: Running) -> None:
    sub = subscribe(sandbox)
    start_s, end_s = period(sub)
    assert told(sandbox)[0] == "customer.subscription.created"
    sandbox.control("/clock", {"seconds": end_s - start_s + 60})
    again = stripe.Subscription.retrieve(sub.id)
    assert period(again)[0] == end_s
    assert told(sandbox) == [
        "customer.subscription.updated", "invoice.created", "invoice.finalized", "invoice.paid",
        "invoice.payment_succeeded",
    ]  # fmt: skip
    sandbox.control("/clock", {"seconds": 70 * DAY_S})
    bounds = period(stripe.Subscription.retrieve(sub.id))
    assert bounds[0] in (after(start_s, MONTH, 3), after(start_s, MONTH, 4))
    assert sandbox.charges() == 4


def test_a_card_that_fails_makes_it_past_due_until_it_is_paid(sandbox: Running) -> None:
    sub = subscribe(sandbox)
    start_s, end_s = period(sub)
    method = str(sub.default_payment_method)
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": "insufficient_funds"})
    told(sandbox)
    sandbox.control("/clock", {"seconds": end_s - start_s + 60})
    names = told(sandbox)
    assert names[0] == names[-1] == "customer.subscription.updated"
    assert "invoice.payment_failed" in names
    assert stripe.Subscription.retrieve(sub.id).status == "past_due"
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": None})
    sandbox.control(f"/subscriptions/{sub.id}/pay")
    assert stripe.Subscription.retrieve(sub.id).status == "active"
    sandbox.control(f"/subscriptions/{sub.id}/give_up", {"status": "unpaid"})
    assert stripe.Subscription.retrieve(sub.id).status == "unpaid"


def test_a_card_that_fails_at_once_leaves_it_incomplete(sandbox: Running) -> None:
    sub = subscribe(sandbox, DECLINED_LATER)
    assert sub.status == "incomplete"
    sandbox.control(f"/subscriptions/{sub.id}/give_up", {"status": "incomplete_expired"})
    assert stripe.Subscription.retrieve(sub.id).status == "incomplete_expired"
    assert sandbox.charges() == 0


def test_plan_quantity_and_end_are_changed(sandbox: Running) -> None:
    sub = subscribe(sandbox)
    item, pro = sub["items"].data[0], price("pro", 5000)
    changed = stripe.Subscription.modify(
        sub.id,
        items=[{"id": item.id, "price": pro.id, "quantity": 2}],
        proration_behavior="always_invoice",
    )
    assert [(i.price.lookup_key, i.quantity) for i in changed["items"].data] == [("pro", 2)]
    assert period(changed) == period(sub)
    ending = stripe.Subscription.modify(sub.id, cancel_at_period_end=True)
    assert ending.cancel_at == period(sub)[1]
    assert stripe.Subscription.modify(sub.id, cancel_at_period_end=False).cancel_at is None
    stripe.Subscription.modify(sub.id, cancel_at_period_end=True)
    sandbox.control("/clock", {"seconds": 32 * DAY_S})
    gone = stripe.Subscription.retrieve(sub.id)
    assert (gone.status, gone.ended_at) == ("canceled", period(sub)[1])
    assert told(sandbox)[-1] == "customer.subscription.deleted"
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Subscription.cancel(sub.id)
    assert stripe.Subscription.list(customer=str(sub.customer)).data == []
    assert len(stripe.Subscription.list(customer=str(sub.customer), status="all").data) == 1


def test_a_trial_is_free_and_a_period_of_its_own(sandbox: Running) -> None:
    sub = subscribe(sandbox, trial_period_days=14)
    assert (sub.status, period(sub)[1]) == ("trialing", sub.trial_end)
    assert sandbox.charges() == 0
    ended = stripe.Subscription.modify(sub.id, trial_end="now")
    assert ended.status == "active"
    assert sandbox.charges() == 1


def test_a_paused_one_lets_no_period_pass(sandbox: Running) -> None:
    sub = subscribe(sandbox)
    sandbox.control(f"/subscriptions/{sub.id}/pause")
    sandbox.control("/clock", {"seconds": 40 * DAY_S})
    paused = stripe.Subscription.retrieve(sub.id)
    assert (paused.status, period(paused)) == ("paused", period(sub))
    resumed = stripe.Subscription.resume(sub.id)
    assert resumed.status == "active"
    assert period(resumed)[0] >= period(sub)[1]
    names = told(sandbox)
    assert {"customer.subscription.paused", "customer.subscription.resumed"} <= set(names)


@pytest.mark.skipif(not SAMPLES.exists(), reason="Stripe's samples are not beside the project")
def test_objects_have_the_fields_of_stripes_own_samples(sandbox: Running) -> None:
    samples = json.loads(SAMPLES.read_text())["resources"]
    sub = subscribe(sandbox)
    (item,) = sub.to_dict()["items"]["data"]
    (invoice,) = stripe.Invoice.list(customer=str(sub.customer)).data
    line = invoice.to_dict()["lines"]["data"][0]
    shown: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "subscription": (sub.to_dict(), samples["subscription"]),
        "item": (item, samples["subscription_item"]),
        "price": (item["price"], samples["price"]),
        "plan": (item["plan"], samples["plan"]),
        "product": (
            stripe.Product.retrieve(item["price"]["product"]).to_dict(),
            samples["product"],
        ),
        # What stood on an invoice before its subscription moved into `parent` is left out.
        "invoice": (invoice.to_dict() | {"subscription": None}, samples["invoice"]),
        "line": (line, samples["invoice"]["lines"]["data"][0]),
    }
    for name, (ours, theirs) in shown.items():
        assert sorted(ours) == sorted(theirs), name
