"""History: what a balance and a pair cost after a thousand and after a million past calls."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from guthaben import Guthaben
from guthaben.domain.commands import RecordUsage
from guthaben.store.writer import Order

PRACTICE = "practice"


def _ignore(_answer: object) -> None:
    """Let the answer go; the last one is awaited."""


def grow(credit: Guthaben, until: int, begun_at: int) -> None:
    """Record past calls until there are so many; the writer folds them."""
    writer = credit.core.store._writers[0]
    for number in range(begun_at, until):
        writer.submit(Order(PRACTICE, RecordUsage(f"past-{number}", 100), _ignore))
        if number % 20_000 == 0:
            credit.record_usage(PRACTICE, 0, key=f"wait-{until}-{number}")
    credit.record_usage(PRACTICE, 0, key=f"wait-{until}")


def balance_us(credit: Guthaben, rounds: int = 7, each: int = 300) -> float:
    """Measure one balance in microseconds: the median of rounds, for the machine is noisy."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(each):
            credit.balance(PRACTICE)
        found.append((time.perf_counter() - begun) / each * 1e6)
    return median(found)


def pair_us(credit: Guthaben, tag: str, rounds: int = 5, each: int = 200) -> float:
    """Measure one pair of reserve and settle by a single caller, in microseconds."""
    found = []
    for turn in range(rounds):
        begun = time.perf_counter()
        for number in range(each):
            credit.reserve(PRACTICE, 1_000, key=f"{tag}-{turn}-{number}").settle(700)
        found.append((time.perf_counter() - begun) / each * 1e6)
    return median(found)


def measure(folder: Path, few: int, many: int) -> dict[str, float]:
    """Measure at `few` and at `many` past calls, on one database."""
    path = folder / "history.db"
    figures: dict[str, float] = {}
    with Guthaben.open(f"sqlite:///{path}") as credit:
        credit.grant(PRACTICE, 10**15, key="grant", kind="paid")
        begun_at = 0
        for calls in (few, many):
            grow(credit, calls, begun_at)
            begun_at = calls
            figures[f"balance_us_{calls}"] = balance_us(credit)
            figures[f"pair_us_{calls}"] = pair_us(credit, f"pair-{calls}")
        verifying = time.perf_counter()
        checked = credit.verify()
        figures["verify_transfers_per_s"] = checked.transfers / (time.perf_counter() - verifying)
        assert checked.ok, checked.problems[:3]
    figures["bytes_per_call"] = path.stat().st_size / many
    figures["balance_ratio"] = figures[f"balance_us_{many}"] / figures[f"balance_us_{few}"]
    figures["pair_ratio"] = figures[f"pair_us_{many}"] / figures[f"pair_us_{few}"]
    return figures
