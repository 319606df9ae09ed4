"""Every error has one shape, a stable code and the right status, and tells nothing more."""

import asyncio
import inspect
import sqlite3

import httpx
import pytest

from guthaben import errors
from guthaben.errors import GuthabenError
from guthaben.web.problems import TYPE_PREFIX, Problem, of_error
from tests.web.conftest import Web

SAMPLES: dict[type[GuthabenError], tuple[GuthabenError, int]] = {
    errors.GuthabenError: (errors.GuthabenError("x"), 500),
    errors.Refused: (errors.Refused(reason="balance_limit"), 409),
    errors.InsufficientCredit: (errors.InsufficientCredit(1, 2), 402),
    errors.IdempotencyConflict: (errors.IdempotencyConflict("k"), 409),
    errors.CapExceeded: (errors.CapExceeded(5, 2_500_000_000), 429),
    errors.CallFinished: (errors.CallFinished("call_1_x", "settled"), 409),
    errors.CallNotFound: (errors.CallNotFound("call_1_x"), 404),
    errors.PracticeNotFound: (errors.PracticeNotFound("p"), 404),
    errors.PracticeFrozen: (errors.PracticeFrozen("p"), 403),
    errors.PracticeClosed: (errors.PracticeClosed("p"), 403),
    errors.InvalidAmount: (errors.InvalidAmount("x"), 400),
    errors.InvalidInput: (errors.InvalidInput("x", field="f"), 400),
    errors.InternalRefused: (errors.InternalRefused("SECRET INSIDE"), 500),
    errors.StoreUnavailable: (errors.StoreUnavailable("SECRET INSIDE"), 503),
    errors.OutcomeUnknown: (errors.OutcomeUnknown("SECRET INSIDE"), 503),
    errors.LeadershipLost: (errors.LeadershipLost(), 500),
    errors.MigrationNeeded: (errors.MigrationNeeded(["SECRET INSIDE"]), 503),
    errors.PaymentError: (errors.PaymentError("SECRET INSIDE"), 502),
    errors.PaymentDeclined: (errors.PaymentDeclined("SECRET INSIDE"), 402),
    errors.PaymentOutcomeUnknown: (errors.PaymentOutcomeUnknown("SECRET INSIDE"), 503),
    errors.PaymentUnavailable: (errors.PaymentUnavailable("SECRET INSIDE"), 503),
    errors.PaymentRejected: (errors.PaymentRejected("SECRET INSIDE"), 502),
    errors.WebhookRejected: (errors.WebhookRejected("wrong_signature"), 400),
    errors.ConfigError: (errors.ConfigError("SECRET INSIDE"), 503),
}


def test_the_list_above_is_complete() -> None:
    kinds = {
        k for _, k in inspect.getmembers(errors, inspect.isclass) if k.__module__ == errors.__name__
    }
    assert {kind for kind in kinds if issubclass(kind, GuthabenError)} == set(SAMPLES)


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_every_error_of_the_engine_has_its_status(kind: type[GuthabenError]) -> None:
    error, status = SAMPLES[kind]
    problem = of_error(error)
    assert problem.status == status
    assert "SECRET" not in problem.detail
    assert problem.detail
    if status == 503 and kind is not errors.ConfigError:
        assert int(problem.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("reason", "status"),
    [("settled_otherwise", 409), ("call_over", 409), ("lifetime_exceeded", 409),
     ("allowance_exists", 409), ("already_expired", 400), ("topup_not_found", 404),
     ("no_payment_method", 409), ("consent_required", 409), ("a reason of tomorrow", 409)],
)  # fmt: skip
def test_a_refusal_without_an_exception_of_its_own_has_its_reason_as_code(reason, status) -> None:
    problem = of_error(errors.Refused("why", reason=reason))
    assert (problem.status, problem.code) == (status, reason)


async def test_the_shape_is_that_of_rfc_9457(web: Web) -> None:
    answer = await web.client().get("/v1/reservations/none")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert problem == {
        "type": TYPE_PREFIX + "call_not_found",
        "title": "No such call",
        "status": 404,
        "detail": "There is no such call for this credential.",
        "code": "call_not_found",
        "request_id": answer.headers["x-request-id"],
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("DELETE", "/v1/balance", 405, "method_not_allowed"),
     ("GET", "/v1/reservations", 405, "method_not_allowed"), ("GET", "/docs", 404, "not_found"),
     ("GET", "/", 404, "not_found"), ("GET", "/static/demo.js", 404, "not_found")],
)  # fmt: skip
async def test_what_is_not_served_has_the_same_shape(web: Web, method, path, status, code) -> None:
    answer = await web.client().request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert answer.headers["allow"]


async def test_a_fault_of_ours_is_500_without_internals(web: Web, monkeypatch, caplog) -> None:
    async def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("SECRET INSIDE sk_live_abcdefgh")

    monkeypatch.setattr(web.services.credit, "balance", broken)
    answer = await web.client().get("/v1/balance")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "SECRET" not in answer.text
    assert answer.json()["request_id"] in {getattr(r, "request_id", "") for r in caplog.records}


async def test_a_fault_outside_the_routers_has_the_same_shape(web: Web) -> None:
    @web.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("SECRET INSIDE")

    answer = await web.client().get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "SECRET" not in answer.text


async def test_a_store_that_is_gone_is_503_and_nothing_is_promised(web: Web) -> None:
    web.give()
    client = web.client()
    assert (await client.get("/v1/balance")).status_code == 200
    await asyncio.to_thread(web.services.guthaben.close)
    answer = await client.post("/v1/reservations", json={"amount_usd": "1", "key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"]


@pytest.mark.sqlite  # nobody locks a whole PostgreSQL
async def test_a_locked_database_is_not_ready(web: Web, monkeypatch) -> None:
    monkeypatch.setattr("guthaben.web.health._READY_S", 0.2)
    con = sqlite3.connect(web.services.core.store.name, isolation_level=None)
    con.execute("BEGIN IMMEDIATE")
    answer = await web.client(scopes=()).get("/readyz")
    con.execute("ROLLBACK")
    con.close()
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_a_caller_that_goes_away_leaves_no_hold(web: Web) -> None:
    web.give()
    client = web.client()
    body = {"amount_usd": "1", "key": "k"}
    task = asyncio.create_task(client.post("/v1/reservations", json=body))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
        await task
    await asyncio.sleep(0.2)
    assert web.services.guthaben.balance("prac_1").held_nano_usd == 0


def test_a_problem_is_an_exception_with_its_code() -> None:
    assert str(Problem(400, "invalid_input", "why")) == "invalid_input"
