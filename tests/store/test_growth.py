"""Growth: keys and payments count for ever, calls leave for files whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.calls import BY_EXCEPTION, ON_CHARGE, Overage, Status, Told
from guthaben.domain.commands import (
    Extend,
    Fulfil,
    GrantCredit,
    OpenEvent,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    SetLicense,
    Settle,
)
from guthaben.domain.grants import PAID
from guthaben.domain.period import Period
from guthaben.domain.topup import PENDING, TOPUP_PURCHASE, CreditEvent
from guthaben.errors import ConfigError
from guthaben.services import archive_files, growth
from guthaben.store import archive, queries
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.store.bank import Clock, hold, pay, problems, rows
from tests.store.history import (
    NAMES,
    USED,
    Stopped,
    gone,
    here,
    in_files,
    lived,
    ms,
    seen,
    stopping,
)

# ---- once, for ever


def test_a_key_a_gift_and_a_payment_count_once_over_the_months_end_and_in_the_archive(
    store: Store, clock: Clock, folder: Path
) -> None:
    clock.now_ms = ms(2023, 11, 30, 23, 59, 59)
    pay(store, "p", 1000)
    call_no = hold(store, "p", 100, "k")
    store.execute("p", RecordUsage("u", 5))
    bought = store.execute("p", OpenEvent(CreditEvent(0, TOPUP_PURCHASE, PENDING, 100, 3000)))
    assert bought.event is not None
    paid = Fulfil(bought.event.event_no, "pi_1", "cs_1")
    clock.now_ms = ms(2023, 12, 1)
    assert store.execute("p", Settle(call_no, 70, USED)).applied
    assert store.execute("p", paid).applied

    def once_more() -> None:
        for command in (Reserve("k", 100), RecordUsage("u", 5)):
            told = store.execute("p", command)
            assert (told.ok, told.applied, told.replayed) == (True, False, True), told
            assert told.call is not None
            assert told.call.status == Status.SETTLED
        # Keys belong to their operation: this one is new, and refused for another reason.
        assert store.execute("p", Reserve("u", 10**9)).reason == "insufficient_credit"
        assert store.execute("p", Reserve("k", 101)).reason == "idempotency_conflict"
        assert store.execute("p", RecordUsage("u", 6)).reason == "idempotency_conflict"
        told = store.execute("p", Settle(call_no, 70, USED))
        assert (told.ok, told.applied, told.replayed) == (True, False, True)
        assert store.execute("p", Settle(call_no, 71, USED)).reason == "settled_otherwise"
        assert not store.execute("p", Release(call_no)).applied
        assert store.execute("p", Extend(call_no, 1000)).reason == "call_over"
        assert store.execute("p", GrantCredit("paid", PAID, 1000)).replayed
        again = OpenEvent(CreditEvent(0, TOPUP_PURCHASE, PENDING, 100, 3000))
        event = store.execute("p", again).event
        assert event is not None
        assert not store.execute("p", Fulfil(event.event_no, "pi_1")).applied
        assert not store.execute("q", paid).applied
        left = store.read(lambda cur: queries.balance(cur, "p", None, clock.now_ms // 1000)[0])
        assert left.available_nano_usd == 1000 + 100 - 70 - 5
        assert problems(store) == []

    once_more()
    clock.now_ms = ms(2024, 3, 1)
    once_more()
    assert [one.calls for one in growth.maintain(store, folder, 35).archived] == [2]
    assert here(store) == 0
    once_more()
    assert here(store) == 0


def test_two_that_tell_the_same_at_once_find_the_archived_call(
    store: Store, clock: Clock, folder: Path
) -> None:
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    growth.maintain(store, folder, 35)
    again = [(name, Reserve(f"k{day}", 100)) for name in NAMES for day in (0, 1, 3)]

    def together(space: Workspace) -> list[Outcome]:
        space.prepare(again)
        return [space.apply(*one) for one in again]

    told = store.run(together)
    assert [one.replayed for one in told] == [True] * 6


# ---- leaving


def test_old_calls_leave_and_nothing_else_changes(store: Store, clock: Clock, folder: Path) -> None:
    lived(store, clock)
    clock.now_ms = ms(2024, 3, 10)
    before, calls = seen(store), here(store)
    done = growth.maintain(store, folder, 35).archived
    assert [one.month for one in done] == ["2023-11", "2023-12", "2024-01"]
    # What expired stays: a late settle may still book its difference.
    assert rows(store, "SELECT DISTINCT status FROM credit_call") == [(Status.EXPIRED,)]
    assert here(store) + gone(store) == calls
    assert sorted(in_files(folder)) == sorted(
        rows(store, "SELECT practice_id, call_no FROM credit_archived_call"
                    " JOIN credit_practice USING (practice_no)")
    )  # fmt: skip
    assert seen(store) == before
    assert problems(store) == []
    assert growth.file_problems(store, folder) == []
    assert growth.maintain(store, folder, 35).archived == ()
    expired = rows(store, "SELECT MIN(call_no) FROM credit_call")[0][0]
    assert store.execute("ana", Settle(expired, 30)).applied
    assert problems(store) == []
    assert [one.calls for one in growth.maintain(store, folder, 35).archived] == []
    clock.now_ms = ms(2024, 5, 1)
    assert [one.calls for one in growth.maintain(store, folder, 35).archived] == [1]
    assert growth.file_problems(store, folder) == []


def test_a_file_holds_every_column(store: Store, clock: Clock, folder: Path) -> None:
    lived(store, clock, 3)
    clock.now_ms = ms(2024, 3, 1)
    stored = rows(store, "SELECT * FROM credit_call WHERE status = 2")
    growth.maintain(store, folder, 35)
    (page,) = archive_files.read(folder / "calls-2023-11-0001.parquet")
    named = [dict(zip(archive.COLUMNS, row, strict=True)) for row in page]
    assert {(one["practice_id"], one["model"], one["input_tokens"]) for one in named} == {
        (name, "gpt-4o-mini", 900) for name in NAMES
    }
    assert len(stored) == len(page)
    # All that a row of the table holds, whatever its columns' order.
    for table_row, one in zip(sorted(stored), sorted(page), strict=True):
        assert sorted(map(str, table_row)) == sorted(str(value) for value in one[1:]) or {
            *map(str, table_row)
        } == {str(value) for value in one[1:]} | {"None"}


@pytest.mark.parametrize(
    "spared",
    ["open", "expired", "exception", "lease", "this period", "last period", "ended late", "young"],
)
def test_what_may_still_change_or_is_still_looked_at_stays(
    store: Store, clock: Clock, folder: Path, spared: str
) -> None:
    clock.now_ms = ms(2023, 11, 10)
    pay(store, "p", 10**9)
    if spared == "open":
        store.execute("p", Reserve("k", 100, 1000))
    elif spared == "expired":
        store.execute("p", Reserve("k", 100, 1000, ON_CHARGE))
        clock.wait(2000)
        store.run(lambda space: space.sweep("p"))
    elif spared == "exception":
        store.execute("p", Release(hold(store, "p", 100, "k"), BY_EXCEPTION))
    elif spared == "lease":
        lease = Reserve("k", 100, overage_policy=int(Overage.REJECT), told=Told("k"))
        call = store.execute("p", lease).call
        assert call is not None
        store.execute("p", Release(call.call_no))
    elif "period" in spared:
        ago = ms(2023, 11, 1) // 1000
        period = Period("L", ago, ago + 200 * 86_400)
        store.execute("p", RecordUsage("k", 5, period=period))
        start = ago if spared == "this period" else period.end_s
        store.execute("p", SetLicense("L", True, start, start + 200 * 86_400, 0))
    elif spared == "ended late":
        clock.now_ms = ms(2024, 2, 1)
        store.execute("p", RecordUsage("k", 5, event_at_s=ms(2023, 11, 10) // 1000))
    if spared == "young":
        clock.now_ms = ms(2024, 1, 31)
        store.execute("p", RecordUsage("k", 5))
    clock.now_ms = ms(2024, 3, 1)
    assert growth.maintain(store, folder, 35).archived == ()
    assert (here(store), gone(store), list(folder.iterdir())) == (1, 0, [])
    # The same call, had it been settled in time and in no such period, leaves.
    clock.now_ms = ms(2023, 11, 10)
    other = Period("M", ms(2023, 11, 1) // 1000, ms(2023, 12, 1) // 1000)
    store.execute("p", RecordUsage("other", 5, period=other))
    clock.now_ms = ms(2024, 3, 1)
    assert [one.calls for one in growth.maintain(store, folder, 35).archived] == [1]
    assert problems(store) == []


# ---- stopped anywhere


STEPS = ("begun", "written", "recorded", "moved", "done")


@pytest.mark.parametrize("step", ["begun", "page", *STEPS[1:]])
def test_of_two_that_archive_at_once_each_call_leaves_for_one_file(
    store: Store, clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The other does all that is left while the first stands at a step; one may refuse."""
    monkeypatch.setattr(archive_files, "PAGE", 5)
    lived(store, clock, 40)
    clock.now_ms = ms(2024, 3, 1)
    before, calls = seen(store), here(store)
    page, stood = growth._page, list[bool]()

    def at(now: str) -> None:
        if now == step and not stood:
            stood.append(True)
            with closing(Store(store.url, clock_ms=clock)) as other, suppress(ConfigError):
                growth.maintain(other, folder, 35)

    def at_a_page(*asked: Any) -> list[Any]:
        at("page")
        return page(*asked)

    monkeypatch.setattr(growth, "_page", at_a_page)
    with suppress(ConfigError):
        growth.maintain(store, folder, 35, at=at)
    assert stood
    growth.maintain(store, folder, 35)
    assert here(store) + gone(store) == calls
    assert len(in_files(folder)) == gone(store) > 30
    assert seen(store) == before
    assert (problems(store), growth.file_problems(store, folder)) == ([], [])
    listed = {one.file for one in store.read(archive.manifests)}
    assert {path.name for path in folder.iterdir()} == listed


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
def test_whatever_stops_it_the_next_run_goes_on(
    store: Store, clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    monkeypatch.setattr(archive_files, "PAGE", 5)
    lived(store, clock, 40)
    clock.now_ms = ms(2024, 3, 1)
    before, calls = seen(store), here(store)
    with pytest.raises(Stopped):
        growth.maintain(store, folder, 35, at=stopping(step, nth))
    assert here(store) + gone(store) == calls
    assert seen(store) == before
    assert problems(store) == []
    assert growth.file_problems(store, folder) == []
    growth.maintain(store, folder, 35)
    assert here(store) + gone(store) == calls
    assert len(in_files(folder)) == gone(store) > 30
    assert {one.state for one in store.read(archive.manifests)} == {archive.State.DONE}
    assert seen(store) == before
    assert problems(store) == []
    assert growth.file_problems(store, folder) == []
    assert store.execute("ana", Reserve("k0", 100)).replayed


@pytest.mark.parametrize("broken", ["write", "sync", "read"])
def test_a_disk_that_fails_or_lies_takes_nothing(
    store: Store, clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    before, calls = seen(store), here(store)

    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if broken == "write":
            patch.setattr(archive_files, "_batch", full)
        elif broken == "sync":
            patch.setattr(archive_files, "sync", full)
        else:
            honest = archive_files.read
            patch.setattr(
                archive_files, "read", lambda path: ([*page[1:]] for page in honest(path))
            )
        with pytest.raises(ConfigError, match="nothing has left"):
            growth.maintain(store, folder, 35)
    assert (here(store), gone(store), list(folder.iterdir())) == (calls, 0, [])
    assert seen(store) == before
    growth.maintain(store, folder, 35)
    assert gone(store) > 0
    assert seen(store) == before


def half_left(store: Store, clock: Clock, folder: Path) -> int:
    """Stop when a file is written down and nothing has left; tell how many calls there are."""
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    calls = here(store)
    with pytest.raises(Stopped):
        growth.maintain(store, folder, 35, at=stopping("recorded"))
    return calls


def test_a_file_that_was_lost_or_changed_takes_nothing_more(
    store: Store, clock: Clock, folder: Path
) -> None:
    calls = half_left(store, clock, folder)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for other in (whole[:-1], whole.replace(b"PAR1", b"PAR2"), None):
        if other is None:
            path.unlink()
        else:
            path.write_bytes(other)
        with pytest.raises(ConfigError, match="give the folder that archiving began in"):
            growth.maintain(store, folder, 35)
        assert here(store) == calls
    path.write_bytes(whole)
    growth.maintain(store, folder, 35)
    assert here(store) < calls
    assert problems(store) == []


def test_a_row_that_is_not_what_the_file_says_stays(
    store: Store, clock: Clock, folder: Path
) -> None:
    calls = half_left(store, clock, folder)
    touch = "UPDATE credit_call SET reference = ? WHERE key = 'k1'"
    store.run(lambda space: space.cursor.execute(touch, ("edited",)).rowcount)
    with pytest.raises(ConfigError, match="is not what the file says"):
        growth.maintain(store, folder, 35)
    assert (here(store), gone(store)) == (calls, 0)
    store.run(lambda space: space.cursor.execute(touch, (None,)).rowcount)
    growth.maintain(store, folder, 35)
    assert gone(store) > 0


# ---- what verify sees


def test_verify_misses_what_was_kept_of_a_call(store: Store, clock: Clock, folder: Path) -> None:
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    growth.maintain(store, folder, 35)

    def forge(sql: str) -> list[str]:
        def work(space: Any) -> list[Any]:
            space.cursor.execute(sql)
            found = verify_here(space.cursor)
            raise Undone(found)

        with pytest.raises(Undone) as told:
            store.run(work)
        return [problem.text for problem in told.value.args[0]]

    insert = (
        "INSERT INTO credit_archived_call (body_hash, created_at_ms, ended_at_s, first_seq,"
        " operation, key, reserved_nano_usd, practice_no, call_no, archive_no, cost_nano_usd,"
        " status) SELECT 1, 1, 1, 0, 1, 'x', 1, practice_no, {} FROM credit_practice"
        " WHERE practice_id = 'ana'"
    )
    for forged, said in [
        (insert.format("99, 7, 0, 3"), "are archived in file 7, there is none"),
        (insert.format("99, 1, 0, 3"), "its manifest says"),
        (insert.format("99, 1, 9, 2"), "the journal says 0 was used, stored is 9"),
        (insert.format("3, 1, 0, 3"), "it is archived and here as well"),
        ("UPDATE credit_archive SET calls = 1", "its manifest says"),
    ]:
        assert any(said in text for text in forge(forged)), forged
    assert problems(store) == []


class Undone(Exception):
    """Rolls a forgery back."""


def verify_here(cursor: Any) -> list[Any]:
    from guthaben.store.verify import verify

    return verify(cursor, None, 0).problems


@pytest.mark.parametrize(
    "forged", ["cost_nano_usd = cost_nano_usd + 1", "body_hash = 1", "key = 'z'", "status = 5"]
)
@pytest.mark.sqlite
def test_the_files_show_what_was_changed_here(
    store: Store, clock: Clock, folder: Path, forged: str
) -> None:
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    growth.maintain(store, folder, 35)
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as con, con:
        con.execute("DROP TRIGGER credit_archived_call_no_update")
        con.execute(f"UPDATE credit_archived_call SET {forged} WHERE call_no = 2")
    (problem,) = growth.file_problems(store, folder)
    assert "call 2 of ana is not as it is kept here" in problem


@pytest.mark.parametrize("statement", ["UPDATE credit_archived_call SET cost_nano_usd = 0",
                                       "DELETE FROM credit_archived_call"])  # fmt: skip
def test_what_is_kept_is_kept_for_ever(
    store: Store, clock: Clock, folder: Path, statement: str
) -> None:
    lived(store, clock, 8)
    clock.now_ms = ms(2024, 3, 1)
    growth.maintain(store, folder, 35)
    with pytest.raises(Exception, match="kept for ever"):
        store.run(lambda space: space.cursor.execute(statement).rowcount)


# ---- what stands in the way


def test_what_stands_in_the_way_is_said(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="There is no folder"):
        growth.maintain(store, tmp_path / "none", 35)
    with pytest.raises(ConfigError, match="35 days at least"):
        growth.maintain(store, tmp_path, 34)
    for wrong in ("34", "0", "-1", "x", "３６", "99999999", "000040999999"):
        monkeypatch.setenv("GUTHABEN_ARCHIVE_AFTER_DAYS", wrong)
        with pytest.raises(ConfigError, match="35 to 36500"):
            growth.archive_after_days()
    monkeypatch.delenv("GUTHABEN_ARCHIVE_AFTER_DAYS")
    assert growth.archive_after_days() == 400
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'guthaben\[archive\]'"):
        growth.maintain(store, tmp_path, 35)


@pytest.mark.sqlite
def test_a_host_that_reads_its_usage_here_keeps_it(
    store: Store, clock: Clock, folder: Path
) -> None:
    from guthaben.services.legacy.plans import monthly_allowance
    from guthaben.store.legacy import schema

    lived(store, clock, 8)
    con = sqlite3.connect(store.url.removeprefix("sqlite:///"))
    schema.ensure(con, monthly_allowance)
    con.commit()
    con.close()
    clock.now_ms = ms(2024, 3, 1)
    with pytest.raises(ConfigError, match="ai_usage_events"):
        growth.maintain(store, folder, 35)
    assert list(folder.iterdir()) == []
