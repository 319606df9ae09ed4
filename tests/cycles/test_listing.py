"""The list of reservations: filters, windows, pages, projections."""

from datetime import UTC, datetime
from typing import Any

import pytest

from guthaben.store import leases
from tests.cycles.conftest import BEGIN_MS, Server, planned, usd


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


async def filled(server: Server) -> tuple[Any, dict[str, str]]:
    """Make one reservation in each state, a second apart."""
    server.fund(100_000)
    client = server.client()
    names: dict[str, str] = {}
    for number, state in enumerate(("COMMITTED", "RELEASED", "EXPIRED", "ACTIVE")):
        server.clock.now_ms = BEGIN_MS + number * 1_000
        ttl = 1_000 if state == "EXPIRED" else 80_000
        body = planned(state, 10, ttl_ms=ttl, grace_period_ms=0, metadata={"n": number})
        body["subject"]["workspace"] = f"w{number % 2}"
        names[state] = (await client.post("/v1/reservations", json=body)).json()["reservation_id"]
    path = f"/v1/reservations/{names['COMMITTED']}/commit"
    commit = {"idempotency_key": "c", "actual": usd(1), "metadata": {"c": True}}
    await client.post(path, json=commit)
    path = f"/v1/reservations/{names['RELEASED']}/release"
    await client.post(path, json={"idempotency_key": "c"})
    server.clock.now_ms = BEGIN_MS + 4_000
    return client, names


async def listed(client: Any, **query: Any) -> list[str]:
    answer = await client.get("/v1/reservations", params=query)
    assert answer.status_code == 200, answer.text
    return [row["status"] for row in answer.json()["reservations"]]


async def test_filters(server: Server) -> None:
    client, names = await filled(server)
    newest_first = ["ACTIVE", "EXPIRED", "RELEASED", "COMMITTED"]
    assert await listed(client) == newest_first
    assert await listed(client, sort_by="created_at_ms", sort_dir="asc") == newest_first[::-1]
    assert await listed(client, sort_by="reserved", sort_dir="asc") == newest_first
    for state in newest_first:
        assert await listed(client, status=state) == [state]
        found = await client.get("/v1/reservations", params={"idempotency_key": state})
        (row,) = found.json()["reservations"]
        assert row["reservation_id"] == names[state]
    assert await listed(client, idempotency_key="ACTIVE", status="RELEASED") == []
    assert await listed(client, idempotency_key="") == []
    assert await listed(client, workspace="w0") == ["EXPIRED", "COMMITTED"]
    subject = {"workspace": "w0", "agent": "bot", "tenant": "acme"}
    assert await listed(client, status="EXPIRED", **subject) == ["EXPIRED"]
    assert await listed(client, agent="nobody") == []
    assert await listed(client, toolset="t", unknown="ignored", include_children="x") == []


async def test_windows(server: Server) -> None:
    client, _names = await filled(server)
    second = BEGIN_MS + 1_000
    assert await listed(client, **{"from": iso(second), "to": iso(second)}) == ["RELEASED"]
    assert await listed(client, **{"from": iso(second + 1)}) == ["ACTIVE", "EXPIRED"]
    assert await listed(client, to=iso(BEGIN_MS).replace("+00:00", "Z")) == ["COMMITTED"]
    assert await listed(client, expires_to=iso(BEGIN_MS + 3_000)) == ["EXPIRED"]
    ended = ["RELEASED", "COMMITTED"]
    assert await listed(client, finalized_from=iso(BEGIN_MS)) == ended
    assert await listed(client, finalized_to=iso(BEGIN_MS - 1)) == []
    blank = dict.fromkeys(
        ("from", "to", "expires_from", "expires_to", "finalized_from", "finalized_to"), ""
    )
    assert len(await listed(client, **blank)) == 4
    for low, high in (
        ("from", "to"),
        ("expires_from", "expires_to"),
        ("finalized_from", "finalized_to"),
    ):
        wrong = await client.get("/v1/reservations", params={low: iso(second), high: iso(BEGIN_MS)})
        assert wrong.status_code == 400


@pytest.mark.parametrize(
    "query",
    [{"status": "OPEN"}, {"limit": "0"}, {"limit": "201"}, {"limit": "１"}, {"from": "yesterday"},
     {"cursor": "x"}, {"cursor": "MS54"}, {"sort_dir": "up"}],
)  # fmt: skip
async def test_a_wrong_query_is_400(server: Server, query: dict[str, str]) -> None:
    answer = await server.client().get("/v1/reservations", params=query)
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")


async def test_projections(server: Server) -> None:
    client, _names = await filled(server)

    async def heavy(include: str) -> dict[str, Any]:
        found = await client.get("/v1/reservations", params={"include": include})
        row = found.json()["reservations"][-1]
        assert row["committed"] == usd(1)
        return {name: row[name] for name in ("metadata", "committed_metadata") if name in row}

    assert await heavy("") == {}
    assert await heavy("evidence,what") == {}
    assert await heavy(" metadata ,") == {"metadata": {"n": 0}}
    both = {"metadata": {"n": 0}, "committed_metadata": {"c": True}}
    assert await heavy("metadata,committed_metadata") == both


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_hold_everything_once(
    server: Server, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MOST_LOOKED_AT", 7)
    server.fund(1_000)
    client = server.client()
    for number in range(20):
        body = planned(f"k{number}", 1)
        body["subject"]["workspace"] = f"w{number % 3}"
        await client.post("/v1/reservations", json=body)
    for limit in (1, 3, 200):
        for workspace in (None, "w1"):
            query = {"limit": limit, "sort_dir": direction, "sort_by": "created_at_ms"}
            if workspace:
                query["workspace"] = workspace
            keys: list[str] = []
            for _turn in range(30):
                page = (await client.get("/v1/reservations", params=query)).json()
                keys += [row["idempotency_key"] for row in page["reservations"]]
                assert page["has_more"] == ("next_cursor" in page)
                if not page["has_more"]:
                    break
                query["cursor"] = page["next_cursor"]
            wanted = [f"k{n}" for n in range(20) if workspace is None or n % 3 == 1]
            assert keys == (wanted if direction == "asc" else wanted[::-1])


async def test_a_cursor_belongs_to_its_filters(server: Server) -> None:
    server.fund(1_000)
    client = server.client()
    for number in range(3):
        await client.post("/v1/reservations", json=planned(f"k{number}", 1))
    query: dict[str, Any] = {"limit": 1}
    query["cursor"] = (await client.get("/v1/reservations", params=query)).json()["next_cursor"]
    same = await client.get("/v1/reservations", params={**query, "include": "metadata"})
    assert same.status_code == 200
    other = await client.get("/v1/reservations", params={**query, "status": "ACTIVE"})
    assert other.status_code == 400


async def test_balances_need_a_subject(server: Server) -> None:
    client = server.client()
    for query in ("", "?tenant=", "?limit=5"):
        assert (await client.get("/v1/balances" + query)).status_code == 400
    assert (await client.get("/v1/balances?tenant=acme&limit=0")).status_code == 400
