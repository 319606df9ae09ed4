"""What a customer agrees to: automatic charges of a saved card, and the keeping of a card.

Law: a text says who charges, when, how much at most per charge and month, what happens after a
decline and how to end it. The words of a version never change: they stand in files of their own
(`guthaben.texts`), so that a recorded version finds exactly what its customer read. A changed
meaning is a new version, in all languages at once; consents store the version, the language and the
numbers that were shown.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guthaben.domain.money import format_chf, format_usd
from guthaben.errors import InvalidInput
from guthaben.texts import LANGUAGES, consent, consent_versions

__all__ = ["CARD_TEXT_VERSION", "LANGUAGES", "VERSION", "Terms", "card_text", "consent_text"]

VERSION: Final = "2026-11"
"""What customers agree to now."""
CARD_TEXT_VERSION: Final = "2026-11"
"""The same of the keeping of a card."""
_AUTO_TOPUP: Final = "auto_topup"
_CARD: Final = "card"


class Terms(NamedTuple):
    """The numbers that a consent is about."""

    amount_rappen: int
    cap_rappen: int
    trigger_percent: int
    trigger_below_nano_usd: int = 0
    largest_rappen: int = 0
    """The most one charge may be where a single call needs more; 0: never more."""


def consent_text(language: str, terms: Terms, seller: str = "", *, version: str = VERSION) -> str:
    """Write what a customer agrees to, or agreed to; `seller` names who charges.

    Raises `InvalidInput` for a language or a version that there is not.
    """
    words = _words(_AUTO_TOPUP, version, language)
    below = terms.trigger_below_nano_usd
    parts = [words["charge"]]
    if terms.largest_rappen > terms.amount_rappen:
        parts.append(words["larger"])
    parts += [words["cap"], words["decline"], words["end"]]
    return " ".join(parts).format(
        seller=seller or words["seller"],
        amount=format_chf(terms.amount_rappen),
        percent=terms.trigger_percent,
        or_below=words["or_below"].format(below=format_usd(below)) if below else "",
        largest=format_chf(terms.largest_rappen),
        cap=format_chf(terms.cap_rappen),
    )


def card_text(language: str, *, version: str = CARD_TEXT_VERSION) -> str:
    """Write what a customer agrees, or agreed, to whose card is kept with a purchase."""
    return _words(_CARD, version, language)["text"]


def _words(kind: str, version: str, language: str) -> dict[str, str]:
    if language not in LANGUAGES:
        raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
    if version not in consent_versions(kind):
        raise InvalidInput("no text has this version", field="version")
    return consent(kind, version, language)
