"""Licences: what a subscription's news does to the practice's licence, case by case."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from guthaben.errors import (
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
    Refused,
)
from guthaben.services import licences
from guthaben.services.licences import Licences
from guthaben.services.plans import PlanBook
from tests import databases
from tests.services.house import NOON, OTHER, PRACTICE, USD, House

DAY_S = 86_400
MONTH_S = 30 * DAY_S
URLS: dict[str, Any] = {"success_url": "https://x/ok", "cancel_url": "https://x/no"}
UPDATED = "customer.subscription.updated"
Change = Callable[..., str]


def item(plan: str | None, quantity: int = 1, start_s: int = NOON, **more: Any) -> dict[str, Any]:
    """One price of a subscription."""
    found = {
        "id": "si_1", "quantity": quantity, "price": {"id": "price_1", "lookup_key": plan},
        "current_period_start": start_s, "current_period_end": start_s + MONTH_S,
    }  # fmt: skip
    return found | more


def subscription(plan: str | None = "basic", start_s: int = NOON, **fields: Any) -> dict[str, Any]:
    """A subscription of 30 days as the provider shows it."""
    known = {
        "id": "sub_1", "object": "subscription", "status": "active", "livemode": True,
        "created": NOON, "customer": "cus_1", "metadata": {"practice_id": PRACTICE},
        "cancel_at": None, "cancel_at_period_end": False, "ended_at": None,
        "items": {"object": "list", "data": [item(plan, start_s=start_s)], "has_more": False},
    }  # fmt: skip
    return known | fields


def items(*found: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(found), "has_more": False}


@pytest.fixture
def sold(house: House) -> House:
    """A house that sells two plans: 20 and 50 USD."""
    plans = PlanBook(house.guthaben.core)
    plans.set("basic", 20 * USD)
    plans.set("pro", 50 * USD)
    return house


@pytest.fixture
def change(sold: House) -> Change:
    """Let the provider's subscription be so now, and tell an event about it."""

    def tell(kind: str = UPDATED, **fields: Any) -> str:
        about = subscription(**fields)
        sold.gateway.subscriptions[about["id"]] = about
        return sold.tell(kind, about)

    return tell


def allowance(house: House, practice_id: str = PRACTICE) -> int:
    """What is left of the current period's allowance, in USD."""
    return house.guthaben.balance(practice_id).allowance_nano_usd // USD


def use(house: House, usd: int, key: str) -> None:
    house.guthaben.record_usage(PRACTICE, usd * USD, key=key)


