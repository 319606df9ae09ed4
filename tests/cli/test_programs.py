"""`guthaben serve` and `guthaben demo` as processes: start, stop, again, and what goes wrong."""

import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import httpx
import pytest

from guthaben import Guthaben
from tests.programs import Demo, Program, free_port, guthaben, until

IN_ORDER_S = 15
"""Answers that go on are given three seconds; the rest is for a slow machine."""
SERVE = ("-m", "guthaben.cli", "serve", "--port")


def memory_kb(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_starts_answers_and_ends_in_order(tmp_path: Path, number: int) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = Program(tmp_path / "log", *SERVE, str(port))
    server.wait_for(f"{url}/readyz")
    made = guthaben("keys", "create", "prac_7", "--json", cwd=tmp_path)
    guthaben("grant", "prac_7", "1", cwd=tmp_path)
    headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    body = {"amount_usd": "0.25", "key": "k"}
    answer = httpx.post(f"{url}/v1/reservations", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 201
    began_s = time.monotonic()
    assert server.end(number) == 0
    assert time.monotonic() - began_s < IN_ORDER_S
    lines = [json.loads(line) for line in server.words().splitlines()]
    assert "listening" in {line["event"] for line in lines}
    assert "Traceback" not in server.words()
    with Guthaben.open(f"sqlite:///{tmp_path / 'guthaben.db'}") as credit:
        assert credit.balance("prac_7").held_nano_usd == 250_000_000


@pytest.mark.skipif(not Path("/proc").exists(), reason="/proc tells how much memory a program has")
def test_the_server_is_small(tmp_path: Path) -> None:
    port = free_port()
    server = Program(tmp_path / "log", *SERVE, str(port))
    server.wait_for(f"http://127.0.0.1:{port}/readyz")
    try:
        assert memory_kb(server.process.pid) < 120_000
    finally:
        server.end()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"STRIPE_SECRET_KEY": "sk_live_x"}, "STRIPE_WEBHOOK_SECRET is missing"),
        ({"STRIPE_SECRET_KEY": "nonsense"}, "no secret key"),
        ({"GUTHABEN_PORT": "http"}, "GUTHABEN_PORT"),
        ({"GUTHABEN_LOG_LEVEL": "loud"}, "GUTHABEN_LOG_LEVEL"),
        ({"GUTHABEN_DATABASE_URL": "mysql://x"}, "database URL"),
        ({"GUTHABEN_PUBLIC_URL": "credit"}, "GUTHABEN_PUBLIC_URL"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    arguments = ["serve"] if "GUTHABEN_PORT" in settings else ["serve", "--port", str(free_port())]
    told = guthaben(*arguments, cwd=tmp_path, **settings)
    assert told.returncode == 4
    assert words in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert "sk_live_x" not in told.stderr


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = guthaben(command, "--port", str(port), cwd=tmp_path)
    assert told.returncode == 4
    (line,) = told.stderr.splitlines()
    assert f"Port {port} is in use" in line
    assert told.stdout == ""


def processes_of(folder: Path) -> list[str]:
    """Find processes whose command line names a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in words and "zombie" not in words:
            found.append(words)
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


@needs_proc
def test_the_demo_ends_with_everything_and_goes_on_with_the_same_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = Demo(folder)
    until(lambda: len(processes_of(folder)) == 2)  # a child has its parent's name for a moment
    words = until(lambda: first.words() if "Ctrl-C" in first.words() else None)
    for part in (first.url, first.sandbox_url, first.key, "prac_demo", "curl", "from guthaben"):
        assert part in words
    with first.api() as api:
        assert api.get("/v1/balance").json()["available_usd"] == "2.00"
        call = api.post("/v1/reservations", json={"amount_usd": "0.5", "key": "k"}).json()
        api.post(f"/v1/reservations/{call['id']}/settle", json={"cost_usd": "0.25"})
        started = api.post("/v1/topups", json={"amount_chf": "30.00"}).json()
    began_s = time.monotonic()
    assert first.end(signal.SIGINT) == 0
    assert time.monotonic() - began_s < IN_ORDER_S
    assert processes_of(folder) == []
    assert "Traceback" not in first.words()

    second = Demo(folder, first.port)
    try:
        assert second.key == first.key
        with second.api() as api:
            assert api.get("/v1/balance").json()["available_usd"] == "1.75"
            assert api.get(f"/v1/topups/{started['topup_id']}").json()["status"] == "pending"
            page = httpx.get(started["checkout_url"], trust_env=False)
            assert page.status_code == 200, "the sandbox knows the page of the first run"
        busy = guthaben("demo", "--port", str(free_port()), "--data", str(folder), cwd=tmp_path)
        assert busy.returncode == 4
        assert "Another demo" in busy.stderr
    finally:
        assert second.end(signal.SIGTERM) == 0
    assert processes_of(folder) == []


@needs_proc
def test_a_demo_that_is_killed_leaves_no_sandbox_behind(tmp_path: Path) -> None:
    if os.uname().sysname != "Linux":
        pytest.skip("only Linux ends a child with its parent")
    folder = tmp_path / "data"
    demo = Demo(folder)
    assert processes_of(folder) != []
    demo.kill()
    until(lambda: not processes_of(folder))
    assert processes_of(folder) == []


def test_the_demo_keeps_its_secrets_to_its_owner_and_meets_no_real_key(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    real = {"STRIPE_SECRET_KEY": "sk_live_of_a_developer", "STRIPE_WEBHOOK_SECRET": "whsec_real",
            "GUTHABEN_DATABASE_URL": "sqlite:////nowhere/at/all.db"}  # fmt: skip
    demo = Demo(folder, None, **real)
    try:
        for name in ("api-key.txt", "webhook-secret.txt"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        with demo.api() as api:
            started = api.post("/v1/topups", json={"amount_chf": "30.00"})
            assert started.status_code == 201
            assert started.json()["checkout_url"].startswith(demo.sandbox_url)
    finally:
        demo.end()
    assert "sk_live_of_a_developer" not in demo.words()


def test_a_folder_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    told = guthaben("demo", "--port", str(free_port()), "--data", "file", cwd=tmp_path)
    assert told.returncode == 4
    assert "Can't use the folder" in told.stderr
