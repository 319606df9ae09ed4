"""E-mail that leaves: composed of a text and an HTML part, sent by SMTP over TLS.

Law: an address goes to the mail server and nowhere else: not into logs, reasons or errors. Without
TLS nothing is sent unless a setting says so. The same message keeps its Message-ID in every try.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from guthaben.channels.results import Again, Never, Result, Sent
from guthaben.channels.wording import Worded
from guthaben.config import MailSettings
from guthaben.mail_address import domain_of

TIMEOUT_S: Final = 20


def compose(
    server: MailSettings,
    recipient: str,
    worded: Worded,
    *,
    message_id: str,
    told_at_s: int,
    unsubscribe_url: str | None = None,
) -> EmailMessage:
    """Put an e-mail together; raises `ValueError` for what is no address, without repeating it."""
    if domain_of(recipient) is None:
        raise ValueError("the recipient has no e-mail address")
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(server.sender_name, addr_spec=server.sender)
    message["To"] = Address(addr_spec=recipient)
    message["Subject"] = worded.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(told_at_s, UTC))
    message["Message-ID"] = f"<{message_id}@{server.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    if unsubscribe_url is not None:
        message["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(worded.text)
    message.add_alternative(worded.html, subtype="html")
    message["Content-Language"] = worded.language  # the two lines above clear headers like it
    return message


def send(server: MailSettings, message: EmailMessage) -> Result:
    """Hand an e-mail over; raises nothing for what the mail server does."""
    try:
        with _session(server) as session:
            session.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _words in error.recipients.values()]
        return _refused(max(codes, default=450), "recipient")
    except smtplib.SMTPResponseException as error:
        # A refused login or sender is ours to mend: it is tried again, and alarmed in the end.
        mine = isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPSenderRefused)
        return Again("login") if mine else _refused(error.smtp_code, "message")
    except smtplib.SMTPNotSupportedError:
        return Again("tls_missing")
    except ssl.SSLError:
        return Again("tls")
    except TimeoutError:
        return Again("timeout")
    except (smtplib.SMTPException, OSError):
        return Again("connection")
    return Sent()


def _session(server: MailSettings) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if server.security == "tls":
        session: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=TIMEOUT_S, context=context
        )
    else:
        session = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    try:
        if server.security == "starttls":
            session.starttls(context=context)
        if server.user:
            session.login(server.user, server.password or "")
    except BaseException:
        session.close()
        raise
    return session


def _refused(code: int, what: str) -> Result:
    """Judge an answer of the mail server: 5xx is for ever, anything else for now."""
    reason = f"{what}_{code}"
    return Never(reason) if 500 <= code <= 599 else Again(reason)
