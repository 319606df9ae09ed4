"""Webhooks that leave: signed as Standard Webhooks says, sent once, judged by their status alone.

Law: https to public addresses only (see `addresses`), no redirect is followed, no proxy is asked,
and after 15 s nobody waits any longer, however slowly the answer drips. The body is never logged,
nor is what the receiver answers.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from guthaben.channels.addresses import Destination, ForbiddenAddress, destination_of, resolve
from guthaben.channels.results import Again, Never, Result, Sent
from guthaben.errors import InvalidInput

TIMEOUT_S: Final = 15
_LONGEST_PAUSE_S: Final = 86_400
_AGENT: Final = "Guthaben-Webhooks/1"


def new_secret() -> str:
    """Make a signing secret: 32 random bytes in the form the format wants."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def signed_headers(
    message_id: str, body: bytes, signing_secrets: Sequence[str], now_s: int
) -> dict[str, str]:
    """Make the headers of one try; every secret that is still valid signs."""
    at = datetime.fromtimestamp(now_s, UTC)
    text = body.decode()
    signatures = [Webhook(secret).sign(message_id, at, text) for secret in signing_secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": _AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(signatures),
    }


def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> Result:
    """Send one webhook; raises nothing for what a stranger's server or network does."""
    try:
        place = destination_of(url, allow_private=allow_private)
        addresses = resolve(place, allow_private=allow_private)
    except InvalidInput:
        return Never("url_not_allowed")
    except ForbiddenAddress:
        return Again("address_not_allowed")
    except (OSError, UnicodeError):
        return Again("name_not_found")
    try:
        return _judged(*_exchange(place, addresses, body, headers))
    except TimeoutError:
        return Again("timeout")
    except ssl.SSLError:
        return Again("tls")
    except (OSError, http.client.HTTPException):
        return Again("connection")


def _exchange(
    place: Destination, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    connection = _Connection(place, addresses)
    # A socket's timeout starts again with every byte; this one does not.
    alarm = threading.Timer(TIMEOUT_S, connection.cut)
    alarm.daemon = True
    alarm.start()
    try:
        connection.request("POST", place.target, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Retry-After", "")
    except (OSError, http.client.HTTPException) as error:
        if connection.was_cut:
            raise TimeoutError from error
        raise
    finally:
        alarm.cancel()
        connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address, that proves to be the host by its certificate."""

    def __init__(self, place: Destination, addresses: Sequence[str]) -> None:
        super().__init__(place.host, place.port, timeout=TIMEOUT_S)
        self.was_cut = False
        self._addresses = addresses
        self._secure = place.secure

    def connect(self) -> None:
        """Connect to one of the addresses, whatever the name leads to by now."""
        plain = self.sock = self._reach()
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(plain, server_hostname=self.host)

    def _reach(self) -> socket.socket:
        problem: OSError = ConnectionError("the name has no address")
        for address in self._addresses:
            if self.was_cut:
                break
            try:
                return socket.create_connection((address, self.port), self.timeout)
            except OSError as error:
                problem = error
        raise problem

    def cut(self) -> None:
        """End the exchange from another thread."""
        self.was_cut = True
        if self.sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self.sock.shutdown(socket.SHUT_RDWR)


def _judged(status: int, retry_after: str) -> Result:
    if 200 <= status <= 299:
        return Sent()
    if status == 410:
        return Never("http_410", gone=True)
    asked = retry_after.strip()
    wanted_s = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0
    return Again(f"http_{status}", min(wanted_s, _LONGEST_PAUSE_S))
