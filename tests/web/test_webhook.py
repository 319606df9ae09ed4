"""The route that Stripe calls: what is stored, what is answered, what is never taken."""

import asyncio
import json
import time
from typing import Any

import httpx
import stripe

from guthaben.payments.webhook import LARGEST_BODY
from tests.web.conftest import SECRET, Web


def event(**more: Any) -> bytes:
    body = {
        "id": "evt_1234567890abcdef", "object": "event", "type": "customer.created",
        "created": int(time.time()), "livemode": False, "api_version": "2026-10-28.endive",
        "data": {"object": {"id": "cus_1234567890abcdef", "object": "customer"}}, **more,
    }  # fmt: skip
    return json.dumps(body).encode()


async def post(web: Web, body: bytes, secret: str = SECRET, **headers: str) -> httpx.Response:
    signed = stripe.WebhookSignature.generate_signature_header(
        body.decode("utf-8", "replace"), secret
    )
    headers = {"Stripe-Signature": signed, **headers}
    return await web.client(scopes=()).post("/stripe/webhook", content=body, headers=headers)


def stored(web: Web) -> list[tuple[str, str]]:
    rows = web.database.rows("SELECT provider_event_id, status FROM credit_inbox ORDER BY 1")
    return [(row["provider_event_id"], row["status"]) for row in rows]


async def test_an_event_is_stored_before_it_is_answered(web: Web) -> None:
    answer = await post(web, event())
    assert (answer.status_code, answer.json()) == (200, {"status": "new"})
    assert [name for name, _ in stored(web)] == ["evt_1234567890abcdef"]


async def test_the_same_event_is_stored_once_even_twenty_at_a_time(web: Web) -> None:
    body = event()
    answers = await asyncio.gather(*(post(web, body) for _ in range(20)))
    assert sorted(a.json()["status"] for a in answers) == ["new"] + ["repeated"] * 19
    assert len(stored(web)) == 1


async def test_a_forged_event_is_refused(web: Web) -> None:
    for answer in (
        await post(web, event(), "whsec_of_somebody_else"),
        await post(web, event(), **{"Stripe-Signature": "t=1,v1=ab"}),
        await post(web, event(), **{"Stripe-Signature": ""}),
        await web.client(scopes=()).post("/stripe/webhook", content=event()),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "webhook_rejected")
    assert stored(web) == []


async def test_an_event_of_the_other_mode_is_answered_and_not_taken(web: Web) -> None:
    answer = await post(web, event(livemode=True))
    assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})
    assert [row[1] for row in stored(web)] == ["quarantined"]


async def test_what_is_signed_and_no_event_is_answered_and_not_taken(web: Web) -> None:
    for body in (b"[]", b"null", b"not json", b"{}", event(id="")):
        assert (await post(web, body)).status_code == 200
    assert stored(web) == []


async def test_a_huge_body_is_refused(web: Web) -> None:
    body = b" " * (LARGEST_BODY + 1)
    assert (await post(web, body)).status_code == 413
    assert stored(web) == []


async def test_a_store_that_can_not_keep_it_is_not_answered_200(web: Web) -> None:
    await asyncio.to_thread(web.services.guthaben.close)
    answer = await post(web, event())
    assert answer.status_code == 503


async def test_the_inbox_is_worked_at_once(web: Web) -> None:
    await post(web, event())
    for _ in range(100):
        if stored(web)[0][1] == "ignored":
            break
        await asyncio.sleep(0.02)
    assert [row[1] for row in stored(web)] == ["ignored"]


async def test_without_a_provider_there_is_no_webhook(tmp_path) -> None:
    from guthaben.web.app import create_app
    from guthaben.web.deps import Services

    services = Services.open(f"sqlite:///{tmp_path / 'plain.db'}")
    app = create_app(services)
    async with services:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/stripe/webhook", content=event())
            assert (answer.status_code, answer.json()["code"]) == (503, "payments_not_configured")
