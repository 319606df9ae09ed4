"""TWINT: in Checkout, on its own page, saved under a mandate."""

from typing import Any

import httpx
import pytest
import stripe

from guthaben.sandbox.errors import ApiError
from tests.sandbox.harness import Account, Running, buy, charge, some

DAY_S = 86_400
DECLINED = "payment_method_provider_decline"


def begun(account: Account, **changes: Any) -> tuple[stripe.checkout.Session, str, str]:
    """Choose TWINT on a session's page; return session, PaymentIntent, and TWINT's page."""
    session = buy(**changes)
    done = account.control(f"/checkout/{session.id}/pay", {"card": "twint", "email": "a@b.test"})
    assert (done["paid"], done["message"]) == (False, None)
    return session, done["session"]["payment_intent"], done["redirect_url"]


def saved_twint(account: Account) -> tuple[str, str]:
    session = stripe.checkout.Session.create(
        mode="setup",
        currency="chf",
        customer_creation="always",
        allowed_payment_method_types=["card", "twint"],
        success_url="http://x.test/ok",
    )
    done = account.control(f"/checkout/{session.id}/pay", {"card": "twint"})
    intent = account.control(f"/setup_intents/{done['session']['setup_intent']}/settle")
    assert intent["status"] == "succeeded"
    assert stripe.checkout.Session.retrieve(session.id).status == "complete"
    return intent["customer"], intent["payment_method"]


def test_it_succeeds(account: Account) -> None:
    session, intent_id, page = begun(account, customer_creation="always")
    waiting = stripe.PaymentIntent.retrieve(intent_id)
    assert waiting.status == "requires_action"
    assert page.endswith(f"/c/twint/{intent_id}")
    assert some(waiting.next_action)["redirect_to_url"]["url"] == page
    assert stripe.checkout.Session.retrieve(session.id).status == "open"

    account.control(f"/payment_intents/{intent_id}/settle")
    ended = stripe.checkout.Session.retrieve(session.id)
    assert (ended.status, ended.payment_status) == ("complete", "paid")
    assert ended.customer
    [charged] = account.objects("charge")
    assert charged["id"].startswith("py_")
    assert charged["payment_method_details"]["type"] == "twint"
    assert account.types()[-3:] == [
        "charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"
    ]  # fmt: skip


def test_it_declines_and_a_card_pays(account: Account) -> None:
    session, intent_id, _ = begun(account)
    account.control(f"/payment_intents/{intent_id}/settle", {"outcome": DECLINED})
    declined = stripe.PaymentIntent.retrieve(intent_id)
    assert declined.status == "requires_payment_method"
    assert some(declined.last_payment_error).code == DECLINED
    assert stripe.checkout.Session.retrieve(session.id).status == "open"
    assert account.control(f"/checkout/{session.id}/pay")["paid"]
    assert stripe.PaymentIntent.retrieve(intent_id).status == "succeeded"
    assert [c["status"] for c in account.objects("charge")] == ["failed", "succeeded"]


def test_it_is_abandoned(account: Account) -> None:
    session, intent_id, _ = begun(account)
    account.pass_s(DAY_S)
    assert stripe.checkout.Session.retrieve(session.id).status == "expired"
    assert stripe.PaymentIntent.retrieve(intent_id).status == "canceled"
    assert account.types()[-2:] == ["payment_intent.canceled", "checkout.session.expired"]
    with pytest.raises((ApiError, httpx.HTTPStatusError)):
        account.control(f"/payment_intents/{intent_id}/settle")
    assert account.objects("charge") == []


def test_only_francs_up_to_a_limit(account: Account) -> None:
    def priced(amount: int, currency: str = "chf") -> dict[str, Any]:
        price = {
            "currency": currency, "unit_amount": amount, "product_data": {"name": "Credit"}
        }  # fmt: skip
        return {"line_items": [{"price_data": price, "quantity": 1}]}

    assert buy(**priced(500_000)).payment_method_types == ["card", "twint"]
    assert buy(**priced(500_001)).payment_method_types == ["card"]
    assert buy(**priced(3000, "eur")).payment_method_types == ["card"]
    assert buy(allowed_payment_method_types=["twint"]).payment_method_types == ["twint"]
    assert buy(excluded_payment_method_types=["card"]).payment_method_types == ["twint"]
    with pytest.raises(stripe.InvalidRequestError):
        buy(**priced(3000, "eur"), allowed_payment_method_types=["twint"])
    only_cards = buy(allowed_payment_method_types=["card"])
    with pytest.raises((ApiError, httpx.HTTPStatusError)):
        account.control(f"/checkout/{only_cards.id}/pay", {"card": "twint"})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        buy(payment_method_types=["card"])
    assert caught.value.code == "payment_method_types_no_longer_supported"


