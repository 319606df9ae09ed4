"""A practice's credit over HTTP: balance, statement, top-ups, the saved card, automatic top-up."""

import pytest

from guthaben.errors import (
    ConfigError,
    PaymentDeclined,
    PaymentOutcomeUnknown,
    PaymentRejected,
    PaymentUnavailable,
)
from guthaben.web.app import money_may_move
from tests.web.conftest import Web


async def test_the_statement_is_paged_and_names_the_call(web: Web) -> None:
    web.give()
    client = web.client()
    call = web.services.guthaben.reserve("prac_1", 5, key="k")
    call.settle(3)
    page = (await client.get("/v1/statement?limit=1")).json()
    assert page["entries"][0]["call_id"] == call.id
    assert page["entries"][0]["amount_usd"] == "0.000000003"
    following = (await client.get(f"/v1/statement?before={page['next_before']}")).json()
    assert [entry["what"] for entry in following["entries"]] == ["grant"]
    assert following["next_before"] is None


async def test_a_purchase_begins_with_a_record_and_leads_to_the_page(web: Web) -> None:
    client = web.client()
    body = {
        "amount_chf": "30.00",
        "success_url": "https://a.example.com/?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://a.example.com/no",
        "language": "fr",
        "save_card": True,
    }
    answer = await client.post("/v1/topups", json=body)
    assert answer.status_code == 201
    started = answer.json()
    assert started["checkout_url"] == "https://pay.example.com/1"
    (order,) = web.gateway.orders
    assert (order.amount_rappen, order.success_url, order.locale) == (
        3000,
        body["success_url"],
        "fr",
    )
    assert order.save_payment_method
    found = (await client.get(f"/v1/topups/{started['topup_id']}")).json()
    assert (found["status"], found["price_chf"], found["amount_usd"]) == (
        "pending",
        "30.00",
        "10.00",
    )
    listed = (await client.get("/v1/topups")).json()
    assert listed["topups"] == [found]
    assert listed["topups"][0]["session_reference"].startswith("cs_…")


async def test_without_addresses_the_customer_comes_back_to_the_server(web: Web) -> None:
    client = web.client()
    started = (await client.post("/v1/topups", json={"amount_chf": "10"})).json()
    assert (await client.post("/v1/payment-method/setup")).status_code == 201
    home = "https://credit.example.com/portal/"
    assert [order.success_url for order in web.gateway.orders] == [
        f"{home}purchase/{started['topup_id']}",
        home,
    ]
    assert web.gateway.orders[0].cancel_url == f"{home}purchase/{started['topup_id']}?back=1"


async def test_the_limits_of_a_purchase_are_settings(web: Web, monkeypatch) -> None:
    monkeypatch.setenv("GUTHABEN_TOPUP_LEAST_CHF", "25.50")
    monkeypatch.setenv("GUTHABEN_TOPUP_MOST_CHF", "100")
    client = web.client()
    for amount, status in [("25.49", 400), ("25.5", 201), ("33.33", 201), ("100.01", 400)]:
        answer = await client.post("/v1/topups", json={"amount_chf": amount})
        assert answer.status_code == status, amount
    assert answer.json()["least_chf"] == "25.50"
    assert [order.amount_rappen for order in web.gateway.orders] == [2_550, 3_333]


