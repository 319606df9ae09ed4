"""Plots of one run, as SVG; the same run gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.goals import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = {
    "throughput": "Pairs per second by callers",
    "latency": "Latency of a pair by callers",
}
_TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_LINES = {
    "tasks": ("tasks", "tab:blue", "-"),
    "threads": ("threads", "tab:orange", "-"),
    "tasks, hot": ("tasks, one hot practice", "tab:blue", "--"),
    "threads, hot": ("threads, one hot practice", "tab:orange", "--"),
}


def write(run: Run, name: str, folder: Path) -> None:
    """Draw what `FILES` lists, one panel per database."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "guthaben", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    databases = run["databases"]
    for file, title in FILES.items():
        figure, panels = plt.subplots(
            1, max(1, len(databases)), figsize=(5 * max(1, len(databases)), 3.6), squeeze=False
        )
        for panel, (database, found) in zip(panels[0], databases.items(), strict=False):
            (_throughput if file == "throughput" else _latency)(panel, found)
            panel.set_title(_TITLES[database])
        figure.suptitle(title)
        figure.tight_layout()
        metadata = {"Date": None, "Creator": None}
        figure.savefig(folder / f"{name}-{file}.svg", format="svg", metadata=metadata)
        plt.close(figure)


def _points(found: Run, line: str, figure: str) -> tuple[list[int], list[Any]]:
    kind, _, hot = line.partition(", ")
    callers, values = [], []
    for name, row in found["loads"].items():
        words, _, is_hot = name.partition(", ")
        number, _, called = words.partition(" ")
        # One caller is "1 task", and its practice is the only one at a time: it begins both lines.
        if called.rstrip("s") == kind.rstrip("s") and (is_hot == hot or number == "1"):
            callers.append(int(number))
            values.append(row[figure])
    return callers, values


def _throughput(panel: Axes, found: Run) -> None:
    for line, (label, colour, style) in _LINES.items():
        callers, rates = _points(found, line, "pairs_per_s")
        middle = [rate["median"] for rate in rates]
        below = [rate["median"] - rate["low"] for rate in rates]
        above = [rate["high"] - rate["median"] for rate in rates]
        panel.errorbar(
            callers, middle, yerr=[below, above], label=label, color=colour, linestyle=style,
            marker="o", markersize=3, capsize=2,
        )  # fmt: skip
    floors = {name: rate["median"] for name, rate in found["floors"].items() if "hot" not in name}
    if floors:
        highest = max(floors, key=lambda name: floors[name])
        panel.axhline(
            floors[highest] / 2, color="gray", linestyle=":",
            label=f"floor, {highest}: half its operations",
        )  # fmt: skip
    _finish(panel, "pairs per second")
    panel.set_ylim(bottom=0)


def _latency(panel: Axes, found: Run) -> None:
    for line in ("tasks", "threads"):
        label, colour, _ = _LINES[line]
        for figure, style in (("p99_ms", "-"), ("p50_ms", "--")):
            callers, values = _points(found, line, figure)
            panel.plot(
                callers, [value["median"] for value in values], color=colour, linestyle=style,
                marker="o", markersize=3, label=f"{label}, {figure[:3]}",
            )  # fmt: skip
    panel.set_yscale("log")
    _finish(panel, "ms")


def _finish(panel: Axes, label: str) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks([1, 8, 64, 256], ["1", "8", "64", "256"])
    panel.set_xlabel("callers")
    panel.set_ylabel(label)
    panel.grid(visible=True, alpha=0.3)
    panel.legend(fontsize=7)
