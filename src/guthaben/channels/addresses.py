"""Where a webhook may go: the guard against requests into our own network.

Law: only https to public addresses, unless a setting allows more. A name is looked up once, every
address it has must be public, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from guthaben.errors import InvalidInput

MAX_URL: Final = 500
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Destination(NamedTuple):
    """A URL taken apart."""

    secure: bool
    host: str
    port: int
    target: str


class ForbiddenAddress(Exception):
    """The name leads into a network that webhooks must not reach."""


def destination_of(url: str, *, allow_private: bool) -> Destination:
    """Check a URL and take it apart; raises `InvalidInput` that says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("url is no valid URL", field="url") from error
    host = parts.hostname or ""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or not host:
        raise InvalidInput(
            f"url must be an https URL of at most {MAX_URL} ASCII characters", field="url"
        )
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise InvalidInput("url must begin with https://", field="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("url must hold no user, password or fragment", field="url")
    literal = _literal(host)
    if literal is not None and not (allow_private or is_public(literal)):
        raise InvalidInput("url must not lead to a private address", field="url")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(secure, host, port or (443 if secure else 80), target)


def resolve(place: Destination, *, allow_private: bool) -> list[str]:
    """Look up a host's addresses. Raises `OSError`, or `ForbiddenAddress` if one is private."""
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(is_public(ipaddress.ip_address(a)) for a in addresses):
        raise ForbiddenAddress
    return addresses


def is_public(address: _Ip) -> bool:
    """Tell whether an address is out there, also when it is an IPv4 one in IPv6's clothes."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _literal(host: str) -> _Ip | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