def granted(house: House) -> list[tuple[int, int]]:
    """What each period was granted, in days from the first and in USD."""
    rows = house.rows(
        "SELECT period_start_s, granted_nano_usd FROM credit_grant WHERE kind = 1 ORDER BY 1"
    )
    return [
        ((row["period_start_s"] - NOON) // DAY_S, row["granted_nano_usd"] // USD) for row in rows
    ]


# ---------------------------------------------------------------- periods and plans


def test_a_subscription_is_a_licence_with_its_plans_allowance(change: Change, sold: House) -> None:
    assert change("customer.subscription.created") == "done:told"
    period = sold.guthaben.balance(PRACTICE).period
    assert period[:4] == ("sub_1", NOON, NOON + MONTH_S, 20 * USD)
    assert (allowance(sold), sold.credit()) == (20, 0)


def test_a_renewal_begins_a_new_period_and_the_old_rest_stays_behind(
    change: Change, sold: House
) -> None:
    change()
    use(sold, 5, "a")
    sold.clock.wait(MONTH_S)
    change(start_s=NOON + MONTH_S)
    assert allowance(sold) == 20
    use(sold, 1, "b")
    assert granted(sold) == [(0, 20), (30, 20)]


def test_an_upgrade_gives_the_difference_at_once_and_once(change: Change, sold: House) -> None:
    change()
    use(sold, 15, "a")
    for _ in range(3):
        change(plan="pro")
    assert allowance(sold) == 35
    assert granted(sold) == [(0, 50)]


@pytest.mark.parametrize("touched", [True, False])
def test_a_downgrade_acts_in_the_next_period(change: Change, sold: House, touched: bool) -> None:
    change(plan="pro")
    if touched:
        use(sold, 1, "a")
    change(plan="basic")
    assert allowance(sold) == (49 if touched else 50)
    sold.clock.wait(MONTH_S)
    assert allowance(sold) == 20, "also where the renewal is late"
    change(plan="basic", start_s=NOON + MONTH_S)
    assert allowance(sold) == 20


def test_up_and_down_and_up_again_gives_nothing_twice(change: Change, sold: House) -> None:
    for plan in ("basic", "pro", "basic", "pro", "basic"):
        change(plan=plan)
        use(sold, 1, f"{plan}-{sold.clock.ms}-{len(sold.letters())}")
    assert granted(sold) == [(0, 50)]
    assert allowance(sold) == 45


def test_a_renewal_that_nobody_told_lends_the_plan_and_is_corrected(
    change: Change, sold: House
) -> None:
    change()
    sold.clock.wait(MONTH_S + DAY_S)
    assert sold.guthaben.balance(PRACTICE).period.provisional
    use(sold, 4, "late")
    assert allowance(sold) == 16
    change(plan="pro", items=items(item("pro", start_s=NOON + MONTH_S + 3600)))
    assert allowance(sold) == 46, "one allowance, brought in line with what was bought"
    assert len(granted(sold)) == 1


def test_an_event_of_days_ago_says_what_its_own_period_had(change: Change, sold: House) -> None:
    before = sold.envelope(UPDATED, subscription("pro"))
    change()
    use(sold, 1, "a")
    sold.clock.wait(MONTH_S)
    change(start_s=NOON + MONTH_S)
    use(sold, 1, "b")
    before["created"] = sold.clock.at_s
    sold.post(before)  # the upgrade of last month, told only now
    sold.inbox.work_once()
    assert granted(sold) == [(0, 50), (30, 20)]
    assert sold.guthaben.balance(PRACTICE).period.start_s == NOON + MONTH_S


def test_quantity_multiplies_and_several_plans_add_up(change: Change, sold: House) -> None:
    change(items=items(item("basic", 3)))
    assert allowance(sold) == 60
    change(items=items(item("basic", 3), item("pro"), item(None, 7)))
    assert allowance(sold) == 110, "an item that is no plan doesn't count beside one that is"


# ---------------------------------------------------------------- statuses


@pytest.mark.parametrize("status", ["unpaid", "paused", "incomplete", "incomplete_expired"])
def test_what_is_not_paid_for_includes_nothing(change: Change, sold: House, status: str) -> None:
    change(status=status)
    assert allowance(sold) == 0
    change()
    assert allowance(sold) == 20
    change(status=status)
    assert allowance(sold) == 0
    assert not licences.show(sold.guthaben.core, PRACTICE).active


def test_past_due_keeps_its_period_and_opens_none(change: Change, sold: House) -> None:
    change()
    use(sold, 1, "a")
    change(status="past_due", plan="pro")
    assert allowance(sold) == 19, "an upgrade that is not paid for gives nothing"
    sold.clock.wait(MONTH_S)
    assert allowance(sold) == 0, "and no further period begins by itself"
    change(status="past_due", start_s=NOON + MONTH_S)
    assert allowance(sold) == 0
    change(status="active", start_s=NOON + MONTH_S)
    assert allowance(sold) == 20


def test_unpaid_and_paid_again_is_the_same_allowance(change: Change, sold: House) -> None:
    change()
    use(sold, 5, "a")
    change(status="unpaid")
    change(status="active")
    assert allowance(sold) == 15
    assert granted(sold) == [(0, 20)]


def test_a_cancellation_at_the_periods_end_needs_no_further_word(
    change: Change, sold: House
) -> None:
    change(cancel_at_period_end=True, cancel_at=NOON + MONTH_S)
    assert allowance(sold) == 20
    sold.clock.wait(MONTH_S)
    assert allowance(sold) == 0, "it does not roll on, although nobody has told its end"
    change("customer.subscription.deleted", status="canceled", ended_at=NOON + MONTH_S)
    assert allowance(sold) == 0


def test_a_cancellation_that_is_taken_back_rolls_on(change: Change, sold: House) -> None:
    change(cancel_at_period_end=True)
    change()
    sold.clock.wait(MONTH_S)
    assert allowance(sold) == 20


def test_an_immediate_end_leaves_bought_credit_and_open_calls(change: Change, sold: House) -> None:
    change()
    sold.guthaben.grant(PRACTICE, USD, key="bought", kind="paid")
    call = sold.guthaben.reserve(PRACTICE, 2 * USD, key="open")
    change("customer.subscription.deleted", status="canceled", ended_at=NOON)
    assert sold.figures() == (USD, 2 * USD, 0)
    call.settle(2 * USD)
    assert sold.figures() == (USD, 0, 0)


def test_a_trial_is_a_period_with_an_allowance_of_its_own(change: Change, sold: House) -> None:
    PlanBook(sold.guthaben.core).set("basic", 20 * USD, trial_nano_usd=2 * USD, from_s=0)
    trial = items(item("basic", current_period_end=NOON + 7 * DAY_S))
    change(status="trialing", items=trial)
    assert allowance(sold) == 2
    sold.clock.wait(7 * DAY_S)
    assert allowance(sold) == 2, "a late word after the trial lends no more than the trial"
    change(start_s=NOON + 7 * DAY_S)
    assert allowance(sold) == 20


def test_a_status_that_nobody_knows_gives_and_takes_nothing(change: Change, sold: House) -> None:
    change()
    use(sold, 5, "a")
    assert change(status="hibernating") == "done:told"
    assert allowance(sold) == 15
    assert sold.alarms("license_unknown_status") == ["license_unknown_status"]


# ---------------------------------------------------------------- several, again


def test_another_subscription_after_the_end(change: Change, sold: House) -> None:
    change()
    use(sold, 1, "a")
    change("customer.subscription.deleted", status="canceled", ended_at=NOON)
    change(id="sub_2", plan="pro", created=NOON + 1)
    assert allowance(sold) == 50
    change("customer.subscription.deleted", status="canceled", ended_at=NOON)
    assert allowance(sold) == 50, "late word of the old one's end"


def test_of_two_subscriptions_the_higher_one_leads_and_an_alarm_tells(
    change: Change, sold: House
) -> None:
    change()
    change(id="sub_2", plan="pro", created=NOON + 1)
    assert allowance(sold) == 50, "one call never uses the allowances of both"
    assert sold.alarms() == ["license_second_subscription"]
    change(id="sub_2", plan="pro", created=NOON + 1, status="canceled", ended_at=NOON)
    assert allowance(sold) == 20
    open_alarms = sold.rows("SELECT 1 FROM credit_alarm WHERE cleared_at_s = 0")
    assert open_alarms == []


def test_a_licence_told_by_hand_stays_where_there_is_no_subscription(
    change: Change, sold: House
) -> None:
    change(status="incomplete")
    sold.guthaben.set_license(
        PRACTICE, "by hand", period_start_s=NOON, period_end_s=NOON + MONTH_S,
        allowance_nano_usd=7 * USD,
    )  # fmt: skip
    change("customer.subscription.deleted", status="incomplete_expired")
    assert allowance(sold) == 7


# ---------------------------------------------------------------- plans


def test_an_unknown_plan_keeps_the_old_allowance_and_loses_nothing(
    change: Change, sold: House
) -> None:
    change()
    use(sold, 5, "a")
    change(plan="enterprise")
    assert allowance(sold) == 15
    assert sold.alarms() == ["license_unknown_plan"]
    sold.clock.wait(MONTH_S)
    change(plan="enterprise", start_s=NOON + MONTH_S)
    assert allowance(sold) == 20
    use(sold, 1, "b")
    PlanBook(sold.guthaben.core).set("enterprise", 100 * USD)
    assert allowance(sold) == 99, "as soon as it is known"
    assert granted(sold) == [(0, 20), (30, 100)]
    assert sold.rows("SELECT 1 FROM credit_alarm WHERE cleared_at_s = 0") == []


def test_a_changed_allowance_acts_on_periods_that_begin_later(change: Change, sold: House) -> None:
    change()
    use(sold, 1, "a")
    sold.clock.wait(DAY_S)
    PlanBook(sold.guthaben.core).set("basic", 30 * USD)
    assert allowance(sold) == 19
    sold.clock.wait(MONTH_S - DAY_S)
    change(start_s=NOON + MONTH_S)
    assert allowance(sold) == 30


def test_a_date_in_the_past_gives_the_difference_and_takes_nothing(
    change: Change, sold: House
) -> None:
    change()
    use(sold, 1, "a")
    plans = PlanBook(sold.guthaben.core)
    plans.set("basic", 25 * USD, from_s=0)
    assert allowance(sold) == 24
    plans.set("basic", 1 * USD, from_s=0)
    assert allowance(sold) == 24
    assert plans.current()[0].allowance_nano_usd == USD
    assert len(plans.history()) == 4


def test_a_removed_plan_is_unknown_from_then_on(change: Change, sold: House) -> None:
    change()
    sold.clock.wait(DAY_S)
    PlanBook(sold.guthaben.core).remove("basic", author="anna")
    assert allowance(sold) == 20
    sold.clock.wait(MONTH_S)
    change(start_s=NOON + MONTH_S)
    assert allowance(sold) == 20
    assert sold.alarms() == ["license_unknown_plan"]
    with pytest.raises(Refused, match="no such plan"):
        PlanBook(sold.guthaben.core).remove("basic")


def test_plans_are_kept_as_they_were(sold: House) -> None:
    with pytest.raises(databases.REFUSED, match="kept as they were"):
        sold.change("UPDATE credit_plan SET allowance_nano_usd = 1")
    with pytest.raises(databases.REFUSED, match="kept as they were"):
        sold.change("DELETE FROM credit_plan")


# ---------------------------------------------------------------- invoices


@pytest.mark.parametrize(
    "about",
    [
        {"parent": {"subscription_details": {"subscription": "sub_1"}}},
        {"parent": {"subscription_details": {"subscription": {"id": "sub_1"}}}},
        {"subscription": "sub_1"},
    ],
)
def test_an_invoice_only_says_that_there_is_something_to_ask(
    sold: House, about: dict[str, Any]
) -> None:
    sold.gateway.subscriptions["sub_1"] = subscription()
    invoice = {"id": "in_1", "object": "invoice", "amount_paid": 2_000, "metadata": {}, **about}
    for _ in range(3):
        assert sold.tell("invoice.paid", invoice) == "done:told"
    assert (allowance(sold), sold.credit()) == (20, 0)
    assert sold.events() == [], "invoice.paid never credits money (sokosumi 1846)"


def test_an_invoice_of_another_kind_is_none_of_ours(sold: House) -> None:
    assert sold.tell("invoice.paid", {"id": "in_1", "parent": None}) == "ignored:no_subscription"


def test_a_failed_payment_is_told_by_the_subscription_itself(change: Change, sold: House) -> None:
    change()
    sold.gateway.subscriptions["sub_1"] = subscription(status="past_due")
    about = {"id": "in_1", "parent": {"subscription_details": {"subscription": "sub_1"}}}
    sold.tell("invoice.payment_failed", about)
    (view,) = licences.show(sold.guthaben.core, PRACTICE).subscriptions
    assert (view.status, view.leads) == ("past_due", True)
    told = [row["kind"] for row in sold.rows("SELECT kind FROM credit_notice")]
    assert told == ["licence_unpaid"]


# ---------------------------------------------------------------- whose it is


def held_for(house: House, answer: str) -> str:
    """The one thing that happened is that it is held, with an alarm; give the reason."""
    assert house.alarms() == ["license_held"]
    assert house.rows("SELECT * FROM credit_grant") == []
    (held,) = licences.held(house.guthaben.core)
    assert answer == f"quarantined:{held.reason}"
    return held.reason


def test_what_is_nobodys_of_ours_is_ignored(change: Change, sold: House) -> None:
    assert change(plan="of another product", metadata={}) == "ignored:not_ours"
    assert licences.held(sold.guthaben.core) == []


def test_a_plan_of_ours_without_a_name_is_held(change: Change, sold: House) -> None:
    assert held_for(sold, change(metadata={})) == "no_practice"
    assert change(metadata={}) == "quarantined:no_practice"
    assert sold.alarms() == ["license_held"], "alarmed once"


def test_another_product_of_a_practice_is_none_of_ours(change: Change, sold: House) -> None:
    sold.guthaben.grant(PRACTICE, USD, key="known")
    assert change(plan="of another product") == "ignored:not_ours"
    assert (allowance(sold), sold.alarms()) == (0, [])


def test_a_practice_nobody_knows_is_believed_only_with_a_plan_of_ours(
    change: Change, sold: House
) -> None:
    metadata = {"practice_id": PRACTICE, "lookup_key": "no plan yet"}
    told = change(plan="no plan yet", metadata=metadata)
    assert held_for(sold, told) == "unknown_practice"


def test_a_plan_that_was_never_known_takes_nobodys_place(change: Change, sold: House) -> None:
    sold.guthaben.set_license(
        PRACTICE, "by hand", period_start_s=NOON, period_end_s=NOON + MONTH_S,
        allowance_nano_usd=7 * USD,
    )  # fmt: skip
    metadata = {"practice_id": PRACTICE, "lookup_key": "no plan yet"}
    assert change(plan="no plan yet", metadata=metadata) == "done:told"
    assert (allowance(sold), sold.alarms()) == (7, ["license_unknown_plan"])
    PlanBook(sold.guthaben.core).set("no plan yet", 30 * USD)
    assert allowance(sold) == 30


def test_who_is_named_later_is_held_no_more(change: Change, sold: House) -> None:
    change(metadata={})
    page = {
        "id": "cs_1", "mode": "subscription", "subscription": "sub_1", "metadata": {},
        "client_reference_id": PRACTICE,
    }  # fmt: skip
    assert sold.tell("checkout.session.completed", page) == "done:told"
    assert (allowance(sold), licences.held(sold.guthaben.core)) == (20, [])
    assert sold.rows("SELECT 1 FROM credit_alarm WHERE cleared_at_s = 0") == []


def test_a_customer_of_another_practice_is_held(change: Change, sold: House) -> None:
    change(metadata={"practice_id": OTHER})
    answer = change(id="sub_2", metadata={"practice_id": PRACTICE})
    assert answer == "quarantined:customer_mismatch"
    assert allowance(sold) == 0


def test_a_known_customer_needs_no_name(change: Change, sold: House) -> None:
    change(status="canceled", ended_at=NOON)
    assert change(id="sub_2", metadata={}) == "done:told"
    assert allowance(sold) == 20


def test_a_name_that_changes_later_moves_nothing(change: Change, sold: House) -> None:
    change()
    change(metadata={"practice_id": OTHER}, plan="pro")
    assert (allowance(sold), allowance(sold, OTHER)) == (50, 0)
    assert sold.alarms() == ["license_practice_differs"]


def test_an_operator_says_whose_it_is(change: Change, sold: House) -> None:
    change(metadata={})
    (held,) = licences.held(sold.guthaben.core)
    desk = Licences(sold.guthaben, sold.gateway, livemode=True)
    assert desk.assign(PRACTICE, str(held.held_no)).active
    assert allowance(sold) == 20
    assert licences.held(sold.guthaben.core) == []
    assert sold.rows("SELECT 1 FROM credit_alarm WHERE cleared_at_s = 0") == []
    assert change(metadata={}, plan="pro") == "done:told"
    assert allowance(sold) == 50
    with pytest.raises(Refused) as taken:
        desk.assign(OTHER, "sub_1")
    assert taken.value.reason == "subscription_taken"
    with pytest.raises(Refused) as nothing:
        desk.assign(OTHER, "99")
    assert nothing.value.reason == "subscription_not_found"


# ---------------------------------------------------------------- buying


@pytest.fixture
def desk(sold: House) -> Licences:
    return Licences(sold.guthaben, sold.gateway, livemode=True)


def bought(house: House, order: Any, **fields: Any) -> str:
    """Let the provider tell that the page was completed."""
    about = subscription(metadata=dict(order.metadata), **fields)
    house.gateway.subscriptions[about["id"]] = about
    page = {
        "id": "cs_1", "mode": "subscription", "status": "complete", "payment_status": "paid",
        "subscription": about["id"], "client_reference_id": order.client_reference_id,
        "metadata": dict(order.metadata), "livemode": True, "customer": "cus_1",
    }  # fmt: skip
    return house.tell("checkout.session.completed", page)


def test_our_record_is_committed_before_the_page(desk: Licences, sold: House) -> None:
    rows: list[Any] = []
    make = sold.gateway.create_subscription_checkout

    def look(order: Any) -> Any:
        rows.extend(sold.rows("SELECT * FROM credit_license_order"))
        return make(order)

    sold.gateway.create_subscription_checkout = look  # type: ignore[method-assign]
    start = desk.start_checkout(PRACTICE, "basic", quantity=2, **URLS)
    assert [(row["order_id"], row["status"]) for row in rows] == [(start.order_id, "pending")]
    asked = sold.gateway.asked[-1]
    assert asked.others_could_write, "no transaction is open while the provider is asked"
    order = asked.argument
    assert (order.client_reference_id, order.quantity) == (start.order_id, 2)
    assert order.idempotency_key == f"guthaben-{start.order_id}"
    assert bought(sold, order) == "done:told"
    (row,) = sold.rows("SELECT * FROM credit_license_order")
    assert (row["status"], row["subscription_id"], row["session_id"]) == (
        "complete",
        "sub_1",
        "cs_1",
    )
    assert allowance(sold) == 20


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"metadata": {"practice_id": OTHER}}, "practice_mismatch"),
        ({"metadata": {"license_order_id": "lo_nobody"}}, "unknown_order"),
        ({"livemode": False}, "livemode_mismatch"),
    ],
)
def test_what_contradicts_our_record_is_held(
    desk: Licences, sold: House, fields: dict[str, Any], reason: str
) -> None:
    desk.start_checkout(PRACTICE, "basic", **URLS)
    order = sold.gateway.asked[-1].argument
    metadata = {**order.metadata, **fields.get("metadata", {})}
    about = subscription(**{**fields, "metadata": metadata})
    sold.gateway.subscriptions["sub_1"] = about
    assert held_for(sold, sold.tell(UPDATED, about)) == reason


