"""Operators over HTTP about money that came in: inbox, quarantine, refunds; as it is described."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx
import pytest

from guthaben.payments.facts import checkout_facts
from guthaben.services.purchases import PaymentNotice, credit_payment, quarantine
from guthaben.web.background import jobs
from tests.services.fakes import CREATED_AT_S, Elsewhere, FakeGateway
from tests.services.house import CHF_30, TEN_USD, metadata_of, page_of, sign
from tests.web.conftest import SECRET, Web
from tests.web.test_openapi import check

ADMIN = ("admin",)
WHY = {"reason": "seen with the customer"}


@pytest.fixture
async def web(open_web: Callable[..., Web]) -> AsyncIterator[Web]:
    """Serve a database, with a purchase that is credited and a payment that is held back."""
    provider = FakeGateway(Elsewhere(), livemode=False)
    served = open_web(provider)
    async with served.services:
        for number in (1, 2):
            provider.put(f"pi_{number}", metadata=metadata_of(f"tu_{number}"), livemode=False,
                         created_at_s=CREATED_AT_S)  # fmt: skip
            notice = PaymentNotice(
                "prac_1", "topup_purchase", TEN_USD, CHF_30, payment_id=f"pi_{number}",
                session_id=f"cs_{number}", livemode=False,
            )  # fmt: skip
            work = credit_payment if number == 1 else _held_back
            served.services.core.store.run(partial(_told, work, notice))
        served.services.core.store.run(_name)
        yield served
        for client in served.opened:
            await client.aclose()


def _told(work: Any, notice: PaymentNotice, space: Any) -> Any:
    return work(space, notice)


def _held_back(space: Any, notice: PaymentNotice) -> Any:
    return quarantine(space, notice, "amount_mismatch")


def _name(space: Any) -> None:
    space.cursor.execute("UPDATE credit_event SET topup_id = 'tu_1' WHERE payment_id = 'pi_1'")


async def post(web: Web, client: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
    """Change something, and see that the answer is as it is described."""
    answer = await client.post(path, json=body)
    described = web.app.openapi()["paths"]
    for number in ("1", "2", "9"):
        path = path.replace(f"/quarantine/{number}", "/quarantine/{case_no}")
    path = path.replace("/prac_1/", "/{practice_id}/").replace("evt_1", "{event_id}")
    check(web, answer, described[path]["post"])
    return answer


async def get(web: Web, client: httpx.AsyncClient, path: str, template: str) -> Any:
    """Read something, and see that the answer is as it is described."""
    answer = await client.get(path)
    check(web, answer, web.app.openapi()["paths"][template]["get"])
    return answer.json()


async def test_cases_are_listed_shown_and_credited_once(web: Web) -> None:
    client = web.client(None, ADMIN)
    listed = await get(web, client, "/v1/admin/quarantine?limit=20", "/v1/admin/quarantine")
    (case,) = listed["cases"]
    assert (case["case_no"], case["reason"], case["amount"], case["practice_id"]) == (
        1, "amount_mismatch", "30.00", "prac_1",
    )  # fmt: skip
    assert "pi_2" not in json.dumps(listed)
    for _ in range(3):
        body = {**WHY, "practice_id": "prac_1"}
        done = await post(web, client, "/v1/admin/quarantine/1/credit", body)
        assert (done.status_code, done.json()["status"]) == (200, "credited")
    assert web.services.guthaben.balance("prac_1").credit_nano_usd == 2 * TEN_USD
    one = "/v1/admin/quarantine/{case_no}"
    shown = await get(web, client, "/v1/admin/quarantine/1", one)
    (note,) = shown["notes"]
    assert (note["action"], note["reason"]) == ("credited", WHY["reason"])
    assert note["author"]
    other = await post(web, client, "/v1/admin/quarantine/1/dismiss", WHY)
    assert (other.status_code, other.json()["code"]) == (409, "case_resolved")


@pytest.mark.parametrize(("action", "ends"), [("dismiss", "dismissed"), ("refund", "refunded")])
async def test_a_case_is_dismissed_or_given_back(web: Web, action: str, ends: str) -> None:
    client = web.client(None, ADMIN)
    done = await post(web, client, f"/v1/admin/quarantine/1/{action}", WHY)
    assert done.status_code == 200
    shown = (await client.get("/v1/admin/quarantine/1")).json()
    assert shown["status"] == ends
    assert (await client.get("/v1/admin/quarantine")).json()["cases"] == []
    assert len((await client.get("/v1/admin/quarantine?status=all")).json()["cases"]) == 1


async def test_a_refund_is_made_once_per_key(web: Web) -> None:
    client = web.client(None, ADMIN)
    practice = "/v1/admin/practices/prac_1"
    template = "/v1/admin/practices/{practice_id}/refundable"
    quote = await get(web, client, f"{practice}/refundable?of=tu_1", template)
    assert (quote["refundable_chf"], quote["unspent_chf"]) == ("30.00", "30.00")
    wish = {"of": "tu_1", "key": "k", "amount_chf": "6.00", **WHY}
    answers = [await post(web, client, f"{practice}/refunds", wish) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert web.services.guthaben.balance("prac_1").credit_nano_usd == TEN_USD * 4 // 5
    other = await post(web, client, f"{practice}/refunds", {**wish, "amount_chf": "7.00"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize(("change", "status", "code"), [
    ({"amount_chf": "30.01"}, 409, "more_than_left"), ({"of": "tu_9"}, 404, "payment_not_found"),
    ({"amount_chf": "0"}, 400, "invalid_amount"), ({"reason": ""}, 400, "invalid_input"),
    ({"amount_chf": 5}, 400, "invalid_amount"), ({"extra": 1}, 400, "invalid_input"),
])  # fmt: skip
async def test_a_wrong_refund_is_refused(
    web: Web, change: dict[str, Any], status: int, code: str
) -> None:
    client = web.client(None, ADMIN)
    body = {"of": "tu_1", "key": "k", **WHY, **change}
    answer = await post(web, client, "/v1/admin/practices/prac_1/refunds", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert web.services.guthaben.balance("prac_1").credit_nano_usd == TEN_USD


async def test_spent_credit_is_refunded_only_where_debt_is_allowed(web: Web) -> None:
    web.services.guthaben.record_usage("prac_1", TEN_USD, key="used")
    client = web.client(None, ADMIN)
    body = {"of": "tu_1", "key": "k", **WHY}
    answer = await post(web, client, "/v1/admin/practices/prac_1/refunds", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "more_than_unspent")
    allowed = {**body, "allow_debt": True}
    answer = await post(web, client, "/v1/admin/practices/prac_1/refunds", allowed)
    assert answer.status_code == 201
    assert web.services.guthaben.balance("prac_1").debt_nano_usd == TEN_USD


async def test_events_are_listed_retried_and_discarded(web: Web) -> None:
    client = web.client(None, ADMIN)
    page = page_of("cs_9", "pi_9", metadata=metadata_of("tu_9"), livemode=False)
    web.gateway.pages["cs_9"] = checkout_facts(page)  # type: ignore[attr-defined]
    body = json.dumps({
        "id": "evt_1", "object": "event", "type": "checkout.session.completed", "livemode": True,
        "created": 1, "data": {"object": page},
    }).encode()  # fmt: skip
    now_s = web.services.core.now_ms() // 1000
    headers = {"Stripe-Signature": sign(body, now_s, SECRET)}
    answer = await web.client(scopes=()).post("/stripe/webhook", content=body, headers=headers)
    assert answer.json() == {"status": "ignored"}
    listed = await get(web, client, "/v1/admin/inbox?limit=20", "/v1/admin/inbox")
    (row,) = listed["events"]
    assert (row["event_id"], row["status"], row["reason"]) == (
        "evt_1", "quarantined", "wrong_livemode",
    )  # fmt: skip
    never = await post(web, client, "/v1/admin/inbox/evt_1/retry", WHY)
    assert (never.status_code, never.json()["code"]) == (409, "event_not_for_us")
    gone = await post(web, client, "/v1/admin/inbox/evt_1/discard", WHY)
    assert (gone.status_code, gone.json()["status"]) == (200, "ignored")
    one = await get(web, client, "/v1/admin/inbox/evt_1", "/v1/admin/inbox/{event_id}")
    assert [note["action"] for note in one["notes"]] == ["discard"]
    missing = await client.get("/v1/admin/inbox/evt_9")
    assert (missing.status_code, missing.json()["code"]) == (404, "event_not_found")


async def test_an_operator_of_one_practice_reaches_that_one_only(web: Web) -> None:
    own, foreign = web.client("prac_1", ADMIN), web.client("prac_2", ADMIN)
    assert len((await own.get("/v1/admin/quarantine")).json()["cases"]) == 1
    assert (await foreign.get("/v1/admin/quarantine")).json()["cases"] == []
    missing, hidden = [await foreign.get(f"/v1/admin/quarantine/{number}") for number in (9, 1)]
    assert missing.status_code == hidden.status_code == 404
    assert missing.json()["detail"] == hidden.json()["detail"]
    for path in ("1/credit", "1/dismiss", "1/refund"):
        body = {**WHY, **({"practice_id": "prac_2"} if path.endswith("credit") else {})}
        answer = await foreign.post(f"/v1/admin/quarantine/{path}", json=body)
        assert answer.status_code == 404
    given = {**WHY, "practice_id": "prac_2"}
    assert (await own.post("/v1/admin/quarantine/1/credit", json=given)).status_code == 404
    assert (await own.get("/v1/admin/inbox?status=all")).json()["events"] == []
    assert (await own.get("/v1/admin/inbox/evt_1")).status_code == 404
    refund = {"of": "tu_1", "key": "k", **WHY}
    answer = await foreign.post("/v1/admin/practices/prac_2/refunds", json=refund)
    assert (answer.status_code, answer.json()["code"]) == (404, "payment_not_found")
    assert web.services.guthaben.balance("prac_1").credit_nano_usd == TEN_USD


async def test_metrics_tell_what_waits_for_a_person(web: Web) -> None:
    text = (await web.client(scopes=()).get("/metrics")).text
    assert "guthaben_quarantine_open 1.0" in text
    for name in ("inbox_dead", "inbox_quarantined", "refunds_waiting", "reconcile_remaining"):
        assert f"guthaben_{name} 0.0" in text


def test_the_jobs_of_money_are_registered(open_web: Callable[..., Web]) -> None:
    services = open_web().services
    names = {job.name for job in jobs(services.guthaben, services.payments, services.dispatcher)}
    assert {"resolve_refunds", "reconcile"} <= names
    services.stop()
