"""Refunds that an operator asks for: recorded before they are sent, taken from the credit once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guthaben.errors import (
    IdempotencyConflict,
    InvalidAmount,
    InvalidInput,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
    Refused,
)
from guthaben.payments.facts import RefundReceipt
from guthaben.services.refunds import Refund, Refunds, Wish
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
from tests.services.test_refunds import left, tell

HOUR_S = 3_600


@pytest.fixture
def bought(house: House) -> House:
    """30 CHF were paid for 10 USD."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    return house


def desk(house: House) -> Refunds:
    """Where refunds are asked for."""
    return house.inbox.refunds


def give(house: House, rappen: int | None, key: str = "k1", **more: bool) -> Refund:
    """Ask for a refund of the purchase."""
    return desk(house).refund("tu_1", Wish(rappen, key, "bought by mistake", "ada", **more))


def row(house: House) -> dict[str, object]:
    """The one request."""
    (found,) = house.rows("SELECT * FROM credit_refund")
    return found


@pytest.mark.parametrize("rappen", [1, 999, 1_500, 3_000, None])
def test_a_refund_takes_its_credit_at_once(bought: House, rappen: int | None) -> None:
    given = give(bought, rappen)
    assert (given.status, given.amount_rappen) == ("succeeded", rappen or CHF_30)
    assert bought.credit() == left(rappen or CHF_30)


@pytest.mark.parametrize("ref", ["tu_1", "pi_1"])
def test_the_largest_amounts_are_told(bought: House, ref: str) -> None:
    bought.guthaben.record_usage(PRACTICE, 4 * USD, key="spent")
    quote = desk(bought).quote(ref)
    assert (quote.captured_rappen, quote.refundable_rappen, quote.unspent_rappen) == (
        3_000, 3_000, 1_800,
    )  # fmt: skip
    give(bought, 1_000)
    quote = desk(bought).quote(ref, PRACTICE)
    assert (quote.left_rappen, quote.refundable_rappen, quote.unspent_rappen) == (2_000, 2_000, 800)


def test_the_unspent_part_is_exact_to_the_rappen(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 4 * USD + 1, key="spent")
    most = desk(bought).quote("tu_1").unspent_rappen
    with pytest.raises(Refused, match="allow debt"):
        give(bought, most + 1)
    give(bought, most)
    assert bought.figures()[2] == 0
    assert bought.credit() < USD // 100 // 3 + 1  # less than one more Rappen buys


def test_held_credit_counts_as_spent(bought: House) -> None:
    bought.guthaben.reserve(PRACTICE, 9 * USD, key="running")
    assert desk(bought).quote("tu_1").unspent_rappen == 300


def test_other_paid_credit_covers_a_refund_as_its_booking_would(bought: House) -> None:
    bought.open_purchase("tu_2", session_id="cs_2")
    bought.paid(topup_id="tu_2", session_id="cs_2", payment_id="pi_2")
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    assert desk(bought).quote("tu_1").unspent_rappen == CHF_30
    give(bought, None)
    assert bought.figures() == (2 * USD, 0, 0)


def test_spent_credit_becomes_debt_only_where_that_is_allowed(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="spent")
    with pytest.raises(Refused) as caught:
        give(bought, None)
    assert caught.value.reason == "more_than_unspent"
    assert "30.00 CHF" in str(caught.value)
    assert "6.00 CHF" in str(caught.value)
    assert bought.rows("SELECT * FROM credit_refund") == []
    give(bought, None, allow_debt=True)
    assert bought.figures() == (0, 0, 8 * USD)


@pytest.mark.parametrize("rappen", [3_001, 10**9])
def test_more_than_is_left_is_refused(bought: House, rappen: int) -> None:
    with pytest.raises(Refused) as caught:
        give(bought, rappen, allow_debt=True)
    assert caught.value.reason == "more_than_left"
    assert "refund" not in bought.gateway.methods()


def test_what_a_dispute_withholds_is_not_refunded_too(bought: House) -> None:
    bought.gateway.dispute("pi_1", "needs_response", amount_rappen=2_000)
    assert desk(bought).quote("tu_1").refundable_rappen == 1_000


@pytest.mark.parametrize("rappen", [0, -1, True, 1.5, "5"])
def test_an_amount_is_whole_and_more_than_nothing(bought: House, rappen: int) -> None:
    with pytest.raises(InvalidAmount):
        give(bought, rappen)


@pytest.mark.parametrize("reason", ["", "x", "   "])
def test_a_refund_says_why(bought: House, reason: str) -> None:
    with pytest.raises(InvalidInput):
        desk(bought).refund("tu_1", Wish(1, "k", reason))


