"""A relay between two programs that a test can cut, or let only hear one side of."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Listens on a port of its own and passes everything on to another, both ways."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = self._swallows = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and let none in any more."""
        with self._lock:
            self._is_cut = True
            self._end_all()

    def swallow(self) -> None:
        """Pass on what is asked, but instead of the next answer end everything."""
        self._swallows = True

    def mend(self) -> None:
        """Let connections in again."""
        with self._lock:
            self._is_cut = self._swallows = False

    def close(self) -> None:
        """Stop listening."""
        self.cut()
        self._server.close()

    def _end_all(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                asking, _address = self._server.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    asking.close()
                    continue
                try:
                    target = socket.create_connection(self._target)
                except OSError:
                    asking.close()
                    continue
                self._open |= {asking, target}
            for pair in ((asking, target, False), (target, asking, True)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self._swallows:
                    self.cut()
                    return
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
