"""Refunds and disputes."""

import pytest
import stripe

from tests.sandbox.harness import Running, charge, saved_card


def paid(sandbox: Running, card: str = "4242424242424242") -> stripe.PaymentIntent:
    return charge(*saved_card(sandbox, card))


def test_partial_refunds_add_up(sandbox: Running) -> None:
    intent = paid(sandbox)
    first = stripe.Refund.create(payment_intent=intent.id, amount=1000, metadata={"why": "x"})
    assert (first.status, first.amount, first.charge) == ("succeeded", 1000, intent.latest_charge)
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Refund.create(charge=str(intent.latest_charge), amount=2001)
    stripe.Refund.create(charge=str(intent.latest_charge))
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.Refund.create(payment_intent=intent.id)
    assert caught.value.code == "charge_already_refunded"
    full = stripe.Charge.retrieve(str(intent.latest_charge), expand=["refunds"])
    assert (full.amount_refunded, full.refunded) == (3000, True)
    assert full.refunds is not None
    assert [refund.amount for refund in full.refunds.data] == [2000, 1000]
    assert len(stripe.Refund.list(payment_intent=intent.id).data) == 2

    sandbox.wait_idle()
    events = sandbox.receiver.verified()
    cumulative = [e.data.object["amount_refunded"] for e in events if e.type == "charge.refunded"]
    assert cumulative == [1000, 3000]
    created = [e.data.object["amount"] for e in events if e.type == "refund.created"]
    assert created == [1000, 2000]


def test_a_refund_fails_later(sandbox: Running) -> None:
    intent = paid(sandbox, "4000000000007726")
    refund = stripe.Refund.create(payment_intent=intent.id)
    assert refund.status == "pending"
    sandbox.control(f"/refunds/{refund.id}/settle", {"status": "failed"})
    assert stripe.Refund.retrieve(refund.id).status == "failed"
    assert stripe.Charge.retrieve(str(intent.latest_charge)).amount_refunded == 0
    sandbox.wait_for("refund.created", "refund.updated", "refund.failed")


def test_a_refund_as_in_the_dashboard(sandbox: Running) -> None:
    intent = paid(sandbox)
    sandbox.control(f"/charges/{intent.latest_charge}/refund", {"amount": 50})
    sandbox.wait_for("charge.refunded", "refund.created")
    assert stripe.Charge.retrieve(str(intent.latest_charge)).amount_refunded == 50


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute(sandbox: Running, end: str) -> None:
    intent = paid(sandbox)
    dispute = sandbox.control(f"/charges/{intent.latest_charge}/dispute")
    assert stripe.Charge.retrieve(str(intent.latest_charge)).disputed is True
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.Refund.create(payment_intent=intent.id)
    assert caught.value.code == "charge_disputed"
    sandbox.control(f"/disputes/{dispute['id']}/close", {"status": end})
    closed = stripe.Dispute.retrieve(dispute["id"])
    assert closed.status == end
    assert sum(t.amount for t in closed.balance_transactions) == (0 if end == "won" else -3000)
    wanted = ["charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed"]
    if end == "won":
        wanted.append("charge.dispute.funds_reinstated")
    sandbox.wait_idle()
    assert [t for t in sandbox.receiver.types() if "dispute" in t] == wanted


def test_an_inquiry_and_a_warning_move_no_money(sandbox: Running) -> None:
    intent = paid(sandbox)
    sandbox.control(f"/charges/{intent.latest_charge}/fraud_warning")
    dispute = sandbox.control(f"/charges/{intent.latest_charge}/dispute", {"inquiry": True})
    assert dispute["status"] == "warning_needs_response"
    sandbox.control(f"/disputes/{dispute['id']}/close", {"status": "warning_closed"})
    assert stripe.Dispute.list(payment_intent=intent.id).data[0].balance_transactions == []
    sandbox.wait_for("radar.early_fraud_warning.created", "charge.dispute.closed")
    assert len(stripe.BalanceTransaction.list(type="adjustment").data) == 0
    assert len(stripe.BalanceTransaction.list(type="charge").data) == 1