@pytest.mark.parametrize("ref", ["tu_9", "pi_9", "x"])
def test_a_payment_that_is_not_ours_is_not_found(bought: House, ref: str) -> None:
    with pytest.raises(Refused) as caught:
        desk(bought).refund(ref, Wish(1, "k", "because"))
    assert caught.value.reason == "payment_not_found"


def test_anothers_payment_answers_as_a_missing_one(bought: House) -> None:
    with pytest.raises(Refused) as caught:
        desk(bought).refund("tu_1", Wish(1, "k", "because"), OTHER)
    assert caught.value.reason == "payment_not_found"


# ---------------------------------------------------------------- once


def test_the_same_key_is_done_once(bought: House) -> None:
    first, again = give(bought, 1_000), give(bought, 1_000)
    assert (first.refund_id, again.replayed) == (again.refund_id, True)
    assert bought.credit() == left(1_000)
    with pytest.raises(IdempotencyConflict):
        give(bought, 999)
    assert bought.gateway.methods().count("refund") == 1


def test_ten_threads_with_one_key_refund_once(bought: House) -> None:
    found = in_parallel(10, lambda _i: give(bought, 1_000))
    assert len({one.refund_id for one in found if isinstance(one, Refund)}) == 1
    assert bought.credit() == left(1_000)


def test_two_operators_at_once_never_refund_more_than_was_paid(bought: House) -> None:
    in_parallel(6, lambda i: give(bought, 2_000, f"k{i}"))
    assert bought.gateway.payments["pi_1"].refunded_rappen == 2_000
    assert bought.credit() == left(2_000)


@pytest.mark.parametrize("first", ["operator", "event"])
def test_credit_is_taken_once_whoever_is_first(bought: House, first: str) -> None:
    if first == "event":  # the event comes while the answer is on its way
        bought.gateway.refund_lost = True
        assert give(bought, 1_000).status == "unknown"
        assert tell(bought) == "done:netted"
        assert tell(bought, "refund.updated") == "done:duplicate"
        assert row(bought)["status"] == "succeeded"  # and tells what became of ours
        bought.clock.wait(60)
        assert desk(bought).resolve_waiting() == 0
    else:
        give(bought, 1_000)
        for _ in range(3):
            assert tell(bought) == "done:duplicate"
    assert bought.credit() == left(1_000)
    assert bought.gateway.payments["pi_1"].refunded_rappen == 1_000


# ---------------------------------------------------------------- lost answers


def test_the_request_is_committed_before_the_provider_hears_of_it(bought: House) -> None:
    seen = []
    real = bought.gateway.refund

    def look(*args: object) -> object:
        seen.extend(bought.rows("SELECT status, attempts, idempotency_key FROM credit_refund"))
        return real(*args)  # type: ignore[arg-type]

    bought.gateway.refund = look  # type: ignore[method-assign, assignment]
    give(bought, 1_000)
    assert [(one["status"], one["attempts"]) for one in seen] == [("pending", 1)]
    assert bought.gateway.asked[-3].others_could_write


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_key(bought: House) -> None:
    bought.gateway.refund_lost = True
    assert give(bought, 1_000).status == "unknown"
    assert bought.credit() == TEN_USD
    assert desk(bought).resolve_waiting() == 0  # not due yet
    bought.clock.wait(60)
    assert desk(bought).resolve_waiting() == 1
    assert (row(bought)["status"], bought.credit()) == ("succeeded", left(1_000))
    keys = {seen.argument[2] for seen in bought.gateway.asked if seen.method == "refund"}
    assert len(keys) == 1
    assert bought.gateway.payments["pi_1"].refunded_rappen == 1_000


@pytest.mark.parametrize("made", [True, False])
def test_after_twelve_hours_it_is_looked_up_and_never_sent(bought: House, made: bool) -> None:
    if made:
        bought.gateway.refund_lost = True
    else:
        bought.gateway.refund_steps.append(PaymentOutcomeUnknown("lost"))
    give(bought, 1_000)
    bought.clock.wait(12 * HOUR_S + 1)
    asked = bought.gateway.methods().count("refund")
    assert desk(bought).resolve_waiting() == 1
    assert bought.gateway.methods().count("refund") == asked
    assert row(bought)["status"] == ("succeeded" if made else "failed")
    assert bought.credit() == (left(1_000) if made else TEN_USD)
    assert ("refund_failed" in bought.alarms()) is not made


