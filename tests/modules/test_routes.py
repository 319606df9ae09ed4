"""The application's routes: who is let in, to which practice, and what they answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import aza_ai_credit_routes as routes
from aza_ai_credit import get_topup_settings
from tests.modules.host import ledger, license_row, save, use

TOKEN = {"X-API-Token": "app-token"}
TOP = {**TOKEN, "X-License-Key": "KEY-top"}
EVERY = [
    ("GET", "/v1/ai-credit/status"),
    ("GET", "/v1/ai-credit/history"),
    ("POST", "/v1/ai-credit/topup/checkout"),
    ("POST", "/v1/ai-credit/setup/checkout"),
    ("GET", "/v1/ai-credit/auto-topup/settings"),
    ("POST", "/v1/ai-credit/auto-topup/settings"),
    ("PUT", "/v1/ai-credit/auto-topup/settings"),
]
ADMIN = ("GET", "/v1/ai-credit/admin/ledger")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[TestClient]:
    monkeypatch.setenv("AZA_API_TOKEN", "app-token")
    monkeypatch.setenv("AZA_ADMIN_TOKEN", "admin-token")
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", f"sqlite:///{path}")
    app = FastAPI()
    app.include_router(routes.router)
    with TestClient(app) as client:
        yield client
    routes.set_practice_resolver(None)
    routes.set_connection_factory(None)


# ---------------------------------------------------------------- letting in


@pytest.mark.parametrize(("method", "url"), [*EVERY, ADMIN])
@pytest.mark.parametrize(
    "headers",
    [{}, {"X-API-Token": "wrong"}, {"X-API-Token": ""}, {"Authorization": "Basic app-token"},
     {"Authorization": "Bearer app-token2"}, {"X-API-Token": "äöü"},
     {"X-License-Key": "KEY-top", "X-Practice-Id": "prac_top", "X-Device-Id": "dev"}],
)  # fmt: skip
def test_without_the_token_nobody_gets_to_the_database(
    client: TestClient, method: str, url: str, headers: dict[str, str]
) -> None:
    refuse = MagicMock(side_effect=AssertionError("the database was opened"))
    routes.set_connection_factory(refuse)
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    answer = client.request(method, url, headers=raw, content=b"{no json")
    assert answer.status_code == 401
    assert answer.json()["detail"]["error_code"] == "UNAUTHORIZED"
    assert answer.headers["www-authenticate"] == "Bearer"
    refuse.assert_not_called()


@pytest.mark.parametrize(("method", "url"), [*EVERY, ADMIN])
def test_a_token_that_is_not_set_lets_nobody_in(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, method: str, url: str
) -> None:
    for name in ("AZA_API_TOKEN", "AZA_ADMIN_TOKEN"):
        monkeypatch.delenv(name)
    for shown in ("", "None", "app-token"):
        assert client.request(method, url, headers={"X-API-Token": shown}).status_code == 401


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize("headers", [TOKEN, {"Authorization": "Bearer app-token"}])
def test_the_token_comes_in_either_header(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/v1/ai-credit/history", headers={**headers, "X-License-Key": "KEY-top"})
    assert answer.status_code == 200


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize(("method", "url"), EVERY)
@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Practice-Id": "prac_top"}, {"X-License-Key": "KEY-nobody"},
     {"X-License-Key": "KEY-nobody", "X-Practice-Id": "prac_top"},
     {"X-License-Key": "KEY-top", "X-Practice-Id": "prac_other"},
     {"X-License-Key": "KEY-top", "X-Practice-Id": "prac_missing"}],
)  # fmt: skip
def test_the_practice_is_the_credentials_and_foreign_ones_answer_alike(
    client: TestClient, method: str, url: str, headers: dict[str, str]
) -> None:
    answer = client.request(method, url, headers={**TOKEN, **headers}, json={"enabled": False})
    assert answer.status_code == 403
    assert answer.json() == {
        "detail": {
            "error_code": "FORBIDDEN",
            "message_user": "Für diese Praxis besteht keine Berechtigung.",
        }
    }


def test_a_key_that_two_practices_share_is_nobodys(
    client: TestClient, con: sqlite3.Connection
) -> None:
    con.execute("UPDATE licenses SET license_key = 'KEY-top'")
    con.commit()
    assert client.get("/v1/ai-credit/history", headers=TOP).status_code == 403


def test_a_header_is_believed_by_setting_only(
    client: TestClient, con: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger(con, 1.0)
    headers = {**TOKEN, "X-Practice-Id": "prac_top"}
    assert client.get("/v1/ai-credit/history", headers=headers).status_code == 403
    monkeypatch.setenv("GUTHABEN_TRUST_PRACTICE_HEADER", "1")
    answer = client.get("/v1/ai-credit/history", headers=headers)
    assert len(answer.json()["items"]) == 1
    # A key that is shown still decides.
    wrong = {**headers, "X-License-Key": "KEY-other"}
    assert client.get("/v1/ai-credit/history", headers=wrong).status_code == 403


def test_the_host_may_name_the_practice(client: TestClient, con: sqlite3.Connection) -> None:
    ledger(con, 1.0)

    def by_device(con: sqlite3.Connection, headers: Mapping[str, str]) -> str | None:
        return {"dev1": "prac_top"}.get(headers.get("x-device-id", ""))

    routes.set_practice_resolver(by_device)
    headers = {**TOKEN, "X-Device-Id": "dev1"}
    assert len(client.get("/v1/ai-credit/history", headers=headers).json()["items"]) == 1
    contradicting = {**headers, "X-Practice-Id": "prac_other"}
    assert client.get("/v1/ai-credit/history", headers=contradicting).status_code == 403
    assert client.get("/v1/ai-credit/history", headers=TOKEN).status_code == 403


def test_the_host_may_bring_its_connection(client: TestClient, path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def factory() -> AbstractContextManager[sqlite3.Connection]:
        @contextmanager
        def one() -> Iterator[sqlite3.Connection]:
            from aza_ai_credit import ensure_ai_credit_schema
            from tests.modules.host import create_licenses

            con = sqlite3.connect(path)
            create_licenses(con)
            ensure_ai_credit_schema(con)
            opened.append(con)
            yield con
            con.close()

        return one()

    routes.set_connection_factory(factory)
    assert client.get("/v1/ai-credit/history", headers=TOP).json()["items"] == []
    assert len(opened) == 1


def test_without_a_store_the_answer_says_so(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUTHABEN_DATABASE_URL")
    answer = client.get("/v1/ai-credit/history", headers=TOP)
    assert answer.status_code == 503
    assert answer.json()["detail"]["error_code"] == "STORE_NOT_CONFIGURED"
    monkeypatch.setenv("GUTHABEN_DATABASE_URL", "sqlite:////no/such/folder/x.db")
    assert client.get("/v1/ai-credit/history", headers=TOP).status_code == 503


def test_without_licences_nobody_is_let_in(client: TestClient, path: Path) -> None:
    sqlite3.connect(path).close()
    assert client.get("/v1/ai-credit/history", headers=TOP).status_code == 403


# ---------------------------------------------------------------- answers


def test_the_status_tells_budget_credit_and_topup(
    client: TestClient, con: sqlite3.Connection
) -> None:
    ledger(con, 10.0)
    use(con, 5.5, license_row())
    save(con)
    told = client.get("/v1/ai-credit/status", headers=TOP).json()
    assert told["ok"]
    assert (told["budget_usd"], told["used_usd"], told["remaining_usd"]) == (20.0, 5.5, 14.5)
    assert told["extra_credit_remaining_usd"] == 10.0
    assert told["available_percent"] == 122.5
    assert told["auto_topup"]["payment_method_configured"]
    assert "pm_top" not in json.dumps(told)


def test_the_status_without_a_period_is_the_extra_credit(
    client: TestClient, con: sqlite3.Connection
) -> None:
    con.execute("UPDATE licenses SET current_period_start = NULL")
    con.commit()
    ledger(con, 2.0)
    told = client.get("/v1/ai-credit/status", headers=TOP).json()
    assert (told["budget_usd"], told["extra_credit_remaining_usd"]) == (0.0, 2.0)
    assert told["available_percent"] == 100


def test_history_is_paged_and_only_the_callers(client: TestClient, con: sqlite3.Connection) -> None:
    for number in range(5):
        ledger(con, 1.0 + number, stripe_payment_intent_id=f"pi_secret_{number}abcdefgh")
        ledger(con, 9.0, practice_id="prac_other")
    first = client.get("/v1/ai-credit/history?limit=3", headers=TOP).json()
    assert [item["amount_internal_usd"] for item in first["items"]] == [5.0, 4.0, 3.0]
    url = f"/v1/ai-credit/history?before_id={first['next_before_id']}"
    rest = client.get(url, headers=TOP).json()
    assert [item["amount_internal_usd"] for item in rest["items"]] == [2.0, 1.0]
    assert rest["next_before_id"] is None
    assert "abcdefgh" not in json.dumps(first)
    assert client.get("/v1/ai-credit/history?limit=many", headers=TOP).status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("off", [False, 0, "0", "false", "ausx"])
def test_the_switch_reads_what_the_application_sends(
    client: TestClient, con: sqlite3.Connection, method: str, off: Any
) -> None:
    save(con)
    url = "/v1/ai-credit/auto-topup/settings"
    answer = client.request(method, url, headers=TOP, json={"enabled": off, "unknown": 1})
    if off == "ausx":
        assert answer.status_code == 400
        assert get_topup_settings(con, "prac_top").auto_topup_enabled
        return
    assert (answer.json()["ok"], answer.json()["auto_topup_enabled"]) == (True, False)
    assert not get_topup_settings(con, "prac_top").auto_topup_enabled


def test_the_customers_consent_comes_through(client: TestClient, con: sqlite3.Connection) -> None:
    save(con, auto_topup_enabled=False)
    url = "/v1/ai-credit/auto-topup/settings"
    answer = client.post(url, headers=TOP, json={"enabled": True})
    assert answer.status_code == 200
    assert answer.json()["error_code"] == "AUTO_TOPUP_CONSENT_REQUIRED"
    said = {
        "enabled": "on",
        "topup_amount_chf": "45.50",
        "monthly_limit_chf": 91,
        "trigger_below_percent": 10.0,
        "consent_text_version": "2026-11",
    }
    answer = client.post(url, headers=TOP, json=said)
    assert answer.json()["ok"]
    settings = get_topup_settings(con, "prac_top")
    assert (settings.topup_amount_chf, settings.monthly_limit_chf) == (45.5, 91.0)
    assert client.get(url, headers=TOP).json()["trigger_below_percent"] == 10


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff", b'{"enabled": null}', b'{"enabled": true, "topup_amount_chf": "x"}',
     b'{"enabled": true, "topup_amount_chf": 1e400}', b'{"enabled": true, "language": 5}',
     b'{"enabled": true, "trigger_below_percent": 5.5}'],
)  # fmt: skip
def test_what_can_not_be_read_is_a_400(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/ai-credit/auto-topup/settings", headers=TOP, content=content)
    assert answer.status_code == 400
    assert answer.json()["detail"]["error_code"] == "INVALID_INPUT"


@pytest.mark.usefixtures("con")
def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    answer = client.post(
        "/v1/ai-credit/auto-topup/settings", headers=TOP, content=b" " * 70_000 + b"{}"
    )
    assert answer.status_code == 413


@pytest.mark.usefixtures("live")
def test_a_purchase_is_priced_by_us(client: TestClient, con: sqlite3.Connection) -> None:
    page = MagicMock(url="https://checkout.stripe.test/1", id="cs_1")
    with patch("stripe.checkout.Session.create", return_value=page) as create:
        body = {"paid_chf": "50", "internal_usd": 9999, "practice_id": "prac_other"}
        told = client.post("/v1/ai-credit/topup/checkout", headers=TOP, json=body).json()
    assert told["checkout_url"] == "https://checkout.stripe.test/1"
    sent = create.call_args.kwargs
    assert sent["metadata"]["internal_credit_usd"] == "16.6667"
    assert sent["metadata"]["practice_id"] == "prac_top"
    assert sent["success_url"] == "https://aza-medwork.ch/succes2"
    assert sent["customer_email"] == "top@example.test"
    assert con.execute("SELECT status FROM ai_credit_ledger").fetchall() == [("pending",)]


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize("price", [5, 5001, "10.005", "NaN", -30, True])
def test_a_price_out_of_range_is_refused(client: TestClient, price: Any) -> None:
    body = {"paid_chf": price}
    answer = client.post("/v1/ai-credit/topup/checkout", headers=TOP, json=body)
    assert answer.status_code == 400


@pytest.mark.usefixtures("con")
def test_a_dry_run_has_the_url_field(client: TestClient) -> None:
    for url in ("/v1/ai-credit/topup/checkout", "/v1/ai-credit/setup/checkout"):
        told = client.post(url, headers=TOP).json()
        assert (told["ok"], told["dry_run"], told["checkout_url"]) == (True, True, None)


def test_the_administration_has_a_token_of_its_own(
    client: TestClient, con: sqlite3.Connection
) -> None:
    ledger(con, 1.0, stripe_checkout_session_id="cs_test_1234567890")
    url = "/v1/ai-credit/admin/ledger?practice_id=prac_top"
    assert client.get(url, headers=TOP).status_code == 401
    told = client.get(url, headers={"X-API-Token": "admin-token"}).json()
    assert len(told["entries"]) == 1
    assert "1234567890" not in json.dumps(told)
    assert (
        client.get("/v1/ai-credit/history", headers={"X-API-Token": "admin-token"}).status_code
        == 401
    )
