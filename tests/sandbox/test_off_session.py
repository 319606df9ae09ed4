"""Charging a saved card without its holder."""

import time

import pytest
import stripe

from tests.sandbox.harness import Running, charge, saved_card, some, wait_until


def test_a_good_card_pays(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    intent = charge(customer, method, "topup:1", metadata={"topup": "1"})
    assert (intent.status, intent.amount_received) == ("succeeded", 3000)
    again = stripe.PaymentIntent.retrieve(intent.id, expand=["latest_charge.balance_transaction"])
    assert isinstance(again.latest_charge, stripe.Charge)
    booked = again.latest_charge.balance_transaction
    assert isinstance(booked, stripe.BalanceTransaction)
    assert (booked.amount, booked.net) == (3000, 3000 - booked.fee)
    assert again.latest_charge.metadata.to_dict() == {"topup": "1"}
    sandbox.wait_for("payment_intent.succeeded")
    succeeded = [e for e in sandbox.receiver.verified() if e.type == "payment_intent.succeeded"]
    assert succeeded[0].request is not None
    assert succeeded[0].request.idempotency_key == "topup:1"
    assert succeeded[0].data.object["latest_charge"] == again.latest_charge.id


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("4000000000000341", "card_declined", "generic_decline"),
        ("4000000000006405", "card_declined", "insufficient_funds"),
        ("4000000000006603", "card_declined", "stolen_card"),
        ("4000000000006504", "expired_card", None),
    ],
)
def test_a_card_saves_and_declines_later(
    sandbox: Running, card: str, code: str, decline_code: str | None
) -> None:
    customer, method = saved_card(sandbox, card)
    with pytest.raises(stripe.CardError) as caught:
        charge(customer, method)
    error = caught.value
    assert (error.http_status, error.code) == (402, code)
    assert error.error is not None
    assert getattr(error.error, "decline_code", None) == decline_code
    intent = stripe.PaymentIntent.retrieve(some(error.error.payment_intent)["id"])
    assert intent.status == "requires_payment_method"
    assert intent.payment_method is None
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == code
    failed = stripe.Charge.retrieve(str(intent.latest_charge))
    assert (failed.status, failed.paid, failed.failure_code) == ("failed", False, code)
    sandbox.wait_for("payment_intent.payment_failed", "charge.failed")


def test_authentication_is_required(sandbox: Running) -> None:
    customer, method = saved_card(sandbox, "4000002500003155")
    with pytest.raises(stripe.CardError) as caught:
        charge(customer, method)
    assert (caught.value.http_status, caught.value.code) == (402, "authentication_required")
    assert caught.value.error is not None
    intent = some(caught.value.error.payment_intent)
    assert intent["status"] == "requires_payment_method"
    assert intent["client_secret"].startswith(intent["id"])

    # With the holder present the same intent asks for authentication, and succeeds once.
    asked = stripe.PaymentIntent.confirm(intent["id"], payment_method=method)
    assert asked.status == "requires_action"
    assert asked.next_action is not None
    page = asked.next_action["redirect_to_url"]["url"]
    assert "CHF 30.00" in sandbox.http.get(page).text
    assert sandbox.http.post(page, data={"action": "complete"}).status_code == 200
    assert stripe.PaymentIntent.retrieve(asked.id).status == "succeeded"
    assert sandbox.http.post(page, data={"action": "complete"}).status_code == 404
    assert sandbox.charges() == 1


def test_a_failed_authentication_takes_no_money(sandbox: Running) -> None:
    asked = stripe.PaymentIntent.create(
        amount=500,
        currency="chf",
        payment_method="pm_card_threeDSecure2Required",
        confirm=True,
        return_url="http://127.0.0.1:9/back?a=b",
    )
    page = f"/c/authenticate/{asked.id}"
    back = sandbox.http.post(page, data={"action": "fail"})
    assert back.headers["location"] == f"http://127.0.0.1:9/back?a=b&payment_intent={asked.id}"
    assert stripe.PaymentIntent.retrieve(asked.id).status == "requires_payment_method"
    # The same intent may still be paid in another way, once.
    paid = stripe.PaymentIntent.confirm(asked.id, payment_method="pm_card_visa")
    assert paid.status == "succeeded"
    assert (sandbox.charges(), sandbox.charges("failed")) == (1, 1)


def test_methods_are_made_from_numbers(sandbox: Running) -> None:
    made = stripe.PaymentMethod.create(type="card", card={"number": "4000000000000341"})
    assert made.card is not None
    assert made.card.last4 == "0341"
    token = stripe.PaymentMethod.create(type="card", card={"token": "tok_visa"})
    assert stripe.PaymentMethod.retrieve(token.id).customer is None
    with pytest.raises(stripe.CardError) as caught:
        stripe.PaymentMethod.create(type="card", card={"number": "4111"})
    assert caught.value.code == "incorrect_number"


