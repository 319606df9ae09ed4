"""Show where each microsecond of a call goes: `python -m benchmarks.profile`, or `make profile`.

Two looks at the same load. First a watch around each stage of the writer's batch, by the clock and
by the processor; what is left is the callers' side. Then py-spy, if it is installed, counts in
which module the processor is (no code is changed for that). It writes benchmarks/results/profile.*
and the block of docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import databases as places
from benchmarks import machine
from benchmarks.child import environment, job_of, measure
from benchmarks.databases import Database
from benchmarks.load import Load
from benchmarks.report import PAGE, RESULTS, TITLES, replaced

LOADS = {
    "1 thread": Load("threads", 1, hot=False, seconds=3),
    "64 tasks": Load("tasks", 64, hot=False, seconds=3),
    "64 threads": Load("threads", 64, hot=False, seconds=3),
    "64 tasks, hot": Load("tasks", 64, hot=True, seconds=3),
}
_SAMPLES_PER_S = 400
_OURS = ("guthaben/", "benchmarks/")


def main() -> None:
    """Profile every database there is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--databases", default="sqlite,postgresql", help="which, with commas")
    parser.add_argument("--no-files", action="store_true", help="only show it")
    options = parser.parse_args()
    place = places.folder()
    figures: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        chosen: list[Database] = []
        if "sqlite" in options.databases:
            chosen.append(places.Sqlite(place))
        if "postgresql" in options.databases:
            found = stack.enter_context(places.postgresql(place))
            if isinstance(found, str):
                print(f"*** PostgreSQL is NOT profiled: {found} ***")
            else:
                chosen.append(found)
        for database in chosen:
            figures[database.name] = profiled(database)
    if not options.no_files:
        write(figures)


def write(figures: dict[str, Any], results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the figures as JSON and as tables, the tables into the page too."""
    run: dict[str, Any] = {
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "databases": figures,
    }
    (results / "profile.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    made = ", ".join([*run["machine"].values(), f"python {run['versions']['python']}"])
    told = [f"Commit {run['commit']}. {made}."]
    for name, loads in figures.items():
        told += [text(f"{TITLES[name]}, {load}", one) for load, one in loads.items()]
    block = "\n\n".join(told)
    (results / "profile.md").write_text(f"# Profile\n\n{block}", encoding="utf-8")
    page.write_text(replaced(page.read_text("utf-8"), "profile", block), encoding="utf-8")


def profiled(database: Database, loads: dict[str, Load] = LOADS) -> dict[str, Any]:
    """Profile all loads on one database, and print each."""
    figures = {}
    for name, load in loads.items():
        url = database.fresh("profile")
        measure("prepare", url)
        told = measure("stages", url, load._asdict())
        told["modules"] = modules(url, load)
        figures[name] = told
        print(text(f"{TITLES[database.name]}, {name}", told))
    database.drop("profile")
    return figures


def modules(url: str, load: Load) -> dict[str, float]:
    """Tell in which module the processor is, as shares; nothing when py-spy is not there."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        return {}
    with TemporaryDirectory() as folder:
        told = Path(folder) / "stacks"
        command = [spy, "record", "--rate", str(_SAMPLES_PER_S), "--format", "raw", "--gil"]
        command += ["--output", str(told), "--", sys.executable, "-m", "benchmarks.child"]
        done = subprocess.run(
            [*command, job_of("load", url, load._asdict())],
            env=environment(),
            capture_output=True,
            check=False,
        )
        if done.returncode or not told.exists():
            return {}
        return shares(told.read_text(encoding="utf-8"))


def shares(stacks: str) -> dict[str, float]:
    """Sum stacks up by the innermost module that is ours or a library's; imports are left out."""
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack or "importlib" in stack or not count.isdigit():
            continue  # a thread that was ending, or the process that was beginning
        counted[_module_of(stack.split(";"))] += int(count)
    total = sum(counted.values())
    return {module: count / total for module, count in counted.most_common() if total}


def _module_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        file = frame.rpartition("(")[2].partition(":")[0]
        if any(part in file for part in _OURS):
            return file[min(file.find(part) for part in _OURS if part in file) :]
        if "psycopg" in file:
            return "psycopg"
        if "asyncio" in file:
            return "asyncio"
    return "other"


def text(title: str, told: dict[str, Any]) -> str:
    """Write one load's profile as tables."""
    result = told["result"]
    stages = told["stages"]
    summary = (
        f"{result['pairs_per_s']:,.0f} pairs/s: {told['wall_us']:.0f} us a pair by the clock,"
        f" {told['cpu_us']:.0f} us of this process's processor ({told['system_us']:.0f} of it in"
        f" the system). {told['commands_per_batch']:.1f} commands a batch,"
        f" {told['waits']:.2f} waits (of any thread) and {told['write_calls']:.2f} writes of"
        f" {told['written_bytes']:,.0f} bytes a pair."
    )
    lines = [f"### {title}", "", summary, ""]
    lines += ["| stage of the writer | us by the clock | us of the processor | times a pair |"]
    lines += ["|---|---|---|---|"]
    for name, stage in sorted(stages.items(), key=lambda item: -item[1]["wall_us"]):
        wall, cpu, times = stage["wall_us"], stage["cpu_us"], stage["times"]
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {times:.2f} |")
    of_writer = sum(stage["cpu_us"] for stage in stages.values())
    lines.append(f"| callers and everything else | | {told['cpu_us'] - of_writer:.1f} | |")
    if told["modules"]:
        lines += ["", "| module | share of the samples | us of the processor |", "|---|---|---|"]
        for module, share in list(told["modules"].items())[:24]:
            lines.append(f"| {module} | {100 * share:.1f} % | {share * told['cpu_us']:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
