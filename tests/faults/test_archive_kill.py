"""Kill -9 while archiving: no call is lost, none is twice, and the next run ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guthaben.domain.commands import Reserve
from guthaben.services import growth
from guthaben.store.store import Store
from tests import postgres
from tests.store.bank import Clock, problems
from tests.store.history import gone, here, in_files, lived, ms, seen

pytestmark = [pytest.mark.faults]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "step", "nth"),
    [("sqlite", "half a file", 2), ("sqlite", "moved", 3), ("postgresql", "written", 1),
     ("postgresql", "moved", 2)],
)  # fmt: skip
def test_killed_while_archiving(tmp_path: Path, kind: str, step: str, nth: int) -> None:
    url = postgres.fresh() if kind == "postgresql" else f"sqlite:///{tmp_path}/credit.db"
    folder = tmp_path / "archive"
    folder.mkdir()
    clock = Clock()
    store = Store(url, clock_ms=clock)
    lived(store, clock, 40)
    clock.now_ms = ms(2024, 3, 10)
    before, calls = seen(store), here(store)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    child = subprocess.run(
        [sys.executable, "-m", "tests.faults.archive_worker", url, str(folder), step, str(nth)],
        cwd=ROOT, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    assert here(store) + gone(store) == calls
    assert seen(store) == before
    assert problems(store) == []
    growth.maintain(store, folder, 35)
    assert here(store) + gone(store) == calls
    assert {path.suffix for path in folder.iterdir()} == {".parquet"}
    assert len(in_files(folder)) == gone(store) > 30
    assert seen(store) == before
    assert (problems(store), growth.file_problems(store, folder)) == ([], [])
    assert store.execute("ana", Reserve("k0", 100)).replayed
    store.close()
