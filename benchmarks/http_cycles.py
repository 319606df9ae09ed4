"""Reservations over HTTP, by the Cycles route, beside the same framework answering a constant.

Law: one server process with one worker, the load in this one, on keep-alive connections written to
as plain bytes, so that it costs little of the machine they share. Each figure stands beside its
floor of the same turn; ratio and CPU per request are what shared machines tell reliably.
Run: `python -m benchmarks.http_cycles [--seconds S] [--clients N ...] [--strict]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"
PRACTICE = "bench"
ROUTE = "/cycles/v1/reservations"


class Result(NamedTuple):
    """What one load measured."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server, per request."""


# ---------------------------------------------------------------- the server, another process


def serve(kind: str, folder: Path) -> None:
    """Serve the real app, or the floor, and tell port and key on the first line."""
    import socket

    from fastapi import FastAPI
    from starlette.responses import JSONResponse

    from guthaben.web import server
    from guthaben.web.app import create_app
    from guthaben.web.deps import Services

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    key = ""
    if kind == "floor":
        app = FastAPI(openapi_url=None)

        async def constant(_request: object) -> JSONResponse:
            return JSONResponse({"decision": "ALLOW"})

        app.add_route(ROUTE, constant, methods=["POST"])
    else:
        services = Services.open(f"sqlite:///{folder / 'bench.db'}")
        services.guthaben.grant(PRACTICE, 10**14, key="credit")
        key = services.keys.create(PRACTICE, ("gate",)).key
        app = create_app(services)
    print(json.dumps({"port": listener.getsockname()[1], "key": key}), flush=True)
    server.run(app, listener, lambda: print("ready", flush=True))


class Served(NamedTuple):
    """A running server."""

    pid: int
    port: int
    key: str

    def cpu_s(self) -> float:
        """Tell the processor time it has used, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Served]:
    """Run a server meanwhile."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AZA_", "STRIPE_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_cycles", "--serve", kind, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        env=clean,
        text=True,
    )
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        process.stdout.readline()
        yield Served(process.pid, told["port"], told["key"])
    finally:
        process.terminate()
        process.wait(10)


# ---------------------------------------------------------------- the load


