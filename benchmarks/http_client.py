"""A lean HTTP client for measuring: keep-alive connections, prepared requests, nothing parsed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple


class Target(NamedTuple):
    """Where and what to ask."""

    port: int
    path: str
    key: str
    body: dict[str, Any]

    def wire(self) -> bytes:
        """Write the request."""
        if not self.body:
            return f"GET {self.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        body = json.dumps(self.body, separators=(",", ":")).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Load(NamedTuple):
    """What one load measured."""

    requests: int
    seconds: float
    latencies_ms: list[float]

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def part(self, share: float) -> float:
        """Give the latency that so many stay below."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def _answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1") + str(await reader.read(500)))
    lower = head.lower()
    if b"content-length:" in lower:
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        return
    while True:
        size = int(await reader.readline(), 16)
        await reader.readexactly(size + 2)
        if not size:
            return


async def load(target: Target, clients: int, seconds: float) -> Load:
    """Ask again and again on so many connections."""
    wire, latencies = target.wire(), []
    begun = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            writer.write(wire)
            await _answer(reader)
            latencies.append((time.perf_counter() - start) * 1000)
        writer.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return Load(len(latencies), time.perf_counter() - begun, latencies)


async def first_bytes_ms(target: Target, times: int) -> list[float]:
    """Measure, one after the other, how long streams take to their first event."""
    wire, found = target.wire(), []
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    for _ in range(times):
        start = time.perf_counter()
        writer.write(wire)
        await reader.readuntil(b"data: {")
        found.append((time.perf_counter() - start) * 1000)
        await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    return found


async def open_streams(target: Target, many: int) -> list[asyncio.StreamWriter]:
    """Open so many streams and wait for the first event of each."""
    wire, writers = target.wire(), []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(wire)
        await reader.readuntil(b"data: {")
        writers.append(writer)

    for start in range(0, many, 50):
        await asyncio.gather(*(one() for _ in range(min(50, many - start))))
    return writers