@pytest.mark.parametrize("amount", ["9.99", "5000.01", "0", "-30", "30.001"])
async def test_a_purchase_has_limits(web: Web, amount: str) -> None:
    answer = await web.client().post("/v1/topups", json={"amount_chf": amount})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_amount")
    assert web.seq() == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PaymentUnavailable("sk_live_abcdefgh"), 503),
        (PaymentOutcomeUnknown("no answer"), 503),
        (PaymentRejected("bad", provider_code="cus_1234567890abcd"), 502),
        (PaymentDeclined("do_not_honor"), 402),
        (ConfigError("STRIPE_SECRET_KEY sk_live_abcdefgh"), 503),
    ],
)
async def test_what_the_provider_refuses_is_told_without_its_words(web: Web, error, status) -> None:
    web.gateway.breaks_with = error
    answer = await web.client().post("/v1/topups", json={"amount_chf": "30"})
    assert (answer.status_code, answer.json()["code"]) == (status, error.code)
    assert "sk_live" not in answer.text
    assert "cus_" not in answer.text


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"STRIPE_SECRET_KEY": "sk_test_x"}, True),
        ({"STRIPE_SECRET_KEY": "sk_live_x"}, False),
        ({"STRIPE_SECRET_KEY": "sk_live_x", "AZA_AI_TOPUP_ALLOW_LIVE": "1"}, False),
        ({"STRIPE_SECRET_KEY": "sk_live_x", "AZA_AI_TOPUP_DRY_RUN": "0"}, False),
        (
            {
                "STRIPE_SECRET_KEY": "sk_live_x",
                "AZA_AI_TOPUP_ALLOW_LIVE": "1",
                "AZA_AI_TOPUP_DRY_RUN": "0",
            },
            True,
        ),
    ],
)
def test_real_money_moves_only_if_both_switches_say_so(settings, allowed, monkeypatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert money_may_move() is allowed


async def test_a_purchase_that_is_switched_off_leaves_nothing_behind(web: Web) -> None:
    web.services.purchases_allowed = lambda: False
    answer = await web.client().post("/v1/topups", json={"amount_chf": "30"})
    assert (answer.status_code, answer.json()["code"]) == (503, "purchases_switched_off")
    assert web.seq() == (0, 0, 0)
    assert web.gateway.orders == []


async def test_automatic_top_up_needs_a_card_and_a_consent(web: Web) -> None:
    client = web.client()
    first = (await client.get("/v1/auto-topup")).json()
    assert (first["enabled"], first["card_saved"]) == (False, False)
    wanted = {"enabled": True, "amount_chf": "30.00", "cap_chf": "90.00", "trigger_percent": 10}
    no_card = await client.put("/v1/auto-topup", json=wanted)
    assert (no_card.status_code, no_card.json()["code"]) == (409, "no_payment_method")
    web.save_card()
    no_consent = await client.put("/v1/auto-topup", json=wanted)
    assert (no_consent.status_code, no_consent.json()["code"]) == (409, "consent_required")
    assert not (await client.get("/v1/auto-topup")).json()["enabled"]
    agreed = {**wanted, "consent_text_version": "2026-11", "language": "en"}
    found = (await client.put("/v1/auto-topup", json=agreed)).json()
    assert (found["enabled"], found["amount_chf"], found["cap_chf"]) == (True, "30.00", "90.00")
    assert (found["trigger_percent"], found["credit_usd"]) == (10, "10.00")
    assert "cus_" not in str(found)
    assert "pm_" not in str(found)


async def test_switching_off_keeps_the_limits_and_raising_them_needs_consent(web: Web) -> None:
    web.switch_on()
    client = web.client()
    higher = await client.put("/v1/auto-topup", json={"enabled": True, "cap_chf": "500"})
    assert (higher.status_code, higher.json()["code"]) == (409, "consent_required")
    off = (await client.put("/v1/auto-topup", json={"enabled": False})).json()
    assert (off["enabled"], off["cap_chf"], off["amount_chf"]) == (False, "90.00", "30.00")
    small_cap = await client.put("/v1/auto-topup", json={"enabled": False, "cap_chf": "20"})
    assert (small_cap.status_code, small_cap.json()["code"]) == (400, "invalid_input")


async def test_a_foreign_top_up_answers_as_a_missing_one(web: Web) -> None:
    mine, other = web.client(), web.client("prac_2")
    topup_id = (await mine.post("/v1/topups", json={"amount_chf": "30"})).json()["topup_id"]
    foreign = await other.get(f"/v1/topups/{topup_id}")
    missing = await other.get("/v1/topups/tu_000000000000000000000000")
    assert foreign.status_code == missing.status_code == 404
    alike = [{**answer.json(), "request_id": ""} for answer in (foreign, missing)]
    assert alike[0] == alike[1]
    assert (await other.get("/v1/topups")).json()["topups"] == []
