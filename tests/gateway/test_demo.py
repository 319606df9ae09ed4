"""The demo's three lines of Python, as printed, with OpenAI's own client, until credit ends."""

import re
import subprocess
import sys
from pathlib import Path

from tests.programs import Demo, demo, environment


def three_lines(running: Demo) -> str:
    """Find the lines in what the demo printed."""
    found = re.search(r"^( +)from openai import OpenAI\n(?:\1.+\n){2}", running.words(), re.M)
    assert found, running.words()
    return "\n".join(line.strip() for line in found.group(0).splitlines())


def run(program: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, cwd=folder, env=environment(), timeout=60, check=False,
    )  # fmt: skip


def test_the_printed_lines_work_and_at_zero_the_client_hears_where_to_buy(tmp_path: Path) -> None:
    with demo(tmp_path / "data") as running, running.api() as api:
        program = three_lines(running)
        before = api.get("/v1/balance").json()["available_usd"]
        said = run(program, tmp_path)
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith("Credit is what a practice has bought")
        after = api.get("/v1/balance").json()["available_usd"]
        assert float(after) < float(before)
        (call,) = api.get("/v1/calls").json()["calls"]
        assert (call["model"], call["status"]) == ("gpt-4o-mini", "settled")
        assert call["cost_usd"] != "0.00"

        api.post("/v1/usage", json={"cost_usd": after, "key": "all-of-it"})
        refused = run(program, tmp_path)
        assert refused.returncode != 0
        assert "Error code: 402" in refused.stderr
        assert "0.00 USD available" in refused.stderr
        assert running.url in refused.stderr.split("Error code: 402")[1]
