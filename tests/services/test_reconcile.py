"""Reconciliation: both sides compared; what was missed is mended as events would have done it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guthaben.errors import InvalidInput, PaymentUnavailable
from guthaben.payments.facts import BalanceEntry, PaymentFacts
from guthaben.payments.webhook import event_of
from guthaben.services.differences import Action, Cause
from guthaben.services.reconcile import Reconciler, Report
from guthaben.web import money_views
from tests.services.house import CHF_30, PRACTICE, TEN_USD, USD, House, metadata_of, page_of
from tests.services.test_refunds import left

DAY_S = 86_400
DOCS = Path(__file__).parents[2] / "docs" / "operating" / "reconcile.md"


def reconcile(house: House, *, fix: bool = True, days: int = 2, **more: Any) -> Report:
    """Compare the last days; what there is was made an hour ago."""
    reconciler = Reconciler(house.store, house.gateway, house.inbox)
    return reconciler.run(house.clock.at_s - days * DAY_S, fix=fix, **more)


def put(house: House, payment_id: str = "pi_1", topup_id: str = "tu_1", **facts: Any) -> None:
    """Let the provider have a payment that was made an hour ago."""
    metadata = metadata_of(topup_id)
    given = {"metadata": metadata, "created_at_s": house.clock.at_s - 3_600, **facts}
    house.gateway.put(payment_id, **given)


def seen(report: Report) -> list[tuple[Cause, Action]]:
    """What was found, and what was done."""
    return [(one.cause, one.action) for one in report.differences]


@pytest.fixture
def paid(house: House) -> House:
    """A purchase that was paid and whose events were all lost."""
    house.open_purchase()
    put(house)
    return house


@pytest.fixture
def bought(paid: House) -> House:
    """A purchase that was paid and credited."""
    assert paid.tell("checkout.session.completed", page_of()) == "done:credited"
    return paid


def test_where_nothing_differs_nothing_is_said(bought: House) -> None:
    report = reconcile(bought)
    assert (report.clean, report.payments, report.remaining) == (True, 1, 0)
    assert (bought.credit(), bought.alarms()) == (TEN_USD, [])


def test_what_was_paid_and_missed_is_credited_once(paid: House) -> None:
    report = reconcile(paid)
    assert seen(report) == [(Cause.PAID_NOT_CREDITED, Action.MENDED)]
    assert (report.found, report.remaining, paid.credit()) == (1, 0, TEN_USD)
    assert reconcile(paid).clean
    assert paid.tell("checkout.session.completed", page_of()) == "done:duplicate"


def test_a_dry_run_only_tells(paid: House) -> None:
    before = paid.rows("SELECT * FROM credit_event")
    report = reconcile(paid, fix=False)
    assert seen(report) == [(Cause.PAID_NOT_CREDITED, Action.NONE)]
    assert (report.remaining, paid.credit(), paid.alarms()) == (1, 0, [])
    assert paid.rows("SELECT * FROM credit_event") == before
    assert paid.rows("SELECT * FROM credit_notice") == []


def test_a_webhook_that_was_down_for_four_days_is_made_up_for(house: House) -> None:
    for number in range(20):
        names = {"topup_id": f"tu_{number}", "session_id": f"cs_{number}"}
        house.open_purchase(**names)
        put(house, f"pi_{number}", f"tu_{number}",
            created_at_s=house.clock.at_s - (number * 4 * DAY_S) // 20 - 3_600)  # fmt: skip
    report = reconcile(house, days=5)
    assert report.causes == {Cause.PAID_NOT_CREDITED: 20}
    assert (report.remaining, house.credit()) == (0, 20 * TEN_USD)


def test_what_contradicts_is_held_back_and_remains(paid: House) -> None:
    paid.gateway.put("pi_1", amount_received_rappen=2_900)
    report = reconcile(paid)
    assert seen(report) == [(Cause.PAID_NOT_CREDITED, Action.QUARANTINED)]
    assert report.remaining == 1
    assert seen(reconcile(paid)) == [(Cause.HELD_BACK, Action.ALARMED)]
    assert "reconcile_difference" in paid.alarms()


@pytest.mark.parametrize("rappen", [1, 1_000, 3_000])
def test_a_refund_that_was_missed_is_booked(bought: House, rappen: int) -> None:
    bought.gateway.put("pi_1", refunded_rappen=rappen)
    report = reconcile(bought)
    assert seen(report) == [(Cause.REFUND_NOT_BOOKED, Action.MENDED)]
    assert bought.credit() == left(rappen)
    assert reconcile(bought).clean


def test_a_refund_that_failed_and_was_missed_gives_back(bought: House) -> None:
    bought.gateway.put("pi_1", refunded_rappen=1_000)
    reconcile(bought)
    bought.gateway.put("pi_1", refunded_rappen=0)
    assert seen(reconcile(bought)) == [(Cause.TOO_MUCH_TAKEN, Action.MENDED)]
    assert bought.credit() == TEN_USD


def test_a_refund_of_an_old_payment_is_found_by_the_list_of_refunds(bought: House) -> None:
    bought.gateway.put("pi_1", created_at_s=bought.clock.at_s - 90 * DAY_S)
    bought.clock.wait(60 * DAY_S)
    receipt = bought.gateway.give_back("pi_1", 1_000)
    object.__setattr__(receipt, "created_at_s", bought.clock.at_s - 3_600)
    assert seen(reconcile(bought)) == [(Cause.REFUND_NOT_BOOKED, Action.MENDED)]
    assert bought.credit() == left(1_000)


@pytest.mark.parametrize(("status", "credit"), [
    ("needs_response", 0), ("lost", 0), ("won", TEN_USD), ("warning_needs_response", TEN_USD),
])  # fmt: skip
def test_a_dispute_that_was_missed_is_booked(bought: House, status: str, credit: int) -> None:
    bought.gateway.dispute("pi_1", status)
    assert seen(reconcile(bought)) == [(Cause.DISPUTE_NOT_BOOKED, Action.MENDED)]
    assert (bought.credit(), reconcile(bought).clean) == (credit, True)


@pytest.mark.parametrize("waited_days", [0, 60])
def test_a_dispute_that_ended_unheard_is_found(bought: House, waited_days: int) -> None:
    bought.gateway.dispute("pi_1", "needs_response")
    assert seen(reconcile(bought)) == [(Cause.DISPUTE_NOT_BOOKED, Action.MENDED)]
    bought.clock.wait(waited_days * DAY_S)
    bought.gateway.dispute("pi_1", "won")
    report = reconcile(bought)
    assert [(one.ours_rappen, one.theirs_rappen) for one in report.differences] == [(CHF_30, 0)]
    assert (report.remaining, bought.credit()) == (0, TEN_USD)
    assert reconcile(bought).clean


def test_credit_without_a_payment_is_alarmed_and_stays(house: House) -> None:
    house.open_purchase()
    house.paid(payment_id="pi_gone")
    house.clock.wait(600)
    report = reconcile(house)
    assert seen(report) == [(Cause.CREDITED_NOT_PAID, Action.ALARMED)]
    assert (report.ours_only, house.credit()) == (1, TEN_USD)
    assert house.alarms() == ["reconcile_difference"]
    told = {row["kind"] for row in house.rows("SELECT kind FROM credit_notice")}
    assert "difference_found" in told


@pytest.mark.parametrize("facts", [
    {"status": "requires_payment_method"}, {"status": "canceled"}, {"status": "processing"},
], ids=str)  # fmt: skip
def test_credit_for_a_payment_that_did_not_succeed_is_alarmed(
    bought: House, facts: dict[str, str]
) -> None:
    bought.gateway.put("pi_1", **facts)
    assert seen(reconcile(bought)) == [(Cause.CREDITED_NOT_PAID, Action.ALARMED)]


@pytest.mark.parametrize("facts", [
    {"amount_received_rappen": 2_999}, {"amount_received_rappen": 3_001}, {"currency": "eur"},
], ids=str)  # fmt: skip
def test_another_amount_than_was_credited_is_alarmed(bought: House, facts: dict[str, Any]) -> None:
    bought.gateway.put("pi_1", **facts)
    assert seen(reconcile(bought)) == [(Cause.AMOUNT_DIFFERS, Action.ALARMED)]
    assert bought.credit() == TEN_USD


def test_payments_of_others_are_counted_and_left_alone(house: House) -> None:
    put(house, "pi_shop", metadata={"order": "7"})
    report = reconcile(house)
    assert (report.clean, report.foreign, report.payments) == (True, 1, 0)
    assert house.rows("SELECT * FROM credit_payment_state") == []


def test_another_installations_payments_are_left_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    put(house, metadata={**metadata_of("tu_9"), "installation": "bern"})
    report = reconcile(house)
    assert (report.clean, report.foreign, house.statuses()) == (True, 1, [])


def test_a_purchase_that_is_stuck_is_closed_or_credited(house: House) -> None:
    for number, (status, paid) in enumerate([("expired", "unpaid"), ("open", "unpaid")], 1):
        house.open_purchase(f"tu_{number}", session_id=f"cs_{number}")
        about = page_of(f"cs_{number}", None, status=status, payment_status=paid,
                        metadata=metadata_of(f"tu_{number}"))  # fmt: skip
        house.tell("customer.created", about)
    assert reconcile(house).clean  # they are young
    house.clock.wait(3_601)
    report = reconcile(house)
    assert seen(report) == [(Cause.PURCHASE_STUCK, Action.MENDED)]
    assert house.statuses() == ["canceled", "pending"]


def missed(house: House, kind: str, about: dict[str, Any], at_s: int) -> None:
    """Let the provider have an event that never came."""
    event = house.envelope(kind, about)
    event["created"] = at_s
    house.gateway.events.append(event_of(event))


def test_events_that_never_came_are_stored_and_applied(paid: House) -> None:
    missed(paid, "payment_intent.succeeded",
           {"id": "pi_1", "object": "payment_intent"}, paid.clock.at_s - 3_000)  # fmt: skip
    missed(paid, "customer.created", {"id": "cus_1", "object": "customer"}, paid.clock.at_s - 2_000)
    missed(paid, "charge.refunded",
           {"id": "ch_9", "object": "charge", "payment_intent": "pi_shop"},
           paid.clock.at_s - 1_000)  # fmt: skip
    report = reconcile(paid)
    assert seen(report) == [
        (Cause.PAID_NOT_CREDITED, Action.MENDED), (Cause.EVENT_MISSED, Action.STORED),
    ]  # fmt: skip
    (row,) = paid.letters().values()
    assert (row["event_type"], row["status"]) == ("payment_intent.succeeded", "done")
    assert reconcile(paid).clean


def test_a_refund_without_an_answer_for_a_day_is_told(bought: House) -> None:
    from guthaben.errors import PaymentOutcomeUnknown
    from guthaben.services.refunds import Wish

    bought.gateway.refund_steps.extend([PaymentOutcomeUnknown("lost")])
    bought.inbox.refunds.refund("tu_1", Wish(100, "k", "because"))
    bought.clock.wait(DAY_S + 3_600)
    report = reconcile(bought, fix=False)
    assert seen(report) == [(Cause.REFUND_UNRESOLVED, Action.NONE)]
    assert reconcile(bought).clean  # found out first: it never arrived


# ---------------------------------------------------------------- fees


def line(number: int = 1, fee: int = 117, **more: Any) -> BalanceEntry:
    """A line of the provider's balance."""
    given = {"kind": "charge", "source_id": f"ch_{number}", "amount_minor": 3_000,
             "fee_minor": fee, "net_minor": 3_000 - fee, "currency": "chf", **more}  # fmt: skip
    return BalanceEntry(f"txn_{number}", created_at_s=None, **given)


