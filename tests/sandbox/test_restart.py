"""What the sandbox has done survives the death of its process."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import stripe

from tests.sandbox.harness import SECRET, Receiver, Running, charge, saved_card, wait_until

SOURCES = Path(__file__).resolve().parents[2] / "src"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(state: Path, port: int, receiver: Receiver) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "guthaben.sandbox", "--port", str(port)]
    command += ["--state", str(state), "--webhook-url", receiver.url]
    command += ["--webhook-secret", SECRET, "--retry-base-ms", "50"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen(command, env=environment)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/_control").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, 15)
    return process


@pytest.mark.faults
def test_a_killed_sandbox_goes_on(
    tmp_path: Path, receiver: Receiver, sdk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, state = free_port(), tmp_path / "sandbox.db"
    monkeypatch.setattr(stripe, "api_base", f"http://127.0.0.1:{port}")
    process = start(state, port, receiver)
    try:
        sandbox = Running(f"http://127.0.0.1:{port}", receiver)
        customer, method = saved_card(sandbox)
        sandbox.wait_idle()
        sandbox.control("/deliveries/pause")
        intent = charge(customer, method, "k1")
        sandbox.control("/clock", {"seconds": 3600})
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(receiver.seen)

        process = start(state, port, receiver)
        again = charge(customer, method, "k1")
        assert again.id == intent.id
        assert sandbox.charges() == 1
        assert stripe.PaymentIntent.retrieve(intent.id).status == "succeeded"
        assert sandbox.look("/clock")["now_s"] >= intent.created + 3600
        assert len(receiver.seen) == before
        sandbox.control("/deliveries/resume")
        sandbox.wait_idle()
        assert "payment_intent.succeeded" in receiver.types()
        assert len(receiver.verified()) == len(receiver.seen)
    finally:
        process.kill()
        process.wait()
