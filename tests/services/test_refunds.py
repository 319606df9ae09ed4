"""Money given back takes its credit back: one equation per payment, in whatever order it is told.

Held credit is never touched; what was spent already becomes debt; the history's lines sum to the
money.
"""

from __future__ import annotations

import itertools
import json

import pytest

from guthaben.services.webhooks import apply_told
from tests.services.house import (
    CHF_30,
    PRACTICE,
    TEN_USD,
    USD,
    House,
    metadata_of,
    page_of,
)

KINDS = ["charge.refunded", "charge.refund.updated", "refund.updated", "refund.failed"]


@pytest.fixture
def bought(house: House) -> House:
    """30 CHF were paid for 10 USD."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    return house


def refund(house: House, refunded_rappen: int, kind: str = "charge.refunded") -> str:
    """Let the provider have given back so much in all, and tell of it."""
    house.gateway.put("pi_1", refunded_rappen=refunded_rappen)
    return tell(house, kind)


def tell(house: House, kind: str = "charge.refunded") -> str:
    """Tell that something about the refunds of the payment changed."""
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"}
    receipt = {"id": "re_1", "object": "refund", "payment_intent": "pi_1"}
    return house.tell(kind, charge if kind == "charge.refunded" else receipt)


def told_inside(house: House, refunded_rappen: int) -> None:
    """Tell of a refund where nobody can be asked: inside a host's own transaction."""
    source = {
        "id": "ch_1", "payment_intent": "pi_1", "amount_captured": CHF_30,
        "amount_refunded": refunded_rappen,
    }  # fmt: skip
    house.run(lambda space: apply_told(space, "charge.refunded", source))


def left(refunded_rappen: int) -> int:
    """The credit that the rest of the money is worth."""
    return TEN_USD * (CHF_30 - min(refunded_rappen, CHF_30)) // CHF_30


def history(house: House) -> tuple[int, int]:
    """What the history's lines sum up to: credit in nano-USD and money in Rappen."""
    lines = [line for line in house.guthaben.topups(PRACTICE) if line.status == "succeeded"]
    return (
        sum(line.amount_nano_usd for line in lines),
        sum(line.price_rappen or 0 for line in lines),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rappen", [1, 999, 1_000, 1_500, 2_999, 3_000])
def test_a_refund_leaves_the_credit_of_the_money_that_is_left(
    bought: House, rappen: int, kind: str
) -> None:
    assert refund(bought, rappen, kind) == "done:netted"
    assert bought.credit() == left(rappen)
    assert history(bought) == (left(rappen), CHF_30 - rappen)


@pytest.mark.parametrize("cumulative", [
    [1_000, 2_000, 3_000],
    [1, 2, 3, 4],
    [1_000, 1_000, 1_000],
    [3_000, 3_000],
    [700, 1_400, 2_100, 2_800, 3_000],
])  # fmt: skip
def test_partial_refunds_add_up_without_a_rest(bought: House, cumulative: list[int]) -> None:
    for rappen in cumulative:
        refund(bought, rappen)
        assert bought.credit() == left(rappen)
    assert history(bought) == (left(cumulative[-1]), CHF_30 - cumulative[-1])


def test_the_same_refund_told_ten_times_counts_once(bought: House) -> None:
    words = [refund(bought, 1_000) for _ in range(10)]
    assert words == ["done:netted"] + ["done:duplicate"] * 9
    assert bought.credit() == left(1_000)
    assert len(bought.events()) == 2


@pytest.mark.parametrize("order", list(itertools.permutations([1_000, 2_000, 3_000])))
def test_what_the_provider_says_now_counts_in_whatever_order_the_events_come(
    bought: House, order: tuple[int, ...]
) -> None:
    bought.gateway.put("pi_1", refunded_rappen=2_000)
    for _told in order:  # each event tells an older or newer sum; the payment itself says 2000
        tell(bought)
    assert bought.credit() == left(2_000)


@pytest.mark.parametrize("order", [[2_500], [1_000, 2_500], [1_000, 2_000, 2_500, 2_500]])
def test_where_nobody_can_be_asked_the_sum_that_was_told_counts(
    bought: House, order: list[int]
) -> None:
    for rappen in order:
        told_inside(bought, rappen)
    assert bought.credit() == left(2_500)


@pytest.mark.parametrize("order", [[2_500, 1_000], [1_000, 2_500, 2_000], [2_500, 1_000, 2_000]])
def test_where_nobody_can_be_asked_an_older_sum_told_later_gives_nothing_back(
    bought: House, order: list[int]
) -> None:
    for rappen in order:
        told_inside(bought, rappen)
    assert bought.credit() == left(2_500)


def test_a_refund_that_failed_gives_its_credit_back(bought: House) -> None:
    refund(bought, 3_000)
    assert bought.credit() == 0
    assert refund(bought, 1_200, "refund.failed") == "done:netted"
    assert bought.credit() == left(1_200)
    assert refund(bought, 0, "charge.refund.updated") == "done:netted"
    assert bought.credit() == TEN_USD
    assert history(bought) == (TEN_USD, CHF_30)


def test_more_refunded_than_was_paid_takes_what_was_granted_and_no_more(bought: House) -> None:
    refund(bought, 9_999)
    assert bought.figures() == (0, 0, 0)
    assert history(bought) == (0, 0)


# ---------------------------------------------------------------- before its own success


def test_a_refund_told_before_its_purchase_waits_for_it(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(), refunded_rappen=1_000)
    tell(house)
    house.tell("checkout.session.completed", page_of())
    house.clock.wait(3_600)
    house.inbox.work_once()
    assert house.credit() == left(1_000)


def test_a_purchase_that_was_refunded_before_it_was_told_is_netted_at_once(house: House) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of(), refunded_rappen=3_000)
    house.tell("checkout.session.completed", page_of())
    assert house.credit() == 0