def test_fees_and_net_are_kept_per_payment(paid: House) -> None:
    paid.gateway.put("pi_1", charge_id="ch_1", balance=line())
    report = reconcile(paid)
    (row,) = paid.rows("SELECT * FROM credit_payment_state")
    assert (row["gross_minor"], row["fee_minor"], row["net_minor"], row["balance_currency"]) == (
        3_000, 117, 2_883, "chf",
    )  # fmt: skip
    assert [tuple(money) for money in report.totals] == [(3_000, 117, 2_883, "chf")]


def test_a_fee_that_changed_is_kept_and_told(bought: House) -> None:
    bought.gateway.put("pi_1", charge_id="ch_1", balance=line())
    reconcile(bought)
    bought.gateway.put("pi_1", balance=None)
    changed = line(fee=150)
    object.__setattr__(changed, "created_at_s", bought.clock.at_s - 3_600)
    bought.gateway.balance.append(changed)
    report = reconcile(bought)
    assert seen(report) == [(Cause.FEE_DIFFERS, Action.MENDED)]
    assert [money.fee_minor for money in report.totals] == [150]
    assert reconcile(bought).clean


# ---------------------------------------------------------------- the run itself


@pytest.mark.parametrize(("since", "until"), [(-1, None), (0, 0), ("1", None)])
def test_a_window_makes_sense(house: House, since: Any, until: int | None) -> None:
    with pytest.raises(InvalidInput):
        Reconciler(house.store, house.gateway, house.inbox).run(since, until)


