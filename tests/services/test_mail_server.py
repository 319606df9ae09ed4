"""Handing mail over: TLS or nothing, and settings that can't be misread."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest

from guthaben import config
from guthaben.channels import email
from guthaben.channels.results import Again, Never, Result, Sent
from guthaben.errors import ConfigError
from tests.services.receivers import MailBox


def message() -> EmailMessage:
    found = EmailMessage()
    found["From"], found["To"], found["Subject"] = "a@b.example", "c@d.example", "x"
    found.set_content("x")
    return found


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("", Sent()), ("451 later", Again("message_451")), ("550 no", Never("message_550")),
     ("421 closing", Again("message_421"))],
)  # fmt: skip
def test_answers_of_the_mail_server(answer: str, wanted: Result) -> None:
    with MailBox(answer) as box:
        assert email.send(box.settings, message()) == wanted


@pytest.mark.parametrize(("security", "reason"), [("starttls", "tls_missing"), ("tls", "tls")])
def test_nothing_is_sent_in_the_open(security: str, reason: str) -> None:
    with MailBox() as box:
        settings = config.MailSettings(
            "127.0.0.1", box.port, security, "user", "hunter2", "a@b.example", "G"
        )
        assert email.send(settings, message()) == Again(reason)
        assert box.received == []
        assert "hunter2" not in repr(settings)


def test_a_mail_server_that_is_not_there() -> None:
    with MailBox() as box:
        settings = box.settings
    assert email.send(settings, message()) == Again("connection")


GOOD = {"GUTHABEN_SMTP_HOST": "mail.example", "GUTHABEN_MAIL_FROM": "credit@vendor.example"}


def test_the_settings_of_the_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.mail() is None
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    found = config.mail()
    assert found is not None
    assert (found.port, found.security, found.sender_name) == (587, "starttls", "Guthaben")
    monkeypatch.setenv("GUTHABEN_SMTP_SECURITY", "TLS")
    again = config.mail()
    assert again is not None
    assert again.port == 465


@pytest.mark.parametrize(
    ("name", "value"),
    [("GUTHABEN_SMTP_SECURITY", "ssl"), ("GUTHABEN_SMTP_SECURITY", "none"),
     ("GUTHABEN_SMTP_PORT", "0"), ("GUTHABEN_SMTP_PORT", "²"), ("GUTHABEN_SMTP_PORT", "99999999"),
     ("GUTHABEN_MAIL_FROM", ""), ("GUTHABEN_MAIL_FROM", "x"), ("GUTHABEN_MAIL_FROM", "@x"),
     ("GUTHABEN_MAIL_FROM", "x@"), ("GUTHABEN_MAIL_FROM", "a b@c.ch"),
     ("GUTHABEN_MAIL_FROM", "A <a@b.ch>")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(monkeypatch: Any, name: str, value: str) -> None:
    for setting, good in {**GOOD, name: value}.items():
        monkeypatch.setenv(setting, good)
    with pytest.raises(ConfigError, match=name):
        config.mail()
