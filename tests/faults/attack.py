"""The attack: four `guthaben serve` on one database, and a crowd that does its worst for a while.

All at the same time, each from threads that go round the servers: a hot practice; rounds of calls
for which there is credit for exactly ten; endings of one call that race each other and its expiry;
and calls of a practice whose automatic top-up crosses its cap, and the end of a month. In the end
every number is what the answers said, and `verify` finds nothing.

    python -m tests.faults.attack --seconds 60 --database both
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from guthaben import Guthaben
from tests import databases
from tests.databases import Database
from tests.faults.town import LAST_SECOND_S, Town
from tests.programs import until

SERVERS = 4
HOT, ENDS, CAPPED = "prac_hot", "prac_ends", "prac_capped"
USD = 1_000_000_000
CAP_RAPPEN, CHARGE_RAPPEN, CHARGES = 9_000, 3_000, 3
TIGHT_AT_ONCE, TIGHT_ADMITTED = 16, 10
OF = "practice_no = (SELECT practice_no FROM credit_practice WHERE practice_id = ?)"
BOOKED = (
    "SELECT cap_month, status, COUNT(*), SUM(price_minor) FROM credit_event"
    " WHERE event_type = 'auto_topup_purchase' GROUP BY 1, 2 ORDER BY 1, 2"
)
MARCH = ("2027-03", "succeeded", CHARGES, CAP_RAPPEN)
APRIL = ("2027-04", "succeeded", CHARGES, CAP_RAPPEN)


class Attack:
    """One attack on one town; `run` does it and checks everything."""

    def __init__(self, folder: Path, database: Database, seconds: float) -> None:
        tight = tuple(f"prac_tight_{number}" for number in range(max(3, round(seconds))))
        self.town = Town(folder, database, (HOT, ENDS, CAPPED, *tight), SERVERS)
        self.tight = tight
        self.seconds = seconds
        self.over = threading.Event()
        self.answers: Counter[str] = Counter()
        self.spent_nano_usd: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._began_s = 0.0

    def run(self) -> dict[str, Any]:
        """Attack, check, and tell what there was."""
        self._prepare()
        crowd = [
            *(threading.Thread(target=self._safely, args=(self._hot, n)) for n in range(8)),
            *(threading.Thread(target=self._safely, args=(self._capped, n)) for n in range(8)),
            threading.Thread(target=self._safely, args=(self._races, 0)),
            threading.Thread(target=self._safely, args=(self._crowds, 0)),
            threading.Thread(target=self._safely, args=(self._meddle, 0)),
        ]
        self._began_s = time.monotonic()
        for thread in crowd:
            thread.start()
        try:
            self._through_the_month()
        finally:
            self.over.set()
            for thread in crowd:
                thread.join(120)
        return self._checked()

    def close(self) -> None:
        """End the servers."""
        self.town.close()

    # ---- before

    def _prepare(self) -> None:
        with Guthaben.open(self.town.database.url) as credit:
            credit.grant(HOT, 100_000 * USD, key="given")
            credit.grant(ENDS, 100_000 * USD, key="given")
            for name in self.tight:
                credit.grant(name, TIGHT_ADMITTED * USD, key="given")
        town = self.town
        with town.client(CAPPED) as client:
            page = client.post("/v1/payment-method/setup", json={}).json()
            town.press(page["checkout_url"])
            town.tell_all()
            wish = {
                "enabled": True, "amount_chf": "30.00", "trigger_below_usd": "100000.00",
                "cap_chf": "90.00", "consent_text_version": "2026-11", "language": "de",
            }  # fmt: skip
            answer = client.put("/v1/auto-topup", json=wish)
            assert answer.status_code == 200, answer.text
        town.change("UPDATE credit_topup_settings SET cooldown_s = 0")
        town.set_clock(LAST_SECOND_S)

    # ---- time

    def _through_the_month(self) -> None:
        """Stay in March's last second for half of it, then let time go on as it does outside."""
        town, half_s = self.town, self.seconds / 2
        until(lambda: self._booked() == [MARCH] or self.wrong, 60, "the cap of March")
        while self._passed_s() < half_s and not self.wrong:
            time.sleep(0.05)
        turned_s = time.monotonic()
        while not self.wrong:
            town.set_clock(LAST_SECOND_S + 1 + int(time.monotonic() - turned_s))
            done = self._booked() == [MARCH, APRIL]
            if done and self._passed_s() >= self.seconds:
                break
            assert self._passed_s() < self.seconds + 60, f"April's cap: {self._booked()}"
            time.sleep(0.05)

    def _passed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _booked(self) -> list[tuple[Any, ...]]:
        return self.town.stored(BOOKED)

    # ---- the crowd

    def _safely(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as error:
            self._note_wrong(repr(error))

    def _note_wrong(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def _send(self, what: str, client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
        """Ask; a refusal is an answer, and anything else that is no success is wrong."""
        answer = client.post(path, json=body)
        with self._lock:
            self.answers[f"{what} {answer.status_code}"] += 1
        if answer.status_code not in (200, 201, 402, 409):
            self._note_wrong(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer.json() if answer.status_code in (200, 201) else None

    def _hot(self, worker: int) -> None:
        with self.town.client(HOT, worker) as client, self.town.client(HOT, worker + 1) as other:
            for number in itertools.count():
                if self.over.is_set():
                    return
                body = {"amount_usd": "0.002", "key": f"{worker}-{number}"}
                call = self._send("hot reserve", client, "/v1/reservations", body)
                path = f"/v1/reservations/{call['id']}/settle"
                # Settled at another server than it was reserved at, and for more than reserved.
                done = self._send("hot settle", other, path, {"cost_usd": "0.003"})
                assert done["status"] == "settled", done
                with self._lock:
                    self.spent_nano_usd[HOT] += 3_000_000

    def _capped(self, worker: int) -> None:
        with self.town.client(CAPPED, worker) as client:
            for number in itertools.count():
                if self.over.is_set():
                    return
                body = {"amount_usd": "0.001", "key": f"{worker}-{number}"}
                call = self._send("capped reserve", client, "/v1/reservations", body)
                if call is not None:
                    path = f"/v1/reservations/{call['id']}/settle"
                    self._send("capped settle", client, path, {"cost_usd": "0.001"})

    def _meddle(self, _number: int) -> None:
        """Take every rest between two charges away, so that each call tries to charge again."""
        flying = (
            "SELECT COUNT(*) FROM credit_event WHERE event_type = 'auto_topup_purchase'"
            " AND status IN ('pending', 'unknown')"
        )
        while not self.over.wait(0.02):
            self.town.change(
                "UPDATE credit_practice SET auto_topup_next_s = 0 WHERE practice_id = ?", CAPPED
            )
            ((count,),) = self.town.stored(flying)
            self.most_in_flight = max(self.most_in_flight, int(count))

    def _races(self, _number: int) -> None:
        """Let settle, release and expiry of one call meet, each at its server.

        Asking for a balance expires what is due; every second call is due about then, once time
        goes on.
        """
        clients = [self.town.client(ENDS, number) for number in range(SERVERS)]
        for number in itertools.count():
            if self.over.is_set():
                break
            body = {"amount_usd": "1.00", "key": f"k{number}", "ttl_s": 1 + number % 2 * 899}
            call = self._send("race reserve", clients[0], "/v1/reservations", body)
            path = f"/v1/reservations/{call['id']}"
            if number % 2 == 0:
                self.over.wait(1)
            found: list[Any] = [None] * SERVERS

            def end(
                place: int,
                path: str = path,
                found: list[Any] = found,
                shift: int = number // 2,
            ) -> None:
                what = (place + shift) % SERVERS  # whose request leaves first is whose thread began
                if what == 3:
                    clients[place].get("/v1/balance")
                    return
                wish = {} if what == 1 else {"cost_usd": "0.50"}
                step = "release" if what == 1 else "settle"
                found[place] = self._send("race end", clients[place], f"{path}/{step}", wish)

            self._together(SERVERS, end)
            self._judge(clients[0].get(path).json(), [one for one in found if one])
        for client in clients:
            client.close()

    def _judge(self, final: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        applied = [one["status"] for one in answers if one["applied"]]
        winners = [status for status in applied if status != "settled_late"]
        if len(winners) > 1 or final["status"] == "reserved":
            self._note_wrong(f"winners {applied}, in the end {final['status']}")
        with self._lock:
            self.answers[f"race ended {final['status']}"] += 1
            if final["status"] in ("settled", "settled_late"):
                self.spent_nano_usd[ENDS] += 500_000_000

    def _crowds(self, _number: int) -> None:
        """Come with sixteen calls at once where there is credit for ten, at all servers."""
        for place, name in enumerate(self.tight):
            if self.over.wait(max(0.0, place * self.seconds / len(self.tight) - self._passed_s())):
                return
            clients = [self.town.client(name, number) for number in range(TIGHT_AT_ONCE)]
            before = self.answers["tight reserve 201"]
            self._together(
                TIGHT_AT_ONCE,
                lambda n, clients=clients: self._send(  # type: ignore[misc]
                    "tight reserve", clients[n], "/v1/reservations",
                    {"amount_usd": "1.00", "key": f"k{n}", "ttl_s": 86_400},
                ),
            )  # fmt: skip
            admitted = self.answers["tight reserve 201"] - before
            if admitted != TIGHT_ADMITTED:
                self._note_wrong(f"{name}: {admitted} were admitted")
            for client in clients:
                client.close()

    def _together(self, number: int, work: Callable[[int], Any]) -> None:
        gate = threading.Barrier(number)

        def one(place: int) -> None:
            gate.wait(60)
            work(place)

        crowd = [
            threading.Thread(target=self._safely, args=(one, place)) for place in range(number)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(60)

    # ---- after

    def _checked(self) -> dict[str, Any]:
        assert not self.wrong, self.wrong[:5]
        town = self.town
        town.tell_all()
        assert self._booked() == [MARCH, APRIL], "the cap is exact in both months"
        assert self.most_in_flight <= 1
        charged = sorted(
            one["payment_intent"] for one in town.objects("charge") if one["status"] == "succeeded"
        )
        asked = f"SELECT payment_id FROM credit_event WHERE {OF} ORDER BY 1"
        names = [name for (name,) in town.stored(asked, CAPPED)]
        assert sorted(names) == charged, "and so it is at the provider"
        with Guthaben.open(town.database.url, clock_ms=lambda: town.now_s * 1000) as credit:
            credit.expire()
            found = credit.verify()
            assert found.ok, found.problems
            for name in (HOT, ENDS):
                balance = credit.balance(name)
                assert balance.held_nano_usd == 0
                assert balance.credit_nano_usd == 100_000 * USD - self.spent_nano_usd[name], name
        return {
            "database": town.database.kind,
            "seconds": round(self._passed_s(), 1),
            "answers": dict(sorted(self.answers.items())),
            "requests": sum(n for what, n in self.answers.items() if "ended" not in what),
            "charges": len(charged),
            "transfers": found.transfers,
            "problems": len(found.problems),
        }


def attack(folder: Path, database: Database, seconds: float) -> dict[str, Any]:
    """Build a town, attack it, and give the counts."""
    made = Attack(folder, database, seconds)
    try:
        return made.run()
    finally:
        made.close()


def main() -> None:
    """Attack as the arguments say, and print what there was."""
    parser = argparse.ArgumentParser(prog="attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--database", choices=[*databases.KINDS, "both"], default="both")
    chosen = parser.parse_args()
    for kind in databases.KINDS:
        if chosen.database in (kind, "both"):
            with tempfile.TemporaryDirectory(prefix="attack") as folder:
                place = Path(folder)
                counts = attack(place, databases.made(kind, place), chosen.seconds)
            for name, value in counts.items():
                print(f"{name}: {value}")


if __name__ == "__main__":
    main()
