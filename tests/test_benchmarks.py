"""The benchmark's harness: a tiny run gives well-formed results, and goals are judged rightly.

No test here looks at how long anything takes: what a figure is worth, only a quiet machine tells.
"""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import http_cycles, past, profile, report
from benchmarks.__main__ import measured
from benchmarks.child import measure
from benchmarks.databases import Database, Postgresql, Sqlite
from benchmarks.goals import GOALS, MANY_CALLS, judge
from benchmarks.history import label_of, measure_history
from benchmarks.load import Load, prepare, run
from benchmarks.rounds import Deadline, Kind, Spread
from guthaben import Guthaben
from guthaben.domain.calls import SETTLED
from guthaben.store.calls import load_call
from tests import postgres

SILENT = {"tell": lambda _text: None}


def spread(value: float) -> dict[str, float]:
    return Spread(value, value, value)._asdict()


def loads(pairs: float, to_floor: float) -> dict[str, Any]:
    names = ("1 thread", "64 threads", "64 tasks", "64 tasks, hot")
    row = {"pairs_per_s": spread(pairs), "operations_to_floor": spread(to_floor)}
    return {name: copy.deepcopy(row) for name in names}


def history(ratio: float, room: float, per_s: float) -> dict[str, Any]:
    told = {"ok": True, "transfers": per_s * 10, "seconds": 10.0, "cpu_seconds": 10.0}
    ratios = {"1 thread": 1.0, "64 tasks": ratio}
    return {"calls": MANY_CALLS, "cost_ratio": ratios, "bytes_per_call": room, "verify": told}


def made_up(*, good: bool) -> dict[str, Any]:
    """A run that reaches every goal, or none."""
    past_of = history(1.1, 250, 300_000) if good else history(1.3, 900, 90_000)
    found = loads(12_000 if good else 900, 2.5 if good else 0.1)
    found["64 tasks, hot"]["pairs_per_s"] = spread(12_000 if good else 100)
    one = {"loads": found, "half_load": {"p99_ms": spread(8 if good else 80)}, "history": past_of}
    return {"databases": {"sqlite": one, "postgresql": copy.deepcopy(one)}, "missing": {}}


def test_a_good_run_reaches_everything() -> None:
    verdicts = judge(made_up(good=True))
    assert len(verdicts) == len(GOALS) == 16
    assert all(verdict.reached and verdict.goal_reached for verdict in verdicts)


def test_a_bad_run_reaches_nothing_and_hides_nothing() -> None:
    verdicts = judge(made_up(good=False))
    assert [verdict.name for verdict in verdicts] == [goal.name for goal in GOALS]
    assert not any(verdict.reached or verdict.goal_reached for verdict in verdicts)
    assert all(verdict.measured is not None for verdict in verdicts)


def verdict_of(run_: dict[str, Any], name: str) -> Any:
    return next(verdict for verdict in judge(run_) if verdict.name == name)


@pytest.mark.parametrize(
    ("pairs", "reached", "goal_reached"),
    [(5_999, False, False), (6_000, True, False), (9_999, True, False), (10_000, True, True)],
)
def test_at_least_means_at_least(pairs: float, reached: bool, goal_reached: bool) -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["loads"]["64 tasks"]["pairs_per_s"] = spread(pairs)
    told = verdict_of(made, "SQLite, 64 tasks")
    assert (told.measured, told.reached, told.goal_reached) == (pairs, reached, goal_reached)


@pytest.mark.parametrize(("ratio", "reached"), [(0.90, False), (0.92, True)])
def test_pairs_per_second_are_also_judged_beside_the_floor(ratio: float, reached: bool) -> None:
    made = made_up(good=False)
    row = made["databases"]["sqlite"]["loads"]["64 tasks"]
    row["operations_to_floor"] = spread(ratio)  # 12,000 operations are 0.913 of 13,148
    assert verdict_of(made, "SQLite, 64 tasks to the floor").reached is reached
    assert not verdict_of(made, "SQLite, 64 tasks").reached


