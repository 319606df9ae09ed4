"""Crowds over real HTTP: two servers on one database, the payment sandbox, one clock for all.

A payment that is told a hundred times while a hundred look at it is credited once. Workers that
cross the trigger in the last second of a month charge exactly the cap of each month, one at a time.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests import databases
from tests.faults.town import LAST_SECOND_S, Town
from tests.programs import until

pytestmark = pytest.mark.faults

TOLD, CROWDED = "prac_told", "prac_crowded"
CAP_RAPPEN = 9_000
WORKERS = 50


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    made = Town(folder, databases.made(databases.SQLITE, folder), (TOLD, CROWDED))
    yield made
    made.close()


def test_a_payment_told_100_times_beside_100_looks_is_credited_once(town: Town) -> None:
    with town.client(TOLD) as client:
        started = client.post("/v1/topups", json={"amount_chf": "30.00"}).json()
    town.press(started["checkout_url"])
    session = next(s for s in town.objects("checkout.session") if s["mode"] == "payment")
    intent = next(i for i in town.objects("payment_intent") if i["id"] == session["payment_intent"])
    bodies = [
        json.dumps(
            {
                "id": f"evt_{number % 60:024d}", "object": "event", "livemode": False,
                "type": kind, "created": LAST_SECOND_S, "api_version": "2026-10-28.endive",
                "data": {"object": about},
            }
        ).encode()
        for number, (kind, about) in zip(
            range(100),
            itertools.cycle(
                [("checkout.session.completed", session), ("payment_intent.succeeded", intent)]
            ),
            strict=False,
        )
    ]  # fmt: skip
    states: Counter[str] = Counter()
    start = threading.Barrier(40)

    def tell(number: int) -> int:
        if number < 20:
            start.wait()
        return town.tell(bodies[number], number)

    def look(number: int) -> int:
        if number < 20:
            start.wait()
        url = f"{town.urls[number % 2]}/portal/purchase/{started['topup_id']}"
        answer = httpx.get(url, timeout=60, trust_env=False)
        (state,) = [s for s in STATES if f'data-state="{s}"' in answer.text]
        states[state] += 1
        return answer.status_code

    with ThreadPoolExecutor(20) as tellers, ThreadPoolExecutor(20) as lookers:
        told = [tellers.submit(tell, number) for number in range(100)]
        looked = [lookers.submit(look, number) for number in range(100)]
        assert {future.result() for future in told} == {200}
        assert {future.result() for future in looked} == {200}
    assert set(states) <= {"open", "paid", "credited"}, "an order that was paid is never lost"
    town.tell_all()
    assert town.stored(f"SELECT status, amount_nano_usd FROM credit_event {OF}", TOLD) == [
        ("succeeded", 10_000_000_000)
    ]
    assert town.stored(f"SELECT granted_nano_usd FROM credit_grant {OF}", TOLD) == [
        (10_000_000_000,)
    ]
    assert not town.stored("SELECT 1 FROM credit_inbox WHERE status IN ('dead', 'quarantined')")
    with town.client(TOLD, 1) as client:
        assert client.get("/v1/balance").json()["credit_usd"] == "10.00"
    assert look(99) == 200
    assert states["credited"] >= 1
    town.balanced()


OF = "WHERE practice_no = (SELECT practice_no FROM credit_practice WHERE practice_id = ?)"
STATES = ("open", "turned_back", "processing", "paid", "credited", "review", "closed", "failed")


class Crowd:
    """Workers that make calls without end, each at one of the servers."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.over = threading.Event()
        self.answers: Counter[int] = Counter()
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WORKERS)]
        self._threads.append(threading.Thread(target=self._watch))

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def calls(self) -> int:
        """How many calls were answered so far."""
        with self._lock:
            return self.answers.total()

    def _work(self, worker: int) -> None:
        with self.town.client(CROWDED, worker) as client:
            for number in itertools.count():
                if self.over.is_set():
                    return
                body = {"amount_usd": "0.001", "key": f"{worker}-{number}"}
                answer = client.post("/v1/reservations", json=body)
                with self._lock:
                    self.answers[answer.status_code] += 1
                if answer.status_code == 201:
                    path = f"/v1/reservations/{answer.json()['id']}/settle"
                    client.post(path, json={"cost_usd": "0.001"})

    def _watch(self) -> None:
        """Take every rest between two looks away, so that each call tries to charge again."""
        while not self.over.is_set():
            self.town.change("UPDATE credit_practice SET auto_topup_next_s = 0")
            ((flying,),) = self.town.stored(
                "SELECT COUNT(*) FROM credit_event WHERE event_type = 'auto_topup_purchase'"
                " AND status IN ('pending', 'unknown')"
            )
            self.most_in_flight = max(self.most_in_flight, flying)
            self.over.wait(0.02)


def test_50_workers_in_the_last_second_of_a_month_charge_exactly_the_cap_of_both(
    town: Town,
) -> None:
    with town.client(CROWDED) as client:
        page = client.post("/v1/payment-method/setup", json={}).json()
        town.press(page["checkout_url"])
        town.tell_all()
        assert client.get("/v1/auto-topup").json()["card_saved"]
        wish = {
            "enabled": True, "amount_chf": "30.00", "trigger_below_usd": "100000.00",
            "cap_chf": "90.00", "consent_text_version": "2026-11", "language": "de",
        }  # fmt: skip
        assert client.put("/v1/auto-topup", json=wish).status_code == 200
    town.change("UPDATE credit_topup_settings SET cooldown_s = 0")
    town.set_clock(LAST_SECOND_S)

    def booked() -> list[tuple[Any, ...]]:
        return town.stored(
            "SELECT cap_month, status, COUNT(*), SUM(price_minor) FROM credit_event"
            " WHERE event_type = 'auto_topup_purchase' GROUP BY 1, 2 ORDER BY 1, 2"
        )

    march = ("2027-03", "succeeded", 3, CAP_RAPPEN)
    april = ("2027-04", "succeeded", 3, CAP_RAPPEN)
    with Crowd(town) as crowd:
        until(lambda: booked() == [march], 60, "the cap of March")
        seen = crowd.calls()
        until(lambda: crowd.calls() > seen + 100, 60, "more calls in the same second")
        assert booked() == [march]
        town.set_clock(LAST_SECOND_S + 1)
        until(lambda: booked() == [march, april], 60, "the cap of April")
        seen = crowd.calls()
        until(lambda: crowd.calls() > seen + 100, 60, "more calls in April")
    town.tell_all()
    assert booked() == [march, april], "the cap is exact in both months"
    assert crowd.most_in_flight <= 1
    assert set(crowd.answers) <= {201, 402}, crowd.answers
    charged = sorted(
        charge["payment_intent"]
        for charge in town.objects("charge")
        if (charge["status"], charge["amount"]) == ("succeeded", 3_000)
        and charge["metadata"]["practice_id"] == CROWDED
    )
    names = town.stored(f"SELECT payment_id FROM credit_event {OF} ORDER BY 1", CROWDED)
    assert [name for (name,) in names] == charged, "and so it is at the provider"
    assert len(charged) == 6
    town.balanced()
