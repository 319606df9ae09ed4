"""The table of planted bugs in docs/reliability.md, written from what was found."""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation import planted
from tests.simulation.command import Hunt

PAGE = planted.ROOT / "docs" / "reliability.md"
START, END = "<!-- planted bugs: start -->\n", "<!-- planted bugs: end -->"


def drawn(hunts: Sequence[Hunt]) -> str:
    """Draw one line per bug: what it is, after how many seeds it was found, and by which law."""
    bugs = planted.load()
    lines = [
        "| planted bug | what it is | found by seed no. | law that it breaks |",
        "|---|---|---|---|",
    ]
    for one in sorted(hunts, key=lambda hunt: (hunt.seeds or 1 << 30, hunt.bug)):
        seeds = str(one.seeds) if one.seeds else "not found"
        lines.append(f"| `{one.bug}` | {bugs[one.bug].why} | {seeds} | {one.law} |")
    found = [one.seeds for one in hunts if one.seeds]
    lines += ["", f"{len(found)} of {len(hunts)} found; {_halves(found)}."]
    return "\n".join(lines) + "\n"


def _halves(found: Sequence[int]) -> str:
    middle = sorted(found)[len(found) // 2] if found else 0
    return f"half of them by seed no. {middle}, the last by {max(found, default=0)}"


def page_with(table: str, page: str) -> str:
    """Put a table in the place of the old one."""
    head, _, rest = page.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}{table}{END}{tail}"


def write(hunts: Sequence[Hunt]) -> None:
    """Write the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(drawn(hunts), page), encoding="utf-8")


def listed(page: str) -> set[str]:
    """Name the bugs that a page's table lists as found."""
    table = page.partition(START)[2].partition(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {row.split("`")[1] for row in rows if "not found" not in row}