def request(key: str, idempotency_key: str) -> bytes:
    """Write one reservation as a client would send it."""
    body = json.dumps(
        {
            "idempotency_key": idempotency_key,
            "subject": {"tenant": PRACTICE, "agent": "bench"},
            "action": {"kind": "llm.completion", "name": "gpt-4o-mini"},
            "estimate": {"unit": "USD_MICROCENTS", "amount": 1000},
            "ttl_ms": 60000,
        }
    )
    head = (
        f"POST {ROUTE} HTTP/1.1\r\nHost: bench\r\nX-Cycles-API-Key: {key}\r\n"
        f"X-Idempotency-Key: {idempotency_key}\r\nContent-Type: application/json\r\n"
        f"Accept: */*\r\nUser-Agent: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


class Client(asyncio.Protocol):
    """One keep-alive connection that sends the next request as soon as it is answered."""

    def __init__(self, key: str, name: str, until_s: float, times: list[float]) -> None:
        self.key, self.name, self.until_s, self.times = key, name, until_s, times
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.number = 0
        self.left = -1
        self.seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the next request, or end."""
        self.begun_s = time.perf_counter()
        if self.begun_s > self.until_s:
            self.transport.close()
            self.done.set_result(None)
            return
        self.number += 1
        self.transport.write(request(self.key, f"{self.name}-{self.number}"))

    def data_received(self, data: bytes) -> None:
        """Take an answer; anything but 200 ends the run."""
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self.seen.decode()))
            self.transport.close()
            return
        self.times.append(time.perf_counter() - self.begun_s)
        self.seen = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        """Notice a server that went away."""
        if not self.done.done():
            self.done.set_exception(error or RuntimeError("the server closed a connection"))


async def load(server: Served, clients: int, seconds: float, turn: str) -> Result:
    """Let so many clients send for so long."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    begun, cpu = time.perf_counter(), server.cpu_s()
    made = [
        await loop.create_connection(
            _client(server.key, f"{turn}-{number}", begun + seconds, times),
            "127.0.0.1",
            server.port,
        )
        for number in range(clients)
    ]
    await asyncio.gather(*(client.done for _transport, client in made))
    took = time.perf_counter() - begun
    percent = statistics.quantiles(times, n=100)
    return Result(
        len(times) / took,
        percent[49] * 1000,
        percent[98] * 1000,
        (server.cpu_s() - cpu) * 1000 / len(times),
    )


def _client(key: str, name: str, until_s: float, times: list[float]) -> Callable[[], Client]:
    return lambda: Client(key, name, until_s, times)


def measure(clients: int, seconds: float, folder: Path) -> list[dict[str, float]]:
    """Measure floor and route in turns, three times."""
    turns = []
    with served("floor", folder) as floor, served("cycles", folder) as real:
        for name, server in (("warm-floor", floor), ("warm", real)):
            asyncio.run(load(server, clients, 0.5, f"{clients}-{name}"))
        for turn in range(3):
            base = asyncio.run(load(floor, clients, seconds / 2, f"{clients}-f{turn}"))
            found = asyncio.run(load(real, clients, seconds, f"{clients}-r{turn}"))
            turns.append(
                {
                    **found._asdict(),
                    "floor_per_s": base.per_s,
                    "floor_p99_ms": base.p99_ms,
                    "floor_cpu_ms": base.cpu_ms,
                    "to_floor": found.per_s / base.per_s,
                }
            )
    return turns


GOALS = {(1, "p99_ms"): 5.0, (50, "p99_ms"): 60.0, (50, "per_s"): 2_000.0}
"""At so many clients: at most so long, at least so many."""


def is_missed(clients: int, figure: str, value: float) -> bool:
    """Tell whether a figure has a goal and does not reach it."""
    goal = GOALS.get((clients, figure))
    if goal is None:
        return False
    return value < goal if figure == "per_s" else value > goal


def best(turns: list[dict[str, float]]) -> dict[str, float]:
    """Choose the turn in which others used the machine least."""
    return max(turns, key=lambda turn: turn["per_s"])


def table(found: dict[int, list[dict[str, float]]]) -> str:
    """Write the best turn of each load beside its goals."""
    machine = (
        f"{platform.machine()} with {os.cpu_count()} cores, python {platform.python_version()}"
    )
    lines = ["# Reservations over HTTP, by the Cycles route", "", machine, ""]
    for clients, turns in found.items():
        lines += [f"| {clients} clients, one worker | measured | goal |", "|---|---|---|"]
        for figure, value in best(turns).items():
            goal = GOALS.get((clients, figure))
            word = "at least" if figure == "per_s" else "at most"
            lines.append(f"| {figure} | {value:.2f} | {f'{word} {goal:g}' if goal else ''} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print every turn, write a table and JSON of the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 50])
    parser.add_argument("--strict", action="store_true", help="fail where a goal is missed")
    parser.add_argument("--serve", choices=["floor", "cycles"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder)
        return
    found: dict[int, list[dict[str, float]]] = {}
    for clients in options.clients:
        with tempfile.TemporaryDirectory() as temporary:
            found[clients] = measure(clients, options.seconds, Path(temporary))
        for row in found[clients]:
            print(f"{clients} clients: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items()))
    RESULTS.mkdir(exist_ok=True)
    written = {str(clients): turns for clients, turns in found.items()}
    (RESULTS / "cycles.json").write_text(json.dumps(written, indent=2) + "\n", "utf-8")
    (RESULTS / "cycles.md").write_text(table(found), "utf-8")
    missed = [
        f"{figure} at {clients}"
        for clients, turns in found.items()
        for figure, value in best(turns).items()
        if is_missed(clients, figure, value)
    ]
    if options.strict and missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
