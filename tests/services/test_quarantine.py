"""Cases: what is held back waits for a person, who decides once, and the ledger explains it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from guthaben.domain.money import nano_usd_for_rappen
from guthaben.errors import InvalidInput, PaymentUnavailable, Refused
from guthaben.services.quarantine import Decision, Quarantine
from tests.services.house import (
    CHF_30,
    OTHER,
    PRACTICE,
    TEN_USD,
    USD,
    House,
    in_parallel,
    metadata_of,
    page_of,
)

WHY = Decision("seen with the customer", "ada")


@pytest.fixture
def held(house: House) -> House:
    """29 CHF were paid for a purchase of 30."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(), amount_received_rappen=2_900)
    assert house.tell("checkout.session.completed", page_of()) == "quarantined:amount_mismatch"
    return house


def desk(house: House) -> Quarantine:
    """Somebody who decides."""
    inbox = house.inbox
    return Quarantine(house.store, house.gateway, inbox.settler, inbox.refunds)


def why_not(work: Callable[[], object]) -> str:
    """Do something that must be refused; tell why."""
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.reason


def test_a_case_tells_what_is_known(held: House) -> None:
    (case,) = desk(held).page()
    assert (case.case_no, case.status, case.reason, case.practice_id) == (
        1, "open", "amount_mismatch", PRACTICE,
    )  # fmt: skip
    assert (case.payment_id, case.amount_minor, case.currency) == ("pi_1", 2_900, "chf")
    assert held.rows("SELECT kind FROM credit_notice") == [{"kind": "quarantined"}]


def test_credit_is_what_the_paid_price_buys(held: House) -> None:
    resolved = desk(held).credit(1, PRACTICE, WHY)
    assert (resolved.changed, resolved.case.status) == (True, "credited")
    assert held.credit() == nano_usd_for_rappen(2_900)
    assert held.statuses() == ["canceled", "succeeded"]
    assert desk(held).page() == []
    (note,) = desk(held).show(1)[1]
    assert (note.action, note.author, note.reason) == ("credited", "ada", WHY.reason)


def test_the_same_decision_again_changes_nothing(held: House) -> None:
    desk(held).credit(1, PRACTICE, WHY)
    for _ in range(3):
        assert desk(held).credit(1, PRACTICE, WHY).changed is False
    assert held.credit() == nano_usd_for_rappen(2_900)
    assert len(desk(held).show(1)[1]) == 1
    for other in (
        lambda: desk(held).dismiss(1, WHY),
        lambda: desk(held).refund(1, WHY),
        lambda: desk(held).credit(1, OTHER, WHY),
    ):
        assert why_not(other) == "case_resolved"


def test_ten_operators_at_once_decide_once(held: House) -> None:
    found = in_parallel(10, lambda _i: desk(held).credit(1, PRACTICE, WHY).changed)
    assert sorted(found, key=bool) == [False] * 9 + [True]
    assert held.credit() == nano_usd_for_rappen(2_900)


def test_what_is_told_after_a_decision_changes_nothing(held: House) -> None:
    desk(held).credit(1, PRACTICE, WHY)
    for kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        assert held.tell(kind, page_of()) == "done:duplicate"
    assert held.credit() == nano_usd_for_rappen(2_900)


def test_a_dismissed_payment_is_never_credited_by_itself(held: House) -> None:
    assert desk(held).dismiss(1, WHY).case.status == "dismissed"
    assert desk(held).dismiss(1, WHY).changed is False
    held.gateway.put("pi_1", amount_received_rappen=CHF_30)  # now it would even fit
    assert held.tell("checkout.session.completed", page_of()) == "done:case_dismissed"
    assert (held.credit(), held.statuses()) == (0, ["canceled"])


def test_a_payment_of_the_right_price_fulfils_its_own_purchase(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(practice_id=OTHER))
    assert house.tell("checkout.session.completed", page_of()) == "quarantined:practice_mismatch"
    desk(house).credit(1, PRACTICE, WHY)
    assert (house.statuses(), house.credit(), house.credit(OTHER)) == (["succeeded"], TEN_USD, 0)


def test_a_payment_may_be_another_practices(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(practice_id=OTHER))
    house.tell("checkout.session.completed", page_of())
    desk(house).credit(1, OTHER, WHY)
    assert (house.statuses(), house.statuses(OTHER)) == (["canceled"], ["succeeded"])
    assert (house.credit(), house.credit(OTHER)) == (0, TEN_USD)


def test_nobodys_payment_finds_its_practice(house: House) -> None:
    house.gateway.put("pi_1", metadata=metadata_of("", practice_id=""))
    assert house.tell("payment_intent.succeeded", {"id": "pi_1"}).startswith("quarantined:")
    desk(house).credit(1, OTHER, WHY)
    assert house.credit(OTHER) == TEN_USD
    assert house.tell("payment_intent.succeeded", {"id": "pi_1"}) == "done:duplicate"