def test_what_is_younger_than_five_minutes_is_left_to_its_events(house: House) -> None:
    house.open_purchase()
    put(house, created_at_s=house.clock.at_s - 60)
    assert reconcile(house).clean
    house.clock.wait(600)
    assert not reconcile(house).clean


def test_a_page_opened_before_the_window_and_paid_inside_is_found(house: House) -> None:
    house.open_purchase()
    put(house, created_at_s=house.clock.at_s - DAY_S - 3_600)
    report = Reconciler(house.store, house.gateway, house.inbox).run(
        house.clock.at_s - 7_200, fix=True
    )
    assert seen(report) == [(Cause.PAID_NOT_CREDITED, Action.MENDED)]


def test_a_provider_that_goes_down_in_the_middle_leaves_what_was_mended(house: House) -> None:
    for number in range(3):
        house.open_purchase(f"tu_{number}", session_id=f"cs_{number}")
        put(house, f"pi_{number}", f"tu_{number}")
    real = house.gateway.payments_between

    def breaks(*window: int) -> Iterator[PaymentFacts]:
        for number, payment in enumerate(real(*window)):
            if number == 2:
                raise PaymentUnavailable("down")
            yield payment

    house.gateway.payments_between = breaks  # type: ignore[method-assign, assignment]
    with pytest.raises(PaymentUnavailable):
        reconcile(house)
    assert house.credit() == 2 * TEN_USD
    house.gateway.payments_between = real  # type: ignore[method-assign]
    assert reconcile(house).found == 1
    assert house.credit() == 3 * TEN_USD