@pytest.mark.parametrize("theirs", [{"installation": "bern"}, {}])
def test_what_another_installation_sells_is_left_to_it(
    change: Change, sold: House, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str]
) -> None:
    """Its plans and practices are called like ours, and its orders have numbers of their own."""
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    named = {"practice_id": PRACTICE, "aza_purpose": "license", **theirs}
    assert change(metadata=named) == "ignored:not_ours"
    assert change(metadata={**named, "license_order_id": "lo_theirs"}) == "ignored:not_ours"
    assert allowance(sold) == 0
    assert sold.alarms() == []
    ours = {**named, "installation": "zurich"}
    assert change(metadata=ours) == "done:told"
    assert allowance(sold) == 20


def test_an_order_bears_the_mark_of_its_installation(
    desk: Licences, sold: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start_checkout(PRACTICE, "basic", **URLS)
    unmarked = sold.gateway.asked[-1].argument
    assert "installation" not in unmarked.metadata
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    desk.start_checkout(PRACTICE, "basic", **URLS)
    assert sold.gateway.asked[-1].argument.metadata["installation"] == "zurich"
    # Begun before the installation had a name: our own record says whose it is.
    assert bought(sold, unmarked) == "done:told"


def test_a_second_subscription_for_one_purchase_is_held(desk: Licences, sold: House) -> None:
    desk.start_checkout(PRACTICE, "basic", **URLS)
    order = sold.gateway.asked[-1].argument
    bought(sold, order)
    about = subscription(id="sub_2", metadata=dict(order.metadata))
    sold.gateway.subscriptions["sub_2"] = about
    assert sold.tell(UPDATED, about) == "quarantined:second_subscription_for_order"
    assert allowance(sold) == 20


def test_who_has_a_licence_buys_no_second_one(desk: Licences, sold: House) -> None:
    desk.start_checkout(PRACTICE, "basic", **URLS)
    bought(sold, sold.gateway.asked[-1].argument)
    with pytest.raises(Refused) as refused:
        desk.start_checkout(PRACTICE, "pro", **URLS)
    assert refused.value.reason == "license_exists"
    sold.gateway.subscriptions["sub_1"] |= {"status": "canceled", "ended_at": NOON}
    desk.refresh(PRACTICE)
    desk.start_checkout(PRACTICE, "pro", **URLS)
    assert sold.gateway.asked[-1].argument.customer_id == "cus_1", "the same customer again"


def test_only_plans_that_are_set_are_sold(desk: Licences, sold: House) -> None:
    with pytest.raises(Refused) as refused:
        desk.start_checkout(PRACTICE, "of another product", **URLS)
    assert refused.value.reason == "plan_not_found"
    assert sold.gateway.asked == []


def test_a_page_that_fails_closes_the_record_and_a_lost_answer_keeps_it(
    desk: Licences, sold: House
) -> None:
    sold.gateway.refuse = PaymentRejected("no such price")
    with pytest.raises(PaymentRejected):
        desk.start_checkout(PRACTICE, "basic", **URLS)
    sold.gateway.refuse = PaymentOutcomeUnknown("no answer")
    with pytest.raises(PaymentOutcomeUnknown):
        desk.start_checkout(PRACTICE, "basic", **URLS)
    rows = sold.rows("SELECT status FROM credit_license_order ORDER BY status")
    assert [row["status"] for row in rows] == ["canceled", "pending"]
    order = sold.gateway.asked[-1].argument
    assert bought(sold, order) == "done:told", "the page was there after all"


def test_a_page_that_expires_closes_the_record(desk: Licences, sold: House) -> None:
    start = desk.start_checkout(PRACTICE, "basic", **URLS)
    page = {"id": "cs_1", "mode": "subscription", "client_reference_id": start.order_id}
    assert sold.tell("checkout.session.expired", page) == "done:expired"
    assert sold.tell("checkout.session.expired", page) == "ignored:not_ours"
    (row,) = sold.rows("SELECT status, reason FROM credit_license_order")
    assert row == {"status": "canceled", "reason": "expired"}


# ---------------------------------------------------------------- races and silence


def test_an_older_answer_never_overwrites_a_newer_one(change: Change, sold: House) -> None:
    change()
    first, finish = threading.Event(), threading.Event()

    def held_back(_subscription_id: str) -> None:
        if not first.is_set():
            first.set()
            assert finish.wait(10)

    sold.gateway.while_asked = held_back
    slow = threading.Thread(target=lambda: Licences(sold.guthaben, sold.gateway).refresh(PRACTICE))
    slow.start()
    assert first.wait(10)  # it has read `active`, and its answer is under way
    change("customer.subscription.deleted", status="canceled", ended_at=NOON)
    assert allowance(sold) == 0
    finish.set()
    slow.join(10)
    assert allowance(sold) == 0, "the older answer was asked for anew"


def test_who_can_not_be_asked_is_asked_later(change: Change, sold: House) -> None:
    sold.gateway.down = PaymentUnavailable("no answer")
    assert change() == "new:payment_unavailable"
    assert allowance(sold) == 0
    sold.gateway.down = None
    sold.clock.wait(60)
    sold.inbox.work_once()
    assert allowance(sold) == 20


def test_a_renewal_that_nobody_tells_is_asked_for(change: Change, sold: House) -> None:
    change()
    desk = Licences(sold.guthaben, sold.gateway)
    assert desk.refresh_overdue() == 0
    sold.clock.wait(MONTH_S + 3_601)
    sold.gateway.subscriptions["sub_1"] = subscription("pro", NOON + MONTH_S)
    assert desk.refresh_overdue() == 1
    assert allowance(sold) == 50
    assert desk.refresh_overdue() == 0


def test_one_that_can_not_be_understood_starves_no_other(change: Change, sold: House) -> None:
    change()
    change(id="sub_2", metadata={"practice_id": OTHER}, customer="cus_2", created=NOON + 1)
    sold.clock.wait(MONTH_S + 3_601)
    del sold.gateway.subscriptions["sub_1"]
    sold.gateway.subscriptions["sub_2"] |= {"items": items(item("pro", start_s=NOON + MONTH_S))}
    desk = Licences(sold.guthaben, sold.gateway)
    assert desk.refresh_overdue() == 2
    assert allowance(sold, OTHER) == 50
    assert desk.refresh_overdue() == 0, "and is asked for again in some hours"
    sold.gateway.down = PaymentUnavailable("no answer")
    sold.clock.wait(6 * 3_600 + 1)
    with pytest.raises(PaymentUnavailable):
        desk.refresh_overdue()


def test_many_at_once_come_to_the_same(change: Change, sold: House) -> None:
    from tests.services.house import in_parallel

    sold.gateway.subscriptions["sub_1"] = subscription("pro")
    for _ in range(12):
        sold.post(sold.envelope(UPDATED, subscription("pro")))
    in_parallel(4, lambda _index: sold.inbox.work_once())
    while sold.inbox.work_once():
        sold.clock.wait(60)
    use(sold, 1, "a")
    assert granted(sold) == [(0, 50)]
    assert {row["status"] for row in sold.letters().values()} == {"done"}
