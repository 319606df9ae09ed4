"""Every route of the OpenAPI page, fuzzed from its own description by every role, over real HTTP.

Law: no answer is a 5xx of ours, none has a status, media type or body that the page doesn't tell.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from guthaben.services.upstreams import Upstream, Upstreams
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from guthaben.web.gateway.settings import GatewaySettings
from tests.gateway.served import MODELS, PRACTICE, Running, copy_priced

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: pip install 'guthaben[test]'"
)

ROLES: dict[str, tuple[str | None, tuple[str, ...]] | None] = {
    "nobody": None,
    "gate": (PRACTICE, ("gate",)),
    "credit": (PRACTICE, ("credit",)),
    "admin": (PRACTICE, ("admin",)),
    "everything": (PRACTICE, ("gate", "credit", "admin")),
    "operator of all": (None, ("gate", "credit", "admin")),
}
OUT_OF_SCOPE = ("/v1/ai-credit", "/stripe/")
"""The four modules keep an older description; what they answer is their contract's matter."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance",
)  # fmt: skip
MAY_FAIL = {502: ("/openai/",), 503: ("/v1/", "/openai/")}
"""A provider that can't be reached, payments that are not set up: documented, and meant."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[tuple[Services, Running]]:
    folder: Path = tmp_path_factory.mktemp("described")
    copy_priced(folder / "web.db")
    services = Services.open(f"sqlite:///{folder / 'web.db'}")
    services.guthaben.grant(PRACTICE, 10**12, key="given")
    nobody = Upstream("nobody", "http://127.0.0.1:9/v1", "k", {name: name for name in MODELS})
    running = Running(create_app(services, GatewaySettings(Upstreams([nobody]))))
    yield services, running
    running.close()
    services.stop()


def headers_of(services: Services, role: str) -> dict[str, str]:
    kind = ROLES[role]
    if kind is None:
        return {}
    key = services.keys.create(*kind, mode="test").key
    named = {"X-Practice-Id": PRACTICE} if kind[0] is None else {}
    return {"Authorization": f"Bearer {key}", "X-Cycles-API-Key": key, **named}


@pytest.mark.soak
@pytest.mark.parametrize("role", ROLES)
def test_nothing_undescribed_is_answered(
    server: tuple[Services, Running], role: str, soak_factor: int
) -> None:
    services, running = server
    headers = headers_of(services, role)
    described = [one for one in operations(running) if not one.path.startswith(OUT_OF_SCOPE)]
    for operation in described:
        fuzz(operation, headers, 2 * soak_factor)
    assert len(described) > 30


def operations(running: Running) -> list[Any]:
    """Everything that the server's own description offers."""
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations()]


def fuzz(
    operation: Any,
    headers: dict[str, str],
    examples: int,
    steer: Callable[[Any], None] = lambda _case: None,
) -> set[int]:
    """Send generated requests of one operation, hold the answers against the page, tell them.

    `steer` may change a request before it is sent.
    """
    heard: set[int] = set()
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples, database=None, derandomize=True, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def one(case: Any) -> None:
        steer(case)
        answer = case.call(headers=headers)
        heard.add(answer.status_code)
        meant = operation.path.startswith(MAY_FAIL.get(answer.status_code, ("never",)))
        used = [check for check in checks if not (meant and check is checks[0])]
        case.validate_response(answer, checks=used)

    one()
    return heard
