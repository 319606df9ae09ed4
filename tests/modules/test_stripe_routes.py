"""Stripe's webhook as the application mounts it, and the checkout of a subscription."""

from __future__ import annotations

import hmac
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import aza_ai_credit
import stripe_routes
from tests.modules.host import (
    alarms,
    checkout,
    extra,
    ledger,
    metadata,
    payment,
    rows,
    setup_checkout,
    setup_intent,
)

SECRET = "whsec_test"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[TestClient]:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_nobody")
    monkeypatch.setenv("AZA_API_TOKEN", "app-token")
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", f"sqlite:///{path}")
    app = FastAPI()
    app.include_router(stripe_routes.router)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def event(kind: str, source: dict[str, Any], **changes: Any) -> bytes:
    body = {
        "id": "evt_1",
        "object": "event",
        "type": kind,
        "created": 1_700_000_000,
        "livemode": False,
        "data": {"object": source},
    }
    return json.dumps(body | changes).encode()


def deliver(client: TestClient, body: bytes, **signing: Any) -> Any:
    at_s = signing.get("at_s", int(time.time()))
    signed = hmac.new(signing.get("secret", SECRET).encode(), b"%d." % at_s + body, sha256)
    header = signing.get("header", f"t={at_s},v1={signed.hexdigest()}")
    return client.post("/stripe/webhook", content=body, headers={"Stripe-Signature": header})


# ---------------------------------------------------------------- the webhook


def test_both_events_of_a_purchase_credit_once(client: TestClient, con: sqlite3.Connection) -> None:
    first = deliver(client, event("checkout.session.completed", checkout(payment_intent="pi_1")))
    assert first.status_code == 200
    assert first.json() == {"received": True, "handled": True, "credited": True}
    second = deliver(client, event("payment_intent.succeeded", payment()))
    assert second.json()["duplicate"]
    assert extra(con) == 20.0
    assert len(rows(con)) == 1


def test_an_automatic_payment_is_its_own_kind(client: TestClient, con: sqlite3.Connection) -> None:
    assert deliver(client, event("payment_intent.succeeded", payment("ai_auto_topup"))).json()[
        "credited"
    ]
    assert [row["event_type"] for row in rows(con)] == ["auto_topup_purchase"]


def test_an_unpaid_page_may_be_paid_later(client: TestClient, con: sqlite3.Connection) -> None:
    unpaid = event("checkout.session.completed", checkout(payment_status="unpaid"))
    assert deliver(client, unpaid).json() == {
        "received": True,
        "handled": True,
        "reason": "not_paid",
    }
    assert deliver(client, event("checkout.session.async_payment_succeeded", checkout())).json()[
        "credited"
    ]
    assert extra(con) == 20.0


def test_a_set_up_comes_in_two_events(client: TestClient, con: sqlite3.Connection) -> None:
    deliver(client, event("checkout.session.completed", setup_checkout()))
    deliver(client, event("setup_intent.succeeded", setup_intent()))
    settings = aza_ai_credit.get_topup_settings(con, "prac_top")
    assert settings.auto_topup_enabled
    assert settings.default_payment_method_id == "pm_new"


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("customer.subscription.updated", {"id": "sub_1", "object": "subscription"}),
        ("invoice.paid", {"id": "in_1", "object": "invoice"}),
        ("payment_intent.succeeded", payment(metadata={})),
        ("checkout.session.completed", checkout(metadata={"aza_purpose": "abo"})),
        ("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": "pi_none",
                             "amount_captured": 3_000, "amount_refunded": 3_000}),
    ],
)  # fmt: skip
def test_what_is_none_of_ours_is_ignored_with_200(
    client: TestClient, con: sqlite3.Connection, kind: str, source: dict[str, Any]
) -> None:
    answer = deliver(client, event(kind, source))
    assert answer.status_code == 200
    assert not answer.json().get("handled")
    assert rows(con) == []


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize(
    "signing",
    [{"secret": "whsec_other"}, {"at_s": 1_700_000_000}, {"at_s": int(time.time()) + 4_000},
     {"header": ""}, {"header": "t=1,v1=00"}, {"header": "nonsense"}],
)  # fmt: skip
def test_a_forged_or_old_signature_is_a_400(
    client: TestClient, con: sqlite3.Connection, signing: dict[str, Any]
) -> None:
    answer = deliver(client, event("checkout.session.completed", checkout()), **signing)
    assert answer.status_code == 400
    assert rows(con) == []


def test_the_signature_is_over_the_raw_bytes(client: TestClient, con: sqlite3.Connection) -> None:
    body = event("checkout.session.completed", checkout())
    at_s = int(time.time())
    signed = hmac.new(SECRET.encode(), b"%d." % at_s + body, sha256).hexdigest()
    header = {"Stripe-Signature": f"t={at_s},v1={signed}"}
    changed = client.post("/stripe/webhook", content=body + b" ", headers=header)
    assert changed.status_code == 400
    assert client.post("/stripe/webhook", content=body, headers=header).status_code == 200
    assert extra(con) == 20.0


@pytest.mark.usefixtures("con")
def test_without_a_secret_nothing_is_believed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
    answer = deliver(client, event("checkout.session.completed", checkout()))
    assert answer.status_code == 400


@pytest.mark.usefixtures("con")
def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    assert deliver(client, b" " * 1_100_000).status_code == 400


def test_an_event_of_the_other_mode_is_not_for_us(
    client: TestClient, con: sqlite3.Connection
) -> None:
    answer = deliver(client, event("checkout.session.completed", checkout(), livemode=True))
    assert answer.status_code == 200
    assert answer.json()["reason"] == "wrong_livemode"
    assert rows(con) == []