def test_a_second_payment_of_one_page_may_be_credited_too(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    house.tell("checkout.session.completed", page_of())
    house.gateway.put("pi_2", metadata=metadata_of())
    told = house.tell("checkout.session.completed", page_of(payment_id="pi_2"))
    assert told == "quarantined:second_payment_for_topup"
    desk(house).credit(1, PRACTICE, WHY)
    assert house.credit() == 2 * TEN_USD
    assert house.tell("checkout.session.completed", page_of(payment_id="pi_2")) == "done:duplicate"


def test_another_currency_needs_an_amount(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(), currency="eur")
    house.tell("checkout.session.completed", page_of())
    assert why_not(lambda: desk(house).credit(1, PRACTICE, WHY)) == "amount_needed"
    desk(house).credit(1, PRACTICE, WHY, amount_nano_usd=11 * USD)
    assert house.credit() == 11 * USD


def test_an_automatic_purchase_goes_on_counting_toward_the_cap(house: House) -> None:
    house.arm(cap_rappen=6_000)
    event = house.claim()
    house.gateway.put("pi_1", metadata=metadata_of(event.topup_id, aza_purpose="ai_auto_topup"),
                      amount_received_rappen=2_900)  # fmt: skip
    told = house.tell("payment_intent.succeeded", {"id": "pi_1"})
    assert told == "quarantined:amount_mismatch"
    desk(house).credit(1, PRACTICE, WHY)
    assert house.topups.settings(PRACTICE).spent_this_month_rappen == 2_900


def test_what_went_back_meanwhile_is_booked_at_once(held: House) -> None:
    held.gateway.put("pi_1", refunded_rappen=1_450)
    desk(held).credit(1, PRACTICE, WHY)
    assert held.credit() == nano_usd_for_rappen(2_900) // 2


@pytest.mark.parametrize("status", ["processing", "requires_payment_method", "canceled"])
def test_only_money_that_is_there_becomes_credit(held: House, status: str) -> None:
    held.gateway.put("pi_1", status=status)
    assert why_not(lambda: desk(held).credit(1, PRACTICE, WHY)) == "payment_not_succeeded"
    assert held.credit() == 0


def test_test_money_never_becomes_live_credit(held: House) -> None:
    held.gateway.put("pi_1", livemode=False)
    assert why_not(lambda: desk(held).credit(1, PRACTICE, WHY)) == "livemode_mismatch"


def test_a_provider_that_is_down_decides_nothing(held: House) -> None:
    held.gateway.down = PaymentUnavailable("down")
    with pytest.raises(PaymentUnavailable):
        desk(held).credit(1, PRACTICE, WHY)
    assert desk(held).page()[0].status == "open"


def test_a_decision_says_why(held: House) -> None:
    for reason in ("", "x", "  "):
        with pytest.raises(InvalidInput):
            desk(held).dismiss(1, Decision(reason))
    assert why_not(lambda: desk(held).dismiss(99, WHY)) == "case_not_found"


# ---------------------------------------------------------------- given back


def test_a_held_back_payment_goes_back_whole_and_closes_its_case(held: House) -> None:
    given = desk(held).refund(1, WHY)
    assert (given.status, given.amount_rappen) == ("succeeded", 2_900)
    case, _notes = desk(held).show(1)
    assert (case.status, held.statuses(), held.credit()) == ("refunded", ["canceled"], 0)
    assert why_not(lambda: desk(held).credit(1, PRACTICE, WHY)) == "case_resolved"


def test_a_refund_made_at_the_provider_closes_the_case_too(held: House) -> None:
    held.gateway.give_back("pi_1", 2_900)
    told = held.tell(
        "charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"}
    )
    assert told == "done:refund_of_quarantined"
    assert desk(held).show(1)[0].status == "refunded"


def test_a_refund_that_fails_opens_the_case_again(held: House) -> None:
    given = desk(held).refund(1, WHY)
    held.gateway.refund_fails("re_1")
    receipt = {"id": "re_1", "object": "refund", "payment_intent": "pi_1"}
    assert held.tell("refund.failed", receipt) == "quarantined:refund_failed"
    assert (desk(held).show(1)[0].status, held.statuses()) == ("open", ["quarantined"])
    assert held.inbox.refunds.one(given.refund_id).status == "failed"
    assert "refund_failed" in held.alarms()
    desk(held).credit(1, PRACTICE, WHY)
    assert held.credit() == nano_usd_for_rappen(2_900)


def test_while_a_refund_is_under_way_nothing_else_is_decided(held: House) -> None:
    held.gateway.refund_lost = True
    assert desk(held).refund(1, WHY).status == "unknown"
    assert why_not(lambda: desk(held).credit(1, PRACTICE, WHY)) == "refund_in_flight"
    assert desk(held).refund(1, WHY).replayed is True
    held.clock.wait(60)
    assert held.inbox.refunds.resolve_waiting() == 1
    assert desk(held).show(1)[0].status == "refunded"
    assert sum(r.amount_rappen or 0 for r in held.gateway.refunds.values()) == 2_900


def test_a_warning_about_a_payment_that_was_given_back_ends(held: House) -> None:
    """Found by the simulation: it was put off for ever, because nobody is going to credit it."""
    desk(held).refund(1, WHY)
    about = {
        "id": "issfr_1", "object": "radar.early_fraud_warning", "payment_intent": "pi_1",
        "charge": "ch_1", "fraud_type": "misc", "actionable": False, "livemode": True,
    }  # fmt: skip
    assert held.tell("radar.early_fraud_warning.created", about) == "done:not_credited"
