"""Webhooks reach public addresses over https, and nothing inside our own network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from guthaben.channels import webhook
from guthaben.channels.addresses import destination_of, is_public
from guthaben.channels.results import Again, Never
from guthaben.errors import InvalidInput

PRIVATE = (
    "127.0.0.1 127.8.8.8 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 0.0.0.0 "
    "100.64.0.1 192.0.2.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 ::1 :: fe80::1 "
    "fc00::1 fd12::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 "
    "2002:7f00:1:: 2002:a00:1:: 2001:db8::1"
).split()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told_in_every_dress(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput, match="private"):
        destination_of(f"https://{host}/x", allow_private=False)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"]
)
def test_public_addresses_are_let_through(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://a.ch/", "ftp://a.ch/", "https://", "https:///x", "https://u@a.ch/",
     "https://u:p@a.ch/", "https://a.ch/#x", "https://a.ch/ x", "https://a.ch/\n", "https://ä.ch/",
     "https://a.ch:99999/", "https://a.ch:x/", "file:///etc/passwd", "https://[::1", "gopher://a.ch",
     "https://a.ch/" + "x" * 500],
)  # fmt: skip
def test_what_is_no_https_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        destination_of(url, allow_private=False)


def test_a_url_is_taken_apart() -> None:
    found = destination_of("https://hooks.example.com/a/b?c=d", allow_private=False)
    assert tuple(found) == (True, "hooks.example.com", 443, "/a/b?c=d")
    assert destination_of("https://a.ch:8443", allow_private=False)[1:] == ("a.ch", 8443, "/")
    assert destination_of("http://127.0.0.1:1/x", allow_private=True)[:3] == (False, "127.0.0.1", 1)


def _names(monkeypatch: Any, *answers: list[str]) -> list[str]:
    """Let names lead to these addresses, one list per look-up; tell which were connected to."""
    asked = iter(answers)
    connected: list[str] = []

    def look_up(_host: str, port: int, **_more: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in next(asked)]

    def connect(place: tuple[str, int], _timeout: float) -> socket.socket:
        connected.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    return connected


def test_a_name_that_leads_inside_is_not_followed(monkeypatch: Any) -> None:
    connected = _names(monkeypatch, ["1.1.1.1", "169.254.169.254"])
    found = webhook.post("https://inside.example/", b"{}", {}, allow_private=False)
    assert found == Again("address_not_allowed")
    assert connected == []


def test_a_name_that_changes_after_the_check_changes_nothing(monkeypatch: Any) -> None:
    connected = _names(monkeypatch, ["1.1.1.1", "1.0.0.1"], ["127.0.0.1"])
    found = webhook.post("https://rebinding.example/", b"{}", {}, allow_private=False)
    assert found == Again("connection")
    assert connected == ["1.1.1.1", "1.0.0.1"], "looked up once; each checked address is tried"


def test_a_url_that_is_not_allowed_any_more_is_given_up() -> None:
    found = webhook.post("http://127.0.0.1:1/", b"{}", {}, allow_private=False)
    assert found == Never("url_not_allowed")


def test_a_name_nobody_knows_is_tried_again(monkeypatch: Any) -> None:
    def unknown(*_all: Any, **_more: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = webhook.post("https://nowhere.example/", b"{}", {}, allow_private=False)
    assert found == Again("name_not_found")


@pytest.mark.parametrize(
    ("status", "retry_after", "wanted"),
    [(200, "", "Sent"), (299, "", "Sent"), (301, "", "Again"), (400, "", "Again"),
     (410, "", "Never"), (429, "120", 120), (503, "99999999", 86_400),
     (503, "Wed, 21 Oct 2026 07:28:00 GMT", 0),
     (503, "-5", 0), (503, "9" * 30, 0), (500, "²", 0)],
)  # fmt: skip
def test_answers_are_judged_by_their_status(status: int, retry_after: str, wanted: Any) -> None:
    found = webhook._judged(status, retry_after)
    if isinstance(wanted, int):
        assert found == Again(f"http_{status}", wanted)
    else:
        assert type(found).__name__ == wanted
