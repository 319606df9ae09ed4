"""The programs as a person starts them: server, sandbox, demo and command line, as processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from guthaben.web.redaction import redact

ROOT = Path(__file__).resolve().parent.parent
START_S = 30
WEBHOOK_SECRET = "whsec_test_of_the_whole"
STRIPE_KEY = "sk_test_sandbox"

T = TypeVar("T")


def free_port() -> int:
    """Return a port that nobody listens at now, and whose neighbour for the sandbox is free."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 421))
            except (OSError, OverflowError):
                continue
            return port


def environment(**settings: str) -> dict[str, str]:
    """Return an environment without a developer's own settings."""
    foreign = ("AZA_", "STRIPE_", "GUTHABEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), kept.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, **settings}


def until(found: Callable[[], T | None], seconds: float = 60, what: str = "it") -> T:
    """Ask again and again until there is an answer."""
    end_s = time.monotonic() + seconds
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < end_s, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


class Program:
    """A running process whose output goes to a file."""

    def __init__(self, log: Path, *command: str, **settings: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(**settings),
                cwd=log.parent,
            )

    def words(self) -> str:
        """Return all it wrote."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, url: str) -> float:
        """Wait until an address answers 200; return how many seconds that took."""
        began_s = time.monotonic()

        def answers() -> bool:
            assert self.process.poll() is None, f"it ended: {self.words()[-2000:]}"
            try:
                return httpx.get(url, timeout=2, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(answers, START_S, f"an answer of {url}")
        except AssertionError:
            self.kill()
            raise
        return time.monotonic() - began_s

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """End it in order; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def guthaben(*arguments: str, cwd: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "guthaben.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="200", **settings),
        cwd=cwd,
        timeout=60,
        check=False,
    )


class Demo(Program):
    """`guthaben demo` on a folder."""

    def __init__(self, folder: Path, port: int | None = None, **settings: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.sandbox_url = f"http://127.0.0.1:{self.port + 421}"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            folder / "demo.log",
            *("-m", "guthaben.cli", "demo", "--port", str(self.port), "--data", str(folder)),
            **settings,
        )
        self.start_s = self.wait_for(f"{self.url}/readyz")
        self.key = (folder / "api-key.txt").read_text().strip()

    def api(self) -> httpx.Client:
        """Return a client with the demo's key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=15, trust_env=False)


@contextmanager
def demo(folder: Path, port: int | None = None) -> Iterator[Demo]:
    """Run the demo for the length of a block."""
    running = Demo(folder, port)
    try:
        yield running
    finally:
        running.end()


class Control:
    """The sandbox's control API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def do(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Do something to the sandbox."""
        answer = self.http.post(f"/_control{path}", json=body or {})
        assert answer.status_code == 200, redact(answer.text)
        return answer.json()

    def look(self, path: str) -> Any:
        """Look at something of the sandbox."""
        return self.http.get(f"/_control{path}").json()

    def charges(self) -> int:
        """Count successful charges."""
        return int(self.look("/counters")["charges"].get("succeeded", 0))
