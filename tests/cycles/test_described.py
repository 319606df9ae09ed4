"""The Cycles routes, fuzzed from their description by every role, over real HTTP and far inwards.

Law: no answer is a 5xx, none has a status, media type or body that the page doesn't tell. Most
requests are steered to real subjects and reservations, so that more than refusals is judged.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from guthaben.services.upstreams import Upstreams
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from guthaben.web.gateway.settings import GatewaySettings
from tests.cycles.conftest import planned, usd
from tests.gateway.served import PRACTICE, Running
from tests.web.test_described import ROLES, fuzz, headers_of, operations

EXAMPLES = 6
LEFT_AS_IT_IS = 4
"""One request in so many is sent as it was generated."""
MAY_USE = ("gate", "everything", "operator of all")
OPERATIONS = 9


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[tuple[Services, Running]]:
    folder: Path = tmp_path_factory.mktemp("described-cycles")
    services = Services.open(f"sqlite:///{folder / 'cycles.db'}")
    for tenant in (PRACTICE, "foreign"):
        services.guthaben.grant(tenant, 10**12, key="given")
    running = Running(create_app(services, GatewaySettings(Upstreams([]))))
    yield services, running
    running.close()
    services.stop()


class Steering:
    """Makes generated requests meet what there is: own, foreign and finished reservations."""

    def __init__(self, services: Services, url: str) -> None:
        self._url = f"{url}/cycles/v1/reservations"
        self._number = count(1)
        self._keys = {
            tenant: services.keys.create(tenant, ("gate",), mode="test").key
            for tenant in (PRACTICE, "foreign")
        }

    def __call__(self, case: Any) -> None:
        """Steer one request."""
        number = next(self._number)
        if number % LEFT_AS_IT_IS == 0:
            return
        if "reservation_id" in (case.path_parameters or {}):
            case.path_parameters["reservation_id"] = self._reservation(number)
        if isinstance(case.body, dict):
            (case.headers or {}).pop("X-Idempotency-Key", None)
            self._steer_body(case.body, number)
        for name in ("cursor", "tenant", "from", "to", "include", "sort_by"):
            (case.query or {}).pop(name, None)

    def _steer_body(self, body: dict[str, Any], number: int) -> None:
        if "subject" in body:
            body["subject"] = {"tenant": PRACTICE, "agent": f"bot-{number % 3}"}
        for name in ("estimate", "actual"):
            if name in body:
                body[name] = usd(number * 7 % 1_200)

    def _reservation(self, number: int) -> str:
        """Make one: open, of somebody else, or already released."""
        tenant = "foreign" if number % 5 == 0 else PRACTICE
        headers = {"X-Cycles-API-Key": self._keys[tenant]}
        body = planned(f"made-{number}", subject={"tenant": tenant})
        made = httpx.post(self._url, json=body, headers=headers)
        assert made.status_code == 200, made.text
        name: str = made.json()["reservation_id"]
        if number % 7 == 0:
            ended = {"idempotency_key": f"ended-{number}"}
            httpx.post(f"{self._url}/{name}/release", json=ended, headers=headers)
        return name


@pytest.mark.soak
@pytest.mark.parametrize("role", ROLES)
def test_every_answer_is_described(
    server: tuple[Services, Running], role: str, soak_factor: int
) -> None:
    services, running = server
    headers, steer = headers_of(services, role), Steering(services, running.url)
    examples = (EXAMPLES if role in MAY_USE else 3) * soak_factor
    described = [one for one in operations(running) if one.path.startswith("/cycles/")]
    for operation in described:
        heard = fuzz(operation, headers, examples, steer)
        done = heard & {200, 201}
        assert bool(done) == (role in MAY_USE), (operation.label, heard)
    assert len(described) == OPERATIONS
