"""The server behind a real socket, and a wire in between that loses answers when told to."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

_DEADLINE_S = 20.0


def until(truth: Callable[[], bool]) -> None:
    """Wait until something is true that other threads bring about."""
    end_s = time.monotonic() + _DEADLINE_S
    while not truth():
        assert time.monotonic() < end_s, "it did not become true"
        time.sleep(0.005)


class Wire:
    """Passes bytes on; loses the answer to the next request whose first line holds a word."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.to_lose: list[str] = []
        self.lost = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(self._upstream)
                self._open += [near, far]
                threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        """Take turns: one whole request there, one whole answer back, as HTTP/1.1 clients do."""
        with contextlib.suppress(OSError), near, far:
            while True:
                request = _message(near)
                if not request:
                    return
                far.sendall(request)
                answer = _message(far)
                line = request.partition(b"\r\n")[0].decode()
                word = next((word for word in self.to_lose if word in line), None)
                if word is not None:
                    self.to_lose.remove(word)
                    self.lost += 1
                    return
                near.sendall(answer)

    def close(self) -> None:
        """End."""
        self._listener.close()
        for connection in self._open:
            connection.close()


def _message(source: socket.socket) -> bytes:
    """Read one whole message with a Content-Length (or without a body)."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = source.recv(65_536)
        if not piece:
            return b""
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    told = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    missing = int(told or 0) - len(body)
    while missing > 0:
        piece = source.recv(missing)
        found += piece
        missing -= len(piece)
    return found


@contextlib.contextmanager
def listening(app: Any) -> Iterator[Wire]:
    """Serve an app with uvicorn behind a wire."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    until(lambda: server.started)
    wire = Wire(listener.getsockname()[1])
    try:
        yield wire
    finally:
        wire.close()
        server.should_exit = True
        thread.join(10)
        listener.close()
