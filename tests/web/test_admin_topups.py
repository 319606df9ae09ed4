"""Automatic charges over HTTP: operators stop and look, customers read what they agree to."""

from __future__ import annotations

from tests.web.conftest import Web

STOP, ALL = "/v1/admin/auto-topups/stop", "/v1/admin/auto-topups"
ONE = "/v1/admin/practices/prac_1/auto-topup"


async def test_an_operator_stops_and_resumes_everybody(web: Web) -> None:
    web.switch_on()
    client = web.client(None, ("admin",))
    stop = {"stopped": True, "reason": "double charges reported"}
    for changed in (True, False):
        told = (await client.put(STOP, json=stop)).json()
        assert told == {"practice_id": None, "stopped": True, "changed": changed}
    shown = (await client.get(ONE)).json()
    assert (shown["would"], shown["stop"], shown["enabled"]) == ("topups_stopped", None, True)
    assert shown["stop_of_all"]["reason"] == "double charges reported"
    assert shown["stop_of_all"]["actor"].startswith("gh_test_")
    assert (await web.client().get("/v1/auto-topup")).json()["stopped"] is True
    assert (await client.put(STOP, json={"stopped": False})).json()["changed"] is True
    assert (await client.get(ONE)).json()["would"] == "above_trigger"


async def test_a_key_of_one_practice_stops_that_one_only(web: Web) -> None:
    web.switch_on()
    web.switch_on("prac_2")
    own = web.client("prac_1", ("admin",))
    stop = {"stopped": True, "reason": "card misused"}
    assert (await own.put(STOP, json={**stop, "practice_id": "prac_2"})).status_code == 404
    assert (await own.put(STOP, json=stop)).json()["practice_id"] == "prac_1"
    everyone = web.client(None, ("admin",))
    assert (await everyone.get("/v1/admin/practices/prac_2/auto-topup")).json()["stop"] is None
    await everyone.put(STOP, json={**stop, "practice_id": "prac_2"})
    seen = [row["practice_id"] for row in (await own.get(ALL)).json()["stopped_practices"]]
    assert seen == ["prac_1"]
    assert len((await everyone.get(ALL)).json()["stopped_practices"]) == 2


async def test_a_stop_without_a_reason_is_refused(web: Web) -> None:
    client = web.client(None, ("admin",))
    for body in ({"stopped": True}, {"stopped": True, "reason": ""}, {"reason": "x"}):
        assert (await client.put(STOP, json=body)).status_code == 400
    assert (await client.get(ALL)).json()["stop"] is None


async def test_a_customer_reads_what_the_numbers_mean(web: Web) -> None:
    web.switch_on()
    client = web.client()
    told = (await client.get("/v1/auto-topup/consent-text?language=fr&amount_chf=45.00")).json()
    assert (told["version"], told["language"]) == ("2026-11", "fr")
    assert "CHF 45.00" in told["text"]
    assert "CHF 90.00" in told["text"]  # the cap of the settings
    assert (await client.get("/v1/auto-topup/consent-text")).status_code == 400


async def test_a_larger_charge_is_a_setting_with_a_consent(web: Web) -> None:
    web.switch_on()
    client = web.client()
    body = {"enabled": True, "largest_chf": "60.00"}
    refused = await client.put("/v1/auto-topup", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "consent_required")
    agreed = await client.put("/v1/auto-topup", json={**body, "consent_text_version": "2026-11"})
    assert agreed.json()["largest_chf"] == "60.00"
    kept = await client.put("/v1/auto-topup", json={"enabled": True})
    assert kept.json()["largest_chf"] == "60.00"


async def test_a_page_is_made_in_place_of_the_automatic_charge(web: Web) -> None:
    web.switch_on()
    answer = await web.client().post("/v1/auto-topup/payment", json={})
    assert answer.status_code == 201
    assert web.gateway.orders[-1].amount_rappen == 3_000
    assert web.gateway.orders[-1].save_payment_method is True
