"""What a customer agrees to before a saved card is charged automatically, in four languages.

Law: a text says who charges, when, how much at most per charge and month, what happens after a
decline and how to end it. A changed meaning is a new `VERSION`, in all languages at once; consents
store the version, the language and the numbers that were shown.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guthaben.domain.money import format_chf, format_usd
from guthaben.errors import InvalidInput
from guthaben.texts import LANGUAGES

__all__ = ["LANGUAGES", "VERSION", "Terms", "consent_text"]

VERSION: Final = "2026-11"


class Terms(NamedTuple):
    """The numbers that a consent is about."""

    amount_rappen: int
    cap_rappen: int
    trigger_percent: int
    trigger_below_nano_usd: int = 0
    largest_rappen: int = 0
    """The most one charge may be where a single call needs more; 0: never more."""


class _Sentences(NamedTuple):
    seller: str
    charge: str
    or_below: str
    larger: str
    cap: str
    decline: str
    end: str


_TEXTS: Final = {
    "de": _Sentences(
        "den Anbieter dieser Anwendung",
        "Ich ermächtige {seller}, meine hinterlegte Karte ohne weitere Rückfrage mit CHF {amount} "
        "zu belasten, sobald mein Guthaben unter {percent} % des im Abonnement enthaltenen "
        "Kontingents fällt{or_below} oder für einen Aufruf nicht ausreicht.",
        " (ohne Kontingent: unter USD {below})",
        "Braucht ein einzelner Aufruf mehr als das, darf eine Belastung bis zu CHF {largest} "
        "betragen.",
        "Zusammen werden je Kalendermonat höchstens CHF {cap} automatisch belastet.",
        "Lehnt die Bank eine Belastung ab, wird sie höchstens zweimal später wiederholt; danach "
        "wird die automatische Aufladung ausgeschaltet.",
        "Ich kann die automatische Aufladung jederzeit in den Einstellungen ausschalten; das gilt "
        "ab der nächsten Belastung.",
    ),
    "fr": _Sentences(
        "le fournisseur de cette application",
        "J'autorise {seller} à débiter ma carte enregistrée de CHF {amount}, sans autre demande, "
        "dès que mon crédit tombe en dessous de {percent} % du quota compris dans "
        "l'abonnement{or_below} ou ne suffit pas pour un appel.",
        " (sans quota : en dessous de USD {below})",
        "Si un seul appel demande davantage, un débit peut atteindre CHF {largest}.",
        "Au total, CHF {cap} au plus sont débités automatiquement par mois civil.",
        "Si la banque refuse un débit, il est retenté plus tard deux fois au plus ; ensuite la "
        "recharge automatique est désactivée.",
        "Je peux désactiver la recharge automatique à tout moment dans les réglages ; cela vaut "
        "dès le prochain débit.",
    ),
    "it": _Sentences(
        "il fornitore di questa applicazione",
        "Autorizzo {seller} ad addebitare CHF {amount} sulla mia carta registrata, senza ulteriore "
        "richiesta, non appena il mio credito scende sotto il {percent} % della quota compresa "
        "nell'abbonamento{or_below} o non basta per una chiamata.",
        " (senza quota: sotto USD {below})",
        "Se una singola chiamata richiede di più, un addebito può arrivare fino a CHF {largest}.",
        "In totale vengono addebitati automaticamente al massimo CHF {cap} per mese civile.",
        "Se la banca rifiuta un addebito, viene ritentato più tardi al massimo due volte; poi la "
        "ricarica automatica viene disattivata.",
        "Posso disattivare la ricarica automatica in qualsiasi momento nelle impostazioni; vale a "
        "partire dal prossimo addebito.",
    ),
    "en": _Sentences(
        "the provider of this application",
        "I authorise {seller} to charge my saved card CHF {amount}, without asking again, whenever "
        "my credit falls below {percent}% of the allowance included in my plan{or_below} or is not "
        "enough for a call.",
        " (without an allowance: below USD {below})",
        "If a single call needs more than that, one charge may be up to CHF {largest}.",
        "In total, at most CHF {cap} is charged automatically in a calendar month.",
        "If the bank declines a charge, it is tried again later, twice at most; after that the "
        "automatic top-up is switched off.",
        "I can switch the automatic top-up off in the settings at any time; that holds from the "
        "next charge on.",
    ),
}


def consent_text(language: str, terms: Terms, seller: str = "") -> str:
    """Write what a customer agrees to; `seller` names who charges. Raises `InvalidInput`."""
    if language not in _TEXTS:
        raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
    words = _TEXTS[language]
    below = terms.trigger_below_nano_usd
    parts = [words.charge]
    if terms.largest_rappen > terms.amount_rappen:
        parts.append(words.larger)
    parts += [words.cap, words.decline, words.end]
    return " ".join(parts).format(
        seller=seller or words.seller,
        amount=format_chf(terms.amount_rappen),
        percent=terms.trigger_percent,
        or_below=words.or_below.format(below=format_usd(below)) if below else "",
        largest=format_chf(terms.largest_rappen),
        cap=format_chf(terms.cap_rappen),
    )
