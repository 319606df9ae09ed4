"""The report: one run as JSON, as a table, and as a block in docs/performance.md.

Law: it says nothing that the run does not hold, and the same run gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.goals import Run, Verdict, judge

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BLOCKS = ("latest", "full", "profile")
"""Runs that docs/performance.md shows."""
TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def write(run: Run, name: str, results: Path = RESULTS, page: Path | None = PAGE) -> str:
    """Write JSON, table, plots and the page's block; give the table."""
    from benchmarks import plots

    results.mkdir(parents=True, exist_ok=True)
    run = {**run, "goals": [verdict._asdict() for verdict in judge(run)]}
    text = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    (results / f"{name}.json").write_text(text, encoding="utf-8")
    table = markdown(run)
    (results / f"{name}.md").write_text(f"# Benchmark\n\n{table}", encoding="utf-8")
    plots.write(run, name, results)
    if page is not None and name in BLOCKS:
        block = f"{table}\n{_pictures(name)}"
        page.write_text(replaced(page.read_text("utf-8"), name, block), encoding="utf-8")
    return table


def replaced(page: str, name: str, block: str) -> str:
    """Put a block between its two markers. Raises `ValueError` when the page has none."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found, rest = page.partition(begin)
    _old, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no {begin} ... {end}")
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"


def markdown(run: Run) -> str:
    """Write a run as tables."""
    parts = [_made_on(run), _goals([Verdict(**goal) for goal in run["goals"]])]
    for name, title in TITLES.items():
        found = run["databases"].get(name)
        if found is None:
            parts.append(
                f"## {title}\n\nNot measured: {run['missing'].get(name, 'not asked for')}."
            )
        else:
            parts.append(_database(title, found))
    if run["server"]:
        parts.append(_server(run["server"]))
    return "\n\n".join(parts) + "\n"


def _made_on(run: Run) -> str:
    machine, versions = run["machine"], run["versions"]
    made = [*machine.values(), *(f"{name} {number}" for name, number in versions.items())]
    return (
        f"Commit {run['commit']}, {run['date']}. {', '.join(made)}."
        f" Load of the machine before: {run['load_before']}.\n\n"
        f"Rounds: {run['rounds']}, of {run['seconds']:g} s a load. A figure is the median of the"
        " rounds, in brackets stand the lowest and the highest. A pair is a reserve and a settle,"
        " so two operations. Ratios count: a floor was measured right before its row."
    )


def _goals(verdicts: list[Verdict]) -> str:
    rows = []
    for one in verdicts:
        sign = ">=" if one.at_least else "<="
        shown = _number(one.measured) if one.measured is not None else "not measured"
        rows.append(
            [
                one.name,
                shown + (f" ({one.why_not})" if one.why_not else ""),
                f"{sign} {_number(one.bound)} {one.unit}",
                "yes" if one.reached else "**no**",
                "" if one.goal is None else f"{_number(one.goal)}: "
                + ("yes" if one.goal_reached else "no"),
            ]
        )  # fmt: skip
    head = ["what", "measured", "to reach", "reached", "the goal"]
    return "## Goals\n\n" + _table(head, rows)


def _database(title: str, found: Run) -> str:
    about = found["about"]
    parts = [f"## {title}\n\n{about['version']}: {about['settings']}."]
    floors = ", ".join(f"{name} {_spread(rate)}" for name, rate in found["floors"].items())
    parts.append(f"Floor, operations per second: {floors}.")
    if found.get("loop_ms"):
        parts.append(
            f"A loop of 1,000,000 additions took {_spread(found['loop_ms'])} ms all the while: the"
            " machine's own ups and downs."
        )
    rows = [
        [
            name,
            _spread(row["pairs_per_s"]),
            _spread(row["p50_ms"]),
            _spread(row["p99_ms"]),
            _number(row["floor_operations_per_s"]["median"]),
            _spread(row["operations_to_floor"]),
            _number(row["cpu_us_per_pair"]["median"]),
            _number(row["memory_mb"]["median"]),
        ]
        for name, row in found["loads"].items()
    ]
    head = ["callers", "pairs/s", "p50 ms", "p99 ms", "floor op/s", "operations / floor",
            "CPU us/pair", "memory MB"]  # fmt: skip
    parts.append(_table(head, rows))
    if half := found.get("half_load"):
        parts.append(
            f"At half load ({_number(half['rate_per_s'])} pairs begun per second, whatever becomes"
            f" of them; latency from the moment a pair was due): p50 {_spread(half['p50_ms'])} ms,"
            f" p99 {_spread(half['p99_ms'])} ms, highest {_spread(half['max_ms'])} ms."
        )
    parts.append(_history(found.get("history", {})))
    parts.append(
        "On disk, what these loads left (no model, no tokens), vacuumed:"
        f" {_number(found['live_bytes_per_call'])} bytes per call."
    )
    parts += [f"Failed: {text}." for text in found.get("failed", ())]
    return "\n\n".join(part for part in parts if part)


def _history(past: Run) -> str:
    if "calls" not in past:
        return f"Past calls: {past.get('skipped', 'not measured')}."
    rows = [
        [f"pairs/s, {name}", _spread(sizes["few"]), _spread(sizes["many"]),
         _number(past["cost_ratio"][name])]
        for name, sizes in past["pairs_per_s"].items()
    ]  # fmt: skip
    balance = past["balance_us"]
    ratio = balance["many"]["median"] / balance["few"]["median"]
    rows.append(["balance, us", _spread(balance["few"]), _spread(balance["many"]), _number(ratio)])
    told = past["verify"]
    said = told.get("failed") or (
        f"{told['transfers']:,} transfers of {told['practices']:,} practices in"
        f" {told['seconds']:.1f} s ({told['cpu_seconds']:.1f} s of this process), that is"
        f" {_number(told['transfers_per_s'])} per second"
        + (", all in order" if told["ok"] else f", PROBLEMS: {told['problems']}")
        + f"; memory grew by {_number(told['grew_mb'])} MB"
    )
    head = ["", f"after {past['few_calls']:,} calls", f"after {past['calls']:,}", "cost ratio"]
    return (
        _table(head, rows)
        + f"\n\nOn disk, vacuumed, with all indices, with a model and its tokens:"
        f" {_number(past['bytes_per_call'])} bytes per call. `verify`: {said}."
    )


def _server(servers: Run) -> str:
    rows = [
        [TITLES[name], _spread(told["first_start_s"]), _spread(told["start_s"]),
         _number(told["memory_mb"]["median"])]
        for name, told in servers.items()
    ]  # fmt: skip
    head = ["`guthaben serve` on", "start on nothing, s", "start again, s", "memory MB"]
    return "## Server\n\n" + _table(head, rows)


def _pictures(name: str) -> str:
    from benchmarks.plots import FILES

    return "\n\n".join(
        f"![{title}](../benchmarks/results/{name}-{file}.svg)" for file, title in FILES.items()
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _spread(told: dict[str, Any]) -> str:
    return f"{_number(told['median'])} ({_number(told['low'])}-{_number(told['high'])})"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