def test_an_order_changes_what_a_saved_card_does(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": "do_not_honor"})
    with pytest.raises(stripe.CardError) as caught:
        charge(customer, method)
    assert caught.value.error is not None
    assert caught.value.error.decline_code == "do_not_honor"
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": None})
    assert charge(customer, method).status == "succeeded"


@pytest.mark.parametrize(
    ("token", "decline_code"),
    [
        ("pm_card_visa", None),
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedLostCard", "lost_card"),
        ("pm_card_authenticationRequired", "authentication_required"),
    ],
)
def test_well_known_methods(sandbox: Running, token: str, decline_code: str | None) -> None:
    customer = stripe.Customer.create()
    if decline_code is None:
        assert charge(customer.id, token).status == "succeeded"
        return
    with pytest.raises(stripe.CardError) as caught:
        charge(customer.id, token)
    assert caught.value.error is not None
    assert caught.value.error.decline_code == decline_code


def test_a_slow_answer_after_a_timeout_is_one_charge(
    sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, method = saved_card(sandbox, "4000000000006306")
    with monkeypatch.context() as hasty:
        hasty.setattr(stripe, "default_http_client", stripe.RequestsClient(timeout=0.1))
        with pytest.raises(stripe.APIConnectionError):
            charge(customer, method, "topup:9")
    with pytest.raises(stripe.APIError) as running:
        charge(customer, method, "topup:9")
    assert running.value.http_status == 409
    wait_until(lambda: sandbox.charges() == 1)
    intent = charge(customer, method, "topup:9")
    assert intent.status == "succeeded"
    assert some(intent.last_response).headers["Idempotent-Replayed"] == "true"
    time.sleep(0.05)
    assert sandbox.charges() == 1


def test_processing_stays_open_until_settled(sandbox: Running) -> None:
    customer, method = saved_card(sandbox, "4000000000006207")
    intent = charge(customer, method)
    assert intent.status == "processing"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.PaymentIntent.cancel(intent.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    sandbox.control(f"/payment_intents/{intent.id}/settle")
    assert stripe.PaymentIntent.retrieve(intent.id).status == "succeeded"
    assert sandbox.charges() == 1
    sandbox.wait_for("payment_intent.processing", "payment_intent.succeeded")


def test_a_detached_or_foreign_method_is_refused(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    other = stripe.Customer.create()
    with pytest.raises(stripe.InvalidRequestError):
        charge(other.id, method)
    assert stripe.PaymentMethod.detach(method).customer is None
    with pytest.raises(stripe.InvalidRequestError):
        charge(customer, method)
    stripe.Customer.delete(other.id)
    assert stripe.Customer.retrieve(other.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError):
        charge(other.id, "pm_card_visa")


def test_attach_and_defaults(sandbox: Running) -> None:
    customer = stripe.Customer.create(email="a@example.ch")
    method = stripe.PaymentMethod.attach("pm_card_visa", customer=customer.id)
    stripe.Customer.modify(
        customer.id, invoice_settings={"default_payment_method": method.id}, metadata={"a": "1"}
    )
    again = stripe.Customer.retrieve(customer.id)
    assert again.invoice_settings is not None
    assert again.invoice_settings.default_payment_method == method.id
    listed = stripe.Customer.list_payment_methods(customer.id)
    assert [m.id for m in listed.data] == [method.id]
    with pytest.raises(stripe.CardError):
        stripe.PaymentMethod.attach("pm_card_chargeDeclined", customer=customer.id)


def test_a_canceled_intent_takes_no_money(sandbox: Running) -> None:
    intent = stripe.PaymentIntent.create(amount=500, currency="chf")
    assert intent.status == "requires_payment_method"
    assert stripe.PaymentIntent.cancel(intent.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        stripe.PaymentIntent.confirm(intent.id, payment_method="pm_card_visa")
    assert caught.value.code == "payment_intent_unexpected_state"
    assert sandbox.charges() == 0


def test_lists_page_and_filter(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    made = [charge(customer, method).id for _ in range(5)]
    charge(stripe.Customer.create().id, "pm_card_visa")
    first = stripe.PaymentIntent.list(customer=customer, limit=2)
    assert first.has_more is True
    assert [i.id for i in first.auto_paging_iter()] == made[::-1]
    assert stripe.PaymentIntent.list(limit=2, ending_before=made[0]).data[-1].id == made[1]
    now_s = sandbox.look("/clock")["now_s"]
    assert len(stripe.PaymentIntent.list(created={"gte": now_s - 60}).data) == 6
    assert stripe.PaymentIntent.list(created={"gt": now_s + 60}).data == []
    succeeded = stripe.Event.list(type="charge.succeeded")
    assert len(succeeded.data) == 6