def test_a_refund_told_first_tells_of_its_payment_too(house: House) -> None:
    house.open_purchase(payment_id="pi_1")
    house.gateway.put("pi_1", metadata=metadata_of(), refunded_rappen=1_000)
    assert tell(house) == "done:credited"
    assert house.credit() == left(1_000)
    assert house.tell("checkout.session.completed", page_of()) == "done:duplicate"
    assert house.credit() == left(1_000)


def test_a_refund_of_a_foreign_payment_is_ignored(house: House) -> None:
    house.gateway.put("pi_1", metadata={}, refunded_rappen=1_000)
    assert tell(house) == "ignored:not_ours"
    assert house.alarms() == []


def test_a_payment_that_does_not_tell_its_refunds_is_asked_again(bought: House) -> None:
    bought.gateway.put("pi_1", refunded_rappen=None)
    assert tell(bought) == "new:invalid_input"
    bought.gateway.put("pi_1", refunded_rappen=1_500)
    bought.clock.wait(60)
    bought.inbox.work_once()
    assert bought.credit() == left(1_500)


def test_a_quarantined_payment_may_be_refunded(house: House) -> None:
    house.open_purchase()
    house.paid(price_rappen=1)
    house.gateway.put("pi_1", metadata=metadata_of(), refunded_rappen=3_000)
    assert tell(house).startswith("done:")


# ---------------------------------------------------------------- spent, held, owed


def test_spent_credit_becomes_debt_and_the_next_purchase_repays_it_first(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    refund(bought, 3_000)
    assert bought.figures() == (0, 0, 8 * USD)
    bought.open_purchase("tu_2", session_id="cs_2")
    bought.paid(topup_id="tu_2", session_id="cs_2", payment_id="pi_2")
    assert bought.figures() == (2 * USD, 0, 0)
    assert history(bought) == (TEN_USD, CHF_30)


def test_a_refund_never_touches_what_a_running_call_holds(bought: House) -> None:
    call = bought.guthaben.reserve(PRACTICE, 9 * USD, key="running")
    refund(bought, 3_000)
    assert bought.figures() == (0, 9 * USD, 9 * USD)
    assert call.settle(9 * USD).status == "settled"
    assert bought.figures() == (0, 0, 9 * USD)


def test_what_a_call_gives_back_after_the_refund_repays_the_debt(bought: House) -> None:
    call = bought.guthaben.reserve(PRACTICE, 9 * USD, key="running")
    refund(bought, 3_000)
    call.settle(2 * USD)
    assert bought.figures() == (0, 0, 2 * USD)


def test_a_refund_that_failed_after_the_credit_was_spent_repays_the_debt(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    refund(bought, 3_000)
    refund(bought, 0, "refund.failed")
    assert bought.figures() == (2 * USD, 0, 0)


def test_a_refund_takes_its_own_purchase_first_then_other_bought_credit(bought: House) -> None:
    bought.open_purchase("tu_2", session_id="cs_2")
    bought.paid(topup_id="tu_2", session_id="cs_2", payment_id="pi_2")
    bought.guthaben.grant(PRACTICE, 5 * USD, key="gift")
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")  # 5 of the gift, 3 of pi_1
    refund(bought, 3_000)
    assert bought.figures() == (7 * USD, 0, 0)
    assert history(bought) == (TEN_USD, CHF_30)


def test_a_gift_is_never_clawed_back_while_it_is_free_but_pays_the_debt(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 4 * USD, key="spent")
    bought.guthaben.grant(PRACTICE, 5 * USD, key="gift")
    refund(bought, 3_000)  # 6 from the purchase, 4 become debt, which the gift repays
    assert bought.figures() == (1 * USD, 0, 0)


def test_refunds_of_two_payments_are_two_equations(house: House) -> None:
    for number in (1, 2):
        names = {"topup_id": f"tu_{number}", "session_id": f"cs_{number}"}
        house.open_purchase(**names)
        house.paid(payment_id=f"pi_{number}", **names)
        house.gateway.put(f"pi_{number}", metadata=metadata_of(f"tu_{number}"))
    house.gateway.put("pi_2", refunded_rappen=1_500)
    about = {"id": "ch_2", "object": "charge", "payment_intent": "pi_2"}
    assert house.tell("charge.refunded", about) == "done:netted"
    assert [row["clawed_back_nano_usd"] for row in house.events()] == [0, TEN_USD // 2, 0]


def test_a_refund_shows_masked_ids_only(bought: House) -> None:
    refund(bought, 1_000)
    told = json.dumps([str(line) for line in bought.guthaben.topups(PRACTICE)])
    assert "pi_1" not in told
    assert "cs_1" not in told
