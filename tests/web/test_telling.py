"""Telling people over HTTP: own addresses and endpoints alone, and leaving with one click."""

import json

import pytest

from guthaben.services.notices import Notice, tell
from guthaben.services.outbox_views import told_lately
from tests.services.receivers import HookReceiver
from tests.web.conftest import Web

ADDRESS = {"address": "anna@praxis.example", "language": "fr"}


async def test_addresses_come_back_masked_and_are_the_practice_s_own(web: Web) -> None:
    client, other = web.client(), web.client("prac_2")
    made = (await client.post("/v1/contacts", json=ADDRESS)).json()
    assert made["masked"] == "a…@praxis.example"
    listed = await client.get("/v1/contacts")
    assert listed.json() == {"contacts": [made]}
    assert "anna" not in listed.text
    assert (await other.get("/v1/contacts")).json() == {"contacts": []}
    one = f"/v1/contacts/{made['contact_id']}"
    for answer in (
        await other.delete(one),
        await other.put(f"{one}/preferences", json={"unsubscribed": ["*"]}),
        await client.delete("/v1/contacts/con_none"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "contact_not_found")
    await client.put(f"{one}/preferences", json={"unsubscribed": ["empty"]})
    assert (await client.get("/v1/contacts")).json()["contacts"][0]["unsubscribed"] == ["empty"]
    assert (await client.delete(one)).status_code == 200
    assert (await client.get("/v1/contacts")).json() == {"contacts": []}


@pytest.mark.parametrize(
    "body",
    [{}, {"address": "x"}, {"address": 1}, {**ADDRESS, "language": "rm"}, {**ADDRESS, "more": 1},
     {"address": "anna@praxis.example, b@c.example"}, {"address": ""}, {"address": "@praxis.ch"},
     {"address": "anna@["}, {"address": "(" * 5000}],
)  # fmt: skip
async def test_what_is_no_contact_is_refused_and_not_repeated(web: Web, body: dict) -> None:
    answer = await web.client().post("/v1/contacts", json=body)
    assert answer.status_code == 400
    assert "praxis" not in answer.text


async def test_endpoints_are_made_tried_rolled_and_removed(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_WEBHOOKS_ALLOW_PRIVATE", "1")
    client, other = web.client(), web.client("prac_2")
    with HookReceiver() as hooks:
        made = (await client.post("/v1/webhook-endpoints", json={"url": hooks.url})).json()
        one = f"/v1/webhook-endpoints/{made['endpoint_id']}"
        listed = await client.get("/v1/webhook-endpoints")
        assert made["secret"] not in listed.text
        assert (await client.post(f"{one}/test")).json()["taken"] is True
        hooks.status = 500
        tried = (await client.post(f"{one}/test")).json()
        assert (tried["taken"], tried["reason"]) == (False, "http_500")
        rolled = (await client.post(f"{one}/secret")).json()
        assert rolled["secret"].startswith("whsec_")
        assert rolled["secret"] != made["secret"]
        for verb, path in (("POST", f"{one}/test"), ("POST", f"{one}/secret"), ("DELETE", one),
                           ("POST", f"{one}/enable")):  # fmt: skip
            answer = await other.request(verb, path)
            assert (answer.status_code, answer.json()["code"]) == (404, "endpoint_not_found")
        assert (await client.delete(one)).status_code == 200


@pytest.mark.parametrize(
    "url", ["http://a.example/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "x"]
)
async def test_endpoints_inside_a_network_are_refused(web: Web, url: str) -> None:
    answer = await web.client().post("/v1/webhook-endpoints", json={"url": url})
    assert answer.status_code == 400


async def test_the_scope_for_gating_reaches_none_of_it(web: Web) -> None:
    client = web.client(scopes=("gate",))
    for path in ("/v1/contacts", "/v1/webhook-endpoints", "/v1/notices"):
        assert (await client.get(path)).status_code == 403


async def test_notices_show_what_the_practice_was_told_and_no_more(web: Web) -> None:
    client = web.client()
    store = web.services.core.store
    facts: dict[str, int | str] = {"available_nano_usd": 1, "of_nano_usd": 100}
    held: dict[str, int | str] = {"reason": "amount_mismatch", "event_no": 1}
    store.run(lambda space: tell(space, "prac_1", Notice.LOW_BALANCE_5, "a", facts))
    store.run(lambda space: tell(space, "prac_1", Notice.QUARANTINED, "b", held))
    store.run(lambda space: tell(space, "prac_2", Notice.LOW_BALANCE_5, "c", facts))
    (told,) = (await client.get("/v1/notices")).json()["notices"]
    assert told["kind"] == "low_balance_5"
    assert len(told_lately(store, None, 10)) == 3


async def test_one_click_unsubscribes_and_reading_does_not(web: Web) -> None:
    contact = web.services.targets.add_contact("prac_1", "anna@praxis.example", "it")
    token = web.services.targets.unsubscribe_token(1, contact.contact_id)
    client = web.client(scopes=())

    def unsubscribed() -> tuple[str, ...]:
        return web.services.targets.contacts("prac_1")[0].unsubscribed

    asked = await client.get("/unsubscribe", params={"token": token})
    assert asked.status_code == 200
    assert 'lang="it"' in asked.text
    assert "<form" in asked.text
    assert "anna" not in asked.text
    assert "form-action 'self'" in asked.headers["content-security-policy"]
    assert unsubscribed() == ()
    # RFC 8058: the reader's mail program posts this, without cookies or a key.
    done = await client.post(
        "/unsubscribe",
        params={"token": token},
        content=b"List-Unsubscribe=One-Click",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert done.status_code == 200
    assert unsubscribed() == ("*",)
    assert json.dumps(token) not in done.text


@pytest.mark.parametrize("token", ["", "x", "1.con_1.0", "<script>alert(1)</script>"])
async def test_a_bad_token_is_told_politely_and_not_repeated(web: Web, token: str) -> None:
    client = web.client(scopes=())
    for verb in ("GET", "POST"):
        answer = await client.request(verb, "/unsubscribe", params={"token": token})
        assert answer.status_code == 400
        assert "<script>" not in answer.text
        assert "<form" not in answer.text
