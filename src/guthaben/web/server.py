"""The server's process: one address, uvicorn, and an end within seconds of a signal.

Law: the address is taken before anything else is started, so that a port in use is told clearly.
SIGINT and SIGTERM both end the server in order: no new requests, running ones answered, jobs
stopped, the database closed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from guthaben.errors import ConfigError

_GRACE_S: Final = 3
_BACKLOG: Final = 2048


class Server(uvicorn.Server):
    """Uvicorn, and a word to the caller once requests are served."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then tell."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            _set_start_aside()
            self._on_ready()


def take_address(host: str, port: int) -> socket.socket:
    """Take an address to listen at; raises `ConfigError` when that can't be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} is in use: end the program that uses it, or choose another port."
            ) from error
        raise ConfigError(f"Can't listen at {host} port {port}: {error.strerror}.") from error


def _set_start_aside() -> None:
    """Let the garbage collector pass over what starting made: it stays until the end.

    Walking it took up to a tenth of a second, and whoever asked meanwhile waited for that.
    """
    gc.collect()
    gc.freeze()


def run(app: FastAPI, listener: socket.socket, on_ready: Callable[[], None]) -> bool:
    """Serve until a signal comes; False when the server could not start."""
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = Server(settings, on_ready)
    # Uvicorn raises the signal again after its end; both arrive as KeyboardInterrupt.
    with listener, ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.started


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by KeyboardInterrupt."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
