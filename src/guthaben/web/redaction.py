"""Redaction: the second line that keeps secrets and addresses out of logs and answers.

Law: what looks like a key, a token, a card or an e-mail address does not leave. The first line is
that nobody writes such a thing down: logs take an allow-list of fields, and opaque references from
outside are refused when they look like one. Pure.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "[hidden]"

_SECRET: Final = r"""
      \b(?:sk|rk|pk)_(?:live|test|org)_[A-Za-z0-9*_]{3,}        # Stripe's keys
    | \b(?:sk|rk)_[A-Za-z0-9]{16,}
    | \bwhsec_[A-Za-z0-9+/=_-]{2,}                              # webhook secrets
    | \bgh_(?:live|test)_[A-Za-z0-9]{10}_[A-Za-z0-9]+           # our own API keys
    | \b(?:pi|seti|cs|src)_[A-Za-z0-9_]+_secret_[A-Za-z0-9]+    # client secrets
    | \b(?:pm|cus|card|tok|ba|src|seti|pi|cs|ch|py|re|pyr|evt|mandate)_(?:test_|live_)?
      (?=[A-Za-z]*\d)[A-Za-z0-9]{14,}                           # Stripe's ids
    | \b(?:sk|key|proj)-[A-Za-z0-9_-]{16,}                      # keys of AI providers
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{16,} | \bxox[abprs]-[\w-]{8,}
    | \bAKIA[0-9A-Z]{12,} | \bAIza[\w-]{20,}
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?    # JSON web tokens
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----
    | \bbearer\s+[^\s"',]{8,} | \bbasic\s+[A-Za-z0-9+/]{12,}=*
    | \b[a-z][a-z0-9+]{1,20}://[^\s/@:]*:[^\s/@]+@              # a password in an address
    | [^\s@"'<>()\[\]{}:,;=\\]+@[^\s@"'<>()\[\]{}:,;=\\]+\.[^\s@"'<>()\[\]{}:,;=.\\]{2,}  # e-mail
    | \b\d{4}([ -])\d{4}\1\d{4}\1\d{3,4}\b                      # a card's number in groups
    | \b756\.\d{4}\.\d{4}\.\d{2}\b                              # Swiss social security numbers
"""
_SHAPES: Final = re.compile(_SECRET, re.VERBOSE | re.IGNORECASE)
_CARD: Final = re.compile(r"\b[3-6]\d{14,15}\b")
"""Only hidden, never refused: a reference may well have as many digits."""


def redact(text: str) -> str:
    """Replace everything in a text that looks like a secret or an address."""
    return _CARD.sub(HIDDEN, _SHAPES.sub(HIDDEN, text))


def looks_secret(text: str) -> bool:
    """Tell whether a text holds something that looks like a secret or an address."""
    return _SHAPES.search(text) is not None
