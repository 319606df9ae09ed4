"""Disputes through all their states, fraud warnings, and payments that end late."""

from itertools import pairwise

import httpx
import pytest
import stripe

from guthaben.sandbox.disputes import STATES
from guthaben.sandbox.errors import ApiError
from tests.sandbox.harness import Account, buy, charge, some

REFUSED = (ApiError, httpx.HTTPStatusError)

# the way of a dispute, the events it tells, the sum of its bookings, the fees
WAYS = [
    (["needs_response", "won"], "created funds_withdrawn closed funds_reinstated", 0, 2000),
    (["needs_response", "lost"], "created funds_withdrawn closed", -3000, 2000),
    (
        ["needs_response", "under_review", "won"],
        "created funds_withdrawn updated closed funds_reinstated",
        0,
        2000,
    ),
    (["needs_response", "under_review", "lost", "won"],
     "created funds_withdrawn updated closed closed funds_reinstated", 0, 2000),
    (["warning_needs_response", "warning_closed"], "created closed", 0, 0),
    (["warning_needs_response", "warning_under_review", "warning_closed"],
     "created updated closed", 0, 0),
    (["warning_needs_response", "warning_under_review", "needs_response", "under_review", "lost"],
     "created updated updated funds_withdrawn updated closed", -3000, 2000),
    (["warning_needs_response", "needs_response", "won"],
     "created updated funds_withdrawn closed funds_reinstated", 0, 2000),
]  # fmt: skip


@pytest.mark.parametrize(("way", "told", "amount", "fee"), WAYS)
def test_every_way_of_a_dispute(
    account: Account, way: list[str], told: str, amount: int, fee: int
) -> None:
    intent = account.paid()
    inquiry = way[0].startswith("warning")
    dispute = account.control(f"/charges/{intent.latest_charge}/dispute", {"inquiry": inquiry})
    assert dispute["status"] == way[0]
    for status in way[1:]:
        account.control(f"/disputes/{dispute['id']}/move", {"status": status})
        assert stripe.Dispute.retrieve(dispute["id"]).status == status
    assert account.types("charge.dispute.") == [f"charge.dispute.{name}" for name in told.split()]
    booked = stripe.Dispute.retrieve(dispute["id"]).balance_transactions
    assert (sum(b.amount for b in booked), sum(b.fee for b in booked)) == (amount, fee)
    listed = stripe.BalanceTransaction.list(source=dispute["id"]).data
    assert [b.id for b in listed] == [b.id for b in reversed(booked)]


def test_all_states_are_walked_and_no_other_step_is_possible(account: Account) -> None:
    assert {status for way, *_ in WAYS for status in way} == set(STATES)
    allowed = {pair for way, *_ in WAYS for pair in pairwise(way)}
    tried = 0
    for way in (["needs_response"], ["warning_needs_response"], ["needs_response", "won"]):
        inquiry = way[0].startswith("warning")
        intent = account.paid()
        dispute = account.control(f"/charges/{intent.latest_charge}/dispute", {"inquiry": inquiry})
        for status in way[1:]:
            account.control(f"/disputes/{dispute['id']}/move", {"status": status})
        for status in STATES:
            if (way[-1], status) not in allowed:
                with pytest.raises(REFUSED):
                    account.control(f"/disputes/{dispute['id']}/move", {"status": status})
                tried += 1
    assert tried == 4 + 4 + 7


def test_evidence_brings_it_under_review_and_giving_up_loses(account: Account) -> None:
    first, second = account.paid(), account.paid()
    ids = [account.control(f"/charges/{i.latest_charge}/dispute")["id"] for i in (first, second)]
    kept = stripe.Dispute.modify(
        ids[0], evidence={"uncategorized_text": "A"}, submit=False, metadata={"case": "1"}
    )
    assert (kept.status, kept.metadata["case"]) == ("needs_response", "1")
    handed = stripe.Dispute.modify(ids[0], evidence={"product_description": "Credit"})
    assert (handed.status, handed.evidence.uncategorized_text) == ("under_review", "A")
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Dispute.modify(ids[0], evidence={"product_description": "again"})
    assert stripe.Dispute.close(ids[1]).status == "lost"


def test_a_part_is_disputed_and_an_inquiry_can_be_refunded(account: Account) -> None:
    intent = account.paid()
    dispute = account.control(f"/charges/{intent.latest_charge}/dispute", {"amount": 1200})
    assert dispute["balance_transactions"][0]["net"] == -1200 - 2000
    with pytest.raises(REFUSED):
        account.control(f"/charges/{intent.latest_charge}/dispute")
    other = account.paid()
    with pytest.raises(REFUSED):
        account.control(f"/charges/{other.latest_charge}/dispute", {"amount": 3001})
    account.control(f"/charges/{other.latest_charge}/dispute", {"inquiry": True})
    assert stripe.Refund.create(payment_intent=other.id).status == "succeeded"


