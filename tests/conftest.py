"""What holds for every test: a clean environment, and how long random tests run."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import databases, postgres

# How many times longer than usual tests marked "soak" run; `make soak` sets it.
SOAK_FACTOR = max(1, int(os.environ.get("SOAK_FACTOR", "1")))

LONGEST = (
    "simulation/test_simulation.py",
    "properties/test_machine.py",
    "faults/test_kill.py",
    "contract/test_suite.py",
    "faults/test_several_servers.py",
    "cli/test_programs.py",
    "cycles/test_machine.py",
    "story/test_story.py",
    "test_benchmarks.py",
    "mutants/test_harness.py",
)
"""Files that begin first, so that no run ends with one process at work and the others idle."""

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=[*databases.KINDS, "both", postgres.TOGETHER, postgres.CITUS],
        default="both",
        help="which databases the tests of both run on; 'together' is a PostgreSQL whose tables lie"
        " as on a cluster, 'citus' a cluster",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let every PostgreSQL of this run be a cluster, or lie like one, if that is asked for."""
    chosen = config.getoption("--database")
    if chosen in (postgres.TOGETHER, postgres.CITUS):
        postgres.LAYOUT = chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what says nothing of a file on both databases."""
    if "database_kind" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--database")
    if chosen in (postgres.TOGETHER, postgres.CITUS):
        chosen = databases.POSTGRESQL
    kinds = [kind for kind in databases.KINDS if chosen in (kind, "both")]
    given = [name for mark in metafunc.definition.iter_markers("parametrize") for name in mark.args]
    wants_a_file = "path" in metafunc.fixturenames and "path" not in given
    if wants_a_file or metafunc.definition.get_closest_marker("sqlite"):
        kinds = [databases.SQLITE]
    if chosen == "both" and metafunc.definition.get_closest_marker("edge"):
        kinds = [databases.SQLITE]
    metafunc.parametrize("database_kind", kinds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; skip what says nothing where tables lie together."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if postgres.LAYOUT != postgres.CUT:
        for item in items:
            if item.get_closest_marker("cut"):
                item.add_marker(pytest.mark.skip(reason="about tables that are cut into parts"))


@pytest.fixture
def database(database_kind: str, tmp_path: Path) -> databases.Database:
    """An empty database with the schema, of each kind in turn."""
    return databases.made(database_kind, tmp_path)


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
    if postgres.LAYOUT != postgres.CUT:
        # As many as elsewhere: tests that look into a store look into its first writer.
        monkeypatch.setenv("GUTHABEN_WRITER_LANES", "1")


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    # A command that runs inside of a test sends all logs to an output that the test then closes.
    root, ours = logging.getLogger(), logging.getLogger("guthaben")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    if root.handlers != handlers:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def _notices_are_told_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    # In production a notice with wrong facts is only complained of; no test may tell one.
    def wrong(mistake: str) -> None:
        raise AssertionError(mistake)

    monkeypatch.setattr("guthaben.services.notices.complain", wrong)
