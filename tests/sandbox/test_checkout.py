"""Checkout: paying and setting up, by control and by the hosted page's own form."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import stripe

from tests.sandbox.harness import Running, buy, charge, some, wait_until


def page_of(sandbox: Running, session: stripe.checkout.Session) -> httpx.Response:
    assert session.url is not None
    return sandbox.http.get(session.url)


def press(
    sandbox: Running, url: str | None, action: str, card: str | None = None
) -> httpx.Response:
    form = {"action": action, "email": "praxis@example.ch"} | ({"card": card} if card else {})
    return sandbox.http.post(str(url), data=form)


def test_a_session_is_paid_by_control_and_tells_everybody(sandbox: Running) -> None:
    session = buy(client_reference_id="prac_7")
    assert session.status == "open"
    assert session.payment_intent is None
    done = sandbox.control(f"/checkout/{session.id}/pay", {"card": "4242 4242 4242 4242"})
    assert done["redirect_url"] == f"http://127.0.0.1:9/ok?s={session.id}"

    paid = stripe.checkout.Session.retrieve(session.id, expand=["payment_intent.latest_charge"])
    assert (paid.status, paid.payment_status, paid.amount_total) == ("complete", "paid", 3000)
    assert some(paid.metadata).to_dict() == {"topup": "t1"}
    assert paid.client_reference_id == "prac_7"
    assert paid.customer is None
    intent = paid.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert (intent.status, intent.amount_received) == ("succeeded", 3000)
    assert intent.metadata.to_dict() == {"purpose": "topup"}
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert intent.latest_charge.status == "succeeded"

    wanted = ("payment_intent.succeeded", "charge.succeeded", "checkout.session.completed")
    sandbox.wait_for("payment_intent.created", *wanted)
    for event in sandbox.receiver.verified():
        data = event.data.object
        if event.type == "checkout.session.completed":
            assert data["payment_intent"] == intent.id


def test_the_hosted_page_is_clicked(sandbox: Running) -> None:
    session = buy(metadata={"x": "<b>"}, customer_creation="always")
    page = page_of(sandbox, session)
    assert page.status_code == 200
    assert "CHF 30.00" in page.text
    assert "KI-Guthaben" in page.text
    cards = re.findall(r'name="card" value="(\d{16})"', page.text)
    assert "4242424242424242" in cards
    assert re.findall(r'name="action" value="(\w+)"', page.text) == ["pay", "decline", "cancel"]
    assert "http" not in page.text.replace(sandbox.url, "")

    declined = press(sandbox, session.url, "decline", "4242424242424242")
    assert 'role="alert">The card was declined.' in declined.text
    assert stripe.checkout.Session.retrieve(session.id).status == "open"

    canceled = press(sandbox, session.url, "cancel")
    assert canceled.headers["location"] == "http://127.0.0.1:9/cancel"

    done = press(sandbox, session.url, "pay", "4242424242424242")
    assert done.status_code == 303
    assert done.headers["location"] == f"http://127.0.0.1:9/ok?s={session.id}"
    paid = stripe.checkout.Session.retrieve(session.id, expand=["customer"])
    assert isinstance(paid.customer, stripe.Customer)
    assert paid.customer.email == "praxis@example.ch"
    assert paid.customer_details is not None
    assert paid.customer_details.email == "praxis@example.ch"

    again = press(sandbox, session.url, "pay", "4242424242424242")
    assert again.status_code == 303
    assert sandbox.charges() == 1
    assert sandbox.charges("failed") == 1
    # One intent for both tries, as at Stripe.
    assert len(sandbox.objects("payment_intent")) == 1
    sandbox.wait_for("payment_intent.payment_failed", "customer.created")


def test_the_page_escapes_what_it_is_given(sandbox: Running) -> None:
    price = {"currency": "chf", "unit_amount": 3000, "product_data": {"name": "<script>x</script>"}}
    session = buy(line_items=[{"price_data": price, "quantity": 2}])
    page = page_of(sandbox, session)
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "CHF 60.00" in page.text
    assert sandbox.http.get("/c/pay/cs_test_nothing").status_code == 404


def test_a_method_is_saved_only_for_a_customer(sandbox: Running) -> None:
    data = {"setup_future_usage": "off_session", "metadata": {"a": "b"}}
    alone = buy(payment_intent_data=data)
    sandbox.control(f"/checkout/{alone.id}/pay")
    saved = buy(payment_intent_data=data, customer_creation="always")
    done = sandbox.control(f"/checkout/{saved.id}/pay")

    first, second = sandbox.objects("payment_intent")
    customer = done["session"]["customer"]
    assert stripe.PaymentMethod.retrieve(first["payment_method"]).customer is None
    assert stripe.PaymentMethod.retrieve(second["payment_method"]).customer == customer
    assert charge(customer, second["payment_method"], "k").status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        charge(customer, first["payment_method"])


def test_a_given_customer_is_kept(sandbox: Running) -> None:
    customer = stripe.Customer.create(email="a@example.ch", metadata={"practice": "7"})
    session = buy(customer=customer.id)
    assert session.customer_creation is None
    done = sandbox.control(f"/checkout/{session.id}/pay")
    assert done["session"]["customer"] == customer.id
    listed = stripe.PaymentIntent.list(customer=customer.id)
    assert [intent.customer for intent in listed.data] == [customer.id]


def test_setup_saves_a_card(sandbox: Running) -> None:
    session = stripe.checkout.Session.create(
        mode="setup",
        currency="chf",
        customer_creation="always",
        customer_email="p@example.ch",
        metadata={"a": "session"},
        setup_intent_data={"metadata": {"a": "intent"}},
        success_url="http://127.0.0.1:9/ok",
    )
    assert session.payment_status == "no_payment_required"
    assert "Save a card" in page_of(sandbox, session).text
    refused = press(sandbox, session.url, "pay", "4000000000009995")
    assert "The card&#39;s funds do not suffice." in refused.text
    done = press(sandbox, session.url, "pay", "4000000000000341")
    assert done.status_code == 303

    complete = stripe.checkout.Session.retrieve(session.id)
    intent = stripe.SetupIntent.retrieve(str(complete.setup_intent), expand=["payment_method"])
    assert (intent.status, intent.customer) == ("succeeded", complete.customer)
    assert intent.metadata is not None
    assert intent.metadata.to_dict() == {"a": "intent"}
    assert isinstance(intent.payment_method, stripe.PaymentMethod)
    assert intent.payment_method.customer == complete.customer
    sandbox.wait_for("setup_intent.succeeded", "setup_intent.setup_failed")
    sandbox.wait_for("checkout.session.completed")
    for event in sandbox.receiver.verified():
        if event.type == "checkout.session.completed":
            assert event.data.object["setup_intent"] == intent.id


def test_setup_without_customer_saves_nothing(sandbox: Running) -> None:
    session = stripe.checkout.Session.create(
        mode="setup", currency="chf", success_url="http://127.0.0.1:9/ok"
    )
    done = sandbox.control(f"/checkout/{session.id}/pay")
    intent = stripe.SetupIntent.retrieve(done["session"]["setup_intent"])
    assert intent.customer is None
    assert intent.payment_method is not None


def test_sessions_expire(sandbox: Running) -> None:
    by_hand, by_time = buy(), buy()
    assert stripe.checkout.Session.expire(by_hand.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError):
        stripe.checkout.Session.expire(by_hand.id)
    sandbox.control("/clock", {"seconds": 86401})
    assert stripe.checkout.Session.retrieve(by_time.id).status == "expired"
    assert page_of(sandbox, by_time).status_code == 410
    assert sandbox.http.post(f"/_control/checkout/{by_time.id}/pay").status_code == 400
    wait_until(lambda: sandbox.receiver.types().count("checkout.session.expired") == 2)


def test_a_payment_in_processing_is_told_later(sandbox: Running) -> None:
    sessions = [buy(), buy()]
    for session, outcome in zip(sessions, ("succeeds", "generic_decline"), strict=True):
        done = sandbox.control(f"/checkout/{session.id}/pay", {"card": "4000000000006108"})
        assert done["session"]["payment_status"] == "unpaid"
        assert done["session"]["status"] == "complete"
        intent_id = done["session"]["payment_intent"]
        assert stripe.PaymentIntent.retrieve(intent_id).status == "processing"
        sandbox.control(f"/payment_intents/{intent_id}/settle", {"outcome": outcome})
    assert stripe.checkout.Session.retrieve(sessions[0].id).payment_status == "paid"
    assert stripe.checkout.Session.retrieve(sessions[1].id).payment_status == "unpaid"
    sandbox.wait_for(
        "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"
    )


def test_two_clicks_on_a_slow_card_are_one_charge(sandbox: Running) -> None:
    session = buy()
    with ThreadPoolExecutor(2) as clicks:
        slow = [
            clicks.submit(press, sandbox, session.url, "pay", "4000000000006009") for _ in range(2)
        ]
        assert [click.result().status_code for click in slow] == [303, 303]
    assert sandbox.charges() == 1
    [paid] = sandbox.objects("charge")
    assert "CHF 30.00 paid" in sandbox.http.get(paid["receipt_url"]).text
    assert "Choose one of" in press(sandbox, buy().url, "pay", "1234").text


def test_line_items_are_listed(sandbox: Running) -> None:
    session = buy()
    items = stripe.checkout.Session.list_line_items(session.id)
    assert [item.amount_total for item in items.data] == [3000]
    shown = stripe.checkout.Session.retrieve(session.id, expand=["line_items"])
    assert shown.line_items is not None
    assert shown.line_items.data[0].description == "KI-Guthaben"
