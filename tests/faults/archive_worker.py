"""Archives and is killed at a step: python -m tests.faults.archive_worker URL FOLDER STEP NTH."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from guthaben.services import archive_files, growth
from guthaben.store.store import Store
from tests.store.history import ms

archive_files.PAGE = 5  # type: ignore[misc]


def main(url: str, folder: str, step: str, nth: int) -> None:
    """Archive what is old in March 2024."""
    left = nth

    def at(now: str) -> None:
        nonlocal left
        left -= now == step
        if now == step and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if step == "half a file":
        honest = archive_files._batch
        archive_files._batch = lambda rows: (at(step), honest(rows))[1]  # type: ignore[func-returns-value]
    growth.maintain(Store(url, clock_ms=lambda: ms(2024, 3, 10)), Path(folder), 35, at=at)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