@pytest.mark.parametrize(("room", "reached"), [(400, True), (401, False)])
def test_at_most_means_at_most(room: float, reached: bool) -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["history"]["bytes_per_call"] = room
    told = verdict_of(made, "SQLite, disk per call")
    assert (told.reached, told.goal_reached) == (reached, False)


def test_the_larger_room_counts() -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["live_bytes_per_call"] = 350
    told = verdict_of(made, "SQLite, disk per call")
    assert (told.measured, told.reached, told.goal_reached) == (350, True, False)


def test_a_database_that_is_missing_reaches_nothing_and_says_why() -> None:
    made = made_up(good=True)
    del made["databases"]["postgresql"]
    made["missing"]["postgresql"] = "there is no server"
    told = [one for one in judge(made) if one.name.startswith("PostgreSQL")]
    assert len(told) == 6
    for verdict in told:
        assert (verdict.measured, verdict.reached) == (None, False)
        assert verdict.why_not == "there is no server"


def test_a_shorter_past_does_not_reach_the_goal_of_the_long_one() -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["history"]["calls"] = 1_000_000
    (told,) = [one for one in judge(made) if one.name.startswith("SQLite, a pair after")]
    assert not told.reached
    assert "1,000,000 past calls only" in told.why_not


def test_verify_that_finds_something_has_no_speed() -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["history"]["verify"]["ok"] = False
    assert verdict_of(made, "SQLite, verify on one core").measured == 0


def test_the_worst_load_decides_about_the_past() -> None:
    made = made_up(good=True)
    made["databases"]["sqlite"]["history"]["cost_ratio"]["1 thread"] = 1.2
    (told,) = [one for one in judge(made) if one.name.startswith("SQLite, a pair after")]
    assert (told.measured, told.reached) == (1.2, False)


def test_a_block_of_the_page_is_replaced_and_nothing_else() -> None:
    page = "before <!-- bench:latest -->old<!-- /bench:latest --> after"
    told = report.replaced(page, "latest", "new\n")
    assert told == "before <!-- bench:latest -->\nnew\n<!-- /bench:latest --> after"
    assert report.replaced(told, "latest", "new") == told
    with pytest.raises(ValueError, match="bench:full"):
        report.replaced(page, "full", "new")


def test_the_pages_blocks_are_there() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    for name in report.BLOCKS:
        assert page.count(f"<!-- bench:{name} -->") == page.count(f"<!-- /bench:{name} -->") == 1


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Sqlite(tmp_path / "databases")
    return Postgresql(postgres.server())


def test_the_past_written_in_bulk_is_what_the_engine_would_have_left(database: Database) -> None:
    url = database.fresh("past-test")
    try:
        with Guthaben.open(url) as credit:
            past.grow(credit, 7, 300)
            told = credit.verify()
            assert told.problems == []
            assert (told.practices, told.transfers) == (7, 307)
            call = credit.core.store.read(lambda cursor: load_call(cursor, 1, 1))
            assert call is not None
            assert call.status == SETTLED
            assert call.cost_nano_usd > 0
            assert call.usage.model == past.MODEL
            # The engine goes on where the past ends.
            credit.reserve(past.name_of(3), 1_000_000).settle(700_000)
            assert credit.verify().ok
        assert database.calls("past-test") == 301
        assert "past-test" in database.labels()
        database.vacuum("past-test")
        room = database.size("past-test")
        assert 50 < room.bytes_per_call < 20_000
        assert 0.2 * room.size_bytes < database.warm("past-test") <= room.size_bytes
    finally:
        database.drop("past-test")
    assert database.calls("past-test") == 0


def test_an_open_load_keeps_its_rate_and_counts_what_it_began(tmp_path: Path) -> None:
    url = Sqlite(tmp_path).fresh("open")
    prepare(url)
    told = run(url, Load("open", 0, hot=False, seconds=0.4, rate_per_s=50))
    assert told.pairs == 20 or told.pairs == 21
    assert 0 < told.p50_ms <= told.p99_ms <= told.max_ms


