"""What a caller's user reads when a request is refused, in German, French, Italian and English.

Law: the language is the one that `Accept-Language` prefers among these, else English. No text names
a practice, a key or a model's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = ("en", "de", "fr", "it")

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "insufficient_credit": {
        "en": "There is not enough credit for this request: {available} USD available, "
        "{requested} USD needed. Buy credit{link}",
        "de": "Das Guthaben reicht für diese Anfrage nicht: {available} USD verfügbar, "
        "{requested} USD nötig. Guthaben kaufen{link}",
        "fr": "Le crédit ne suffit pas pour cette demande : {available} USD disponibles, "
        "{requested} USD nécessaires. Acheter du crédit{link}",
        "it": "Il credito non basta per questa richiesta: {available} USD disponibili, "
        "{requested} USD necessari. Acquistare credito{link}",
    },
    "cap_exceeded": {
        "en": "The spending limit of this key or device is reached: {available} USD are left.",
        "de": "Die Ausgabengrenze dieses Schlüssels oder Geräts ist erreicht: es bleiben "
        "{available} USD.",
        "fr": "La limite de dépenses de cette clé ou de cet appareil est atteinte : il reste "
        "{available} USD.",
        "it": "Il limite di spesa di questa chiave o di questo dispositivo è raggiunto: restano "
        "{available} USD.",
    },
    "rate_limit_exceeded": {
        "en": "Too many requests in a minute. Try again in {seconds} seconds.",
        "de": "Zu viele Anfragen in einer Minute. Versuchen Sie es in {seconds} Sekunden erneut.",
        "fr": "Trop de demandes en une minute. Réessayez dans {seconds} secondes.",
        "it": "Troppe richieste in un minuto. Riprovare tra {seconds} secondi.",
    },
    "too_many_at_once": {
        "en": "Too many requests at the same time. Try again when one of them has ended.",
        "de": "Zu viele Anfragen zur gleichen Zeit. Versuchen Sie es erneut, wenn eine davon "
        "beendet ist.",
        "fr": "Trop de demandes en même temps. Réessayez lorsque l’une d’elles sera terminée.",
        "it": "Troppe richieste contemporaneamente. Riprovare quando una di esse è terminata.",
    },
    "practice_frozen": {
        "en": "This account is blocked at the moment. Please contact your provider.",
        "de": "Dieses Konto ist zurzeit gesperrt. Bitte wenden Sie sich an Ihren Anbieter.",
        "fr": "Ce compte est actuellement bloqué. Veuillez contacter votre fournisseur.",
        "it": "Questo conto è attualmente bloccato. Si prega di contattare il fornitore.",
    },
    "practice_closed": {
        "en": "This account is closed. Please contact your provider.",
        "de": "Dieses Konto ist geschlossen. Bitte wenden Sie sich an Ihren Anbieter.",
        "fr": "Ce compte est fermé. Veuillez contacter votre fournisseur.",
        "it": "Questo conto è chiuso. Si prega di contattare il fornitore.",
    },
}  # fmt: skip


def language_of(accepted: str) -> str:
    """Choose the language that an Accept-Language header prefers among ours."""
    best, weight = "en", 0
    for part in accepted[:200].split(","):
        tag, _, rest = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        wanted = _weight(rest)
        if name in LANGUAGES and wanted > weight:
            best, weight = name, wanted
    return best


def _weight(text: str) -> int:
    """Read a weight such as q=0.8 in thousandths."""
    number = text.strip().removeprefix("q=").strip()
    if not number:
        return 1000
    whole, _, rest = number.partition(".")
    digits = f"{rest}000"[:3]
    if not (whole in ("0", "1") and digits.isascii() and digits.isdigit()):
        return 0
    return min(1000, int(whole) * 1000 + int(digits))


def say(code: str, language: str, link: str | None, **facts: object) -> str | None:
    """Put a refusal into words, None where there are none of ours."""
    text = TEXTS.get(code)
    if text is None:
        return None
    return text[language].format(link=f": {link}" if link else ".", **facts)