def test_a_mismatch_is_taken_and_held_back(client: TestClient, con: sqlite3.Connection) -> None:
    source = checkout(payment_intent="pi_1", amount_total=100, currency="chf")
    told = deliver(client, event("checkout.session.completed", source)).json()
    assert (told["handled"], told["quarantined"]) == (True, True)
    sibling = payment(amount_received=100, currency="chf")
    assert deliver(client, event("payment_intent.succeeded", sibling)).json()["quarantined"]
    assert extra(con) == 0.0
    assert len(rows(con)) == 1
    assert alarms(con) == ["payment_quarantined"]


def test_it_is_answered_after_the_commit_or_sent_again(
    client: TestClient, con: sqlite3.Connection, connect: Any
) -> None:
    body = event("checkout.session.completed", checkout())
    con.execute("BEGIN IMMEDIATE")
    with patch("guthaben.store.connection.BUSY_TIMEOUT_MS", 50):
        assert deliver(client, body).status_code == 503
    con.rollback()
    assert deliver(client, body).json()["credited"]
    assert len(rows(connect())) == 1


def test_a_processor_that_breaks_leaves_nothing_behind(
    client: TestClient, con: sqlite3.Connection
) -> None:
    def half(con: sqlite3.Connection, *, session: Any) -> dict[str, Any]:
        ledger(con, 5.0)
        raise RuntimeError("broken")

    body = event("checkout.session.completed", checkout())
    with patch("aza_ai_credit.process_topup_checkout_completed", half):
        assert deliver(client, body).status_code == 500
    assert rows(con) == []
    assert deliver(client, body).json()["credited"]


def test_the_same_event_delivered_at_once_credits_once(
    client: TestClient, con: sqlite3.Connection
) -> None:
    body = event("checkout.session.completed", checkout())
    answers: list[Any] = []

    def one() -> None:
        answers.append(deliver(client, body).json())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(answer.get("credited")) for answer in answers) == 1
    assert extra(con) == 20.0


def test_a_refund_takes_back_what_was_credited(client: TestClient, con: sqlite3.Connection) -> None:
    source = payment(amount_received=3_000, currency="chf")
    deliver(client, event("payment_intent.succeeded", source))
    charge = {
        "id": "ch_1",
        "object": "charge",
        "payment_intent": "pi_1",
        "amount_captured": 3_000,
        "amount_refunded": 1_500,
        "currency": "chf",
    }
    for _ in range(2):
        assert deliver(client, event("charge.refunded", charge)).json()["handled"]
    assert extra(con) == 10.0


@pytest.mark.usefixtures("con")
def test_a_refund_before_its_purchase_is_asked_for_again(client: TestClient) -> None:
    charge = {
        "id": "ch_1",
        "object": "charge",
        "payment_intent": "pi_1",
        "amount_captured": 3_000,
        "amount_refunded": 1_500,
        "metadata": metadata(),
    }
    assert deliver(client, event("charge.refunded", charge)).status_code == 503


def test_a_page_that_expired_is_noted(client: TestClient, con: sqlite3.Connection) -> None:
    ledger(con, 20.0, status="pending", stripe_checkout_session_id="cs_1")
    deliver(client, event("checkout.session.expired", checkout(payment_status="unpaid")))
    assert [(row["status"], row["amount_internal_usd"]) for row in rows(con)] == [("canceled", 0.0)]


def test_no_secret_is_told(client: TestClient, con: sqlite3.Connection) -> None:
    told = deliver(
        client,
        event("checkout.session.completed", checkout(payment_intent="pi_1234567890abcdef")),
    ).text
    assert "abcdef" not in told
    assert metadata()["practice_id"] not in told


# ---------------------------------------------------------------- a subscription


def test_addresses_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stripe_routes.STRIPE_SUCCESS_URL == ""
    monkeypatch.setenv("STRIPE_SUCCESS_URL", "https://aza-medwork.ch/danke")
    assert stripe_routes.STRIPE_SUCCESS_URL == "https://aza-medwork.ch/danke"
    assert stripe_routes.STRIPE_SUCCESS_URL != aza_ai_credit.DEFAULT_TOPUP_SUCCESS_URL
    with pytest.raises(AttributeError):
        _ = stripe_routes.NOTHING_OF_THAT_NAME


def test_a_subscription_begins_on_a_page(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"price_id": "price_1", "practice_id": "prac_top", "customer_email": "a@b.ch"}
    assert client.post("/stripe/checkout", json=body).status_code == 401
    headers = {"X-API-Token": "app-token"}
    assert client.post("/stripe/checkout", json=body, headers=headers).status_code == 503
    monkeypatch.setenv("STRIPE_SUCCESS_URL", "https://aza-medwork.ch/danke")
    page = MagicMock(url="https://checkout.stripe.test/1", id="cs_1")
    with patch("stripe.checkout.Session.create", return_value=page) as create:
        told = client.post("/stripe/checkout", json=body, headers=headers).json()
        assert client.post("/stripe/checkout", json={}, headers=headers).status_code == 400
    assert told["checkout_url"] == "https://checkout.stripe.test/1"
    sent = create.call_args.kwargs
    assert sent["success_url"] == "https://aza-medwork.ch/danke"
    assert (sent["mode"], sent["line_items"]) == (
        "subscription",
        [{"price": "price_1", "quantity": 1}],
    )
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    told = client.post("/stripe/checkout", json=body, headers=headers).json()
    assert told["error_code"] == "STRIPE_NOT_CONFIGURED"
