"""Canaries: secrets and addresses of many shapes, fed into every place that takes text, turn up in
no log line and in no answer."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from guthaben.errors import PaymentRejected
from guthaben.web import logs
from guthaben.web.redaction import HIDDEN, looks_secret, redact
from tests.web.conftest import Web

pytestmark = pytest.mark.edge

# Put together here, so that no scanner takes this file for a leak.
CANARIES = [
    "sk_" + "live_" + "51Habcdefghijklmnop",
    "sk_" + "test_" + "51Habcdefghijklmnop",
    "rk_" + "live_" + "51Habcdefghijklmnop",
    "pk_" + "live_" + "51Habcdefghijklmnop",
    "whsec_" + "abcdefghijklmnopqrstuvwxyz012345",
    "pi_3Nabcdefghijklmnop_secret_" + "qrstuvwxyz",
    "seti_1Nabcdefghijklmnop_secret_" + "qrstuvwxyz",
    "cus_" + "Nabcdefghijkl123",
    "pm_" + "1Nabcdefghijklmnop",
    "cs_test_" + "a1b2c3d4e5f6g7h8i9j0",
    "gh_live_" + "abcdefghij_" + "k" * 43,
    "gh_test_" + "abcdefghij_" + "k" * 43,
    "Bearer " + "abcdefghijklmnop",
    "bearer " + "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "Basic " + "dXNlcjpwYXNzd29yZA==",
    "sk-" + "proj-abcdefghijklmnopqrstuvwx",
    "gh" + "p_abcdefghijklmnopqrstuvwxyz012345",
    "xox" + "b-123456789012-abcdefghijkl",
    "AK" + "IAABCDEFGHIJKLMNOP",
    "AI" + "zaSyAbcdefghijklmnopqrstuvwx",
    "-----BEGIN " + "RSA PRIVATE KEY-----",
    "postgresql://user:" + "password@db.example.com/credit",
    "dr.muster@" + "praxis-muster.ch",
    "vorname+nachname@" + "sub.example.co.uk",
    "4242 4242 " + "4242 4242",
    "756.1234." + "5678.97",
]
HARMLESS = [
    "gpt-4o-mini", "prac_7", "request-42", "call_17_k3v9q2m7x5c8w4zt", "1763720000123", "u-19",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "tu_0123456789abcdef01234567", "2026-11", "basic plan",
    "re_processing_step_two", "ch_zurich_west_one", "card_reader_3", "12345678901234567890",
    "Sprechstunde am Morgen", "key-1", "skill_live", "a@b",
]  # fmt: skip


@pytest.mark.parametrize("canary", CANARIES)
def test_the_redactor_knows_the_shape_wherever_it_stands(canary: str) -> None:
    for text in (canary, f"before {canary} after", f'{{"key":"{canary}"}}', f"x={canary},y=1"):
        assert canary not in redact(text)
        assert HIDDEN in redact(text)
        assert looks_secret(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_the_redactor_leaves_ordinary_references_alone(text: str) -> None:
    assert redact(text) == text
    assert not looks_secret(text)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Log as the server does, into a text."""
    stream, root = io.StringIO(), logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure("DEBUG", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("guthaben").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


FIELDS = ("model", "operation_type", "user_id", "device_id", "reference", "key")


async def every_path(web: Web, canary: str) -> list[str]:
    """Feed a canary into every place that takes text; return all that was answered."""
    client = web.client("prac_1", ("gate", "credit", "admin"))
    said: list[str] = []

    async def send(method: str, path: str, **more: object) -> None:
        answer = await client.request(method, path, **more)  # type: ignore[arg-type]
        said.append(answer.text + str(answer.headers))

    in_header = canary.encode()
    for name in ("X-Practice-Id", "X-Request-Id", "Idempotency-Key", "Stripe-Signature", "Cookie",
                 "User-Agent", "Authorization", "X-Device-Id"):  # fmt: skip
        await send("POST", "/v1/reservations", headers={name: in_header}, json={"amount_usd": "1"})
        await send("POST", "/stripe/webhook", headers={name: in_header}, content=b"{}")
    quoted = canary.replace("/", "%2F").replace(" ", "%20").replace("?", "%3F")
    for place in (
        "/v1/reservations/{}", "/v1/topups/{}", "/{}", "/v1/calls?before={}", "/v1/balance?{}=1",
        "/v1/statement?limit={}", "/v1/admin/verify?practice_id={}",
    ):  # fmt: skip
        path = place.format(quoted)
        await send("GET", path)
    await send("POST", f"/v1/admin/practices/{quoted}/grants", json={"amount_usd": "1", "key": "k"})
    for field in FIELDS:
        body = {"amount_usd": "0.01", "key": "k", field: canary}
        await send("POST", "/v1/reservations", json=body)
        await send("POST", "/v1/usage", json={**body, "cost_usd": "0", "amount_usd": None})
    for wrong in (canary, {canary: canary}, [canary]):
        await send("POST", "/v1/reservations", json={"amount_usd": wrong, "key": "k"})
        await send("POST", "/v1/reservations", json={"amount_usd": "1", "key": "k", "tags": wrong})
    await send("POST", "/v1/reservations", json={canary: 1})
    await send("POST", "/v1/reservations", content=canary.encode())
    await send(
        "POST", "/v1/topups", json={"amount_chf": "30", "success_url": f"https://x.ch/{canary}"}
    )
    await send("PUT", "/v1/auto-topup", json={"enabled": True, "consent_text_version": canary[:50]})
    adjustment = {"amount_usd": "1", "key": f"a{len(canary)}", "reason": f"because {canary}"}
    await send("POST", "/v1/admin/practices/prac_1/adjustments", json=adjustment)
    await send("PUT", "/v1/admin/practices/prac_1/license", json={"license": canary})
    await send("PUT", "/v1/admin/practices/prac_1/policy", json={"time_zone": canary[:60]})
    web.gateway.breaks_with = PaymentRejected(f"no {canary}", provider_code=canary)
    await send("POST", "/v1/topups", json={"amount_chf": "30"})
    web.gateway.breaks_with = None
    for path in ("/v1/calls", "/v1/topups", "/v1/statement", "/v1/admin/practices", "/metrics"):
        await send("GET", path)
    return said


@pytest.mark.parametrize("canary", CANARIES)
async def test_a_canary_reaches_no_log_and_no_answer(
    web: Web, log: io.StringIO, canary: str
) -> None:
    web.give()
    said = await every_path(web, canary)
    assert len(said) > 45
    for answer in said:
        assert canary not in answer
    written = log.getvalue()
    assert written.count('"event": "request"') > 40
    assert canary not in written
    assert canary.encode().hex() not in written


async def test_a_canary_in_an_error_of_ours_is_hidden_in_the_log(
    web: Web, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError(" ".join(CANARIES))

    monkeypatch.setattr(web.services.credit, "balance", broken)
    answer = await web.client().get("/v1/balance")
    assert answer.status_code == 500
    written = log.getvalue()
    assert "RuntimeError" in written
    assert not [canary for canary in CANARIES if canary in written + answer.text]


async def test_a_log_line_holds_what_is_allowed_and_nothing_else(
    web: Web, log: io.StringIO
) -> None:
    client = web.client()
    await client.get("/v1/reservations/call_1_x", headers={"X-Request-Id": "trace"})
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    about = {"event", "level", "logger", "timestamp"}
    assert set(line) - about <= set(logs.ALLOWED)
    assert (line["route"], line["status"]) == ("/v1/reservations/{call_id}", 404)
    assert (line["request_id"], line["practice_id"]) == ("trace", "prac_1")
    assert line["key_id"].startswith("gh_test_")


def test_what_is_not_on_the_list_is_left_out(log: io.StringIO) -> None:
    told = {"body": "the whole body", "headers": {"a": "b"}, "request_id": "trace"}
    logging.getLogger("guthaben.web").info("something", extra=told)
    logging.getLogger("stripe").info("Request to Stripe api /v1/customers/cus_123")
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    assert (line["event"], line["request_id"]) == ("something", "trace")
    assert "body" not in line
    assert "headers" not in line


async def test_health_checks_fill_no_log(web: Web, log: io.StringIO) -> None:
    client = web.client(scopes=())
    for path in ("/healthz", "/readyz", "/metrics"):
        await client.get(path)
    assert log.getvalue() == ""