def test_the_stages_of_a_pair_are_its_own_times(tmp_path: Path) -> None:
    url = Sqlite(tmp_path).fresh("stages")
    measure("prepare", url)
    told = measure("stages", url, Load("tasks", 8, hot=False, seconds=0.1)._asdict())
    stages = told["stages"]
    assert {"begin", "COMMIT", "the rules (domain)", "write rows", "fold, answer"} <= set(stages)
    assert stages["the rules (domain)"]["times"] == 2
    assert 0 < sum(stage["cpu_us"] for stage in stages.values()) <= told["cpu_us"]
    assert told["commands_per_batch"] >= 1
    assert "| COMMIT |" in profile.text("a load", {**told, "modules": {}})


def test_samples_count_for_the_innermost_module_of_ours_or_a_librarys() -> None:
    stacks = """
run (guthaben/store/writer.py:1);apply (guthaben/domain/apply.py:2);sha (hashlib.py:3) 6
run (guthaben/store/writer.py:1);wait (psycopg/connection.py:2) 3
_bootstrap (threading.py:1) 1
<module> (x.py:1);_find (<frozen importlib._bootstrap>:2) 50
 70
"""
    told = profile.shares(stacks)
    assert told == {"guthaben/domain/apply.py": 0.6, "psycopg": 0.3, "other": 0.1}


def test_a_past_that_does_not_fit_is_left_out_and_says_so(tmp_path: Path) -> None:
    database = Sqlite(tmp_path)
    told = measure_history(database, MANY_CALLS, 0.1, 1, Deadline(1), **SILENT)
    assert "make bench-full" in told["skipped"]
    assert not database.path(label_of(database, MANY_CALLS)).exists()


@pytest.mark.slow
def test_a_tiny_run_gives_json_tables_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots need guthaben[bench]")
    options = Namespace(minutes=8.0, rounds=1, seconds=0.1, history=600)
    kinds = [Kind("threads", 1, False), Kind("tasks", 64, False)]
    found = measured(
        [Sqlite(tmp_path / "databases")], {"postgresql": "not for this test"}, options, kinds
    )
    table = report.write(found, "tiny", tmp_path, page=None)

    told = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    of_sqlite = told["databases"]["sqlite"]
    assert of_sqlite["failed"] == []
    assert list(of_sqlite["loads"]) == ["1 thread", "64 tasks"]
    assert all(row["pairs_per_s"]["median"] > 0 for row in of_sqlite["loads"].values())
    assert of_sqlite["history"]["verify"]["ok"]
    assert of_sqlite["half_load"]["p99_ms"]["median"] > 0
    assert told["server"]["sqlite"]["memory_mb"]["median"] > 0
    assert len(told["goals"]) == len(GOALS)
    assert all(f"| {goal.name} |" in table for goal in GOALS)
    assert "not for this test" in table
    assert str(tmp_path) not in json.dumps(told)

    for file in ("throughput", "latency"):
        plot = tmp_path / f"tiny-{file}.svg"
        assert ElementTree.parse(plot).getroot().tag.endswith("svg")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("tiny*")}
    report.write(found, "tiny", tmp_path, page=None)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("tiny*")} == before


def test_a_goal_over_http_is_reached_or_it_is_said() -> None:
    slow = {"per_s": 1_999.0, "p99_ms": 60.1}
    quick = {"per_s": 2_000.0, "p99_ms": 60.0}
    assert [http_cycles.is_missed(50, *figure) for figure in slow.items()] == [True, True]
    assert [http_cycles.is_missed(50, *figure) for figure in quick.items()] == [False, False]
    assert not http_cycles.is_missed(10, "p99_ms", 1e9)
    written = http_cycles.table({50: [slow, quick]})
    assert "| per_s | 2000.00 | at least 2000 |" in written
    assert "1999" not in written