def test_it_is_saved_and_charged_under_a_mandate(account: Account) -> None:
    customer, method = saved_twint(account)
    intent = charge(customer, method)
    assert intent.status == "succeeded"
    [charged] = account.objects("charge")
    mandate_id = charged["payment_method_details"]["twint"]["mandate"]
    assert stripe.Mandate.retrieve(mandate_id).status == "active"

    account.control(f"/payment_methods/{method}/revoke")
    assert account.types()[-1] == "mandate.updated"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        charge(customer, method)
    assert caught.value.code == "payment_intent_mandate_invalid"
    assert len(account.objects("charge")) == 1


def test_a_purchase_saves_it(account: Account) -> None:
    _, intent_id, _ = begun(
        account,
        customer_creation="always",
        payment_intent_data={"setup_future_usage": "off_session"},
    )
    account.control(f"/payment_intents/{intent_id}/settle")
    bought = stripe.PaymentIntent.retrieve(intent_id)
    assert charge(str(bought.customer), str(bought.payment_method)).status == "succeeded"


def test_a_saving_is_declined(account: Account) -> None:
    session = stripe.checkout.Session.create(
        mode="setup",
        currency="chf",
        allowed_payment_method_types=["twint"],
        success_url="http://x.test/ok",
    )
    intent_id = str(session.setup_intent)
    account.control(f"/checkout/{session.id}/pay", {"card": "twint"})
    account.control(f"/setup_intents/{intent_id}/settle", {"outcome": DECLINED})
    assert stripe.SetupIntent.retrieve(intent_id).status == "requires_payment_method"
    assert stripe.checkout.Session.retrieve(session.id).status == "open"


def test_where_redirects_are_refused_it_does_not_pay(account: Account) -> None:
    customer, method = saved_twint(account)
    never = {"enabled": True, "allow_redirects": "never"}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        charge(customer, method, automatic_payment_methods=never)
    assert caught.value.code == "payment_intent_incompatible_payment_method"


def test_refund_and_booking_of_a_payment_without_card(account: Account) -> None:
    _, intent_id, _ = begun(account)
    account.control(f"/payment_intents/{intent_id}/settle")
    refund = stripe.Refund.create(payment_intent=intent_id, amount=1000)
    assert refund.id.startswith("pyr_")
    booked = stripe.BalanceTransaction.list().data
    assert [(b.type, b.amount, b.fee) for b in booked] == [
        ("payment_refund", -1000, 0), ("payment", 3000, 87)
    ]  # fmt: skip
    dispute = account.control(f"/charges/{refund.charge}/dispute")
    assert "payment_method_details" not in dispute


@pytest.mark.parametrize(("button", "status"), [("pay", "succeeded"), ("decline", "open")])
def test_a_person_clicks_through_the_pages(sandbox: Running, button: str, status: str) -> None:
    session = buy()
    browser = httpx.Client(follow_redirects=False)
    page = browser.get(str(session.url))
    assert 'value="twint"' in page.text
    sent = browser.post(str(session.url), data={"card": "twint", "action": "pay"})
    twint_page = sent.headers["location"]
    shown = browser.get(twint_page)
    assert "CHF 30.00 with TWINT" in shown.text
    back = browser.post(twint_page, data={"action": button})
    assert back.headers["location"] == session.url
    end = browser.get(str(session.url))
    if status == "succeeded":
        assert end.headers["location"] == f"http://127.0.0.1:9/ok?s={session.id}"
    else:
        assert (end.status_code, "Pay CHF 30.00" in end.text) == (200, True)
    assert browser.get(twint_page).status_code == 404
    browser.close()
