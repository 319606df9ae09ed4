"""What is an e-mail address is taken as it stands; all else is refused, on every Python alike."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import SMTP
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.channels import email
from guthaben.channels.wording import Worded
from guthaben.config import MailSettings
from guthaben.errors import InvalidInput
from guthaben.mail_address import domain_of
from guthaben.services.targets import address_of

SERVER = MailSettings("mail.example", 587, "tls", None, None, "credit@localhost", "Guthaben")
WORDED = Worded("en", "Subject", "text", "<p>text</p>")
LONG = "x" * 100_000

PLAIN = [
    "a@b.ch", "Anna.Muster+ai@praxis-1.example", "o'neill@a.b.c.d.ch", "a/b=c@d.ch",
    "!#$%&'*+/=^_`{|}~-@b.ch", f"{'x' * 249}@b.ch", f"a@{'b.' * 125}ch",
]  # fmt: skip
ODD = [
    "", " ", "  ", "\t", "\n", "@", "a@", "@b", "@b.ch", "a@b", "a@b@c.ch", ".", ",", ";", ":",
    "\\", "<", ">", "<>", "<a@b.ch>", "A <a@b.ch>", "a@b.ch,c@d.ch", "g:a@b.ch;", "@x,@y:a@b.ch",
    '"', '""', '"@b.ch', 'a"@b.ch', '""@b.ch', '"a"@b.ch', '"a b"@c.ch', '"a@x.ch,b"@c.ch',
    "(", ")", "(c)", "a(c)@b.ch", "a@b.ch(c)", "a@(c)b.ch", "(" * 5000, "a@" + "(" * 5000,
    "[", "]", "a@[", "a@[]", "a@[b.ch", "a@[1.2.3.4]", "a@[\\", "[" * 5000, '"' * 5000,
    ".a@b.ch", "a.@b.ch", "a..b@c.ch", "a@.b.ch", "a@b..ch", "a@b.ch.", "a@b_c.ch", "a@b.c%h",
    " a@b.ch", "a@b.ch ", "a @b.ch", "a@ b.ch", "a b@c.ch", "\ta@b.ch", "a\t@b.ch", "a@b.ch\t",
    "a@b.ch\n", "a@b.ch\r\n", "\na@b.ch", "a\r\n @b.ch", "a@b.ch\nBcc: x@y.ch", "a\x0b@b.ch",
    "\0", "\0@b.ch", "a\0@b.ch", "a@b\0.ch", "a@b.ch\0", "a\x1b@b.ch", "a\x7f@b.ch", "a@b.ch\x85",
    "ä@b.ch", "a@ä.ch", "а@b.ch", "a@b.ch\u2028", "\u200ba@b.ch", "😀@b.ch", "a@b。ch", "ﬁ@b.ch",
    "\ud800@b.ch", "a@\udcff.ch", "=?", "=?utf-8?q?=40?=@b.ch", "a=?utf-8?q?=0A?=@b.ch",
    LONG, f"{LONG}@b.ch", f"a@{LONG}.ch", f"{'x' * 250}@b.ch", "a@" + "b." * 60_000 + "ch",
]  # fmt: skip


def written_to(address: str) -> list[str]:
    """Whom a mail server would be told, and what a reader of the message finds."""
    composed = email.compose(SERVER, address, WORDED, message_id="m", told_at_s=0)
    read = message_from_bytes(composed.as_bytes(), policy=SMTP)
    return [found for message in (composed, read) for _, found in getaddresses([message["To"]])]


@pytest.mark.parametrize("address", PLAIN)
def test_a_plain_address_is_kept_and_written_to(address: str) -> None:
    assert address_of(address) == address
    assert written_to(address) == [address, address]


def test_only_the_domain_has_no_capitals() -> None:
    assert address_of("Anna.MUSTER@Praxis.CH") == "Anna.MUSTER@praxis.ch"


@pytest.mark.parametrize("address", ODD, ids=lambda address: ascii(address[:24]))
def test_all_else_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InvalidInput) as found:
        address_of(address)
    words = (
        "address is no e-mail address;"
        " a domain with letters beyond a to z is written in its xn-- form"
    )
    assert (str(found.value), found.value.field) == (words, "address")


@given(st.text(alphabet="ab1.@-+=?\"'<>()[]\\,;: \t\r\n\0ä", max_size=12))
def test_whatever_is_taken_can_be_written_to(text: str) -> None:
    for address in (text, f"{text}@b.ch", f"a@{text}"):
        try:
            taken = address_of(address)
        except InvalidInput:
            continue
        assert address_of(taken) == taken
        assert written_to(taken) == [taken, taken]


def test_a_sender_may_be_on_this_machine_and_a_recipient_may_not() -> None:
    assert domain_of(SERVER.sender) == "localhost"
    with pytest.raises(InvalidInput):
        address_of(SERVER.sender)


def test_nothing_is_composed_for_what_is_no_address() -> None:
    with pytest.raises(ValueError, match="no e-mail address") as found:
        email.compose(SERVER, '"secret', WORDED, message_id="m", told_at_s=0)
    assert "secret" not in str(found.value)