def test_a_fraud_warning_and_what_a_full_refund_does_to_it(account: Account) -> None:
    intent = account.paid()
    made = account.control(f"/charges/{intent.latest_charge}/fraud_warning")
    [listed] = stripe.radar.EarlyFraudWarning.list(payment_intent=intent.id).data
    assert (listed.id, listed.actionable) == (made["id"], True)
    stripe.Refund.create(payment_intent=intent.id, amount=1)
    assert stripe.radar.EarlyFraudWarning.retrieve(made["id"]).actionable
    stripe.Refund.create(payment_intent=intent.id)
    assert not stripe.radar.EarlyFraudWarning.retrieve(made["id"]).actionable
    assert account.types("radar.") == [
        "radar.early_fraud_warning.created", "radar.early_fraud_warning.updated"
    ]  # fmt: skip


# -- payments that end late


@pytest.mark.parametrize("outcome", ["succeeds", "insufficient_funds"])
def test_processing_ends_later(account: Account, outcome: str) -> None:
    intent = account.paid("4000000000006207")
    assert intent.status == "processing"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.PaymentIntent.cancel(intent.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    account.pass_s(3 * 86_400)
    account.control(f"/payment_intents/{intent.id}/settle", {"outcome": outcome})
    status = "succeeded" if outcome == "succeeds" else "requires_payment_method"
    assert stripe.PaymentIntent.retrieve(intent.id).status == status
    [charged] = account.objects("charge")
    assert charged["paid"] is (outcome == "succeeds")


@pytest.mark.parametrize("outcome", ["succeeds", "authentication_required"])
def test_the_customer_comes_back_to_authenticate(account: Account, outcome: str) -> None:
    customer, method = account.saved("4000002500003155")
    with pytest.raises(stripe.CardError) as caught:
        charge(customer, method)
    intent_id = some(some(caught.value.error).payment_intent)["id"]
    account.pass_s(7 * 86_400)
    account.control(f"/payment_intents/{intent_id}/come_back", {"outcome": outcome})
    status = "succeeded" if outcome == "succeeds" else "requires_payment_method"
    assert stripe.PaymentIntent.retrieve(intent_id).status == status
    assert "payment_intent.requires_action" in account.types()


def test_an_old_intent_is_canceled_once(account: Account) -> None:
    customer, method = account.saved("4000002500003155")
    with pytest.raises(stripe.CardError) as caught:
        charge(customer, method)
    intent_id = some(some(caught.value.error).payment_intent)["id"]
    canceled = stripe.PaymentIntent.cancel(intent_id, cancellation_reason="abandoned")
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(REFUSED):
        account.control(f"/payment_intents/{intent_id}/come_back")
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.cancel(intent_id)
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.cancel(account.paid().id)


def test_the_payment_of_a_session_is_only_ended_by_the_session(account: Account) -> None:
    session = buy()
    account.control(f"/checkout/{session.id}/decline")
    intent_id = str(stripe.checkout.Session.retrieve(session.id).payment_intent)
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.cancel(intent_id)
    stripe.checkout.Session.expire(session.id)
    assert stripe.PaymentIntent.retrieve(intent_id).status == "canceled"


# -- refunds


def test_refunds_begin_as_ordered_and_fail_even_late(account: Account) -> None:
    intent = account.paid()
    account.control("/refunds/order", {"status": "pending"})
    first = stripe.Refund.create(payment_intent=intent.id, amount=1000)
    second = stripe.Refund.create(payment_intent=intent.id, amount=500)
    assert (first.status, second.status) == ("pending", "pending")
    account.control(f"/refunds/{first.id}/settle", {"status": "succeeded"})
    account.control(f"/refunds/{second.id}/settle", {"status": "failed"})
    account.pass_s(30 * 86_400)
    account.control(f"/refunds/{first.id}/settle", {"status": "failed"})
    [charged] = account.objects("charge")
    assert (charged["amount_refunded"], charged["refunded"]) == (0, False)
    with pytest.raises(REFUSED):
        account.control(f"/refunds/{first.id}/settle", {"status": "succeeded"})
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Refund.cancel(first.id)
    assert sum(b.amount for b in stripe.BalanceTransaction.list(limit=100).data) == 3000
