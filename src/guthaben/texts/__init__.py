"""Texts that a practice reads, in German, French, Italian and English: the only home for them.

`catalogue` holds those of pages and answers, `notices` those of e-mails, `consents` what customers
agreed to, a file for each version, which is never changed. Law: every language has every text, with
the same placeholders (tests compare them), so that a missing one is found before a customer finds
it. German is Swiss German: "ss", never its ligature. Texts for operators and programs are English
and stay where they arise.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

LANGUAGES: Final = ("de", "fr", "it", "en")


def text(name: str, language: str, **values: object) -> str:
    """Give a text by its name, such as `portal.balance`, with its placeholders filled."""
    found = catalogue(language)[name]
    return found.format_map(values) if values else found


def known(name: str) -> bool:
    """Tell whether there is a text of this name."""
    return name in catalogue("en")


@cache
def catalogue(language: str) -> dict[str, str]:
    """Read all texts of a language, by their full names."""
    return dict(_flat(_of_language("catalogue", language)))


def notices(language: str) -> dict[str, Any]:
    """Read the words of notices in a language, as `channels.wording` fills them."""
    return _of_language("notices", language)


def consent(kind: str, version: str, language: str) -> dict[str, str]:
    """Give the exact words that a version of a consent has; `KeyError` for one never written."""
    if version not in consent_versions(kind):
        raise KeyError(f"there is no text {version!r} of the consent {kind!r}")
    found: dict[str, str] = _read("consents", kind, version)[language]
    return found


@cache
def consent_versions(kind: str) -> tuple[str, ...]:
    """List the versions of a consent, the oldest first."""
    names = (entry.name for entry in files(__name__).joinpath("consents", kind).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def _of_language(kind: str, language: str) -> dict[str, Any]:
    if language not in LANGUAGES:
        raise KeyError(f"there are no texts in {language!r}")
    return _read(kind, language)


@cache
def _read(*path: str) -> dict[str, Any]:
    *folders, name = path
    return tomllib.loads(files(__name__).joinpath(*folders, f"{name}.toml").read_text("utf-8"))


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value))
    return flat


def best_language(accept_language: str) -> str | None:
    """Choose among our languages what an `Accept-Language` header asks for; None for none of them.

    The highest weight wins, among equals the first; what can't be read is passed over.
    """
    best, best_weight = None, 0
    for part in accept_language[:500].split(","):
        tag, _, options = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(options)
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(options: str) -> int:
    """Read `q=0.8` as 800 thousandths."""
    name, _, value = options.strip().partition("=")
    if not options.strip():
        return 1_000
    whole, _, rest = value.strip().partition(".")
    plain = name.strip() == "q" and whole in {"0", "1"} and len(rest) <= 3
    if not plain or not (rest == "" or (rest.isascii() and rest.isdigit())):
        return 0
    return min(1_000, int(whole) * 1_000 + int(rest.ljust(3, "0")))
