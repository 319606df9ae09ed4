"""What counts as an e-mail address: a plain one, as every mail server takes it.

Law: the answer is the same on every Python, and no text breaks the asking; the parsers of `email`
do neither. Quotes, comments, spaces, numbers in place of a domain and letters beyond ASCII are
refused. Whether anybody reads what is sent there is not known here.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 254
# Without the question mark, with which `=?utf-8?q?...?=` would stand for some other text.
_WORD: Final = r"[A-Za-z0-9!#$%&'*+/=^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9-]+"
_ADDRESS: Final = re.compile(rf"{_WORD}(?:\.{_WORD})*@({_LABEL}(?:\.{_LABEL})*)")


def domain_of(text: str) -> str | None:
    """Give the domain of an e-mail address; None for what is no address."""
    found = _ADDRESS.fullmatch(text) if len(text) <= LONGEST else None
    return None if found is None else found[1]
