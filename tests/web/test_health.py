"""Alive, ready, measured."""

import asyncio
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.web.conftest import Web


async def test_alive_and_ready_need_no_key(web: Web) -> None:
    client = web.client(scopes=())
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_closed_store_is_alive_but_not_ready(web: Web) -> None:
    await asyncio.to_thread(web.services.guthaben.close)
    client = web.client(scopes=())
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_a_store_that_does_not_answer_is_not_ready(web: Web, monkeypatch) -> None:
    monkeypatch.setattr("guthaben.web.health._READY_S", 0.05)
    goes_on = threading.Event()
    web.services.core.store._mine()[0].submit(_blocking(goes_on))
    answer = await web.client(scopes=()).get("/readyz")
    goes_on.set()
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


def _blocking(goes_on: threading.Event):
    from guthaben.store.writer import Job as WriterJob

    return WriterJob(lambda _space: goes_on.wait(5), lambda _answer: None)


async def test_probes_of_a_store_that_hangs_use_one_thread(web: Web, monkeypatch) -> None:
    monkeypatch.setattr("guthaben.web.health._READY_S", 0.05)
    goes_on = threading.Event()
    web.services.core.store._mine()[0].submit(_blocking(goes_on))
    client = web.client(scopes=())
    before = threading.active_count()
    for _ in range(20):
        assert (await client.get("/readyz")).status_code == 503
    assert threading.active_count() <= before + 1
    goes_on.set()
    for _ in range(100):
        if (await client.get("/readyz")).status_code == 200:
            return
    raise AssertionError("it never became ready again")


async def test_a_server_that_stops_is_not_ready(web: Web) -> None:
    web.services.running = False
    answer = await web.client(scopes=()).get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")


async def metrics(web: Web) -> dict[tuple[str, frozenset], float]:
    answer = await web.client(scopes=()).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_the_metrics_count_what_happened(web: Web) -> None:
    web.give(1_000_000_000)
    client = web.client()
    body = {"amount_usd": "0.75", "key": "k"}
    call = (await client.post("/v1/reservations", json=body)).json()
    await client.post("/v1/reservations", json=body)
    await client.post("/v1/reservations", json={**body, "key": "k2"})
    found = await metrics(web)

    def of(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert of("guthaben_commands_total", operation="reserve", outcome="ok") == 1
    assert of("guthaben_commands_total", operation="reserve", outcome="replayed") == 1
    assert of("guthaben_commands_total", operation="reserve", outcome="insufficient_credit") == 1
    assert of("guthaben_held_usd") == 0.75
    assert of("guthaben_practices") == 1
    assert of("guthaben_inbox_waiting") == 0
    labels = {"method": "POST", "route": "/v1/reservations", "status": "201"}
    assert of("guthaben_http_request_seconds_count", **labels) == 1
    assert of("guthaben_outbox_waiting") == of("guthaben_outbox_dead") == 0
    assert call["id"] not in str(found)
    assert "prac_1" not in str(found)


async def test_the_metrics_show_how_jobs_are_doing(web: Web, monkeypatch) -> None:
    monkeypatch.setattr("guthaben.web.health._FIGURES_S", -1)
    for _ in range(200):
        found = await metrics(web)
        if ("guthaben_job_overdue_seconds", frozenset({("job", "inbox")})) in found:
            break
        await asyncio.sleep(0.02)

    def of(name: str, job: str) -> float:
        return found[f"guthaben_job_{name}", frozenset({("job", job)})]

    for job in ("expire", "inbox", "low_balance", "outbox", "resolve_charges"):
        assert (of("overdue_seconds", job), of("failures_in_a_row", job)) == (0, 0)
        assert of("lag_seconds", job) < 60
        assert of("last_run_timestamp_seconds", job) >= 0


async def test_unknown_paths_make_no_new_series(web: Web) -> None:
    client = web.client(scopes=())
    for number in range(5):
        await client.get(f"/unknown/{number}")
        await client.request(f"METHOD{number}", "/healthz")
    routes = {dict(labels).get("route") for _name, labels in await metrics(web)}
    assert not any("unknown" in str(route) for route in routes)


@pytest.mark.parametrize("path", ["/v1/balance", "/healthz"])
async def test_every_answer_is_safe_to_show_nowhere(web: Web, path: str) -> None:
    answer = await web.client().get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
