"""Receivers of notices in this process: a mail server and a web server, that misbehave if told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from guthaben.config import MailSettings


class _Controller(Controller):
    """A controller that tells which port it was given."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()


@dataclass
class MailBox:
    """A mail server that keeps what it gets; `answer` is what it says instead of accepting."""

    answer: str = ""
    received: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    def __enter__(self) -> MailBox:
        self._controller = _Controller(self, hostname="127.0.0.1", port=0)
        self._controller.start()
        self.port = self._controller.port
        return self

    def __exit__(self, *_why: object) -> None:
        self._controller.stop()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.answer:
            return self.answer
        parsed = message_from_bytes(envelope.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        self.received.append(parsed)
        self.recipients.extend(envelope.rcpt_tos)
        return "250 OK"

    @property
    def settings(self) -> MailSettings:
        """What the engine needs to reach it."""
        return MailSettings(
            "127.0.0.1", self.port, "none", None, None, "credit@guthaben.example", "Guthaben"
        )


@dataclass
class Hook:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class HookReceiver:
    """A web server that keeps what it gets and answers as it is told: status and headers."""

    def __init__(self) -> None:
        self.received: list[Hook] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.drips_s = 0.0
        self.before: Callable[[], None] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook = Hook(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                receiver.received.append(hook)
                receiver.before()
                if receiver.drips_s:
                    self._drip()
                    return
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _drip(self) -> None:
                for _ in range(200):
                    time.sleep(receiver.drips_s)
                    try:
                        self.wfile.write(b"H")
                    except OSError:
                        return

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks"

    def __enter__(self) -> HookReceiver:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_why: object) -> None:
        self._server.shutdown()
        self._server.server_close()
