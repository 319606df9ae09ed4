"""Many at once over HTTP: the ceiling is exact, and a key is worth one reservation."""

import asyncio
from collections import Counter

import pytest

from tests.cycles.conftest import Server, planned, told, usd


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/events"])
async def test_64_at_once_with_credit_for_10(server: Server, path: str) -> None:
    server.fund(1_000)
    client = server.client()

    async def one(number: int) -> int:
        body = planned(f"k{number}", 100) if "res" in path else told(f"k{number}", 100)
        if "events" in path:
            body["overage_policy"] = "REJECT"
        answer = await client.post(path, json=body)
        if answer.status_code == 409:
            assert answer.json()["error"] == "BUDGET_EXCEEDED"
        return answer.status_code

    answers = Counter(await asyncio.gather(*(one(number) for number in range(64))))
    good = 200 if "res" in path else 201
    assert answers == {good: 10, 409: 54}
    assert server.guthaben.balance("acme").available_nano_usd == 0


async def test_of_commit_release_and_expiry_one_wins(server: Server) -> None:
    server.fund(1_000)
    client = server.client()
    for turn in range(10):
        made = await client.post("/v1/reservations", json=planned(f"k{turn}", 10))
        path = f"/v1/reservations/{made.json()['reservation_id']}"
        commit = {"idempotency_key": f"k{turn}", "actual": usd(10)}
        release = {"idempotency_key": f"k{turn}"}
        answers = await asyncio.gather(
            *(client.post(path + "/commit", json=commit) for _ in range(3)),
            *(client.post(path + "/release", json=release) for _ in range(3)),
        )
        won = {answer.json().get("status") for answer in answers if answer.is_success}
        assert len(won) == 1
        lost = [answer.json()["error"] for answer in answers if not answer.is_success]
        assert lost == ["RESERVATION_FINALIZED"] * 3


async def test_overdraft_is_never_above_its_limit_in_a_crowd(server: Server) -> None:
    server.fund(100)
    server.policy(overdraft_limit_nano_usd=50 * 10)
    client = server.client()
    names = []
    for number in range(10):
        body = planned(f"k{number}", 10, overage_policy="ALLOW_WITH_OVERDRAFT")
        made = await client.post("/v1/reservations", json=body)
        names.append(made.json()["reservation_id"])
    commits = [
        client.post(
            f"/v1/reservations/{name}/commit",
            json={"idempotency_key": name, "actual": usd(20)},
        )
        for name in names
    ]
    answers = Counter(answer.status_code for answer in await asyncio.gather(*commits))
    assert answers == {200: 5, 409: 5}
    assert server.guthaben.balance("acme").debt_nano_usd == 500