def test_a_process_that_died_before_it_sent_is_followed_by_another(bought: House) -> None:
    class Died(BaseException):
        pass

    def dies(*_args: object) -> object:
        raise Died

    real, bought.gateway.refund = bought.gateway.refund, dies  # type: ignore[method-assign, assignment]
    with pytest.raises(Died):
        give(bought, 1_000)
    assert row(bought)["status"] == "pending"
    bought.gateway.refund = real  # type: ignore[method-assign]
    bought.clock.wait(60)
    assert desk(bought).resolve_waiting() == 1
    assert bought.credit() == left(1_000)


def test_while_one_has_no_answer_no_second_one_is_sent(bought: House) -> None:
    bought.gateway.refund_lost = True
    give(bought, 1_000)
    with pytest.raises(Refused) as caught:
        give(bought, 500, "k2")
    assert caught.value.reason == "refund_in_flight"


def test_a_provider_that_is_down_has_done_nothing(bought: House) -> None:
    bought.gateway.refund_steps.append(PaymentUnavailable("down"))
    with pytest.raises(PaymentUnavailable):
        give(bought, 1_000)
    assert (row(bought)["status"], bought.credit()) == ("canceled", TEN_USD)
    assert give(bought, 1_000, "k2").status == "succeeded"


def test_a_refund_the_provider_refuses_has_failed(bought: House) -> None:
    bought.gateway.refund_steps.append(PaymentRejected("no", provider_code="charge_disputed"))
    with pytest.raises(PaymentRejected):
        give(bought, 1_000)
    assert (row(bought)["status"], row(bought)["reason"]) == ("failed", "charge_disputed")
    assert bought.credit() == TEN_USD


@pytest.mark.parametrize("first", ["pending", "succeeded"])
def test_a_refund_that_fails_later_gives_the_credit_back(bought: House, first: str) -> None:
    bought.gateway.refund_steps.append(first)
    given = give(bought, 1_000)
    assert given.status == ("sent" if first == "pending" else "succeeded")
    assert bought.credit() == left(1_000)
    bought.gateway.refund_fails("re_1")
    assert tell(bought, "refund.failed") == "done:netted"
    assert (row(bought)["status"], bought.credit()) == ("failed", TEN_USD)
    assert "refund_failed" in bought.alarms()
    assert give(bought, 1_000, "again").status == "succeeded"


@pytest.mark.parametrize("late", ["pending", "requires_action", PaymentOutcomeUnknown("lost")])
def test_a_late_first_answer_undoes_nothing_that_was_told(
    bought: House, late: str | Exception
) -> None:
    """The refund is made and told of while the answer to the first request is on its way."""
    real = bought.gateway.refund

    def slow(*args: object) -> object:
        receipt = real(*args)  # type: ignore[arg-type]
        assert tell(bought) == "done:netted"
        assert row(bought)["status"] == "succeeded"
        if isinstance(late, Exception):
            raise late
        return replace(receipt, status=late)

    bought.gateway.refund = slow  # type: ignore[method-assign, assignment]
    given = give(bought, 1_000)
    assert (given.status, bought.credit()) == ("succeeded", left(1_000))
    assert desk(bought).resolve_waiting() == 0


def test_a_look_up_that_finds_nothing_undoes_nothing_that_was_told(bought: House) -> None:
    bought.gateway.refund_lost = True
    give(bought, 1_000)
    bought.clock.wait(12 * HOUR_S + 1)
    real = bought.gateway.payment_refunds

    def slow(payment_id: str) -> list[RefundReceipt]:
        bought.gateway.payment_refunds = real  # type: ignore[method-assign]
        assert tell(bought) == "done:netted"
        return []  # what was read before the refund arrived

    bought.gateway.payment_refunds = slow  # type: ignore[method-assign]
    desk(bought).resolve_waiting()
    assert (row(bought)["status"], bought.credit()) == ("succeeded", left(1_000))
    assert "refund_failed" not in bought.alarms()


def test_who_and_why_can_be_erased(bought: House) -> None:
    given = give(bought, 1_000)
    bought.change("UPDATE credit_operator_note SET author = NULL, reason = NULL")
    (note,) = bought.rows("SELECT * FROM credit_operator_note")
    assert (note["subject"], note["author"]) == (f"refund:{given.refund_id}", None)
    assert bought.guthaben.verify().ok


def test_what_waits_is_not_offered_again(bought: House) -> None:
    bought.gateway.refund_lost = True
    give(bought, 1_000)
    bought.gateway.put("pi_1", refunded_rappen=0)  # it was not made after all, but who knows
    quote = desk(bought).quote("tu_1")
    assert (quote.waiting_rappen, quote.refundable_rappen) == (1_000, 2_000)