def test_a_run_that_is_asked_to_stop_stops(paid: House) -> None:
    reconciler = Reconciler(paid.store, paid.gateway, paid.inbox, may_go_on=lambda: False)
    with pytest.raises(PaymentUnavailable, match="stop"):
        reconciler.run(paid.clock.at_s - DAY_S, fix=True)
    assert paid.credit() == 0


def test_two_runs_at_once_credit_once(paid: House) -> None:
    from tests.services.house import in_parallel

    in_parallel(4, lambda _i: reconcile(paid))
    assert paid.credit() == TEN_USD


@pytest.mark.sqlite  # what could grow is above the store
def test_memory_does_not_grow_with_the_lists(house: House) -> None:
    def many(from_s: int, _before_s: int) -> Iterator[PaymentFacts]:
        for number in range(20_000):
            yield PaymentFacts(
                f"pi_{number}", "succeeded", CHF_30, CHF_30, 0, False, "chf", True, None, None,
                from_s, metadata={"order": str(number)},
            )  # fmt: skip

    house.gateway.payments_between = many  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    try:
        report = reconcile(house)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.foreign == 20_000
    assert peak < 2_000_000


def test_the_report_is_as_its_schema_says(paid: House) -> None:
    paid.gateway.put("pi_1", charge_id="ch_1", balance=line())
    shown = money_views.report(reconcile(paid))
    schema = json.loads(DOCS.read_text("utf-8").split("```json")[1].split("```")[0])
    jsonschema.Draft202012Validator(schema).validate(shown)
    assert schema["properties"]["differences"]["items"]["properties"]["cause"]["enum"] == [
        cause.value for cause in Cause
    ]
    assert "pi_1" not in json.dumps(shown)
    assert shown["differences"][0]["practice_id"] == PRACTICE


def test_the_books_are_explained_afterwards(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    bought.gateway.put("pi_1", refunded_rappen=3_000)
    reconcile(bought)
    assert bought.figures() == (0, 0, 8 * USD)
    runs = bought.rows("SELECT fixes, differences, remaining FROM credit_reconcile_run")
    assert runs == [{"fixes": 1, "differences": 1, "remaining": 0}]
