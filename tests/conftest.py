"""What holds for every test: a clean environment, and how long random tests run."""

import os

import pytest
from hypothesis import HealthCheck, settings

# How many times longer than usual tests marked "soak" run; `make soak` sets it.
SOAK_FACTOR = max(1, int(os.environ.get("SOAK_FACTOR", "1")))

FOREIGN_PREFIXES = ("AZA_", "STRIPE_", "GUTHABEN_")

# Two shared cores make single examples slow now and then; that is no finding.
settings.register_profile(
    "project",
    deadline=None,
    max_examples=100 * SOAK_FACTOR,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def soak_factor() -> int:
    """Multiply rounds, seconds or examples by this in a test marked `soak`."""
    return SOAK_FACTOR


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # A developer's own keys must neither decide a test nor be used by one.
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _notices_are_told_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    # In production a notice with wrong facts is only complained of; no test may tell one.
    def wrong(mistake: str) -> None:
        raise AssertionError(mistake)

    monkeypatch.setattr("guthaben.services.notices.complain", wrong)
